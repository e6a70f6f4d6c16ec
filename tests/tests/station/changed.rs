//! What changes while a unit is under way: its device is enrolled anew, its plan asks for more, its row is deleted.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use keyferry::station::journal::Journal;
use keyferry_native::Device;
use keyferry_protocol::suite::Suite;
use keyferry_tests::openssl::open_blob;
use rusqlite::Connection;

use crate::stops::{PLAN, start};
use crate::{Fleet, KEYS, Plant, ended};

/// The own keys that wait in the journal for the backend, as it would read them.
fn waiting(plant: &Plant) -> BTreeSet<Vec<u8>> {
    let journal = Connection::open(plant.scratch.path("station.journal")).unwrap();
    let mut query = journal
        .prepare("SELECT blob FROM exports WHERE folder IS NULL")
        .unwrap();
    let blobs = query.query_map([], |row| row.get(0)).unwrap();
    blobs
        .map(|blob: rusqlite::Result<Vec<u8>>| {
            open_blob(
                &plant.scratch,
                Suite::RsaOaepSha1,
                &plant.backend,
                &blob.unwrap(),
            )
        })
        .collect()
}

/// A station that does device 1, and is killed in the midst of device 2.
fn killed_at(what: &str) -> (Plant, std::path::PathBuf, Fleet, Device) {
    let plant = Plant::new();
    let plan = plant.plan(PLAN);
    let fleet = Fleet::new();
    let moments = start(&plant, &fleet.start(1), None);
    let moment = moments.iter().position(|it| it == what);
    assert!(moment.is_some(), "{moments:?}");
    let device = fleet.start(2);
    start(&plant, &device, moment);
    (plant, plan, fleet, device)
}

/// Its keys are in it, and the registry has the order of another station for these slots, which the device has refused: what it proves is not of that
/// order. The unit ends, so that --rework can give it keys anew.
#[test]
fn a_device_that_another_station_has_ordered_for_since_can_be_reworked() {
    let (plant, plan, _fleet, device) = killed_at("proved false");
    // As if it was killed just before, when the receipt was in the books and the proofs were not.
    let registry = Connection::open(plant.scratch.path("plant.db")).unwrap();
    let sql = "UPDATE slots SET state = 'pending' WHERE device = ?1";
    let id = format!("{:032x}", 2);
    assert_eq!(registry.execute(sql, [id]).unwrap(), KEYS);
    drop(registry);
    let text = fs::read_to_string(&plan).unwrap();
    let other = plant.scratch.path("other.toml");
    let others = text
        .replace("station.journal", "other.journal")
        .replace("audit = \"line.audit\"\n", "")
        .replace("audit-key = \"audit\"\n", "");
    fs::write(&other, others).unwrap();
    let error = |plan: &Path, more: &[&str]| {
        let answer = plant.run(plan, &[device.port()], more);
        (answer.code, ended(&answer)[0]["error"].to_string())
    };
    let (code, said) = error(&other, &[]);
    assert_eq!(code, 1);
    assert!(said.contains("refused version 1 of the keys"), "{said}");
    let (code, said) = error(&plan, &[]);
    assert_eq!(code, 1);
    assert!(said.contains("the order cannot be kept"), "{said}");
    assert_eq!(error(&plan, &["--rework"]), (0, "null".to_owned()));
    let journal = Journal::open(&plant.scratch.path("station.journal")).unwrap();
    assert!(journal.all_under_way().unwrap().is_empty());
}

/// A plan with a higher version and one more key.
fn ask_for_more(plan: &Path) {
    let text = fs::read_to_string(plan).unwrap();
    let text = text
        .replace("[order]\n", "[order]\nversion = 2\n")
        .replace(
            "[backend]\n",
            "[[key]]\nslot = 5\nfrom = \"fresh\"\nlabel = \"added\"\ntype = \"aes-128\"\nuse = \"cmac\"\n[backend]\n",
        );
    fs::write(plan, text).unwrap();
}

#[test]
fn the_keys_of_one_device_never_go_to_another_that_has_its_id() {
    let (plant, plan, fleet, device) = killed_at("proved false");
    drop(device);
    let keys = waiting(&plant);
    assert_eq!(keys.len(), 3);
    // Another board with this id, which somebody enrols.
    fs::remove_file(fleet.flash(2)).unwrap();
    let other = fleet.start(2);
    let id = format!("{:032x}", 2);
    let release = ["registry", "release", "--registry", "plant.db", &id];
    plant
        .scratch
        .done(release.iter().chain(&["--reason", "swapped"]));
    plant.scratch.done([
        "device",
        "enroll",
        "--port",
        other.port(),
        "--authority",
        "authority",
        "--policy",
        "open",
        "--allow-test-devices",
        "--unwrap",
        "p-256",
        "--registry",
        "plant.db",
        "--audit",
        "line.audit",
        "--audit-key",
        "audit",
    ]);
    let answer = plant.run(&plan, &[other.port()], &[]);
    assert_eq!(answer.code, 0, "{answer:?}");
    let exported = plant.exported();
    let random = exported.iter().filter(|(_, slot, _)| *slot != 1);
    // The derived key is the same for the same id, slot and version: that is what derivation is for.
    for (device, slot, key) in random {
        assert!(!keys.contains(key), "device {device} slot {slot}");
    }
    assert!(exported.iter().any(|(device, ..)| *device == id));
    assert_eq!(plant.audit()["keys"]["open"], 0);
}

#[test]
fn a_unit_that_has_less_than_the_plan_asks_for_is_not_passed() {
    for what in ["proved false", "proved true", "locking true"] {
        println!("{what}");
        let (plant, plan, _fleet, device) = killed_at(what);
        ask_for_more(&plan);
        let answer = plant.run(&plan, &[device.port()], &[]);
        assert_eq!(answer.code, 1, "{answer:?}");
        let outcome = &ended(&answer)[0];
        let error = outcome["error"].as_str().unwrap();
        assert!(error.contains("asks for others now"), "{outcome}");
        assert!(!error.contains("journal"), "{outcome}");
        // It is not locked, so that the rest can come.
        let answer = plant.run(&plan, &[device.port()], &[]);
        assert_eq!(answer.code, 0, "{answer:?}");
        assert_eq!(answer.last()["keys_proved"], KEYS + 1, "{answer:?}");
        assert_eq!(ended(&answer)[0]["locked"], true, "{answer:?}");
        let audit = plant.audit();
        assert_eq!(audit["keys"]["open"], 0, "{audit}");
    }
}

#[test]
fn a_journal_of_which_rows_were_deleted_is_not_gone_on_with() {
    let (plant, plan, fleet, device) = killed_at("proved false");
    drop(device);
    let journal = Connection::open(plant.scratch.path("station.journal")).unwrap();
    let delete =
        "PRAGMA foreign_keys = OFF; DELETE FROM units WHERE step NOT IN ('done', 'failed');";
    journal.execute_batch(delete).unwrap();
    drop(journal);
    let third = fleet.start(3);
    let answer = plant.run(&plan, &[third.port()], &[]);
    assert_ne!(answer.code, 0, "{answer:?}");
    assert!(answer.stdout.contains("rows are missing"), "{answer:?}");
}

#[test]
fn a_report_leaves_what_it_reads() {
    let plant = Plant::new();
    let plan = plant.plan(PLAN);
    let fleet = Fleet::new();
    let device = fleet.start(1);
    let answer = plant.run(&plan, &[device.port()], &[]);
    assert_eq!(answer.code, 0, "{answer:?}");
    let report = |journal: &str, out: &str| {
        let words = ["station", "report", "--journal", journal, "--out", out];
        plant
            .scratch
            .run(words.iter().chain(&["--force", "--json"]))
    };
    let before = fs::read(plant.scratch.path("station.journal")).unwrap();
    let answer = report("station.journal", "station.journal");
    assert_eq!(answer.code, 2, "{answer:?}");
    assert_eq!(
        before,
        fs::read(plant.scratch.path("station.journal")).unwrap()
    );
    fs::write(plant.scratch.path("empty"), "").unwrap();
    assert_eq!(report("empty", "empty.html").code, 2);
    assert!(fs::read(plant.scratch.path("empty")).unwrap().is_empty());
    // Times that nobody but a hand writes.
    let path = plant.scratch.path("station.journal");
    let journal = Connection::open(path).unwrap();
    let extremes = "UPDATE steps SET at_ms = CASE WHEN number % 2 = 1 THEN -9223372036854775808 ELSE 9223372036854775807 END";
    journal.execute_batch(extremes).unwrap();
    drop(journal);
    let answer = report("station.journal", "shift.html");
    assert_eq!(answer.code, 0, "{answer:?}");
}
