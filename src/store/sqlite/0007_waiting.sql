-- The record of the call that opened it.
ALTER TABLE hold ADD COLUMN call TEXT;

-- What is looked for while many wait: who of them is due, and how many of one agent there are.
CREATE INDEX hold_escalates ON hold (escalates) WHERE state = 'pending' AND escalated IS NULL;
CREATE INDEX hold_expiring ON hold (expires - (expires - opened) / 4) WHERE state = 'pending' AND expiring IS NULL;

DROP INDEX hold_agent;
CREATE INDEX hold_agent ON hold (agent, state, expires);
