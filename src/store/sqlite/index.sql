-- The index of the audit's records, in blocks of records that follow each other.

CREATE TABLE block (
    -- The number of the block's first record; the block's own number.
    first   INTEGER PRIMARY KEY,
    last    INTEGER NOT NULL,
    records INTEGER NOT NULL,
    segment INTEGER NOT NULL,
    -- The earliest and the latest time in it, in microseconds since 1970.
    since   INTEGER NOT NULL,
    until   INTEGER NOT NULL,
    rows    BLOB NOT NULL
) STRICT;

CREATE INDEX block_time ON block (first, since, until);

-- What a block can be found by: a letter that says what it is, and the text.
CREATE TABLE mark (
    mark  TEXT NOT NULL,
    block INTEGER NOT NULL,
    PRIMARY KEY (mark, block)
) STRICT, WITHOUT ROWID;

-- How far the audit is indexed; one row at most.
CREATE TABLE place (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    segment INTEGER NOT NULL,
    bytes   INTEGER NOT NULL,
    seq     INTEGER NOT NULL,
    leaf    BLOB NOT NULL
) STRICT;
