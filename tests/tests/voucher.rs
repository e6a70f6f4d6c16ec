//! The vendor key's word in a statement, and that orders which are nobody's cost no private-key operation.

use keyferry::device::flow::{self, Authority as _};
use keyferry::device::verify;
use keyferry_firmware::device::Operations;
use keyferry_protocol::MAX_VENDOR_CERTIFICATE;
use keyferry_protocol::identity::{Challenge, DeviceId, Signature};
use keyferry_protocol::message::Request;
use keyferry_protocol::order::{Address, Body, Enroll, Kind};
use keyferry_protocol::receipt::{self, Refusal, State, voucher_input};
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::desk::{Desk, OnDesk};
use keyferry_tests::orders::{Answer, Order, enrolment, fresh, open};
use keyferry_tests::software::{SoftAuthority, aes_key, wrap};

const PAGES: usize = 32;
const VENDOR_KEY: [u8; 32] = [0x21; 32];

fn enroll(device: &OnDesk, unwrap: UnwrapAlgorithm, nonce: u8) -> Answer {
    let authority = SoftAuthority::new(0);
    let mut session = open(device);
    let body = Body::Enroll(Enroll {
        authority: authority.public_key(),
        nonce: Challenge([nonce; 32]),
        unwrap,
    });
    Order::new(&authority, enrolment(&session), &body).send(&mut session)
}

fn with_vendor(certificate: Vec<u8>) -> Desk {
    let mut desk = Desk::new(1, PAGES);
    desk.vendor = Some((VENDOR_KEY, certificate));
    desk
}

/// Checks the voucher in a statement; gives the certificate.
fn vouched(answer: Answer, nonce: u8) -> Vec<u8> {
    let receipt = answer.receipt();
    let receipt::Body::Statement(statement) = receipt::decode(&receipt.bytes).unwrap().1 else {
        panic!("no statement");
    };
    let header = receipt.verified(statement.identity_key);
    let voucher = statement.voucher.expect("a voucher");
    let message = voucher_input(
        &header.device,
        &Challenge([nonce; 32]),
        &verify::fingerprint(statement.identity_key),
        &verify::fingerprint(statement.unwrap_key),
    );
    let public = keyferry_firmware::keys::p256::public_spki(&VENDOR_KEY).unwrap();
    let valid = |message: &[u8]| verify::signature_is_valid(&public, message, &voucher.signature);
    assert!(valid(&message));
    assert!(!valid(&message[1..]));
    voucher.certificate.to_vec()
}

/// SPEC: M-34
#[test]
fn every_statement_carries_the_voucher() {
    let certificate = vec![0x30; MAX_VENDOR_CERTIFICATE];
    let device = OnDesk::start(with_vendor(certificate.clone()));
    // The longest statement there is: it fits.
    assert_eq!(
        vouched(enroll(&device, UnwrapAlgorithm::Rsa4096, 4), 4),
        certificate
    );
    assert_eq!(
        vouched(enroll(&device, UnwrapAlgorithm::Rsa4096, 5), 5),
        certificate
    );
    assert_eq!(device.operations().voucher, 2);

    let without = OnDesk::start(Desk::new(1, PAGES));
    let receipt = enroll(&without, UnwrapAlgorithm::P256, 6).receipt();
    let receipt::Body::Statement(statement) = receipt::decode(&receipt.bytes).unwrap().1 else {
        panic!("no statement");
    };
    assert_eq!(statement.voucher, None);
}

/// SPEC: M-34
#[test]
fn a_vendor_key_that_cannot_be_used_is_not_left_out() {
    let bad = [
        // A certificate that does not fit, and a key that is none.
        Some((VENDOR_KEY, vec![0x30; MAX_VENDOR_CERTIFICATE + 1])),
        Some(([0; 32], vec![0x30; 100])),
    ];
    for vendor in bad {
        let mut desk = Desk::new(1, PAGES);
        desk.vendor = vendor;
        let device = OnDesk::start(desk);
        let refused = enroll(&device, UnwrapAlgorithm::P256, 1).refusal();
        assert_eq!(refused, Some((Refusal::Storage, false)));
        assert_eq!(open(&device).greeting().state, State::Blank);
        // Enrolled in better times, it states nothing less later.
        let healthy = OnDesk::start(Desk::with_flash(1, device.stop()));
        assert_eq!(enroll(&healthy, UnwrapAlgorithm::P256, 2).refusal(), None);
        let mut desk = Desk::with_flash(1, healthy.stop());
        desk.vendor = Some(([0; 32], vec![0x30; 100]));
        let device = OnDesk::start(desk);
        let refused = enroll(&device, UnwrapAlgorithm::P256, 3).refusal();
        assert_eq!(refused, Some((Refusal::Storage, true)));
    }
}

/// SPEC: M-13, M-14
#[test]
fn orders_that_are_nobodys_cost_no_private_key_operation() {
    let authority = SoftAuthority::new(0);
    let device = OnDesk::start(with_vendor(vec![0x30; 100]));
    // On a blank device, too.
    let mut session = open(&device);
    let header = enrolment(&session);
    let body = Body::Enroll(Enroll {
        authority: authority.public_key(),
        nonce: Challenge([1; 32]),
        unwrap: UnwrapAlgorithm::P256,
    });
    let mut forged = Order::new(&authority, header, &body);
    forged.signature.r[0] ^= 1;
    let refused = Some((Refusal::BadSignature, false));
    assert_eq!(forged.send(&mut session).refusal(), refused);
    let mut elsewhere = header;
    elsewhere.device = DeviceId([2; 16]);
    let elsewhere = Order::new(&authority, elsewhere, &body);
    let misled = Some((Refusal::WrongAddress, false));
    assert_eq!(elsewhere.send(&mut session).refusal(), misled);
    assert_eq!(device.operations(), Operations::default());

    let (nonce, kind) = (Challenge([1; 32]), UnwrapAlgorithm::P256);
    let statement = flow::enroll(&mut open(&device), &authority, kind, nonce, &mut |_| {});
    let after = device.operations();
    assert_eq!((after.receipt, after.voucher, after.unwrap), (1, 1, 0));
    let shipment = wrap(&statement.unwrap(), &[aes_key(16, 1)], 1);
    let mut session = open(&device);
    let good = fresh(&device, &session, Kind::Inject);
    let address = good.address();
    let misaddressed = [
        Address {
            device: DeviceId([9; 16]),
            ..address
        },
        Address {
            identity: address.unwrap,
            ..address
        },
        Address {
            unwrap: address.identity,
            ..address
        },
    ];
    for address in misaddressed {
        let header = keyferry_protocol::order::Header {
            device: address.device,
            identity: address.identity,
            unwrap: address.unwrap,
            ..good
        };
        let order = Order::inject(&authority, header, &shipment);
        assert_eq!(order.send(&mut session).refusal(), misled);
    }
    let order = Order::inject(&SoftAuthority::new(7), good, &shipment);
    assert_eq!(order.send(&mut session).refusal(), refused);
    let order = Order::inject(&authority, good, &shipment);
    for bit in (0..order.bytes.len() * 8).step_by(97) {
        let mut altered = order.clone();
        altered.bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(altered.send(&mut session).refusal(), refused, "bit {bit}");
    }
    let empty = Order {
        bytes: Vec::new(),
        signature: Signature::from_bytes(&[0; 64]),
        ..order.clone()
    };
    assert_eq!(empty.send(&mut session).refusal(), refused);
    assert_eq!(device.operations(), after);
    // What anybody may ask for is counted apart.
    let status = Request::Status {
        order: order.digest(),
        nonce: Challenge([4; 32]),
    };
    session.exchange(&status, &mut |_| {}).unwrap();
    let asked = device.operations();
    assert_eq!((asked.for_orders(), asked.status), (after.for_orders(), 1));
    // The untouched order works, so it was not something else that kept the others from it.
    assert_eq!(order.send(&mut session).refusal(), None);
    let done = device.operations();
    assert_eq!((done.unwrap, done.receipt, done.proof), (1, 2, 1));
}
