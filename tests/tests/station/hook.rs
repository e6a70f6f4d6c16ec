//! The program that a plan calls before and after each device: what it gets, how long it may take, what its failure means.

use std::fs;
use std::path::Path;

use keyferry::station::journal::Journal;
use keyferry_tests::command::Answer;
use serde_json::Value;

use crate::{Fleet, KEYS, Plant, ended};

/// The interpreter of the hooks of these tests.
const PYTHON: &str = "/usr/bin/python3";

/// Writes down what it is given, with its arguments and its folder, and whether it can see a PIN. Fails when the file is there that is
/// named for the moment.
const SCRIPT: &str = r#"
import json, os, sys
event = json.loads(sys.stdin.read())
event["arguments"] = sys.argv[1:]
event["folder"] = os.getcwd()
event["sees_pin"] = "KEYFERRY_PIN" in os.environ or "OTHER_PIN" in os.environ
with open("hook.log", "a") as log:
    log.write(json.dumps(event) + "\n")
if os.path.exists("fails-" + event["event"]):
    print("the printer\nis out of \x1b[31mpaper")
    sys.exit(3)
"#;

/// A plan with this hook.
fn plan(plant: &Plant, hook: &str) -> std::path::PathBuf {
    fs::write(plant.scratch.path("hook.py"), SCRIPT).unwrap();
    plant.plan(&format!(
        "[devices]\nallow-test-devices = true\n[hook]\n{hook}"
    ))
}

fn script(before: &str, after: &str) -> String {
    format!(
        "program = \"{PYTHON}\"\narguments = [\"hook.py\", \"two words\", \"$HOME;\"]\nseconds = 3600\n\
         before = \"{before}\"\nafter = \"{after}\"\n"
    )
}

/// What the hook was given.
fn told(plant: &Plant) -> Vec<Value> {
    let text = fs::read_to_string(plant.scratch.path("hook.log")).unwrap_or_default();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn run_id(answer: &Answer) -> Value {
    let lines = answer.json();
    let begun = lines.iter().find(|line| line["event"] == "run");
    begun.expect("the run began")["run"].clone()
}

#[test]
fn a_hook_gets_the_event_before_and_after_each_device() {
    let plant = Plant::new();
    let plan = plan(&plant, &script("fail", "fail"));
    let fleet = Fleet::new();
    let device = fleet.start(1);
    let mut command = plant.scratch.command();
    command.args(["station", "run", "--json"]).arg(&plan);
    command.args(["--port", &format!("A1={}", device.port())]);
    // The token's URI says where the PIN is: these are only there to be seen.
    command.env("KEYFERRY_PIN", "0000").env("OTHER_PIN", "0000");
    let answer = Answer::of(command.args(["--pin-env", "OTHER_PIN"]));
    assert_eq!(answer.code, 3, "a wrong PIN: {answer:?}");
    assert!(told(&plant).is_empty());

    let pin = keyferry_tests::tokens::PIN;
    let mut command = plant.scratch.command();
    command.args(["station", "run", "--json"]).arg(&plan);
    command.args(["--port", &format!("A1={}", device.port())]);
    command.env("KEYFERRY_PIN", pin).env("OTHER_PIN", pin);
    let answer = Answer::of(command.args(["--pin-env", "OTHER_PIN"]));
    assert_eq!(answer.code, 0, "{answer:?}");
    let told = told(&plant);
    let [before, after] = &told[..] else {
        panic!("{told:?}");
    };
    let id = format!("{:032x}", 1);
    for event in [before, after] {
        assert_eq!(event["run"], run_id(&answer), "{event}");
        assert_eq!(event["plan"], "five keys", "{event}");
        assert_eq!(event["nest"], "A1", "{event}");
        assert_eq!(event["port"], device.port(), "{event}");
        assert_eq!(event["device"], *id, "{event}");
        assert_eq!(event["serial"], Value::Null, "{event}");
        // A list is a list: no shell has looked at it.
        assert_eq!(
            event["arguments"],
            serde_json::json!(["two words", "$HOME;"])
        );
        let folder = Path::new(event["folder"].as_str().unwrap());
        assert_eq!(
            folder.canonicalize().unwrap(),
            plant.scratch.path("").canonicalize().unwrap()
        );
        assert_eq!(event["sees_pin"], false, "{event}");
    }
    assert_eq!(
        (&before["event"], &after["event"]),
        (&"before".into(), &"after".into())
    );
    // After a device the hook gets what `--json` says of its end.
    let end = &ended(&answer)[0];
    for (name, value) in end.as_object().unwrap() {
        if name != "event" {
            assert_eq!(after[name], *value, "{name}: {after}");
        }
    }
    assert_eq!(
        (&after["result"], &after["keys_proved"]),
        (&"PASS".into(), &KEYS.into())
    );

    // A device that is done is not touched: the hook is told of it afterwards only.
    let answer = plant.run(&plan, &[device.port()], &[]);
    assert_eq!(answer.code, 0, "{answer:?}");
    let told = self::told(&plant);
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(
        (&told[2]["event"], &told[2]["before"]),
        (&"after".into(), &true.into())
    );

    // One that does not answer was not begun with either.
    let answer = plant.run(&plan, &["/dev/null/nothing"], &[]);
    assert_eq!(answer.code, 1, "{answer:?}");
    let told = self::told(&plant);
    assert_eq!(told.len(), 4, "{told:?}");
    assert_eq!(
        (&told[3]["result"], &told[3]["device"]),
        (&"FAIL".into(), &Value::Null)
    );
    assert!(told[3]["hint"].is_string(), "{told:?}");
}

#[test]
fn what_the_failure_of_a_hook_means_is_the_plans_choice() {
    let plant = Plant::new();
    let fleet = Fleet::new();
    let devices = fleet.start_all(2);
    let ports: Vec<_> = devices.iter().map(|device| device.port()).collect();
    let fail = |moment: &str| plant.scratch.path(&format!("fails-{moment}"));
    fs::write(fail("before"), "").unwrap();

    // Before, it counts: no device is touched.
    let strict = plan(&plant, &script("fail", "fail"));
    let answer = plant.run(&strict, &ports, &[]);
    assert_eq!(answer.code, 1, "{answer:?}");
    for outcome in ended(&answer) {
        let error = outcome["error"].as_str().unwrap();
        assert!(
            error.ends_with(
                "it said: the printer / is out of ?[31mpaper; the device was not touched"
            ),
            "{error}"
        );
        assert!(error.contains("exit status: 3") || cfg!(windows), "{error}");
        assert_eq!(outcome["done"], false, "{outcome}");
    }
    assert!(plant.registry().is_empty());
    assert_eq!(plant.audit()["keys"]["wrapped"], 0);
    let told_after = told(&plant);
    assert_eq!(told_after.len(), 4, "{told_after:?}");

    // Afterwards it counts too: the devices have failed, though they are done, and are never done again.
    fs::remove_file(fail("before")).unwrap();
    fs::write(fail("after"), "").unwrap();
    let answer = plant.run(&strict, &ports, &[]);
    assert_eq!(answer.code, 1, "{answer:?}");
    for outcome in ended(&answer) {
        assert_eq!(
            (&outcome["result"], &outcome["done"]),
            (&"FAIL".into(), &true.into())
        );
        let error = outcome["error"].as_str().unwrap();
        assert!(
            error.contains("is done all the same, and has its keys"),
            "{error}"
        );
    }
    plant.assert_all_done(2);
    let orders = plant.audit()["orders"].clone();
    let answer = plant.run(&strict, &ports, &[]);
    assert_eq!(answer.code, 1, "{answer:?}");
    fs::remove_file(fail("after")).unwrap();
    let answer = plant.run(&strict, &ports, &[]);
    assert_eq!(answer.code, 0, "{answer:?}");
    plant.assert_all_done(2);
    assert_eq!(plant.audit()["orders"], orders);
    let journal = Journal::open(&plant.scratch.path("station.journal")).unwrap();
    assert!(journal.all_under_way().unwrap().is_empty());
    drop(journal);

    // Where it is only told, everything goes on.
    fs::write(fail("before"), "").unwrap();
    fs::write(fail("after"), "").unwrap();
    let third = fleet.start(3);
    let lenient = plan(&plant, &script("warn", "warn"));
    let answer = plant.run(&lenient, &[third.port()], &[]);
    assert_eq!(answer.code, 0, "{answer:?}");
    let lines = answer.json();
    let warnings: Vec<_> = lines.iter().filter(|it| it["event"] == "warning").collect();
    assert_eq!(warnings.len(), 2, "{answer:?}");
    assert!(warnings.iter().all(|it| it["nest"] == "1"), "{answer:?}");
    plant.assert_all_done(3);
}

/// Whether a process has this word among its arguments.
#[cfg(target_os = "linux")]
fn runs(word: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap();
    processes.filter_map(Result::ok).any(|process| {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(word)
    })
}

/// It sleeps for ever, and so does what it has started, which holds its output: whenever the time is over, both are ended.
#[cfg(target_os = "linux")]
#[test]
fn a_hook_has_a_time_and_is_ended_with_all_that_it_has_started() {
    let plant = Plant::new();
    let fleet = Fleet::new();
    let device = fleet.start(1);
    let word = format!("sleeper-of-{}", std::process::id());
    let hook = |before: &str| {
        format!(
            "program = \"sh\"\narguments = [\"-c\", \"sh -c 'sleep 1000000; :' {word} & sleep 1000000\", \"{word}\"]\n\
             seconds = 1\nbefore = \"{before}\"\n"
        )
    };
    let answer = plant.run(&plan(&plant, &hook("fail")), &[device.port()], &[]);
    assert_eq!(answer.code, 1, "{answer:?}");
    let outcome = &ended(&answer)[0];
    let error = outcome["error"].as_str().unwrap();
    assert!(
        error.contains("was not over after 1 s, and was ended"),
        "{error}"
    );
    assert!(
        outcome["hint"].as_str().unwrap().contains("more seconds"),
        "{outcome}"
    );
    assert!(plant.registry().is_empty());
    assert!(!runs(&word), "it still runs");

    let answer = plant.run(&plan(&plant, &hook("warn")), &[device.port()], &[]);
    assert_eq!(answer.code, 0, "{answer:?}");
    plant.assert_all_done(1);
    assert!(!runs(&word), "it still runs");
}

#[test]
fn a_hook_that_is_not_there_is_a_mistake_of_the_plan() {
    let plant = Plant::new();
    let check = |program: &str, words: &str| {
        plan(
            &plant,
            &format!("program = \"{program}\"\nafter = \"warn\"\n"),
        );
        let answer = plant
            .scratch
            .run(["station", "check", "plan.toml", "--json"]);
        assert_eq!(
            answer.code,
            if words.is_empty() { 0 } else { 2 },
            "{answer:?}"
        );
        if !words.is_empty() {
            let told = &answer.json()[0];
            assert!(told["mistake"].as_str().unwrap().contains(words), "{told}");
            let text = fs::read_to_string(plant.scratch.path("plan.toml")).unwrap();
            let mut lines = (1..).zip(text.lines());
            let line = lines
                .find(|(_, line)| line.starts_with("program"))
                .unwrap()
                .0;
            assert_eq!(told["line"], line, "{told}");
        }
    };
    check("no-such-program", "there is no program no-such-program");
    // A path is seen from the plan's folder; a file that may not be run is no program.
    #[cfg(unix)]
    check("./hook.py", "or it may not be run");
    check(PYTHON, "");
}
