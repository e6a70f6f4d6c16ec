//! A man in the middle of the line, who rewrites whole messages. What he can forge is not signed, and nothing comes of it; what is
//! signed he cannot forge.

use std::sync::{Arc, Mutex};

use keyferry::device::DeviceError;
use keyferry::device::flow::{self, Authority as _};
use keyferry::device::session::Session;
use keyferry::device::verify::{self, SignedReceipt, Statement};
use keyferry_protocol::identity::{Challenge, DeviceId, Digest, Fingerprint, Signature};
use keyferry_protocol::message::{Hello, Reply};
use keyferry_protocol::order::Kind;
use keyferry_protocol::receipt::{
    self, Body, MAX_RECEIPT, Outcome, Refusal, State, Status, Writer,
};
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::desk::Direction;
use keyferry_tests::mitm::{Fate, Mitm, replies, reply};
use keyferry_tests::software::{SoftAuthority, proof_is_right, wrap};

use crate::{ASKED, NONCE, Victim, injecting, provisioned, quiet, two_keys, with_blobs};

/// A session with the device through these hands.
fn through(
    victim: &Victim,
    hands: impl FnMut(Direction, &mut Vec<u8>) -> Fate + Send + 'static,
) -> Session {
    Session::open(Box::new(Mitm::new(victim.port(), hands))).unwrap()
}

fn enroll(session: &mut Session, authority: &SoftAuthority) -> Result<Statement, DeviceError> {
    let unwrap = UnwrapAlgorithm::P256;
    flow::enroll(session, authority, unwrap, NONCE, &mut quiet)
}

fn untrusted<T: std::fmt::Debug>(result: Result<T, DeviceError>) -> &'static str {
    match result {
        Err(DeviceError::Untrusted { reason }) => reason,
        other => panic!("not distrusted: {other:?}"),
    }
}

fn refusal<T: std::fmt::Debug>(result: Result<T, DeviceError>) -> (Refusal, bool) {
    match result {
        Err(DeviceError::Refused { refusal, signed }) => (refusal, signed),
        other => panic!("not refused: {other:?}"),
    }
}

/// A receipt with its content changed.
pub(crate) fn forged(
    bytes: &[u8],
    change: impl FnOnce(&mut receipt::Header, &mut Body<'_>),
) -> Vec<u8> {
    let (mut header, mut body) = receipt::decode(bytes).unwrap();
    change(&mut header, &mut body);
    let mut out = [0; MAX_RECEIPT];
    let mut writer = Writer::new(&header, &mut out).unwrap();
    match &body {
        Body::Statement(statement) => writer.statement(statement, &mut out).unwrap(),
        Body::Slots(slots) => {
            writer.slot_count(slots.len(), &mut out).unwrap();
            for slot in slots {
                writer.slot(slot, &mut out).unwrap();
            }
        }
        Body::Empty => {}
    }
    let forged = out[..writer.length()].to_vec();
    assert_ne!(forged, bytes, "nothing was changed");
    forged
}

/// Hands that change every receipt and leave its signature alone.
fn forging(
    change: impl Fn(&mut receipt::Header, &mut Body<'_>) + Send + 'static,
) -> impl FnMut(Direction, &mut Vec<u8>) -> Fate + Send {
    replies(move |answer, message| {
        if let Reply::Receipt { signature, receipt } = answer {
            let receipt = forged(receipt, &change);
            *message = reply(&Reply::Receipt {
                signature,
                receipt: &receipt,
            });
        }
    })
}

/// Hands that change the greeting.
fn greeting(
    change: impl Fn(&mut Hello<'_>) + Send + 'static,
) -> impl FnMut(Direction, &mut Vec<u8>) -> Fate + Send {
    replies(move |answer, message| {
        if let Reply::Hello(mut hello) = answer {
            change(&mut hello);
            *message = reply(&Reply::Hello(hello));
        }
    })
}

type Change = fn(&mut receipt::Header, &mut Body<'_>);
type ChangeHello = fn(&mut Hello<'_>);

/// SPEC: M-11, M-25
#[test]
fn a_statement_altered_on_the_cable_is_not_believed() {
    let changes: [(&str, Change); 8] = [
        ("the unwrap key", |_, body| {
            if let Body::Statement(statement) = body {
                // The attacker's own, as long as he lives.
                let own: &'static [u8] = SoftAuthority::new(66).public_key().to_vec().leak();
                statement.unwrap_key = own;
            }
        }),
        ("the suites", |_, body| {
            if let Body::Statement(statement) = body {
                statement.suites.clear();
            }
        }),
        ("the board", |_, body| {
            if let Body::Statement(statement) = body {
                statement.board = "another";
            }
        }),
        ("the root key's class", |_, body| {
            if let Body::Statement(statement) = body {
                statement.root_key = receipt::SourceClass::Hardware;
            }
        }),
        ("the authority", |_, body| {
            if let Body::Statement(statement) = body {
                statement.authority = Fingerprint([7; 32]);
            }
        }),
        ("the epoch", |_, body| {
            if let Body::Statement(statement) = body {
                statement.epoch += 1;
            }
        }),
        ("the counter", |header, _| header.counter += 1),
        ("the state", |header, _| header.state = State::Locked),
    ];
    for victim in Victim::both(80) {
        let authority = SoftAuthority::new(0);
        victim.enroll(&authority).unwrap();
        for (what, change) in changes {
            let mut session = through(&victim, forging(change));
            let reason = untrusted(enroll(&mut session, &authority));
            assert!(reason.contains("signature"), "{what}: {reason}");
        }
        // The device is as it was, and without him all is well.
        assert_eq!(victim.scene().state, State::Enrolled);
        victim.enroll(&authority).unwrap();
    }
}

/// SPEC: M-11, M-13, M-17
#[test]
fn a_forged_greeting_moves_nothing() {
    for mut victim in Victim::both(81) {
        let authority = SoftAuthority::new(0);
        let statement = victim.enroll(&authority).unwrap();
        victim.restart();
        let before = victim.scene();
        let changes: [(ChangeHello, Refusal); 6] = [
            (
                |hello| hello.unwrap = Fingerprint([6; 32]),
                Refusal::WrongAddress,
            ),
            (
                |hello| hello.identity = Fingerprint([6; 32]),
                Refusal::WrongAddress,
            ),
            (
                |hello| hello.device = DeviceId([6; 16]),
                Refusal::WrongAddress,
            ),
            (|hello| hello.counter += 1000, Refusal::Counter),
            (
                |hello| hello.counter = hello.counter.wrapping_sub(1),
                Refusal::Counter,
            ),
            (|hello| hello.challenge = Challenge([6; 32]), Refusal::Stale),
        ];
        for (change, expected) in changes {
            let mut session = through(&victim, greeting(change));
            // The identity key that would vouch for a signed refusal stands in a statement only.
            let found = refusal(enroll(&mut session, &authority));
            assert_eq!(found, (expected, false));
            drop(session);
            assert_eq!(victim.scene(), before);
        }
        assert_eq!(victim.operations().unwrap, 0);
        let after = victim.enroll(&authority).unwrap();
        assert_eq!(after.standing.counter, statement.standing.counter + 1);
    }
}

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
        let terms = flow::terms(&statement, Digest::ZERO);
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
                if let Ok(Reply::Accepted | Reply::Receipt { .. } | Reply::Refused(_)) =
                    Reply::decode(bytes)
                {
                    bytes.clone_from(&message);
                }
            } else if matches!(
                keyferry_protocol::message::Request::decode(bytes),
                Ok(keyferry_protocol::message::Request::Order { .. })
            ) {
                *bytes =
                    keyferry_tests::mitm::request(&keyferry_protocol::message::Request::Blob {
                        bytes: &[],
                    });
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

/// SPEC: M-11, M-27
#[test]
fn a_status_not_applied_cannot_be_forged() {
    for victim in Victim::both(84) {
        let authority = SoftAuthority::new(0);
        let statement = victim.enroll(&authority).unwrap();
        let identity = statement.identity_key.clone();
        let shipment = wrap(&statement, &two_keys(), 1);
        let terms = flow::terms(&statement, Digest::ZERO);
        let order = injecting(&authority, terms, &shipment);
        let ask = |session: &mut Session, nonce| {
            flow::status(session, &identity, order.digest(), Challenge([nonce; 32]))
        };
        // What the device says before, the attacker keeps.
        let tape = Arc::new(Mutex::new(Vec::new()));
        let kept = tape.clone();
        let record = replies(move |answer, message| {
            if matches!(answer, Reply::Status { .. }) {
                kept.lock().unwrap().clone_from(message);
            }
        });
        let (applied, _) = ask(&mut through(&victim, record), 1).unwrap();
        assert!(!applied);
        let old = tape.lock().unwrap().clone();
        victim.obeys(&order);

        let replay = replies(move |answer, message| {
            if matches!(answer, Reply::Status { .. }) {
                message.clone_from(&old);
            }
        });
        let found = untrusted(ask(&mut through(&victim, replay), 2));
        assert!(found.contains("another question"), "{found}");

        type Forgery = fn(&mut Status);
        let forgeries: [Forgery; 4] = [
            |status| status.applied = false,
            |status| status.counter = 0,
            |status| status.state = State::Enrolled,
            |status| status.order = Digest([1; 32]),
        ];
        for change in forgeries {
            let hands = replies(move |answer, message| {
                if let Reply::Status { signature, status } = answer {
                    let mut status = Status::decode(status).unwrap();
                    change(&mut status);
                    let mut buffer = [0; 512];
                    let status = status.encode(&mut buffer).unwrap();
                    *message = reply(&Reply::Status { signature, status });
                }
            });
            let found = untrusted(ask(&mut through(&victim, hands), 3));
            assert!(found.contains("signature"), "{found}");
        }
        let (applied, standing) = ask(&mut victim.session(), 4).unwrap();
        assert!(applied);
        assert_eq!(standing.state, State::Provisioned);
    }
}

/// SPEC: M-15, M-26
#[test]
fn a_receipt_that_is_kept_from_the_station_comes_with_the_order_sent_again() {
    for mut victim in Victim::both(85) {
        let authority = SoftAuthority::new(0);
        let statement = victim.enroll(&authority).unwrap();
        let keys = two_keys();
        let shipment = wrap(&statement, &keys, 1);
        let mut kept = false;
        let mut session = through(&victim, move |direction, message| {
            let is_receipt = matches!(Reply::decode(message), Ok(Reply::Receipt { .. }));
            if direction == Direction::Up && is_receipt && !std::mem::replace(&mut kept, true) {
                Fate::Cut
            } else {
                Fate::Pass
            }
        });
        let proofs = flow::inject(
            &mut session,
            &authority,
            &statement,
            &shipment,
            ASKED,
            &mut quiet,
        )
        .unwrap();
        drop(session);
        assert_eq!(proofs.reports.len(), keys.len());
        for (key, report) in keys.iter().zip(&proofs.reports) {
            assert!(proof_is_right(key, report, &proofs.order, &ASKED));
        }
        // Once.
        assert_eq!(proofs.standing.counter, statement.standing.counter + 1);
        assert_eq!(victim.scene().counter, statement.standing.counter + 1);
        assert_eq!(victim.operations().unwrap, 1);
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
        let terms = flow::terms(&statement, Digest::ZERO);
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
    let terms = flow::terms(&statement, Digest::ZERO);
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
