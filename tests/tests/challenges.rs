//! Randomness of an emulated board: challenges over a hundred power cuts, a source that is stuck, a source that fails; and what
//! the board tells of its vendor key and of its private-key operations.

use std::collections::HashSet;

use keyferry::device::flow::{self, Authority as _};
use keyferry::device::{DeviceError, verify};
use keyferry::emulate::Entropy;
use keyferry_firmware::device::Operations;
use keyferry_protocol::identity::{Challenge, Digest};
use keyferry_protocol::receipt::{Refusal, State, voucher_input};
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::board::{Board, Image, QemuBoard, Rig};
use keyferry_tests::software::{SoftAuthority, aes_key, wrap};
use keyferry_tests::tokens::Scratch;

const STARTS: usize = 100;

fn enroll<B: Copy + Into<Board>>(
    rig: &Rig<B>,
    authority: &SoftAuthority,
) -> Result<verify::Statement, DeviceError> {
    let (kind, nonce) = (UnwrapAlgorithm::P256, Challenge([9; 32]));
    flow::enroll(&mut rig.session(), authority, kind, nonce, &mut |_| {})
}

/// The challenge of each start; every start ends with SIGKILL.
fn challenges(board: Board, entropy: Entropy, seed: u8) -> HashSet<Challenge> {
    let mut rig = Rig::start_with(board, Image::Default, seed, entropy, &[]);
    let mut seen = HashSet::new();
    for start in 0..STARTS {
        if start > 0 {
            rig = rig.restart();
        }
        let challenge = rig.session().greeting().challenge;
        assert_ne!(challenge, Challenge::ZERO);
        assert!(seen.insert(challenge), "start {start}: seen before");
    }
    seen
}

/// SPEC: M-35
#[test]
fn challenges_differ_over_a_hundred_power_cuts_with_a_stuck_source() {
    for board in Board::ALL {
        let seen = challenges(board, Entropy::Stuck, 51);
        assert_eq!(seen.len(), STARTS);
        // Two boards with stuck sources do not share them either.
        let other = Rig::start_with(board, Image::Default, 52, Entropy::Stuck, &[]);
        assert!(!seen.contains(&other.session().greeting().challenge));
    }
}

/// SPEC: M-35
#[test]
fn challenges_differ_over_a_hundred_power_cuts_with_the_hosts_entropy() {
    for board in Board::ALL {
        assert_eq!(challenges(board, Entropy::Host, 53).len(), STARTS);
    }
}

/// SPEC: M-35
#[test]
fn a_source_that_fails_is_a_refusal_in_words() {
    Board::ALL.into_iter().for_each(a_failing_source);
}

fn a_failing_source(board: Board) {
    let authority = SoftAuthority::new(0);
    let rig = Rig::start_with(board, Image::Default, 54, Entropy::Failing, &[]);
    let error = enroll(&rig, &authority).expect_err("no keys without entropy");
    assert!(matches!(
        error,
        DeviceError::Refused {
            refusal: Refusal::Entropy,
            signed: false
        }
    ));
    assert_eq!(rig.session().greeting().state, State::Blank);

    // What the command says to it, with an authority key in a token.
    let scratch = Scratch::new("line");
    let usage = ["--type", "p-256", "--usage", "sign"];
    let create = ["key", "create", "--label", "authority"];
    scratch.done(create.iter().chain(&usage));
    let port = ["--port", rig.port(), "--authority", "authority"];
    let terms = [
        "--unwrap",
        "p-256",
        "--policy",
        "open",
        "--allow-test-devices",
    ];
    scratch.refused(
        &[&["device", "enroll"], &port[..], &terms].concat(),
        4,
        "the device's entropy source failed",
        "take it off the line",
    );
    assert_eq!(rig.session().greeting().state, State::Blank);
}

/// SPEC: M-14, M-34
#[test]
fn a_board_vouches_and_counts_its_private_key_operations() {
    QemuBoard::ALL.into_iter().for_each(vouching_and_counting);
}

fn vouching_and_counting(board: QemuBoard) {
    let key = [0x21; 32];
    let certificate = [0x30; 300];
    let files: [(&str, &[u8]); 2] = [("vendor.der", &certificate), ("vendor.key", &key)];
    let entropy = Entropy::Seed([55; 32]);
    let mut rig = Rig::start_with(board, Image::Default, 55, entropy, &files);
    let authority = SoftAuthority::new(0);
    assert_eq!(rig.operations(), Operations::default());
    let statement = enroll(&rig, &authority).unwrap();
    let voucher = statement.voucher.as_ref().expect("a voucher");
    assert_eq!(voucher.certificate, certificate);
    let message = voucher_input(
        &statement.device,
        &Challenge([9; 32]),
        &verify::fingerprint(&statement.identity_key),
        &verify::fingerprint(&statement.unwrap_key),
    );
    let public = keyferry_firmware::keys::p256::public_spki(&key).unwrap();
    assert!(verify::signature_is_valid(
        &public,
        &message,
        &voucher.signature
    ));
    let enrolled = Operations {
        receipt: 1,
        voucher: 1,
        ..Operations::default()
    };
    assert_eq!(rig.operations(), enrolled);

    let shipment = wrap(&statement, &[aes_key(16, 1)], 1);
    let challenge = Challenge([3; 32]);
    let mut session = rig.session();
    let terms = flow::terms(&statement, Digest::ZERO).unwrap();
    let stranger = SoftAuthority::new(9);
    assert_ne!(stranger.public_key(), authority.public_key());
    let forged = flow::inject_order(&stranger, terms, &shipment, challenge).unwrap();
    session.exchange(&forged.request(), &mut |_| {}).unwrap();
    drop(session);
    assert_eq!(rig.operations(), enrolled);
    let mut session = rig.session();
    flow::inject(
        &mut session,
        &authority,
        &statement,
        &shipment,
        challenge,
        &mut |_| {},
    )
    .unwrap();
    drop(session);
    let done = rig.operations();
    assert_eq!((done.unwrap, done.receipt, done.proof), (1, 2, 1));
}
