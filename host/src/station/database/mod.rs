//! The databases that a station writes into, behind one door: the same statements, written once, go to an SQLite file or to a PostgreSQL
//! server.
//!
//! A statement has `?1`, `?2`, … or `:name`, … for its values, and uses nothing that is one database's own. Its values are whole numbers,
//! text and bytes ([`Value`]). What changes anything is a [`Database::change`]: it happens whole or not at all, nobody else writes
//! meanwhile, and it is on the disk when the call returns.

mod file;
mod location;
mod password;
mod server;
mod value;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, Transaction as FileTransaction, TransactionBehavior};

pub(super) use file::{Found, is_busy, migrate, remember_statements, write_ahead};
pub use location::{Address, Location, LocationError};
pub use password::PasswordError;
use server::Server;
use tokio_postgres::error::SqlState;
pub(super) use value::{Row, ToValue, Value, named, values};

/// What a database said instead of doing what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// SQLite failed.
    #[error(transparent)]
    File(#[from] rusqlite::Error),
    /// What is in a column does not belong there.
    #[error("what is in column '{0}' does not belong there")]
    Column(String),
    /// The server failed.
    #[error("{}", server::words(.0))]
    Server(tokio_postgres::Error),
    /// The server does not let the station in.
    #[error("{}", server::words(.0))]
    Refused(tokio_postgres::Error),
    /// There is no server now.
    #[error("{reason}")]
    Away {
        /// What was found.
        reason: String,
        /// Whether it went in the midst of a commit, so that the change may have been written.
        unsure: bool,
    },
    /// What was committed might be lost, or would not be what was written.
    #[error("{setting} is {found}")]
    Setting {
        /// The server's setting.
        setting: &'static str,
        /// Its value.
        found: String,
    },
    /// The password.
    #[error(transparent)]
    Password(PasswordError),
    /// The certificates of the server's CA.
    #[error("the CA certificates in {} cannot be used: {reason}", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// What drives connections could not be made.
    #[error("no connection can be made: {0}")]
    Driver(std::io::Error),
    /// No randomness.
    #[error("there is no randomness for the name of a connection")]
    Random,
}

impl Fault {
    /// Whether others have kept the database for too long.
    pub(super) fn is_busy(&self) -> bool {
        match self {
            Self::File(error) => is_busy(error),
            Self::Server(error) => error.code().is_some_and(|code| {
                // The second: a statement took too long.
                [SqlState::LOCK_NOT_AVAILABLE, SqlState::QUERY_CANCELED].contains(code)
            }),
            Self::Column(_)
            | Self::Refused(_)
            | Self::Away { .. }
            | Self::Setting { .. }
            | Self::Password(_)
            | Self::Authorities { .. }
            | Self::Driver(_)
            | Self::Random => false,
        }
    }

    fn or_unsure(self, is_unsure: bool) -> Self {
        match self {
            Self::Away { reason, unsure } => Self::Away {
                reason,
                unsure: unsure || is_unsure,
            },
            other => other,
        }
    }
}

/// An open database.
#[derive(Debug)]
pub(super) struct Database {
    engine: Engine,
}

#[derive(Debug)]
enum Engine {
    File(Connection),
    Server(Box<Server>),
}

/// A change under way: what goes through it is part of the change.
#[derive(Debug)]
pub(super) struct Transaction<'a>(&'a Database);

impl std::ops::Deref for Transaction<'_> {
    type Target = Database;

    fn deref(&self) -> &Database {
        self.0
    }
}

impl Database {
    /// An SQLite file.
    pub(super) const fn file(connection: Connection) -> Self {
        Self {
            engine: Engine::File(connection),
        }
    }

    /// A database on a server, whose tables are brought up to date. `application` marks whose they are; where there are none, they are
    /// begun only if that is wanted.
    pub(super) fn server(
        address: &Address,
        password_file: Option<&Path>,
        application: i64,
        migrations: &[&str],
        begin: bool,
    ) -> Result<(Self, Found), Fault> {
        let server = Server::new(address, password_file, application)?;
        let database = Self {
            engine: Engine::Server(Box::new(server)),
        };
        let found = match &database.engine {
            Engine::File(_) => Found::Foreign,
            Engine::Server(server) => server.migrate(&database, migrations, begin)?,
        };
        Ok((database, found))
    }

    /// Runs a statement, and gives the number of rows that it has changed.
    pub(super) fn execute(&self, sql: &str, values: &[Value]) -> Result<u64, Fault> {
        match &self.engine {
            Engine::File(connection) => file::execute(connection, sql, values),
            Engine::Server(server) => server.execute(sql, values),
        }
    }

    /// As [`Database::execute`], with names for the values.
    pub(super) fn execute_named(&self, sql: &str, values: &[(&str, Value)]) -> Result<u64, Fault> {
        let (sql, values) = numbered(sql, values);
        self.execute(&sql, &values)
    }

    /// All rows of an answer.
    pub(super) fn rows(&self, sql: &str, values: &[Value]) -> Result<Vec<Row>, Fault> {
        match &self.engine {
            Engine::File(connection) => file::rows(connection, sql, values),
            Engine::Server(server) => server.rows(sql, values),
        }
    }

    /// As [`Database::rows`], with names for the values.
    pub(super) fn rows_named(
        &self,
        sql: &str,
        values: &[(&str, Value)],
    ) -> Result<Vec<Row>, Fault> {
        let (sql, values) = numbered(sql, values);
        self.rows(&sql, &values)
    }

    /// The first row of an answer, if it has one.
    pub(super) fn row(&self, sql: &str, values: &[Value]) -> Result<Option<Row>, Fault> {
        Ok(self.rows(sql, values)?.into_iter().next())
    }

    /// A change that happens whole or not at all, and during which nobody else writes. `failed` says in the caller's words what the
    /// database said.
    pub(super) fn change<T, E>(
        &self,
        work: impl Fn(&Transaction<'_>) -> Result<T, E>,
        failed: impl Fn(Fault) -> E,
    ) -> Result<T, E> {
        match &self.engine {
            Engine::File(connection) => {
                let begun =
                    FileTransaction::new_unchecked(connection, TransactionBehavior::Immediate);
                let transaction = begun.map_err(|fault| failed(fault.into()))?;
                let result = work(&Transaction(self))?;
                let committed = transaction.commit();
                committed.map_err(|fault| failed(fault.into()))?;
                Ok(result)
            }
            Engine::Server(server) => server.change(self, work, failed),
        }
    }
}

/// The statement with `?1`, `?2`, … instead of names.
fn numbered(sql: &str, values: &[(&str, Value)]) -> (String, Vec<Value>) {
    let numbers: HashMap<&str, usize> = values.iter().map(|(name, _)| *name).zip(1..).collect();
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let mut out = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some(place) = rest.find(':') {
        let (before, from) = rest.split_at(place);
        let length = from.chars().skip(1).take_while(|it| is_name(*it)).count() + 1;
        let (name, after) = from.split_at(length);
        out.push_str(before);
        match numbers.get(name) {
            Some(number) => {
                out.push('?');
                out.push_str(&number.to_string());
            }
            // The database will say that it does not understand it.
            None => out.push_str(name),
        }
        rest = after;
    }
    out.push_str(rest);
    let values = values.iter().map(|(_, value)| value.clone());
    (out, values.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_numbers() {
        let values: &[(&str, Value)] = named! { ":a": 1_u32, ":ab": "x", ":nothing": None::<u32> };
        let (sql, values) = numbered("(:ab, :a, :a) = :nothing AND :other", values);
        assert_eq!(sql, "(?2, ?1, ?1) = ?3 AND :other");
        assert_eq!(
            values,
            [
                Value::Number(Some(1)),
                Value::Text(Some("x".to_owned())),
                Value::Number(None)
            ]
        );
    }
}
