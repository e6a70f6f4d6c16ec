//! What the station's SQLite files have in common: whose a file is, how an older one is brought up to date, and how a new one is switched
//! to a write-ahead log.

use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

/// What a file turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A file of the newest version; older ones have become one.
    Ready,
    /// Something else.
    Foreign,
    /// A file of a version that is not known here.
    Newer(i64),
}

/// Brings a file up to date, in one transaction. `application` marks whose it is (`PRAGMA application_id`); `migrations` are those of
/// all versions in their order.
pub(super) fn migrate(
    connection: &Connection,
    application: i64,
    migrations: &[&str],
) -> rusqlite::Result<Found> {
    let newest = i64::try_from(migrations.len()).unwrap_or(i64::MAX);
    match look(connection, application, newest)? {
        (Found::Ready, version) if version == newest => return Ok(Found::Ready),
        (Found::Ready, _) => {}
        (other @ (Found::Foreign | Found::Newer(_)), _) => return Ok(other),
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
    } else if found != application || version < 1 {
        Found::Foreign
    } else if version > newest {
        Found::Newer(version)
    } else {
        Found::Ready
    };
    Ok((found, version))
}

/// Readers and one writer at a time do not wait for each other. SQLite does not wait by itself when this is switched on. Gives the mode
/// that the file has now.
pub(super) fn write_ahead(connection: &Connection, patience: Duration) -> rusqlite::Result<String> {
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
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}
