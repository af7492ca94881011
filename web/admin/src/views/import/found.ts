/** The file that One Time Service left, which otsd finds where both are add-ons. */

import { api, Problem } from "../../api";
import { live } from "../../store/live";
import type { FoundImport } from "../../types";

/** Return what would become of it, or nothing where there is none. */
export async function findImport(): Promise<FoundImport | null> {
  live.session ??= await api.session();
  if (live.session.home_assistant.configured !== "supervisor") return null;
  try {
    return await api.foundImport();
  } catch (error) {
    if (error instanceof Problem && error.code === "no_import") return null;
    throw error;
  }
}
