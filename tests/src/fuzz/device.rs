//! The whole firmware: an enrolled device on the desk, over a clean link. Messages are what the fuzzer makes of them; so are
//! orders, which the device's own authority signs and addresses, since behind a wrong signature there is nothing to find.

use std::sync::OnceLock;

use keyferry::device::flow::{self, Authority};
use keyferry::device::session::Session;
use keyferry::device::verify::Statement;
use keyferry_firmware::device::Work;
use keyferry_protocol::MAX_MESSAGE;
use keyferry_protocol::identity::{Challenge, Signature};
use keyferry_protocol::link::{Link, Millis};
use keyferry_protocol::message::{Reply, Request};
use keyferry_protocol::order::{self, Body, Freshness, Header, Kind};
use keyferry_protocol::receipt::{self, Outcome};
use keyferry_protocol::suite::{Suite, UnwrapAlgorithm};

use crate::audited::ONCE;
use crate::desk::{Desk, Flash, OnDesk};
use crate::orders::Order;
use crate::software::{SoftAuthority, aes_key, hmac_key, wrap};

type Station = Link<8192, 8192, 2048>;

/// Where the kind stands in an order: behind tag and format.
const KIND: usize = 17;

/// Most things that happen in one run.
const MAXIMUM_ACTS: usize = 12;

/// The device as it is before each run: enrolled, with one key.
struct Enrolled {
    flash: Flash,
    statement: Statement,
    authority: SoftAuthority,
}

/// A device that cannot be wiped, or it would have to make an RSA key now and then, which takes minutes here.
fn desk(flash: Flash) -> OnDesk {
    let mut desk = Desk::with_flash(1, flash);
    desk.allows_wipe = false;
    OnDesk::start(desk)
}

fn enrolled() -> &'static Enrolled {
    static ENROLLED: OnceLock<Enrolled> = OnceLock::new();
    ENROLLED.get_or_init(|| {
        let authority = SoftAuthority::new(0);
        let device = desk(Flash::new(16));
        let mut session = Session::open(device.port()).expect("the device answers");
        let kind = UnwrapAlgorithm::P256;
        let statement = flow::enroll(&mut session, &authority, kind, ONCE, &mut |_| {})
            .expect("a blank device enrols");
        let shipment = wrap(&statement, &[aes_key(16, 1)], 1);
        flow::inject(
            &mut session,
            &authority,
            &statement,
            &shipment,
            ONCE,
            &mut |_| {},
        )
        .expect("a key is taken");
        drop(session);
        Enrolled {
            flash: device.stop(),
            statement,
            authority,
        }
    })
}

/// A station that says anything.
struct Line {
    device: OnDesk,
    link: Station,
    sessions: u32,
    now: Millis,
    /// What the device said last of its counter and challenge.
    counter: u32,
    challenge: Challenge,
    /// Whether it has applied an order.
    applied: bool,
}

impl Line {
    fn new(flash: Flash) -> Self {
        Self {
            device: desk(flash),
            link: Station::new(),
            sessions: 0,
            now: 0,
            counter: 0,
            challenge: Challenge::ZERO,
            applied: false,
        }
    }

    /// Opens a session; with `hello`, greets.
    fn open(&mut self, hello: bool) -> bool {
        self.sessions += 1;
        self.link.open(self.sessions, self.now);
        let mut room = [0; MAX_MESSAGE];
        let greeting = Request::Hello { min: 0, max: 0 };
        let greeting = greeting.encode(&mut room).expect("it is short");
        let first = if hello { greeting } else { &[0xff][..] };
        self.say(first)
    }

    /// Sends a message and lets both ends come to rest; whether there was an answer.
    fn say(&mut self, message: &[u8]) -> bool {
        if message.is_empty() || self.link.send(message).is_err() {
            return false;
        }
        self.rest()
    }

    /// Lets both ends work until neither has anything to say; whether the device said anything.
    fn rest(&mut self) -> bool {
        let (mut answered, mut quiet) = (false, 0);
        // Delayed acknowledgements and repetitions come within a second.
        while quiet < 20 {
            let down = self.link.transmit(self.now).to_vec();
            self.link.transmitted(down.len(), self.now);
            let (work, up) = self
                .device
                .turn(&down, self.now)
                .expect("nobody stopped the device");
            assert_ne!(work, Work::More);
            self.link.receive(&up, self.now);
            answered |= self.listen();
            let silent = down.is_empty() && up.is_empty();
            quiet = if silent { quiet + 1 } else { 0 };
            if silent && self.link.idle() && answered {
                break;
            }
            self.now += 10;
        }
        answered
    }

    /// Takes the device's messages, all of which must decode.
    fn listen(&mut self) -> bool {
        let mut heard = false;
        while let Some(front) = self.link.front() {
            if !front.is_complete() {
                break;
            }
            let message = front.bytes.to_vec();
            self.link.consume(message.len());
            heard = true;
            match Reply::decode(&message).expect("a device says nothing that does not decode") {
                Reply::Hello(hello) => {
                    (self.counter, self.challenge) = (hello.counter, hello.challenge);
                }
                Reply::Receipt { receipt, .. } => {
                    let (header, _) = receipt::decode(receipt).expect("a receipt decodes");
                    (self.counter, self.challenge) = (header.counter, header.challenge);
                    self.applied |= header.outcome == Outcome::Applied;
                }
                Reply::Progress(_)
                | Reply::Refused(_)
                | Reply::Status { .. }
                | Reply::Slots { .. }
                | Reply::Echo { .. }
                | Reply::Certificate { .. }
                | Reply::Rate { .. }
                | Reply::Failed => {}
            }
        }
        heard
    }

    /// A header that the device must take for its own.
    fn header(&self, kind: Kind, suite: Option<Suite>) -> Header {
        let freshness = Freshness::Challenge(self.challenge);
        let address = flow::address(&enrolled().statement);
        Header {
            suite,
            ..Header::new(kind, address, freshness, self.counter.wrapping_add(1))
        }
    }

    /// An order with this body, and a header and a signature that are right.
    fn order(&mut self, kind: u8, body: &[u8]) -> bool {
        // The seeds are wrapped in the strongest suite of the device.
        let strongest = enrolled().statement.suites.first().copied();
        let suite = strongest.filter(|_| kind == 1);
        let mut room = [0; MAX_MESSAGE];
        let header = order::encode(self.header(Kind::Lock, suite), &Body::Lock, &mut room);
        let mut bytes = header.expect("a header is short").to_vec();
        if let Some(place) = bytes.get_mut(KIND) {
            *place = kind;
        }
        bytes.extend(body);
        let signature = enrolled().authority.sign(&bytes).expect("it signs");
        let request = Request::Order {
            signature: Signature::from_bytes(&signature),
            // The new authority of a Rotate would have to sign too; nobody holds its key.
            second: (kind == 4).then_some(Signature::from_bytes(&signature)),
            order: &bytes,
        };
        let mut room = [0; MAX_MESSAGE];
        request
            .encode(&mut room)
            .map(<[u8]>::to_vec)
            .is_ok_and(|message| self.say(&message))
    }
}

/// What happens in a run, as bytes: what, how many bytes follow (little-endian), and these.
mod act {
    /// A message as it is.
    pub(super) const MESSAGE: u8 = 0;
    /// A piece of blobs.
    pub(super) const BLOB: u8 = 1;
    /// An order: its kind, then its body.
    pub(super) const ORDER: u8 = 2;
    /// A new session, with a greeting if the first byte is even.
    pub(super) const SESSION: u8 = 3;
    /// Time passes: quarters of a second.
    pub(super) const TIME: u8 = 4;
    /// The power fails.
    pub(super) const POWER: u8 = 5;
    /// How many there are.
    pub(super) const COUNT: u8 = 6;
}

/// A whole session.
pub(super) fn device(data: &[u8]) -> bool {
    let mut line = Line::new(enrolled().flash.clone());
    line.open(true);
    let before = line.device.flash();
    let (mut rest, mut signed) = (data, false);
    for _ in 0..MAXIMUM_ACTS {
        let Some((&[what, low, high], after)) = rest.split_first_chunk::<3>() else {
            break;
        };
        let length = usize::from(u16::from_le_bytes([low, high])).min(after.len());
        let (content, after) = after.split_at(length);
        rest = after;
        let first = content.first().copied().unwrap_or(0);
        match what % act::COUNT {
            act::BLOB => {
                let mut room = [0; MAX_MESSAGE];
                let blob = Request::Blob { bytes: content };
                if let Ok(message) = blob.encode(&mut room) {
                    line.say(message);
                }
            }
            act::ORDER => {
                signed = true;
                line.order(first % 8, content.get(1..).unwrap_or_default());
            }
            act::SESSION => {
                line.open(first % 2 == 0);
            }
            act::TIME => {
                line.now += Millis::from(first) * 250;
                line.rest();
            }
            act::POWER => {
                // Starting writes to the flash; what is compared is what messages do.
                signed = true;
                let flash = line.device.stop();
                line.device = desk(flash);
                line.open(true);
            }
            act::MESSAGE.. => {
                line.say(content);
            }
        }
    }
    assert!(
        signed || line.device.flash() == before,
        "something unsigned has changed the device"
    );
    assert!(line.open(true), "the device does not answer any more");
    line.applied
}

fn act(what: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("it is short");
    [&[what][..], &length.to_le_bytes(), content].concat()
}

/// Orders that are applied, and messages.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let Enrolled {
        statement,
        authority,
        ..
    } = enrolled();
    // Only the body is taken of it: header and signature are made anew in each run.
    let body = |order: &Order| {
        let (_, rest) = order::decode_header(&order.bytes).expect("it was made here");
        rest.to_vec()
    };
    let line = Line::new(enrolled().flash.clone());
    let shipment = wrap(statement, &[aes_key(16, 3), hmac_key(2)], 5);
    let header = line.header(Kind::Inject, Some(shipment.suite));
    let inject = Order::inject(authority, header, &shipment);
    let inject = [
        act(act::ORDER, &[&[1][..], &body(&inject)].concat()),
        act(act::BLOB, &inject.blobs.concat()),
    ]
    .concat();
    let prove = {
        let prove = order::Prove {
            challenge: ONCE,
            slots: std::iter::once(order::ProofRequest {
                slot: 0,
                proof: keyferry_protocol::proof::Proof::Cmac,
            })
            .collect(),
            questions: order::Questions::new(),
        };
        let header = line.header(Kind::Prove, None);
        let order = Order::new(authority, header, &Body::Prove(prove));
        act(act::ORDER, &[&[2][..], &body(&order)].concat())
    };
    let remove = act(act::ORDER, &[3, 1, 0]);
    let lock = act(act::ORDER, &[5]);
    let list = act(act::MESSAGE, &[4]);
    let certificate = act(act::MESSAGE, &[6]);
    vec![
        lock.clone(),
        [inject.clone(), list.clone(), certificate].concat(),
        [prove, remove, act(act::SESSION, &[0]), list.clone()].concat(),
        [
            act(act::POWER, &[]),
            lock,
            act(act::TIME, &[9]),
            inject,
            list,
        ]
        .concat(),
    ]
}
