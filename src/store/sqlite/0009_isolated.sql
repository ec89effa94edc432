-- Whether the calls of a task are judged by less than all that its agent has read.
ALTER TABLE task ADD COLUMN isolated INTEGER NOT NULL DEFAULT 0 CHECK (isolated IN (0, 1));
