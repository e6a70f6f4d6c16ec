//! An order that nobody goes on with is dropped, in virtual time.

use keyferry::device::flow::{self, Shipment};
use keyferry_firmware::device::{JOB_LIMIT, JOB_PATIENCE, Millis, Work};
use keyferry_protocol::identity::Challenge;
use keyferry_protocol::link::{Front, Link, SILENCE, rates};
use keyferry_protocol::message::{Hello, Reply, Request};
use keyferry_protocol::order::{Freshness, Header, Kind};
use keyferry_protocol::receipt::{Outcome, Refusal, decode};
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_protocol::{MAX_MESSAGE, VERSION};
use keyferry_tests::desk::{Desk, OnDesk};
use keyferry_tests::orders::{Order, open};
use keyferry_tests::software::{SoftAuthority, aes_key, wrap};

/// A station that is told what time it is.
struct Station {
    device: OnDesk,
    link: Box<Link<16_384, 16_384, 4_096>>,
    now: Millis,
    /// How long the device would sleep.
    work: Work,
}

impl Station {
    fn open(device: &OnDesk, nonce: u32, now: Millis) -> (Self, Header) {
        let mut station = Self {
            device: device.clone(),
            link: Box::new(Link::new()),
            now,
            work: Work::Idle(None),
        };
        let mut buffer = [0; MAX_MESSAGE];
        let hello = Request::Hello {
            min: VERSION,
            max: VERSION,
        };
        let hello = hello.encode(&mut buffer).unwrap();
        // Time does not pass while bytes are carried here.
        station.link.set_rate(u32::MAX);
        station.link.open(nonce, now);
        station.link.send(hello).unwrap();
        let answers = station.settle();
        let [answer] = &answers[..] else {
            panic!("{} answers", answers.len());
        };
        let Ok(Reply::Hello(greeting)) = Reply::decode(answer) else {
            panic!("no greeting");
        };
        let header = header(&station.device, &greeting);
        (station, header)
    }

    fn say(&mut self, request: &Request<'_>) -> Vec<Vec<u8>> {
        let mut buffer = [0; MAX_MESSAGE];
        let message = request.encode(&mut buffer).unwrap();
        self.link.send(message).unwrap();
        self.settle()
    }

    /// Carries bytes both ways until nobody has any; gives the device's messages but progress.
    fn settle(&mut self) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        loop {
            let down = self.link.transmit(self.now).to_vec();
            self.link.transmitted(down.len(), self.now);
            let (work, up) = self.device.turn(&down, self.now).unwrap();
            self.work = work;
            self.link.receive(&up, self.now);
            while let Some(front) = self.link.front().filter(Front::is_complete) {
                let message = front.bytes.to_vec();
                self.link.consume(message.len());
                if !matches!(Reply::decode(&message), Ok(Reply::Progress(_))) {
                    messages.push(message);
                }
            }
            if down.is_empty() && up.is_empty() {
                return messages;
            }
        }
    }
}

fn header(device: &OnDesk, greeting: &Hello<'_>) -> Header {
    let address = keyferry_protocol::order::Address {
        device: greeting.device,
        identity: greeting.identity,
        unwrap: device.unwrap_key(),
    };
    let freshness = Freshness::Challenge(greeting.challenge);
    Header::new(Kind::Inject, address, freshness, greeting.counter + 1)
}

fn enrolled() -> (OnDesk, SoftAuthority, Shipment) {
    let device = OnDesk::start(Desk::new(1, 32));
    let authority = SoftAuthority::new(0);
    let (nonce, kind) = (Challenge([9; 32]), UnwrapAlgorithm::P256);
    let statement = flow::enroll(&mut open(&device), &authority, kind, nonce, &mut |_| {});
    let shipment = wrap(&statement.unwrap(), &[aes_key(16, 1)], 1);
    (device, authority, shipment)
}

/// A station that has sent an `Inject`, which the device accepted, and the first of its blobs.
fn begun(
    device: &OnDesk,
    authority: &SoftAuthority,
    shipment: &Shipment,
    blobs: usize,
) -> (Station, Order) {
    let (mut station, header) = Station::open(device, 700, 1_000_000);
    let order = Order::inject(authority, header, shipment);
    let request = Request::Order {
        signature: order.signature,
        second: None,
        order: &order.bytes,
    };
    let answers = station.say(&request);
    assert!(answers.is_empty(), "only progress");
    for bytes in &order.blobs[..blobs] {
        assert!(station.say(&Request::Blob { bytes }).is_empty());
    }
    (station, order)
}

/// What the device says to the next blob.
fn outcome(answers: &[Vec<u8>]) -> Result<Outcome, Refusal> {
    match Reply::decode(&answers[0]).unwrap() {
        Reply::Receipt { receipt, .. } => Ok(decode(receipt).unwrap().0.outcome),
        Reply::Refused(refusal) => Err(refusal),
        other => panic!("{other:?}"),
    }
}

/// SPEC: M-33
#[test]
fn an_order_is_dropped_when_its_blobs_do_not_come() {
    for blobs in [0, 1] {
        let (device, authority, shipment) = enrolled();
        let (mut station, order) = begun(&device, &authority, &shipment, blobs);
        assert_eq!(device.unwrap_operations(), blobs as u32);
        // It sleeps until then, and is still in the midst of the order a moment before.
        let until = station.now + JOB_PATIENCE;
        assert_eq!(station.work, Work::Idle(Some(until)));
        station.now = until - 1;
        assert!(station.settle().is_empty());
        assert_eq!(station.work, Work::Idle(Some(until)));
        station.now = until;
        assert!(station.settle().is_empty());
        assert_ne!(station.work, Work::Idle(Some(until)));

        // A blob that comes now belongs to nothing; the order itself is stale.
        let bytes = &order.blobs[blobs];
        let answers = station.say(&Request::Blob { bytes });
        assert_eq!(outcome(&answers), Err(Refusal::Sequence));
        let again = order.send_to(&device).refusal();
        assert_eq!(again, Some((Refusal::Stale, true)));
        let device = OnDesk::start(Desk::with_flash(1, device.stop()));
        let mut session = open(&device);
        assert_eq!(session.greeting().counter, 1);
        assert!(flow::list(&mut session).unwrap().is_empty());
    }
}

/// Nothing unsigned keeps an order waiting, and its key-encryption key in RAM: neither questions, nor an empty piece of a blob, nor an
/// order that somebody forged.
///
/// SPEC: M-11, M-33
#[test]
fn only_blobs_keep_an_order_waiting() {
    let (device, authority, shipment) = enrolled();
    let (mut station, order) = begun(&device, &authority, &shipment, 1);
    let until = station.now + JOB_PATIENCE;
    let mut forged = order.bytes.clone();
    forged[40] ^= 1;
    let forged = Request::Order {
        signature: order.signature,
        second: None,
        order: &forged,
    };
    for request in [
        Request::Echo { bytes: b"here" },
        Request::List,
        Request::Blob { bytes: &[] },
        Request::Certificate,
        Request::Failed,
        forged,
    ] {
        station.now += JOB_PATIENCE / 7;
        station.say(&request);
        assert_eq!(station.work, Work::Idle(Some(until)), "{request:?}");
    }
    station.now = until;
    assert!(station.settle().is_empty());
    assert_ne!(station.work, Work::Idle(Some(until)));
    let bytes = &order.blobs[1];
    let answers = station.say(&Request::Blob { bytes });
    assert_eq!(outcome(&answers), Err(Refusal::Sequence));
}

/// Each piece of a blob gives the station its patience anew.
///
/// SPEC: M-33
#[test]
fn a_slow_station_is_waited_for() {
    let (device, authority, shipment) = enrolled();
    let (mut station, order) = begun(&device, &authority, &shipment, 0);
    let pieces: Vec<&[u8]> = order.blobs.iter().flat_map(|blob| blob.chunks(9)).collect();
    let (last, pieces) = pieces.split_last().unwrap();
    for bytes in pieces {
        station.now += JOB_PATIENCE - 1;
        assert!(station.say(&Request::Blob { bytes }).is_empty());
        assert_eq!(station.work, Work::Idle(Some(station.now + JOB_PATIENCE)));
    }
    station.now += JOB_PATIENCE - 1;
    let answers = station.say(&Request::Blob { bytes: last });
    assert_eq!(outcome(&answers), Ok(Outcome::Applied));
}

/// Whoever feeds it byte by byte does not keep a key-encryption key in its memory for ever.
///
/// SPEC: M-41
#[test]
fn an_order_that_trickles_in_is_dropped_in_the_end() {
    let (device, authority, shipment) = enrolled();
    let (mut station, order) = begun(&device, &authority, &shipment, 1);
    let until = station.now + JOB_LIMIT;
    let mut pieces = order.blobs[1].chunks(1);
    while station.now + JOB_PATIENCE - 1 < until {
        station.now += JOB_PATIENCE - 1;
        let bytes = pieces.next().unwrap();
        assert!(station.say(&Request::Blob { bytes }).is_empty());
    }
    assert_eq!(station.work, Work::Idle(Some(until)));
    station.now = until;
    assert!(station.settle().is_empty());
    assert_ne!(station.work, Work::Idle(Some(until)));
    let bytes = pieces.next().unwrap();
    let answers = station.say(&Request::Blob { bytes });
    assert_eq!(outcome(&answers), Err(Refusal::Sequence));
}

/// SPEC: M-42
#[test]
fn a_message_that_is_too_long_is_passed_over() {
    let (device, _, _) = enrolled();
    let (mut station, _) = Station::open(&device, 700, 1_000_000);
    for length in [MAX_MESSAGE + 1, 40_000, usize::from(u16::MAX)] {
        let length = u16::try_from(length).unwrap();
        station.link.begin(length).unwrap();
        let (mut left, mut answers) = (usize::from(length), Vec::new());
        while left > 0 {
            let piece = [5; 1_000];
            left -= station.link.write(&piece[..left.min(1_000)]);
            answers.extend(station.settle());
        }
        assert_eq!(outcome(&answers), Err(Refusal::Malformed), "{length}");
        let bytes = &[7; 100];
        let mut buffer = [0; MAX_MESSAGE];
        let same = Reply::Echo { bytes }.encode(&mut buffer).unwrap().to_vec();
        assert_eq!(station.say(&Request::Echo { bytes }), [same]);
    }
}

/// SPEC: M-33
#[test]
fn an_order_is_dropped_when_the_station_stops_to_acknowledge() {
    let (device, authority, shipment) = enrolled();
    let (mut station, _) = begun(&device, &authority, &shipment, 0);
    // The device has something to say, and nobody takes it.
    let mut buffer = [0; MAX_MESSAGE];
    let echo = Request::Echo { bytes: b"here" };
    station
        .link
        .send(echo.encode(&mut buffer).unwrap())
        .unwrap();
    let bytes = station.link.transmit(station.now).to_vec();
    let (mut work, sent) = device.turn(&bytes, station.now).unwrap();
    assert!(!sent.is_empty());
    let mut now = station.now;
    while let Work::Idle(Some(until)) = work {
        now = until;
        work = device.turn(&[], now).unwrap().0;
    }
    assert_eq!(work, Work::Idle(None));
    assert_eq!(now - station.now, SILENCE);
    // It waits for no blob any more, and takes a new session.
    let (mut station, _) = Station::open(&device, 701, now);
    let answers = station.say(&Request::Blob { bytes: b"late" });
    assert_eq!(outcome(&answers), Err(Refusal::Sequence));
}

/// SPEC: M-40
#[test]
fn a_rate_at_which_nothing_is_heard_is_left_again() {
    for hears in [false, true] {
        let mut desk = Desk::new(1, 32);
        desk.rates = &[921_600];
        let device = OnDesk::start(desk);
        let (mut station, _) = Station::open(&device, 700, 1_000_000);
        for baud in [230_400, 921_601] {
            let answers = station.say(&Request::Rate { baud });
            assert_eq!(outcome(&answers), Err(Refusal::Unsupported));
        }
        assert_eq!(device.rate(), rates::BASE);
        let mut buffer = [0; MAX_MESSAGE];
        let request = Request::Rate { baud: 921_600 };
        station
            .link
            .send(request.encode(&mut buffer).unwrap())
            .unwrap();
        // What the station answers at the old rate does not arrive any more.
        let bytes = station.link.transmit(station.now).to_vec();
        station.link.transmitted(bytes.len(), station.now);
        let (_, sent) = device.turn(&bytes, station.now).unwrap();
        assert!(!sent.is_empty());
        assert_eq!(device.rate(), 921_600);
        let mut patience = rates::TRIAL;
        if hears {
            station.now += rates::TRIAL - 1;
            station.say(&Request::Echo { bytes: b"fine" });
            patience = rates::PATIENCE;
        }
        let until = station.now + patience;
        for (now, rate) in [(until - 1, 921_600), (until, rates::BASE)] {
            let _ = device.turn(&[], now).unwrap();
            assert_eq!(device.rate(), rate, "heard {hears}");
        }
        // The session goes on.
        station.now = until;
        let answers = station.say(&Request::Echo { bytes: b"again" });
        let last = Reply::decode(answers.last().unwrap());
        assert!(matches!(last, Ok(Reply::Echo { .. })));
    }
}

/// Whoever keeps the device's transmitter busy keeps no order waiting.
///
/// SPEC: M-33
#[test]
fn a_line_that_takes_nothing_keeps_no_order_waiting() {
    let (device, authority, shipment) = enrolled();
    let (mut station, order) = begun(&device, &authority, &shipment, 1);
    let until = station.now + JOB_PATIENCE;
    let mut buffer = [0; MAX_MESSAGE];
    let echo = Request::Echo { bytes: b"here" };
    station
        .link
        .send(echo.encode(&mut buffer).unwrap())
        .unwrap();
    let bytes = station.link.transmit(station.now).to_vec();
    station.link.transmitted(bytes.len(), station.now);
    // Its answer stays where it is.
    device.stuck_turn(&bytes, station.now);
    device.stuck_turn(&[], until - 1);
    assert!(device.is_in_the_midst(), "not yet");
    device.stuck_turn(&[], until);
    assert!(!device.is_in_the_midst());
    drop(order);
}

/// SPEC: M-40
#[test]
fn a_rate_that_was_agreed_on_ends_with_its_session() {
    let mut desk = Desk::new(1, 32);
    desk.rates = &[921_600];
    let device = OnDesk::start(desk);
    let (mut station, _) = Station::open(&device, 700, 1_000_000);
    let mut buffer = [0; MAX_MESSAGE];
    let request = Request::Rate { baud: 921_600 };
    station
        .link
        .send(request.encode(&mut buffer).unwrap())
        .unwrap();
    let bytes = station.link.transmit(station.now).to_vec();
    // The answer has not left when a new session begins.
    device.stuck_turn(&bytes, station.now);
    let (station, _) = Station::open(&device, 701, station.now);
    assert_eq!(device.rate(), rates::BASE);
    drop(station);
}
