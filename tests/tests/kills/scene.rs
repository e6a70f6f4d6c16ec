//! A device before an order, the order, and what comes of it.

use std::fs;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use keyferry::device::DeviceError;
use keyferry::device::flow::{self, Shipment, SignedOrder, Terms};
use keyferry::device::port;
use keyferry::device::session::Session;
use keyferry::device::verify::{self, SignedReceipt, Statement};
use keyferry_protocol::identity::{Challenge, Digest};
use keyferry_protocol::message::Reply;
use keyferry_protocol::order::Kind;
use keyferry_protocol::receipt::State;
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::board::{Image, QemuBoard, Rig};
use keyferry_tests::software::{SoftAuthority, SoftKey, aes_key, hmac_key, wrap};

use crate::journal::{self, Cut, Recorded};
use crate::model::{self, Model};

const JOURNAL: &str = "flash-journal.bin";
const SEED: u8 = 6;
/// The counter of a quarantined device's order.
const COUNTER: u32 = 77;
const NONCE: Challenge = Challenge([9; 32]);
/// How long a device may take to come to the operation where it halts.
const PATIENCE: Duration = Duration::from_secs(60);

/// The orders under which power fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ordered {
    Enrol,
    Inject,
    Replace,
    Remove,
    Rotate,
    Wipe,
    /// The wipe of a device that is quarantined.
    Recover,
}

/// All of them.
pub(crate) const ORDERS: [Ordered; 7] = [
    Ordered::Enrol,
    Ordered::Inject,
    Ordered::Replace,
    Ordered::Remove,
    Ordered::Rotate,
    Ordered::Wipe,
    Ordered::Recover,
];

impl Ordered {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Enrol => "enrol",
            Self::Inject => "inject",
            Self::Replace => "replace",
            Self::Remove => "remove",
            Self::Rotate => "rotate",
            Self::Wipe => "wipe",
            Self::Recover => "recover",
        }
    }

    const fn kind(self) -> Kind {
        match self {
            Self::Enrol => Kind::Enroll,
            Self::Inject | Self::Replace => Kind::Inject,
            Self::Remove => Kind::Remove,
            Self::Rotate => Kind::Rotate,
            Self::Wipe | Self::Recover => Kind::Wipe,
        }
    }
}

/// Bytes of the key store's area, and of its pages.
const fn area(board: QemuBoard) -> (usize, u32) {
    match board {
        QemuBoard::Mps2An386 => (128 * 1024, 4096),
        QemuBoard::RiscvVirt => (1024 * 1024, 256 * 1024),
    }
}

/// An order with its blobs.
#[derive(Clone)]
struct Sent {
    order: SignedOrder,
    blobs: Vec<Vec<u8>>,
}

impl Sent {
    fn new(order: SignedOrder, shipment: Option<&Shipment>) -> Self {
        let blobs = shipment.map_or_else(Vec::new, |shipment| shipment.blobs().cloned().collect());
        Self { order, blobs }
    }

    /// Sends it, and gives the receipt.
    fn deliver(&self, session: &mut Session) -> Result<SignedReceipt, DeviceError> {
        let message = flow::deliver(session, &self.order, self.blobs.iter(), &mut |_| {})?;
        match Reply::decode(&message) {
            Ok(Reply::Receipt { signature, receipt }) => Ok(SignedReceipt {
                bytes: receipt.to_vec(),
                signature,
            }),
            other => panic!("no receipt: {other:?}"),
        }
    }
}

/// A device before an order.
pub(crate) struct Scene {
    board: QemuBoard,
    ordered: Ordered,
    rig: Rig,
    /// The flash before the order.
    before: Vec<u8>,
    old: Model,
    new: Model,
    /// The order applied before, and its receipt; none for a device that is new.
    last: Option<(Sent, SignedReceipt)>,
    /// The order. That for a blank device is made for the challenge of the session.
    sent: Option<Sent>,
    /// The device's keys before the order.
    statement: Option<Statement>,
}

fn keys(number: u8) -> [SoftKey; 2] {
    [aes_key(16, number), hmac_key(number + 1)]
}

fn slots(keys: [SoftKey; 2], version: u32) -> Vec<(u16, u32, SoftKey)> {
    (0..)
        .zip(keys)
        .map(|(slot, key)| (slot, version, key))
        .collect()
}

fn enrolment(session: &Session) -> Sent {
    let authority = SoftAuthority::new(0);
    let greeting = session.greeting();
    let unwrap = UnwrapAlgorithm::P256;
    let order = flow::enroll_order(&authority, greeting, unwrap, NONCE, Digest::ZERO);
    Sent::new(order.expect("an order"), None)
}

fn recovery(session: &Session) -> Sent {
    let authority = SoftAuthority::new(0);
    let order = flow::recover_order(&authority, session.greeting(), COUNTER, Digest::ZERO);
    Sent::new(order.expect("an order"), None)
}

/// Damages every snapshot, in its commit block's HMAC.
fn damage(area: &mut [u8], page: u32) {
    for page in area.chunks_exact_mut(page as usize) {
        if page.starts_with(b"KFST") {
            page[40] ^= 0x10;
        }
    }
}

fn stated(sent: &Sent, receipt: &SignedReceipt, session: &Session) -> Statement {
    verify::statement(
        receipt,
        session.greeting().device,
        &sent.order.digest(),
        NONCE,
        flow::authority_fingerprint(&SoftAuthority::new(0)),
    )
    .expect("a statement")
}

fn injection(statement: &Statement, keys: &[SoftKey], version: u32) -> Sent {
    let authority = SoftAuthority::new(0);
    let shipment = wrap(statement, keys, version);
    let terms = terms(statement);
    let order = flow::inject_order(&authority, terms, &shipment, Challenge([3; 32]));
    Sent::new(order.expect("an order"), Some(&shipment))
}

/// Good for one use, also after a restart.
fn terms(statement: &Statement) -> Terms {
    Terms::detached(
        flow::address(statement),
        &statement.standing,
        1,
        Digest::ZERO,
    )
    .unwrap()
}

impl Scene {
    /// Brings a device into the state before the order.
    pub(crate) fn set(board: QemuBoard, ordered: Ordered) -> Self {
        let rig = Rig::start_on(board, Image::FlashFaults, SEED);
        let mut old = Model {
            state: State::Blank,
            counter: 0,
            authority: None,
            keys: Vec::new(),
        };
        let (mut last, mut statement) = (None, None);
        if ordered != Ordered::Enrol {
            let mut session = rig.session();
            let sent = enrolment(&session);
            let receipt = sent.deliver(&mut session).expect("enrolled");
            let mut known = stated(&sent, &receipt, &session);
            old.state = State::Enrolled;
            old.counter = 1;
            old.authority = Some(0);
            last = Some((sent, receipt));
            if ordered != Ordered::Inject {
                let sent = injection(&known, &keys(1), 1);
                let receipt = sent.deliver(&mut session).expect("injected");
                let digest = sent.order.digest();
                known.standing = verify::slots(&receipt, &known, &digest, Kind::Inject)
                    .expect("a receipt")
                    .0;
                old.state = State::Provisioned;
                old.counter = 2;
                old.keys = slots(keys(1), 1);
                last = Some((sent, receipt));
            }
            statement = Some(known);
        }
        if ordered == Ordered::Recover {
            // Of what it was, it knows nothing any more.
            old = Model {
                state: State::Quarantined,
                counter: 0,
                authority: None,
                keys: Vec::new(),
            };
            (last, statement) = (None, None);
        }
        let sent = statement.as_ref().map(|known| order(ordered, known));
        let new = after(ordered, &old);
        let (length, page) = area(board);
        let before = match ordered {
            // As it leaves the factory: its start formats it.
            Ordered::Enrol => vec![0xff; length],
            Ordered::Inject
            | Ordered::Replace
            | Ordered::Remove
            | Ordered::Rotate
            | Ordered::Wipe => rig.area(length),
            Ordered::Recover => {
                let mut area = rig.area(length);
                damage(&mut area, page);
                area
            }
        };
        Self {
            board,
            ordered,
            rig,
            before,
            old,
            new,
            last,
            sent,
            statement,
        }
    }

    /// The words for a run without a stop.
    fn words() -> Vec<String> {
        vec![format!("flash-journal={JOURNAL}")]
    }

    /// The order to send in this session.
    fn sent(&self, session: &Session) -> Sent {
        match &self.sent {
            Some(sent) => sent.clone(),
            None if self.ordered == Ordered::Recover => recovery(session),
            None => enrolment(session),
        }
    }

    /// Starts the device from the flash before the order. A journal of an earlier start is gone.
    fn start(mut self, words: Vec<String>) -> Self {
        match fs::remove_file(self.rig.file(JOURNAL)) {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
        }
        self.rig = self.rig.restart_with_area(&self.before, words);
        self
    }

    /// Records the operations of a start and the order; the new state is as the model has it.
    pub(crate) fn record(self) -> (Self, Recorded) {
        let scene = self.start(Self::words());
        let journal = scene.rig.file(JOURNAL);
        let mut session = scene.rig.session();
        let start = journal::read(&journal).0.len();
        let sent = scene.sent(&session);
        sent.deliver(&mut session).expect("the order is applied");
        let (operations, halted) = journal::read(&journal);
        // A quarantined device writes nothing, not even that it has started.
        assert_eq!(start > 0, scene.ordered != Ordered::Recover);
        assert!(!halted && operations.len() > start + 50);
        session.greet_again().expect("a greeting");
        assert_eq!(model::look(&mut session), scene.new.shown());
        drop(session);
        let recorded = Recorded {
            operations,
            start,
            page: area(scene.board).1,
        };
        (scene, recorded)
    }

    /// Kills the device at an operation, starts it again, and checks that it is the old one or the new one, all in all. Says whether it
    /// is the new one.
    pub(crate) fn kill(self, recorded: &Recorded, at: usize, cut: Cut, seed: u32) -> (Self, bool) {
        let mut words = Self::words();
        words.push(format!("flash-stop={at:x}"));
        words.push(format!("flash-cut={}", cut.word()));
        words.push(format!("flash-seed={seed:x}"));
        let scene = self.start(words);
        let sent = scene.run_until_halted();
        let told = format!(
            "{} {}, operation {at} of {} ({}), {} with seed {seed}",
            scene.board.name(),
            scene.ordered.name(),
            recorded.operations.len(),
            recorded.role(at),
            cut.word()
        );
        let (operations, _) = journal::read(&scene.rig.file(JOURNAL));
        assert_eq!(operations, recorded.operations[..=at], "{told}");

        // What the kill has left, and nothing else.
        let left = scene.rig.area(area(scene.board).0);
        let rig = scene.rig.restart_with_area(&left, Vec::new());
        let scene = Self { rig, ..scene };
        let new = scene.check(sent.as_ref(), &told);
        (scene, new)
    }

    /// Has the device do the order until it halts, and kills it there. Gives what was sent, if it came to that.
    fn run_until_halted(&self) -> Option<Sent> {
        let journal = self.rig.file(JOURNAL);
        let end = Instant::now() + PATIENCE;
        let lost: Mutex<Option<DeviceError>> = Mutex::new(None);
        thread::scope(|scope| {
            let station = scope.spawn(|| {
                // On a loaded machine a device can be late for its first session; one that halts at its start has none, and its
                // port may be gone before it was opened.
                let mut session = loop {
                    if journal::read(&journal).1 || Instant::now() >= end {
                        return None;
                    }
                    match port::open(self.rig.port()).map(Session::open) {
                        Ok(Ok(session)) => break session,
                        Ok(Err(_)) => {}
                        Err(_) => thread::sleep(Duration::from_millis(20)),
                    }
                };
                let sent = self.sent(&session);
                let answer = sent.deliver(&mut session);
                let error = answer.expect_err("the device did not halt");
                *lost.lock().expect("nobody panics here") = Some(error);
                Some(sent)
            });
            while !journal::read(&journal).1 {
                assert!(
                    Instant::now() < end,
                    "{} {}: the device does not halt: {lost:?}",
                    self.board.name(),
                    self.ordered.name()
                );
                thread::sleep(Duration::from_millis(1));
            }
            self.rig.kill();
            station.join().expect("the station's end ends")
        })
    }

    /// Looks at a device after the kill.
    fn check(&self, sent: Option<&Sent>, told: &str) -> bool {
        let mut session = self.rig.session();
        let shown = model::look(&mut session);
        let new = shown == self.new.shown();
        if !new {
            assert_eq!(shown, self.old.shown(), "{told}");
        }
        let mut statement = self.statement.clone();
        if new {
            // The receipt of the order: it is sent again, and answered from the store.
            let sent = sent.expect("a new state comes from an order that was sent");
            let receipt = sent.deliver(&mut session).expect("the stored receipt");
            let digest = sent.order.digest();
            let standing = match &statement {
                Some(known) => match self.ordered.kind() {
                    Kind::Inject => verify::slots(&receipt, known, &digest, Kind::Inject)
                        .map(|(standing, _)| standing),
                    kind => verify::done(&receipt, known, &digest, kind),
                }
                .expect("the order's receipt"),
                None if self.ordered == Ordered::Recover => {
                    verify::recovered(&receipt, session.greeting().device, &digest)
                        .expect("the order's receipt")
                }
                None => {
                    let known = stated(sent, &receipt, &session);
                    let standing = known.standing;
                    statement = Some(known);
                    standing
                }
            };
            assert_eq!(standing.counter, self.new.counter, "{told}");
            assert_eq!(standing.state, self.new.state, "{told}");
        } else if let Some((last, receipt)) = &self.last {
            let again = last.deliver(&mut session).expect("the stored receipt");
            assert_eq!(again, *receipt, "{told}");
        }
        let model = if new { &self.new } else { &self.old };
        if model.state == State::Blank {
            statement = None;
        }
        session.greet_again().expect("a greeting");
        assert_eq!(model::look(&mut session), model.shown(), "{told}");
        let model = if model.state == State::Quarantined {
            let authority = SoftAuthority::new(0);
            flow::recover(&mut session, &authority, COUNTER, &mut |_| {})
                .unwrap_or_else(|error| panic!("{told}: it can be recovered: {error}"));
            &self.new
        } else {
            model
        };
        model::go_on(&mut session, model, statement.as_ref(), told);
        new
    }
}

/// The order, for a device with these keys.
fn order(ordered: Ordered, known: &Statement) -> Sent {
    let (authority, next) = (SoftAuthority::new(0), SoftAuthority::new(1));
    let terms = terms(known);
    let order = match ordered {
        Ordered::Enrol | Ordered::Recover => unreachable!("there is no statement"),
        Ordered::Inject => return injection(known, &keys(1), 1),
        Ordered::Replace => return injection(known, &keys(3), 2),
        Ordered::Remove => flow::remove_order(&authority, terms, &[0]),
        Ordered::Rotate => flow::rotate_order(&authority, &next, terms),
        Ordered::Wipe => flow::wipe_order(&authority, terms),
    };
    Sent::new(order.expect("an order"), None)
}

/// The model after the order.
fn after(ordered: Ordered, old: &Model) -> Model {
    let mut new = old.clone();
    new.counter += 1;
    match ordered {
        Ordered::Enrol => {
            new.state = State::Enrolled;
            new.authority = Some(0);
        }
        Ordered::Inject => {
            new.state = State::Provisioned;
            new.keys = slots(keys(1), 1);
        }
        Ordered::Replace => new.keys = slots(keys(3), 2),
        Ordered::Remove => new.keys.retain(|(slot, _, _)| *slot != 0),
        Ordered::Rotate => new.authority = Some(1),
        Ordered::Wipe => {
            new.state = State::Blank;
            new.authority = None;
            new.keys.clear();
        }
        Ordered::Recover => {
            new.state = State::Blank;
            new.counter = COUNTER;
        }
    }
    new
}
