//! What a board shows and does beside the line: its log, its LED, its strap, and what becomes of a stack that overflows.

use std::io::{BufRead as _, BufReader};
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
use keyferry_tests::search::{Search, secrets_of};
use keyferry_tests::software::{SoftAuthority, SoftKey, aes_key, hmac_key, proof_is_right, wrap};

keyferry_tests::on_every_qemu_board!(
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

/// The LED of MPS2's FPGAIO block (Arm DAI 0386).
const LED: u32 = 0x4002_8000;

/// For five seconds, how the LED is: the share of looks at which it is lit, in percent, and how often it changed.
fn watch(rig: &mut Rig) -> (usize, usize) {
    let end = Instant::now() + Duration::from_secs(5);
    let mut looks = Vec::new();
    while Instant::now() < end {
        let [register, ..] = rig.memory::<4>(LED);
        looks.push(register & 1 == 1);
        thread::sleep(Duration::from_millis(5));
    }
    let lit = looks.iter().filter(|lit| **lit).count();
    let changes = looks.windows(2).filter(|pair| pair[0] != pair[1]).count();
    (lit * 100 / looks.len(), changes)
}

#[test]
fn the_led_shows_what_the_device_does() {
    let mut rig = Rig::start(Image::Default, 74);
    let (lit, changes) = watch(&mut rig);
    assert!(lit < 20 && changes >= 2, "idle: {lit} %, {changes}");
    let mut session = rig.session();
    provision(&mut session);
    assert_eq!(watch(&mut rig), (100, 0), "done");
    let nobodys = Request::Order {
        signature: Signature::from_bytes(&[1; 64]),
        second: None,
        order: &[0; 64],
    };
    let message = session.exchange(&nobodys, &mut quiet).unwrap();
    assert!(matches!(Reply::decode(&message), Ok(Reply::Refused(_))));
    let (lit, changes) = watch(&mut rig);
    assert!((30..70).contains(&lit), "failed: {lit} %");
    assert!((4..=12).contains(&changes), "failed: {changes}");
    drop(session);
    // Another fuse: the store is sealed under none that the device has.
    rig.burn_fuses([1; 32]);
    let mut rig = rig.restart();
    let (lit, changes) = watch(&mut rig);
    assert!((15..45).contains(&lit), "quarantined: {lit} %");
    assert!(changes >= 6, "quarantined: {changes}");
    let mut rig = rig.restart_with_strap(false);
    assert_eq!(watch(&mut rig), (0, 0), "silent");
}
