//! Blobs follow their order as one stream, cut anywhere, and nobody waits for an answer in between.

use keyferry::device::flow::{self, Shipment};
use keyferry::device::session::Session;
use keyferry::device::verify::Statement;
use keyferry_protocol::identity::Challenge;
use keyferry_protocol::message::{Progress, Reply, Request, Task};
use keyferry_protocol::order::Kind;
use keyferry_protocol::receipt::{Refusal, State};
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::desk::{Desk, OnDesk};
use keyferry_tests::orders::{Answer, Order, fresh, open};
use keyferry_tests::software::{SoftAuthority, aes_key, hmac_key, p256_key, wrap};

fn quiet(_: Progress) {}

fn enrolled() -> (OnDesk, SoftAuthority, Statement, Shipment) {
    let device = OnDesk::start(Desk::new(1, 32));
    let authority = SoftAuthority::new(0);
    let (nonce, kind) = (Challenge([9; 32]), UnwrapAlgorithm::P256);
    let statement = flow::enroll(&mut open(&device), &authority, kind, nonce, &mut quiet).unwrap();
    let keys = [aes_key(16, 1), hmac_key(2), p256_key(3)];
    let shipment = wrap(&statement, &keys, 1);
    (device, authority, statement, shipment)
}

/// Sends the order and then these pieces, without a look at what comes back; gives the answer if it was there by then.
fn push(
    session: &mut Session,
    order: &Order,
    pieces: &[&[u8]],
    on_progress: &mut dyn FnMut(Progress),
) -> Option<Vec<u8>> {
    let request = Request::Order {
        signature: order.signature,
        second: None,
        order: &order.bytes,
    };
    let mut answers = Vec::new();
    answers.extend(session.send(&request, on_progress).unwrap());
    for bytes in pieces {
        let blob = Request::Blob { bytes };
        answers.extend(session.send(&blob, on_progress).unwrap());
    }
    assert!(answers.len() <= 1, "one answer an order");
    answers.pop()
}

/// As [`push`], and waits for the answer; gives the progress before it, too.
fn send(session: &mut Session, order: &Order, pieces: &[&[u8]]) -> (Vec<u8>, Vec<Progress>) {
    let mut progress = Vec::new();
    let mut on_progress = |step| progress.push(step);
    let answer = push(session, order, pieces, &mut on_progress)
        .unwrap_or_else(|| session.answer(&mut on_progress).unwrap());
    (answer, progress)
}

/// The next answer is the one to this question.
fn answers_next(session: &mut Session) {
    let bytes = b"and now?";
    let message = session
        .exchange(&Request::Echo { bytes }, &mut quiet)
        .unwrap();
    assert_eq!(Reply::decode(&message), Ok(Reply::Echo { bytes }));
}

fn refusal(message: &[u8]) -> Option<(Refusal, bool)> {
    match Reply::decode(message).unwrap() {
        Reply::Refused(refusal) => Some((refusal, false)),
        Reply::Receipt { signature, receipt } => Answer::Receipt(keyferry_tests::orders::Receipt {
            bytes: receipt.to_vec(),
            signature,
        })
        .refusal(),
        other => panic!("{other:?}"),
    }
}

/// SPEC: M-20
#[test]
fn the_stream_may_be_cut_anywhere() {
    for size in [1, 7, 65, 100, 512] {
        let (device, authority, _, shipment) = enrolled();
        let mut session = open(&device);
        let order = Order::inject(
            &authority,
            fresh(&device, &session, Kind::Inject),
            &shipment,
        );
        let stream = order.blobs.concat();
        let pieces: Vec<_> = stream.chunks(size).collect();
        let (message, progress) = send(&mut session, &order, &pieces);
        assert_eq!(refusal(&message), None, "in pieces of {size}");
        let passed = Progress {
            task: Task::Unwrap,
            done: 0,
            total: 4,
        };
        assert_eq!(progress.first(), Some(&passed));
        assert_eq!(flow::list(&mut session).unwrap().len(), 3);
    }
}

/// SPEC: M-20
#[test]
fn bytes_beyond_the_last_blob_spoil_the_order() {
    let (device, authority, statement, shipment) = enrolled();
    let mut session = open(&device);
    let order = Order::inject(
        &authority,
        fresh(&device, &session, Kind::Inject),
        &shipment,
    );
    let mut stream = order.blobs.concat();
    stream.push(0);
    let (message, _) = send(&mut session, &order, &[&stream]);
    assert_eq!(refusal(&message), Some((Refusal::Sequence, true)));
    assert!(flow::list(&mut session).unwrap().is_empty());
    session.greet_again().unwrap();
    assert_eq!(session.greeting().state, State::Enrolled);
    assert_eq!(session.greeting().counter, statement.standing.counter);
}

/// Unsigned or signed: one answer, and what is still on its way gets none.
///
/// SPEC: M-20
#[test]
fn blobs_behind_a_refused_order_are_dropped() {
    let (device, authority, _, shipment) = enrolled();
    let mut session = open(&device);
    let header = fresh(&device, &session, Kind::Inject);
    let mut unsigned = Order::inject(&authority, header, &shipment);
    unsigned.bytes[40] ^= 1;
    let mut stale = header;
    stale.counter += 1;
    let stale = Order::inject(&authority, stale, &shipment);
    for (order, expected) in [
        (&unsigned, (Refusal::BadSignature, false)),
        (&stale, (Refusal::Counter, true)),
    ] {
        let blobs: Vec<_> = order.blobs.iter().map(Vec::as_slice).collect();
        let (answer, progress) = send(&mut session, order, &blobs);
        assert_eq!(refusal(&answer), Some(expected));
        assert!(progress.is_empty());
        answers_next(&mut session);
    }
    assert_eq!(device.unwrap_operations(), 0);
}

/// The station does not know that the order was done when it sends it again, blobs and all.
///
/// SPEC: M-15, M-20
#[test]
fn blobs_behind_an_order_that_was_done_are_dropped() {
    let (device, authority, _, shipment) = enrolled();
    let mut session = open(&device);
    let order = Order::inject(
        &authority,
        fresh(&device, &session, Kind::Inject),
        &shipment,
    );
    let first = order.send(&mut session);
    assert_eq!(first.refusal(), None);
    let blobs: Vec<_> = order.blobs.iter().map(Vec::as_slice).collect();
    let (message, _) = send(&mut session, &order, &blobs);
    let Answer::Receipt(first) = first else {
        panic!("no receipt");
    };
    let Ok(Reply::Receipt { receipt, .. }) = Reply::decode(&message) else {
        panic!("no receipt");
    };
    assert_eq!(receipt, first.bytes);
    answers_next(&mut session);
    assert_eq!(device.unwrap_operations(), 1);
}

/// An order that is not even authentic leaves the one under way as it is.
///
/// SPEC: M-11, M-20
#[test]
fn a_forged_order_amid_the_stream_changes_nothing() {
    let (device, authority, _, shipment) = enrolled();
    let mut session = open(&device);
    let order = Order::inject(
        &authority,
        fresh(&device, &session, Kind::Inject),
        &shipment,
    );
    let stream = order.blobs.concat();
    let (front, back) = stream.split_at(stream.len() / 2);
    let early = push(&mut session, &order, &[front], &mut quiet);
    assert_eq!(early, None);
    let mut forged = order.clone();
    forged.bytes[40] ^= 1;
    let (message, _) = send(&mut session, &forged, &[]);
    assert_eq!(refusal(&message), Some((Refusal::BadSignature, false)));
    let early = session.send(&Request::Blob { bytes: back }, &mut quiet);
    let message = early
        .unwrap()
        .unwrap_or_else(|| session.answer(&mut quiet).unwrap());
    assert_eq!(refusal(&message), None);
}
