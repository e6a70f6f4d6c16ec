//! `keyferry registry`, as people and scripts use it.

use std::fs;
use std::process::Command;

use keyferry::station::policy::{Allowlist, NoRegistry, Trust, Visiting};
use keyferry::station::registry::Enrolled;
use keyferry_protocol::identity::DeviceId;
use keyferry_tests::audited::Station;
use keyferry_tests::command::{Answer, keyferry, refused};
use serde_json::Value;

use crate::{Book, Device, now, visiting};

fn registry(book: &Book, arguments: &[&str]) -> Command {
    let mut command = keyferry();
    command
        .arg("registry")
        .args(arguments)
        .env("KEYFERRY_REGISTRY", book.path());
    command
}

/// A registry with two devices, one of them with a serial number that a spreadsheet would compute.
fn book() -> (Book, Device, Device) {
    let book = Book::new();
    let (one, two) = (Device::new(1), Device::new(2));
    book.enrol(&one).unwrap();
    let trust = Trust {
        policy: "serial-list",
        reason: "its id is on the list, \"early\"".to_owned(),
    };
    book.registry
        .enrolled(&Enrolled {
            statement: &two.statement(),
            trust: &trust,
            serial: Some("=1+1"),
        })
        .unwrap();
    (book, one, two)
}

#[test]
fn devices_are_listed_and_shown() {
    let (book, one, two) = book();
    let answer = Answer::of(registry(&book, &["list"]).arg("--json"));
    assert_eq!(
        (answer.code, answer.last()["devices"].as_u64()),
        (0, Some(2))
    );
    let lines = answer.json();
    assert_eq!(lines[0]["device"], one.id.to_string());
    assert_eq!(lines[1]["policy"], "serial-list");
    let answer = Answer::of(&mut registry(&book, &["list"]));
    assert!(answer.stdout.contains(&two.id.to_string()), "{answer:?}");
    let locked = Answer::of(registry(&book, &["list", "--state", "locked"]).arg("--json"));
    assert_eq!(locked.last()["devices"], 0);

    let id = two.id.to_string();
    let answer = Answer::of(registry(&book, &["show", &id]).arg("--json"));
    let shown = answer.last();
    assert_eq!(shown["identity"], two.fingerprint().to_string());
    assert_eq!(shown["serial"], "=1+1");
    assert_eq!(shown["slots"].as_array().map(Vec::len), Some(0));
    let answer = Answer::of(&mut registry(&book, &["show", &id]));
    assert!(answer.stdout.contains("trusted because"), "{answer:?}");
}

#[test]
fn what_is_not_there_is_said() {
    let (book, _, _) = book();
    let nobody = DeviceId([9; 16]).to_string();
    refused(
        || registry(&book, &["show", &nobody]),
        2,
        "is not in the registry",
        "registry list",
    );
    refused(
        || registry(&book, &["release", &nobody, "--reason", "x"]),
        2,
        "is not in the registry",
        "registry list",
    );
    let missing = || {
        let mut command = keyferry();
        command.args(["registry", "list", "--registry"]);
        command.arg(book.path().with_file_name("other.db"));
        command
    };
    refused(missing, 2, "there is no registry", "check the name");
    let unnamed = || {
        let mut command = keyferry();
        command.args(["registry", "list"]);
        command
    };
    refused(unnamed, 2, "--registry is missing", "--registry");
}

#[test]
fn a_record_that_does_not_hold_together_is_not_shown_as_if_it_did() {
    let (book, one, two) = book();
    let raw = rusqlite::Connection::open(book.path()).unwrap();
    raw.execute(
        "UPDATE devices SET statement = (SELECT statement FROM devices WHERE device = ?1) WHERE device = ?2",
        [one.id.to_string(), two.id.to_string()],
    )
    .unwrap();
    let id = two.id.to_string();
    refused(
        || registry(&book, &["show", &id]),
        5,
        "cannot be believed",
        "backup",
    );
}

#[test]
fn a_release_is_written_down_with_its_reason() {
    let (book, one, two) = book();
    let id = one.id.to_string();
    for wrong in ["", " ", "two\nlines"] {
        let answer = Answer::of(&mut registry(&book, &["release", &id, "--reason", wrong]));
        assert_eq!(answer.code, 2, "{answer:?}");
    }
    let release = || registry(&book, &["release", &id, "--reason", "wiped for rework"]);
    assert_eq!(Answer::of(&mut release()).code, 0);
    refused(release, 5, "was released", "enrol it again");
    let listed = Answer::of(registry(&book, &["list"]).arg("--json"));
    assert_eq!(listed.last()["devices"], 1);
    let listed = Answer::of(registry(&book, &["list", "--released"]).arg("--json"));
    assert_eq!(listed.last()["devices"], 2);
    assert_eq!(listed.json()[0]["release_reason"], "wiped for rework");

    // The log gets what the registry gets: once, and nothing of a device that is not there.
    let path = book.path().with_file_name("line.audit");
    drop(Station::new(&path));
    let release = |id: &str| {
        let mut command = registry(&book, &["release", id, "--reason", "sold", "--audit"]);
        command.arg(&path);
        command
    };
    let (id, nobody) = (two.id.to_string(), DeviceId([9; 16]).to_string());
    assert_eq!(Answer::of(&mut release(&id)).code, 0);
    refused(|| release(&id), 5, "was released", "enrol it again");
    refused(
        || release(&nobody),
        2,
        "is not in the registry",
        "registry list",
    );
    let log = fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = log
        .lines()
        .filter(|line| line.contains("is let go of: sold"))
        .collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains(&id), "{log}");
}

#[test]
fn exports_are_whole_safe_and_read_by_others() {
    let (book, one, two) = book();
    let out = |name: &str| book.path().with_file_name(name);
    let export = |format: &str, name: &str| {
        let mut command = registry(&book, &["export", "--format", format, "--out"]);
        command.arg(out(name));
        command
    };
    assert_eq!(Answer::of(&mut export("csv", "devices.csv")).code, 0);
    let mut reader = csv::Reader::from_path(out("devices.csv")).unwrap();
    let column = |name| {
        let heading = reader.headers().unwrap().clone();
        heading.iter().position(|it| it == name).unwrap()
    };
    let columns = ["device", "serial", "reason"].map(column);
    let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
    let cell = |row: usize, place: usize| rows[row].get(columns[place]).unwrap().to_owned();
    assert_eq!(rows.len(), 2);
    assert_eq!(cell(1, 0), two.id.to_string());
    assert_eq!(cell(1, 1), "'=1+1", "no spreadsheet computes it");
    assert_eq!(cell(1, 2), "its id is on the list, \"early\"");

    assert_eq!(Answer::of(&mut export("json", "devices.json")).code, 0);
    let text = fs::read_to_string(out("devices.json")).unwrap();
    let objects: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(objects[0]["device"], one.id.to_string());

    refused(
        || export("json", "devices.json"),
        2,
        "exists already",
        "--force",
    );

    // Another line takes it as its allowlist.
    assert_eq!(Answer::of(&mut export("allowlist", "allowed.csv")).code, 0);
    let list = Allowlist::read("allowed.csv", &fs::read(out("allowed.csv")).unwrap()).unwrap();
    let rules = visiting(Visiting::Allowlist(list));
    for device in [&one, &two] {
        rules
            .visit(&device.statement(), None, &NoRegistry, now())
            .unwrap();
    }
    let stranger = Device::new(3).statement();
    assert!(rules.visit(&stranger, None, &NoRegistry, now()).is_err());
}
