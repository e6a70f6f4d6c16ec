//! A man in the middle of the line, who rewrites whole messages. What he can forge is not signed, and nothing comes of it; what is
//! signed he cannot forge.

use std::sync::{Arc, Mutex};

use keyferry::device::DeviceError;
use keyferry::device::flow::{self, Authority as _};
use keyferry::device::session::Session;
use keyferry::device::verify::Statement;
use keyferry_protocol::identity::{Challenge, DeviceId, Digest, Fingerprint};
use keyferry_protocol::message::{Hello, Reply};
use keyferry_protocol::receipt::{self, Body, MAX_RECEIPT, Refusal, State, Status, Writer};
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::desk::Direction;
use keyferry_tests::mitm::{Fate, Mitm, replies, reply};
use keyferry_tests::software::{SoftAuthority, proof_is_right, wrap};

use crate::{ASKED, NONCE, Victim, injecting, quiet, two_keys};

/// A session with the device through these hands.
pub(crate) fn through(
    victim: &Victim,
    hands: impl FnMut(Direction, &mut Vec<u8>) -> Fate + Send + 'static,
) -> Session {
    Session::open(Box::new(Mitm::new(victim.port(), hands))).unwrap()
}

pub(crate) fn enroll(
    session: &mut Session,
    authority: &SoftAuthority,
) -> Result<Statement, DeviceError> {
    let unwrap = UnwrapAlgorithm::P256;
    flow::enroll(session, authority, unwrap, NONCE, &mut quiet)
}

pub(crate) fn untrusted<T: std::fmt::Debug>(result: Result<T, DeviceError>) -> &'static str {
    match result {
        Err(DeviceError::Untrusted { reason }) => reason,
        other => panic!("not distrusted: {other:?}"),
    }
}

pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<T, DeviceError>) -> (Refusal, bool) {
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
        Body::Recovered(recovered) => writer.recovered(recovered, &mut out).unwrap(),
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
        let changes: [(ChangeHello, Refusal); 5] = [
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

/// SPEC: M-11, M-27
#[test]
fn a_status_not_applied_cannot_be_forged() {
    for victim in Victim::both(84) {
        let authority = SoftAuthority::new(0);
        let statement = victim.enroll(&authority).unwrap();
        let identity = statement.identity_key.clone();
        let shipment = wrap(&statement, &two_keys(), 1);
        let terms = flow::terms(&statement, Digest::ZERO).unwrap();
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
