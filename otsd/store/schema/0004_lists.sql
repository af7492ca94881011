-- Lists of one state, newest first, however few of a million are in it. Time decides about some
-- states, so no index holds those in order: they are found by when they begin or end, if they are
-- few, and met on the way if they are many.

CREATE INDEX tokens_live ON tokens (seq) WHERE live;
CREATE INDEX tokens_endless ON tokens (seq) WHERE live AND expires_at IS NULL;
CREATE INDEX tokens_used_up ON tokens (seq)
 WHERE revoked_at IS NULL AND max_uses IS NOT NULL AND uses_taken >= max_uses;
CREATE INDEX tokens_used_up_ending ON tokens (expires_at)
 WHERE revoked_at IS NULL AND max_uses IS NOT NULL AND uses_taken >= max_uses;
CREATE INDEX tokens_expiring ON tokens (expires_at)
 WHERE revoked_at IS NULL AND expires_at IS NOT NULL;

-- the chart counts by state, and need not look at the submissions themselves
DROP INDEX submissions_begun;
CREATE INDEX submissions_begun ON submissions (started_at, state);
