//! A database on a PostgreSQL server, which several stations of a plant use at once.
//!
//! Changes are serialised: each holds one lock of the database from its first statement to its commit, so it sees all that was committed
//! before it, as with SQLite. Where the connection is lost while a change is being committed, nobody knows at first whether it was:
//! so each change leaves its number behind, in the same transaction, and the station looks for that number before it does anything
//! again (`keyferry_writers`). The server's own `pg_xact_status` does not do for that: after a crash it may speak of another
//! transaction that got the same number.
//!
//! A server that is away is tried again at each use, once a second at most. Nothing here waits for one that comes back: that is the
//! caller's to do.

mod connection;

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error};

use super::location::Address;
use super::{Database, Fault, Found, Row, Transaction, Value};
use crate::hsm::random;
pub(super) use connection::words;
use connection::{Connection, Driver, SILENCE};

/// How long a server that was away is left alone, at least.
const PAUSE: Duration = Duration::from_secs(1);

/// How often a change is begun again because the connection was lost.
const TRIES: u32 = 3;

/// What only a server needs: whose tables these are, which version they have, and which change of each station was the last.
const BOOKKEEPING: &str = "
CREATE TABLE keyferry_schema (
    application       BIGINT  NOT NULL PRIMARY KEY,
    version           BIGINT  NOT NULL
);
CREATE TABLE keyferry_writers (
    writer            TEXT    NOT NULL PRIMARY KEY,
    change            BIGINT  NOT NULL,
    at                TIMESTAMP WITH TIME ZONE NOT NULL
)";

/// A connection to a server, made when it is needed.
pub(super) struct Server {
    address: Address,
    password_file: Option<PathBuf>,
    /// The lock, and whose tables they are.
    application: i64,
    /// Who writes: at random, for this connection.
    writer: String,
    driver: Driver,
    connection: RefCell<Option<Connection>>,
    /// The number of the newest change.
    change: Cell<i64>,
    /// Whether a change is under way.
    changing: Cell<bool>,
    /// Whether the connection was lost in it.
    lost: Cell<bool>,
    /// Until when a server that was found away is left alone, and why.
    away: RefCell<Option<(Instant, String)>>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.close(&self.driver);
        }
    }
}

/// Why a migration ended.
enum Ended {
    Fault(Fault),
    Found(Found),
}

impl From<Fault> for Ended {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Server {
    /// Nothing is connected yet.
    pub(super) fn new(
        address: &Address,
        password_file: Option<&Path>,
        application: i64,
    ) -> Result<Self, Fault> {
        let writer: [u8; 16] = random().map_err(|_| Fault::Random)?;
        Ok(Self {
            address: address.clone(),
            password_file: password_file.map(Into::into),
            application,
            writer: hex::encode(writer),
            driver: Driver::new().map_err(Fault::Driver)?,
            connection: RefCell::new(None),
            change: Cell::new(0),
            changing: Cell::new(false),
            lost: Cell::new(false),
            away: RefCell::new(None),
        })
    }

    /// A server that was found away is left alone for a while.
    fn may_be_asked(&self) -> Result<(), Fault> {
        match &*self.away.borrow() {
            Some((until, reason)) if Instant::now() < *until => Err(Fault::Away {
                reason: reason.clone(),
                unsure: false,
            }),
            Some(_) | None => Ok(()),
        }
    }

    fn connect(&self) -> Result<Connection, Fault> {
        self.may_be_asked()?;
        let start = Instant::now();
        let opened = Connection::open(&self.driver, &self.address, self.password_file.as_deref());
        self.noted(start, opened)
    }

    /// Remembers whether the server is away. It is left alone then for as long as it took to find that out, so that a silent one does not
    /// hold up all work, but half of it.
    fn noted<T>(&self, start: Instant, answer: Result<T, Fault>) -> Result<T, Fault> {
        *self.away.borrow_mut() = match &answer {
            Err(Fault::Away { reason, .. }) => {
                let until = Instant::now() + start.elapsed().max(PAUSE);
                Some((until, reason.clone()))
            }
            Ok(_) | Err(_) => None,
        };
        answer
    }

    /// Asks the server, and connects first if that is needed. A connection that was lost since it was used last is made again.
    fn ask<T>(&self, work: impl AsyncFn(&Client) -> Result<T, Error>) -> Result<T, Fault> {
        let mut held = self.connection.borrow_mut();
        let mut is_fresh = false;
        loop {
            let connection = match &mut *held {
                Some(connection) => connection,
                None if self.changing.get() => return Err(self.lost()),
                None => {
                    is_fresh = true;
                    held.insert(self.connect()?)
                }
            };
            let answer = connection.ask(&self.driver, SILENCE, &work);
            if !matches!(answer, Err(Fault::Away { .. })) {
                return answer;
            }
            *held = None;
            if self.changing.get() || is_fresh {
                self.lost.set(true);
                return answer;
            }
        }
    }

    fn lost(&self) -> Fault {
        self.lost.set(true);
        Fault::Away {
            reason: "the connection was lost".to_owned(),
            unsure: false,
        }
    }

    pub(super) fn execute(&self, sql: &str, values: &[Value]) -> Result<u64, Fault> {
        let sql = sql.replace('?', "$");
        let values: Vec<_> = values.iter().map(parameter).collect();
        self.ask(async |client| client.execute_typed(&sql, &values).await)
    }

    pub(super) fn rows(&self, sql: &str, values: &[Value]) -> Result<Vec<Row>, Fault> {
        let sql = sql.replace('?', "$");
        let values: Vec<_> = values.iter().map(parameter).collect();
        let found = self.ask(async |client| client.query_typed(&sql, &values).await)?;
        let Some(first) = found.first() else {
            return Ok(Vec::new());
        };
        let columns: Arc<[String]> = first
            .columns()
            .iter()
            .map(|column| column.name().to_owned())
            .collect();
        let row = |row: &tokio_postgres::Row| {
            let values = (0..columns.len()).map(|index| value(row, index));
            Ok(Row {
                columns: Arc::clone(&columns),
                values: values.collect::<Result<_, Fault>>()?,
            })
        };
        found.iter().map(row).collect()
    }

    fn batch(&self, sql: &str) -> Result<(), Fault> {
        self.ask(async |client| client.batch_execute(sql).await)
    }

    /// A change, as [`Database::change`] has it.
    pub(super) fn change<T, E>(
        &self,
        database: &Database,
        work: impl Fn(&Transaction<'_>) -> Result<T, E>,
        failed: impl Fn(Fault) -> E,
    ) -> Result<T, E> {
        self.change.set(self.change.get().saturating_add(1));
        // What may have been written already.
        let mut unsure: Option<T> = None;
        let mut last = None;
        for _ in 0..TRIES {
            if let Err(fault) = self.begin() {
                return Err(failed(fault.or_unsure(unsure.is_some())));
            }
            if let Some(done) = unsure.take() {
                match self.is_written() {
                    Ok(true) => {
                        self.roll_back();
                        return Ok(done);
                    }
                    Ok(false) => {}
                    Err(fault) => {
                        self.roll_back();
                        unsure = Some(done);
                        last = Some(fault);
                        continue;
                    }
                }
            }
            let done = match work(&Transaction(database)) {
                Ok(done) => done,
                Err(error) => {
                    let is_lost = self.lost.get();
                    self.roll_back();
                    if is_lost {
                        continue;
                    }
                    return Err(error);
                }
            };
            match self.commit() {
                Ok(()) => return Ok(done),
                Err(fault @ Fault::Away { .. }) => {
                    unsure = Some(done);
                    last = Some(fault);
                }
                Err(fault) => {
                    self.roll_back();
                    return Err(failed(fault));
                }
            }
        }
        let fault = last.unwrap_or_else(|| self.lost());
        Err(failed(fault.or_unsure(unsure.is_some())))
    }

    /// Begins a change, when no other station makes one.
    fn begin(&self) -> Result<(), Fault> {
        if self.changing.replace(false) {
            // Whoever made the last change broke off in it.
            *self.connection.borrow_mut() = None;
        }
        self.lost.set(false);
        self.may_be_asked()?;
        let (start, application) = (Instant::now(), self.application);
        let begun = self
            .batch(&format!(
                "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SELECT pg_advisory_xact_lock({application})"
            ))
            .inspect_err(|_| self.roll_back());
        // Whoever has the lock for so long is a change whose commit stalls, perhaps this station's own, or somebody who does not belong there.
        let begun = begun.map_err(|fault| match fault {
            busy if busy.is_busy() => Fault::Away {
                reason: "another change has held it for too long".to_owned(),
                unsure: false,
            },
            other => other,
        });
        self.noted(start, begun)?;
        self.changing.set(true);
        Ok(())
    }

    /// Whether the change that this station is at was committed before.
    fn is_written(&self) -> Result<bool, Fault> {
        let sql = "SELECT change FROM keyferry_writers WHERE writer = ?1";
        let rows = self.rows(sql, &[Value::Text(Some(self.writer.clone()))])?;
        let change: Option<i64> = rows.first().map(|row| row.get("change")).transpose()?;
        Ok(change == Some(self.change.get()))
    }

    fn commit(&self) -> Result<(), Fault> {
        let (writer, change) = (&self.writer, self.change.get());
        // Both are ours: hexadecimal digits and a number.
        let result = self.batch(&format!(
            "DELETE FROM keyferry_writers WHERE at < now() - INTERVAL '30 days';
             INSERT INTO keyferry_writers (writer, change, at) VALUES ('{writer}', {change}, now())
             ON CONFLICT (writer) DO UPDATE SET change = excluded.change, at = excluded.at;
             COMMIT"
        ));
        if result.is_ok() {
            self.changing.set(false);
        }
        result
    }

    fn roll_back(&self) {
        self.changing.set(false);
        let mut held = self.connection.borrow_mut();
        if let Some(connection) = &mut *held {
            let rolled_back = connection.ask(&self.driver, SILENCE, async |client| {
                client.batch_execute("ROLLBACK").await
            });
            if rolled_back.is_err() {
                *held = None;
            }
        }
    }

    /// Makes the tables, or brings them up to date. Where there are none, they are begun only if that is wanted.
    pub(super) fn migrate(
        &self,
        database: &Database,
        migrations: &[&str],
        begin: bool,
    ) -> Result<Found, Fault> {
        let newest = i64::try_from(migrations.len()).unwrap_or(i64::MAX);
        // Who may only read can do so.
        match self.look(newest)? {
            (Found::Ready, version) if version == newest => return Ok(Found::Ready),
            (Found::Ready, _) => {}
            (Found::Empty, _) if begin => {}
            (other @ (Found::Empty | Found::Foreign | Found::Newer(_)), _) => return Ok(other),
        }
        let done = self.change(
            database,
            |_| {
                let version = match self.look(newest)? {
                    (Found::Ready, version) => version,
                    (Found::Empty, _) => {
                        self.batch(BOOKKEEPING)?;
                        let application = self.application;
                        self.batch(&format!(
                            "INSERT INTO keyferry_schema VALUES ({application}, 0)"
                        ))?;
                        0
                    }
                    (other @ (Found::Foreign | Found::Newer(_)), _) => {
                        return Err(Ended::Found(other));
                    }
                };
                let done = usize::try_from(version).unwrap_or(usize::MAX);
                for migration in migrations.iter().skip(done) {
                    self.batch(&dialect(migration))?;
                }
                self.batch(&format!("UPDATE keyferry_schema SET version = {newest}"))?;
                Ok(Found::Ready)
            },
            Ended::Fault,
        );
        match done {
            Ok(found) | Err(Ended::Found(found)) => Ok(found),
            Err(Ended::Fault(fault)) => Err(fault),
        }
    }

    /// What the database holds, and in which version.
    fn look(&self, newest: i64) -> Result<(Found, i64), Fault> {
        let sql = "SELECT count(*) AS tables, count(*) FILTER (WHERE relname = 'keyferry_schema') AS marks
             FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
             WHERE nspname = current_schema() AND relkind IN ('r', 'p', 'v', 'm', 'f')";
        let rows = self.rows(sql, &[])?;
        let count = |name| rows.first().map_or(Ok(0_i64), |row| row.get(name));
        if count("marks")? == 0 {
            let is_empty = count("tables")? == 0;
            let found = if is_empty {
                Found::Empty
            } else {
                Found::Foreign
            };
            return Ok((found, 0));
        }
        let rows = self.rows("SELECT application, version FROM keyferry_schema", &[])?;
        let [row] = rows.as_slice() else {
            return Ok((Found::Foreign, 0));
        };
        let version = row.get("version")?;
        let ours = row.get::<i64>("application")? == self.application;
        Ok((Found::marked(ours, version, newest), version))
    }
}

/// Tables in the words of PostgreSQL: it has no `STRICT`, because it is always so, and other names for two types.
fn dialect(migration: &str) -> String {
    migration
        .replace(") STRICT;", ");")
        .replace(" INTEGER ", " BIGINT ")
        .replace(" BLOB", " BYTEA")
}

fn parameter(value: &Value) -> (&(dyn ToSql + Sync), Type) {
    match value {
        Value::Number(number) => (number, Type::INT8),
        Value::Text(text) => (text, Type::TEXT),
        Value::Bytes(bytes) => (bytes, Type::BYTEA),
    }
}

fn value(row: &tokio_postgres::Row, index: usize) -> Result<Value, Fault> {
    let columns = row.columns().get(index);
    let Some(kind) = columns.map(|column| column.type_().clone()) else {
        return Err(Row::wrong(&index.to_string()));
    };
    let read = if kind == Type::INT8 {
        row.try_get(index).map(Value::Number)
    } else if kind == Type::TEXT {
        row.try_get(index).map(Value::Text)
    } else if kind == Type::BYTEA {
        row.try_get(index).map(Value::Bytes)
    } else {
        return Err(Row::wrong(&index.to_string()));
    };
    read.map_err(Fault::Server)
}
