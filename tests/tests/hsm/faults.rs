//! Tokens that fail in the middle of a job. What can be done again is done; what cannot is said, with the token's name and the
//! next move.

use std::time::{Duration, Instant};

use keyferry::hsm::{HsmError, KeySpec, KeyType};
use keyferry_tests::command::{Answer, done, refused};
use keyferry_tests::tokens::{
    Kind, LOSE, PIN, Scratch, in_own_process_with, in_own_process_with_faults, set_mode,
};

use keyferry_tests::openssl::make_rsa;

use crate::{MESSAGE, key, open, open_uri};

const LINE: &str = "line";

/// A token with an AES key that may leave.
fn line() -> Scratch {
    let scratch = Scratch::new(LINE);
    create(&scratch, "open", "aes-256");
    scratch
}

fn create(scratch: &Scratch, label: &str, key_type: &str) {
    let arguments = ["key", "create", "--extractable", "--usage", "sign,verify"];
    scratch.done([&arguments[..], &["--label", label, "--type", key_type]].concat());
}

/// How often a function was called.
fn count(calls: &[String], function: &str) -> usize {
    calls.iter().filter(|call| *call == function).count()
}

/// The calls at which something is to happen: all after the first login, or so many of them that a test does not take all day.
fn moments(calls: &[String], at_most: usize) -> Vec<usize> {
    let login = calls.iter().position(|call| call == "C_Login").unwrap();
    // Calls are counted from 1, and the first after the login is the one that is due.
    let all: Vec<_> = (login + 2..=calls.len()).collect();
    let step = all.len().div_ceil(at_most);
    all.into_iter().step_by(step).collect()
}

/// The session or the login is lost at one call after another; each time the job is done as if nothing had happened.
#[test]
fn an_export_outlives_a_lost_session_at_any_call() {
    let scratch = line();
    let (_, public) = make_rsa(&scratch, "recipient", 2048);
    let export = [
        "key",
        "export",
        "--label",
        "open",
        "--recipient",
        &public,
        "--out",
        "blob",
        "--force",
    ];
    done(&mut scratch.faulty("", &export));
    let healthy = scratch.calls();
    assert_eq!(count(&healthy, "C_Login"), 1);
    for fault in ["lose-sessions-at", "log-out-at"] {
        let mut renewed = 0;
        for moment in moments(&healthy, 40) {
            let last = done(&mut scratch.faulty(&format!("{fault}={moment}"), &export));
            assert_eq!(last["bytes"], 256 + 40, "{fault}={moment}");
            renewed += usize::from(count(&scratch.calls(), "C_Login") == 2);
        }
        // The last calls close sessions, and nothing is lost with them.
        assert!(renewed > 10, "{fault}: {renewed}");
    }
}

#[test]
fn a_migration_outlives_a_lost_session_at_any_call() {
    let scratch = line();
    create(&scratch, "pair", "p-256");
    scratch.add(Kind::SoftHsm, "copy");
    let (from, to) = (scratch.faulty_uri(LINE), scratch.faulty_uri("copy"));
    scratch.done([
        "key",
        "create",
        "--token",
        &scratch.uri_of("copy"),
        "--label",
        "transport",
        "--type",
        "p-256",
        "--usage",
        "unwrap",
    ]);
    // Once with a pair that is made for the migration and lost with the session, once with one that stays.
    let ways: [(&str, &[&str], usize); 2] =
        [("open", &[], 7), ("pair", &["--via", "transport"], 15)];
    for (before, (label, way, how_many)) in ways.into_iter().enumerate() {
        let migrate = [
            "key", "migrate", "--from", &from, "--to", &to, "--label", label,
        ];
        let migrate = [&migrate[..], way].concat();
        let remove = || {
            let delete = |class: &str| {
                std::process::Command::new("pkcs11-tool")
                    .arg("--module")
                    .arg(Kind::SoftHsm.module())
                    .args(["--token-label", "copy", "--login", "--pin", PIN])
                    .args(["--delete-object", "--type", class, "--label", label])
                    .envs(scratch.environment())
                    .output()
                    .unwrap();
            };
            for class in ["secrkey", "privkey", "pubkey"] {
                delete(class);
            }
        };
        done(&mut scratch.faulty("", &migrate));
        let healthy = scratch.calls();
        for fault in ["lose-sessions-at", "log-out-at"] {
            for moment in moments(&healthy, how_many) {
                remove();
                let fault = format!("{fault}={moment}");
                let last = done(&mut scratch.faulty(&fault, &migrate));
                assert_eq!(last["migrated"], 1, "{fault}: {last}");
                assert_eq!(last["unproved"], 0, "{fault}: {last}");
                let listed =
                    scratch.run(["key", "list", "--json", "--token", &scratch.uri_of("copy")]);
                assert_eq!(listed.last()["keys"], before + 2, "{fault}: {listed:?}");
            }
        }
    }
}

/// A list that a token shortened because it had logged the process out must not pass for the whole.
#[test]
fn a_list_is_whole_or_nothing() {
    let scratch = line();
    create(&scratch, "pair", "p-256");
    let list = ["key", "list"];
    done(&mut scratch.faulty("", &list));
    for fault in ["lose-sessions-at", "log-out-at"] {
        for moment in moments(&scratch.calls(), 40) {
            let fault = format!("{fault}={moment}");
            assert_eq!(
                done(&mut scratch.faulty(&fault, &list))["keys"],
                2,
                "{fault}"
            );
        }
        done(&mut scratch.faulty("", &list));
    }
}

/// Whoever notices late that all sessions were lost must not close the one that has his number by now.
#[test]
fn a_number_that_is_somebody_elses_by_now_is_not_closed() {
    let name = "faults::a_number_that_is_somebody_elses_by_now_is_not_closed";
    in_own_process_with_faults(name, LINE, "renumbers", |scratch| {
        let late = open_uri(&scratch.faulty_uri(LINE)).unwrap();
        let quick = late.another_session().unwrap();
        let lost = scratch.path(LOSE);
        std::fs::write(&lost, "").unwrap();
        quick.keys().unwrap();
        assert!(!lost.exists());
        // A key that would end with its session.
        let made = quick.fresh_device_key(KeyType::Aes { bits: 128 }).unwrap();
        late.keys().unwrap();
        assert_eq!(late.session_objects().unwrap(), 1);
        drop(made);
        assert_eq!(late.session_objects().unwrap(), 0);
    });
}

/// SoftHSM's files are where its configuration says, on a share maybe. When they are gone, its sessions last, and find nothing.
#[test]
fn a_token_that_is_away_is_not_told_as_one_without_keys() {
    let name = "faults::a_token_that_is_away_is_not_told_as_one_without_keys";
    in_own_process_with(name, &[(Kind::SoftHsm, LINE)], |scratch| {
        create(scratch, "signer", "p-256");
        let token = open(scratch);
        let signer = key(&token, "signer");
        token.sign_p256(&signer, MESSAGE).unwrap();
        let (tokens, aside) = (scratch.path("softhsm"), scratch.path("aside"));
        std::fs::rename(&tokens, &aside).unwrap();
        std::fs::create_dir(&tokens).unwrap();
        for _ in 0..2 {
            let signed = token.sign_p256(&signer, MESSAGE).map(|_| ());
            let found = token.key(&KeySpec::label("signer")).map(|_| ());
            for error in [signed.unwrap_err(), found.unwrap_err()] {
                assert!(matches!(error, HsmError::TokenGone { .. }), "{error:?}");
            }
        }
        std::fs::remove_dir(&tokens).unwrap();
        std::fs::rename(&aside, &tokens).unwrap();
        // It is found again by a process that starts now.
        assert_eq!(scratch.done(["key", "list"])["keys"], 1);
    });
}

#[test]
fn a_session_that_is_lost_twice_is_given_up() {
    let scratch = line();
    let all: Vec<_> = (6..400)
        .map(|call| format!("lose-sessions-at={call}"))
        .collect();
    let start = || scratch.faulty(&all.join(" "), &["key", "list"]);
    refused(
        start,
        3,
        "token 'line' lost the session twice in one operation",
        "start the command again",
    );
}

#[test]
fn a_token_that_is_pulled_is_named() {
    let scratch = line();
    let (_, public) = make_rsa(&scratch, "recipient", 2048);
    let export = [
        "key",
        "export",
        "--label",
        "open",
        "--recipient",
        &public,
        "--out",
        "blob",
    ];
    done(&mut scratch.faulty("", &export));
    for file in ["blob", "blob.json"] {
        std::fs::remove_file(scratch.path(file)).unwrap();
    }
    let healthy = scratch.calls();
    let wrap = healthy
        .iter()
        .rposition(|call| call == "C_WrapKey")
        .unwrap()
        + 1;
    let login = healthy.iter().position(|call| call == "C_Login").unwrap() + 1;
    for moment in [login, login + 1, login + 5, wrap] {
        let start = || scratch.faulty(&format!("remove-at={moment}"), &export);
        refused(
            start,
            3,
            "token 'line' is gone (C_",
            "start the command again",
        );
        assert!(!scratch.path("blob").exists(), "nothing is written");
    }
}

/// The PIN must not go to whatever token is in the slot now.
#[test]
fn another_token_in_its_place_does_not_get_the_pin() {
    let scratch = line();
    let start = || scratch.faulty("replace-at=8", &["key", "list"]);
    refused(
        start,
        3,
        "token 'line' is gone; 'other' is in its place",
        "the right token",
    );
    assert_eq!(count(&scratch.calls(), "C_Login"), 1);
}

#[test]
fn a_token_without_a_session_left_says_so() {
    let scratch = line();
    for limit in [0, 1] {
        let start = || scratch.faulty(&format!("sessions={limit}"), &["key", "list"]);
        let error = if limit == 0 {
            // Zero is how a token says that there is no limit.
            "token 'line' has no session left".to_owned()
        } else {
            format!("token 'line' has no session left; it allows {limit}")
        };
        refused(start, 3, &error, "close other programs");
    }
    done(&mut scratch.faulty("sessions=2", &["key", "list"]));
}

#[test]
fn a_read_only_token_is_not_changed() {
    let scratch = line();
    let (_, public) = make_rsa(&scratch, "recipient", 2048);
    let write = [
        &["key", "create", "--label", "new", "--type", "aes-128"][..],
        &["key", "import-public", "--label", "new", "--in", &public],
    ];
    for arguments in write {
        let start = || scratch.faulty("write-protected", arguments);
        refused(start, 3, "token 'line' is read-only", "write-protected");
    }
    done(&mut scratch.faulty("write-protected", &["key", "list"]));
}

#[test]
fn a_wrong_pin_is_warned_of_before_it_locks() {
    let scratch = line();
    let list = ["key", "list"];
    let wrong = scratch.path("wrong-pin");
    std::fs::write(&wrong, "000000\n").unwrap();
    set_mode(&wrong, 0o600);
    let wrong = wrong.display().to_string();
    let with_wrong = ["key", "list", "--pin-file", &wrong];
    let logins = || count(&scratch.calls(), "C_Login");

    // Tries were used: said, and the PIN is sent.
    let used = Answer::of(&mut scratch.faulty("wrong-pins=1", &list));
    assert_eq!(used.code, 0, "{used:?}");
    assert!(
        used.stderr
            .contains("warning: token 'line' was given a wrong PIN"),
        "{used:?}"
    );
    let used = Answer::of(scratch.faulty("wrong-pins=1", &list).arg("--json"));
    assert!(
        used.json()[0]["warning"]
            .as_str()
            .unwrap()
            .contains("wrong PIN"),
        "{used:?}"
    );

    // The last but one, and it is wrong.
    let start = || scratch.faulty("wrong-pins=1", &with_wrong);
    refused(
        start,
        3,
        "token 'line' refused the PIN; one try is left",
        "locks the token",
    );
    assert_eq!(logins(), 1);

    // The last: nothing is sent without a word.
    let start = || scratch.faulty("wrong-pins=2", &list);
    refused(
        start,
        5,
        "one try is left for the PIN of token 'line'",
        "--allow-last-try",
    );
    assert_eq!(logins(), 0);
    let allowed = [&list[..], &["--allow-last-try"]].concat();
    let last = Answer::of(&mut scratch.faulty("wrong-pins=2", &allowed));
    assert_eq!(last.code, 0, "{last:?}");
    assert!(last.stderr.contains("warning: one try is left"), "{last:?}");

    // And it is wrong.
    let allowed = [&with_wrong[..], &["--allow-last-try"]].concat();
    let start = || scratch.faulty("wrong-pins=2", &allowed);
    refused(
        start,
        3,
        "the PIN of token 'line' is locked",
        "security officer",
    );
    assert_eq!(logins(), 1);

    // Locked: nothing is sent at all.
    let start = || scratch.faulty("wrong-pins=3", &allowed);
    refused(
        start,
        3,
        "the PIN of token 'line' is locked",
        "security officer",
    );
    assert_eq!(logins(), 0);
}

#[test]
fn a_pin_can_be_entered_at_the_token() {
    let scratch = line();
    let uri = scratch.faulty_uri(LINE);
    let without_pin = uri.split("&pin-source").next().unwrap();
    let mut command = scratch.faulty("pin-pad", &["key", "list"]);
    let answer = Answer::of(command.env("KEYFERRY_TOKEN", without_pin));
    assert_eq!(answer.code, 0, "{answer:?}");
    assert!(
        answer.stderr.contains("enter the PIN at token 'line'"),
        "{answer:?}"
    );
    assert_eq!(count(&scratch.calls(), "C_Login"), 1);
}

#[test]
fn a_token_that_cannot_wrap_says_why() {
    let scratch = line();
    let (_, public) = make_rsa(&scratch, "recipient", 2048);
    let export = [
        "key",
        "export",
        "--label",
        "open",
        "--recipient",
        &public,
        "--out",
        "blob",
    ];
    // AES key wrap with padding, in both forms; RSA-OAEP.
    let start = || scratch.faulty("without=0x210a without=0x210b", &export);
    refused(
        start,
        3,
        "token 'line' has no mechanism for AES key wrapping",
        "use another",
    );
    let start = || scratch.faulty("without=0x9", &export);
    refused(
        start,
        3,
        "token 'line' has no suite for a recipient key of type rsa-2048",
        "another",
    );
}

/// A token that unwraps something else: the copy itself must sign, so it is found out, and nothing is kept.
#[test]
fn a_wrong_copy_is_not_proved() {
    let scratch = line();
    for usage in ["sign", "derive"] {
        let create = ["key", "create", "--label", usage, "--type", "p-256"];
        scratch.done(create.iter().chain(&["--usage", usage, "--extractable"]));
    }
    scratch.add(Kind::SoftHsm, "copy");
    let (from, to) = (scratch.faulty_uri(LINE), scratch.faulty_uri("copy"));
    for label in ["sign", "derive"] {
        let migrate = [
            "key", "migrate", "--from", &from, "--to", &to, "--label", label,
        ];
        refused(
            || scratch.faulty("unwraps-another", &migrate),
            1,
            &format!("what token 'copy' unwrapped is not key '{label}' of 'line'"),
            "nothing was kept",
        );
    }
    let listed = scratch.done(["key", "list", "--token", &scratch.uri_of("copy")]);
    assert_eq!(listed["keys"], 0, "{listed}");
}

/// What `cargo xtask bench station` counts on: a token that is said to be slow is as slow as that.
#[test]
fn a_token_far_away_takes_its_time() {
    const EACH: Duration = Duration::from_millis(20);
    let scratch = line();
    let begun = Instant::now();
    done(&mut scratch.faulty("latency-ms=20", &["key", "list"]));
    let took = begun.elapsed();
    let calls = u32::try_from(scratch.calls().len()).unwrap();
    assert!(calls > 10, "{calls} calls");
    assert!(took >= EACH * calls, "{calls} calls took {took:?}");
}
