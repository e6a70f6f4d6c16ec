//! What the station's SQLite files have in common: whose a file is, how an older one is brought up to date, and how a new one is switched
//! to a write-ahead log. And how statements go to one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior, params_from_iter};

use super::{Fault, Row, Value};

/// What a file turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::station) enum Found {
    /// A file of the newest version; older ones have become one.
    Ready,
    /// Nothing at all. A file that is empty is begun.
    Empty,
    /// Something else.
    Foreign,
    /// A file of a version that is not known here.
    Newer(i64),
}

impl Found {
    /// What a database is that says that it is ours, or not, and of this version.
    pub(super) const fn marked(ours: bool, version: i64, newest: i64) -> Self {
        if !ours || version < 1 {
            Self::Foreign
        } else if version > newest {
            Self::Newer(version)
        } else {
            Self::Ready
        }
    }
}

/// Statements that a connection remembers: as many as a station has, about.
const STATEMENTS: usize = 64;

/// Has a connection remember its statements: reading one takes longer than what most of them do.
pub(in crate::station) fn remember_statements(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Otherwise they are read again for other values (https://sqlite.org/queryplanner-ng.html#qpstab).
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
        .map(|_| ())
}

/// Brings a file up to date, in one transaction. `application` marks whose it is (`PRAGMA application_id`); `migrations` are those of
/// all versions in their order.
pub(in crate::station) fn migrate(
    connection: &Connection,
    application: i64,
    migrations: &[&str],
) -> rusqlite::Result<Found> {
    let newest = i64::try_from(migrations.len()).unwrap_or(i64::MAX);
    match look(connection, application, newest)? {
        (Found::Ready, version) if version == newest => return Ok(Found::Ready),
        (Found::Ready, _) => {}
        (other @ (Found::Empty | Found::Foreign | Found::Newer(_)), _) => return Ok(other),
    }
    // Another process may have been faster: looked at again where nobody else can write.
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    let (found, version) = look(&transaction, application, newest)?;
    if found == Found::Ready {
        let done = usize::try_from(version).unwrap_or(usize::MAX);
        for migration in migrations.iter().skip(done) {
            transaction.execute_batch(migration)?;
        }
        transaction.pragma_update(None, "user_version", newest)?;
        transaction.pragma_update(None, "application_id", application)?;
        transaction.commit()?;
    }
    Ok(found)
}

/// What the file is, and its version. An empty file is one of version 0.
fn look(connection: &Connection, application: i64, newest: i64) -> rusqlite::Result<(Found, i64)> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (found, version) = (number("application_id")?, number("user_version")?);
    let objects: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let found = if (found, version, objects) == (0, 0, 0) {
        Found::Ready
    } else {
        Found::marked(found == application, version, newest)
    };
    Ok((found, version))
}

/// Readers and one writer at a time do not wait for each other. SQLite does not wait by itself when this is switched on. Gives the mode
/// that the file has now.
pub(in crate::station) fn write_ahead(
    connection: &Connection,
    patience: Duration,
) -> rusqlite::Result<String> {
    let begun = Instant::now();
    loop {
        let switched = connection
            .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0));
        match switched {
            Err(error) if is_busy(&error) && begun.elapsed() < patience => {
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

/// Whether another process has the file.
pub(in crate::station) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let value = match self {
            Self::Number(Some(number)) => ValueRef::Integer(*number),
            Self::Text(Some(text)) => ValueRef::Text(text.as_bytes()),
            Self::Bytes(Some(bytes)) => ValueRef::Blob(bytes),
            Self::Number(None) | Self::Text(None) | Self::Bytes(None) => ValueRef::Null,
        };
        Ok(ToSqlOutput::Borrowed(value))
    }
}

/// Runs a statement, and gives the number of rows that it has changed.
pub(super) fn execute(connection: &Connection, sql: &str, values: &[Value]) -> Result<u64, Fault> {
    let mut statement = connection.prepare_cached(sql)?;
    let changed = statement.execute(params_from_iter(values))?;
    Ok(u64::try_from(changed).unwrap_or(u64::MAX))
}

/// All rows of an answer.
pub(super) fn rows(
    connection: &Connection,
    sql: &str,
    values: &[Value],
) -> Result<Vec<Row>, Fault> {
    let mut statement = connection.prepare_cached(sql)?;
    let columns: Arc<[String]> = statement.column_names().map(str::to_owned).collect();
    let mut found = statement.query(params_from_iter(values))?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        let values = (0..columns.len()).map(|index| value(row, index));
        rows.push(Row {
            columns: Arc::clone(&columns),
            values: values.collect::<Result<_, _>>()?,
        });
    }
    Ok(rows)
}

fn value(row: &rusqlite::Row<'_>, index: usize) -> Result<Value, Fault> {
    Ok(match row.get_ref(index)? {
        // Of whichever kind it is: nothing is nothing.
        ValueRef::Null => Value::Bytes(None),
        ValueRef::Integer(number) => Value::Number(Some(number)),
        ValueRef::Text(text) => {
            let text = str::from_utf8(text).map_err(rusqlite::Error::from)?;
            Value::Text(Some(text.to_owned()))
        }
        ValueRef::Blob(bytes) => Value::Bytes(Some(bytes.to_vec())),
        ValueRef::Real(_) => return Err(Row::wrong(&index.to_string())),
    })
}
