//! The page about a run or a shift.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;

use keyferry::station::journal::{Journal, Run};
use keyferry_protocol::identity::Digest;
use serde_json::{Value, json};

use crate::{Fleet, Plant};

const TEST_DEVICES: &str = "[devices]\nallow-test-devices = true\n";

fn report(plant: &Plant, more: &[&str]) -> Value {
    plant
        .scratch
        .done(["station", "report", "--force"].iter().chain(more))
}

#[test]
fn a_run_fits_on_one_page() {
    let plant = Plant::new();
    let fleet = Fleet::new();
    let devices = fleet.start_all(2);
    let nobody = {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("tcp:{}", gone.local_addr().unwrap())
    };
    let ports = [devices[0].port(), &nobody, devices[1].port()];
    let plan = plant.plan(TEST_DEVICES);
    let first = plant.run(&plan, &ports, &[]);
    assert_eq!(first.code, 1, "{first:?}");
    let summary = first.json().into_iter().find(|it| it["event"] == "summary");
    let first = summary.unwrap()["run"].as_str().unwrap().to_owned();

    let told = report(
        &plant,
        &["--journal", "station.journal", "--out", "shift.html"],
    );
    assert_eq!(told["runs"], json!([first]), "{told}");
    assert_eq!(
        [&told["done"], &told["before"], &told["failed"]],
        [2, 0, 1],
        "{told}"
    );
    assert!((told["yield"].as_f64().unwrap() - 2.0 / 3.0).abs() < 1e-9);
    let page = fs::read_to_string(plant.scratch.path("shift.html")).unwrap();
    let words = ["five keys", &first, "66.7 %", &nobody, "<svg"];
    // Each device came to each of these.
    let steps = ["trusted (2)", "prepared (2)", "ordered (2)", "proved (2)"];
    for word in words.iter().chain(&steps) {
        assert!(page.contains(word), "{word}: {page}");
    }
    for device in plant.registry() {
        assert!(page.contains(device["device"].as_str().unwrap()), "{page}");
    }

    // A second run: the last one is reported, and the first one by its name.
    let second = plant.run(&plan, &[devices[0].port()], &[]);
    assert_eq!(second.code, 0, "{second:?}");
    let last = report(
        &plant,
        &["--journal", "station.journal", "--out", "shift.html"],
    );
    let second = second.last()["run"].clone();
    assert_eq!(last["runs"], json!([second]));
    assert_eq!([&last["done"], &last["before"]], [0, 1], "{last}");
    let named = [
        &first[..8],
        "--journal",
        "station.journal",
        "--out",
        "shift.html",
    ];
    assert_eq!(report(&plant, &named), told);

    // Both are of this shift, and a device that was done in the first is one device.
    let shift = ["--hours", "8", "--journal", "station.journal"];
    let shift = report(&plant, &[&shift[..], &["--out", "shift.html"]].concat());
    assert_eq!(shift["runs"], json!([first, second]));
    assert_eq!(
        [&shift["done"], &shift["before"], &shift["failed"]],
        [2, 0, 1],
        "{shift}"
    );
    let page = fs::read_to_string(plant.scratch.path("shift.html")).unwrap();
    assert!(page.contains("What ended since"), "{page}");

    let list = ["station", "runs", "--json", "--journal", "station.journal"];
    let list = plant.scratch.run(list);
    assert_eq!(list.code, 0, "{list:?}");
    let runs = list.json();
    let seen: Vec<_> = runs
        .iter()
        .map(|run| [&run["run"], &run["done"], &run["before"], &run["failed"]])
        .collect();
    let (first, second) = (json!(first), second);
    let wanted = [
        [&first, &json!(2), &json!(0), &json!(1)],
        [&second, &json!(0), &json!(1), &json!(0)],
    ];
    assert_eq!(seen[..2], wanted, "{list:?}");
    let last = [
        "station",
        "runs",
        "--last",
        "1",
        "--journal",
        "station.journal",
    ];
    assert_eq!(plant.scratch.done(last)["runs"], 1);
}

fn named(run: &str) -> [&str; 3] {
    [run, "--journal", "station.journal"]
}

#[test]
fn a_report_of_nothing_is_refused() {
    let plant = Plant::new();
    let refused = |words: &[&str], reason: &str| {
        let words = ["station", "report", "--out", "shift.html"]
            .iter()
            .chain(words);
        let answer = plant.scratch.run(words);
        assert_eq!(answer.code, 2, "{answer:?}");
        assert!(answer.stderr.contains(reason), "{answer:?}");
        assert!(!plant.scratch.path("shift.html").exists());
        answer.stderr
    };
    refused(&["--journal", "none.journal"], "there is no journal at");
    assert!(
        !plant.scratch.path("none.journal").exists(),
        "none was begun"
    );

    let fleet = Fleet::new();
    let device = fleet.start(1);
    let plan = plant.plan(TEST_DEVICES);
    let answer = plant.run(&plan, &[device.port()], &[]);
    assert_eq!(answer.code, 0, "{answer:?}");
    let none = refused(&named("zz"), "the journal has no run 'zz'");
    assert!(none.contains("keyferry station runs --journal"), "{none}");
    refused(&named(&"0".repeat(32)), "the journal has no run");
    let hours = ["--hours", "8761", "--journal", "station.journal"];
    refused(&hours, "8761 is not in 1..=8760");

    // Of 17 runs, two have the same first digit.
    let journal = Journal::open(&plant.scratch.path("station.journal")).unwrap();
    for _ in 0..16 {
        journal.begin_run("five keys", &Digest::ZERO).unwrap();
    }
    let runs = journal.runs(17).unwrap();
    drop(journal);
    let first = |run: &Run| run.name[..1].to_owned();
    let mut seen = BTreeSet::new();
    let twice = runs
        .iter()
        .map(first)
        .find(|digit| !seen.insert(digit.clone()));
    let several = refused(
        &named(twice.as_deref().unwrap()),
        "the journal has several runs",
    );
    assert!(several.contains("give more digits"), "{several}");
    let last = report(
        &plant,
        &["--journal", "station.journal", "--out", "shift.html"],
    );
    assert_eq!(last["runs"], json!([runs[16].name]), "{last}");
    fs::remove_file(plant.scratch.path("shift.html")).unwrap();

    // The registry is no journal.
    refused(
        &["--journal", "plant.db"],
        "plant.db is no journal of a station",
    );
}
