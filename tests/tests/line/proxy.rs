//! The line in real time, between a real board in QEMU and the station, and the door that lays it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use keyferry::device::flow;
use keyferry::device::session::Session;
use keyferry::emulate::Line;
use keyferry_protocol::identity::Challenge;
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::board::{Image, Rig, open_again};
use keyferry_tests::command::{self, Answer};
use keyferry_tests::line::{
    Fault, Faults, MILLISECOND, Planned, Proxy, ProxyError, Settings, Trigger, Ways,
};
use keyferry_tests::software::{SoftAuthority, aes_key, hmac_key, proof_is_right, wrap};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

fn board(seed: u8) -> Rig {
    // A path that is the same after a restart.
    Rig::start(Image::Default, seed).restart_on(Line::UnixSocket)
}

/// The main job through this port: every key is proved.
fn job(port: &str) {
    let authority = SoftAuthority::new(0);
    let mut session = Session::open(open_again(port)).unwrap();
    let nonce = Challenge([9; 32]);
    let unwrap = UnwrapAlgorithm::P256;
    let device = flow::enroll(&mut session, &authority, unwrap, nonce, &mut |_| {}).unwrap();
    let keys = [aes_key(16, 1), aes_key(32, 2), hmac_key(3)];
    let shipment = wrap(&device, &keys, 1);
    let challenge = Challenge([3; 32]);
    let proofs = flow::inject(
        &mut session,
        &authority,
        &device,
        &shipment,
        challenge,
        &mut |_| {},
    )
    .unwrap();
    assert_eq!(proofs.reports.len(), keys.len());
    for (key, report) in keys.iter().zip(&proofs.reports) {
        assert!(proof_is_right(
            key,
            report,
            &proofs.order,
            &proofs.challenge
        ));
    }
}

#[test]
fn keys_pass_a_bad_line_to_a_real_board() {
    let rig = board(71);
    let planned = |fault, byte| Planned {
        fault,
        ways: Ways::Both,
        when: Trigger::Byte(byte),
    };
    let faults = Faults {
        ber: 1e-5,
        planned: vec![
            planned(Fault::Burst(3), 500),
            planned(Fault::Stall(300 * MILLISECOND), 900),
        ],
        ..Faults::default()
    };
    let settings = Settings::real_time(115_200, faults, 1);
    let proxy = Proxy::start(rig.port(), &settings).unwrap();
    job(proxy.path());
    let counts = proxy.counts().sum();
    assert_eq!(counts.bursts, 1, "{counts:?}");
    assert!(counts.stalls >= 1, "{counts:?}");
    assert!(proxy.is_running());
}

#[test]
fn a_paced_line_is_no_faster_than_its_rate() {
    let rig = board(72);
    let settings = Settings::real_time(57_600, Faults::default(), 1);
    let proxy = Proxy::start(rig.port(), &settings).unwrap();
    let begun = Instant::now();
    job(proxy.path());
    let passed = begun.elapsed().as_secs_f64();
    let counts = proxy.counts();
    let longest = counts.down.characters.max(counts.up.characters);
    assert!(longest > 500, "{counts:?}");
    assert!(passed >= longest as f64 * 10.0 / 57_600.0, "{passed} s");
    assert_eq!(counts.sum().bit_errors, 0);
}

#[test]
fn a_board_that_comes_back_is_found_again() {
    let mut rig = board(73);
    let settings = Settings::real_time(Settings::UNPACED, Faults::default(), 1);
    let proxy = Proxy::start(rig.port(), &settings).unwrap();
    job(proxy.path());
    rig = rig.restart();
    let mut session = Session::open(open_again(proxy.path())).unwrap();
    assert!(proxy.is_connected());
    assert_eq!(flow::list(&mut session).unwrap().len(), 3);
    drop((session, rig));
    wait("the proxy misses its board", || !proxy.is_connected());
    assert!(proxy.is_running());
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < patience, "{what}: never");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_link_leads_to_the_line_and_goes_with_it() {
    let rig = board(74);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("board");
    let settings = Settings::real_time(Settings::UNPACED, Faults::default(), 1);
    let mut proxy = Proxy::start(rig.port(), &settings).unwrap();
    std::os::unix::fs::symlink("/nowhere", &path).unwrap();
    proxy.link(&path).unwrap();
    assert_eq!(
        std::fs::read_link(&path).unwrap().to_str(),
        Some(proxy.path())
    );
    drop(proxy);
    assert!(!path.is_symlink());

    let mut proxy = Proxy::start(rig.port(), &settings).unwrap();
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(proxy.link(&path), Err(ProxyError::Link { .. })));
    drop(proxy);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");

    assert!(matches!(
        Proxy::start("/dev/there-is-no-such-port", &settings),
        Err(ProxyError::Device(_))
    ));
}

#[test]
fn a_door_that_finds_no_port_says_so() {
    let line = |arguments: &[&str]| {
        let answer = Answer::of(
            Command::new(command::xtask())
                .args(["--json", "line", "--in"])
                .args(arguments),
        );
        let last = answer.last();
        assert_eq!(last["ok"], false, "{last}");
        assert_eq!(last["exit"], answer.code, "{last}");
        let word = |name: &str| last[name].as_str().unwrap_or_default().to_owned();
        (answer.code, word("error"), word("hint"), answer.stderr)
    };
    let (code, error, hint, told) = line(&["/dev/there-is-no-such-port"]);
    assert_eq!(code, 4);
    assert_eq!(error, "port '/dev/there-is-no-such-port' does not exist");
    assert!(hint.contains("plug the device in"), "{hint}");
    assert!(told.contains("hint  plug the device in"), "{told}");
    let (code, _, hint, _) = line(&["tcp:nowhere"]);
    assert_eq!(code, 2);
    assert!(hint.contains("tcp:HOST:NUMBER"), "{hint}");
}

#[test]
fn a_line_that_falls_silent_is_told_long_before_it_is_given_up() {
    let rig = board(77);
    for json in [true, false] {
        let dead = Planned {
            fault: Fault::Dead(120_000 * MILLISECOND),
            ways: Ways::Both,
            when: Trigger::Byte(3_000),
        };
        let faults = Faults {
            planned: vec![dead],
            ..Faults::default()
        };
        let settings = Settings::real_time(Settings::UNPACED, faults, 1);
        let proxy = Proxy::start(rig.port(), &settings).unwrap();
        let mut echo = command::keyferry();
        echo.args(["device", "echo", "--count", "100000", "--port"])
            .arg(proxy.path())
            .args(json.then_some("--json"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let begun = Instant::now();
        let mut echo = Door(echo.spawn().unwrap());
        let mut first = String::new();
        if json {
            let mut lines = BufReader::new(echo.0.stdout.take().unwrap());
            lines.read_line(&mut first).unwrap();
            let event: Value = serde_json::from_str(&first).unwrap();
            assert_eq!(event["port"], proxy.path(), "{event}");
            assert_eq!(event["note"], "nothing is heard of the device", "{event}");
            // On a busy machine it may notice late.
            assert!(event["seconds"].as_u64() >= Some(5), "{event}");
        } else {
            let mut lines = BufReader::new(echo.0.stderr.take().unwrap());
            lines.read_line(&mut first).unwrap();
            let words = format!("nothing heard from '{}' for ", proxy.path());
            assert!(first.contains(&words), "{first}");
        }
        // It is dead for two minutes.
        let passed = begun.elapsed();
        assert!(
            passed >= Duration::from_secs(5) && passed < Duration::from_secs(100),
            "{passed:?}"
        );
    }
}

#[test]
fn an_echo_tells_what_the_line_did_to_it() {
    let rig = board(76);
    let echo = |faults: Faults, json: bool| {
        let settings = Settings::real_time(Settings::UNPACED, faults, 1);
        let proxy = Proxy::start(rig.port(), &settings).unwrap();
        let mut echo = command::keyferry();
        echo.args(["device", "echo", "--count", "20", "--port", proxy.path()]);
        if json {
            echo.arg("--json");
        }
        let answer = Answer::of(&mut echo);
        assert_eq!(answer.code, 0, "{answer:?}");
        answer
    };
    let last = echo(Faults::default(), true).last();
    assert_eq!(last["damaged"], 0, "{last}");
    assert_eq!(last["repeated"], 0, "{last}");
    let text = echo(Faults::default(), false).stderr;
    assert!(
        text.contains("no frame was damaged or sent again"),
        "{text}"
    );
    let help = Answer::of(command::keyferry().args(["device", "echo", "--help"]));
    assert!(help.stdout.contains("1 to 2000"), "{help:?}");

    let spoilt = |ways| Planned {
        fault: Fault::Burst(3),
        ways,
        when: Trigger::Byte(5_000),
    };
    let bad = Faults {
        planned: vec![spoilt(Ways::Down), spoilt(Ways::Up)],
        ..Faults::default()
    };
    let last = echo(bad.clone(), true).last();
    assert!(last["damaged"].as_u64() >= Some(1), "{last}");
    assert!(last["repeated"].as_u64() >= Some(1), "{last}");
    let text = echo(bad, false).stderr;
    assert!(
        text.contains("came damaged") && !text.contains("no frame was damaged"),
        "{text}"
    );
}

/// `cargo xtask line`, killed when it is dropped.
struct Door(Child);

impl Drop for Door {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_door_lays_a_line_and_counts() {
    let rig = board(75);
    let mut door = Command::new(command::xtask());
    door.args(["--json", "line", "--in", rig.port()])
        .args(["--ber", "1e-5", "--stall", "100ms@200", "--drop", "2@400"])
        .args(["--seed", "5"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut door = Door(door.spawn().unwrap());
    let mut lines = BufReader::new(door.0.stdout.take().unwrap());
    let mut first = String::new();
    lines.read_line(&mut first).unwrap();
    let first: Value = serde_json::from_str(&first).unwrap();
    assert_eq!(first["seed"], 5, "{first}");
    job(first["port"].as_str().expect("the line has a port"));

    let process = Pid::from_raw(door.0.id().try_into().unwrap());
    kill(process, Signal::SIGINT).unwrap();
    assert!(door.0.wait().unwrap().success());
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    let last: Value = serde_json::from_str(rest.lines().last().unwrap()).unwrap();
    assert_eq!(last["ok"], true, "{last}");
    let sum = |name: &str| {
        let way = |way: &str| last["counts"][way][name].as_u64().unwrap();
        way("down") + way("up")
    };
    assert_eq!(sum("drops"), 1);
    assert_eq!(sum("dropped_bytes"), 2);
    assert!(sum("stalls") >= 1);
    assert!(sum("delivered") > 1_000);
}
