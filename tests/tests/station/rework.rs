//! Units that failed.

use std::fs;

use keyferry_tests::command::Answer;
use serde_json::Value;

use crate::{Fleet, KEYS, OWN, Plant, ended};

const TEST_DEVICES: &str = "[devices]\nallow-test-devices = true\n";

/// SPEC of the station: a failed unit has a way back, and none past it.
#[test]
fn a_unit_with_a_wrong_proof_gets_its_keys_anew() {
    let plant = Plant::new();
    let fleet = Fleet::new();
    let [good, bad, stranger] = [1, 2, 3].map(|number| fleet.start(number));
    let plan = plant.plan(TEST_DEVICES);
    let through = |faults: &str, port: &str, more: &[&str]| {
        let plan = plan.to_str().unwrap();
        let words = ["station", "run", plan, "--port", port, "--json"];
        Answer::of(plant.scratch.faulty(faults, &words).args(more))
    };
    let text = fs::read_to_string(&plan).unwrap();
    let (uri, faulty) = (plant.scratch.uri(), plant.scratch.faulty_uri("line"));
    fs::write(&plan, text.replace(&uri, &faulty)).unwrap();
    let show = |device: &str| -> Value {
        let words = ["registry", "show", "--registry", "plant.db", device];
        plant.scratch.done(words)
    };

    let answer = through("", good.port(), &[]);
    assert_eq!(answer.code, 0, "{answer:?}");
    let good_id = ended(&answer)[0]["device"].as_str().unwrap().to_owned();
    // The token says of every MAC that it is wrong.
    let answer = through("verifies-no-mac", bad.port(), &[]);
    assert_eq!(answer.code, 1, "{answer:?}");
    let unit = &ended(&answer)[0];
    let device = unit["device"].as_str().unwrap().to_owned();
    let reason = unit["error"].as_str().unwrap_or_default();
    assert!(reason.contains("is wrong"), "{unit}");
    assert!(
        unit["hint"].as_str().unwrap().contains("--rework"),
        "{unit}"
    );
    let next = show(&device)["next"].to_string();
    assert!(next.contains("do not ship") && next.contains("--rework"));

    // Plugged in again, it does not slip through.
    let answer = through("", bad.port(), &[]);
    assert_eq!(answer.code, 1, "{answer:?}");
    let hint = ended(&answer)[0]["hint"].to_string();
    assert!(hint.contains("--rework"), "{answer:?}");

    // Whoever was never begun is not for rework, and is not touched.
    let answer = through("", stranger.port(), &["--rework"]);
    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(answer.stdout.contains("nothing to rework"), "{answer:?}");
    assert_eq!(plant.registry().len(), 2);

    let answer = through("", bad.port(), &["--rework"]);
    assert_eq!(answer.code, 0, "{answer:?}");
    assert_eq!(answer.last()["keys_proved"], KEYS, "{answer:?}");
    let shown = show(&device);
    assert!(shown["next"].to_string().contains("none"), "{shown}");
    let proved = shown["slots"].as_array().unwrap().iter();
    let proved: Vec<_> = proved.filter(|slot| slot["state"] == "proved").collect();
    assert_eq!(proved.len(), KEYS, "{shown}");
    assert!(proved.iter().all(|slot| slot["version"] != 1), "{shown}");

    // It is done, and so is the one that always was: neither gets anything again, whoever asks.
    for (port, more) in [
        (bad.port(), &[][..]),
        (bad.port(), &["--rework"]),
        (good.port(), &["--rework"]),
    ] {
        let answer = through("", port, more);
        assert_eq!(answer.code, 0, "{answer:?}");
        assert_eq!(ended(&answer)[0]["before"], true, "{answer:?}");
    }
    assert!(
        proved.iter().all(|slot| slot["version"] == 65_537),
        "{shown}"
    );
    // The backend has each device's own keys once, those that are in it.
    assert_eq!(plant.exported().len(), 2 * OWN);
    let audit = plant.audit();
    assert_eq!(audit["keys"]["open"], 0, "{audit}");
    assert_eq!(audit["open_orders"], 0, "{audit}");
    assert_eq!(audit["keys"]["proved"], 2 * KEYS, "{audit}");

    // The plan's next version is for both: a rework hides nobody from it.
    let text = fs::read_to_string(&plan).unwrap();
    fs::write(&plan, text.replace("[order]", "[order]\nversion = 2")).unwrap();
    for port in [good.port(), bad.port()] {
        let answer = through("", port, &[]);
        assert_eq!(answer.code, 0, "{answer:?}");
        assert_eq!(answer.last()["keys_proved"], KEYS, "{answer:?}");
    }
    assert!(next.ends_with("with a higher --version\""), "{next}");

    // What came before a replacement that failed is told as well.
    fs::write(&plan, text.replace("[order]", "[order]\nversion = 3")).unwrap();
    assert_eq!(through("verifies-no-mac", good.port(), &[]).code, 1);
    let next = show(good_id.as_str())["next"].to_string();
    assert!(next.contains("an earlier version was proved"), "{next}");
}
