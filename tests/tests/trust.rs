//! A device's life at a station, with the real command, a real token and the firmware in QEMU: every order kind, the books that
//! are kept of it, and what each refuses.

use std::fs;

use keyferry_protocol::receipt::State;
use keyferry_tests::board::{Board, Image, Rig};
use keyferry_tests::command::Answer;
use keyferry_tests::openssl::openssl;
use keyferry_tests::tokens::Scratch;
use serde_json::Value;

/// A station: a token with its keys, a board on its port, an audit log and a registry.
struct Station {
    scratch: Scratch,
    board: Rig<Board>,
}

keyferry_tests::on_every_board!(
    a_device_is_enrolled_certified_provisioned_rotated_locked_and_wiped,
    a_flash_that_was_put_back_gets_nothing_until_the_device_is_enrolled_again,
    a_refused_key_is_not_settled_by_a_later_proof,
    a_quarantined_device_comes_back_through_a_wipe_and_a_new_enrolment,
);

const SEED: u8 = 0x51;

impl Station {
    fn new(board: Board) -> Self {
        let scratch = Scratch::new("line");
        let key = |more: &[&str]| {
            let create = ["key", "create"];
            scratch.done(create.iter().chain(more).copied().collect::<Vec<_>>())
        };
        for label in ["authority", "auditor", "successor"] {
            key(&["--label", label, "--type", "p-256", "--usage", "sign"]);
        }
        key(&["--label", "mac", "--type", "aes-256", "--extractable"]);
        let usage = |label, key_type, usage| {
            let words = ["--label", label, "--type", key_type, "--extractable"];
            key(&[&words[..], &["--usage", usage]].concat());
        };
        usage("agree", "p-256", "derive");
        usage("cipher", "aes-128", "encrypt");
        usage("opener", "rsa-2048", "decrypt");
        scratch.done(
            ["ca", "init", "--create", "--label", "ca", "--out"]
                .into_iter()
                .chain([
                    scratch.path("ca.pem").to_str().unwrap(),
                    "--subject",
                    "CN=Factory CA,O=Example",
                ]),
        );
        let log = scratch.path("audit.log");
        scratch.done([
            "audit",
            "create",
            log.to_str().unwrap(),
            "--station",
            "line 1",
            "--authority",
            "authority",
            "--audit-key",
            "auditor",
        ]);
        Self {
            scratch,
            board: Rig::start_on(board, Image::Default, SEED),
        }
    }

    fn id() -> String {
        hex::encode([SEED; 16])
    }

    fn file(&self, name: &str) -> String {
        self.scratch.path(name).to_str().unwrap().to_owned()
    }

    /// Runs `keyferry device …` with books and authority.
    fn device(&self, order: &str, authority: &str, more: &[&str]) -> Answer {
        let (log, registry) = (self.file("audit.log"), self.file("registry.db"));
        let mut arguments = vec!["--json", "device", order, "--port", self.board.port()];
        arguments.extend(["--authority", authority, "--allow-test-devices"]);
        arguments.extend(["--audit", &log, "--registry", &registry]);
        arguments.extend(more);
        self.scratch.run(arguments)
    }

    fn done(&self, order: &str, more: &[&str]) -> Value {
        let answer = self.device(order, "authority", more);
        assert_eq!(answer.code, 0, "{order} {more:?}: {answer:?}");
        answer.last()
    }

    /// Expects a refusal with this exit code and these words in its error.
    fn refused(&self, order: &str, more: &[&str], code: i32, words: &str) {
        let answer = self.device(order, "authority", more);
        assert_eq!(answer.code, code, "{order} {more:?}: {answer:?}");
        let last = answer.last();
        assert!(last["error"].to_string().contains(words), "{last}");
    }

    fn greeting(&self, what: &str) -> Value {
        let info = ["--json", "device", "info", "--port", self.board.port()];
        self.scratch.run(info).last()[what].clone()
    }

    /// Verifies the audit log with public keys only, anchored.
    fn audited(&self) -> Value {
        let (log, anchor) = (self.file("audit.log"), self.file("anchor.json"));
        let _ = fs::remove_file(&anchor);
        let sign = ["audit", "checkpoint", &log, "--audit-key", "auditor"];
        self.scratch
            .done(sign.into_iter().chain(["--out", &anchor]));
        let mut keys = Vec::new();
        for label in ["authority", "auditor"] {
            let path = self.file(&format!("{label}.pem"));
            let _ = fs::remove_file(&path);
            let public = ["key", "public", "--label", label, "--out", &path];
            self.scratch.done(public);
            keys.push(path);
        }
        let verify = ["--json", "audit", "verify", &log, "--anchor", &anchor];
        let given = ["--authority", &keys[0], "--audit-key", &keys[1]];
        let answer = self.scratch.run(verify.into_iter().chain(given));
        assert_eq!(answer.code, 0, "{answer:?}");
        answer.last()
    }
}

/// A device that is not there.
const OTHER: &str = "0123456789abcdef0123456789abcdef";

const REGISTRY: [&str; 2] = ["--policy", "registry"];

fn a_device_is_enrolled_certified_provisioned_rotated_locked_and_wiped(board: Board) {
    let station = Station::new(board);
    let enroll = ["--policy", "serial-list", "--unwrap", "p-256", "--serials"];

    // Whom nobody expects is refused before it is touched.
    let others = station.file("others.txt");
    fs::write(&others, "00000000000000000000000000000007\n").unwrap();
    let unexpected = [&enroll[..], &[&others]].concat();
    station.refused("enroll", &unexpected, 5, &Station::id());
    assert_eq!(station.greeting("state"), "blank");

    let serials = station.file("serials.txt");
    fs::write(&serials, format!("{}\n", Station::id())).unwrap();
    let expected = [&enroll[..], &[&serials]].concat();
    let enrolled = station.done("enroll", &expected);
    assert_eq!(enrolled["policy"], "serial-list");
    assert_eq!(enrolled["epoch"], 0);

    // The first keys bring the certificate. Keys that cannot sign are proved by what they can do.
    let ca = station.file("ca.pem");
    let keys = ["mac@0", "agree@1", "cipher@2", "opener@3"];
    let mut inject: Vec<&str> = REGISTRY.to_vec();
    inject.extend(["--ca-key", "ca", "--ca-certificate", &ca]);
    inject.extend(["--serial", "SN-0042", "--organization", "Example"]);
    inject.extend(keys.iter().flat_map(|key| ["--key", key]));
    let injected = station.done("inject", &inject);
    assert_eq!(injected["certified"], true);
    assert_eq!(injected["keys_proved"], 4);
    let proofs: Vec<_> = injected["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| &key["proof"])
        .collect();
    assert_eq!(proofs, ["cmac", "agreement", "decryption", "decryption"]);
    let weak = [
        &REGISTRY[..],
        &["--minimum-proof", "signature", "--key", "cipher@2"],
    ]
    .concat();
    station.refused("prove", &weak, 2, "signature");

    let device = station.file("device.pem");
    let read = ["device", "certificate", "--port", station.board.port()];
    let read = read.into_iter().chain(["--ca", &ca, "--out", &device]);
    assert_eq!(station.scratch.done(read)["verified"], true);
    openssl(&["verify", "-x509_strict", "-CAfile", &ca, &device], b"");
    let text = openssl(&["x509", "-noout", "-subject", "-in", &device], b"");
    assert!(String::from_utf8(text).unwrap().contains("SN-0042"));
    let certified = ["--policy", "certificate", "--ca", &ca, "--key", "mac@0"];
    assert_eq!(station.done("prove", &certified)["policy"], "certificate");

    // A removed key's version does not come back, with books or without.
    station.done("remove", &[&REGISTRY[..], &["--slot", "2"]].concat());
    let again = ["--key", "cipher@2", "--version", "1"];
    station.refused("inject", &[&REGISTRY[..], &again].concat(), 1, "slot 2");
    let bare = station.scratch.run(
        ["--json", "device", "inject", "--port", station.board.port()]
            .into_iter()
            .chain([
                "--authority",
                "authority",
                "--allow-test-devices",
                "--policy",
                "open",
            ])
            .chain(again),
    );
    assert_eq!(bare.code, 4, "{bare:?}");
    let newer = ["--key", "cipher@2", "--version", "2"];
    station.done("inject", &[&REGISTRY[..], &newer].concat());

    // Locked: it proves, and takes nothing.
    station.done("lock", &REGISTRY);
    let more = ["--key", "mac@5"];
    station.refused("inject", &[&REGISTRY[..], &more].concat(), 4, "state");
    station.done("prove", &[&REGISTRY[..], &["--key", "mac@0"]].concat());

    // Wiped: it is nobody's, and has other keys when it comes back.
    station.done("wipe", &[&REGISTRY[..], &["--yes"]].concat());
    assert_eq!(station.greeting("state"), "blank");
    let anew = station.done("enroll", &expected);
    assert_ne!(anew["identity"], enrolled["identity"]);
    assert_ne!(anew["unwrap"], enrolled["unwrap"]);

    // Handed over: the old authority orders nothing any more.
    station.done(
        "rotate",
        &[&REGISTRY[..], &["--new-authority", "successor"]].concat(),
    );
    station.refused(
        "prove",
        &[&REGISTRY[..], &["--key", "mac@0"]].concat(),
        4,
        "authority",
    );

    let report = station.audited();
    assert_eq!(report["anchored"], true);
    let count = |name: &str| report["keys"][name].as_u64().unwrap();
    assert_eq!(
        count("wrapped"),
        count("proved") + count("failed") + count("open"),
        "{report}"
    );
    assert_eq!((count("proved"), count("open")), (5, 0), "{report}");
}

/// A device's flash from before is put back: its counter has gone back, and each try would bring it nearer.
fn a_flash_that_was_put_back_gets_nothing_until_the_device_is_enrolled_again(board: Board) {
    let mut station = Station::new(board);
    let serials = station.file("serials.txt");
    fs::write(&serials, format!("{}\n", Station::id())).unwrap();
    let policy = ["--policy", "serial-list", "--serials", &serials];
    let enroll = [&policy[..], &["--unwrap", "p-256"]].concat();
    station.done("enroll", &enroll);
    let mac = [&REGISTRY[..], &["--key", "mac@0"]].concat();
    station.done("inject", &mac);
    let before = station.board.flash();
    station.done("lock", &REGISTRY);
    station.board = station.board.restart_with_flash(&before);
    assert_eq!(station.greeting("state"), "provisioned");

    station.refused("prove", &mac, 5, "gone back");
    for _ in 0..4 {
        station.refused("prove", &mac, 5, "released");
    }
    station.done("enroll", &enroll);
    station.done("prove", &mac);
}

/// A key that was refused has not arrived, although the same slot is proved later.
fn a_refused_key_is_not_settled_by_a_later_proof(board: Board) {
    let station = Station::new(board);
    let enroll = ["--policy", "open", "--unwrap", "p-256"];
    station.done("enroll", &enroll);
    let mac = [&REGISTRY[..], &["--key", "mac@0"]].concat();
    station.done("inject", &mac);
    // Without the registry, which would not have it tried: the device says, signed, that the slot is taken.
    let log = station.file("audit.log");
    let again = ["--json", "device", "inject", "--port", station.board.port()];
    let again = again
        .into_iter()
        .chain(["--authority", "authority", "--audit", &log]);
    let again = again.chain(["--allow-test-devices", "--policy", "open", "--key", "mac@0"]);
    assert_eq!(station.scratch.run(again).code, 4);
    station.done("prove", &mac);
    let keys = &station.audited()["keys"];
    assert_eq!(
        (&keys["wrapped"], &keys["proved"], &keys["failed"]),
        (&2.into(), &1.into(), &1.into()),
        "{keys}"
    );
    // Nor is an order that was answered with a refusal open.
    station.refused(
        "remove",
        &[&REGISTRY[..], &["--slot", "9"]].concat(),
        4,
        "empty",
    );
    assert_eq!(station.audited()["open_orders"], 0);
}

/// A flash of which every snapshot is damaged: nothing in it can be vouched for.
fn damaged(mut flash: Vec<u8>) -> Vec<u8> {
    let begins: Vec<_> = (0..flash.len())
        .step_by(256)
        .filter(|at| flash[*at..].starts_with(b"KFST"))
        .collect();
    assert!(!begins.is_empty());
    for at in begins {
        // In the commit block's HMAC.
        flash[at + 40] ^= 0x10;
    }
    flash
}

/// What M-48 and M-50 ask for, through the command.
fn a_quarantined_device_comes_back_through_a_wipe_and_a_new_enrolment(board: Board) {
    let mut station = Station::new(board);
    let serials = station.file("serials.txt");
    fs::write(&serials, format!("{}\n", Station::id())).unwrap();
    let policy = ["--policy", "serial-list", "--serials", &serials];
    let enroll = [&policy[..], &["--unwrap", "p-256"]].concat();
    let enrolled = station.done("enroll", &enroll);
    let mac = [&REGISTRY[..], &["--key", "mac@0"]].concat();
    station.done("inject", &mac);
    let counter = station.board.session().greeting().counter;
    let flash = damaged(station.board.flash());
    station.board = station.board.restart_with_flash(&flash);
    assert_eq!(station.greeting("state"), "quarantined");
    for (command, words) in [("enroll", &enroll), ("prove", &mac)] {
        station.refused(command, words, 4, "nothing vouches");
    }
    assert!(station.board.flash() == flash, "it has written");

    // Its word alone is nobody's reason to let go of a device.
    let wipe = [&REGISTRY[..], &["--yes"]].concat();
    station.refused("wipe", &wipe, 4, "nothing vouches");
    let id = enrolled["device"].as_str().unwrap().to_owned();
    let other = [&wipe[..], &["--quarantined", OTHER]].concat();
    station.refused("wipe", &other, 4, "nothing vouches");
    assert_eq!(station.greeting("state"), "quarantined");
    let wipe = [&wipe[..], &["--quarantined", &id]].concat();
    let wiped = station.done("wipe", &wipe);
    assert_eq!(
        (&wiped["recovered"], &wiped["proved"]),
        (&true.into(), &false.into())
    );
    assert_eq!(wiped["counter"], counter + 1);
    assert_eq!(station.greeting("state"), "blank");
    // The counter that the receipt states is the device's.
    let greeting = station.board.session().greeting().clone();
    assert_eq!(
        (greeting.state, greeting.counter),
        (State::Blank, counter + 1)
    );
    // It is nobody that the registry knows, before it is enrolled as a new device is.
    station.refused("prove", &mac, 4, "not enrolled");
    // A second time, before that: it is let go of already, and no counter comes twice.
    let flash = damaged(station.board.flash());
    station.board = station.board.restart_with_flash(&flash);
    assert_eq!(station.greeting("state"), "quarantined");
    let wiped = station.done("wipe", &wipe);
    assert_eq!(wiped["counter"], counter + 2);
    assert_eq!(station.greeting("counter"), counter + 2);

    // Its id is on the list still, and may be enrolled again. Then it vouches for itself, and is not wiped for a quarantined one.
    let again = station.done("enroll", &enroll);
    let named = [&REGISTRY[..], &["--yes", "--quarantined", &id]].concat();
    station.refused("wipe", &named, 4, "is not quarantined");
    assert_eq!(station.greeting("state"), "enrolled");
    assert_ne!(again["identity"], enrolled["identity"]);
    assert_eq!(again["counter"], counter + 3);
    // The label on it, which the registry learns of now, stays known.
    station.done("inject", &[&mac[..], &["--serial", "SN-7"]].concat());
    let other = [&mac[..], &["--serial", "SN-8"]].concat();
    station.refused("inject", &other, 2, "has the serial number 'SN-7'");
    station.done("prove", &mac);
    let registry = station.file("registry.db");
    let show = ["--json", "registry", "show", &id, "--registry", &registry];
    assert_eq!(station.scratch.run(show).last()["serial"], "SN-7");
    assert_eq!(station.audited()["open_orders"], 0);

    // Without a registry nobody knows the counters, and a person has to.
    let flash = damaged(station.board.flash());
    station.board = station.board.restart_with_flash(&flash);
    let bare = |more: &[&str]| {
        let wipe = ["--json", "device", "wipe", "--port", station.board.port()];
        let rules = ["--authority", "authority", "--policy", "open", "--yes"];
        let words = wipe.iter().chain(&rules).chain(more).copied();
        station.scratch.run(words.collect::<Vec<_>>())
    };
    let asked = bare(&["--quarantined", &id]);
    assert_eq!(asked.code, 2, "{asked:?}");
    assert!(asked.last()["hint"].to_string().contains("--counter"));
    assert_eq!(station.greeting("state"), "quarantined");
    let given = bare(&["--quarantined", &id, "--counter", "5000"]);
    assert_eq!(given.code, 0, "{given:?}");
    let greeting = station.board.session().greeting().clone();
    assert_eq!((greeting.state, greeting.counter), (State::Blank, 5000));
}
