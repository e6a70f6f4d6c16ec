//! What a board shows and does beside the line: its log, its LED, its strap, its watchdog, and what becomes of a stack that overflows.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use keyferry::device::flow::{self, Demand};
use keyferry::device::session::Session;
use keyferry::device::verify::Statement;
use keyferry::emulate::logs::Entry;
use keyferry_protocol::identity::{Challenge, Signature};
use keyferry_protocol::message::{Progress, Reply, Request};
use keyferry_protocol::proof::Proof;
use keyferry_protocol::receipt::State;
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::board::{Board, Image, QemuBoard, Rig, open_again};
use keyferry_tests::command::keyferry;
use keyferry_tests::led::{await_pattern, switched};
use keyferry_tests::search::{Search, secrets_of};
use keyferry_tests::software::{SoftAuthority, SoftKey, aes_key, hmac_key, proof_is_right, wrap};

keyferry_tests::on_every_qemu_board!(
    what_arrives_before_the_uart_is_on_does_not_deafen_the_device,
    a_stack_overflow_is_reported_and_the_device_is_whole_after_the_reset,
    without_the_strap_nobody_is_answered,
    the_log_tells_what_happens_and_no_secret,
    the_command_shows_the_log,
);

fn quiet(_: Progress) {}

fn keys() -> Vec<SoftKey> {
    vec![aes_key(16, 1), hmac_key(2)]
}

/// The device's statement; a blank device makes its keys.
fn enroll(session: &mut Session) -> Statement {
    let nonce = Challenge([9; 32]);
    let authority = SoftAuthority::new(0);
    flow::enroll(
        session,
        &authority,
        UnwrapAlgorithm::P256,
        nonce,
        &mut quiet,
    )
    .unwrap()
}

fn provision(session: &mut Session) {
    let device = enroll(session);
    let shipment = wrap(&device, &keys(), 1);
    let authority = SoftAuthority::new(0);
    let challenge = Challenge([3; 32]);
    flow::inject(
        session, &authority, &device, &shipment, challenge, &mut quiet,
    )
    .unwrap();
}

/// Has the device prove both keys from its flash.
fn prove(session: &mut Session) {
    let device = enroll(session);
    let wanted = [(0, Proof::Cmac), (1, Proof::HmacSha256)].map(Demand::from);
    let authority = SoftAuthority::new(0);
    let challenge = Challenge([4; 32]);
    let proofs = flow::prove(session, &authority, &device, &wanted, challenge, &mut quiet).unwrap();
    assert_eq!(proofs.reports.len(), keys().len());
    for (key, report) in keys().iter().zip(&proofs.reports) {
        let right = proof_is_right(key, report, &proofs.order, &proofs.challenge);
        assert!(right, "{report:?}");
    }
}

/// How many lines of the log have these words.
fn told(log: &[Entry], words: &str) -> usize {
    log.iter()
        .filter(|entry| entry.message.contains(words))
        .count()
}

fn a_stack_overflow_is_reported_and_the_device_is_whole_after_the_reset(board: QemuBoard) {
    let rig = Rig::start_on(board, Image::Default, 71);
    let mut session = rig.session();
    provision(&mut session);
    drop(session);
    let rig = rig.restart_as(Image::Overflow);
    // What answers has come up after the overflow: the image serves the line only then.
    let mut session = rig.session();
    assert_eq!(session.greeting().state, State::Provisioned);
    prove(&mut session);
    drop(session);
    let log = rig.log();
    let at = |words| log.iter().position(|entry| entry.message.contains(words));
    let places = [
        "overflowing the stack",
        "stack overflow",
        "keyferry",
        "order admitted",
    ]
    .map(at);
    assert!(
        places.iter().all(Option::is_some) && places.is_sorted(),
        "{log:?}"
    );
    assert_eq!(told(&log, "stack overflow"), 1, "{log:?}");
    // The power goes and comes: it stays so.
    let rig = rig.restart_as(Image::Default);
    prove(&mut rig.session());
}

fn without_the_strap_nobody_is_answered(board: QemuBoard) {
    let rig = Rig::start_on(board, Image::Default, 72).restart_with_strap(false);
    let before = rig.sent().len();
    let opened = Session::open(open_again(rig.port())).map(|_| ());
    let error = opened.expect_err("it must not answer");
    assert_eq!(rig.sent().len(), before, "{error}");
    // It was there, and with its strap it answers.
    assert_eq!(told(&rig.log(), "keyferry"), 1);
    let rig = rig.restart_with_strap(true);
    assert_eq!(rig.session().greeting().state, State::Blank);
}

fn the_log_tells_what_happens_and_no_secret(board: QemuBoard) {
    let rig = Rig::start_on(board, Image::Default, 73);
    let mut session = rig.session();
    provision(&mut session);
    drop(session);
    let log = rig.log();
    let begin = format!(
        "keyferry {} on {}, device [49, 49",
        env!("CARGO_PKG_VERSION"),
        Board::from(board).name()
    );
    assert_eq!(told(&log, &begin), 1, "{log:?}");
    assert!(log.iter().all(|entry| entry.time.is_some()), "{log:?}");
    assert!(log.iter().any(|entry| entry.level == Some("info")));
    assert_eq!(told(&log, "order admitted"), 2, "{log:?}");

    // Formatted text: numbers of any kind would be spelled out there.
    let mut search = Search::default();
    for (name, secret) in secrets_of(&keys()) {
        search.add_text(&name, &secret);
    }
    let text: String = log
        .iter()
        .map(|entry| entry.message.as_str())
        .collect::<Vec<_>>()
        .join("\n");
    assert_eq!(
        search.look("the log", text.as_bytes()),
        Vec::<String>::new()
    );
}

/// A process that ends with this value.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn the_command_shows_the_log(board: QemuBoard) {
    let folder = tempfile::tempdir().unwrap();
    for json in [false, true] {
        let mut command = keyferry();
        command.args(["emulate", "--logs", "--board", Board::from(board).name()]);
        command
            .arg("--firmware")
            .arg(Image::Default.elf(board.into()));
        command.arg("--dir").arg(folder.path());
        if json {
            command.arg("--json").stdout(Stdio::piped());
        } else {
            command.stdout(Stdio::null()).stderr(Stdio::piped());
        }
        let mut running = Killed(command.spawn().unwrap());
        let lines: Box<dyn std::io::Read + Send> = if json {
            Box::new(running.0.stdout.take().unwrap())
        } else {
            Box::new(running.0.stderr.take().unwrap())
        };
        let (tell, told) = mpsc::channel();
        let words = format!("on {}, device", Board::from(board).name());
        thread::spawn(move || {
            let mut lines = BufReader::new(lines).lines().map_while(Result::ok);
            let _ = tell.send(lines.find(|line| line.contains(&words)));
        });
        let shown = told.recv_timeout(Duration::from_secs(60));
        let shown = shown.unwrap().expect("the first words of the device");
        if json {
            let event: serde_json::Value = serde_json::from_str(&shown).unwrap();
            assert_eq!(event["level"], "info");
            assert!(event["time"].is_string(), "{shown}");
        } else {
            assert!(
                shown.starts_with("device 1: ") && shown.contains(" info "),
                "{shown}"
            );
        }
    }
}

#[test]
fn the_led_shows_what_the_device_does() {
    let rig = Rig::start(Image::Default, 74).restart_with_led_log();
    await_pattern(&rig, "keyferry", &[100, 1_900, 100]);

    let mut session = rig.session();
    provision(&mut session);
    // Any other pattern would show in this time.
    thread::sleep(Duration::from_millis(1_500));
    let done = switched(&rig.log());
    let nobodys = Request::Order {
        signature: Signature::from_bytes(&[1; 64]),
        second: None,
        order: &[0; 64],
    };
    let message = session.exchange(&nobodys, &mut quiet).unwrap();
    assert!(matches!(Reply::decode(&message), Ok(Reply::Refused(_))));
    let log = rig.log();
    let refused = log
        .iter()
        .position(|entry| entry.message.contains("refused"));
    let before = switched(&log[..refused.unwrap()]);
    assert_eq!(before.last().map(|(_, lit)| *lit), Some(true), "{log:?}");
    assert_eq!(done, before, "it stays lit");
    await_pattern(&rig, "refused", &[500, 500]);
    drop(session);

    // Another fuse: the store is sealed under none that the device has.
    rig.burn_fuses([1; 32]);
    let rig = rig.restart();
    await_pattern(&rig, "keyferry", &[150, 150, 150, 150, 150, 1_000, 150]);
    let log = rig.log();
    assert_eq!(told(&log, "key store quarantined"), 1, "{log:?}");

    let rig = rig.restart_with_strap(false);
    thread::sleep(Duration::from_millis(2_500));
    let log = rig.log();
    assert_eq!(told(&log, "keyferry"), 1, "{log:?}");
    let changes: Vec<bool> = switched(&log).iter().map(|(_, lit)| *lit).collect();
    assert_eq!(changes, [false], "{log:?}");
}

#[test]
fn the_watchdog_ends_a_device_that_hangs_and_it_is_whole_after_that() {
    let rig = Rig::start(Image::Default, 75);
    provision(&mut rig.session());
    fs::write(rig.file("hang.txt"), "").unwrap();
    let rig = rig.restart_as(Image::Overflow);
    // What answers has come up after the watchdog's reset: the image serves the line only then.
    let mut session = rig.session();
    assert_eq!(session.greeting().state, State::Provisioned);
    prove(&mut session);
    drop(session);
    let log = rig.log();
    let messages: Vec<&str> = log.iter().map(|entry| entry.message.as_str()).collect();
    assert_eq!(messages[..2], ["hanging", "the watchdog was not fed"]);
    assert!(messages[2].starts_with("keyferry "), "{log:?}");
    assert_eq!(told(&log, "the watchdog was not fed"), 1, "{log:?}");
    prove(&mut rig.restart_as(Image::Default).session());
}

#[test]
fn the_board_native_has_a_strap_and_no_log() {
    let rig = Rig::start_on(Board::Native, Image::Default, 76);
    provision(&mut rig.session());
    let rig = rig.restart_with_strap(false);
    let before = rig.sent().len();
    let opened = Session::open(open_again(rig.port())).map(|_| ());
    let error = opened.expect_err("it must not answer");
    assert_eq!(rig.sent().len(), before, "{error}");
    let rig = rig.restart_with_strap(true);
    prove(&mut rig.session());
    drop(rig);

    let folder = tempfile::tempdir().unwrap();
    let mut command = keyferry();
    command.args(["emulate", "--logs", "--board", "native", "--firmware"]);
    command.arg(Image::Default.elf(Board::Native));
    command.arg("--dir").arg(folder.path());
    let mut running = Killed(command.stderr(Stdio::piped()).spawn().unwrap());
    let end = Instant::now() + Duration::from_secs(60);
    let status = loop {
        if let Some(status) = running.0.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < end, "it must not run");
        thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(status.code(), Some(4));
    let mut words = String::new();
    let mut errors = running.0.stderr.take().unwrap();
    errors.read_to_string(&mut words).unwrap();
    assert!(words.contains("no words for its log"), "{words}");
    assert!(words.contains("hint: "), "{words}");
}

/// A station may talk before the firmware listens. A quarantined device does least of all at its start: nothing there wakes the emulator.
fn what_arrives_before_the_uart_is_on_does_not_deafen_the_device(board: QemuBoard) {
    let rig = Rig::start_on(board, Image::Default, 44);
    // It has made a store by then.
    drop(rig.session());
    rig.burn_fuses([9; 32]);
    let mut rig = rig.restart();
    assert_eq!(rig.session().greeting().state, State::Quarantined);
    for length in [1, 2, 8, 20, 200] {
        for _ in 0..3 {
            rig = rig.restart_to(&vec![0; length]);
            drop(rig.session());
        }
    }
}
