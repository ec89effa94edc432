-- The index of the audit's records. `seq` is the row's own number, so every index below also sorts by it.

CREATE TABLE record (
    seq      INTEGER PRIMARY KEY,
    id       BLOB NOT NULL,
    call     BLOB NOT NULL,
    trace    BLOB,
    segment  INTEGER NOT NULL,
    offset   INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    kind     TEXT NOT NULL,
    agent    TEXT NOT NULL,
    owner    TEXT NOT NULL,
    team     TEXT NOT NULL,
    upstream TEXT NOT NULL,
    tool     TEXT NOT NULL,
    class    TEXT NOT NULL,
    outcome  TEXT NOT NULL,
    reason   TEXT NOT NULL,
    rule     TEXT NOT NULL,
    run      TEXT NOT NULL,
    hold     TEXT NOT NULL
) STRICT;

CREATE INDEX record_id ON record (id);
CREATE INDEX record_call ON record (call);
CREATE INDEX record_trace ON record (trace) WHERE trace IS NOT NULL;
CREATE INDEX record_agent ON record (agent);
CREATE INDEX record_tool ON record (tool);
CREATE INDEX record_outcome ON record (outcome);
CREATE INDEX record_hold ON record (hold) WHERE hold <> '';

-- How far the audit is indexed; one row at most.
CREATE TABLE place (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    segment INTEGER NOT NULL,
    bytes   INTEGER NOT NULL,
    seq     INTEGER NOT NULL,
    leaf    BLOB NOT NULL
) STRICT;
