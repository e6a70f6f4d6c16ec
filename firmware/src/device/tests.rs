//! What each build answers to the suites it lacks. Everything else about a device is tested against the station, in the package
//! `tests`.

use keyferry_protocol::identity::{Challenge, DeviceId, Fingerprint};
use keyferry_protocol::link::frame::{Deframed, Deframer, Sink};
use keyferry_protocol::order::{self, Body, Enroll, Freshness, Header, Kind};
use keyferry_protocol::receipt::SourceClass;
use keyferry_protocol::suite::UnwrapAlgorithm;

use super::*;
use crate::platform::{Description, SourceFailed};
use crate::store::nor_fake::NorFake;

/// A board that is sound and bare, but for a strap, an LED and a watchdog.
struct Bare {
    flash: Option<NorFake<4, 4096>>,
    strap: bool,
    lit: Option<bool>,
    fed: u32,
    early: Option<UnwrapAlgorithm>,
}

impl Bare {
    fn new() -> Self {
        Self {
            flash: Some(NorFake::new(32)),
            strap: true,
            lit: None,
            fed: 0,
            early: None,
        }
    }
}

/// Milliseconds that the watchdog of [`Bare`] waits.
const WATCHDOG: Millis = 700;

impl Platform for Bare {
    type Flash = NorFake<4, 4096>;

    fn take_flash(&mut self) -> Self::Flash {
        self.flash.take().expect("called once")
    }

    fn device_id(&self) -> DeviceId {
        DeviceId([1; 16])
    }

    fn root_key(&mut self, key: &mut RootKey) -> Result<(), SourceFailed> {
        key.expose_mut().fill(7);
        Ok(())
    }

    fn entropy(&mut self, out: &mut [u8]) -> Result<(), SourceFailed> {
        out.fill(3);
        Ok(())
    }

    fn description(&self) -> Description {
        Description {
            board: "bare",
            firmware: "0",
            development: true,
            rng: SourceClass::Test,
            root_key: SourceClass::Test,
        }
    }

    fn provisioning_strap(&mut self) -> bool {
        self.strap
    }

    fn feed_watchdog(&mut self) -> Option<Millis> {
        self.fed += 1;
        Some(WATCHDOG)
    }

    fn has_led(&self) -> bool {
        true
    }

    fn light(&mut self, lit: bool) {
        assert_ne!(self.lit, Some(lit), "it is switched when it changes");
        self.lit = Some(lit);
    }

    fn early_unwrap_key(&self) -> Option<UnwrapAlgorithm> {
        self.early
    }
}

/// A new device on such a board.
fn blank(early: Option<UnwrapAlgorithm>) -> Device<Bare> {
    Device::new(Bare {
        early,
        ..Bare::new()
    })
}

/// A blank device's answer to an authentic `Enroll` that asks for this unwrap key: how it was refused, if it was.
fn enrolled(unwrap: UnwrapAlgorithm) -> Option<Refusal> {
    let mut device = blank(None);
    let answer = enroll(&mut device, 1, unwrap);
    assert_eq!(device.is_busy(), matches!(device.job, Job::Enroll(_)));
    assert_eq!(device.is_busy(), answer.is_none());
    answer
}

/// Opens a session with this nonce and sends an authentic `Enroll`: how it was refused, if it was.
fn enroll(device: &mut Device<Bare>, nonce: u32, unwrap: UnwrapAlgorithm) -> Option<Refusal> {
    let authority = [9; 32];
    let key = keys::p256::public_spki(&authority).unwrap();
    let enroll = Enroll {
        nonce: Challenge([5; 32]),
        unwrap,
        authority: &key,
    };
    let address = order::Address {
        device: DeviceId([1; 16]),
        identity: Fingerprint::ZERO,
        unwrap: Fingerprint::ZERO,
    };
    let fresh = Freshness::Challenge(device.challenge);
    let header = Header::new(Kind::Enroll, address, fresh, 1);
    let mut bytes = [0; MAX_MESSAGE];
    let bytes = order::encode(header, &Body::Enroll(enroll), &mut bytes).unwrap();
    let random = &mut Drbg::new(&Secret::zeroed(), 1, &[0; 32]);
    let signature = keys::p256::sign(&authority, bytes, random).unwrap();
    let hello = Request::Hello {
        min: VERSION_MIN,
        max: VERSION,
    };
    let mut station = Station::new();
    station.open(nonce, 0);
    assert!(matches!(
        asked(&mut station, device, &hello).unwrap(),
        Reply::Hello(_)
    ));
    let order = Request::Order {
        signature,
        second: None,
        order: bytes,
    };
    let answer = asked(&mut station, device, &order);
    answer.map(|answer| match answer {
        Reply::Refused(refusal) => refusal,
        _ => panic!("neither under way nor refused"),
    })
}

type Station = Link<4096, 4096, 1024>;

/// The device's answer to a request, if it has one before it begins to work.
fn asked<'a>(
    station: &'a mut Station,
    device: &mut Device<Bare>,
    request: &Request<'_>,
) -> Option<Reply<'a>> {
    if let Some(before) = station.front() {
        let length = before.length;
        station.consume(length);
    }
    let mut message = [0; MAX_MESSAGE];
    station.send(request.encode(&mut message).unwrap()).unwrap();
    for now in 0..1_000 {
        let bytes = station.transmit(now).to_vec();
        station.transmitted(bytes.len(), now);
        device.receive(&bytes, now);
        let bytes = device.transmit(now).to_vec();
        device.transmitted(bytes.len(), now);
        station.receive(&bytes, now);
    }
    let front = station.front()?;
    Some(Reply::decode(front.bytes).unwrap())
}

#[test]
fn an_unwrap_key_that_this_build_does_not_make_is_unsupported() {
    for algorithm in UnwrapAlgorithm::ALL {
        let made = match algorithm {
            UnwrapAlgorithm::P256 => true,
            UnwrapAlgorithm::Rsa2048 | UnwrapAlgorithm::Rsa3072 | UnwrapAlgorithm::Rsa4096 => {
                cfg!(feature = "rsa-generation")
            }
        };
        let expected = (!made).then_some(Refusal::Unsupported);
        assert_eq!(enrolled(algorithm), expected, "{algorithm}");
    }
}

/// The number that a device gives to its first session.
fn number(device: &mut Device<Bare>) -> u16 {
    struct Nowhere;
    impl Sink for Nowhere {
        fn put(&mut self, _: u16, _: u8) {}
    }
    let mut station = Station::new();
    station.open(1, 0);
    station.send(b"?").unwrap();
    let opening = station.transmit(0).to_vec();
    device.receive(&opening, 0);
    let mut deframer = Deframer::new();
    let mut heard = device.transmit(0).iter();
    heard
        .find_map(|byte| match deframer.feed(*byte, &mut Nowhere) {
            Deframed::Frame(fields, _) => Some(fields.session),
            Deframed::Nothing | Deframed::Damaged => None,
        })
        .unwrap()
}

/// A session is never taken for one of the device before it was restarted, even if its source of entropy is stuck.
///
/// SPEC: M-54
#[test]
fn each_start_numbers_its_sessions_from_another_number_on() {
    let mut flash = NorFake::new(32);
    let mut numbers = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let mut device = Device::new(Bare {
            flash: Some(flash),
            ..Bare::new()
        });
        assert!(numbers.insert(number(&mut device)), "{numbers:?}");
        flash = device.into_flash();
    }
    // They do not lie side by side either, or the second session of one would have the number of the first of the next.
    let near = numbers.iter().zip(numbers.iter().skip(1));
    assert!(
        near.clone().all(|(one, next)| next - one > 8),
        "{numbers:?}"
    );
}

/// What a device says to a station that opens a session.
fn answer(device: &mut Device<Bare>) -> usize {
    let mut station = Link::<MAX_BLOB, TRANSMIT, 1_024>::new();
    station.open(1, 0);
    let mut hello = [0; 30];
    let hello = Request::Hello {
        min: VERSION_MIN,
        max: VERSION,
    }
    .encode(&mut hello)
    .unwrap();
    station.send(hello).unwrap();
    let bytes = station.transmit(0);
    assert!(!bytes.is_empty());
    device.receive(bytes, 0);
    device.work(0);
    device.transmit(0).len()
}

#[test]
fn without_its_strap_a_device_is_silent_and_dark() {
    let mut device = Device::new(Bare::new());
    assert_ne!(answer(&mut device), 0);
    let mut device = Device::new(Bare {
        strap: false,
        ..Bare::new()
    });
    assert_eq!(answer(&mut device), 0);
    assert_eq!(device.platform.lit, Some(false));
    assert_eq!(device.work(5), Work::Idle(Some(5 + WATCHDOG)));
}

#[test]
fn each_piece_of_work_feeds_the_watchdog_and_sleep_ends_before_it_is_hungry() {
    let mut device: Device<Bare> = Device::new(Bare::new());
    let fed = device.platform.fed;
    assert_eq!(fed, 1, "the start is work, too");
    // The LED's next change comes first: see the pattern of an idle device.
    assert_eq!(device.work(1_000), Work::Idle(Some(1_100)));
    assert_eq!(device.platform.lit, Some(true));
    assert_eq!(device.work(1_100), Work::Idle(Some(1_100 + WATCHDOG)));
    assert_eq!(device.platform.lit, Some(false));
    device.receive(&[0], 1_110);
    assert_eq!(device.platform.fed, fed + 3);
}

#[test]
fn a_refusal_shows() {
    let mut device: Device<Bare> = Device::new(Bare::new());
    device.work(0);
    device.refuse(Refusal::Malformed);
    // Half a second of light.
    assert_eq!(device.work(100), Work::Idle(Some(600)));
}

/// Works until there is nothing to do, and gives the number of steps.
#[cfg(feature = "rsa-generation")]
fn rest(device: &mut Device<Bare>) -> usize {
    // The clock stands: nothing that the device sends is late.
    (0..).find(|_| device.work(0) != Work::More).unwrap()
}

#[cfg(feature = "rsa-generation")]
#[test]
fn a_key_that_was_made_before_the_enroll_is_not_made_again() {
    let rsa = UnwrapAlgorithm::Rsa2048;
    let mut device = blank(Some(rsa));
    assert!(rest(&mut device) > 2 * 6, "two primes take six rounds each");
    assert!(!device.is_busy());
    assert_eq!(enroll(&mut device, 1, rsa), None);
    device.work(0);
    assert_eq!(device.memory.state, State::Enrolled);
    assert_eq!(device.unwrap_algorithm(), Ok(rsa));
    assert!(device.early.is_none());
}

#[cfg(feature = "rsa-generation")]
#[test]
fn an_early_key_of_another_kind_is_dropped() {
    let mut device = blank(Some(UnwrapAlgorithm::Rsa2048));
    device.work(0);
    assert_eq!(enroll(&mut device, 1, UnwrapAlgorithm::P256), None);
    device.work(0);
    assert_eq!(device.unwrap_algorithm(), Ok(UnwrapAlgorithm::P256));
    assert!(device.early.is_none());
}

#[cfg(feature = "rsa-generation")]
#[test]
fn an_enroll_that_is_broken_off_leaves_its_key_to_the_next() {
    let rsa = UnwrapAlgorithm::Rsa2048;
    let mut device = blank(None);
    assert_eq!(enroll(&mut device, 1, rsa), None);
    for _ in 0..3 {
        device.work(0);
    }
    assert!(device.early.is_none());
    device.abandon();
    assert!(!device.is_busy());
    rest(&mut device);
    assert_eq!(enroll(&mut device, 2, rsa), None);
    device.work(0);
    assert_eq!(device.unwrap_algorithm(), Ok(rsa));
}
