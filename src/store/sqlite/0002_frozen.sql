-- Runs that flow control has frozen; an empty run is every run of the agent.
CREATE TABLE frozen (
    agent TEXT NOT NULL,
    run   TEXT NOT NULL,
    at    INTEGER NOT NULL,
    why   TEXT NOT NULL,
    PRIMARY KEY (agent, run)
) STRICT, WITHOUT ROWID;
