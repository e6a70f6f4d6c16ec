//! Receipts that are not what the station asked for: old ones, other devices', forged ones, and every one with a flipped bit.

use keyferry::device::DeviceError;
use keyferry::device::flow::{self, Authority as _};
use keyferry::device::verify::{self, SignedReceipt};
use keyferry_protocol::identity::{Challenge, Digest, Signature};
use keyferry_protocol::message::{Reply, Request};
use keyferry_protocol::order::Kind;
use keyferry_protocol::receipt::{Body, Outcome, Refusal};
use keyferry_tests::desk::Direction;
use keyferry_tests::mitm::{Fate, replies, reply, request};
use keyferry_tests::software::{SoftAuthority, wrap};

use crate::cable::{enroll, forged, refusal, through, untrusted};
use crate::{ASKED, NONCE, Victim, injecting, provisioned, quiet, two_keys, with_blobs};

/// SPEC: M-25, M-26
#[test]
fn an_old_answer_or_another_devices_is_not_believed() {
    for (victim, other) in Victim::both(82).into_iter().zip(Victim::both(83)) {
        let authority = SoftAuthority::new(0);
        let (victim, statement) = provisioned(victim, &authority);
        let (_, elsewhere) = provisioned(other, &authority);
        // A statement of before, with another nonce's answer asked for; and that of another device.
        for (old, reason) in [
            (&statement.receipt, "another order"),
            (&elsewhere.receipt, "another device's"),
        ] {
            let message = reply(&Reply::Receipt {
                signature: old.signature,
                receipt: &old.bytes,
            });
            let hands = replies(move |answer, bytes| {
                if matches!(answer, Reply::Receipt { .. }) {
                    bytes.clone_from(&message);
                }
            });
            let mut session = through(&victim, hands);
            let found = untrusted(enroll(&mut session, &authority));
            assert!(found.contains(reason), "{found}");
        }
        // The receipt of one Inject as that of the next.
        let statement = victim.enroll(&authority).unwrap();
        let first = wrap(&statement, &two_keys(), 2);
        let terms = flow::terms(&statement, Digest::ZERO).unwrap();
        let receipt = victim
            .obeys(&injecting(&authority, terms, &first))
            .receipt();
        let statement = victim.enroll(&authority).unwrap();
        let message = reply(&Reply::Receipt {
            signature: receipt.signature,
            receipt: &receipt.bytes,
        });
        let before = victim.scene();
        // He keeps the order away from the device, too: it is all his.
        let hands = move |direction, bytes: &mut Vec<u8>| {
            if direction == Direction::Up {
                if let Ok(Reply::Receipt { .. } | Reply::Refused(_)) = Reply::decode(bytes) {
                    bytes.clone_from(&message);
                }
            } else if matches!(Request::decode(bytes), Ok(Request::Order { .. })) {
                *bytes = request(&Request::Blob { bytes: &[] });
            }
            Fate::Pass
        };
        let second = wrap(&statement, &two_keys(), 3);
        let mut session = through(&victim, hands);
        let result = flow::inject(
            &mut session,
            &authority,
            &statement,
            &second,
            ASKED,
            &mut quiet,
        );
        let found = untrusted(result.map(|proofs| proofs.order));
        assert!(found.contains("another order"), "{found}");
        drop(session);
        assert_eq!(victim.scene(), before);
    }
}

/// The attacker answers for the device: no word of his is taken for a receipt, and none of his refusals hides what was done.
///
/// SPEC: M-11, M-26
#[test]
fn a_refusal_or_a_receipt_of_his_own_hides_and_proves_nothing() {
    for victim in Victim::both(86) {
        let authority = SoftAuthority::new(0);
        let attacker = SoftAuthority::new(66);
        let statement = victim.enroll(&authority).unwrap();
        let shipment = wrap(&statement, &two_keys(), 1);
        let terms = flow::terms(&statement, Digest::ZERO).unwrap();
        let order = flow::inject_order(&authority, terms, &shipment, ASKED).unwrap();
        let blobs: Vec<_> = shipment.blobs().collect();

        // It is done, and he says it was refused.
        let hands = replies(|answer, message| {
            if matches!(answer, Reply::Receipt { .. }) {
                *message = reply(&Reply::Refused(Refusal::Unwrap));
            }
        });
        let mut session = through(&victim, hands);
        let result = flow::carry_out(&mut session, &order, blobs.iter().copied(), &mut quiet);
        assert_eq!(refusal(result), (Refusal::Unwrap, false));
        drop(session);
        let nonce = Challenge([5; 32]);
        let (applied, _) = flow::status(
            &mut victim.session(),
            &statement.identity_key,
            order.digest(),
            nonce,
        )
        .unwrap();
        assert!(applied);

        // The stored receipt, signed anew by his key; and as a refusal with a signature.
        let stored = victim.obeys(&with_blobs(order.clone(), Some(&shipment)));
        let stored = stored.receipt();
        let his = |bytes: Vec<u8>| SignedReceipt {
            signature: Signature::from_bytes(&attacker.sign(&bytes).unwrap()),
            bytes,
        };
        let judged = |receipt: &SignedReceipt| {
            verify::slots(receipt, &statement, &order.digest(), Kind::Inject).map(|_| ())
        };
        let fingerprint = verify::fingerprint(attacker.public_key());
        let forgeries = [
            his(stored.bytes.clone()),
            his(forged(&stored.bytes, |header, _| {
                header.identity = fingerprint;
            })),
            his(forged(&stored.bytes, |header, body| {
                header.outcome = Outcome::Refused(Refusal::Unwrap);
                *body = Body::Empty;
            })),
            SignedReceipt {
                bytes: stored.bytes.clone(),
                signature: Signature {
                    r: [0; 32],
                    s: [0; 32],
                },
            },
        ];
        for forgery in &forgeries {
            assert!(untrusted(judged(forgery)).contains("signature"));
        }
        judged(&SignedReceipt {
            bytes: stored.bytes,
            signature: stored.signature,
        })
        .unwrap();
    }
}

/// SPEC: M-25, M-26
#[test]
fn every_flipped_bit_of_a_receipt_is_disbelieved() {
    let victim = Victim::desk(87);
    let authority = SoftAuthority::new(0);
    let statement = victim.enroll(&authority).unwrap();
    let shipment = wrap(&statement, &two_keys(), 1);
    let terms = flow::terms(&statement, Digest::ZERO).unwrap();
    let order = injecting(&authority, terms, &shipment);
    let receipt = victim.obeys(&order).receipt();
    let injected = SignedReceipt {
        bytes: receipt.bytes,
        signature: receipt.signature,
    };
    let trusted = verify::fingerprint(authority.public_key());
    let judge_statement = |receipt: &SignedReceipt| {
        let (id, order) = (statement.device, &statement.order);
        verify::statement(receipt, id, order, NONCE, trusted).map(|_| ())
    };
    let judge_inject = |receipt: &SignedReceipt| {
        let digest = order.digest();
        flow::injected(receipt, &statement, &digest, &shipment, ASKED).map(|_| ())
    };
    type Judge<'a> = &'a dyn Fn(&SignedReceipt) -> Result<(), DeviceError>;
    let mut tried = 0;
    for (good, judge) in [
        (&statement.receipt, &judge_statement as Judge<'_>),
        (&injected, &judge_inject),
    ] {
        judge(good).unwrap();
        let signature = 8 * Signature::LENGTH;
        for bit in 0..signature + 8 * good.bytes.len() {
            let mut altered = good.clone();
            if bit < signature {
                let mut bytes = good.signature.to_bytes();
                bytes[bit / 8] ^= 1 << (bit % 8);
                altered.signature = Signature::from_bytes(&bytes);
            } else {
                let bit = bit - signature;
                altered.bytes[bit / 8] ^= 1 << (bit % 8);
            }
            match judge(&altered) {
                Err(DeviceError::Untrusted { .. }) => {}
                // Read before the signature is looked at, and called unsigned.
                Err(DeviceError::Refused { signed: false, .. }) => {}
                other => panic!("bit {bit}: {other:?}"),
            }
            tried += 1;
        }
    }
    println!("flipped bits of receipts: {tried}");
}
