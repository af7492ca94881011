/** Giving a use back that stayed spent. */

import { api } from "../../api";
import type { LiveList } from "../../store/live-list";
import type { Submission } from "../../types";
import { toast, toastError } from "../../ui/toast";

/** Give back the use of a submission, and show it so in the list. */
export async function giveBack(list: LiveList<Submission>, id: Submission["id"]): Promise<void> {
  try {
    list.apply({ id, item: await api.refund(id) });
    toast("The use was given back.");
  } catch (error) {
    toastError(error);
  }
}
