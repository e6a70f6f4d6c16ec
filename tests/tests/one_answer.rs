//! Whatever is wrong with a blob, the device answers with the same words. What its work gives away,
//! `cargo xtask bench leakage` measures.

use keyferry::device::flow::{self, Terms};
use keyferry::device::session::Session;
use keyferry::device::verify::{Statement, signature_is_valid};
use keyferry_protocol::identity::{Challenge, Digest};
use keyferry_protocol::message::{Progress, Reply};
use keyferry_protocol::receipt::{self, Body, Header, Outcome, Refusal};
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::desk::{Desk, Flash, OnDesk};
use keyferry_tests::software::SoftAuthority;
use keyferry_tests::spoiled::Fault;

/// What the device says, but for digest and signature.
type Words = (Vec<Progress>, usize, Header);

/// Gives the order to a device that starts with this flash: always in the same state.
fn answer(flash: &Flash, authority: &SoftAuthority, statement: &Statement, fault: Fault) -> Words {
    let device = OnDesk::start(Desk::with_flash(1, flash.clone()));
    let mut session = Session::open(device.port()).unwrap();
    let mut statement = statement.clone();
    statement.standing.challenge = session.greeting().challenge;
    let shipment = fault.shipment(&statement, 1);
    let terms = Terms::now(flow::address(&statement), &statement.standing, Digest::ZERO).unwrap();
    let challenge = Challenge([3; 32]);
    let order = flow::inject_order(authority, terms, &shipment, challenge).unwrap();
    let blobs = [&shipment.kek, &shipment.parcels[0].blob].into_iter();
    let mut progress = Vec::new();
    let message = flow::deliver(&mut session, &order, blobs, &mut |step| progress.push(step));
    let message = message.unwrap();
    let Reply::Receipt { signature, receipt } = Reply::decode(&message).unwrap() else {
        panic!("{}: no receipt", fault.name());
    };
    assert!(signature_is_valid(
        &statement.identity_key,
        receipt,
        &signature
    ));
    let (header, body) = receipt::decode(receipt).unwrap();
    assert_eq!((header.order, body), (order.digest(), Body::Empty));
    assert_eq!(device.unwrap_operations(), 1);
    let order = Digest::ZERO;
    (progress, receipt.len(), Header { order, ..header })
}

/// Has a device with such an unwrap key answer every fault.
fn one_answer(algorithm: UnwrapAlgorithm) {
    let device = OnDesk::start(Desk::new(1, 32));
    let authority = SoftAuthority::new(0);
    let mut session = Session::open(device.port()).unwrap();
    let nonce = Challenge([9; 32]);
    let statement = flow::enroll(&mut session, &authority, algorithm, nonce, &mut |_| {}).unwrap();
    drop(session);
    let flash = device.stop();

    let faults = Fault::toward(algorithm);
    let words = answer(&flash, &authority, &statement, faults[0]);
    assert_eq!(words.2.outcome, Outcome::Refused(Refusal::Unwrap));
    for fault in &faults[1..] {
        let other = answer(&flash, &authority, &statement, *fault);
        assert_eq!(other, words, "{}", fault.name());
    }
}

/// SPEC: M-21
#[test]
fn every_blob_that_does_not_open_gets_the_same_answer_under_rsa() {
    one_answer(UnwrapAlgorithm::Rsa2048);
}

/// SPEC: M-21
#[test]
fn every_blob_that_does_not_open_gets_the_same_answer_under_p256() {
    one_answer(UnwrapAlgorithm::P256);
}
