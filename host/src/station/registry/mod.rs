//! The registry: what went where. A plant's memory of its devices, their keys by name, and the orders made for them.
//!
//! It is one SQLite file, which several stations of one computer may use at once. It holds no secrets: public keys, signed receipts,
//! labels. What must be unique (a device's id, its keys, its serial number, the counter of an order on its way) is unique because the
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

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use der::DateTime;
use keyferry_protocol::identity::{DeviceId, Fingerprint};
use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, TransactionBehavior,
};

pub use device::{Enrolled, Moved, Recorded};
pub use error::RegistryError;
pub use orders::{OrderRecord, OrderState};
pub use record::{DeviceRecord, Filter, PAGE, Release};
pub use slots::{SlotRecord, SlotState, key_type};

use super::policy::{History, Known, Pin};
use crate::station::database::{self, Found};

/// How long another process may keep the file busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// An open registry. For one thread; others open the file for themselves.
#[derive(Debug)]
pub struct Registry {
    connection: Connection,
    path: PathBuf,
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
            Err(RegistryError::Missing { path: path.into() })
        }
    }

    fn with(path: &Path, create: OpenFlags) -> Result<Self, RegistryError> {
        let flags = create | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection =
            Connection::open_with_flags(path, flags).map_err(|source| failed(path, source))?;
        let registry = Self {
            connection,
            path: path.into(),
        };
        registry.set_up()?;
        Ok(registry)
    }

    fn set_up(&self) -> Result<(), RegistryError> {
        let connection = &self.connection;
        self.done(connection.busy_timeout(PATIENCE))?;
        for (name, value) in [
            ("foreign_keys", "ON"),
            // What was committed stays, also through a power cut.
            ("synchronous", "FULL"),
            // The file may come from anywhere: nothing in its schema may run functions.
            ("trusted_schema", "OFF"),
            ("cell_size_check", "ON"),
        ] {
            self.done(connection.pragma_update(None, name, value))?;
        }
        // Before anything is written to a file that may be somebody else's.
        let found = self.done(schema::migrate(connection))?;
        match found {
            Found::Ready => {}
            Found::Foreign => {
                return Err(RegistryError::NotARegistry {
                    path: self.path.clone(),
                });
            }
            Found::Newer(found) => {
                return Err(RegistryError::Newer {
                    path: self.path.clone(),
                    found,
                    known: schema::newest(),
                });
            }
        }
        self.done(database::write_ahead(connection, PATIENCE))?;
        let verdict: String =
            self.done(connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)))?;
        if verdict == "ok" {
            Ok(())
        } else {
            Err(RegistryError::Damaged {
                path: self.path.clone(),
                reason: verdict,
            })
        }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn done<T>(&self, result: rusqlite::Result<T>) -> Result<T, RegistryError> {
        result.map_err(|source| failed(&self.path, source))
    }

    /// A change that happens whole or not at all, and during which nobody else writes.
    fn change<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let begun = Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate);
        let transaction = self.done(begun)?;
        let result = work(&transaction)?;
        self.done(transaction.commit())?;
        Ok(result)
    }
}

/// What a failure of the database means.
fn failed(path: &Path, source: rusqlite::Error) -> RegistryError {
    let path = path.into();
    match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => RegistryError::NotARegistry { path },
        Some(ErrorCode::DatabaseCorrupt) => RegistryError::Damaged {
            path,
            reason: source.to_string(),
        },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => RegistryError::Busy {
            path,
            seconds: PATIENCE.as_secs(),
        },
        _ => RegistryError::Database { path, source },
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
        let found = self
            .connection
            .query_row(
                "SELECT device FROM devices WHERE identity = ?1
                 UNION ALL SELECT device FROM former_keys WHERE identity = ?1",
                [identity.to_string()],
                |row| names::device(row, "device"),
            )
            .optional();
        self.done(found)
    }
}
