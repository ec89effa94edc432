-- Times are microseconds since 1970, UTC.

CREATE TABLE suspension (
    id             INTEGER PRIMARY KEY,
    agent          TEXT NOT NULL,
    by             TEXT NOT NULL,
    reason         TEXT NOT NULL,
    at             INTEGER NOT NULL,
    resumed_by     TEXT,
    resumed_reason TEXT,
    resumed_at     INTEGER,
    CHECK ((resumed_by IS NULL) = (resumed_at IS NULL) AND (resumed_reason IS NULL) = (resumed_at IS NULL))
) STRICT;

-- An agent is suspended once at a time.
CREATE UNIQUE INDEX suspension_in_force ON suspension (agent) WHERE resumed_at IS NULL;
CREATE INDEX suspension_history ON suspension (agent, id);

CREATE TABLE sight (
    upstream    TEXT NOT NULL,
    tool        TEXT NOT NULL,
    digest      TEXT NOT NULL,
    first_seen  INTEGER NOT NULL,
    last_seen   INTEGER NOT NULL,
    bytes       INTEGER NOT NULL,
    definition  TEXT NOT NULL,
    accepted_by TEXT,
    accepted_at INTEGER,
    PRIMARY KEY (upstream, tool, digest),
    CHECK ((accepted_by IS NULL) = (accepted_at IS NULL))
) STRICT;

CREATE TABLE label (
    agent TEXT NOT NULL,
    run   TEXT NOT NULL,
    label TEXT NOT NULL,
    at    INTEGER NOT NULL,
    PRIMARY KEY (agent, run, label)
) STRICT, WITHOUT ROWID;

-- How far the audit had come when the labels were kept; one row at most.
CREATE TABLE label_place (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    segment INTEGER NOT NULL,
    bytes   INTEGER NOT NULL,
    seq     INTEGER NOT NULL,
    leaf    BLOB NOT NULL
) STRICT;
