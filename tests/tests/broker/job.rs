//! The main job by the real commands, with a device in QEMU, and no token and no PIN at the station.

use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use keyferry::broker::wire;
use keyferry_tests::board::{Image, Rig};
use keyferry_tests::broker::Broker;
use keyferry_tests::command::{self, Answer, done};
use keyferry_tests::tokens::{Kind, PIN};
use nix::sys::signal::Signal;

use crate::{OPEN, token, token_of};

/// What `device enroll` is given.
const ENROLL: [&str; 5] = [
    "--unwrap",
    "p-256",
    "--policy",
    "open",
    "--allow-test-devices",
];
/// What the others are given.
const VISIT: [&str; 3] = ["--policy", "open", "--allow-test-devices"];
/// The keys and their slots.
const KEYS: [&str; 4] = ["--key", "sensor@0", "--key", "telemetry@3"];

fn main_job(kind: Kind, suite: &str, seed: u8) {
    let scratch = token_of(kind);
    let broker = Broker::start(&scratch, &OPEN);
    let rig = Rig::start(Image::Default, seed);
    let device = |verb: &str, rest: &[&str]| {
        let mut command = broker.station();
        command
            .args(["device", verb, "--port", rig.port()])
            .args(rest);
        for (name, value) in command.get_envs() {
            assert!(value.is_none_or(|value| value != PIN), "{name:?}");
        }
        done(&mut command)
    };
    let enrolled = device("enroll", &ENROLL);
    let recording = scratch.path("inject.capture");
    let recording = recording.to_str().unwrap();
    let capture = ["--capture", recording];
    let injected = device("inject", &[&VISIT[..], &KEYS, &capture].concat());
    assert_eq!(suite_of_order(recording), suite);
    assert_eq!(injected["keys_proved"], 2);
    let proved = device("prove", &[&VISIT[..], &KEYS].concat());
    assert_eq!(proved["keys_proved"], 2);

    let counts = broker.counts();
    assert_eq!(counts["keys_wrapped"], 2);
    assert_eq!(counts["devices"], 1);
    // Three statements, one injection, one proof.
    assert_eq!(counts["orders"], 5);
    assert_eq!(counts["proofs"], 4);
    assert_eq!(
        (&counts["refused"], &counts["failed"]),
        (&0.into(), &0.into())
    );
    let log = broker.log();
    let wraps: Vec<_> = log
        .iter()
        .filter(|line| line["request"] == "wrap")
        .collect();
    let [wrap] = wraps[..] else {
        panic!("{log:?}");
    };
    assert_eq!(wrap["verdict"], "granted");
    assert_eq!(wrap["device"], enrolled["device"]);
    assert_eq!(wrap["identity"], enrolled["identity"]);
    assert_eq!(wrap["keys"], serde_json::json!(["sensor", "telemetry"]));
    let kinds: Vec<_> = log
        .iter()
        .filter(|line| line["request"] == "sign-order")
        .map(|line| line["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["enroll", "enroll", "inject", "enroll", "prove"]);
    let last = broker.end(Signal::SIGTERM);
    assert_eq!(last["counts"], counts);
}

/// The suite of the injecting order in a recorded session.
fn suite_of_order(recording: &str) -> String {
    let mut decode = command::keyferry();
    decode.args(["--json", "line", "decode", recording]);
    let lines = Answer::of(&mut decode).json();
    let suite = lines
        .iter()
        .filter(|line| line["kind"] == "inject")
        .find_map(|line| line["suite"].as_str());
    suite.unwrap_or_else(|| panic!("{lines:?}")).to_owned()
}

#[test]
fn the_whole_job_is_done_without_a_token_at_the_station() {
    // SoftHSM 2.6 refuses the KDF.
    main_job(Kind::SoftHsm, "ecdh-p256-null", 61);
}

#[test]
fn the_whole_job_is_done_with_a_strict_token_behind_the_broker() {
    main_job(Kind::Kryoptic, "ecdh-p256-x963-sha256", 62);
}

/// A broker that dies: passes the first requests on, and hangs up on the others.
fn dying(real: &std::path::Path, socket: &std::path::Path, lives: usize) -> Arc<AtomicUsize> {
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket).unwrap();
    let real = real.to_owned();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    thread::spawn(move || {
        for station in listener.incoming().map_while(Result::ok) {
            if count.fetch_add(1, Ordering::SeqCst) >= lives {
                continue;
            }
            pass(station, UnixStream::connect(&real).unwrap());
        }
    });
    asked
}

fn pass(mut station: UnixStream, mut broker: UnixStream) {
    while let Ok(Some(request)) = wire::read_frame(&mut station) {
        wire::write_frame(&mut broker, &request).unwrap();
        let reply = wire::read_frame(&mut broker).unwrap().unwrap();
        wire::write_frame(&mut station, &reply).unwrap();
    }
}

/// The broker dies after each number of requests that an injection makes: the command says so and the device is as before, until
/// its order is signed.
#[test]
fn a_broker_that_dies_in_mid_job_leaves_the_device_as_it_was() {
    let scratch = token();
    let broker = Broker::start(&scratch, &OPEN);
    let rig = Rig::start(Image::Default, 63);
    done(
        broker
            .station()
            .args(["device", "enroll", "--port", rig.port()])
            .args(ENROLL),
    );
    let slots = || {
        let mut list = command::keyferry();
        let list = done(list.args(["device", "list", "--port", rig.port()]));
        list["slots"].as_array().unwrap().len()
    };
    let socket = scratch.path("dying.sock");
    for lives in 0.. {
        assert!(lives < 40, "it never ends");
        let asked = dying(broker.socket(), &socket, lives);
        let mut inject = command::keyferry();
        inject
            .env("KEYFERRY_BROKER", &socket)
            .args(["device", "inject", "--json", "--port", rig.port()])
            .args(VISIT)
            .args(KEYS);
        let answer = Answer::of(&mut inject);
        if asked.load(Ordering::SeqCst) <= lives {
            assert_eq!(answer.code, 0, "{answer:?}");
            break;
        }
        let last = answer.last();
        assert_eq!(answer.code, 3, "{answer:?}");
        let error = last["error"].as_str().unwrap();
        assert!(error.contains("the broker on"), "{error}");
        assert!(last["hint"].as_str().unwrap().contains("broker status"));
        // A checked proof is the last thing that is asked: by then the device has the keys.
        let verifying = error.contains("did not answer verify");
        assert_eq!(slots(), if verifying { 2 } else { 0 }, "{error}");
        if verifying {
            return;
        }
    }
    panic!("it never came to the proofs");
}
