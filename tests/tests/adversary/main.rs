//! Attackers, each with a file of its own: against the real firmware, in QEMU and in this process, and against the real station.
//! Each test is named after the promise it shows, and checks besides the refusal that nothing else has changed.

#[cfg(unix)]
mod audit;
mod bits;
mod cable;
mod downgrade;
#[cfg(unix)]
mod fake_device;
#[cfg(unix)]
mod forged_proofs;
#[cfg(unix)]
mod line;
#[cfg(unix)]
mod lock;
#[cfg(unix)]
mod middle;
mod receipts;
mod replay;
#[cfg(unix)]
mod resets;
mod transplant;

use keyferry::device::DeviceError;
use keyferry::device::flow::{self, Shipment, SignedOrder, Terms};
use keyferry::device::port::Port;
use keyferry::device::session::Session;
use keyferry::device::verify::Statement;
use keyferry_firmware::device::Operations;
use keyferry_protocol::MAX_MESSAGE;
use keyferry_protocol::identity::{Challenge, Digest};
use keyferry_protocol::message::{Progress, SlotInfo};
use keyferry_protocol::order::{self, Body, Header};
use keyferry_protocol::receipt::{Refusal, State};
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::board::{Image, Rig, open_again};
use keyferry_tests::desk::{Desk, OnDesk};
use keyferry_tests::orders::{Answer, Order};
use keyferry_tests::software::{SoftAuthority, SoftKey, aes_key, hmac_key, wrap};

fn quiet(_: Progress) {}

/// The proof challenge of every order here.
const ASKED: Challenge = Challenge([3; 32]);

/// A device under attack: the firmware library in this process, or the whole firmware in QEMU.
enum Victim {
    Desk(OnDesk, u8),
    /// `None` only while it restarts.
    Board(Option<Box<Rig>>),
}

impl Victim {
    fn desk(number: u8) -> Self {
        Self::Desk(OnDesk::start(Desk::new(number, 32)), number)
    }

    fn board(number: u8) -> Self {
        Self::Board(Some(Box::new(Rig::start(Image::Default, number))))
    }

    /// One of each kind.
    fn both(number: u8) -> [Self; 2] {
        [Self::desk(number), Self::board(number)]
    }

    fn port(&self) -> Box<dyn Port> {
        match self {
            Self::Desk(device, _) => device.port(),
            Self::Board(rig) => open_again(rig.as_ref().unwrap().port()),
        }
    }

    fn session(&self) -> Session {
        Session::open(self.port()).unwrap()
    }

    fn flash(&self) -> Vec<u8> {
        match self {
            Self::Desk(device, _) => device.flash(),
            Self::Board(rig) => rig.as_ref().unwrap().flash(),
        }
    }

    /// Private-key operations since start.
    fn operations(&mut self) -> Operations {
        match self {
            Self::Desk(device, _) => device.operations(),
            Self::Board(rig) => rig.as_mut().unwrap().operations(),
        }
    }

    fn restart(&mut self) {
        match self {
            Self::Desk(device, number) => {
                *device = OnDesk::start(Desk::with_flash(*number, device.stop()));
            }
            Self::Board(rig) => *rig = rig.take().map(|rig| Box::new(rig.restart())),
        }
    }

    /// What an attack must not change.
    fn scene(&self) -> Scene {
        let mut session = self.session();
        let greeting = session.greeting().clone();
        Scene {
            state: greeting.state,
            counter: greeting.counter,
            keys: format!("{:?}", (greeting.identity, greeting.authority)),
            slots: flow::list(&mut session).unwrap(),
            flash: self.flash(),
        }
    }

    fn send(&self, order: &Order) -> Answer {
        order.send(&mut self.session())
    }

    /// Sends an order that must be refused, and checks that it changes nothing.
    fn refuses(&self, order: &Order, expected: Refusal, signed: bool) {
        let before = self.scene();
        let refusal = self.send(order).refusal();
        assert_eq!(refusal, Some((expected, signed)));
        assert_eq!(self.scene(), before);
    }

    /// Sends an order that must be done.
    fn obeys(&self, order: &Order) -> Answer {
        let answer = self.send(order);
        assert_eq!(answer.refusal(), None);
        answer
    }

    /// Has the device state itself, and enrols it first if it is blank.
    fn enroll(&self, authority: &SoftAuthority) -> Result<Statement, DeviceError> {
        let unwrap = UnwrapAlgorithm::P256;
        flow::enroll(&mut self.session(), authority, unwrap, NONCE, &mut quiet)
    }

    /// The terms of the next order, for the device as it is.
    fn terms(&self, authority: &SoftAuthority) -> Terms {
        flow::terms(&self.enroll(authority).unwrap(), Digest::ZERO).unwrap()
    }
}

/// The nonce of every enrolment here.
const NONCE: Challenge = Challenge([9; 32]);

/// A device as a test left it, with all of its flash.
#[derive(PartialEq, Eq)]
struct Scene {
    state: State,
    counter: u32,
    keys: String,
    slots: Vec<SlotInfo>,
    flash: Vec<u8>,
}

impl std::fmt::Debug for Scene {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let flash = keyferry::device::verify::digest(&self.flash);
        let Self {
            state,
            counter,
            keys,
            slots,
            ..
        } = self;
        write!(f, "{state:?} {counter} {keys} {slots:?} flash {flash:?}")
    }
}

/// An order with the blobs that go with it.
fn with_blobs(order: SignedOrder, shipment: Option<&Shipment>) -> Order {
    let SignedOrder {
        bytes,
        signature,
        second,
    } = order;
    let blobs = shipment.map_or_else(Vec::new, |shipment| shipment.blobs().cloned().collect());
    Order {
        bytes,
        signature,
        second,
        blobs,
    }
}

/// An `Inject` of a shipment.
fn injecting(authority: &SoftAuthority, terms: Terms, shipment: &Shipment) -> Order {
    let order = flow::inject_order(authority, terms, shipment, ASKED).unwrap();
    with_blobs(order, Some(shipment))
}

/// The same order, its content changed and its signature left as it was.
fn rewritten(order: &Order, change: impl FnOnce(&mut Header, &mut Body<'_>)) -> Order {
    let (mut header, mut body) = order::decode(&order.bytes).unwrap();
    change(&mut header, &mut body);
    let mut buffer = [0; MAX_MESSAGE];
    let bytes = order::encode(header, &body, &mut buffer).unwrap().to_vec();
    assert_ne!(bytes, order.bytes, "nothing was changed");
    Order {
        bytes,
        ..order.clone()
    }
}

/// Two keys for slots 0 and 1.
fn two_keys() -> Vec<SoftKey> {
    vec![aes_key(16, 1), hmac_key(2)]
}

/// An enrolled device with two keys in it.
fn provisioned(mut victim: Victim, authority: &SoftAuthority) -> (Victim, Statement) {
    let statement = victim.enroll(authority).unwrap();
    let shipment = wrap(&statement, &two_keys(), 1);
    let terms = flow::terms(&statement, Digest::ZERO).unwrap();
    victim.obeys(&injecting(authority, terms, &shipment));
    assert_eq!(victim.operations().unwrap, 1);
    let statement = victim.enroll(authority).unwrap();
    (victim, statement)
}
