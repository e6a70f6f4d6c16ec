//! Answers that are lost on the way: the station sends the same order again, and the device does it once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use keyferry::device::DeviceError;
use keyferry::device::flow;
use keyferry::device::port::Port;
use keyferry::device::session::Session;
use keyferry::device::verify::Statement;
use keyferry_protocol::identity::Challenge;
use keyferry_protocol::receipt::{Refusal, State};
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::desk::{Desk, Direction, OnDesk};
use keyferry_tests::software::{SoftAuthority, aes_key, hmac_key, proof_is_right, wrap};

/// Pieces that are lost: more than both ends send while they wait for each other.
const OUTAGE: usize = 45;

fn quiet(_: keyferry_protocol::message::Progress) {}

/// A port on which, after the greeting, nothing comes back from the piece with number `from` on, until the device has given its
/// session up.
fn deaf_port(
    device: &OnDesk,
    from: usize,
    greeted: &Arc<AtomicBool>,
) -> (Box<dyn Port>, Arc<AtomicUsize>) {
    let lost = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&lost);
    let greeted = Arc::clone(greeted);
    let mut pieces = 0;
    let port = device.port_through(move |direction, bytes| {
        if direction == Direction::Up && greeted.load(Ordering::Relaxed) {
            pieces += 1;
            if (from..from + OUTAGE).contains(&pieces) {
                bytes.clear();
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    (port, lost)
}

/// SPEC: M-15
#[test]
fn every_answer_can_be_lost_and_each_order_is_done_once() {
    let authority = SoftAuthority::new(0);
    let keys = [aes_key(16, 1), hmac_key(2)];
    let mut enrolled_again = 0;
    let mut injected_again = 0;
    for from in 1..14 {
        let device = OnDesk::start(Desk::new(1, 32));
        let greeted = Arc::new(AtomicBool::new(false));
        let (port, lost) = deaf_port(&device, from, &greeted);
        let mut session = Session::open(port).unwrap();
        greeted.store(true, Ordering::Relaxed);
        let nonce = Challenge([9; 32]);
        let unwrap = UnwrapAlgorithm::P256;
        let statement = flow::enroll(&mut session, &authority, unwrap, nonce, &mut quiet).unwrap();
        if lost.load(Ordering::Relaxed) == OUTAGE {
            enrolled_again += 1;
        }
        assert_eq!(statement.standing.state, State::Enrolled);
        assert_eq!(statement.standing.counter, 1);
        let shipment = wrap(&statement, &keys, 1);
        let challenge = Challenge([3; 32]);
        let inject = |session: &mut Session, statement: &Statement| {
            flow::inject(
                session, &authority, statement, &shipment, challenge, &mut quiet,
            )
        };
        let proofs = inject(&mut session, &statement).unwrap();
        if lost.load(Ordering::Relaxed) == OUTAGE {
            injected_again += 1;
        }
        for (key, report) in keys.iter().zip(&proofs.reports) {
            assert!(proof_is_right(
                key,
                report,
                &proofs.order,
                &proofs.challenge
            ));
        }
        assert_eq!(proofs.standing.counter, 2, "each order is done once");
        assert_eq!(flow::list(&mut session).unwrap().len(), 2);
    }
    println!(
        "sessions that lost an answer: {enrolled_again} at the latest in Enroll, {injected_again} in all"
    );
    assert!(enrolled_again > 0 && injected_again > enrolled_again);
}

/// The device was reset behind the station's back: the challenge in the order is not its own any more, and nothing on the line has
/// told. The signed refusal tells, and the order is made anew.
#[test]
fn an_order_for_a_challenge_of_before_a_reset_is_made_anew() {
    let device = OnDesk::start(Desk::new(1, 32));
    let authority = SoftAuthority::new(0);
    let (nonce, kind) = (Challenge([9; 32]), UnwrapAlgorithm::P256);
    let mut session = Session::open(device.port()).unwrap();
    let statement = flow::enroll(&mut session, &authority, kind, nonce, &mut |_| {}).unwrap();
    drop(session);
    let device = OnDesk::start(Desk::with_flash(1, device.stop()));
    let mut session = Session::open(device.port()).unwrap();
    assert_ne!(session.greeting().challenge, statement.standing.challenge);
    let shipment = wrap(&statement, &[aes_key(16, 1)], 1);
    let inject = |session: &mut Session, statement| {
        let challenge = Challenge([3; 32]);
        flow::inject(
            session,
            &authority,
            statement,
            &shipment,
            challenge,
            &mut |_| {},
        )
    };
    let proofs = inject(&mut session, &statement).unwrap();
    assert_eq!(proofs.standing.counter, statement.standing.counter + 1);
    // Once the device has moved on, the same statement is too old for anything.
    let refused = inject(&mut session, &statement);
    assert!(
        matches!(
            refused,
            Err(DeviceError::Refused {
                refusal: Refusal::Stale,
                signed: true
            })
        ),
        "{refused:?}"
    );
}
