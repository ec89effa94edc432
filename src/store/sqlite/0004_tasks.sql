-- Times are microseconds since 1970, UTC.

CREATE TABLE task (
    id           TEXT PRIMARY KEY,
    by           TEXT NOT NULL,
    agents       TEXT NOT NULL,
    destinations TEXT NOT NULL,
    systems      TEXT NOT NULL,
    purpose      TEXT NOT NULL,
    instance     TEXT,
    parent       TEXT,
    above        TEXT NOT NULL,
    at           INTEGER NOT NULL,
    until        INTEGER NOT NULL
) STRICT;

-- What a destination is endorsed for.
ALTER TABLE endorsement ADD COLUMN sink TEXT NOT NULL DEFAULT '';
ALTER TABLE endorsement ADD COLUMN confidentiality TEXT NOT NULL DEFAULT 'public';
ALTER TABLE endorsement ADD COLUMN rule TEXT NOT NULL DEFAULT '';
