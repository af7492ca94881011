-- What dashboards show: the last use of each action, and the tokens with a device of their own.

ALTER TABLE tallies ADD COLUMN last_used_at INTEGER;

UPDATE tallies
   SET last_used_at = (SELECT max(last_used_at) FROM tokens WHERE tokens.action = tallies.action);

-- as before, with the columns named
DROP TRIGGER token_added;
CREATE TRIGGER token_added AFTER INSERT ON tokens BEGIN
    INSERT INTO tallies (action, tokens, active, remaining, unlimited)
    SELECT new.action, 1, active, active * coalesce(new.max_uses - new.uses_taken, 0),
           active AND new.max_uses IS NULL
      FROM (SELECT new.live AND coalesce(new.valid_from <= at, 1)
                            AND coalesce(new.expires_at > at, 1) AS active FROM horizon)
     WHERE true
        ON CONFLICT DO UPDATE SET tokens = tokens + 1, active = active + excluded.active,
           remaining = remaining + excluded.remaining, unlimited = unlimited + excluded.unlimited;
END;

CREATE TRIGGER token_used AFTER UPDATE OF last_used_at ON tokens BEGIN
    UPDATE tallies SET last_used_at = max(coalesce(last_used_at, 0), new.last_used_at)
     WHERE action = new.action AND new.last_used_at IS NOT NULL;
END;

CREATE INDEX tokens_with_device ON tokens (seq)
 WHERE revoked_at IS NULL AND coalesce(device, max_uses IS NULL OR max_uses <> 1);
