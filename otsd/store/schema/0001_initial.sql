-- Instants are milliseconds since 1970 in UTC, lengths are seconds.

-- facts about this database: the fingerprint of the key that its codes are made with
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE actions (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    title TEXT NOT NULL,
    yaml TEXT NOT NULL,
    steps TEXT NOT NULL,
    max_uses INTEGER,
    expires_in INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE TABLE tokens (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    lookup INTEGER NOT NULL UNIQUE,
    action TEXT NOT NULL,
    comment TEXT NOT NULL,
    max_uses INTEGER,
    uses_taken INTEGER NOT NULL CHECK (uses_taken >= 0),
    round INTEGER NOT NULL,
    valid_from INTEGER,
    expires_at INTEGER,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    last_used_at INTEGER,
    revoked_at INTEGER,
    paused INTEGER NOT NULL,
    device INTEGER,
    -- whether time alone decides if it is active
    live INTEGER NOT NULL GENERATED ALWAYS AS (
        revoked_at IS NULL AND paused = 0 AND (max_uses IS NULL OR uses_taken < max_uses)
    ) VIRTUAL,
    CHECK (max_uses IS NULL OR uses_taken <= max_uses)
) STRICT;

CREATE INDEX tokens_of_action ON tokens (action);
CREATE INDEX tokens_using ON tokens (action) WHERE revoked_at IS NULL;
CREATE INDEX tokens_revoked ON tokens (seq) WHERE revoked_at IS NOT NULL;
CREATE INDEX tokens_paused ON tokens (seq) WHERE paused = 1;
CREATE INDEX tokens_beginning ON tokens (valid_from) WHERE live AND valid_from IS NOT NULL;
CREATE INDEX tokens_ending ON tokens (expires_at) WHERE live AND expires_at IS NOT NULL;

-- lookup ids whose links were rotated away: they are answered as revoked
CREATE TABLE rotated (
    lookup INTEGER PRIMARY KEY,
    token INTEGER NOT NULL REFERENCES tokens (seq) ON DELETE CASCADE
) STRICT;
CREATE INDEX rotated_of_token ON rotated (token);

CREATE TABLE submissions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    token INTEGER NOT NULL REFERENCES tokens (seq) ON DELETE CASCADE,
    action TEXT NOT NULL,
    attempt TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    started_at INTEGER NOT NULL,
    finished_at INTEGER,
    uses_left INTEGER,
    spent INTEGER NOT NULL,
    round INTEGER NOT NULL,
    error TEXT,
    remote_ip TEXT,
    user_agent TEXT,
    context_id TEXT,
    UNIQUE (token, attempt)
) STRICT;

CREATE INDEX submissions_of_token ON submissions (token);
CREATE INDEX submissions_not_executed ON submissions (state) WHERE state <> 'executed';

-- what is left of pruned submissions: a repeated attempt gets its first outcome for as long as
-- there is the token
CREATE TABLE attempts (
    token INTEGER NOT NULL REFERENCES tokens (seq) ON DELETE CASCADE,
    attempt TEXT NOT NULL,
    submission INTEGER NOT NULL,
    action TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    started_at INTEGER NOT NULL,
    finished_at INTEGER,
    uses_left INTEGER,
    spent INTEGER NOT NULL,
    PRIMARY KEY (token, attempt)
) STRICT, WITHOUT ROWID;

-- what Home Assistant has not confirmed yet, each queue in order
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL,
    payload TEXT NOT NULL,
    finished_at INTEGER NOT NULL
) STRICT;
CREATE INDEX outbox_queue ON outbox (queue);

-- requests to mint that may be repeated; never the link, which is made again from the token
CREATE TABLE requests (
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    digest BLOB NOT NULL,
    token_id TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX requests_age ON requests (created_at);

-- Counts that cost nothing. `tallies` holds, for each action, what is active at `horizon`;
-- the triggers keep it true while tokens change, and moving the horizon keeps it true while
-- time passes (only tokens that begin or end in between are looked at).
CREATE TABLE horizon (only INTEGER PRIMARY KEY CHECK (only = 1), at INTEGER NOT NULL) STRICT;
INSERT INTO horizon VALUES (1, 0);

CREATE TABLE tallies (
    action TEXT PRIMARY KEY,
    tokens INTEGER NOT NULL,
    active INTEGER NOT NULL,
    remaining INTEGER NOT NULL,
    unlimited INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE totals (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO totals VALUES ('submissions', 0);

CREATE TRIGGER token_added AFTER INSERT ON tokens BEGIN
    INSERT INTO tallies
    SELECT new.action, 1, active, active * coalesce(new.max_uses - new.uses_taken, 0),
           active AND new.max_uses IS NULL
      FROM (SELECT new.live AND coalesce(new.valid_from <= at, 1)
                            AND coalesce(new.expires_at > at, 1) AS active FROM horizon)
     WHERE true
        ON CONFLICT DO UPDATE SET tokens = tokens + 1, active = active + excluded.active,
           remaining = remaining + excluded.remaining, unlimited = unlimited + excluded.unlimited;
END;

CREATE TRIGGER token_removed AFTER DELETE ON tokens BEGIN
    UPDATE tallies
       SET tokens = tokens - 1, active = tallies.active - was.active,
           remaining = remaining - was.active * coalesce(old.max_uses - old.uses_taken, 0),
           unlimited = unlimited - (was.active AND old.max_uses IS NULL)
      FROM (SELECT old.live AND coalesce(old.valid_from <= at, 1)
                            AND coalesce(old.expires_at > at, 1) AS active FROM horizon) AS was
     WHERE action = old.action;
END;

CREATE TRIGGER token_changed AFTER UPDATE OF
    uses_taken, max_uses, valid_from, expires_at, revoked_at, paused ON tokens BEGIN
    UPDATE tallies
       SET active = tallies.active + is_now.active - was.active,
           remaining = remaining + is_now.active * coalesce(new.max_uses - new.uses_taken, 0)
                                 - was.active * coalesce(old.max_uses - old.uses_taken, 0),
           unlimited = unlimited + (is_now.active AND new.max_uses IS NULL)
                                 - (was.active AND old.max_uses IS NULL)
      FROM (SELECT old.live AND coalesce(old.valid_from <= at, 1)
                            AND coalesce(old.expires_at > at, 1) AS active FROM horizon) AS was,
           (SELECT new.live AND coalesce(new.valid_from <= at, 1)
                            AND coalesce(new.expires_at > at, 1) AS active FROM horizon) AS is_now
     WHERE action = new.action;
END;

CREATE TRIGGER submission_added AFTER INSERT ON submissions BEGIN
    UPDATE totals SET value = value + 1 WHERE name = 'submissions';
END;

CREATE TRIGGER submission_removed AFTER DELETE ON submissions BEGIN
    UPDATE totals SET value = value - 1 WHERE name = 'submissions';
END;
