//! What each build answers to the suites it lacks. Everything else about a device is tested against the station, in the package
//! `tests`.

use keyferry_protocol::identity::{Challenge, DeviceId, Fingerprint};
use keyferry_protocol::order::{self, Body, Enroll, Freshness, Header, Kind};
use keyferry_protocol::receipt::SourceClass;
use keyferry_protocol::suite::UnwrapAlgorithm;

use super::*;
use crate::platform::{Description, SourceFailed};
use crate::store::nor_fake::NorFake;

/// A board that is sound and bare.
struct Bare(Option<NorFake<4, 4096>>);

impl Platform for Bare {
    type Flash = NorFake<4, 4096>;

    fn take_flash(&mut self) -> Self::Flash {
        self.0.take().expect("called once")
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
}

/// A blank device's answer to an authentic `Enroll` that asks for this unwrap key: how it was refused, if it was.
fn enrolled(unwrap: UnwrapAlgorithm) -> Option<Refusal> {
    let mut device: Device<Bare> = Device::new(Bare(Some(NorFake::new(32))));
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
    station.open(1, 1, 0);
    assert!(matches!(
        asked(&mut station, &mut device, &hello).unwrap(),
        Reply::Hello(_)
    ));
    let order = Request::Order {
        signature,
        second: None,
        order: bytes,
    };
    let answer = asked(&mut station, &mut device, &order);
    assert_eq!(device.is_busy(), matches!(device.job, Job::Enroll(_)));
    assert_eq!(device.is_busy(), answer.is_none());
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
