/** The admin API. Every address is relative: the page may be served below any path. */

import type {
  Action,
  ApiKey,
  Day,
  Edit,
  FoundImport,
  HomeAction,
  HomeEntity,
  Import,
  Mint,
  Minted,
  NewApiKey,
  Page,
  Ran,
  Session,
  Status,
  Submission,
  SubmissionState,
  Token,
  TokenState,
  Validation,
} from "./types";

export const ROOT = "api/v1";

/** The daemon refused, and says why. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
    readonly errors: { loc: (string | number)[]; msg: string }[],
  ) {
    super(detail);
  }

  /** What is wrong with one field, if anything is. */
  fault(field: string): string | undefined {
    return this.errors.find(({ loc }) => loc[0] === field)?.msg;
  }
}

/** Nobody answered. */
export class Away extends Error {
  constructor() {
    super("otsd does not answer.");
  }
}

type Query = Record<string, string | number | boolean | null | undefined>;

interface Given {
  query?: Query | undefined;
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal | undefined;
}

/** The address of an API path, for links and pictures. */
export function address(path: string, query: Query = {}): string {
  const given = Object.entries(query).filter(([, value]) => value != null && value !== "");
  const text = new URLSearchParams(given.map(([key, value]) => [key, String(value)])).toString();
  return `${ROOT}/${path}${text && `?${text}`}`;
}

async function call<Answer>(method: string, path: string, given: Given = {}): Promise<Answer> {
  const headers: Record<string, string> = { Accept: "application/json", ...given.headers };
  let body: string | Blob | null = null;
  if (given.body !== undefined) {
    headers["Content-Type"] = "application/json";
    body = given.body instanceof Blob ? given.body : JSON.stringify(given.body);
  }
  let response: Response;
  let text: string;
  try {
    response = await fetch(address(path, given.query), {
      method,
      headers,
      body,
      signal: given.signal ?? null,
      cache: "no-store",
    });
    text = await response.text();
  } catch (error) {
    if (given.signal?.aborted) throw error;
    throw new Away();
  }
  if (response.ok) return (text ? JSON.parse(text) : undefined) as Answer;
  const problem = problemOf(response.status, text);
  if (response.status === 401) logIn();
  throw problem;
}

function problemOf(status: number, text: string): Problem {
  try {
    const { code, detail, errors } = JSON.parse(text);
    if (typeof code === "string") return new Problem(status, code, String(detail), errors ?? []);
  } catch {
    // no problem document: it comes from a proxy in between
  }
  if (status >= 502 && status <= 504) throw new Away();
  return new Problem(status, "unknown", `otsd answered with the status ${status}.`, []);
}

const RETURN_TO = "otsd.return-to";

const LEAVING = 60_000;

let isLoggingOut = false;

/** Lead to the login again. */
function stay(): void {
  isLoggingOut = false;
}

addEventListener("pageshow", stay); // the browser may have kept the page

/** Lead to no login any more: who leaves is not to be brought back by a request that comes too late. */
export function logOut(): void {
  isLoggingOut = true;
  setTimeout(stay, LEAVING); // what is still here then did not leave
}

/** Go to the login, and come back to where the page is. */
export function logIn(): void {
  if (isLoggingOut) return;
  if (location.hash) sessionStorage.setItem(RETURN_TO, location.hash);
  location.assign("login");
}

/** Be where the page was before the login. */
export function returnFromLogin(): void {
  const hash = sessionStorage.getItem(RETURN_TO);
  sessionStorage.removeItem(RETURN_TO);
  if (hash && !location.hash) location.replace(hash);
}

const part = encodeURIComponent;
const ONE_TIME_SERVICE = "imports/one-time-service";

export interface TokenFilter extends Query {
  state?: TokenState | "" | undefined;
  action?: string | undefined;
  q?: string | undefined;
}

export interface SubmissionFilter extends Query {
  token?: string | undefined;
  state?: SubmissionState | "" | undefined;
}

/** Where a page of a list begins and ends. */
export interface Window {
  cursor?: Page<unknown>["next"] | undefined;
  limit?: number | undefined;
  signal?: AbortSignal | undefined;
}

function list<Item>(path: string, filter: Query, { cursor, limit, signal }: Window) {
  return call<Page<Item>>("GET", path, { query: { ...filter, limit, cursor }, signal });
}

export const api = {
  session: () => call<Session>("GET", "session"),
  status: () => call<Status>("GET", "status"),

  actions: (window: Window = {}) => list<Action>("actions", {}, window),
  action: (name: string) => call<Action>("GET", `actions/${part(name)}`),
  createAction: (body: Omit<Action, "updated_at" | "warnings">) =>
    call<Action>("POST", "actions", { body }),
  replaceAction: (name: string, body: Omit<Action, "name" | "updated_at" | "warnings">) =>
    call<Action>("PUT", `actions/${part(name)}`, { body }),
  deleteAction: (name: string, force = false) =>
    call<void>("DELETE", `actions/${part(name)}`, { query: { force: force || null } }),
  runAction: (name: string) => call<Ran>("POST", `actions/${part(name)}/run`),
  validateAction: (yaml: string, signal?: AbortSignal) =>
    call<Validation>("POST", "actions/validate", { body: { yaml }, signal }),

  tokens: (filter: TokenFilter = {}, window: Window = {}) => list<Token>("tokens", filter, window),
  token: (id: string) => call<Token>("GET", `tokens/${part(id)}`),
  /** A repeated `key` gets the first token again. */
  mint: (body: Mint, key: string) =>
    call<Minted>("POST", "tokens", { body, headers: { "Idempotency-Key": key } }),
  editToken: (id: string, body: Edit) => call<Token>("PATCH", `tokens/${part(id)}`, { body }),
  changeToken: (id: string, verb: "revoke" | "pause" | "resume" | "replenish") =>
    call<Token>("POST", `tokens/${part(id)}/${verb}`),
  rotateToken: (id: string) => call<Minted>("POST", `tokens/${part(id)}/rotate`),
  duplicateToken: (id: string) => call<Minted>("POST", `tokens/${part(id)}/duplicate`),
  deleteToken: (id: string) => call<void>("DELETE", `tokens/${part(id)}`),
  link: (id: string) => call<{ url: string }>("GET", `tokens/${part(id)}/link`),
  qr: (id: string, kind: "svg" | "png" = "svg") => address(`tokens/${part(id)}/qr.${kind}`),

  submissions: (filter: SubmissionFilter = {}, window: Window = {}) =>
    list<Submission>("submissions", filter, window),
  refund: (id: number) => call<Submission>("POST", `submissions/${id}/refund`),
  daily: (days = 28) => call<{ items: Day[] }>("GET", "submissions/daily", { query: { days } }),
  csv: () => address("submissions.csv"),

  homeActions: () => call<{ items: HomeAction[] }>("GET", "home-assistant/actions"),
  homeEntities: () => call<{ items: HomeEntity[] }>("GET", "home-assistant/entities"),
  retryHome: () => call<void>("POST", "home-assistant/retry"),
  retryBroker: () => call<void>("POST", "mqtt/retry"),
  disconnectHome: () => call<void>("POST", "home-assistant/disconnect"),

  apiKeys: (window: Window = {}) => list<ApiKey>("api-keys", {}, window),
  createApiKey: (body: NewApiKey) => call<ApiKey & { key: string }>("POST", "api-keys", { body }),
  deleteApiKey: (id: string) => call<void>("DELETE", `api-keys/${part(id)}`),

  /** What would become of the file of One Time Service that is there; 404 when none is. */
  foundImport: () => call<FoundImport>("GET", ONE_TIME_SERVICE),
  /** Take it over; 409 when it is another one than the digest's. */
  takeFoundImport: (digest: string) =>
    call<FoundImport>("POST", ONE_TIME_SERVICE, { body: { digest } }),
  /** Take a file over, or say what would become of it. */
  takeImport: (file: Blob, dry_run: boolean) =>
    call<Import>("POST", "imports", { query: { dry_run }, body: file }),
};
