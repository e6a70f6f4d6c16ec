//! The journal: what a station is about to do with each device, before it does it, and what came of it, once that is certain.
//!
//! It is one SQLite file on a local disk, for one station at a time. Each change is one transaction, and is on the disk when the call
//! returns (write-ahead log, `synchronous=FULL`; a file that cannot be opened so is refused). A device's *unit* goes from [`Step`] to
//! step. Whatever ends the station between two of them, the next start finds the unit where it was, and a status that the device
//! signs says whether its order was done. So every device is done once or not at all, and no key is lost on the way.
//!
//! What it must never hold: a clear key. Random keys of devices stand in it wrapped under a key of the token.

mod error;
mod exports;
mod findings;
mod history;
mod orders;
mod schema;
mod units;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use der::DateTime;
use keyferry_protocol::identity::Digest;
use rusqlite::{Connection, ErrorCode, OpenFlags, Params, Transaction, TransactionBehavior};

pub use error::JournalError;
pub use exports::Waiting;
pub use findings::Untaken;
pub use history::{End, Ending, History, Run, Wanted};
pub use orders::Sent;
pub use units::{NewUnit, Step, Unit, UnitId};

use crate::hsm::random;
use crate::station::database::{self, Found};

/// How long another process may keep the file: one that has just been killed lets go of it at once.
const PATIENCE: Duration = Duration::from_secs(2);

/// One start of a station on a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RunId(pub [u8; 16]);

impl std::fmt::Display for RunId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// A change of the journal, as [`Journal::observe`] tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// What is written: a step's name, `run`, `end`, or the name of what else happens to a unit.
    pub what: &'static str,
    /// Whether it is on the disk; before that, nothing of it is.
    pub written: bool,
}

type Observer = Box<dyn Fn(Moment) + Send>;

/// An open journal.
pub struct Journal {
    connection: Connection,
    path: PathBuf,
    observer: Option<Observer>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Journal {
    /// Opens a journal, and begins one if there is no such file. It is this process's until it is dropped.
    ///
    /// # Errors
    /// [`JournalError::NotAJournal`], [`JournalError::Newer`], [`JournalError::Damaged`], [`JournalError::InUse`],
    /// [`JournalError::NotDurable`], [`JournalError::Database`].
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let flags = OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection =
            Connection::open_with_flags(path, flags).map_err(|source| failed(path, source))?;
        let journal = Self {
            connection,
            path: path.into(),
            observer: None,
        };
        journal.set_up()?;
        Ok(journal)
    }

    fn set_up(&self) -> Result<(), JournalError> {
        let connection = &self.connection;
        self.done(connection.busy_timeout(PATIENCE))?;
        self.done(database::remember_statements(connection))?;
        for (name, value) in [
            // Held from the first access on: nobody else reads or writes.
            ("locking_mode", "EXCLUSIVE"),
            ("foreign_keys", "ON"),
            ("synchronous", "FULL"),
            ("trusted_schema", "OFF"),
            ("cell_size_check", "ON"),
        ] {
            self.done(connection.pragma_update(None, name, value))?;
        }
        match self.done(schema::migrate(connection))? {
            // A file that was empty has become one.
            Found::Ready | Found::Empty => {}
            Found::Foreign => {
                return Err(JournalError::NotAJournal {
                    path: self.path.clone(),
                });
            }
            Found::Newer(found) => {
                return Err(JournalError::Newer {
                    path: self.path.clone(),
                    found,
                    known: schema::newest(),
                });
            }
        }
        let mode = self.done(database::write_ahead(connection, PATIENCE))?;
        self.check_durable("journal_mode", &mode, "wal")?;
        let synchronous = self.setting("synchronous")?;
        // 2 is FULL (https://sqlite.org/pragma.html#pragma_synchronous).
        self.check_durable("synchronous", &synchronous.to_string(), "2")?;
        let verdict: String =
            self.done(connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)))?;
        if verdict != "ok" {
            return Err(JournalError::Damaged {
                path: self.path.clone(),
                reason: verdict,
            });
        }
        // Whoever deletes rows by hand leaves others that belonged to them, and the next unit would have the dead one's keys.
        let mut orphans = self.done(connection.prepare("PRAGMA foreign_key_check"))?;
        if self.done(orphans.exists([]))? {
            return Err(JournalError::Damaged {
                path: self.path.clone(),
                reason: "rows are missing that others belong to".to_owned(),
            });
        }
        // Takes the lock, so that a second station is told now and not in the midst of a device.
        self.change("open", |_| Ok(()))
    }

    fn setting(&self, name: &str) -> Result<i64, JournalError> {
        let connection = &self.connection;
        self.done(connection.pragma_query_value(None, name, |row| row.get(0)))
    }

    fn check_durable(
        &self,
        setting: &'static str,
        found: &str,
        wanted: &str,
    ) -> Result<(), JournalError> {
        if found == wanted {
            return Ok(());
        }
        Err(JournalError::NotDurable {
            path: self.path.clone(),
            setting,
            found: found.to_owned(),
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Has somebody told of every change, before and after it is on the disk, in the thread that makes it.
    pub fn observe(&mut self, observer: impl Fn(Moment) + Send + 'static) {
        self.observer = Some(Box::new(observer));
    }

    fn tell(&self, what: &'static str, written: bool) {
        if let Some(observer) = &self.observer {
            observer(Moment { what, written });
        }
    }

    /// Begins a run of a plan.
    ///
    /// # Errors
    /// [`JournalError::Random`], [`JournalError::Clock`], and those of the database.
    pub fn begin_run(&self, plan: &str, plan_digest: &Digest) -> Result<RunId, JournalError> {
        let run = RunId(random().map_err(|_| JournalError::Random)?);
        self.change("run", |transaction| {
            let row = (run.to_string(), plan, plan_digest.to_string(), now()?);
            let inserted = execute(
                transaction,
                "INSERT INTO runs (run, plan, plan_digest, begun_at) VALUES (?1, ?2, ?3, ?4)",
                row,
            );
            self.done(inserted).map(|_| ())
        })?;
        Ok(run)
    }

    /// Ends a run.
    ///
    /// # Errors
    /// [`JournalError::Clock`], and those of the database.
    pub fn end_run(&self, run: RunId) -> Result<(), JournalError> {
        self.change("end", |transaction| {
            let row = (now()?, run.to_string());
            let changed = execute(
                transaction,
                "UPDATE runs SET ended_at = ?1 WHERE run = ?2",
                row,
            );
            self.done(changed).map(|_| ())
        })
    }

    fn done<T>(&self, result: rusqlite::Result<T>) -> Result<T, JournalError> {
        result.map_err(|source| failed(&self.path, source))
    }

    /// A change that happens whole or not at all.
    fn change<T>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        let begun = Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate);
        let transaction = self.done(begun)?;
        let result = work(&transaction)?;
        self.tell(what, false);
        self.done(transaction.commit())?;
        self.tell(what, true);
        Ok(result)
    }
}

/// Runs a statement that is run again and again.
fn execute(
    transaction: &Transaction<'_>,
    sql: &str,
    parameters: impl Params,
) -> rusqlite::Result<usize> {
    transaction.prepare_cached(sql)?.execute(parameters)
}

/// What a failure of the database means.
fn failed(path: &Path, source: rusqlite::Error) -> JournalError {
    let path = path.into();
    if database::is_busy(&source) {
        return JournalError::InUse { path };
    }
    match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => JournalError::NotAJournal { path },
        Some(ErrorCode::DatabaseCorrupt) => JournalError::Damaged {
            path,
            reason: source.to_string(),
        },
        _ => JournalError::Database { path, source },
    }
}

/// Now, as it is written down.
fn now() -> Result<String, JournalError> {
    DateTime::from_system_time(SystemTime::now())
        .map(|time| time.to_string())
        .map_err(|_| JournalError::Clock)
}
