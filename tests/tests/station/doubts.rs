//! The books and a device may say different things: its flash was put back, its keys were removed by hand, a backup of the registry was, or another plan
//! was stopped in its midst. What passes is what the device itself has said again, signed.

use std::fs;
use std::path::{Path, PathBuf};

use keyferry_native::Device;
use keyferry_tests::command::Answer;
use serde_json::{Value, json};

use crate::stops::{PLAN, start};
use crate::{Fleet, KEYS, Plant, ended};

const TEST_DEVICES: &str = "[devices]\nallow-test-devices = true\n";

/// What a station has with a known device, on the command line.
fn device(plant: &Plant, words: &[&str], port: &str) -> Value {
    let known = [
        "--port",
        port,
        "--authority",
        "authority",
        "--policy",
        "open",
        "--allow-test-devices",
    ];
    plant
        .scratch
        .done(["device"].iter().chain(words).chain(&known))
}

/// The registry's word on one device.
fn shown(plant: &Plant, number: u16) -> Value {
    let id = format!("{number:032x}");
    let words = ["registry", "show", "--registry", "plant.db", &id];
    plant.scratch.done(words)
}

fn passes(answer: &Answer) -> Value {
    assert_eq!(answer.code, 0, "{answer:?}");
    ended(answer).remove(0)
}

/// A run in which the device at this port was done before.
fn passes_as_before(plant: &Plant, plan: &Path, port: &str) -> Answer {
    let answer = plant.run(plan, &[port], &[]);
    assert_eq!(passes(&answer)["before"], true, "{answer:?}");
    answer
}

/// All tries of the device at this port.
fn never_passes(plant: &Plant, plan: &Path, port: &str) {
    for _ in 0..3 {
        let answer = plant.run(plan, &[port], &[]);
        fails(&answer, "");
        assert_ne!(ended(&answer)[0]["locked"], true, "{answer:?}");
    }
}

/// A device that was stopped as soon as its journal had come to this moment; another one, done whole before, tells which that is.
fn stopped_at(plant: &Plant, whole: &Device, stopped: &Device, moment: &str) {
    let moments = start(plant, whole, None);
    let at = moments.iter().position(|it| it == moment);
    assert!(at.is_some(), "{moments:?}");
    start(plant, stopped, at);
}

fn fails(answer: &Answer, reason: &str) {
    assert_eq!(answer.code, 1, "{answer:?}");
    let unit = &ended(answer)[0];
    let error = unit["error"].as_str().unwrap();
    assert!(error.contains(reason), "{unit}");
}

fn rewrite(plan: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(plan).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(plan, text.replacen(from, to, 1)).unwrap();
}

fn check_audit(plant: &Plant) {
    let audit = plant.audit();
    assert_eq!(audit["keys"]["open"], 0, "{audit}");
    assert_eq!(audit["open_orders"], 0, "{audit}");
}

#[test]
fn a_flash_that_was_put_back_never_passes_by_trying_again() {
    let plant = Plant::new();
    let plan = plant.plan(PLAN);
    let fleet = Fleet::new();
    let blank = fleet.start(1);
    let enroll = ["enroll", "--unwrap", "p-256", "--registry", "plant.db"];
    let books = ["--audit", "line.audit", "--audit-key", "audit"];
    device(&plant, &[&enroll[..], &books].concat(), blank.port());
    let before = fs::read(fleet.flash(1)).unwrap();
    passes(&plant.run(&plan, &[blank.port()], &[]));
    drop(blank);

    let again = Fleet::new();
    fs::write(again.flash(1), before).unwrap();
    let back = again.start(1);
    fails(&plant.run(&plan, &[back.port()], &[]), "counter");
    never_passes(&plant, &plan, back.port());
    let list = ["device", "list", "--port", back.port()];
    let slots = plant.scratch.done(list);
    assert_eq!(slots["slots"], json!([]), "{slots}");
    // Somebody decides that it may have keys again.
    let answer = plant.run(&plan, &[back.port()], &["--rework"]);
    assert_eq!(passes(&answer)["locked"], true, "{answer:?}");
    assert_eq!(answer.last()["keys_proved"], KEYS, "{answer:?}");
    check_audit(&plant);
}

#[test]
fn keys_that_were_removed_by_hand_are_missed() {
    let plant = Plant::new();
    let plan = plant.plan(TEST_DEVICES);
    let fleet = Fleet::new();
    let one = fleet.start(1);
    passes(&plant.run(&plan, &[one.port()], &[]));
    device(&plant, &["remove", "--slot", "3"], one.port());
    never_passes(&plant, &plan, one.port());
    let answer = plant.run(&plan, &[one.port()], &["--rework"]);
    passes(&answer);
    assert_eq!(answer.last()["keys_proved"], KEYS, "{answer:?}");
    passes_as_before(&plant, &plan, one.port());
    check_audit(&plant);
}

#[test]
fn a_device_that_has_done_other_orders_since_confirms_its_keys() {
    let plant = Plant::new();
    let plan = plant.plan(TEST_DEVICES);
    let fleet = Fleet::new();
    let one = fleet.start(1);
    passes(&plant.run(&plan, &[one.port()], &[]));
    device(&plant, &["prove", "--key", "fleet@0"], one.port());
    for has_to_confirm in [true, false] {
        let answer = passes_as_before(&plant, &plan, one.port());
        let has_confirmed = answer.stdout.contains("has confirmed what it holds");
        assert_eq!(has_confirmed, has_to_confirm, "{answer:?}");
    }
    plant.assert_all_done(1);
}

/// The files of the registry, and how they are put back.
fn copy(plant: &Plant) -> (PathBuf, Vec<u8>) {
    let path = plant.scratch.path("plant.db");
    let bytes = fs::read(&path).unwrap();
    (path, bytes)
}

fn put_back((path, bytes): &(PathBuf, Vec<u8>)) {
    for more in ["-wal", "-shm"] {
        let mut name = path.clone().into_os_string();
        name.push(more);
        let _ = fs::remove_file(name);
    }
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_registry_that_is_older_than_its_devices_does_not_pass_them() {
    let plant = Plant::new();
    let plan = plant.plan(TEST_DEVICES);
    let fleet = Fleet::new();
    let one = fleet.start(1);
    passes(&plant.run(&plan, &[one.port()], &[]));
    let backup = copy(&plant);
    rewrite(&plan, "[order]", "[order]\nversion = 2");
    passes(&plant.run(&plan, &[one.port()], &[]));
    put_back(&backup);
    // Neither by the plan of now, nor by the one before it, nor in any order.
    fails(&plant.run(&plan, &[one.port()], &[]), "slot");
    rewrite(&plan, "version = 2", "version = 1");
    fails(&plant.run(&plan, &[one.port()], &[]), "holds version 2");
    fails(&plant.run(&plan, &[one.port()], &[]), "");
    put_back(&backup);
    fails(&plant.run(&plan, &[one.port()], &[]), "holds version 2");
    passes(&plant.run(&plan, &[one.port()], &["--rework"]));
}

/// What is locked takes no keys: none are made for it, and the registry does not have them as failed.
#[test]
fn a_locked_device_is_not_given_another_version() {
    let plant = Plant::new();
    let plan = plant.plan(&format!("{TEST_DEVICES}[after]\nlock = true\n"));
    let fleet = Fleet::new();
    let one = fleet.start(1);
    passes(&plant.run(&plan, &[one.port()], &[]));
    let audit = plant.audit();
    rewrite(&plan, "[order]", "[order]\nversion = 2");
    for more in [&[][..], &["--rework"]] {
        fails(&plant.run(&plan, &[one.port()], more), "it takes no others");
    }
    assert_eq!(plant.audit()["keys"], audit["keys"]);
    rewrite(&plan, "version = 2", "version = 1");
    passes_as_before(&plant, &plan, one.port());
    let shown = shown(&plant, 1);
    assert!(
        shown["next"].as_str().unwrap().starts_with("none"),
        "{shown}"
    );
    plant.assert_all_done(1);
}

#[test]
fn a_registry_that_is_another_is_found_out_before_a_device_is_touched() {
    let plant = Plant::new();
    let plan = plant.plan(TEST_DEVICES);
    let fleet = Fleet::new();
    let (one, two) = (fleet.start(1), fleet.start(2));
    passes(&plant.run(&plan, &[one.port()], &[]));
    let registry = copy(&plant);
    fs::remove_file(&registry.0).unwrap();
    for more in [&[][..], &["--rework"]] {
        let answer = plant.run(&plan, &[one.port()], more);
        fails(&answer, "the registry does not know it");
        assert!(
            answer.stdout.contains("put the registry back"),
            "{answer:?}"
        );
    }
    put_back(&registry);
    passes_as_before(&plant, &plan, one.port());
    passes(&plant.run(&plan, &[two.port()], &[]));
    plant.assert_all_done(2);
}

#[test]
fn a_device_that_was_released_and_not_wiped_keeps_what_it_has() {
    let plant = Plant::new();
    let plan = plant.plan(TEST_DEVICES);
    let fleet = Fleet::new();
    let one = fleet.start(1);
    passes(&plant.run(&plan, &[one.port()], &[]));
    let release = || {
        let id = format!("{:032x}", 1);
        let words = ["registry", "release", "--registry", "plant.db", &id];
        plant
            .scratch
            .done(words.iter().chain(&["--reason", "sold"]));
    };
    release();
    for has_to_confirm in [true, false] {
        let answer = passes_as_before(&plant, &plan, one.port());
        let has_confirmed = answer.stdout.contains("has confirmed what it holds");
        assert_eq!(has_confirmed, has_to_confirm, "{answer:?}");
    }
    plant.assert_all_done(1);
    // Not if it has lost one of them meanwhile.
    device(&plant, &["remove", "--slot", "4"], one.port());
    release();
    never_passes(&plant, &plan, one.port());
    check_audit(&plant);
}

/// A plan with a single key, in another slot, beside the one with five.
fn one_more(plan: &Path) {
    let text = fs::read_to_string(plan).unwrap();
    let (head, rest) = text.split_once("[[key]]").unwrap();
    let (_, tail) = rest.split_once("[backend]").unwrap();
    let key = "[[key]]\nslot = 5\nfrom = \"fresh\"\nlabel = \"added\"\ntype = \"aes-128\"\nuse = \"cmac\"\nexport = true\n";
    fs::write(plan, format!("{head}{key}[backend]{tail}")).unwrap();
}

/// A key that went out under another plan, and of which nobody knows yet whether it arrived, is found out about before the device passes under
/// this one.
#[test]
fn another_plan_that_was_stopped_in_its_midst_is_gone_on_with() {
    let plant = Plant::new();
    let plan = plant.plan(TEST_DEVICES);
    let fleet = Fleet::new();
    let devices = fleet.start_all(2);
    for device in &devices {
        passes(&plant.run(&plan, &[device.port()], &[]));
    }
    let five = fs::read(&plan).unwrap();
    one_more(&plan);
    let one = fs::read(&plan).unwrap();
    stopped_at(&plant, &devices[1], &devices[0], "proved false");
    fs::write(&plan, &five).unwrap();
    passes(&plant.run(&plan, &[devices[0].port()], &[]));
    let next = shown(&plant, 1);
    let slots = next["slots"].as_array().unwrap();
    assert_eq!(slots.len(), KEYS + 1, "{next}");
    assert!(slots.iter().all(|slot| slot["state"] == "proved"), "{next}");
    fs::write(&plan, &one).unwrap();
    assert_eq!(
        passes(&plant.run(&plan, &[devices[0].port()], &[]))["before"],
        true
    );
    // The backend has it, too.
    let exported = plant.exported();
    for number in [1, 2] {
        let id = format!("{number:032x}");
        let of_five = exported.iter().filter(|key| key.0 == id && key.1 == 5);
        assert_eq!(of_five.count(), 1);
    }
    check_audit(&plant);
}

#[test]
fn a_key_that_was_kept_for_another_use_is_made_anew() {
    let plant = Plant::new();
    let plan = plant.plan(TEST_DEVICES);
    let fleet = Fleet::new();
    let two = fleet.start(2);
    stopped_at(&plant, &fleet.start(1), &two, "ordered true");
    rewrite(&plan, "use = \"ecdsa\"", "use = \"ecdh\"");
    passes(&plant.run(&plan, &[two.port()], &[]));
    passes_as_before(&plant, &plan, two.port());
    check_audit(&plant);
}

/// The order with the new keys never came, and the device has done another since: what it proves is what it had.
#[test]
fn keys_that_did_not_replace_the_earlier_ones_are_sent_again() {
    let plant = Plant::new();
    let plan = plant.plan(TEST_DEVICES);
    let fleet = Fleet::new();
    let devices = fleet.start_all(2);
    for device in &devices {
        passes(&plant.run(&plan, &[device.port()], &[]));
    }
    rewrite(&plan, "[order]", "[order]\nversion = 2");
    stopped_at(&plant, &devices[1], &devices[0], "ordered true");
    device(&plant, &["prove", "--key", "fleet@0"], devices[0].port());
    let answer = plant.run(&plan, &[devices[0].port()], &[]);
    passes(&answer);
    for number in [1, 2] {
        let next = shown(&plant, number);
        let slots = next["slots"].as_array().unwrap();
        let proved: Vec<_> = slots.iter().filter(|it| it["state"] == "proved").collect();
        assert_eq!(proved.len(), KEYS, "{next}");
        assert!(proved.iter().all(|slot| slot["version"] == 2), "{next}");
    }
    check_audit(&plant);
}

#[test]
fn a_device_that_lost_a_key_before_its_lock_is_not_locked() {
    let plant = Plant::new();
    let plan = plant.plan(PLAN);
    let fleet = Fleet::new();
    let two = fleet.start(2);
    stopped_at(&plant, &fleet.start(1), &two, "locking true");
    device(&plant, &["remove", "--slot", "3"], two.port());
    never_passes(&plant, &plan, two.port());
    let answer = plant.run(&plan, &[two.port()], &["--rework"]);
    assert_eq!(passes(&answer)["locked"], true, "{answer:?}");
    check_audit(&plant);
}

#[test]
fn what_was_for_the_backend_outlives_a_release_before_the_lock() {
    let plant = Plant::new();
    let plan = plant.plan(PLAN);
    let fleet = Fleet::new();
    let two = fleet.start(2);
    stopped_at(&plant, &fleet.start(1), &two, "locking true");
    let id = format!("{:032x}", 2);
    let release = ["registry", "release", "--registry", "plant.db", &id];
    plant
        .scratch
        .done(release.iter().chain(&["--reason", "a mistake"]));
    let answer = plant.run(&plan, &[two.port()], &[]);
    assert_eq!(passes(&answer)["locked"], true, "{answer:?}");
    plant.assert_all_done(2);
}

/// Its counter is the one that the registry has, and what it did last is not.
#[test]
fn a_flash_that_was_put_back_and_caught_up_does_not_pass() {
    let plant = Plant::new();
    let plan = plant.plan(TEST_DEVICES);
    let fleet = Fleet::new();
    let one = fleet.start(1);
    passes(&plant.run(&plan, &[one.port()], &[]));
    let before = fs::read(fleet.flash(1)).unwrap();
    rewrite(&plan, "[order]", "[order]\nversion = 2");
    passes(&plant.run(&plan, &[one.port()], &[]));
    let counter = shown(&plant, 1)["counter"].clone();
    drop(one);
    let again = Fleet::new();
    fs::write(again.flash(1), before).unwrap();
    let back = again.start(1);
    device(&plant, &["remove", "--slot", "3"], back.port());
    let words = ["device", "info", "--port", back.port()];
    assert_eq!(plant.scratch.done(words)["counter"], counter);
    never_passes(&plant, &plan, back.port());
    passes(&plant.run(&plan, &[back.port()], &["--rework"]));
    check_audit(&plant);
}
