//! Plans on the command line: what is told of wrong ones, the examples, the schema.

use std::fs;
use std::path::Path;

use keyferry::station::plan::{EnrolmentPlan, Plan, schema};
use keyferry_tests::command::{Answer, keyferry, refused};
use keyferry_tests::openssl::make_rsa;

use crate::Plant;

/// The example plans, one for each kind of user.
const EXAMPLES: [&str; 3] = ["factory", "developer", "ci"];

fn example(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/plans");
    fs::read_to_string(folder.join(format!("{name}.toml"))).expect("the example is there")
}

#[test]
fn the_examples_are_plans() {
    let [factory, developer, ci] = EXAMPLES.map(|name| {
        Plan::read(name, example(name).as_bytes()).unwrap_or_else(|error| panic!("{error}"))
    });
    // What the three are examples of.
    assert!(factory.lock && factory.serials && factory.certificates.is_some());
    assert!(factory.hook.is_some_and(|hook| hook.before.is_none()));
    assert!(!factory.allow_test_devices && !factory.allow_development);
    assert!(matches!(
        factory.enrolment,
        Some(EnrolmentPlan::SerialList(_))
    ));
    assert!(developer.allow_test_devices && developer.ports.is_empty());
    assert!(ci.allow_test_devices && ci.keys.len() == 2);
}

/// The example of a factory names files that are not there yet: each is told with its place, and after they are made the plan is right.
#[test]
fn the_files_of_a_plan_are_looked_at() {
    let plant = Plant::new();
    let scratch = &plant.scratch;
    fs::write(scratch.path("factory.toml"), example("factory")).unwrap();
    let check = |code: i32| {
        let answer = scratch.run(["station", "check", "factory.toml", "--json"]);
        assert_eq!(answer.code, code, "{answer:?}");
        answer.json()
    };
    let told = check(2);
    let lines: Vec<_> = told.iter().filter_map(|it| it["line"].as_u64()).collect();
    let text = example("factory");
    let line_of = |words: &str| {
        let mut lines = (1..).zip(text.lines());
        lines.find(|(_, line)| line.starts_with(words)).unwrap().0
    };
    let expected = [
        "audit =",
        "ca =",
        "serials = \"shift.txt\"",
        "key = \"backend.pem\"",
        "program =",
    ]
    .map(line_of);
    assert_eq!(lines, expected, "{told:?}");
    // Also where something else is wrong.
    let more = format!("{text}\n[nonsense]\n");
    fs::write(scratch.path("factory.toml"), more).unwrap();
    assert_eq!(check(2).len(), told.len() + 1);
    fs::write(scratch.path("factory.toml"), &text).unwrap();

    fs::write(
        scratch.path("shift.txt"),
        format!("{}\nnobody\n", "ab".repeat(16)),
    )
    .unwrap();
    fs::rename(scratch.path("line.audit"), scratch.path("line-3.audit")).unwrap();
    scratch.done([
        "ca",
        "init",
        "--label",
        "factory-ca",
        "--subject",
        "CN=Factory CA",
        "--create",
        "--out",
        "factory-ca.pem",
    ]);
    let (_, public) = make_rsa(scratch, "backend", 2048);
    let told = check(2);
    assert_eq!(told.len(), 4, "{told:?}");
    fs::copy(
        keyferry_tests::command::binary(),
        scratch.path("print-label"),
    )
    .unwrap();
    let told = check(2);
    assert_eq!(told.len(), 3, "{told:?}");
    let said = told[1]["mistake"].as_str().unwrap();
    let (_, found) = said.split_once("fingerprint is ").expect("the wrong key");
    let found = found.split(',').next().unwrap();
    let other = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8";
    fs::write(scratch.path("factory.toml"), text.replace(other, found)).unwrap();
    assert!(Path::new(&public).exists());
    let told = check(2);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0]["mistake"]
            .as_str()
            .unwrap()
            .contains("'nobody' is no device id"),
        "{told:?}"
    );
    fs::write(scratch.path("shift.txt"), format!("{}\n", "ab".repeat(16))).unwrap();
    assert_eq!(check(0)[0]["keys"], 4);
}

#[test]
fn mistakes_are_told_to_people_and_scripts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plan.toml");
    fs::write(
        &path,
        "[station]\nnam = \"x\"\n[visit]\npolicy = \"trust\"\n",
    )
    .unwrap();
    let command = |verb: &str| {
        let mut command = keyferry();
        command.args(["station", verb]).arg(&path);
        command
    };
    refused(
        || command("check"),
        2,
        "has 7 mistakes",
        "keyferry station schema",
    );
    let people = Answer::of(&mut command("check"));
    assert!(
        people
            .stderr
            .contains("plan.toml:2:1: there is no field of [station] 'nam'; did you mean 'name'?"),
        "{people:?}"
    );
    assert!(
        people.stderr.contains("    hint: there is name, journal"),
        "{people:?}"
    );
    assert!(
        people
            .stderr
            .contains("plan.toml:4:10: 'policy' cannot be 'trust'"),
        "{people:?}"
    );
    // What is not right is not run, and nothing is asked of a token.
    refused(
        || command("run"),
        2,
        "has 7 mistakes",
        "keyferry station schema",
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn the_schema_is_printed() {
    let answer = Answer::of(keyferry().args(["station", "schema"]));
    let printed: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!(printed, schema());
    assert_eq!(
        printed["properties"]["key"]["items"]["properties"]["slot"]["maximum"],
        15
    );
}
