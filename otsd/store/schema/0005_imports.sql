-- Links that came from elsewhere. Their codes carry no proof of ours, so each is known by its HMAC.

-- whether its link is still the one that it came with
ALTER TABLE tokens ADD COLUMN weak INTEGER NOT NULL DEFAULT 0;

-- A row stays when its token is deleted: what was deleted is not taken once more. No other token
-- ever gets its number, so the row leads nowhere then.
CREATE TABLE imported_codes (
    digest BLOB PRIMARY KEY,
    token INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- what an action was called where it came from
CREATE TABLE imported_actions (
    source TEXT PRIMARY KEY,
    name TEXT NOT NULL
) STRICT, WITHOUT ROWID;
