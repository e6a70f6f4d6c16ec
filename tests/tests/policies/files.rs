//! Files that are no registry, not any more, or not yet.

use std::fs;

use keyferry::error::{Exit, Failure};
use keyferry::station::registry::{Registry, RegistryError};
use rusqlite::Connection;

use crate::{Book, Device};

#[test]
fn a_registry_that_is_not_there_is_begun_only_where_devices_are_enrolled() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    let error = Registry::open_existing(&path).unwrap_err();
    assert!(matches!(error, RegistryError::Missing { .. }), "{error}");
    assert!(!path.exists(), "a name written wrongly begins nothing");
    assert_eq!(Failure::from(error).exit(), Exit::Usage);
    drop(Registry::open(&path).unwrap());
    drop(Registry::open_existing(&path).unwrap());
    let folder = Registry::open(folder.path()).unwrap_err();
    assert!(matches!(folder, RegistryError::Database { .. }), "{folder}");
}

#[test]
fn somebody_elses_file_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.txt");
    fs::write(
        &text,
        "not a database at all, but long enough to look at".repeat(30),
    )
    .unwrap();
    let other = folder.path().join("other.db");
    let database = Connection::open(&other).unwrap();
    database
        .execute_batch("CREATE TABLE devices (device TEXT)")
        .unwrap();
    drop(database);
    for path in [text, other] {
        let before = fs::read(&path).unwrap();
        let error = Registry::open(&path).unwrap_err();
        assert!(
            matches!(error, RegistryError::NotARegistry { .. }),
            "{error}"
        );
        assert_eq!(fs::read(&path).unwrap(), before);
    }
}

#[test]
fn a_registry_of_a_newer_program_is_left_alone() {
    let book = Book::new();
    book.enrol(&Device::new(1)).unwrap();
    let raw = Connection::open(book.path()).unwrap();
    raw.pragma_update(None, "user_version", 7).unwrap();
    drop(raw);
    let error = Registry::open(&book.path()).unwrap_err();
    assert!(
        matches!(
            error,
            RegistryError::Newer {
                found: 7,
                known: 3,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("update"));
}

#[test]
fn a_damaged_registry_is_found_out() {
    let book = Book::new();
    for number in 0..20 {
        book.enrol(&Device::new(number)).unwrap();
    }
    let path = book.path();
    let Book {
        registry, folder, ..
    } = book;
    // Closed, so that all of it is in the one file.
    drop(registry);
    let whole = fs::read(&path).unwrap();
    let page = 4096;
    assert!(whole.len() > 8 * page);
    for place in 1..whole.len() / page {
        let mut damaged = whole.clone();
        damaged[place * page..][..64].fill(0xff);
        fs::write(&path, &damaged).unwrap();
        match Registry::open(&path) {
            Err(RegistryError::Damaged { .. }) => {}
            Err(error) => panic!("page {place}: {error}"),
            Ok(_) => panic!("page {place}: nothing was noticed"),
        }
    }
    let cut = &whole[..whole.len() - 3 * page];
    fs::write(&path, cut).unwrap();
    let error = Registry::open(&path).unwrap_err();
    assert!(matches!(error, RegistryError::Damaged { .. }), "{error}");
    assert!(error.hint().unwrap().contains("backup"));
    drop(folder);
}

#[test]
fn what_was_written_is_on_the_disk_when_the_call_returns() {
    let book = Book::new();
    let raw = Connection::open(book.path()).unwrap();
    let mode: String = raw
        .pragma_query_value(None, "journal_mode", |row| row.get(0))
        .unwrap();
    assert_eq!(mode, "wal");
    book.enrol(&Device::new(1)).unwrap();
    // A copy of the files as they are now, as after a power cut: the registry was not closed.
    let after = tempfile::tempdir().unwrap();
    for name in ["registry.db", "registry.db-wal"] {
        fs::copy(book.path().with_file_name(name), after.path().join(name)).unwrap();
    }
    let registry = Registry::open_existing(&after.path().join("registry.db")).unwrap();
    let record = registry.find(Device::new(1).id).unwrap().unwrap();
    assert!(record.statement().is_ok());
}
