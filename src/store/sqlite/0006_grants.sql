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

-- An approval of one call that stands for more than one execution.
CREATE TABLE standing (
    id              TEXT PRIMARY KEY,
    hold            TEXT NOT NULL,
    digest          BLOB NOT NULL,
    agent           TEXT NOT NULL,
    upstream        TEXT NOT NULL,
    tool            TEXT NOT NULL,
    consequence_max INTEGER NOT NULL,
    people          TEXT NOT NULL,
    by              TEXT NOT NULL,
    reason          TEXT NOT NULL,
    at              INTEGER NOT NULL,
    until           INTEGER NOT NULL,
    times           INTEGER NOT NULL,
    used            INTEGER NOT NULL DEFAULT 0,
    revoked_by      TEXT,
    revoked_reason  TEXT,
    revoked_at      INTEGER,
    CHECK (used <= times)
) STRICT;

CREATE INDEX standing_call ON standing (digest, until);

-- The standing approval that a hold is executed by, and which use of it that is.
ALTER TABLE hold ADD COLUMN standing TEXT;
ALTER TABLE hold ADD COLUMN use INTEGER NOT NULL DEFAULT 0;

CREATE INDEX hold_standing ON hold (standing) WHERE standing IS NOT NULL;
