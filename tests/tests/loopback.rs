//! Station library against firmware library, in one process and in virtual time: what passes, and every bad input.

use keyferry::device::DeviceError;
use keyferry::device::flow::{self, Authority, Demand, Proofs, Shipment, SignedOrder};
use keyferry::device::session::Session;
use keyferry::device::verify::{self, SignedReceipt, Statement};
use keyferry_protocol::identity::{Challenge, Digest, Fingerprint, Signature};
use keyferry_protocol::message::{Reply, Request};
use keyferry_protocol::order::{Body, Freshness, Header, Kind, Remove};
use keyferry_protocol::proof::Proof;
use keyferry_protocol::receipt::{Refusal, State};
use keyferry_protocol::suite::{Suite, UnwrapAlgorithm};
use keyferry_tests::desk::{Desk, Direction, Entropy, OnDesk};
use keyferry_tests::software::{SoftAuthority, SoftKey, aes_key, hmac_key, proof_is_right, wrap};

const PAGES: usize = 32;

fn quiet(_: keyferry_protocol::message::Progress) {}

fn enroll(device: &OnDesk, authority: &SoftAuthority) -> Result<(Session, Statement), DeviceError> {
    let mut session = Session::open(device.port())?;
    let nonce = Challenge([9; 32]);
    let unwrap = UnwrapAlgorithm::P256;
    let statement = flow::enroll(&mut session, authority, unwrap, nonce, &mut quiet)?;
    Ok((session, statement))
}

fn inject(
    session: &mut Session,
    authority: &SoftAuthority,
    device: &Statement,
    shipment: &Shipment,
) -> Result<Proofs, DeviceError> {
    let challenge = Challenge([3; 32]);
    flow::inject(session, authority, device, shipment, challenge, &mut quiet)
}

fn two_keys() -> Vec<SoftKey> {
    vec![aes_key(16, 1), hmac_key(2)]
}

fn all_right(keys: &[SoftKey], proofs: &Proofs) -> bool {
    keys.len() == proofs.reports.len()
        && keys
            .iter()
            .zip(&proofs.reports)
            .all(|(key, report)| proof_is_right(key, report, &proofs.order, &proofs.challenge))
}

fn refusal<T>(result: Result<T, DeviceError>) -> (Refusal, bool) {
    match result {
        Err(DeviceError::Refused { refusal, signed }) => (refusal, signed),
        Err(error) => panic!("not a refusal: {error}"),
        Ok(_) => panic!("it was not refused"),
    }
}

/// Device, its authority, an open session, its statement.
fn enrolled() -> (OnDesk, SoftAuthority, Session, Statement) {
    let device = OnDesk::start(Desk::new(1, PAGES));
    let authority = SoftAuthority::new(0);
    let (session, statement) = enroll(&device, &authority).unwrap();
    (device, authority, session, statement)
}

fn exchange_order(session: &mut Session, order: &SignedOrder) -> Result<Vec<u8>, DeviceError> {
    session.exchange(&order.request(), &mut quiet)
}

/// Sends a signed order and tells how it was refused: unsigned, or in a receipt that verifies.
fn sent(session: &mut Session, device: &Statement, order: &SignedOrder) -> Result<(), DeviceError> {
    let message = exchange_order(session, order)?;
    match Reply::decode(&message).unwrap() {
        Reply::Refused(refusal) => Err(DeviceError::Refused {
            refusal,
            signed: false,
        }),
        Reply::Receipt { signature, receipt } => {
            let kind = keyferry_protocol::order::decode(&order.bytes)
                .unwrap()
                .0
                .kind;
            verify::slots(
                &SignedReceipt {
                    bytes: receipt.to_vec(),
                    signature,
                },
                device,
                &order.digest(),
                kind,
            )
            .map(|_| ())
        }
        other => panic!("{other:?}"),
    }
}

/// SPEC: M-10, M-11, M-12, M-17, M-20, M-24, M-25, M-26
#[test]
fn keys_are_injected_proved_and_survive_a_restart() {
    let (device, authority, mut session, statement) = enrolled();
    assert_eq!(session.greeting().state, State::Blank);
    assert_eq!(statement.standing.state, State::Enrolled);
    assert_eq!(
        statement.suites,
        [Suite::EcdhP256X963Sha256, Suite::EcdhP256Null]
    );
    let keys = two_keys();
    let shipment = wrap(&statement, &keys, 1);
    let proofs = inject(&mut session, &authority, &statement, &shipment).unwrap();
    assert!(all_right(&keys, &proofs));
    assert_eq!(proofs.standing.state, State::Provisioned);
    assert_eq!(
        device.unwrap_operations(),
        1,
        "one private-key operation an order"
    );

    let again = OnDesk::start(Desk::with_flash(1, device.stop()));
    let (mut session, restated) = enroll(&again, &authority).unwrap();
    assert_eq!(restated.identity_key, statement.identity_key);
    assert_eq!(restated.unwrap_key, statement.unwrap_key);
    let slots = flow::list(&mut session).unwrap();
    let labels: Vec<_> = slots.iter().map(|slot| slot.label.as_str()).collect();
    assert_eq!(labels, ["key 0", "key 1"]);
    let wanted = [(0, Proof::Cmac), (1, Proof::HmacSha256)].map(Demand::from);
    let challenge = Challenge([4; 32]);
    let proofs = flow::prove(
        &mut session,
        &authority,
        &restated,
        &wanted,
        challenge,
        &mut quiet,
    )
    .unwrap();
    assert!(all_right(&keys, &proofs));
    assert!(!proof_is_right(
        &keys[1],
        &proofs.reports[0],
        &proofs.order,
        &challenge
    ));
}

/// SPEC: M-12, M-14
#[test]
fn an_order_altered_in_any_byte_changes_nothing() {
    let (device, authority, mut session, statement) = enrolled();
    let shipment = wrap(&statement, &two_keys(), 1);
    let challenge = Challenge([3; 32]);
    let order = flow::inject_order(
        &authority,
        flow::terms(&statement, Digest::ZERO).unwrap(),
        &shipment,
        challenge,
    )
    .unwrap();
    let before = device.flash();
    for position in 0..order.bytes.len() + Signature::LENGTH {
        let mut altered = order.clone();
        if position < order.bytes.len() {
            altered.bytes[position] ^= 1 << (position % 8);
        } else {
            let mut signature = order.signature.to_bytes();
            signature[position - order.bytes.len()] ^= 1 << (position % 8);
            altered.signature = Signature::from_bytes(&signature);
        }
        let message = exchange_order(&mut session, &altered).unwrap();
        assert_eq!(
            Reply::decode(&message).unwrap(),
            Reply::Refused(Refusal::BadSignature),
            "byte {position}"
        );
    }
    assert_eq!(device.flash(), before);
    assert_eq!(device.unwrap_operations(), 0);
    // The untouched order is still good: a forgery uses up no challenge.
    let proofs = inject(&mut session, &authority, &statement, &shipment).unwrap();
    assert!(all_right(&two_keys(), &proofs));
}

/// SPEC: M-12
#[test]
fn another_authority_is_refused() {
    let (device, _, mut session, statement) = enrolled();
    let before = device.flash();
    let stranger = SoftAuthority::new(7);
    let shipment = wrap(&statement, &two_keys(), 1);
    let refused = refusal(inject(&mut session, &stranger, &statement, &shipment));
    assert_eq!(refused, (Refusal::BadSignature, false));
    let refused = refusal(enroll(&device, &stranger));
    assert_eq!(refused, (Refusal::BadSignature, false));
    assert_eq!(device.flash(), before);
    assert_eq!(device.unwrap_operations(), 0);
}

/// SPEC: M-12
#[test]
fn a_production_image_obeys_the_authority_it_was_built_for() {
    let right = SoftAuthority::new(0);
    let mut desk = Desk::new(1, PAGES);
    desk.pinned = Some(verify::fingerprint(right.public_key()));
    let device = OnDesk::start(desk);
    let refused = refusal(enroll(&device, &SoftAuthority::new(7)));
    assert_eq!(refused, (Refusal::BadSignature, false));
    enroll(&device, &right).unwrap();
}

/// SPEC: M-13, M-14
#[test]
fn an_order_for_another_device_or_other_keys_is_refused() {
    let (device, authority, mut session, statement) = enrolled();
    let before = device.flash();
    let shipment = wrap(&statement, &two_keys(), 1);
    let other = OnDesk::start(Desk::new(2, PAGES));
    let (_, stranger) = enroll(&other, &authority).unwrap();
    let wrong = [
        Statement {
            device: stranger.device,
            ..statement.clone()
        },
        Statement {
            identity_key: stranger.identity_key.clone(),
            ..statement.clone()
        },
        Statement {
            unwrap_key: stranger.unwrap_key.clone(),
            ..statement.clone()
        },
    ];
    for wrong in wrong {
        let refused = refusal(inject(&mut session, &authority, &wrong, &shipment));
        assert_eq!(refused, (Refusal::WrongAddress, false));
    }
    assert_eq!(device.flash(), before);
    assert_eq!(device.unwrap_operations(), 0);
}

/// SPEC: M-15, M-16, M-27
#[test]
fn a_replayed_order_is_answered_but_not_done_again() {
    let (device, authority, mut session, statement) = enrolled();
    let keys = two_keys();
    let shipment = wrap(&statement, &keys, 1);
    let challenge = Challenge([3; 32]);
    let order = flow::inject_order(
        &authority,
        flow::terms(&statement, Digest::ZERO).unwrap(),
        &shipment,
        challenge,
    )
    .unwrap();
    let first = inject(&mut session, &authority, &statement, &shipment).unwrap();
    // ECDSA of RFC 6979 is deterministic, so this is the very order that was applied.
    assert_eq!(first.order, order.digest());
    let before = device.flash();
    let message = exchange_order(&mut session, &order).unwrap();
    let Ok(Reply::Receipt { signature, receipt }) = Reply::decode(&message) else {
        panic!("no receipt");
    };
    let digest = order.digest();
    let (_, reports) = verify::slots(
        &SignedReceipt {
            bytes: receipt.to_vec(),
            signature,
        },
        &statement,
        &digest,
        Kind::Inject,
    )
    .unwrap();
    assert_eq!(reports.len(), 2);
    assert_eq!(device.flash(), before);
    assert_eq!(device.unwrap_operations(), 1);

    let status = |session: &mut Session, order| {
        let nonce = Challenge([8; 32]);
        let message = session
            .exchange(&Request::Status { order, nonce }, &mut quiet)
            .unwrap();
        let Ok(Reply::Status { signature, status }) = Reply::decode(&message) else {
            panic!("no status");
        };
        assert!(verify::signature_is_valid(
            &statement.identity_key,
            status,
            &signature
        ));
        let status = keyferry_protocol::receipt::Status::decode(status).unwrap();
        assert_eq!((status.nonce, status.order), (nonce, order));
        status.applied
    };
    assert!(status(&mut session, digest));
    assert!(!status(&mut session, verify::digest(b"another order")));

    // Once another order was applied, the old one is only stale.
    let (mut session, _) = enroll(&device, &authority).unwrap();
    let refused = refusal(sent(&mut session, &statement, &order));
    assert_eq!(refused, (Refusal::Stale, true));
}

/// SPEC: M-16, M-17, M-18
#[test]
fn stale_challenges_bounds_and_counters_are_refused_and_signed() {
    let (device, authority, mut session, mut statement) = enrolled();
    let address = flow::address(&statement);
    let body = Body::Remove(Remove {
        slots: [].into_iter().collect(),
    });
    let counter = statement.standing.counter;
    let before = device.flash();
    let cases = [
        (
            Freshness::Challenge(Challenge([1; 32])),
            counter + 1,
            Refusal::Stale,
        ),
        (
            Freshness::Detached { below: counter },
            counter + 1,
            Refusal::Stale,
        ),
        (
            Freshness::Detached { below: counter + 1 },
            counter,
            Refusal::Counter,
        ),
        (
            Freshness::Detached { below: counter + 1 },
            0,
            Refusal::Counter,
        ),
        (
            Freshness::Detached { below: u32::MAX },
            counter + 1025,
            Refusal::Counter,
        ),
    ];
    for (freshness, counter, expected) in cases {
        let header = Header::new(Kind::Remove, address, freshness, counter);
        let order = SignedOrder::new(&authority, header, &body).unwrap();
        let refused = refusal(sent(&mut session, &statement, &order));
        assert_eq!(refused, (expected, true));
    }
    assert_eq!(device.flash(), before);
    // The challenge of the statement is used up by now, and nothing was done with it: the order is made anew.
    let shipment = wrap(&statement, &two_keys(), 1);
    inject(&mut session, &authority, &statement, &shipment).unwrap();
    let counter = counter + 1;
    // A detached order within its bound is taken.
    let header = Header::new(
        Kind::Remove,
        address,
        Freshness::Detached { below: counter + 1 },
        counter + 1024,
    );
    let order = SignedOrder::new(&authority, header, &body).unwrap();
    let message = exchange_order(&mut session, &order).unwrap();
    assert!(matches!(Reply::decode(&message), Ok(Reply::Receipt { .. })));
    let (_, restated) = enroll(&device, &authority).unwrap();
    statement.standing = restated.standing;
    assert_eq!(statement.standing.counter, counter + 1025);
}

/// SPEC: M-18, M-20, M-21
#[test]
fn an_altered_or_misplaced_blob_is_one_undifferentiated_refusal() {
    let (device, authority, mut session, mut statement) = enrolled();
    let keys = two_keys();
    let good = wrap(&statement, &keys, 1);
    let mut outcomes = Vec::new();
    // Altered before signing, so that the digests fit and the unwrapping itself must see it.
    for blob in 0..3 {
        let length = [&good.kek, &good.parcels[0].blob, &good.parcels[1].blob][blob].len();
        for position in 0..length {
            let mut shipment = good.clone();
            match blob {
                0 => shipment.kek[position] ^= 0x10,
                other => shipment.parcels[other - 1].blob[position] ^= 0x10,
            }
            outcomes.push(shipment);
        }
    }
    // Cut short or exchanged.
    for cut in [8, 16, 23] {
        let mut shipment = good.clone();
        shipment.parcels[0].blob.truncate(cut);
        outcomes.push(shipment);
    }
    let mut exchanged = good.clone();
    exchanged.parcels[0].blob = good.parcels[1].blob.clone();
    exchanged.parcels[1].blob = good.parcels[0].blob.clone();
    outcomes.push(exchanged);

    for shipment in outcomes {
        let slots_before = flow::list(&mut session).unwrap();
        let result = inject(&mut session, &authority, &statement, &shipment);
        assert!(result.is_err(), "{shipment:02x?}\n{good:02x?}");
        assert_eq!(refusal(result), (Refusal::Unwrap, true));
        assert_eq!(flow::list(&mut session).unwrap(), slots_before);
        let nonce = Challenge([9; 32]);
        session = Session::open(device.port()).unwrap();
        assert_eq!(session.greeting().counter, statement.standing.counter);
        assert_eq!(session.greeting().state, State::Enrolled);
        statement.standing.challenge = session.greeting().challenge;
        let _ = nonce;
    }
    let proofs = inject(&mut session, &authority, &statement, &good).unwrap();
    assert!(all_right(&keys, &proofs));
}

/// SPEC: M-20, M-21
#[test]
fn a_blob_altered_on_the_cable_is_refused() {
    let (_, authority, mut session, statement) = enrolled();
    let mut shipment = wrap(&statement, &two_keys(), 1);
    let challenge = Challenge([3; 32]);
    let order = flow::inject_order(
        &authority,
        flow::terms(&statement, Digest::ZERO).unwrap(),
        &shipment,
        challenge,
    )
    .unwrap();
    // The order states the digest of the right blob.
    shipment.parcels[1].blob[5] ^= 1;
    let blobs = [
        shipment.kek.clone(),
        shipment.parcels[0].blob.clone(),
        shipment.parcels[1].blob.clone(),
    ];
    let message = flow::deliver(&mut session, &order, blobs.iter(), &mut quiet).unwrap();
    let Ok(Reply::Receipt { signature, receipt }) = Reply::decode(&message) else {
        panic!("no receipt");
    };
    let digest = order.digest();
    let result = verify::slots(
        &SignedReceipt {
            bytes: receipt.to_vec(),
            signature,
        },
        &statement,
        &digest,
        Kind::Inject,
    );
    assert_eq!(refusal(result), (Refusal::Unwrap, true));
}

/// SPEC: M-19
#[test]
fn versions_only_go_up_also_after_a_removal() {
    let (device, authority, _, statement) = enrolled();
    let keys = two_keys();
    let put = |version| {
        let (mut session, statement) = enroll(&device, &authority).unwrap();
        let shipment = wrap(&statement, &keys, version);
        inject(&mut session, &authority, &statement, &shipment)
    };
    put(2).unwrap();
    assert_eq!(refusal(put(2)), (Refusal::SlotTaken, true));
    assert_eq!(refusal(put(1)), (Refusal::VersionRollback, true));
    put(3).unwrap();

    let (_, statement_now) = enroll(&device, &authority).unwrap();
    let header = Header::new(
        Kind::Remove,
        flow::address(&statement),
        Freshness::Challenge(statement_now.standing.challenge),
        statement_now.standing.counter + 1,
    );
    let body = Body::Remove(Remove {
        slots: [0, 1].into_iter().collect(),
    });
    let order = SignedOrder::new(&authority, header, &body).unwrap();
    let mut session = Session::open(device.port()).unwrap();
    exchange_order(&mut session, &order).unwrap();
    assert!(flow::list(&mut session).unwrap().is_empty());
    assert_eq!(refusal(put(3)), (Refusal::VersionRollback, true));
    put(4).unwrap();
}

/// SPEC: M-18
#[test]
fn a_full_store_is_said_before_anything_is_done() {
    let device = OnDesk::start(Desk::new(1, 4));
    let authority = SoftAuthority::new(0);
    let (mut session, statement) = enroll(&device, &authority).unwrap();
    // 14 secrets of 256 bytes do not fit into half of 8 KiB beside receipt and own keys.
    let big = SoftKey {
        clear: vec![7; 256],
        attributes: keyferry_protocol::attributes::Attributes {
            bits: 2048,
            ..hmac_key(0).attributes
        },
    };
    let shipment = wrap(&statement, &vec![big; 14], 1);
    let before = device.flash();
    let refused = refusal(inject(&mut session, &authority, &statement, &shipment));
    assert_eq!(refused, (Refusal::StoreFull, true));
    assert_eq!(device.flash(), before);
    assert_eq!(device.unwrap_operations(), 0);
}

/// SPEC: M-10
#[test]
fn another_protocol_version_is_refused_in_words() {
    let device = OnDesk::start(Desk::new(1, PAGES));
    let result = Session::open_with_versions(device.port(), 200, 201);
    assert!(matches!(result, Err(DeviceError::Version { min: 200, .. })));
    Session::open(device.port()).unwrap();
}

#[test]
fn failing_entropy_and_fuses_refuse_every_order() {
    let authority = SoftAuthority::new(0);
    let device = OnDesk::start(Desk::new(1, PAGES).entropy(Entropy::Fails));
    assert_eq!(refusal(enroll(&device, &authority)).0, Refusal::Entropy);
    let device = OnDesk::start(Desk::new(1, PAGES).without_root_key());
    assert_eq!(refusal(enroll(&device, &authority)).0, Refusal::State);
}

/// A failed read of the fuses at the first start must not format the flash under a wrong root key.
#[test]
fn unreadable_fuses_leave_a_blank_flash_alone() {
    let device = OnDesk::start(Desk::new(1, PAGES).without_root_key());
    let flash = device.stop();
    assert!(flash.bytes().iter().all(|byte| *byte == 0xff));
    let device = OnDesk::start(Desk::with_flash(1, flash));
    enroll(&device, &SoftAuthority::new(0)).unwrap();
}

/// An unsigned question between two proofs must not touch the receipt in the making.
///
/// SPEC: M-11
#[test]
fn a_status_question_amid_an_order_is_put_off() {
    let (device, authority, mut session, statement) = enrolled();
    let keys = two_keys();
    let shipment = wrap(&statement, &keys, 1);
    let challenge = Challenge([3; 32]);
    let order = flow::inject_order(
        &authority,
        flow::terms(&statement, Digest::ZERO).unwrap(),
        &shipment,
        challenge,
    )
    .unwrap();
    let early = session.send(&order.request(), &mut quiet).unwrap();
    assert_eq!(early, None);
    let status = Request::Status {
        order: order.digest(),
        nonce: challenge,
    };
    let message = session.exchange(&status, &mut quiet).unwrap();
    assert_eq!(
        Reply::decode(&message),
        Ok(Reply::Refused(Refusal::Sequence))
    );
    let mut answer = None;
    for blob in [
        &shipment.kek,
        &shipment.parcels[0].blob,
        &shipment.parcels[1].blob,
    ] {
        let early = session.send(&Request::Blob { bytes: blob }, &mut quiet);
        answer = answer.or(early.unwrap());
    }
    let message = answer.unwrap_or_else(|| session.answer(&mut quiet).unwrap());
    let Ok(Reply::Receipt { signature, receipt }) = Reply::decode(&message) else {
        panic!("no receipt");
    };
    let digest = order.digest();
    verify::slots(
        &SignedReceipt {
            bytes: receipt.to_vec(),
            signature,
        },
        &statement,
        &digest,
        Kind::Inject,
    )
    .unwrap();
    drop(device);
}

#[test]
fn challenges_differ_after_each_start_with_a_stuck_source() {
    let mut flash = OnDesk::start(Desk::new(1, PAGES)).stop();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..40 {
        let device = OnDesk::start(Desk::with_flash(1, flash));
        let session = Session::open(device.port()).unwrap();
        assert_ne!(session.greeting().challenge, Challenge::ZERO);
        assert!(seen.insert(session.greeting().challenge));
        flash = device.stop();
    }
}

#[test]
fn another_boards_flash_is_quarantined_and_left_alone() {
    let (device, authority, _, _) = enrolled();
    let flash = device.stop();
    let before = flash.bytes().to_vec();
    let other = OnDesk::start(Desk::with_flash(2, flash));
    let session = Session::open(other.port()).unwrap();
    assert_eq!(session.greeting().state, State::Quarantined);
    assert_eq!(session.greeting().identity, Fingerprint::ZERO);
    assert_eq!(refusal(enroll(&other, &authority)).0, Refusal::State);
    assert_eq!(other.flash(), before);
}

/// Every byte of a whole session, both ways, is damaged once; each session must end with both keys proved.
///
/// SPEC: M-2, M-3, M-4, M-5
#[test]
fn a_byte_damaged_anywhere_on_the_line_costs_only_time() {
    let authority = SoftAuthority::new(0);
    let keys = two_keys();
    let flash = {
        let device = OnDesk::start(Desk::new(1, PAGES));
        enroll(&device, &authority).unwrap();
        device.stop()
    };
    let (down, up) = line_lengths(&flash, &authority, &keys);
    let every = if std::env::var_os("KEYFERRY_LONG").is_some() {
        1
    } else {
        3
    };
    let mut sessions = 0;
    for (way, length) in [(Direction::Down, down), (Direction::Up, up)] {
        for position in (0..length).step_by(every) {
            let device = OnDesk::start(Desk::with_flash(1, flash.clone()));
            let mut passed = 0;
            let port = device.port_through(move |direction, bytes| {
                if direction != way {
                    return;
                }
                if let Some(byte) = position
                    .checked_sub(passed)
                    .and_then(|at| bytes.get_mut(at))
                {
                    *byte ^= 0x04;
                }
                passed += bytes.len();
            });
            let done = run_session(port, &authority, &keys);
            assert!(
                done.as_ref().is_ok_and(|right| *right),
                "{way:?} {position}: {done:?}"
            );
            sessions += 1;
        }
    }
    println!("damaged sessions: {sessions}");
}

/// Bytes of a clean session, down and up.
fn line_lengths(
    flash: &keyferry_tests::desk::Flash,
    authority: &SoftAuthority,
    keys: &[SoftKey],
) -> (usize, usize) {
    let device = OnDesk::start(Desk::with_flash(1, flash.clone()));
    let counts = std::sync::Arc::new(std::sync::Mutex::new((0, 0)));
    let seen = counts.clone();
    let port = device.port_through(move |direction, bytes| {
        let mut seen = seen.lock().unwrap();
        match direction {
            Direction::Down => seen.0 += bytes.len(),
            Direction::Up => seen.1 += bytes.len(),
        }
    });
    assert!(run_session(port, authority, keys).unwrap());
    *counts.lock().unwrap()
}

fn run_session(
    port: Box<dyn keyferry::device::port::Port>,
    authority: &SoftAuthority,
    keys: &[SoftKey],
) -> Result<bool, DeviceError> {
    let mut session = Session::open(port)?;
    let nonce = Challenge([9; 32]);
    let statement = flow::enroll(
        &mut session,
        authority,
        UnwrapAlgorithm::P256,
        nonce,
        &mut quiet,
    )?;
    let shipment = wrap(&statement, keys, 1);
    let proofs = inject(&mut session, authority, &statement, &shipment)?;
    Ok(all_right(keys, &proofs))
}

/// SPEC: M-23
#[test]
fn a_device_that_disappears_in_mid_transfer_is_named_and_unchanged() {
    let (device, authority, _, _) = enrolled();
    let flash = device.stop();
    let (whole, _) = line_lengths(&flash, &authority, &two_keys());
    let device = OnDesk::start(Desk::with_flash(1, flash));
    let victim = device.clone();
    let mut down = 0;
    let flash = std::sync::Arc::new(std::sync::Mutex::new(None));
    let pulled = flash.clone();
    let port = device.port_through(move |direction, bytes| {
        if direction == Direction::Down {
            down += bytes.len();
        }
        // Past greeting and statement, amid the blobs.
        let mut pulled = pulled.lock().unwrap();
        if down + 150 > whole && direction == Direction::Down && pulled.is_none() {
            *pulled = Some(victim.stop());
        }
    });
    let result = run_session(port, &authority, &two_keys());
    assert!(
        matches!(result, Err(DeviceError::Disappeared { ref port }) if port == "desk"),
        "{result:?}"
    );
    let flash = flash.lock().unwrap().take().unwrap();
    let device = OnDesk::start(Desk::with_flash(1, flash));
    let mut session = Session::open(device.port()).unwrap();
    assert!(flow::list(&mut session).unwrap().is_empty());
    assert_eq!(session.greeting().state, State::Enrolled);
    assert!(run_session(device.port(), &authority, &two_keys()).unwrap());
}
