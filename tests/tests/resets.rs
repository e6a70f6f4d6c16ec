//! A device that is restarted in mid-session: whoever called the station notices nothing.

use std::sync::{Arc, Mutex};

use keyferry::device::flow::{self, ORDERS_AGAIN, Proofs, SignedOrder};
use keyferry::device::session::Session;
use keyferry::device::verify::{SignedReceipt, Statement, refusal_of};
use keyferry::device::{DeviceError, MakeOrder, Witness};
use keyferry_protocol::identity::{Challenge, Digest};
use keyferry_protocol::message::{Progress, Request};
use keyferry_protocol::order::{self, Kind};
use keyferry_protocol::receipt::{Refusal, State};
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::desk::{Desk, Direction, OnDesk};
use keyferry_tests::mitm::{Fate, Mitm};
use keyferry_tests::software::{SoftAuthority, aes_key, hmac_key, proof_is_right, wrap};

fn quiet(_: Progress) {}

/// The number of the board.
const NUMBER: u8 = 1;

/// What was written down: each order, and what its receipts said.
#[derive(Clone, Default)]
struct Book(Arc<Mutex<Vec<Line>>>);

struct Line {
    order: Digest,
    kind: Kind,
    counter: u32,
    receipts: Vec<Option<Refusal>>,
}

impl Witness for Book {
    fn order(&mut self, make: &mut MakeOrder<'_>) -> Result<SignedOrder, DeviceError> {
        let made = make(Digest::ZERO)?;
        let header = order::decode(&made.bytes).unwrap().0;
        self.0.lock().unwrap().push(Line {
            order: made.digest(),
            kind: header.kind,
            counter: header.counter,
            receipts: Vec::new(),
        });
        Ok(made)
    }

    fn receipt(&mut self, order: &Digest, receipt: &SignedReceipt) -> Result<(), DeviceError> {
        let mut lines = self.0.lock().unwrap();
        let line = lines.iter_mut().find(|line| line.order == *order).unwrap();
        line.receipts.push(refusal_of(receipt));
        Ok(())
    }
}

impl Book {
    fn orders(&self, kind: Kind) -> usize {
        let lines = self.0.lock().unwrap();
        lines.iter().filter(|line| line.kind == kind).count()
    }
}

/// A session with a device that is restarted whenever `when` says so of a message that is about to pass.
fn session(
    device: &OnDesk,
    mut when: impl FnMut(Direction, &[u8]) -> bool + Send + 'static,
) -> (Session, Book) {
    let board = device.clone();
    let hands = move |direction, message: &mut Vec<u8>| {
        if when(direction, message) {
            board.restart(NUMBER);
        }
        Fate::Pass
    };
    let port = Mitm::new(device.port(), hands);
    let mut session = Session::open(Box::new(port)).unwrap();
    let book = Book::default();
    session.set_witness(Box::new(book.clone()));
    (session, book)
}

fn enroll(session: &mut Session) -> Result<Statement, DeviceError> {
    let (unwrap, nonce) = (UnwrapAlgorithm::P256, Challenge([9; 32]));
    flow::enroll(session, &SoftAuthority::new(0), unwrap, nonce, &mut quiet)
}

fn inject(session: &mut Session, statement: &Statement) -> Result<Proofs, DeviceError> {
    let authority = SoftAuthority::new(0);
    let keys = [aes_key(16, 1), hmac_key(2)];
    let shipment = wrap(statement, &keys, 1);
    let challenge = Challenge([3; 32]);
    let proofs = flow::inject(
        session, &authority, statement, &shipment, challenge, &mut quiet,
    )?;
    for (key, report) in keys.iter().zip(&proofs.reports) {
        assert!(proof_is_right(
            key,
            report,
            &proofs.order,
            &proofs.challenge
        ));
    }
    Ok(proofs)
}

/// Restarts at each message there is, and at each two of them: all is done once, and every order is in the book.
///
/// SPEC: M-15, M-16, M-17
#[test]
fn a_restart_anywhere_is_not_noticed() {
    let (mut runs, mut made_again) = (0, 0);
    for second in [1, 2, 5, usize::MAX / 2] {
        for first in 2.. {
            let device = OnDesk::start(Desk::new(NUMBER, 32));
            let passed = Arc::new(Mutex::new(0));
            let count = Arc::clone(&passed);
            let (mut session, book) = session(&device, move |_, _| {
                let mut passed = count.lock().unwrap();
                *passed += 1;
                *passed == first + 1 || *passed == first + 1 + second
            });
            let statement = enroll(&mut session).unwrap();
            assert_eq!(statement.standing.state, State::Enrolled);
            let proofs = inject(&mut session, &statement).unwrap();
            assert_eq!(proofs.standing.counter, 2, "each order is done once");
            assert_eq!(flow::list(&mut session).unwrap().len(), 2);
            let lines = book.0.lock().unwrap();
            for line in lines.iter().filter(|line| line.kind == Kind::Inject) {
                assert_eq!(line.counter, 2);
            }
            let applied = lines
                .iter()
                .filter(|line| line.kind == Kind::Inject && line.receipts.contains(&None));
            assert_eq!(applied.count(), 1);
            made_again += lines.len() - 2;
            runs += 1;
            if *passed.lock().unwrap() < first {
                break;
            }
        }
    }
    println!("{runs} jobs with one or two restarts, {made_again} orders made again");
    assert!(runs >= 40 && made_again > 10);
}

/// A device that restarts whenever blobs come: the station gives up, and the device is as before.
#[test]
fn a_device_that_never_gets_through_is_given_up() {
    let device = OnDesk::start(Desk::new(NUMBER, 32));
    let statement = enroll(&mut Session::open(device.port()).unwrap()).unwrap();
    let mut taken = false;
    let (mut session, book) = session(&device, move |direction, message| {
        // Once the order is taken up, and not when it is sent again.
        let request = Request::decode(message);
        match (direction, request) {
            (Direction::Down, Ok(Request::Order { .. })) => taken = !taken,
            (Direction::Down, Ok(Request::Blob { .. })) => return taken,
            (Direction::Down | Direction::Up, _) => {}
        }
        false
    });
    let mut known = statement;
    known.standing.challenge = session.greeting().challenge;
    let result = inject(&mut session, &known);
    assert!(
        matches!(result, Err(DeviceError::NotDone { .. })),
        "{result:?}"
    );
    assert_eq!(book.orders(Kind::Inject), 1 + ORDERS_AGAIN);
    let lines = book.0.lock().unwrap();
    for line in &*lines {
        assert_eq!(line.receipts, [Some(Refusal::Stale)]);
    }
    session.greet_again().unwrap();
    assert_eq!(session.greeting().counter, 1);
    assert!(flow::list(&mut session).unwrap().is_empty());
}

/// Questions are asked again, too.
#[test]
fn a_question_survives_a_restart() {
    let device = OnDesk::start(Desk::new(NUMBER, 32));
    let mut once = true;
    let (mut session, _) = session(&device, move |_, message| {
        matches!(Request::decode(message), Ok(Request::List)) && std::mem::take(&mut once)
    });
    assert!(flow::list(&mut session).unwrap().is_empty());
}
