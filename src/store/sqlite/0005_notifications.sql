-- When people were told that a hold has a quarter of its time left.
ALTER TABLE hold ADD COLUMN expiring INTEGER;

-- Events of before were for nobody.
DROP TABLE outbox;

-- What happened to holds, until it is known whom to tell.
CREATE TABLE event (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    kind  TEXT NOT NULL,
    hold  TEXT NOT NULL REFERENCES hold (id) ON DELETE CASCADE,
    at    INTEGER NOT NULL,
    -- The members of a JSON object.
    data  BLOB NOT NULL
) STRICT;

CREATE INDEX event_hold ON event (hold);

-- What one webhook must still be told, in order, or could not be told.
CREATE TABLE notification (
    place    INTEGER PRIMARY KEY AUTOINCREMENT,
    id       TEXT NOT NULL UNIQUE,
    webhook  TEXT NOT NULL,
    kind     TEXT NOT NULL,
    hold     TEXT NOT NULL REFERENCES hold (id) ON DELETE CASCADE,
    at       INTEGER NOT NULL,
    data     BLOB NOT NULL,
    attempts INTEGER NOT NULL,
    since    INTEGER NOT NULL,
    next     INTEGER NOT NULL,
    state    TEXT NOT NULL CHECK (state IN ('waiting', 'dead')),
    failure  TEXT NOT NULL
) STRICT;

CREATE INDEX notification_hold ON notification (hold, webhook, state, place);
CREATE INDEX notification_next ON notification (webhook, state, next);
CREATE INDEX notification_state ON notification (state, place);
