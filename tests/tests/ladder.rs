//! Proofs with questions through a whole device: keys that may only agree or decrypt, and those that may do neither. The values are
//! checked against other implementations in `firmware/tests/openssl_ladder.rs`; here it is that each key gets its own question.

use aes::cipher::{BlockCipherEncrypt, KeyInit as _};
use hmac::Mac as _;
use keyferry::device::flow::{self, Shipment};
use keyferry::device::verify::Statement;
use keyferry_protocol::attributes::{Attributes, algorithm, usage};
use keyferry_protocol::identity::{Challenge, Digest};
use keyferry_protocol::order::{Body, Kind, ProofRequest, Prove};
use keyferry_protocol::proof::{Proof, proof_input};
use keyferry_protocol::receipt::{self, Refusal};
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::desk::{Desk, OnDesk};
use keyferry_tests::orders::{Answer, Order, fresh, open};
use keyferry_tests::software::{SoftAuthority, SoftKey, aes_key, p256_key, wrap};
use p256::elliptic_curve::sec1::ToSec1Point as _;
use p256::pkcs8::DecodePrivateKey as _;

/// What every order here has as its challenge; the order of an `Inject` in the tests too.
const CHALLENGE: Challenge = Challenge([3; 32]);

fn enrolled() -> (OnDesk, SoftAuthority, Statement) {
    let device = OnDesk::start(Desk::new(1, 32));
    let authority = SoftAuthority::new(0);
    let (nonce, kind) = (Challenge([9; 32]), UnwrapAlgorithm::P256);
    let statement = flow::enroll(&mut open(&device), &authority, kind, nonce, &mut |_| {});
    (device, authority, statement.unwrap())
}

fn for_use(key: SoftKey, usage: u32, algorithm: u32) -> SoftKey {
    SoftKey {
        attributes: Attributes {
            usage,
            algorithm,
            ..key.attributes
        },
        ..key
    }
}

/// A key that may only agree, two that may only decrypt, one that may do nothing that proves it.
fn keys() -> Vec<SoftKey> {
    vec![
        for_use(aes_key(16, 1), usage::DECRYPT, algorithm::CTR),
        for_use(p256_key(2), usage::DERIVE, algorithm::ECDH),
        for_use(aes_key(16, 3), usage::ENCRYPT, algorithm::CCM),
        for_use(
            aes_key(16, 4),
            usage::DECRYPT | usage::ENCRYPT,
            algorithm::CTR,
        ),
    ]
}

const PROOFS: [Proof; 4] = [
    Proof::Decryption,
    Proof::Agreement,
    Proof::CheckValue,
    Proof::Decryption,
];

/// The station's key of an agreement.
fn station() -> p256::SecretKey {
    p256::SecretKey::from_bytes(&[7; 32].into()).unwrap()
}

fn questions() -> [Vec<u8>; 4] {
    let point = station().public_key().to_sec1_point(false);
    [
        vec![0xa1; 48],
        point.as_bytes().to_vec(),
        Vec::new(),
        vec![0xb2; 48],
    ]
}

fn shipment(statement: &Statement, keys: &[SoftKey]) -> Shipment {
    let mut shipment = wrap(statement, keys, 1);
    for (parcel, question) in shipment.parcels.iter_mut().zip(questions()) {
        assert_eq!(parcel.proof, PROOFS[usize::from(parcel.slot)]);
        parcel.question = question;
    }
    shipment
}

/// AES-CTR of a question of 48 bytes whose counter does not overflow.
fn decrypt(key: &[u8], question: &[u8]) -> Vec<u8> {
    let cipher = aes::Aes128::new_from_slice(key).unwrap();
    let (counter, ciphertext) = question.split_first_chunk::<16>().unwrap();
    let stream = (0..2_u128).flat_map(|block| {
        let counter = u128::from_be_bytes(*counter) + block;
        let mut block = counter.to_be_bytes().into();
        cipher.encrypt_block(&mut block);
        block
    });
    ciphertext.iter().zip(stream).map(|(a, b)| a ^ b).collect()
}

fn expected(slot: u16, order: &Digest) -> Vec<u8> {
    let key = &keys()[usize::from(slot)];
    let question = &questions()[usize::from(slot)];
    let input = proof_input(order, slot, &CHALLENGE);
    match PROOFS[usize::from(slot)] {
        Proof::Decryption => {
            let opened = decrypt(&key.clear, question);
            let mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&opened).unwrap();
            mac.chain_update(input).finalize().into_bytes().to_vec()
        }
        Proof::Agreement => {
            let device = p256::SecretKey::from_pkcs8_der(&key.clear).unwrap();
            let scalar = station().to_nonzero_scalar();
            let shared = p256::ecdh::diffie_hellman(scalar, device.public_key().as_affine());
            let shared = shared.raw_secret_bytes();
            let mac = cmac::Cmac::<aes::Aes256>::new_from_slice(shared).unwrap();
            mac.chain_update(input).finalize().into_bytes().to_vec()
        }
        Proof::CheckValue => {
            let mac = cmac::Cmac::<aes::Aes128>::new_from_slice(&key.clear).unwrap();
            mac.chain_update(input).finalize().into_bytes()[..5].to_vec()
        }
        other => panic!("{other:?} is asked for nowhere here"),
    }
}

/// Slot, proof and value of each report.
fn reports(answer: Answer, statement: &Statement) -> Vec<(u16, Proof, Vec<u8>)> {
    let receipt = answer.receipt();
    let header = receipt.verified(&statement.identity_key);
    assert_eq!(header.outcome, receipt::Outcome::Applied);
    let receipt::Body::Slots(slots) = receipt::decode(&receipt.bytes).unwrap().1 else {
        panic!("no slots");
    };
    slots
        .iter()
        .map(|slot| (slot.slot, slot.proof, slot.value.to_vec()))
        .collect()
}

fn prove(device: &OnDesk, slots: &[(u16, Proof)], questions: &[u8]) -> (Digest, Answer) {
    let mut session = open(device);
    let slots = slots
        .iter()
        .map(|&(slot, proof)| ProofRequest { slot, proof });
    let body = Body::Prove(Prove {
        challenge: CHALLENGE,
        slots: slots.collect(),
        questions: questions.iter().copied().collect(),
    });
    let order = Order::new(
        &SoftAuthority::new(0),
        fresh(device, &session, Kind::Prove),
        &body,
    );
    (order.digest(), order.send(&mut session))
}

/// SPEC: M-24
#[test]
fn every_rung_of_the_ladder_is_proved_from_the_slot() {
    let (device, authority, statement) = enrolled();
    let mut session = open(&device);
    let header = fresh(&device, &session, Kind::Inject);
    let order = Order::inject(&authority, header, &shipment(&statement, &keys()));
    let made = reports(order.send(&mut session), &statement);
    assert_eq!(made.len(), 4);
    for (slot, proof, value) in made {
        assert_eq!(proof, PROOFS[usize::from(slot)]);
        assert_eq!(value, expected(slot, &order.digest()), "{proof:?}");
    }

    // Later, and in another order.
    let device = OnDesk::start(Desk::with_flash(1, device.stop()));
    let slots = [3, 1, 2, 0].map(|slot| (slot, PROOFS[usize::from(slot)]));
    let all = questions();
    let asked: Vec<u8> = slots
        .iter()
        .flat_map(|(slot, _)| all[usize::from(*slot)].clone())
        .collect();
    let (order, answer) = prove(&device, &slots, &asked);
    for (slot, proof, value) in reports(answer, &statement) {
        assert_eq!(value, expected(slot, &order), "{proof:?}");
    }
    // A check value is what a key of any use permits; a MAC is not.
    let (_, answer) = prove(&device, &[(0, Proof::CheckValue)], &[]);
    assert_eq!(reports(answer, &statement)[0].2.len(), 5);
    for wrong in [
        (0, Proof::Cmac),
        (1, Proof::EcdsaP256Sha256),
        (2, Proof::Decryption),
        (3, Proof::Agreement),
    ] {
        let (_, answer) = prove(&device, &[wrong], &[]);
        assert_eq!(answer.refusal(), Some((Refusal::Attributes, true)));
    }
}

/// SPEC: M-24, M-32
#[test]
fn questions_that_do_not_fit_are_refused() {
    let (device, authority, statement) = enrolled();
    let mut session = open(&device);
    let header = fresh(&device, &session, Kind::Inject);
    let order = Order::inject(&authority, header, &shipment(&statement, &keys()));
    assert_eq!(order.send(&mut session).refusal(), None);
    let before = device.flash();

    let agreement = [(1, Proof::Agreement)];
    let point = questions()[1].clone();
    for length in [0, 1, 64, 66, 130] {
        let question: Vec<u8> = point.iter().copied().cycle().take(length).collect();
        let (_, answer) = prove(&device, &agreement, &question);
        assert_eq!(
            answer.refusal(),
            Some((Refusal::Malformed, true)),
            "{length}"
        );
    }
    let (_, answer) = prove(&device, &[(2, Proof::CheckValue)], &[0]);
    assert_eq!(answer.refusal(), Some((Refusal::Malformed, true)));
    // Right in length, and yet no point on the curve.
    let mut off = point;
    off[64] ^= 1;
    let (_, answer) = prove(&device, &agreement, &off);
    assert_eq!(answer.refusal(), Some((Refusal::Attributes, true)));
    assert_eq!(device.flash(), before);

    // In an Inject the attributes stand beside: what does not fit is no order.
    let mut session = open(&device);
    let mut short = wrap(&statement, &keys(), 2);
    short.parcels[1].question = vec![4; 64];
    let order = Order::inject(&authority, fresh(&device, &session, Kind::Inject), &short);
    let refused = order.send(&mut session).refusal();
    assert_eq!(refused, Some((Refusal::Malformed, false)));
    // A question that gives nothing costs the whole order, also the keys that are right.
    let mut session = open(&device);
    let mut wrong = shipment(&statement, &keys());
    for parcel in &mut wrong.parcels {
        parcel.version = 2;
    }
    wrong.parcels[1].question = off;
    let order = Order::inject(&authority, fresh(&device, &session, Kind::Inject), &wrong);
    let refused = order.send(&mut session).refusal();
    assert_eq!(refused, Some((Refusal::Attributes, true)));
    let slots = flow::list(&mut open(&device)).unwrap();
    assert!(slots.iter().all(|slot| slot.version == 1));
}
