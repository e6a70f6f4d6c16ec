//! The firmware's own machine code in QEMU, on every emulated board, over a real serial device: the main job, and bad input from the cable.

use std::sync::{Arc, Mutex};

use keyferry::device::DeviceError;
use keyferry::device::flow::{self, Proofs, Shipment, SignedOrder};
use keyferry::device::session::Session;
use keyferry::device::verify::{self, SignedReceipt, Statement};
use keyferry_protocol::identity::{Challenge, DeviceId, Digest, Signature};
use keyferry_protocol::message::{Reply, Request, Task};
use keyferry_protocol::order::Kind;
use keyferry_protocol::receipt::{Refusal, State};
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::board::{Board, Image, Rig, open_again};
use keyferry_tests::desk::{Direction, Tampered};
use keyferry_tests::software::{SoftAuthority, SoftKey, aes_key, hmac_key, proof_is_right, wrap};

keyferry_tests::on_every_board!(
    bad_orders_change_nothing_and_good_ones_pass,
    a_device_that_disappears_in_mid_transfer_is_unchanged_after_its_return,
    bytes_damaged_on_the_line_cost_only_time,
    a_flash_under_other_fuses_is_quarantined_and_left_alone,
    another_protocol_version_is_refused_in_words,
    an_unwrap_key_is_begun_before_a_station_asks_for_it,
);

fn quiet(_: keyferry_protocol::message::Progress) {}

fn keys() -> Vec<SoftKey> {
    vec![aes_key(16, 1), aes_key(32, 2), hmac_key(3)]
}

fn enroll(session: &mut Session, authority: &SoftAuthority) -> Result<Statement, DeviceError> {
    let nonce = Challenge([9; 32]);
    flow::enroll(session, authority, UnwrapAlgorithm::P256, nonce, &mut quiet)
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

fn flash(rig: &Rig<Board>) -> Vec<u8> {
    let files = rig.files();
    let flash = files.into_iter().find(|(name, _)| name == "flash.bin");
    flash.expect("the device has a flash file").1
}

/// Each echo is answered between two steps of the search, and with this seed a hundred steps are more than it takes. A search that began
/// with the `Enroll` would be told of.
fn an_unwrap_key_is_begun_before_a_station_asks_for_it(board: Board) {
    let rig = Rig::start_on(board, Image::Default, 30).restart_with_words(&["early=rsa-2048"]);
    let authority = SoftAuthority::new(0);
    let mut session = rig.session();
    for number in 0..100_u16 {
        let bytes = number.to_be_bytes();
        let echo = session.exchange(&Request::Echo { bytes: &bytes }, &mut quiet);
        assert_eq!(
            Reply::decode(&echo.unwrap()),
            Ok(Reply::Echo { bytes: &bytes })
        );
    }
    let mut searched = false;
    let statement = flow::enroll(
        &mut session,
        &authority,
        UnwrapAlgorithm::Rsa2048,
        Challenge([9; 32]),
        &mut |progress| searched |= progress.task == Task::GenerateUnwrapKey,
    )
    .unwrap();
    assert!(!searched);
    let keys = keys();
    let shipment = wrap(&statement, &keys, 1);
    let proofs = inject(&mut session, &authority, &statement, &shipment).unwrap();
    assert!(all_right(&keys, &proofs));
}

/// Positions spread over `length` bytes by a fixed rule.
fn sample(length: usize, count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |index| (index * 7919 + 13) % length)
}

fn bad_orders_change_nothing_and_good_ones_pass(board: Board) {
    let rig = Rig::start_on(board, Image::Default, 21);
    let authority = SoftAuthority::new(0);
    let mut session = rig.session();
    assert_eq!(session.greeting().state, State::Blank);
    let mut statement = enroll(&mut session, &authority).unwrap();
    let keys = keys();
    let shipment = wrap(&statement, &keys, 1);
    let challenge = Challenge([3; 32]);
    let order = flow::inject_order(
        &authority,
        flow::terms(&statement, Digest::ZERO).unwrap(),
        &shipment,
        challenge,
    )
    .unwrap();
    let before = flash(&rig);

    // Altered in a byte of header, body or signature.
    for position in sample(order.bytes.len() + Signature::LENGTH, 48) {
        let mut altered = order.clone();
        if position < order.bytes.len() {
            altered.bytes[position] ^= 1 << (position % 8);
        } else {
            let mut signature = order.signature.to_bytes();
            signature[position - order.bytes.len()] ^= 1 << (position % 8);
            altered.signature = Signature::from_bytes(&signature);
        }
        let message = session.exchange(&altered.request(), &mut quiet).unwrap();
        assert_eq!(
            Reply::decode(&message).unwrap(),
            Reply::Refused(Refusal::BadSignature),
            "byte {position}"
        );
    }
    // Another authority's, and another device's.
    let stranger = SoftAuthority::new(9);
    let refused = refusal(inject(&mut session, &stranger, &statement, &shipment));
    assert_eq!(refused, (Refusal::BadSignature, false));
    let elsewhere = Statement {
        device: DeviceId([0x77; 16]),
        ..statement.clone()
    };
    let refused = refusal(inject(&mut session, &authority, &elsewhere, &shipment));
    assert_eq!(refused, (Refusal::WrongAddress, false));
    assert_eq!(flash(&rig), before);

    // Blobs altered and cut before signing.
    let mut spoiled = Vec::new();
    for position in sample(shipment.kek.len(), 4) {
        let mut bad = shipment.clone();
        bad.kek[position] ^= 0x20;
        spoiled.push(bad);
    }
    for position in sample(shipment.parcels[1].blob.len(), 8) {
        let mut bad = shipment.clone();
        bad.parcels[1].blob[position] ^= 0x20;
        spoiled.push(bad);
    }
    let mut cut = shipment.clone();
    cut.parcels[2].blob.truncate(24);
    spoiled.push(cut);
    for bad in spoiled {
        let refused = refusal(inject(&mut session, &authority, &statement, &bad));
        assert_eq!(refused, (Refusal::Unwrap, true));
        assert!(flow::list(&mut session).unwrap().is_empty());
        drop(session);
        session = rig.session();
        let greeting = session.greeting();
        assert_eq!(greeting.state, State::Enrolled);
        assert_eq!(greeting.counter, statement.standing.counter);
        statement.standing.challenge = greeting.challenge;
    }

    let good = flow::inject_order(
        &authority,
        flow::terms(&statement, Digest::ZERO).unwrap(),
        &shipment,
        challenge,
    )
    .unwrap();
    let proofs = inject(&mut session, &authority, &statement, &shipment).unwrap();
    assert!(all_right(&keys, &proofs));

    // Replayed: the stored receipt, and nothing else.
    let before = flash(&rig);
    let message = session.exchange(&good.request(), &mut quiet).unwrap();
    let Ok(Reply::Receipt { signature, receipt }) = Reply::decode(&message) else {
        panic!("no receipt");
    };
    let digest = good.digest();
    let replayed = verify::slots(
        &SignedReceipt {
            bytes: receipt.to_vec(),
            signature,
        },
        &statement,
        &digest,
        Kind::Inject,
    );
    assert_eq!(replayed.unwrap().1.len(), keys.len());
    assert_eq!(flash(&rig), before);

    // The slots are taken now.
    drop(session);
    session = rig.session();
    let statement = enroll(&mut session, &authority).unwrap();
    let refused = refusal(inject(&mut session, &authority, &statement, &shipment));
    assert_eq!(refused, (Refusal::SlotTaken, true));
}

fn a_device_that_disappears_in_mid_transfer_is_unchanged_after_its_return(board: Board) {
    let rig = Rig::start_on(board, Image::Default, 22);
    let authority = SoftAuthority::new(0);
    let mut session = rig.session();
    let statement = enroll(&mut session, &authority).unwrap();
    let keys = keys();
    let shipment = wrap(&statement, &keys, 1);
    let challenge = Challenge([3; 32]);
    let order: SignedOrder = flow::inject_order(
        &authority,
        flow::terms(&statement, Digest::ZERO).unwrap(),
        &shipment,
        challenge,
    )
    .unwrap();
    let early = session.send(&order.request(), &mut quiet).unwrap();
    assert_eq!(early, None);
    for blob in [&shipment.kek, &shipment.parcels[0].blob] {
        let early = session.send(&Request::Blob { bytes: blob }, &mut quiet);
        assert_eq!(early.unwrap(), None);
    }
    // Its answer shows that all before it has arrived.
    let echo = Request::Echo { bytes: b"there?" };
    session.exchange(&echo, &mut quiet).unwrap();
    let rig = rig.restart();
    let bytes = &shipment.parcels[1].blob;
    let gone = session.exchange(&Request::Blob { bytes }, &mut quiet);
    assert!(
        matches!(gone, Err(DeviceError::Disappeared { .. })),
        "{gone:?}"
    );
    drop(session);

    let mut session = rig.session();
    assert_eq!(session.greeting().state, State::Enrolled);
    assert!(flow::list(&mut session).unwrap().is_empty());
    let statement = enroll(&mut session, &authority).unwrap();
    let shipment = wrap(&statement, &keys, 1);
    let proofs = inject(&mut session, &authority, &statement, &shipment).unwrap();
    assert!(all_right(&keys, &proofs));
}

fn bytes_damaged_on_the_line_cost_only_time(board: Board) {
    let rig = Rig::start_on(board, Image::Default, 23);
    let authority = SoftAuthority::new(0);
    drop(enroll(&mut rig.session(), &authority).unwrap());
    let keys = keys();
    for (round, position) in sample(900, 12).enumerate() {
        let way = [Direction::Down, Direction::Up][round % 2];
        let passed = Arc::new(Mutex::new(0));
        let port = Tampered::new(open_again(rig.port()), move |direction, bytes| {
            if direction != way {
                return;
            }
            let mut passed = passed.lock().unwrap();
            let place = position
                .checked_sub(*passed)
                .and_then(|at| bytes.get_mut(at));
            if let Some(byte) = place {
                *byte ^= 0x40;
            }
            *passed += bytes.len();
        });
        let mut session = Session::open(Box::new(port)).unwrap();
        let statement = enroll(&mut session, &authority).unwrap();
        let version = u32::try_from(round).unwrap() + 1;
        let shipment = wrap(&statement, &keys, version);
        let proofs = inject(&mut session, &authority, &statement, &shipment).unwrap();
        assert!(all_right(&keys, &proofs), "{way:?} {position}");
    }
}

fn a_flash_under_other_fuses_is_quarantined_and_left_alone(board: Board) {
    let rig = Rig::start_on(board, Image::Default, 24);
    let authority = SoftAuthority::new(0);
    drop(enroll(&mut rig.session(), &authority).unwrap());
    let before = flash(&rig);
    rig.burn_fuses([0xee; 32]);
    let rig = rig.restart();
    let mut session = rig.session();
    assert_eq!(session.greeting().state, State::Quarantined);
    let refused = refusal(enroll(&mut session, &authority));
    assert_eq!(refused, (Refusal::State, false));
    assert_eq!(flash(&rig), before);
}

fn another_protocol_version_is_refused_in_words(board: Board) {
    let rig = Rig::start_on(board, Image::Default, 25);
    let port = open_again(rig.port());
    let result = Session::open_with_versions(port, 7, 9);
    assert!(matches!(result, Err(DeviceError::Version { .. })));
    drop(rig.session());
}
