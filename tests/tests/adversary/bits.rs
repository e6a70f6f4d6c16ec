//! Every single bit of a whole order: signature, order, and each blob. And a count of what all of this made the device's private
//! keys do: nothing.

use keyferry::device::flow::{self, Authority as _};
use keyferry::device::session::Session;
use keyferry_firmware::device::Operations;
use keyferry_protocol::identity::{DeviceId, Digest, Fingerprint, Signature};
use keyferry_protocol::message::{Reply, Request};
use keyferry_protocol::order::{self, Body, Enroll};
use keyferry_protocol::receipt::Refusal;
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::orders::{Order, enrolment};
use keyferry_tests::software::{SoftAuthority, wrap};

use crate::{NONCE, Victim, injecting, quiet, rewritten, two_keys, with_blobs};

/// The bits of an order: those of its signature, of its second signature where it has one, of its bytes.
fn bits(order: &Order) -> usize {
    let signatures = 1 + usize::from(order.second.is_some());
    8 * (signatures * Signature::LENGTH + order.bytes.len())
}

/// The order with one bit flipped.
fn flipped(order: &Order, bit: usize) -> Order {
    let flip = |signature: Signature, bit: usize| {
        let mut bytes = signature.to_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        Signature::from_bytes(&bytes)
    };
    let mut altered = order.clone();
    let one = 8 * Signature::LENGTH;
    match (bit < one, order.second) {
        (true, _) => altered.signature = flip(order.signature, bit),
        (false, Some(second)) if bit < 2 * one => altered.second = Some(flip(second, bit - one)),
        (false, second) => {
            let bit = bit - one * (1 + usize::from(second.is_some()));
            altered.bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
    altered
}

/// Sends an order without its blobs; gives the unsigned refusal that it must get.
fn refused(session: &mut Session, order: &Order) -> Refusal {
    let request = Request::Order {
        signature: order.signature,
        second: order.second,
        order: &order.bytes,
    };
    let message = session.exchange(&request, &mut quiet).unwrap();
    match Reply::decode(&message).unwrap() {
        Reply::Refused(refusal) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

/// One order of each kind, for a blank device or for one that is provisioned.
fn orders(victim: &Victim, authority: &SoftAuthority, blank: bool) -> Vec<Order> {
    if blank {
        let header = enrolment(&victim.session());
        let body = Body::Enroll(Enroll {
            authority: authority.public_key(),
            nonce: NONCE,
            unwrap: UnwrapAlgorithm::P256,
        });
        return vec![Order::new(authority, header, &body)];
    }
    let statement = victim.enroll(authority).unwrap();
    let terms = flow::terms(&statement, Digest::ZERO).unwrap();
    let demands = [(0, keyferry_protocol::proof::Proof::Cmac).into()];
    let mut all: Vec<_> = [
        flow::prove_order(authority, terms, &demands, crate::ASKED),
        flow::remove_order(authority, terms, &[0]),
        flow::rotate_order(authority, &SoftAuthority::new(1), terms),
        flow::lock_order(authority, terms),
        flow::wipe_order(authority, terms),
    ]
    .into_iter()
    .map(|order| with_blobs(order.unwrap(), None))
    .collect();
    let shipment = wrap(&statement, &two_keys(), 1);
    all.insert(0, injecting(authority, terms, &shipment));
    all
}

/// All bits of one order of each kind.
///
/// SPEC: M-11, M-12, M-14
#[test]
fn every_flipped_bit_of_an_order_is_refused_and_changes_nothing() {
    let mut victim = Victim::desk(70);
    let authority = SoftAuthority::new(0);
    let mut tried = 0;
    for blank in [true, false] {
        for order in orders(&victim, &authority, blank) {
            let before = victim.scene();
            let operations = victim.operations();
            let mut session = victim.session();
            for bit in 0..bits(&order) {
                let refusal = refused(&mut session, &flipped(&order, bit));
                let expected = match (blank, refusal) {
                    // A blank device takes the authority from the order, and listens to nothing but an Enroll.
                    (true, Refusal::State | Refusal::Malformed | Refusal::UnknownVersion) => {
                        refusal
                    }
                    (true | false, _) => Refusal::BadSignature,
                };
                assert_eq!(refusal, expected, "bit {bit}");
                tried += 1;
            }
            drop(session);
            assert_eq!(victim.scene(), before);
            assert_eq!(victim.operations(), operations);
            if blank {
                // The challenge was not used up either: the order itself is still good.
                victim.obeys(&order);
            }
        }
    }
    println!("flipped bits of orders: {tried}");
    assert!(tried > 15_000, "{tried}");
}

/// Flips each bit of every blob of an order; gives how many there are.
fn flip_blobs(number: u8, unwrap: UnwrapAlgorithm) -> usize {
    let victim = Victim::desk(number);
    let authority = SoftAuthority::new(0);
    let session = &mut victim.session();
    let statement = flow::enroll(session, &authority, unwrap, NONCE, &mut quiet).unwrap();
    let mut shipment = wrap(&statement, &two_keys(), 1);
    // All that a device looks for in a certificate.
    shipment.certificate = Some(statement.identity_key.clone());
    let before = victim.scene();
    let mut session = victim.session();
    let mut tried = 0;
    let blobs: Vec<_> = shipment.blobs().map(Vec::len).collect();
    for (blob, length) in blobs.into_iter().enumerate() {
        for bit in 0..8 * length {
            session.greet_again().unwrap();
            let mut standing = statement.standing;
            standing.challenge = session.greeting().challenge;
            let terms =
                flow::Terms::now(flow::address(&statement), &standing, Digest::ZERO).unwrap();
            let mut order = injecting(&authority, terms, &shipment);
            order.blobs[blob][bit / 8] ^= 1 << (bit % 8);
            let refusal = order.send(&mut session).refusal();
            assert_eq!(refusal, Some((Refusal::Unwrap, true)), "{blob}: bit {bit}");
            tried += 1;
        }
    }
    drop(session);
    assert_eq!(victim.scene(), before);
    let terms = victim.terms(&authority);
    victim.obeys(&injecting(&authority, terms, &shipment));
    tried
}

/// Certificate, KEK and keys, on a device with either kind of unwrap key. Each is one undifferentiated refusal.
///
/// SPEC: M-18, M-20, M-21
#[test]
fn every_flipped_bit_of_a_blob_is_refused_and_changes_nothing() {
    let p256 = flip_blobs(71, UnwrapAlgorithm::P256);
    let rsa = flip_blobs(74, UnwrapAlgorithm::Rsa2048);
    println!("flipped bits of blobs: {p256}, with an RSA key {rsa}");
}

/// A generator that gives the same numbers in each run.
struct Seeded(u64);

impl Seeded {
    /// The next number below `limit`.
    fn below(&mut self, limit: usize) -> usize {
        // SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((word ^ (word >> 31)) % limit as u64).unwrap()
    }
}

/// On the board in QEMU: all bits of the header, and a seeded sample of the rest; orders that are authentic and for another
/// device; garbage. The board's own count says that not one of them reached a private key.
///
/// SPEC: M-12, M-13, M-14, M-20
#[test]
fn no_unsigned_or_misaddressed_order_reaches_a_private_key() {
    let mut victim = Victim::board(72);
    let authority = SoftAuthority::new(0);
    let statement = victim.enroll(&authority).unwrap();
    victim.restart();
    let mut session = victim.session();
    let greeting = session.greeting().clone();
    let statement_free = flow::Terms {
        address: flow::address(&statement),
        freshness: order::Freshness::Challenge(greeting.challenge),
        counter: greeting.counter + 1,
        audit_head: Digest::ZERO,
    };
    drop(session);
    let before = victim.scene();
    // What it carries does not matter: nobody gets as far as the blobs.
    let shipment = keyferry::device::flow::Shipment {
        suite: keyferry_protocol::suite::Suite::EcdhP256Null,
        certificate: None,
        kek: vec![4; 65],
        parcels: {
            let other = Victim::desk(73).enroll(&authority).unwrap();
            wrap(&other, &two_keys(), 1).parcels
        },
    };
    let order = injecting(&authority, statement_free, &shipment);
    let body = order::decode_header(&order.bytes).unwrap().1.len();
    let header = 8 * (order.bytes.len() - body);
    let signature = 8 * Signature::LENGTH;

    session = victim.session();
    let mut tried = [0; 4];
    for bit in signature..signature + header {
        let refusal = refused(&mut session, &flipped(&order, bit));
        assert_eq!(refusal, Refusal::BadSignature, "bit {bit}");
        tried[0] += 1;
    }
    let mut random = Seeded(72);
    let rest = bits(&order) - header;
    for _ in 0..400 {
        let bit = match random.below(rest) {
            bit if bit < signature => bit,
            bit => bit + header,
        };
        let refusal = refused(&mut session, &flipped(&order, bit));
        assert_eq!(refusal, Refusal::BadSignature, "bit {bit}");
        tried[1] += 1;
    }
    // Authentic, and for somebody else: another id, another identity key, another unwrap key.
    for number in 0..60_u8 {
        let mut terms = statement_free;
        match number % 3 {
            0 => terms.address.device = DeviceId([number; 16]),
            1 => terms.address.identity = Fingerprint([number; 32]),
            _ => terms.address.unwrap = Fingerprint([number; 32]),
        }
        let order = match number % 4 {
            0 => injecting(&authority, terms, &shipment),
            1 => with_blobs(flow::wipe_order(&authority, terms).unwrap(), None),
            2 => with_blobs(flow::remove_order(&authority, terms, &[0]).unwrap(), None),
            _ => {
                let demands = [(0, keyferry_protocol::proof::Proof::Cmac).into()];
                let order = flow::prove_order(&authority, terms, &demands, crate::ASKED);
                with_blobs(order.unwrap(), None)
            }
        };
        assert_eq!(refused(&mut session, &order), Refusal::WrongAddress);
        tried[2] += 1;
    }
    // Garbage, some of it with the front of an order, and blobs that nobody waits for.
    for _ in 0..60 {
        let mut garbage = order.clone();
        let keep = random.below(garbage.bytes.len());
        for byte in &mut garbage.bytes[keep..] {
            *byte = u8::try_from(random.below(256)).unwrap();
        }
        garbage.bytes.truncate(keep + random.below(300));
        assert_eq!(refused(&mut session, &garbage), Refusal::BadSignature);
        // Behind a refused order blobs get no answer; by themselves they get one.
        let bytes = &garbage.bytes[..garbage.bytes.len().min(100)];
        let blob = Request::Blob { bytes };
        assert_eq!(session.send(&blob, &mut quiet).unwrap(), None);
        let message = session.exchange(&Request::List, &mut quiet).unwrap();
        assert!(matches!(Reply::decode(&message), Ok(Reply::Slots { .. })));
        let message = session.exchange(&blob, &mut quiet).unwrap();
        assert_eq!(
            Reply::decode(&message).unwrap(),
            Reply::Refused(Refusal::Sequence)
        );
        tried[3] += 3;
    }
    drop(session);
    println!(
        "in QEMU: header bits {}, other bits {}, misaddressed {}, garbage {}",
        tried[0], tried[1], tried[2], tried[3]
    );
    assert_eq!(victim.scene(), before);
    assert_eq!(victim.operations(), Operations::default());

    // The same count does count: the right order, with a blob altered, is answered with a signature; a good one is opened as well.
    let altered = rewritten(&order, |header, _| header.counter += 1);
    let resigned = Order {
        signature: Signature::from_bytes(&authority.sign(&altered.bytes).unwrap()),
        ..altered
    };
    victim.refuses(&resigned, Refusal::Counter, true);
    assert_eq!(victim.operations().counts(), [0, 1, 0, 0, 0]);
    let statement = victim.enroll(&authority).unwrap();
    let shipment = wrap(&statement, &two_keys(), 1);
    let terms = flow::terms(&statement, Digest::ZERO).unwrap();
    victim.obeys(&injecting(&authority, terms, &shipment));
    assert_eq!(victim.operations().counts(), [1, 3, 0, 2, 0]);
}
