-- Times are microseconds since 1970, UTC.

CREATE TABLE hold (
    id           TEXT PRIMARY KEY,
    state        TEXT NOT NULL CHECK (state IN ('pending', 'approved', 'denied', 'expired', 'withdrawn', 'releasing',
                                                'executed', 'failed', 'indeterminate')),
    digest       BLOB NOT NULL,
    idempotency  BLOB,
    agent        TEXT NOT NULL,
    owner        TEXT NOT NULL,
    team         TEXT NOT NULL,
    task         TEXT NOT NULL,
    on_behalf_of TEXT NOT NULL,
    upstream     TEXT NOT NULL,
    tool         TEXT NOT NULL,
    class        TEXT NOT NULL,
    consequence  INTEGER NOT NULL,
    rule         TEXT NOT NULL,
    reason       TEXT NOT NULL,
    run          TEXT NOT NULL,
    revision     TEXT NOT NULL,
    idempotent   INTEGER NOT NULL,
    quorum       INTEGER NOT NULL,
    approvers    TEXT NOT NULL,
    opened       INTEGER NOT NULL,
    escalates    INTEGER NOT NULL,
    escalated    INTEGER,
    expires      INTEGER NOT NULL,
    changed      INTEGER NOT NULL,
    lease_by     TEXT,
    lease_until  INTEGER,
    record       TEXT,
    detail       TEXT NOT NULL,
    -- Erased when the hold has ended.
    bytes        BLOB,
    -- Erased when the hold's time is over.
    result       BLOB
) STRICT;

CREATE INDEX hold_result ON hold (expires) WHERE result IS NOT NULL;

CREATE INDEX hold_call ON hold (digest, expires);
CREATE INDEX hold_idempotency ON hold (idempotency, expires) WHERE idempotency IS NOT NULL;
CREATE INDEX hold_state ON hold (state, expires);
CREATE INDEX hold_agent ON hold (agent, state);
CREATE INDEX hold_changed ON hold (changed);

CREATE TABLE vote (
    hold     TEXT NOT NULL REFERENCES hold (id) ON DELETE CASCADE,
    place    INTEGER NOT NULL,
    by       TEXT NOT NULL,
    email    TEXT NOT NULL,
    roles    TEXT NOT NULL,
    says     TEXT NOT NULL CHECK (says IN ('approve', 'deny')),
    reason   TEXT NOT NULL,
    digest   BLOB NOT NULL,
    evidence TEXT NOT NULL,
    at       INTEGER NOT NULL,
    PRIMARY KEY (hold, place),
    -- Nobody votes twice.
    UNIQUE (hold, by)
) STRICT;

-- What whoever is notified must still be told.
CREATE TABLE outbox (
    place    INTEGER PRIMARY KEY AUTOINCREMENT,
    id       TEXT NOT NULL UNIQUE,
    kind     TEXT NOT NULL,
    hold     TEXT NOT NULL REFERENCES hold (id) ON DELETE CASCADE,
    at       INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    next     INTEGER NOT NULL,
    dead     INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX outbox_hold ON outbox (hold);

-- What the audit does not have yet.
CREATE TABLE audit_row (
    place   INTEGER PRIMARY KEY AUTOINCREMENT,
    id      TEXT NOT NULL UNIQUE,
    kind    TEXT NOT NULL,
    at      INTEGER NOT NULL,
    members BLOB NOT NULL
) STRICT;

CREATE TABLE endorsement (
    id              TEXT PRIMARY KEY,
    agent           TEXT NOT NULL,
    upstream        TEXT NOT NULL,
    tool            TEXT NOT NULL,
    destination     TEXT NOT NULL,
    consequence_max INTEGER NOT NULL,
    hold            TEXT,
    by              TEXT NOT NULL,
    reason          TEXT NOT NULL,
    at              INTEGER NOT NULL,
    until           INTEGER NOT NULL,
    revoked_by      TEXT,
    revoked_reason  TEXT,
    revoked_at      INTEGER
) STRICT;

CREATE INDEX endorsement_agent ON endorsement (agent, until);

CREATE TABLE lift (
    id            TEXT PRIMARY KEY,
    agents        TEXT NOT NULL,
    roles         TEXT NOT NULL,
    by            TEXT NOT NULL,
    reason        TEXT NOT NULL,
    at            INTEGER NOT NULL,
    until         INTEGER NOT NULL,
    closed_by     TEXT,
    closed_reason TEXT,
    closed_at     INTEGER
) STRICT;
