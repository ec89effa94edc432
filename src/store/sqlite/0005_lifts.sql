-- Times are microseconds since 1970, UTC.

-- The table of before was never written; an emergency lifts policies by name, not roles.
DROP TABLE lift;

CREATE TABLE lift (
    id              TEXT PRIMARY KEY,
    rules           TEXT NOT NULL,
    agents          TEXT NOT NULL,
    agent_groups    TEXT NOT NULL,
    upstreams       TEXT NOT NULL,
    by              TEXT NOT NULL,
    evidence        TEXT NOT NULL,
    reason          TEXT NOT NULL,
    at              INTEGER NOT NULL,
    until           INTEGER NOT NULL,
    -- Whether the audit was told of its end.
    ended           INTEGER NOT NULL DEFAULT 0,
    closed_by       TEXT,
    closed_reason   TEXT,
    closed_at       INTEGER,
    reviewed_by     TEXT,
    reviewed_reason TEXT,
    reviewed_at     INTEGER
) STRICT;

CREATE INDEX lift_unreviewed ON lift (until) WHERE reviewed_at IS NULL;
