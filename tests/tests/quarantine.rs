//! A device that cannot read its store, or not vouch for it: it says so, does nothing, and comes back through a signed `Wipe` alone.

use embedded_storage::nor_flash::NorFlash as _;
use keyferry::device::DeviceError;
use keyferry::device::flow::{self, Authority as _};
use keyferry::device::verify::{self, SignedReceipt, Standing};
use keyferry_firmware::store::nor_fake::Cut;
use keyferry_protocol::identity::{Challenge, DeviceId, Digest, Fingerprint, Hint};
use keyferry_protocol::order::{
    Body, Freshness, Header, Kind, MAX_RECOVERED_COUNTER, Recover, Remove,
};
use keyferry_protocol::receipt::{self, Outcome, Refusal, State};
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::desk::{Desk, Flash, OnDesk};
use keyferry_tests::orders::{Order, Receipt, enrolment, open};
use keyferry_tests::software::{SoftAuthority, aes_key, wrap};

const PAGES: usize = 32;
const NONCE: Challenge = Challenge([9; 32]);
/// Above all that a device of these tests ever had.
const COUNTER: u32 = 5000;

/// The flash of another board, enrolled and with a key in it: device 1 has other fuses.
fn foreign() -> Flash {
    let authority = SoftAuthority::new(3);
    let device = OnDesk::start(Desk::new(2, PAGES));
    let mut session = open(&device);
    let unwrap = UnwrapAlgorithm::P256;
    let statement = flow::enroll(&mut session, &authority, unwrap, NONCE, &mut |_| {}).unwrap();
    let shipment = wrap(&statement, &[aes_key(16, 1)], 1);
    let sent = flow::inject(
        &mut session,
        &authority,
        &statement,
        &shipment,
        NONCE,
        &mut |_| {},
    );
    sent.unwrap();
    drop(session);
    device.stop()
}

fn quarantined(flash: Flash) -> OnDesk {
    let device = OnDesk::start(Desk::with_flash(1, flash));
    assert_eq!(open(&device).greeting().state, State::Quarantined);
    device
}

fn recovery(authority: &SoftAuthority) -> Body<'_> {
    Body::Recover(Recover {
        authority: authority.public_key(),
    })
}

/// The order that brings a quarantined device back, for its challenge of now.
fn order(device: &OnDesk, authority: &SoftAuthority, counter: u32) -> Order {
    let header = Header {
        counter,
        ..enrolment(&open(device))
    };
    Order::new(authority, header, &recovery(authority))
}

/// The device is blank, with this counter, and can be provisioned. Gives its new identity key.
fn is_blank_and_goes_on(device: &OnDesk, counter: u32) -> Vec<u8> {
    let authority = SoftAuthority::new(0);
    let mut session = open(device);
    let greeting = session.greeting().clone();
    assert_eq!((greeting.state, greeting.counter), (State::Blank, counter));
    let unwrap = UnwrapAlgorithm::P256;
    let statement = flow::enroll(&mut session, &authority, unwrap, NONCE, &mut |_| {}).unwrap();
    assert_eq!(statement.standing.counter, counter + 1);
    let shipment = wrap(&statement, &[aes_key(32, 5)], 1);
    let sent = flow::inject(
        &mut session,
        &authority,
        &statement,
        &shipment,
        NONCE,
        &mut |_| {},
    );
    assert_eq!(sent.unwrap().standing.state, State::Provisioned);
    statement.identity_key
}

fn signed(receipt: &Receipt) -> SignedReceipt {
    SignedReceipt {
        bytes: receipt.bytes.clone(),
        signature: receipt.signature,
    }
}

/// SPEC: M-47
#[test]
fn a_quarantined_device_greets_and_does_nothing_else() {
    let device = quarantined(foreign());
    let before = device.flash();
    let greeting = open(&device).greeting().clone();
    assert_eq!(greeting.identity, Fingerprint::ZERO);
    assert_eq!(greeting.authority, Hint::ZERO);
    assert_eq!(greeting.counter, 0);
    assert!(!greeting.certified);
    let authority = SoftAuthority::new(3);
    let body = Body::Remove(Remove {
        slots: [].into_iter().collect(),
    });
    for body in [body, Body::Lock, Body::Wipe] {
        let order = Order::new(&authority, enrolment(&open(&device)), &body);
        assert_eq!(
            order.send_to(&device).refusal(),
            Some((Refusal::State, false))
        );
    }
    assert_eq!(device.flash(), before);
}

/// SPEC: M-47
#[test]
fn a_device_in_order_refuses_a_wipe_that_is_for_a_quarantined_one() {
    let authority = SoftAuthority::new(0);
    let device = OnDesk::start(Desk::new(1, PAGES));
    let blank = order(&device, &authority, 1).send_to(&device).refusal();
    assert_eq!(blank, Some((Refusal::State, false)));
    is_blank_and_goes_on(&device, 0);
    let header = keyferry_tests::orders::fresh(&device, &open(&device), Kind::Wipe);
    let order = Order::new(&authority, header, &recovery(&authority));
    assert_eq!(
        order.send_to(&device).refusal(),
        Some((Refusal::State, true))
    );
    assert_eq!(open(&device).greeting().state, State::Provisioned);
}

/// SPEC: M-48, M-49
#[test]
fn a_signed_wipe_brings_a_quarantined_device_back() {
    let authority = SoftAuthority::new(0);
    let device = quarantined(foreign());
    let foreign_key = b"key 0";
    let holds = |flash: &[u8]| flash.windows(5).any(|part| part == foreign_key);
    assert!(holds(&device.flash()));

    let mut stale = order(&device, &authority, COUNTER);
    let detached = Header {
        freshness: Freshness::Detached { below: u32::MAX },
        counter: COUNTER,
        ..enrolment(&open(&device))
    };
    let detached = Order::new(&authority, detached, &recovery(&authority));
    let unsigned = |refusal| Some((refusal, false));
    assert_eq!(
        detached.send_to(&device).refusal(),
        unsigned(Refusal::Stale)
    );
    assert_eq!(stale.send_to(&device).refusal(), unsigned(Refusal::Stale));
    let nothing = order(&device, &authority, 0);
    assert_eq!(
        nothing.send_to(&device).refusal(),
        unsigned(Refusal::Counter)
    );
    stale = order(&device, &authority, COUNTER);
    stale.signature = order(&device, &SoftAuthority::new(1), COUNTER).signature;
    assert_eq!(
        stale.send_to(&device).refusal(),
        unsigned(Refusal::BadSignature)
    );

    let sent = order(&device, &authority, COUNTER);
    let receipt = sent.send_to(&device).receipt();
    let header = receipt.header();
    assert_eq!(header.outcome, Outcome::Applied);
    let standing = verify::recovered(&signed(&receipt), header.device, &sent.digest()).unwrap();
    assert_eq!((standing.state, standing.counter), (State::Blank, COUNTER));
    assert!(!holds(&device.flash()));
    // The answer may have been lost.
    assert_eq!(sent.send_to(&device).receipt(), receipt);
    let device = OnDesk::start(Desk::with_flash(1, device.stop()));
    assert_eq!(sent.send_to(&device).receipt(), receipt);
    is_blank_and_goes_on(&device, COUNTER);
    let device = OnDesk::start(Desk::with_flash(1, device.stop()));
    assert_eq!(open(&device).greeting().state, State::Provisioned);
}

/// SPEC: M-52
#[test]
fn no_order_takes_a_device_to_the_end_of_its_counter() {
    let authority = SoftAuthority::new(0);
    let device = quarantined(foreign());
    for beyond in [MAX_RECOVERED_COUNTER + 1, u32::MAX - 1, u32::MAX] {
        let order = order(&device, &authority, beyond);
        let refused = Some((Refusal::Counter, false));
        assert_eq!(order.send_to(&device).refusal(), refused, "{beyond}");
    }
    let greeting = open(&device).greeting().clone();
    let beyond = flow::recover_order(
        &authority,
        &greeting,
        MAX_RECOVERED_COUNTER + 1,
        Digest::ZERO,
    );
    assert!(matches!(beyond, Err(DeviceError::CounterSpent)));
    let highest = order(&device, &authority, MAX_RECOVERED_COUNTER);
    assert_eq!(highest.send_to(&device).refusal(), None);
    is_blank_and_goes_on(&device, MAX_RECOVERED_COUNTER);

    let standing = |counter| Standing {
        state: State::Enrolled,
        counter,
        challenge: NONCE,
    };
    let address = greeting.enrolment_address();
    let now = |counter| flow::Terms::now(address, &standing(counter), Digest::ZERO);
    assert_eq!(now(u32::MAX - 1).unwrap().counter, u32::MAX);
    assert!(matches!(now(u32::MAX), Err(DeviceError::CounterSpent)));
    let later = flow::Terms::detached(address, &standing(u32::MAX - 3), 4, Digest::ZERO);
    assert!(matches!(later, Err(DeviceError::CounterSpent)));
}

/// A device with a key in it, of this board.
fn provisioned() -> Flash {
    let device = OnDesk::start(Desk::new(1, PAGES));
    is_blank_and_goes_on(&device, 0);
    device.stop()
}

/// A board whose image knows its authority, or not.
fn desk(flash: Flash, pinned: Option<&SoftAuthority>) -> OnDesk {
    let mut desk = Desk::with_flash(1, flash);
    desk.pinned = pinned.map(|authority| verify::fingerprint(authority.public_key()));
    OnDesk::start(desk)
}

/// Whatever a start could not read once: nobody takes the keys from a device for that.
///
/// SPEC: M-53
#[test]
fn a_reading_that_failed_once_is_no_reason_to_begin_anew() {
    let authority = SoftAuthority::new(0);
    let flash = provisioned();
    let (before, _) = flash.reads();
    let (after, _) = OnDesk::start(Desk::with_flash(1, flash.clone()))
        .stop()
        .reads();
    let readings = after - before;
    // The first ones find the snapshot and read its items; the others see that pages are blank.
    let few = std::env::var_os("KEYFERRY_LONG").is_none();
    let tried = (0..readings).filter(|n| !few || *n < 150 || *n % 211 == 0);
    let mut quarantines = 0;
    let mut tried_all = 0;
    for n in tried {
        tried_all += 1;
        let mut failing = flash.clone();
        failing.fail_reads(n, 1);
        let device = desk(failing, Some(&authority));
        if open(&device).greeting().state == State::Quarantined {
            quarantines += 1;
            let sent = order(&device, &authority, COUNTER).send_to(&device);
            let refused = Some((Refusal::Storage, false));
            assert_eq!(sent.refusal(), refused, "reading {n}");
            assert!(device.flash() == flash.bytes(), "reading {n}");
        }
        let device = desk(device.stop(), Some(&authority));
        let greeting = open(&device).greeting().clone();
        let stands = (greeting.state, greeting.counter);
        assert_eq!(stands, (State::Provisioned, 2), "reading {n}");
    }
    println!("readings {readings}, tried {tried_all}, quarantines {quarantines}");
    assert!(quarantines > 0);
}

/// What a part with error correction does not read again, its authority may give up; nobody else.
///
/// SPEC: M-53
#[test]
fn flash_that_stays_unreadable_is_given_up_by_the_images_authority_alone() {
    let authority = SoftAuthority::new(0);
    let mut flash = provisioned();
    flash.power_on(0);
    // Power fails while its first page is erased.
    let page = flash
        .bytes()
        .chunks(2048)
        .position(|page| page.starts_with(b"KFST"));
    let at = u32::try_from(page.unwrap() * 2048).unwrap();
    flash.cut_after(0, Cut::Half);
    assert!(flash.erase(at, at + 2048).is_err());
    flash.set_error_correction(true);
    flash.power_on(1);
    let device = desk(flash.clone(), None);
    assert_eq!(open(&device).greeting().state, State::Quarantined);
    let sent = order(&device, &authority, COUNTER).send_to(&device);
    assert_eq!(sent.refusal(), Some((Refusal::Storage, false)));
    assert!(device.flash() == flash.bytes());

    let device = desk(flash, Some(&authority));
    let sent = order(&device, &authority, COUNTER).send_to(&device);
    assert_eq!(sent.refusal(), None);
    let device = desk(device.stop(), Some(&authority));
    is_blank_and_goes_on(&device, COUNTER);
}

#[test]
fn a_station_brings_a_quarantined_device_back() {
    let device = quarantined(foreign());
    let authority = SoftAuthority::new(0);
    let mut session = open(&device);
    flow::recover(&mut session, &authority, COUNTER, &mut |_| {}).unwrap();
    drop(session);
    is_blank_and_goes_on(&device, COUNTER);
}

/// SPEC: M-50
#[test]
fn the_receipt_is_whole_and_shows_nothing_more() {
    let authority = SoftAuthority::new(0);
    let device = quarantined(foreign());
    let operations = device.operations();
    let sent = order(&device, &authority, COUNTER);
    let receipt = signed(&sent.send_to(&device).receipt());
    assert_eq!(device.operations().receipt, operations.receipt + 1);
    let (id, digest) = (open(&device).greeting().device, sent.digest());
    let accepted = |receipt: &SignedReceipt| verify::recovered(receipt, id, &digest);
    assert!(accepted(&receipt).is_ok());

    // Each bit counts.
    for at in 0..receipt.bytes.len() {
        let mut changed = receipt.clone();
        changed.bytes[at] ^= 1;
        assert!(accepted(&changed).is_err(), "byte {at}");
    }
    let another = order(&device, &authority, COUNTER);
    assert!(verify::recovered(&receipt, id, &another.digest()).is_err());
    assert!(verify::recovered(&receipt, DeviceId([9; 16]), &digest).is_err());

    // The key is of no other use: it is nobody's who was known before, nobody's afterwards, and another one each time.
    let key = |receipt: &SignedReceipt| match receipt::decode(&receipt.bytes).unwrap().1 {
        receipt::Body::Recovered(recovered) => recovered.key.to_vec(),
        other => panic!("{other:?}"),
    };
    let first = key(&receipt);
    let greeting = open(&device).greeting().clone();
    assert_eq!(greeting.identity, Fingerprint::ZERO);
    assert_ne!(is_blank_and_goes_on(&device, COUNTER), first);
    let device = quarantined(foreign());
    let receipt = order(&device, &authority, COUNTER + 1)
        .send_to(&device)
        .receipt();
    assert_ne!(key(&signed(&receipt)), first);
}

/// SPEC: M-50
#[test]
fn no_other_receipt_passes_for_that_of_a_device_that_began_anew() {
    let authority = SoftAuthority::new(0);
    let device = OnDesk::start(Desk::new(1, PAGES));
    is_blank_and_goes_on(&device, 0);
    let header = keyferry_tests::orders::fresh(&device, &open(&device), Kind::Wipe);
    let wipe = Order::new(&authority, header, &Body::Wipe);
    let receipt = wipe.send_to(&device).receipt();
    assert_eq!(receipt.header().outcome, Outcome::Applied);
    let taken = verify::recovered(&signed(&receipt), receipt.header().device, &wipe.digest());
    assert!(taken.is_err());
}

/// SPEC: M-48
#[test]
fn whom_a_quarantined_device_obeys_its_image_says() {
    let (own, other) = (SoftAuthority::new(0), SoftAuthority::new(1));
    let pinned = verify::fingerprint(own.public_key());
    let desk = |pinned, development| {
        let mut desk = Desk::with_flash(1, foreign());
        (desk.pinned, desk.development) = (pinned, development);
        OnDesk::start(desk)
    };
    let refused = Some((Refusal::BadSignature, false));
    for (pinned, development, authority, expected) in [
        (Some(pinned), false, &own, None),
        (Some(pinned), false, &other, refused),
        (Some(pinned), true, &other, refused),
        (None, true, &other, None),
        (None, false, &other, None),
    ] {
        let device = desk(pinned, development);
        let order = order(&device, authority, COUNTER);
        assert_eq!(order.send_to(&device).refusal(), expected);
    }
    let mut desk = Desk::with_flash(1, foreign());
    desk.allows_wipe = false;
    let device = OnDesk::start(desk);
    let order = order(&device, &own, COUNTER);
    assert_eq!(
        order.send_to(&device).refusal(),
        Some((Refusal::Unsupported, false))
    );
}

/// SPEC: M-49
#[test]
fn power_cut_on_the_way_back_leaves_a_quarantined_or_a_blank_device() {
    let authority = SoftAuthority::new(0);
    let flash = foreign();
    let mut whole = flash.clone();
    whole.power_on(0);
    let device = quarantined(whole);
    assert_eq!(
        order(&device, &authority, COUNTER)
            .send_to(&device)
            .refusal(),
        None
    );
    let operations = device.stop().operations();
    let step = match std::env::var_os("KEYFERRY_LONG") {
        Some(_) => 1,
        None => 7,
    };
    let mut seen = [0; 2];
    for at in (0..operations).step_by(step).chain([operations - 1]) {
        for cut in Cut::ALL {
            let mut flash = flash.clone();
            flash.power_on(at);
            flash.cut_after(at, cut);
            let device = quarantined(flash);
            let sent = order(&device, &authority, COUNTER);
            let _ = sent.send_to(&device);
            let mut flash = device.stop();
            assert!(flash.is_off(), "operation {at}");
            flash.power_on(at + 1);
            let device = OnDesk::start(Desk::with_flash(1, flash));
            let blank = match open(&device).greeting().state {
                State::Blank => true,
                State::Quarantined => {
                    let again = order(&device, &authority, COUNTER);
                    assert_eq!(again.send_to(&device).refusal(), None, "operation {at}");
                    false
                }
                other => panic!("{other:?}"),
            };
            seen[usize::from(blank)] += 1;
            is_blank_and_goes_on(&device, COUNTER);
        }
    }
    println!(
        "operations {operations}, quarantined {}, blank {}",
        seen[0], seen[1]
    );
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}

/// SPEC: M-49
#[test]
fn no_key_and_no_challenge_comes_again_though_the_source_is_stuck() {
    let authority = SoftAuthority::new(0);
    let mut seen = Vec::new();
    for life in 0..4 {
        // The same flash, the same fuses, the same entropy: what the order says is all that differs.
        let device = quarantined(foreign());
        let counter = COUNTER + life;
        let sent = order(&device, &authority, counter);
        assert_eq!(sent.send_to(&device).refusal(), None);
        seen.push(open(&device).greeting().challenge.0.to_vec());
        seen.push(is_blank_and_goes_on(&device, counter));
    }
    let all = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), all);
}
