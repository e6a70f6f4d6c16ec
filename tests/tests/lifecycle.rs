//! What each kind of order does to a device, in each state: the table of SPEC.md walked whole, `Wipe` and `Rotate` with all
//! that must outlive them, and power cut in the middle of either.

use std::path::Path;

use keyferry::device::flow::{self, Authority, Shipment};
use keyferry::device::session::Session;
use keyferry::device::verify::{self, Statement};
use keyferry_firmware::store::nor_fake::Cut;
use keyferry_protocol::identity::{Challenge, Fingerprint, Hint};
use keyferry_protocol::message::{Reply, Request};
use keyferry_protocol::order::{
    Body, Enroll, Freshness, Header, Kind, Prove, Recover, Remove, Rotate,
};
use keyferry_protocol::receipt::{self, Refusal, State};
use keyferry_protocol::suite::{Suite, UnwrapAlgorithm};
use keyferry_tests::desk::{Desk, Flash, OnDesk};
use keyferry_tests::orders::{Answer, Order, fresh, open};
use keyferry_tests::software::{SoftAuthority, aes_key, hmac_key, wrap};

const PAGES: usize = 32;
const NONCE: Challenge = Challenge([9; 32]);

fn enroll(device: &OnDesk, authority: &SoftAuthority) -> Statement {
    let unwrap = UnwrapAlgorithm::P256;
    flow::enroll(&mut open(device), authority, unwrap, NONCE, &mut |_| {}).unwrap()
}

fn shipment(statement: &Statement, version: u32) -> Shipment {
    wrap(statement, &[aes_key(16, 1), hmac_key(2)], version)
}

fn enroll_body(authority: &SoftAuthority) -> Body<'_> {
    Body::Enroll(Enroll {
        authority: authority.public_key(),
        nonce: NONCE,
        unwrap: UnwrapAlgorithm::P256,
    })
}

fn rotation(to: &SoftAuthority) -> Body<'_> {
    Body::Rotate(Rotate {
        authority: to.public_key(),
    })
}

fn recovery(authority: &SoftAuthority) -> Body<'_> {
    Body::Recover(Recover {
        authority: authority.public_key(),
    })
}

fn remove(slots: &[u8]) -> Body<'static> {
    Body::Remove(Remove {
        slots: slots.iter().copied().collect(),
    })
}

/// A fresh order with this body.
fn order(device: &OnDesk, session: &Session, authority: &SoftAuthority, body: &Body<'_>) -> Order {
    Order::new(authority, fresh(device, session, body.kind()), body)
}

/// Sends a fresh order with this body.
fn send(device: &OnDesk, authority: &SoftAuthority, body: &Body<'_>) -> Answer {
    let mut session = open(device);
    order(device, &session, authority, body).send(&mut session)
}

fn inject(device: &OnDesk, authority: &SoftAuthority, shipment: &Shipment) -> Answer {
    let mut session = open(device);
    let header = fresh(device, &session, Kind::Inject);
    Order::inject(authority, header, shipment).send(&mut session)
}

fn state(device: &OnDesk) -> State {
    open(device).greeting().state
}

/// Enrolled, with two keys in it.
fn provisioned(desk: Desk) -> (OnDesk, SoftAuthority, Statement) {
    let device = OnDesk::start(desk);
    let authority = SoftAuthority::new(0);
    let statement = enroll(&device, &authority);
    let answer = inject(&device, &authority, &shipment(&statement, 1));
    assert_eq!(answer.refusal(), None);
    (device, authority, statement)
}

const STATES: [State; 5] = [
    State::Blank,
    State::Enrolled,
    State::Provisioned,
    State::Locked,
    State::Quarantined,
];

const KINDS: [Kind; 7] = [
    Kind::Enroll,
    Kind::Inject,
    Kind::Prove,
    Kind::Remove,
    Kind::Rotate,
    Kind::Lock,
    Kind::Wipe,
];

/// The table of SPEC.md: each kind with the states in which it is allowed.
fn table() -> Vec<(Kind, Vec<State>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/SPEC.md");
    let text = std::fs::read_to_string(path).unwrap();
    let mut rows = text.lines().map(|line| {
        let cells = line
            .strip_prefix('|')
            .and_then(|rest| rest.strip_suffix('|'));
        cells.map(|cells| cells.split('|').map(str::trim).collect::<Vec<_>>())
    });
    let heads: Vec<_> = rows
        .by_ref()
        .flatten()
        .find(|cells| cells.contains(&"blank"))
        .expect("the table is there");
    let states: Vec<State> = heads[1..]
        .iter()
        .map(|head| *STATES.iter().find(|state| state.name() == *head).unwrap())
        .collect();
    let mut table = Vec::new();
    for cells in rows.skip(1).map_while(|cells| cells) {
        let allowed: Vec<State> = states
            .iter()
            .zip(&cells[1..])
            .filter_map(|(state, cell)| (!cell.is_empty()).then_some(*state))
            .collect();
        for name in cells[0].split(", ") {
            let kind = KINDS.iter().find(|kind| kind.name() == name.to_lowercase());
            table.push((*kind.expect("a kind of order"), allowed.clone()));
        }
    }
    table
}

/// Flash of device 1 in each state.
fn flashes(authority: &SoftAuthority) -> Vec<(State, Flash, Option<Statement>)> {
    let device = OnDesk::start(Desk::new(1, PAGES));
    let mut flashes = Vec::new();
    let mut keep = |state, device: OnDesk, statement: Option<&Statement>| {
        let flash = device.stop();
        flashes.push((state, flash.clone(), statement.cloned()));
        OnDesk::start(Desk::with_flash(1, flash))
    };
    let device = keep(State::Blank, device, None);
    let statement = enroll(&device, authority);
    let device = keep(State::Enrolled, device, Some(&statement));
    let answer = inject(&device, authority, &shipment(&statement, 1));
    assert_eq!(answer.refusal(), None);
    let device = keep(State::Provisioned, device, Some(&statement));
    assert_eq!(send(&device, authority, &Body::Lock).refusal(), None);
    let device = keep(State::Locked, device, Some(&statement));
    // The flash of another board.
    let other = OnDesk::start(Desk::new(2, PAGES));
    enroll(&other, authority);
    keep(State::Quarantined, other, None);
    drop(device);
    flashes
}

/// SPEC: M-28
#[test]
fn every_kind_of_order_in_every_state_is_as_the_specification_says() {
    let authority = SoftAuthority::new(0);
    let next = SoftAuthority::new(1);
    let table = table();
    assert_eq!(table.len(), KINDS.len());
    let mut seen = 0;
    for (state, flash, statement) in flashes(&authority) {
        for (kind, allowed) in &table {
            let device = OnDesk::start(Desk::with_flash(1, flash.clone()));
            let mut session = open(&device);
            assert_eq!(session.greeting().state, state);
            let before = device.flash();
            let order = match kind {
                Kind::Enroll => order(&device, &session, &authority, &enroll_body(&authority)),
                Kind::Inject => {
                    let header = fresh(&device, &session, Kind::Inject);
                    // Without a device's statement there is nothing to wrap toward; a certificate alone will do.
                    let shipment = statement.as_ref().map_or_else(
                        || Shipment {
                            suite: Suite::EcdhP256Null,
                            certificate: Some(b"certificate".to_vec()),
                            kek: Vec::new(),
                            parcels: Vec::new(),
                        },
                        |statement| shipment(statement, 2),
                    );
                    Order::inject(&authority, header, &shipment)
                }
                Kind::Prove => {
                    let body = Body::Prove(Prove {
                        challenge: NONCE,
                        slots: [].into_iter().collect(),
                        questions: [].into_iter().collect(),
                    });
                    order(&device, &session, &authority, &body)
                }
                Kind::Remove => order(&device, &session, &authority, &remove(&[])),
                Kind::Rotate => {
                    order(&device, &session, &authority, &rotation(&next)).seconded(&next)
                }
                Kind::Lock => order(&device, &session, &authority, &Body::Lock),
                Kind::Wipe if state == State::Quarantined => {
                    order(&device, &session, &authority, &recovery(&authority))
                }
                Kind::Wipe => order(&device, &session, &authority, &Body::Wipe),
            };
            let answer = order.send(&mut session);
            if allowed.contains(&state) {
                assert_eq!(answer.refusal(), None, "{kind:?} while {state:?}");
            } else {
                let signed = !matches!(state, State::Blank | State::Quarantined);
                assert_eq!(
                    answer.refusal(),
                    Some((Refusal::State, signed)),
                    "{kind:?} while {state:?}"
                );
                assert_eq!(device.flash(), before, "{kind:?} while {state:?}");
            }
            seen += 1;
        }
    }
    assert_eq!(seen, STATES.len() * KINDS.len());
}

/// SPEC: M-17, M-18
#[test]
fn with_a_challenge_the_counter_is_the_next_one_and_no_other() {
    let (device, authority, statement) = provisioned(Desk::new(1, PAGES));
    let counter = open(&device).greeting().counter;
    for wrong in [0, counter, counter + 2, counter + 1024, u32::MAX] {
        let mut session = open(&device);
        let mut header = fresh(&device, &session, Kind::Remove);
        header.counter = wrong;
        let before = device.flash();
        let receipt = Order::new(&authority, header, &remove(&[]))
            .send(&mut session)
            .receipt();
        let told = receipt.verified(&statement.identity_key);
        assert_eq!(told.outcome, receipt::Outcome::Refused(Refusal::Counter));
        assert_eq!(told.counter, counter, "the refusal tells the true counter");
        assert_eq!(device.flash(), before);
    }
    assert_eq!(send(&device, &authority, &remove(&[])).refusal(), None);
    assert_eq!(open(&device).greeting().counter, counter + 1);
}

/// SPEC: M-16, M-17
#[test]
fn a_detached_order_passes_once_within_bound_and_step() {
    let (device, authority, _) = provisioned(Desk::new(1, PAGES));
    let detached = |below, counter| {
        let header = Header {
            freshness: Freshness::Detached { below },
            counter,
            ..fresh(&device, &open(&device), Kind::Remove)
        };
        Order::new(&authority, header, &remove(&[]))
    };
    let counter = open(&device).greeting().counter;
    let too_far = detached(u32::MAX, counter + 1025);
    let refused = Some((Refusal::Counter, true));
    assert_eq!(too_far.send_to(&device).refusal(), refused);
    // Two prepared for the same counter: the second comes to a device that has moved.
    let (first, second) = (
        detached(counter + 1, counter + 1),
        detached(counter + 2, counter + 1),
    );
    assert_eq!(first.send_to(&device).refusal(), None);
    assert_eq!(second.send_to(&device).refusal(), refused);
    // The first again is answered from the store, and not once another order was applied.
    assert_eq!(first.send_to(&device).refusal(), None);
    assert_eq!(open(&device).greeting().counter, counter + 1);
    assert_eq!(send(&device, &authority, &remove(&[])).refusal(), None);
    let stale = Some((Refusal::Stale, true));
    assert_eq!(first.send_to(&device).refusal(), stale);
    // The bound is used up, also for an order whose counter would do.
    let late = detached(counter + 2, counter + 3);
    assert_eq!(late.send_to(&device).refusal(), stale);
    // The step in full.
    let far = detached(counter + 3, counter + 2 + 1024);
    assert_eq!(far.send_to(&device).refusal(), None);
    assert_eq!(open(&device).greeting().counter, counter + 2 + 1024);
}

/// Whether `needle` stands anywhere in `hay`.
fn holds(hay: &[u8], needle: &[u8]) -> bool {
    hay.windows(needle.len()).any(|part| part == needle)
}

/// SPEC: M-15, M-29
#[test]
fn a_wipe_leaves_no_key_and_the_next_enrolment_makes_new_ones() {
    let (device, authority, statement) = provisioned(Desk::new(1, PAGES));
    let before = device.flash();
    let sealed: Vec<Vec<u8>> = [&statement.identity_key, &statement.unwrap_key]
        .into_iter()
        .map(|public| {
            // In the store's format the sealed secret follows the public part.
            let at = before
                .windows(public.len())
                .position(|part| part == *public)
                .expect("the public part is on flash in clear");
            before[at + public.len()..][..40].to_vec()
        })
        .collect();
    assert!(holds(&before, b"key 0"));

    let counter = open(&device).greeting().counter;
    let wipe = order(&device, &open(&device), &authority, &Body::Wipe);
    let receipt = wipe.send_to(&device).receipt();
    let header = receipt.verified(&statement.identity_key);
    assert_eq!(header.outcome, receipt::Outcome::Applied);
    assert_eq!((header.state, header.counter), (State::Blank, counter + 1));

    let after = device.flash();
    for part in [
        &statement.identity_key,
        &statement.unwrap_key,
        &b"key 0".to_vec(),
    ] {
        assert!(!holds(&after, part));
    }
    assert!(sealed.iter().all(|sealed| !holds(&after, sealed)));
    assert!(!holds(&after, authority.public_key()));
    let session = open(&device);
    let greeting = session.greeting();
    assert_eq!(
        (greeting.state, greeting.counter),
        (State::Blank, counter + 1)
    );
    assert_eq!(greeting.identity, Fingerprint::ZERO);
    assert_eq!(greeting.authority, Hint::ZERO);
    assert!(flow::list(&mut open(&device)).unwrap().is_empty());

    // The answer may have been lost: the same receipt again, now and after a restart. Nothing changes.
    let again = wipe.send_to(&device).receipt();
    assert_eq!(again.bytes, receipt.bytes);
    let device = OnDesk::start(Desk::with_flash(1, device.stop()));
    let again = wipe.send_to(&device).receipt();
    assert_eq!(again.bytes, receipt.bytes);
    assert_eq!(state(&device), State::Blank);

    // The source is stuck, and yet no key comes again. Version floors start anew.
    let other = SoftAuthority::new(7);
    let new = enroll(&device, &other);
    assert_ne!(new.identity_key, statement.identity_key);
    assert_ne!(new.unwrap_key, statement.unwrap_key);
    assert_eq!(new.standing.counter, counter + 2);
    let answer = inject(&device, &other, &shipment(&new, 1));
    assert_eq!(answer.refusal(), None);
    // Without a restart in between, too.
    assert_eq!(send(&device, &other, &Body::Wipe).refusal(), None);
    let newest = enroll(&device, &other);
    assert_ne!(newest.identity_key, new.identity_key);
    assert_ne!(newest.unwrap_key, new.unwrap_key);
}

/// Orders recorded before a wipe die with the keys they are addressed to; those for the blank device with its counter.
///
/// SPEC: M-13, M-17, M-29
#[test]
fn nothing_recorded_passes_after_wipe_and_enrolment() {
    let authority = SoftAuthority::new(0);
    let device = OnDesk::start(Desk::new(1, PAGES));
    let detached = |header: Header, counter| Header {
        freshness: Freshness::Detached { below: u32::MAX },
        counter,
        ..header
    };
    let blank = fresh(&device, &open(&device), Kind::Enroll);
    // Enrolments for the blank device: with its challenge, and detached, one of them never delivered.
    let mut recorded = vec![
        Order::new(&authority, blank, &enroll_body(&authority)),
        Order::new(&authority, detached(blank, 1), &enroll_body(&authority)),
        Order::new(&authority, detached(blank, 2), &enroll_body(&authority)),
    ];
    assert_eq!(recorded[0].send_to(&device).refusal(), None);
    let statement = enroll(&device, &authority);
    let keys = shipment(&statement, 1);
    let challenged = fresh(&device, &open(&device), Kind::Inject);
    let first = Order::inject(&authority, challenged, &keys);
    assert_eq!(first.send_to(&device).refusal(), None);
    recorded.push(first);
    for counter in [5, 200] {
        let header = detached(fresh(&device, &open(&device), Kind::Inject), counter);
        recorded.push(Order::inject(&authority, header, &shipment(&statement, 2)));
    }
    let header = detached(fresh(&device, &open(&device), Kind::Wipe), 300);
    recorded.push(Order::new(&authority, header, &Body::Wipe));

    assert_eq!(send(&device, &authority, &Body::Wipe).refusal(), None);
    let dead = |device: &OnDesk| {
        let (before, operations) = (device.flash(), device.unwrap_operations());
        for (number, order) in recorded.iter().enumerate() {
            let refused = order.send_to(device).refusal();
            let expected = match (state(device) == State::Blank, number) {
                (true, 3..) => vec![Refusal::State],
                (true, _) => vec![Refusal::Stale, Refusal::Counter],
                (false, _) => vec![Refusal::WrongAddress],
            };
            let (refusal, signed) = refused.expect("a recorded order is refused");
            assert!(expected.contains(&refusal), "{number}: {refusal}");
            assert!(!signed);
        }
        assert_eq!(device.flash(), before);
        assert_eq!(device.unwrap_operations(), operations);
    };
    dead(&device);
    let new = enroll(&device, &authority);
    dead(&device);
    let answer = inject(&device, &authority, &shipment(&new, 1));
    assert_eq!(answer.refusal(), None);
    dead(&device);
}

/// SPEC: M-29
#[test]
fn a_board_can_forbid_being_wiped() {
    let mut desk = Desk::new(1, PAGES);
    desk.allows_wipe = false;
    let (device, authority, _) = provisioned(desk);
    let before = device.flash();
    let refused = send(&device, &authority, &Body::Wipe).refusal();
    assert_eq!(refused, Some((Refusal::Unsupported, true)));
    assert_eq!(device.flash(), before);
}

fn epoch(device: &OnDesk, authority: &SoftAuthority) -> u32 {
    let receipt = send(device, authority, &enroll_body(authority)).receipt();
    match receipt::decode(&receipt.bytes).unwrap().1 {
        receipt::Body::Statement(statement) => statement.epoch,
        body => panic!("{body:?}"),
    }
}

/// SPEC: M-12, M-15, M-30
#[test]
fn a_rotation_needs_both_authorities_and_ends_the_old_one() {
    let (device, old, statement) = provisioned(Desk::new(1, PAGES));
    let (new, third) = (SoftAuthority::new(1), SoftAuthority::new(2));
    assert_eq!(epoch(&device, &old), 0);
    let before = device.flash();
    let unsigned = |refusal| Some((refusal, false));
    let with = |authority, to| order(&device, &open(&device), authority, &rotation(to));
    let alone = with(&old, &new);
    let off_curve = {
        let mut key = new.public_key().to_vec();
        *key.last_mut().unwrap() ^= 1;
        let body = Body::Rotate(Rotate { authority: &key });
        order(&device, &open(&device), &old, &body).seconded(&new)
    };
    let bad = [
        alone.clone(),
        alone.clone().seconded(&old),
        alone.clone().seconded(&third),
        with(&new, &new).seconded(&new),
        with(&third, &new).seconded(&new),
        off_curve,
    ];
    for order in bad {
        let refused = order.send_to(&device).refusal();
        assert_eq!(refused, unsigned(Refusal::BadSignature));
    }
    let itself = with(&old, &old).seconded(&old).send_to(&device).refusal();
    assert_eq!(itself, Some((Refusal::Malformed, true)));
    // A second signature has no business on any other kind.
    let lock = order(&device, &open(&device), &old, &Body::Lock).seconded(&new);
    let refused = lock.send_to(&device).refusal();
    assert_eq!(refused, unsigned(Refusal::Malformed));
    assert_eq!(device.flash(), before);

    let rotate = with(&old, &new).seconded(&new);
    let receipt = rotate.send_to(&device).receipt();
    let header = receipt.verified(&statement.identity_key);
    assert_eq!(header.outcome, receipt::Outcome::Applied);
    assert_eq!(header.state, State::Provisioned);
    let hint = open(&device).greeting().authority;
    assert_eq!(hint, verify::fingerprint(new.public_key()).hint());

    // Its answer may have been lost: the same order is answered from the store, but only with the signature of the new
    // authority on it.
    let after = device.flash();
    let again = rotate.send_to(&device).receipt();
    assert_eq!(again, receipt);
    let mut stripped = rotate.clone();
    stripped.second = None;
    for bad in [stripped.clone(), stripped.seconded(&third)] {
        let refused = bad.send_to(&device).refusal();
        assert_eq!(refused, unsigned(Refusal::BadSignature));
    }
    // Another order of the old authority is nobody's.
    for body in [remove(&[]), Body::Lock, Body::Wipe, enroll_body(&old)] {
        let refused = send(&device, &old, &body).refusal();
        assert_eq!(refused, unsigned(Refusal::BadSignature));
    }
    assert_eq!(device.flash(), after);

    let device = OnDesk::start(Desk::with_flash(1, device.stop()));
    assert_eq!(epoch(&device, &new), 1);
    let answer = inject(&device, &new, &shipment(&statement, 2));
    assert_eq!(answer.refusal(), None);
    let rotate = order(&device, &open(&device), &new, &rotation(&old)).seconded(&old);
    assert_eq!(rotate.send_to(&device).refusal(), None);
    assert_eq!(epoch(&device, &old), 2);
}

/// SPEC: M-12, M-29, M-30
#[test]
fn epoch_and_authority_survive_a_wipe_on_a_production_image_only() {
    let (built_for, new, thief) = (
        SoftAuthority::new(0),
        SoftAuthority::new(1),
        SoftAuthority::new(2),
    );
    for production in [true, false] {
        let desk = |flash| {
            let mut desk = Desk::with_flash(1, flash);
            desk.development = !production;
            desk.pinned = production.then(|| verify::fingerprint(built_for.public_key()));
            desk
        };
        let device = OnDesk::start(desk(Flash::new(PAGES)));
        enroll(&device, &built_for);
        let rotate = order(&device, &open(&device), &built_for, &rotation(&new)).seconded(&new);
        assert_eq!(rotate.send_to(&device).refusal(), None);
        assert_eq!(send(&device, &new, &Body::Wipe).refusal(), None);
        let device = OnDesk::start(desk(device.stop()));
        assert_eq!(state(&device), State::Blank);
        if production {
            let known = open(&device).greeting().authority;
            assert_eq!(known, verify::fingerprint(new.public_key()).hint());
            for stranger in [&thief, &built_for] {
                let refused = send(&device, stranger, &enroll_body(stranger)).refusal();
                assert_eq!(refused, Some((Refusal::BadSignature, false)));
            }
            enroll(&device, &new);
            assert_eq!(epoch(&device, &new), 1);
        } else {
            enroll(&device, &thief);
            assert_eq!(epoch(&device, &thief), 0);
        }
    }
}

/// SPEC: M-27
#[test]
fn a_status_says_whether_an_order_was_the_last_one_applied() {
    let (device, authority, statement) = provisioned(Desk::new(1, PAGES));
    let asked = |digest| {
        let request = Request::Status {
            order: digest,
            nonce: NONCE,
        };
        let message = open(&device).exchange(&request, &mut |_| {}).unwrap();
        let Ok(Reply::Status { signature, status }) = Reply::decode(&message) else {
            panic!("no status");
        };
        let key = &statement.identity_key;
        assert!(verify::signature_is_valid(key, status, &signature));
        let status = receipt::Status::decode(status).unwrap();
        assert_eq!((status.order, status.nonce), (digest, NONCE));
        (status.applied, status.state, status.counter)
    };
    let refused = {
        let mut header = fresh(&device, &open(&device), Kind::Lock);
        header.counter += 1;
        Order::new(&authority, header, &Body::Lock)
    };
    let counter = open(&device).greeting().counter;
    assert!(refused.send_to(&device).refusal().is_some());
    assert_eq!(
        asked(refused.digest()),
        (false, State::Provisioned, counter)
    );
    let lock = order(&device, &open(&device), &authority, &Body::Lock);
    assert_eq!(asked(lock.digest()), (false, State::Provisioned, counter));
    assert_eq!(lock.send_to(&device).refusal(), None);
    assert_eq!(asked(lock.digest()), (true, State::Locked, counter + 1));
}

/// Cuts power at every so-manieth operation of a start and this order, in every way, and lets `check` look at the device
/// that comes up again. Gives how often the old and the new state were seen.
fn cut_everywhere(
    flash: &Flash,
    sent: &Order,
    mut check: impl FnMut(&OnDesk) -> bool,
) -> [usize; 2] {
    let mut whole = flash.clone();
    whole.power_on(0);
    let device = OnDesk::start(Desk::with_flash(1, whole));
    assert_eq!(sent.send_to(&device).refusal(), None);
    let operations = device.stop().operations();
    let step = match std::env::var_os("KEYFERRY_LONG") {
        Some(_) => 1,
        None => 11,
    };
    let mut seen = [0; 2];
    for at in (0..operations).step_by(step).chain([operations - 1]) {
        for cut in Cut::ALL {
            let mut flash = flash.clone();
            flash.power_on(at);
            flash.cut_after(at, cut);
            let device = OnDesk::start(Desk::with_flash(1, flash));
            let _ = sent.send_to(&device);
            let mut flash = device.stop();
            assert!(flash.is_off(), "operation {at}");
            flash.power_on(at + 1);
            let device = OnDesk::start(Desk::with_flash(1, flash));
            seen[usize::from(check(&device))] += 1;
        }
    }
    println!(
        "operations {operations}, old state {}, new state {}",
        seen[0], seen[1]
    );
    seen
}

/// SPEC: M-23, M-29
#[test]
fn power_cut_during_a_wipe_leaves_all_or_nothing() {
    let (device, authority, statement) = provisioned(Desk::new(1, PAGES));
    let counter = open(&device).greeting().counter;
    let header = Header {
        freshness: Freshness::Detached { below: counter + 1 },
        ..fresh(&device, &open(&device), Kind::Wipe)
    };
    let wipe = Order::new(&authority, header, &Body::Wipe);
    let flash = device.stop();
    let seen = cut_everywhere(&flash, &wipe, |device| {
        let greeting = open(device).greeting().clone();
        match greeting.state {
            State::Provisioned => {
                assert_eq!(
                    greeting.identity,
                    verify::fingerprint(&statement.identity_key)
                );
                assert_eq!(greeting.counter, counter);
                assert_eq!(flow::list(&mut open(device)).unwrap().len(), 2);
                false
            }
            State::Blank => {
                assert_eq!(greeting.counter, counter + 1);
                let receipt = wipe.send_to(device).receipt();
                let header = receipt.verified(&statement.identity_key);
                assert_eq!(header.outcome, receipt::Outcome::Applied);
                assert!(!holds(&device.flash(), &statement.unwrap_key));
                true
            }
            other => panic!("{other:?}"),
        }
    });
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}

/// SPEC: M-23, M-30
#[test]
fn power_cut_during_a_rotation_leaves_one_authority_or_the_other() {
    let (device, old, statement) = provisioned(Desk::new(1, PAGES));
    let new = SoftAuthority::new(1);
    let counter = open(&device).greeting().counter;
    let header = Header {
        freshness: Freshness::Detached { below: counter + 1 },
        ..fresh(&device, &open(&device), Kind::Rotate)
    };
    let rotate = Order::new(&old, header, &rotation(&new)).seconded(&new);
    let flash = device.stop();
    let seen = cut_everywhere(&flash, &rotate, |device| {
        let done = open(device).greeting().counter == counter + 1;
        let (obeyed, other) = if done { (&new, &old) } else { (&old, &new) };
        assert_eq!(
            send(device, other, &remove(&[])).refusal(),
            Some((Refusal::BadSignature, false))
        );
        if done {
            let receipt = rotate.send_to(device).receipt();
            let header = receipt.verified(&statement.identity_key);
            assert_eq!(header.counter, counter + 1);
        }
        assert_eq!(epoch(device, obeyed), u32::from(done));
        done
    });
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}
