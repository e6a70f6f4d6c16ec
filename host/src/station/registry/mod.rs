//! The registry: what went where. A plant's memory of its devices, their keys by name, and the orders made for them.
//!
//! It is one SQLite file, which several stations of one computer may use at once, or a database on a PostgreSQL server, which all stations
//! of a plant may use: the same tables, with the same rules. It holds no secrets: public keys, signed receipts, labels. What must be unique (a device's id, its keys, its serial number, the counter of an order on its way) is unique because the
//! database says so, and each change is one transaction that is on the disk when the call returns.
//!
//! Two things are never taken from loose columns: what a device is, which comes out of its signed statement, verified again each time
//! ([`DeviceRecord::statement`]); and where it stands, which comes out of its newest signed receipt. Columns are for lists and
//! searches. That a record is the right device's rests on the file: whoever can write to it can put another device there.

mod device;
mod error;
mod kept;
pub(super) mod names;
mod orders;
mod record;
mod schema;
mod signed;
mod slots;

use std::path::Path;
use std::time::{Duration, SystemTime};

use der::DateTime;
use keyferry_protocol::identity::{DeviceId, Fingerprint};
use rusqlite::{Connection, ErrorCode, OpenFlags};

pub use device::{Enrolled, Moved, Recorded};
pub use error::RegistryError;
pub use orders::{OrderRecord, OrderState};
pub use record::{DeviceRecord, Filter, PAGE, Release};
pub use slots::{SlotRecord, SlotState, key_type};

pub use crate::station::database::{Address, Fault, Location, LocationError, PasswordError};

use super::policy::{History, Known, Pin};
use super::records::Patience;
use crate::station::database::{self, Database, Found, Row, Transaction, Value, values};

/// How long another process may keep the file busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// An open registry. For one thread; others open the file for themselves.
#[derive(Debug)]
pub struct Registry {
    database: Database,
    location: Location,
    patience: Option<Patience>,
}

impl Registry {
    /// Opens a registry, and begins one if there is no such file.
    ///
    /// # Errors
    /// [`RegistryError::NotARegistry`], [`RegistryError::Newer`], [`RegistryError::Damaged`], [`RegistryError::Busy`],
    /// [`RegistryError::Database`].
    pub fn open(path: &Path) -> Result<Self, RegistryError> {
        Self::with(path, OpenFlags::SQLITE_OPEN_CREATE)
    }

    /// Opens a registry that must be there.
    ///
    /// # Errors
    /// [`RegistryError::Missing`], and as [`Registry::open`].
    pub fn open_existing(path: &Path) -> Result<Self, RegistryError> {
        if path.is_file() {
            Self::with(path, OpenFlags::empty())
        } else {
            Err(RegistryError::Missing {
                registry: Location::File(path.into()),
            })
        }
    }

    fn with(path: &Path, create: OpenFlags) -> Result<Self, RegistryError> {
        let flags = create | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let location = Location::File(path.into());
        let said = |source: rusqlite::Error| failed(&location, source.into());
        let connection = Connection::open_with_flags(path, flags).map_err(said)?;
        set_up(&connection, &location)?;
        Ok(Self {
            database: Database::file(connection),
            location,
            patience: None,
        })
    }

    /// Opens a registry wherever it is, and begins one if there is none. The password of a server is in `password_file`, or in the
    /// password file of all PostgreSQL programs, if it wants one.
    ///
    /// # Errors
    /// As [`Registry::open`]; and, of a server, [`RegistryError::Away`], [`RegistryError::Refused`], [`RegistryError::Password`],
    /// [`RegistryError::Setting`].
    pub fn open_at(
        location: &Location,
        password_file: Option<&Path>,
    ) -> Result<Self, RegistryError> {
        match location {
            Location::File(path) => Self::open(path),
            Location::Server(address) => Self::connect(location, address, password_file, true),
        }
    }

    /// As [`Registry::open_at`], but it must be there.
    ///
    /// # Errors
    /// [`RegistryError::Missing`], and as [`Registry::open_at`].
    pub fn open_existing_at(
        location: &Location,
        password_file: Option<&Path>,
    ) -> Result<Self, RegistryError> {
        match location {
            Location::File(path) => Self::open_existing(path),
            Location::Server(address) => Self::connect(location, address, password_file, false),
        }
    }

    fn connect(
        location: &Location,
        address: &Address,
        password_file: Option<&Path>,
        begin: bool,
    ) -> Result<Self, RegistryError> {
        let migrations = schema::MIGRATIONS;
        let opened = Database::server(
            address,
            password_file,
            schema::APPLICATION,
            migrations,
            begin,
        );
        let (database, found) = opened.map_err(|fault| failed(location, fault))?;
        check(found, location)?;
        Ok(Self {
            database,
            location: location.clone(),
            patience: None,
        })
    }

    /// Has whoever needs the registry wait while its server is away; without this, nobody waits.
    pub fn be_patient(&mut self, patience: Patience) {
        self.patience = Some(patience);
    }

    pub(crate) const fn patience(&self) -> Option<&Patience> {
        self.patience.as_ref()
    }

    /// Where it is.
    #[must_use]
    pub const fn location(&self) -> &Location {
        &self.location
    }

    fn done<T>(&self, result: Result<T, Fault>) -> Result<T, RegistryError> {
        result.map_err(|source| failed(&self.location, source))
    }

    /// The first row of an answer, if it has one.
    fn first<T>(
        &self,
        database: &Database,
        sql: &str,
        values: &[Value],
        read: impl FnOnce(&Row) -> Result<T, Fault>,
    ) -> Result<Option<T>, RegistryError> {
        let row = self.done(database.row(sql, values))?;
        self.done(row.as_ref().map(read).transpose())
    }

    /// All rows of an answer.
    fn all<T>(
        &self,
        sql: &str,
        values: &[Value],
        read: impl FnMut(&Row) -> Result<T, Fault>,
    ) -> Result<Vec<T>, RegistryError> {
        let rows = self.done(self.database.rows(sql, values))?;
        self.done(rows.iter().map(read).collect())
    }

    /// A change that happens whole or not at all, and during which nobody else writes.
    fn change<T>(
        &self,
        work: impl Fn(&Transaction<'_>) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let failed = |fault| failed(&self.location, fault);
        self.database.change(work, failed)
    }
}

/// Makes a file ready for this program.
fn set_up(connection: &Connection, location: &Location) -> Result<(), RegistryError> {
    let done = |fault: rusqlite::Error| failed(location, fault.into());
    connection.busy_timeout(PATIENCE).map_err(done)?;
    database::remember_statements(connection).map_err(done)?;
    for (name, value) in [
        ("foreign_keys", "ON"),
        // What was committed stays, also through a power cut.
        ("synchronous", "FULL"),
        // The file may come from anywhere: nothing in its schema may run functions.
        ("trusted_schema", "OFF"),
        ("cell_size_check", "ON"),
        // In KiB, if negative: the upper pages of a million devices' indices.
        ("cache_size", "-32768"),
    ] {
        connection.pragma_update(None, name, value).map_err(done)?;
    }
    // Before anything is written to a file that may be somebody else's.
    match schema::migrate(connection).map_err(done)? {
        Found::Empty | Found::Ready => {}
        other @ (Found::Foreign | Found::Newer(_)) => check(other, location)?,
    }
    let mode = database::write_ahead(connection, PATIENCE).map_err(done)?;
    let synchronous = connection.pragma_query_value(None, "synchronous", |row| row.get(0));
    let synchronous: i64 = synchronous.map_err(done)?;
    for (setting, found, wanted) in [
        ("journal_mode", mode, "wal"),
        // FULL (https://sqlite.org/pragma.html#pragma_synchronous).
        ("synchronous", synchronous.to_string(), "2"),
    ] {
        if found != wanted {
            return Err(RegistryError::Setting {
                registry: location.clone(),
                setting,
                found,
            });
        }
    }
    let verdict = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
    let verdict: String = verdict.map_err(done)?;
    if verdict == "ok" {
        return Ok(());
    }
    Err(RegistryError::Damaged {
        registry: location.clone(),
        reason: verdict,
    })
}

/// Nothing but a registry that this program knows is one.
fn check(found: Found, location: &Location) -> Result<(), RegistryError> {
    let registry = location.clone();
    match found {
        Found::Ready => Ok(()),
        Found::Empty => Err(RegistryError::Missing { registry }),
        Found::Foreign => Err(RegistryError::NotARegistry { registry }),
        Found::Newer(found) => Err(RegistryError::Newer {
            registry,
            found,
            known: schema::newest(),
        }),
    }
}

/// What a failure of the database means.
fn failed(location: &Location, source: Fault) -> RegistryError {
    let registry = location.clone();
    if source.is_busy() {
        let seconds = PATIENCE.as_secs();
        return RegistryError::Busy { registry, seconds };
    }
    match source {
        Fault::Away { reason, unsure } => RegistryError::Away {
            registry,
            reason,
            unsure,
        },
        Fault::Refused(_) | Fault::Authorities { .. } => RegistryError::Refused {
            registry,
            reason: source.to_string(),
        },
        Fault::Setting { setting, found } => RegistryError::Setting {
            registry,
            setting,
            found,
        },
        Fault::Password(error) => error.into(),
        Fault::File(error) => match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => RegistryError::NotARegistry { registry },
            Some(ErrorCode::DatabaseCorrupt) => RegistryError::Damaged {
                registry,
                reason: error.to_string(),
            },
            _ => RegistryError::Database {
                registry,
                source: error.into(),
            },
        },
        Fault::Column(_) | Fault::Server(_) | Fault::Driver(_) | Fault::Random => {
            RegistryError::Database { registry, source }
        }
    }
}

/// Now, as it is written down.
fn now() -> Result<String, RegistryError> {
    DateTime::from_system_time(SystemTime::now())
        .map(|time| time.to_string())
        .map_err(|_| RegistryError::Clock)
}

impl Known for Registry {
    fn history(&self, device: DeviceId) -> Result<History, RegistryError> {
        let Some(record) = self.find(device)? else {
            return Ok(History::New);
        };
        if record.released.is_some() {
            return Ok(History::Released);
        }
        let statement = record.statement()?;
        Ok(History::Enrolled(Pin {
            identity: record.identity,
            unwrap: record.unwrap,
            counter: statement.standing.counter,
            epoch: statement.epoch,
        }))
    }

    fn holder(&self, identity: Fingerprint) -> Result<Option<DeviceId>, RegistryError> {
        self.first(
            &self.database,
            "SELECT device FROM devices WHERE identity = ?1
             UNION ALL SELECT device FROM former_keys WHERE identity = ?1",
            values![identity.to_string()],
            |row| names::device(row, "device"),
        )
    }
}
