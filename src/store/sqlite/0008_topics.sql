-- People are told of emergency lifts as well: what happened is about a hold or about a lift.

CREATE TABLE event_of_any (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    kind  TEXT NOT NULL,
    hold  TEXT REFERENCES hold (id) ON DELETE CASCADE,
    lift  TEXT REFERENCES lift (id) ON DELETE CASCADE,
    at    INTEGER NOT NULL,
    -- The members of a JSON object.
    data  BLOB NOT NULL,
    CHECK ((hold IS NULL) <> (lift IS NULL))
) STRICT;

INSERT INTO event_of_any (place, kind, hold, at, data) SELECT place, kind, hold, at, data FROM event;
DROP TABLE event;
ALTER TABLE event_of_any RENAME TO event;

CREATE INDEX event_hold ON event (hold);
CREATE INDEX event_lift ON event (lift);

CREATE TABLE notification_of_any (
    place    INTEGER PRIMARY KEY AUTOINCREMENT,
    id       TEXT NOT NULL UNIQUE,
    webhook  TEXT NOT NULL,
    kind     TEXT NOT NULL,
    hold     TEXT REFERENCES hold (id) ON DELETE CASCADE,
    lift     TEXT REFERENCES lift (id) ON DELETE CASCADE,
    -- Of each topic a webhook is told in order.
    topic    TEXT NOT NULL GENERATED ALWAYS AS (coalesce(hold, lift)) VIRTUAL,
    at       INTEGER NOT NULL,
    data     BLOB NOT NULL,
    attempts INTEGER NOT NULL,
    since    INTEGER NOT NULL,
    next     INTEGER NOT NULL,
    state    TEXT NOT NULL CHECK (state IN ('waiting', 'dead')),
    failure  TEXT NOT NULL,
    CHECK ((hold IS NULL) <> (lift IS NULL))
) STRICT;

INSERT INTO notification_of_any (place, id, webhook, kind, hold, at, data, attempts, since, next, state, failure)
    SELECT place, id, webhook, kind, hold, at, data, attempts, since, next, state, failure FROM notification;
DROP TABLE notification;
ALTER TABLE notification_of_any RENAME TO notification;

CREATE INDEX notification_topic ON notification (topic, webhook, state, place);
CREATE INDEX notification_hold ON notification (hold);
CREATE INDEX notification_lift ON notification (lift);
CREATE INDEX notification_next ON notification (webhook, state, next);
CREATE INDEX notification_state ON notification (state, place);

-- When people were told that nobody has reviewed a lift long after it ended.
ALTER TABLE lift ADD COLUMN unreviewed INTEGER;

-- Every page of the console says how many calls wait: they are counted by this index alone.
CREATE INDEX hold_waiting ON hold (state, agent, consequence, approvers, on_behalf_of, expires) WHERE state = 'pending';
