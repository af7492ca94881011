/** What the admin API answers. Times are ISO 8601 in UTC. */

export type TokenState = "active" | "scheduled" | "paused" | "used_up" | "expired" | "revoked";
export type SubmissionState = "running" | "executed" | "failed" | "unconfirmed";
export type ConnectionState = "connected" | "connecting" | "refused" | "off";
export type Scope = "read" | "mint" | "admin";

export interface Page<Item> {
  items: Item[];
  next: number | string | null;
}

export interface Session {
  user: { id: string; name: string };
  via: "home_assistant" | "ingress" | "api_key" | "socket";
  version: string;
  title: string;
  base_url: string;
  time_zone: string;
  can_log_out: boolean;
  home_assistant: { configured: "token" | "login" | "none" | "supervisor"; url: string };
}

export interface Connection {
  state: ConnectionState;
  since: string | null;
  error: string | null;
  version: string | null;
}

export interface Status {
  version: string;
  home_assistant: Connection;
  mqtt: Connection;
  event_error: string | null;
  notification_error: string | null;
  counts: {
    actions: number;
    tokens: number;
    active_tokens: number;
    remaining_uses: number | null;
    submissions: number;
    running_submissions: number;
    waiting_events: number;
    waiting_notifications: number;
  };
}

/** `null` is without limit, or without end. */
export interface Defaults {
  max_uses?: number | null;
  expires_in?: string | null;
}

export interface Action {
  name: string;
  title: string;
  yaml: string;
  defaults: Defaults;
  updated_at?: string | null;
  warnings?: string[];
}

export interface Target {
  kind: string;
  id: string;
  name: string | null;
  state: string | null;
}

export interface Validation {
  valid: true;
  warnings: string[];
  services: string[];
  targets: Target[];
}

export interface Ran {
  state: "executed";
  context_id: string | null;
  response: unknown;
}

export interface Token {
  id: string;
  action: string;
  comment: string | null;
  max_uses: number | null;
  uses_left: number | null;
  state: TokenState;
  valid_from: string | null;
  expires_at: string | null;
  created_at: string;
  created_by: string;
  last_used_at: string | null;
  device: boolean | null;
  /** Whether its code was imported, and can be guessed more easily than ours. */
  weak?: true;
}

/** The answer of minting, rotating and duplicating. */
export interface Minted extends Token {
  url: string;
}

export interface Mint {
  action: string;
  comment?: string | null;
  max_uses?: number | null;
  valid_from?: string | null;
  expires_at?: string | null;
  expires_in?: string | null;
  device?: boolean | null;
}

export type Edit = Partial<Pick<Token, "comment" | "max_uses" | "valid_from" | "expires_at">>;

export interface Submission {
  id: number;
  token_id: string;
  action: string;
  state: SubmissionState;
  reason: string | null;
  started_at: string;
  finished_at: string | null;
  uses_left: number | null;
  /** Whether the use was not given back. */
  spent: boolean;
  error: string | null;
  remote_ip: string | null;
  user_agent: string | null;
  context_id: string | null;
}

export interface Day {
  day: string;
  executed: number;
  failed: number;
  unconfirmed: number;
}

export interface HomeAction {
  name: string;
  title: string;
  description: string;
  fields: { name: string; description: string; required: boolean; example: unknown }[];
  target: boolean;
}

export interface HomeEntity {
  entity_id: string;
  name: string | null;
  state: string | null;
}

export interface ApiKey {
  id: string;
  name: string;
  scope: Scope;
  actions: string[] | null;
  created_at: string;
  created_by: string;
  expires_at: string | null;
  last_used_at: string | null;
}

export interface NewApiKey {
  name: string;
  scope: Scope;
  actions?: string[];
  expires_in?: string;
  expires_at?: string;
}

/** What becomes of an entry of an imported file. */
export type ImportOutcome = "taken" | "changed" | "known" | "refused";

export interface ImportedAction {
  /** What it is called in the file. */
  source: string;
  name: string | null;
  title: string | null;
  yaml: string | null;
  outcome: ImportOutcome;
  notes: string[];
  /** What Home Assistant does not have at the moment. */
  warnings: string[];
}

export interface ImportedToken {
  /** Its place in the file; it has an id when it is here. */
  number: number;
  id: string | null;
  action: string | null;
  comment: string | null;
  max_uses: number | null;
  uses_left: number | null;
  expires_at: string | null;
  outcome: ImportOutcome;
  notes: string[];
}

/** What became of every entry of a file, or, after a dry run, what would. */
export interface Import {
  dry_run: boolean;
  counts: Record<ImportOutcome, number>;
  actions: ImportedAction[];
  tokens: ImportedToken[];
}

export interface FoundImport extends Import {
  path: string;
  digest: string;
  modified_at: string;
}

/** What an event of the stream carries; an item that is null was deleted. */
export interface Change<Item> {
  id: string | number;
  item: Item | null;
}
