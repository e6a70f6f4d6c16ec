//! The journal's tables. Ids and digests are lower-case hexadecimal digits, times RFC 3339 in UTC.

use rusqlite::Connection;

use crate::station::database::{self, Found};

/// Marks the file as a journal of keyferry (`PRAGMA application_id`): "KFJR".
const APPLICATION: i64 = 0x4b46_4a52;

/// The migrations in their order. Append, never change.
const MIGRATIONS: &[&str] = &[
    VERSION_1, VERSION_2, VERSION_3, VERSION_4, VERSION_5, VERSION_6,
];

const VERSION_1: &str = "
CREATE TABLE runs (
    run               TEXT    NOT NULL PRIMARY KEY CHECK (length(run) = 32),
    plan              TEXT    NOT NULL,
    plan_digest       TEXT    NOT NULL CHECK (length(plan_digest) = 64),
    begun_at          TEXT    NOT NULL,
    ended_at          TEXT
) STRICT;

CREATE TABLE units (
    unit              INTEGER NOT NULL PRIMARY KEY,
    run               TEXT    NOT NULL REFERENCES runs (run),
    device            TEXT    NOT NULL CHECK (length(device) = 32),
    port              TEXT    NOT NULL,
    nest              TEXT    NOT NULL,
    serial            TEXT,
    step              TEXT    NOT NULL CHECK (step IN
        ('begun', 'trusted', 'prepared', 'ordered', 'arrived', 'proved', 'locking', 'done', 'failed')),
    reason            TEXT,
    begun_at          TEXT    NOT NULL,
    updated_at        TEXT    NOT NULL
) STRICT;
-- A device is in one place at a time.
CREATE UNIQUE INDEX units_under_way ON units (device) WHERE step NOT IN ('done', 'failed');
CREATE INDEX units_by_run ON units (run);

CREATE TABLE orders (
    digest            TEXT    NOT NULL PRIMARY KEY CHECK (length(digest) = 64),
    unit              INTEGER NOT NULL REFERENCES units (unit),
    kind              TEXT    NOT NULL,
    counter           INTEGER NOT NULL CHECK (counter >= 0),
    state             TEXT    NOT NULL CHECK (state IN ('sent', 'applied', 'not-applied')),
    made_at           TEXT    NOT NULL
) STRICT;
CREATE INDEX orders_by_unit ON orders (unit);

-- The keys of a unit under way. Random ones are wrapped under a key of the token. They go when the unit ends.
CREATE TABLE keys (
    unit              INTEGER NOT NULL REFERENCES units (unit),
    slot              INTEGER NOT NULL CHECK (slot >= 0),
    card              TEXT    NOT NULL,
    PRIMARY KEY (unit, slot)
) STRICT;
";

/// Keys of devices that a backend is to have as well, wrapped for it.
const VERSION_2: &str = "
CREATE TABLE exports (
    unit              INTEGER NOT NULL REFERENCES units (unit),
    slot              INTEGER NOT NULL CHECK (slot >= 0),
    entry             TEXT    NOT NULL,
    blob              BLOB    NOT NULL,
    folder            TEXT,
    PRIMARY KEY (unit, slot)
) STRICT;
CREATE INDEX exports_by_folder ON exports (folder);
";

/// What the registry is still to be told, and what it did not take.
const VERSION_3: &str = "
CREATE TABLE findings (
    number            INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    device            TEXT    NOT NULL CHECK (length(device) = 32),
    finding           TEXT    NOT NULL,
    found_at          TEXT    NOT NULL,
    untaken           TEXT
) STRICT;
";

/// What came of everything, and when, for reports.
const VERSION_4: &str = "
CREATE TABLE endings (
    number            INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    run               TEXT    NOT NULL REFERENCES runs (run),
    nest              TEXT    NOT NULL,
    device            TEXT    CHECK (length(device) = 32),
    serial            TEXT,
    ending            TEXT    NOT NULL CHECK (ending IN ('done', 'before', 'failed', 'not-begun')),
    reason            TEXT,
    took_ms           INTEGER NOT NULL CHECK (took_ms >= 0),
    ended_at          TEXT    NOT NULL
) STRICT;
CREATE INDEX endings_by_run ON endings (run);

CREATE TABLE steps (
    number            INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    run               TEXT    NOT NULL REFERENCES runs (run),
    unit              INTEGER NOT NULL REFERENCES units (unit),
    step              TEXT    NOT NULL,
    at_ms             INTEGER NOT NULL
) STRICT;
CREATE INDEX steps_by_run ON steps (run);
-- No step can be forgotten here, and none costs a transaction of its own.
CREATE TRIGGER units_begun AFTER INSERT ON units BEGIN
    INSERT INTO steps (run, unit, step, at_ms)
    VALUES (NEW.run, NEW.unit, NEW.step, CAST(unixepoch('subsec') * 1000 AS INTEGER));
END;
CREATE TRIGGER units_stepped AFTER UPDATE OF step ON units BEGIN
    INSERT INTO steps (run, unit, step, at_ms)
    VALUES (NEW.run, NEW.unit, NEW.step, CAST(unixepoch('subsec') * 1000 AS INTEGER));
END;
";

/// Which backend a key is wrapped for: the fingerprint of its public key. Of rows from before it is not known.
const VERSION_5: &str = "
ALTER TABLE exports ADD COLUMN recipient TEXT CHECK (length(recipient) = 64);
CREATE INDEX units_by_device ON units (device);
-- A device that was done again has only the keys that came last.
DELETE FROM exports WHERE rowid IN
    (SELECT place FROM
        (SELECT exports.rowid AS place,
                row_number() OVER (PARTITION BY device, slot ORDER BY unit DESC) AS age
         FROM exports JOIN units USING (unit) WHERE step = 'done')
     WHERE age > 1);
";

/// Of which slots a unit's keys were wrapped for a backend: a JSON list. Of units from before it is not known.
const VERSION_6: &str = "ALTER TABLE units ADD COLUMN exported TEXT;";

/// The version that this program writes.
pub(super) fn newest() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// Brings the file up to date, in one transaction.
pub(super) fn migrate(connection: &Connection) -> rusqlite::Result<Found> {
    database::migrate(connection, APPLICATION, MIGRATIONS)
}
