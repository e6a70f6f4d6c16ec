//! Files that are no registry, not any more, or not yet.

use std::fs;

use keyferry::error::{Exit, Failure};
use keyferry::station::registry::{Registry, RegistryError, SlotState};
use rusqlite::Connection;

use crate::records::{inject, status};
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

/// A registry of the first version, with a device whose keys are proved and one whose keys are on their way. Nobody looked for gaps then, so
/// what was proved may be lost; what is on its way is not in doubt for that.
#[test]
fn an_older_registry_is_brought_up_to_date_and_keeps_what_is_in_it() {
    let book = Book::new();
    let mut devices = [1, 2].map(Device::new);
    let orders = devices.each_mut().map(|device| {
        book.enrol(device).unwrap();
        let order = book.registry.order_made(&inject(device, 2, 1)).unwrap();
        device.counter = 2;
        order
    });
    let device = &devices[0];
    let applied = status(device, orders[0], true);
    book.registry.moved(device.id, &applied).unwrap();
    book.registry
        .slots_proved(device.id, &orders[0], &[(0, 1), (3, 1)])
        .unwrap();
    let path = book.path();
    let find = |registry: &Registry, device: &Device| {
        let record = registry.find(device.id).unwrap();
        format!("{:?}", record.expect("it is there"))
    };
    let before = devices.each_ref().map(|it| find(&book.registry, it));
    let raw = Connection::open(&path).unwrap();
    raw.execute_batch(
        "DROP TABLE kept_keys; ALTER TABLE slots DROP COLUMN doubted; PRAGMA user_version = 1",
    )
    .unwrap();
    drop(raw);
    let registry = Registry::open_existing(&path).unwrap();
    for (number, (device, order)) in devices.iter().zip(&orders).enumerate() {
        assert_eq!(find(&registry, device), before[number]);
        assert!(registry.order(order).unwrap().is_some());
        let slots = registry.slots(device.id).unwrap();
        let found: Vec<_> = slots
            .iter()
            .map(|it| (it.slot, it.state, it.doubted))
            .collect();
        let is_proved = number == 0;
        let state = if is_proved {
            SlotState::Proved
        } else {
            SlotState::Pending
        };
        assert_eq!(found, [0, 3].map(|slot| (slot, state, is_proved)));
    }
    assert_eq!(registry.kept_keys().unwrap(), 0);
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
