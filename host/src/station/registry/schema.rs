//! The tables, and how an older file is brought up to date.
//!
//! A PostgreSQL server holds the same tables; it calls two of the types otherwise. Ids, fingerprints and digests are lower-case
//! hexadecimal digits, times RFC 3339 in UTC, so that people can read the file with any tool.

use rusqlite::Connection;

use crate::station::database::{self, Found};

/// Marks the file as a registry of keyferry (`PRAGMA application_id`): "KFRG".
pub(super) const APPLICATION: i64 = 0x4b46_5247;

/// The migrations in their order: the first makes the tables of version 1 in an empty file, and so on. Append, never change: files
/// of every version are out there.
pub(super) const MIGRATIONS: &[&str] = &[VERSION_1, VERSION_2, VERSION_3];

const VERSION_1: &str = "
CREATE TABLE devices (
    device            TEXT    NOT NULL PRIMARY KEY CHECK (length(device) = 32),
    identity          TEXT    NOT NULL UNIQUE CHECK (length(identity) = 64),
    identity_key      BLOB    NOT NULL,
    unwrap            TEXT    NOT NULL UNIQUE CHECK (length(unwrap) = 64),
    unwrap_key        BLOB    NOT NULL,
    suites            TEXT    NOT NULL,
    board             TEXT    NOT NULL,
    firmware          TEXT    NOT NULL,
    flavour           TEXT    NOT NULL,
    rng               TEXT    NOT NULL,
    root_key          TEXT    NOT NULL,
    authority         TEXT    NOT NULL CHECK (length(authority) = 64),
    epoch             INTEGER NOT NULL CHECK (epoch >= 0),
    state             TEXT    NOT NULL,
    counter           INTEGER NOT NULL CHECK (counter >= 0),
    serial            TEXT    UNIQUE,
    statement         BLOB    NOT NULL,
    statement_signature BLOB  NOT NULL CHECK (length(statement_signature) = 64),
    latest            BLOB    NOT NULL,
    latest_signature  BLOB    NOT NULL CHECK (length(latest_signature) = 64),
    certificate       BLOB,
    policy            TEXT    NOT NULL,
    reason            TEXT    NOT NULL,
    enrolled_at       TEXT    NOT NULL,
    updated_at        TEXT    NOT NULL,
    released_at       TEXT,
    release_reason    TEXT,
    CHECK ((released_at IS NULL) = (release_reason IS NULL))
) STRICT;

-- Keys that a device had before it was released and enrolled again. They never come back.
CREATE TABLE former_keys (
    identity          TEXT    NOT NULL PRIMARY KEY CHECK (length(identity) = 64),
    device            TEXT    NOT NULL REFERENCES devices (device),
    unwrap            TEXT    NOT NULL UNIQUE,
    identity_key      BLOB    NOT NULL,
    statement         BLOB    NOT NULL,
    statement_signature BLOB  NOT NULL,
    policy            TEXT    NOT NULL,
    reason            TEXT    NOT NULL,
    enrolled_at       TEXT    NOT NULL,
    released_at       TEXT    NOT NULL,
    release_reason    TEXT    NOT NULL
) STRICT;
CREATE INDEX former_keys_by_device ON former_keys (device);

CREATE TABLE orders (
    digest            TEXT    NOT NULL PRIMARY KEY CHECK (length(digest) = 64),
    device            TEXT    NOT NULL REFERENCES devices (device),
    identity          TEXT    NOT NULL CHECK (length(identity) = 64),
    kind              TEXT    NOT NULL,
    counter           INTEGER NOT NULL CHECK (counter >= 0),
    detached          INTEGER NOT NULL CHECK (detached IN (0, 1)),
    slots             TEXT    NOT NULL,
    state             TEXT    NOT NULL CHECK (state IN ('prepared', 'delivered', 'applied', 'failed')),
    made_at           TEXT    NOT NULL,
    updated_at        TEXT    NOT NULL
) STRICT;
CREATE INDEX orders_by_device ON orders (device, identity);
-- Two orders with one counter cannot both be applied: the second would be lost.
CREATE UNIQUE INDEX orders_on_their_way ON orders (identity, counter)
    WHERE detached = 1 AND state <> 'failed';

CREATE TABLE slots (
    device            TEXT    NOT NULL REFERENCES devices (device),
    identity          TEXT    NOT NULL CHECK (length(identity) = 64),
    slot              INTEGER NOT NULL CHECK (slot >= 0),
    version           INTEGER NOT NULL CHECK (version >= 0),
    label             TEXT    NOT NULL,
    key_type          TEXT    NOT NULL,
    psa_type          INTEGER NOT NULL,
    bits              INTEGER NOT NULL,
    usage             INTEGER NOT NULL,
    algorithm         INTEGER NOT NULL,
    lifetime          INTEGER NOT NULL,
    proof             TEXT    NOT NULL,
    state             TEXT    NOT NULL CHECK (state IN ('pending', 'proved', 'failed', 'removed')),
    order_digest      TEXT    NOT NULL REFERENCES orders (digest),
    updated_at        TEXT    NOT NULL,
    PRIMARY KEY (identity, slot, version)
) STRICT;
CREATE INDEX slots_by_device ON slots (device);
CREATE INDEX slots_by_order ON slots (order_digest);
";

/// Random keys of devices, kept under a key of the token until they are proved.
const VERSION_2: &str = "
CREATE TABLE kept_keys (
    order_digest      TEXT    NOT NULL REFERENCES orders (digest),
    slot              INTEGER NOT NULL CHECK (slot >= 0),
    card              TEXT    NOT NULL,
    kept_at           TEXT    NOT NULL,
    PRIMARY KEY (order_digest, slot)
) STRICT;
";

/// Keys that a device may have lost since they were proved.
const VERSION_3: &str = "
ALTER TABLE slots ADD COLUMN doubted INTEGER NOT NULL DEFAULT 0 CHECK (doubted IN (0, 1));
-- Nobody looked for gaps before.
UPDATE slots SET doubted = 1 WHERE state = 'proved';
";

/// The version that this program writes.
pub(super) fn newest() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// Brings the file up to date, in one transaction.
pub(super) fn migrate(connection: &Connection) -> rusqlite::Result<Found> {
    database::migrate(connection, APPLICATION, MIGRATIONS)
}
