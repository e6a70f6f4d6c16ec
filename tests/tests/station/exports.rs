//! What a backend gets: the keys that are wrapped for it, each once, whatever stood in the way before.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use keyferry_protocol::suite::Suite;
use keyferry_tests::command::Answer;
use keyferry_tests::openssl::{make_rsa, open_blob};
use rusqlite::Connection;
use serde_json::Value;

use crate::stops::{PLAN, start};
use crate::{Fleet, OWN, Plant, ended};

/// The manifests in the folders of a backend.
fn manifests(plant: &Plant, folder: &str) -> Vec<(PathBuf, Value)> {
    let Ok(folders) = fs::read_dir(plant.scratch.path(folder)) else {
        return Vec::new();
    };
    folders
        .map(|it| it.unwrap().path())
        .filter(|path| path.is_dir())
        .map(|path| {
            let text = fs::read(path.join("manifest.json")).unwrap();
            (path, serde_json::from_slice(&text).unwrap())
        })
        .collect()
}

/// The devices whose keys are in the folders of a backend, once for each key.
fn devices(plant: &Plant, folder: &str) -> Vec<String> {
    let keys = |(_, manifest): (PathBuf, Value)| manifest["keys"].as_array().unwrap().clone();
    let keys = manifests(plant, folder).into_iter().flat_map(keys);
    keys.map(|key| key["device"].as_str().unwrap().to_owned())
        .collect()
}

/// A device's name, once for each key that a backend gets of it.
fn own(number: u16) -> Vec<String> {
    vec![format!("{number:032x}"); OWN]
}

/// A plan like this one for another backend, whose private key file is given as well.
fn for_another(plant: &Plant, plan: &Path) -> (PathBuf, String) {
    let (private, _) = make_rsa(&plant.scratch, "other", 2048);
    let text = fs::read_to_string(plan).unwrap();
    let text = text
        .replace(
            &plant.fingerprint("backend.pem"),
            &plant.fingerprint("other.pem"),
        )
        .replace("backend.pem", "other.pem")
        .replace("\"exports\"", "\"others\"");
    let path = plant.scratch.path("other.toml");
    fs::write(&path, text).unwrap();
    (path, private)
}

fn change_journal(plant: &Plant, sql: &str) {
    let journal = Connection::open(plant.scratch.path("station.journal")).unwrap();
    journal.execute_batch(sql).unwrap();
}

fn warnings(answer: &Answer) -> Vec<String> {
    let lines = answer.json().into_iter();
    lines
        .filter_map(|line| Some(line["warning"].as_str()?.to_owned()))
        .filter(|text| text.contains("not exported"))
        .collect()
}

/// At which moments a station that does one device comes to these changes of its journal. The device's keys are taken away.
fn moments<const N: usize>(plant: &Plant, fleet: &Fleet, changes: [&str; N]) -> [Option<usize>; N] {
    let moments = start(plant, &fleet.start(99), None);
    fs::remove_dir_all(plant.scratch.path("exports")).unwrap();
    changes.map(|what| {
        let moment = moments.iter().position(|it| it == what);
        assert!(moment.is_some(), "{moments:?}");
        moment
    })
}

/// Takes a device out of the books and out of itself.
fn erase(plant: &Plant, fleet: &Fleet, number: u16) {
    fs::remove_file(fleet.flash(number)).unwrap();
    let id = format!("{number:032x}");
    let release = ["registry", "release", "--registry", "plant.db", &id];
    plant
        .scratch
        .done(release.iter().chain(&["--reason", "erased"]));
}

/// Devices 1 to 3 are done for a backend, in three states that a stop leaves behind; then a plan names another backend.
#[test]
fn keys_that_are_wrapped_for_one_backend_never_go_to_another() {
    let plant = Plant::new();
    let plan = plant.plan(PLAN);
    let fleet = Fleet::new();
    let [done, proved] = moments(&plant, &fleet, ["done true", "proved false"]);
    // Given to a folder that cannot be written.
    fs::write(plant.scratch.path("exports"), "").unwrap();
    let third = fleet.start(3);
    let answer = plant.run(&plan, &[third.port()], &[]);
    assert_ne!(answer.code, 0, "{answer:?}");
    // Done, and not given to a folder.
    start(&plant, &fleet.start(1), done);
    // The device has its keys, and the station does not know it.
    let resumed = fleet.start(2);
    start(&plant, &resumed, proved);

    let (other, private) = for_another(&plant, &plan);
    let fourth = fleet.start(4);
    let answer = plant.run(&other, &[resumed.port(), fourth.port()], &[]);
    assert_eq!(answer.code, 0, "{answer:?}");
    assert_eq!(devices(&plant, "others"), own(4));
    for (folder, manifest) in manifests(&plant, "others") {
        for key in manifest["keys"].as_array().unwrap() {
            let blob = fs::read(folder.join(key["file"].as_str().unwrap())).unwrap();
            let key = open_blob(&plant.scratch, Suite::RsaOaepSha1, &private, &blob);
            assert!(!key.is_empty(), "{key:?}");
        }
    }
    let [warning] = warnings(&answer).try_into().unwrap();
    assert!(warning.contains("9 keys"), "{warning}");
    assert!(
        warning.contains(&plant.fingerprint("backend.pem")),
        "{warning}"
    );

    fs::remove_file(plant.scratch.path("exports")).unwrap();
    let answer = plant.run(&plan, &[third.port()], &[]);
    assert_eq!(answer.code, 0, "{answer:?}");
    assert!(warnings(&answer).is_empty(), "{answer:?}");
    let mut found = devices(&plant, "exports");
    found.sort();
    assert_eq!(found, [own(1), own(2), own(3)].concat());
    assert_eq!(plant.exported().len(), 3 * OWN);
}

/// A journal as the version before wrote it does not say for whom keys are wrapped.
const BEFORE: &str = "ALTER TABLE exports DROP COLUMN recipient; ALTER TABLE units DROP COLUMN exported; DROP INDEX units_by_device;
     PRAGMA user_version = 4;";

#[test]
fn keys_of_an_earlier_version_go_where_their_plan_says() {
    let plant = Plant::new();
    let plan = plant.plan(PLAN);
    let fleet = Fleet::new();
    let [done] = moments(&plant, &fleet, ["done true"]);
    let device = fleet.start(1);
    start(&plant, &device, done);
    change_journal(&plant, BEFORE);
    let (other, _) = for_another(&plant, &plan);
    let second = fleet.start(2);
    let answer = plant.run(&other, &[second.port()], &[]);
    assert_eq!(answer.code, 0, "{answer:?}");
    assert_eq!(devices(&plant, "others"), own(2));
    let [warning] = warnings(&answer).try_into().unwrap();
    assert!(
        warning.contains("3 keys") && warning.contains("earlier version"),
        "{warning}"
    );

    let answer = plant.run(&plan, &[device.port()], &[]);
    assert_eq!(answer.code, 0, "{answer:?}");
    assert_eq!(devices(&plant, "exports"), own(1));
    assert_eq!(plant.exported().len(), OWN);
}

/// The keys of a device that was erased and done again: those that it has go to the backend.
#[test]
fn a_device_that_is_done_twice_is_exported_as_it_is() {
    let plant = Plant::new();
    let plan = plant.plan(PLAN);
    let fleet = Fleet::new();
    let [done] = moments(&plant, &fleet, ["done true"]);
    start(&plant, &fleet.start(1), done);
    change_journal(&plant, "CREATE TABLE kept AS SELECT * FROM exports");
    erase(&plant, &fleet, 1);
    // Nothing can be written for now.
    fs::write(plant.scratch.path("exports"), "").unwrap();
    let device = fleet.start(1);
    let answer = plant.run(&plan, &[device.port()], &[]);
    assert_ne!(answer.code, 0, "{answer:?}");
    let of = |table: &str| -> BTreeSet<Vec<u8>> {
        let journal = Connection::open(plant.scratch.path("station.journal")).unwrap();
        let mut query = journal
            .prepare(&format!("SELECT blob FROM {table}"))
            .unwrap();
        let blobs = query.query_map([], |row| row.get(0)).unwrap();
        blobs.map(Result::unwrap).collect()
    };
    let (first, last) = (of("kept"), of("exports"));
    assert_eq!((first.len(), last.len()), (OWN, OWN));
    assert!(first.is_disjoint(&last));

    // A journal that an earlier version has left with both in one folder recovers.
    change_journal(
        &plant,
        "INSERT INTO exports SELECT * FROM kept; DROP TABLE kept;
         UPDATE exports SET folder = (SELECT max(folder) FROM exports);",
    );
    change_journal(&plant, BEFORE);
    fs::remove_file(plant.scratch.path("exports")).unwrap();
    let answer = plant.run(&plan, &[device.port()], &[]);
    assert_eq!(answer.code, 0, "{answer:?}");
    assert_eq!(devices(&plant, "exports"), own(1));
    for (folder, manifest) in manifests(&plant, "exports") {
        for key in manifest["keys"].as_array().unwrap() {
            let blob = fs::read(folder.join(key["file"].as_str().unwrap())).unwrap();
            assert!(last.contains(&blob), "{key}");
        }
    }
}

/// Device 1 waits for a folder that cannot be written, for reasons of its own; device 2 gets into another one all the same.
#[test]
fn a_folder_that_cannot_be_written_keeps_no_other_from_it() {
    /// Sorted before all others.
    const FOLDER: &str = "00000000000000000000000000000000-1";
    let plant = Plant::new();
    let plan = plant.plan(PLAN);
    let fleet = Fleet::new();
    fs::write(plant.scratch.path("exports"), "").unwrap();
    let first = fleet.start(1);
    let answer = plant.run(&plan, &[first.port()], &[]);
    assert_ne!(answer.code, 0, "{answer:?}");
    fs::remove_file(plant.scratch.path("exports")).unwrap();
    let written_with = |number: u16, sql: &str, words: &str| {
        change_journal(&plant, sql);
        let device = fleet.start(number);
        let answer = plant.run(&plan, &[device.port()], &[]);
        assert_ne!(answer.code, 0, "{answer:?}");
        assert!(answer.stdout.contains(words), "{answer:?}");
        let found = devices(&plant, "exports");
        assert!(found.contains(&own(number)[0]), "{found:?}");
        assert!(!found.contains(&own(1)[0]), "{found:?}");
    };
    let named = |name: &str| format!("UPDATE exports SET folder = '{name}'");
    // Something else has its name.
    fs::create_dir_all(plant.scratch.path("exports")).unwrap();
    let taken = plant.scratch.path("exports").join(FOLDER);
    fs::write(&taken, "").unwrap();
    written_with(2, &named(FOLDER), FOLDER);
    fs::remove_file(taken).unwrap();
    // Whoever changes the journal does not say where files are written.
    written_with(3, &named("../outside"), "../outside");
    written_with(
        4,
        &named(&plant.scratch.path("outside").display().to_string()),
        "outside",
    );
    assert!(!plant.scratch.path("outside").exists());
    let moved = "UPDATE exports SET entry = json_set(entry, '$.file', '../../outside')";
    written_with(5, &format!("{}; {moved}", named(FOLDER)), "another name");
    assert!(!plant.scratch.path("outside").exists());

    let back = "UPDATE exports SET entry = json_set(entry, '$.file',
                json_extract(entry, '$.device') || '-' || slot || '.backend')";
    change_journal(&plant, back);
    let answer = plant.run(&plan, &[first.port()], &[]);
    assert_eq!(answer.code, 0, "{answer:?}");
    let mut found = devices(&plant, "exports");
    found.sort();
    assert_eq!(found, [own(1), own(2), own(3), own(4), own(5)].concat());
    assert_eq!(plant.exported().len(), 5 * OWN);
}

/// A station is stopped before the order; another one does the device meanwhile, but for its lock.
#[test]
fn keys_that_no_order_carried_are_not_exported() {
    let plant = Plant::new();
    let plan = plant.plan(PLAN);
    let fleet = Fleet::new();
    let [prepared] = moments(&plant, &fleet, ["prepared true"]);
    let device = fleet.start(1);
    start(&plant, &device, prepared);
    let text = fs::read_to_string(&plan).unwrap();
    let text = text
        .replace("station.journal", "second.journal")
        .replace("\"exports\"", "\"others\"")
        .replace("lock = true", "lock = false");
    let second = plant.scratch.path("second.toml");
    fs::write(&second, text).unwrap();
    let answer = plant.run(&second, &[device.port()], &[]);
    assert_eq!(answer.code, 0, "{answer:?}");
    assert_eq!(devices(&plant, "others"), own(1));
    let answer = plant.run(&plan, &[device.port()], &[]);
    assert_eq!(answer.code, 0, "{answer:?}");
    assert_eq!(devices(&plant, "exports"), Vec::<String>::new());
}

/// One device was done and one was killed in the midst before the plan asked for one more key to be exported, and for a certificate: neither passes
/// without a word. A higher version brings all of it.
#[test]
fn what_a_plan_asks_for_since_is_missed() {
    let plant = Plant::new();
    let plan = plant.plan("[devices]\nallow-test-devices = true\n");
    let whole = fs::read_to_string(&plan).unwrap();
    let aes = "type = \"aes-256\"\nuse = \"cmac\"\n";
    let fewer = whole.replace(&format!("{aes}export = true\n"), aes);
    assert_ne!(fewer, whole);
    fs::write(&plan, &fewer).unwrap();
    let fleet = Fleet::new();
    let [proved] = moments(&plant, &fleet, ["proved true"]);
    let [done, resumed] = [1, 2].map(|number| fleet.start(number));
    start(&plant, &resumed, proved);
    let answer = plant.run(&plan, &[done.port()], &[]);
    assert_eq!(answer.code, 0, "{answer:?}");

    let ports = [done.port(), resumed.port()];
    let assert_missed = |words: &str| {
        let answer = plant.run(&plan, &ports, &[]);
        assert_eq!(answer.code, 1, "{answer:?}");
        for unit in ended(&answer) {
            let said = unit["error"].as_str().unwrap_or_default();
            assert!(said.contains(words), "{unit}");
            let hint = unit["hint"].as_str().unwrap();
            assert!(hint.contains("raise the version"), "{unit}");
        }
    };
    fs::write(&plan, &whole).unwrap();
    // As often as it is tried.
    for _ in 0..2 {
        assert_missed("the backend has never got the one in slot 3");
    }
    // What the earlier plan asks for, they have.
    fs::write(&plan, &fewer).unwrap();
    assert_eq!(plant.run(&plan, &ports, &[]).code, 0);
    let create = ["ca", "init", "--create", "--label", "ca", "--out"];
    let ca = plant.scratch.path("ca.pem");
    plant.scratch.done(create.into_iter().chain(ca.to_str()));
    let certified = "[certificates]\nkey = \"ca\"\nca = \"ca.pem\"\n";
    fs::write(&plan, format!("{fewer}{certified}")).unwrap();
    assert_missed("no certificate");
    assert_eq!(plant.audit()["certificates"], 0);

    let newer = whole.replace("[order]", "[order]\nversion = 2");
    fs::write(&plan, format!("{newer}{certified}")).unwrap();
    for before in [false, true] {
        let answer = plant.run(&plan, &ports, &[]);
        assert_eq!(answer.code, 0, "{answer:?}");
        let ended = ended(&answer);
        let all = ended.iter().all(|unit| (unit["before"] == true) == before);
        assert!(all, "{ended:?}");
    }
    assert_eq!(plant.audit()["certificates"], 2);
    // All but one key of the first version, and all of the second.
    let exported = plant.exported();
    for number in [1, 2] {
        let id = format!("{number:032x}");
        let its = exported.iter().filter(|(device, ..)| *device == id);
        assert_eq!(its.count(), OWN - 1 + OWN, "{number}");
    }
}

/// What the backend opens is what the device has: a token that is given the backend's keys verifies the device's MACs by them.
#[test]
fn the_backend_has_the_keys_that_the_device_has() {
    let plant = Plant::new();
    let plan = plant.plan("[devices]\nallow-test-devices = true\n");
    let fleet = Fleet::new();
    let devices = fleet.start_all(2);
    let ports: Vec<_> = devices.iter().map(|device| device.port()).collect();
    let answer = plant.run(&plan, &ports, &[]);
    assert_eq!(answer.code, 0, "{answer:?}");
    for (device, slot, key) in plant.exported() {
        if slot != 4 {
            plant.scratch.import_aes(&format!("{device}-{slot}"), &key);
        }
    }
    let prove = |port: &str, number: u16, slot: u16| {
        let key = format!("{number:032x}-{slot}@{slot}");
        plant.scratch.run([
            "device",
            "prove",
            "--port",
            port,
            "--authority",
            "authority",
            "--policy",
            "registry",
            "--registry",
            "plant.db",
            "--audit",
            "line.audit",
            "--allow-test-devices",
            "--key",
            &key,
        ])
    };
    for (number, port) in (1..).zip(&ports) {
        for slot in [1, 3] {
            let answer = prove(port, number, slot);
            assert_eq!(answer.code, 0, "{answer:?}");
            // Another device's key is another one.
            let answer = prove(port, 3 - number, slot);
            assert_ne!(answer.code, 0, "{answer:?}");
        }
    }
}
