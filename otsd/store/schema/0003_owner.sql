-- Who may enter the owner's side. Neither a session's id nor a key is kept, only its SHA-256.

CREATE TABLE sessions (
    digest BLOB PRIMARY KEY,
    user_id TEXT NOT NULL,
    user_name TEXT NOT NULL,
    refresh BLOB NOT NULL, -- encrypted
    created_at INTEGER NOT NULL,
    seen_at INTEGER NOT NULL,
    asked_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE api_keys (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    digest BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    scope TEXT NOT NULL,
    actions TEXT NOT NULL, -- a JSON list of names
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    expires_at INTEGER,
    last_used_at INTEGER
) STRICT;

-- what a key has minted, among a million others
CREATE INDEX tokens_of_key ON tokens (created_by) WHERE created_by GLOB 'key:*';

-- the chart of the last weeks
CREATE INDEX submissions_begun ON submissions (started_at);
