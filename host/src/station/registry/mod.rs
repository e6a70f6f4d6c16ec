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
use rusqlite::{Connection, ErrorCode, OpenFlags};

pub use device::{Enrolled, Moved, Recorded};
pub use error::RegistryError;
pub use orders::{OrderRecord, OrderState};
pub use record::{DeviceRecord, Filter, PAGE, Release};
pub use slots::{SlotRecord, SlotState, key_type};

pub use crate::station::database::Fault;

use super::policy::{History, Known, Pin};
use crate::station::database::{self, Database, Found, Row, Transaction, Value, values};

/// How long another process may keep the file busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// An open registry. For one thread; others open the file for themselves.
#[derive(Debug)]
pub struct Registry {
    database: Database,
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
        let said = |source: rusqlite::Error| failed(path, source.into());
        let connection = Connection::open_with_flags(path, flags).map_err(said)?;
        set_up(&connection, path)?;
        Ok(Self {
            database: Database::file(connection),
            path: path.into(),
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn done<T>(&self, result: Result<T, Fault>) -> Result<T, RegistryError> {
        result.map_err(|source| failed(&self.path, source))
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
        let failed = |fault| failed(&self.path, fault);
        self.database.change(work, failed)
    }
}

/// Makes a file ready for this program.
fn set_up(connection: &Connection, path: &Path) -> Result<(), RegistryError> {
    let done = |fault: rusqlite::Error| failed(path, fault.into());
    connection.busy_timeout(PATIENCE).map_err(done)?;
    for (name, value) in [
        ("foreign_keys", "ON"),
        // What was committed stays, also through a power cut.
        ("synchronous", "FULL"),
        // The file may come from anywhere: nothing in its schema may run functions.
        ("trusted_schema", "OFF"),
        ("cell_size_check", "ON"),
    ] {
        connection.pragma_update(None, name, value).map_err(done)?;
    }
    // Before anything is written to a file that may be somebody else's.
    match schema::migrate(connection).map_err(done)? {
        Found::Ready => {}
        Found::Foreign => return Err(RegistryError::NotARegistry { path: path.into() }),
        Found::Newer(found) => {
            return Err(RegistryError::Newer {
                path: path.into(),
                found,
                known: schema::newest(),
            });
        }
    }
    database::write_ahead(connection, PATIENCE).map_err(done)?;
    let verdict = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
    let verdict: String = verdict.map_err(done)?;
    if verdict == "ok" {
        return Ok(());
    }
    Err(RegistryError::Damaged {
        path: path.into(),
        reason: verdict,
    })
}

/// What a failure of the database means.
fn failed(path: &Path, source: Fault) -> RegistryError {
    let path = path.into();
    let code = match &source {
        Fault::File(source) => source.sqlite_error_code(),
        Fault::Column(_) => None,
    };
    match code {
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
        self.first(
            &self.database,
            "SELECT device FROM devices WHERE identity = ?1
             UNION ALL SELECT device FROM former_keys WHERE identity = ?1",
            values![identity.to_string()],
            |row| names::device(row, "device"),
        )
    }
}
