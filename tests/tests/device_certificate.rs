//! The certificate that an `Inject` brings: kept, given out, replaced, and never another device's.

use keyferry::device::flow::{self, Shipment};
use keyferry::device::verify::Statement;
use keyferry_protocol::MAX_CERTIFICATE;
use keyferry_protocol::identity::Challenge;
use keyferry_protocol::message::{Reply, Request};
use keyferry_protocol::order::{Body, Kind};
use keyferry_protocol::receipt::{Refusal, State};
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::desk::{Desk, OnDesk};
use keyferry_tests::orders::{Answer, Order, fresh, open};
use keyferry_tests::software::{SoftAuthority, aes_key, wrap};

const PAGES: usize = 32;

fn enrolled(number: u8) -> (OnDesk, SoftAuthority, Statement) {
    let device = OnDesk::start(Desk::new(number, PAGES));
    let authority = SoftAuthority::new(0);
    let nonce = Challenge([9; 32]);
    let kind = UnwrapAlgorithm::P256;
    let statement = flow::enroll(&mut open(&device), &authority, kind, nonce, &mut |_| {});
    (device, authority, statement.unwrap())
}

/// `length` bytes around this key, as a certificate has its key in its midst.
fn certificate(key: &[u8], length: usize) -> Vec<u8> {
    let mut bytes = vec![0x30; length];
    let at = (length - key.len()) / 2;
    bytes[at..at + key.len()].copy_from_slice(key);
    bytes
}

/// The shipment with this certificate.
fn with(shipment: &Shipment, certificate: &[u8]) -> Shipment {
    Shipment {
        certificate: Some(certificate.to_vec()),
        ..shipment.clone()
    }
}

fn inject(
    device: &OnDesk,
    authority: &SoftAuthority,
    shipment: &Shipment,
    certificate: &[u8],
) -> Answer {
    let mut session = open(device);
    let header = fresh(device, &session, Kind::Inject);
    Order::inject(authority, header, &with(shipment, certificate)).send(&mut session)
}

/// What the device gives out.
fn given(device: &OnDesk) -> Result<Vec<u8>, Refusal> {
    let message = open(device)
        .exchange(&Request::Certificate, &mut |_| {})
        .unwrap();
    match Reply::decode(&message).unwrap() {
        Reply::Certificate { bytes } => Ok(bytes.to_vec()),
        Reply::Refused(refusal) => Err(refusal),
        other => panic!("{other:?}"),
    }
}

/// SPEC: M-20, M-28, M-31
#[test]
fn a_certificate_is_kept_given_out_replaced_and_wiped() {
    let (device, authority, statement) = enrolled(1);
    assert_eq!(given(&device), Err(Refusal::SlotEmpty));
    let none = wrap(&statement, &[], 1);
    let longest = certificate(&statement.identity_key, MAX_CERTIFICATE);
    assert_eq!(inject(&device, &authority, &none, &longest).refusal(), None);
    // A certificate alone makes no device provisioned, and costs no private-key operation.
    assert_eq!(open(&device).greeting().state, State::Enrolled);
    assert_eq!(device.unwrap_operations(), 0);
    let device = OnDesk::start(Desk::with_flash(1, device.stop()));
    assert_eq!(given(&device), Ok(longest));

    // With keys, and shorter than the one before.
    let short = certificate(&statement.identity_key, 300);
    let keys = wrap(&statement, &[aes_key(16, 1)], 1);
    assert_eq!(inject(&device, &authority, &keys, &short).refusal(), None);
    assert_eq!(open(&device).greeting().state, State::Provisioned);
    assert_eq!(given(&device).as_ref(), Ok(&short));
    // An order without one leaves it.
    let mut session = open(&device);
    let header = fresh(&device, &session, Kind::Inject);
    let keys = wrap(&statement, &[aes_key(16, 1)], 2);
    let order = Order::inject(&authority, header, &keys);
    assert_eq!(order.send(&mut session).refusal(), None);
    assert_eq!(given(&device), Ok(short));

    let mut session = open(&device);
    let wipe = Order::new(
        &authority,
        fresh(&device, &session, Kind::Wipe),
        &Body::Wipe,
    );
    assert_eq!(wipe.send(&mut session).refusal(), None);
    assert_eq!(given(&device), Err(Refusal::SlotEmpty));
}

/// SPEC: M-21, M-31
#[test]
fn a_certificate_that_is_not_this_devices_or_was_altered_is_refused() {
    let (device, authority, statement) = enrolled(1);
    let (_, _, stranger) = enrolled(2);
    let keys = wrap(&statement, &[aes_key(16, 1)], 1);
    let before = device.flash();
    let mine = certificate(&statement.identity_key, 400);
    let mut bent = mine.clone();
    let at = bent.iter().rposition(|byte| *byte != 0x30).unwrap();
    bent[at] ^= 1;
    for wrong in [
        certificate(&stranger.identity_key, 400),
        bent,
        vec![0x30; 90],
    ] {
        let answer = inject(&device, &authority, &keys, &wrong);
        assert_eq!(answer.refusal(), Some((Refusal::Attributes, true)));
        assert_eq!(device.unwrap_operations(), 0);
        assert_eq!(device.flash(), before);
    }
    // Altered on the way: the order states another digest.
    let mut session = open(&device);
    let header = fresh(&device, &session, Kind::Inject);
    let mut order = Order::inject(&authority, header, &with(&keys, &mine));
    order.blobs[0][7] ^= 1;
    let refused = order.send(&mut session).refusal();
    assert_eq!(refused, Some((Refusal::Unwrap, true)));
    assert_eq!(device.flash(), before);
    assert_eq!(given(&device), Err(Refusal::SlotEmpty));

    // Too long, or empty, is no order at all.
    for length in [0, MAX_CERTIFICATE + 1] {
        let answer = inject(&device, &authority, &keys, &vec![0x30; length]);
        assert_eq!(answer.refusal(), Some((Refusal::Malformed, false)));
    }
    assert_eq!(inject(&device, &authority, &keys, &mine).refusal(), None);
    assert_eq!(given(&device), Ok(mine));
}
