//! What a log may say, and what it refuses to.

use std::sync::{Arc, Mutex};

use keyferry::audit::{AuditError, AuditLog, Event, Fault, Stage, Work, verify};
use keyferry::device::Witness as _;
use keyferry::device::flow::{self, Authority, Demand, Shipment};
use keyferry::device::verify::{SignedReceipt, Statement};
use keyferry::station::{JobError, Records, Scribe};
use keyferry_protocol::identity::{Challenge, Digest};
use keyferry_protocol::order::{Body, Enroll, Freshness, Header, Kind, Recover};
use keyferry_protocol::proof::Proof;
use keyferry_protocol::receipt::{Outcome, Recovered, Refusal};
use keyferry_protocol::suite::{Suite, UnwrapAlgorithm};
use keyferry_tests::audited::{Invented, ONCE, Station, header};
use keyferry_tests::software::{SoftAuthority, aes_key, hmac_key, wrap};

use crate::kept::{broken_line, give_up, keys_of, rejected, whole, with_device};

/// A device that is restarted in the middle has lost the order, and says so: the same keys go to it again, in an order that cannot be
/// applied beside the first.
#[test]
fn keys_are_ordered_again_only_when_the_device_has_refused_them() {
    let folder = tempfile::tempdir().unwrap();
    let (station, device, statement) = with_device(&folder);
    let shipment = wrap(&statement, &[aes_key(16, 1)], 1);
    station.wrapping(&statement, &shipment).unwrap();
    let first = station.inject_order(&statement, &shipment).unwrap();
    let mut now = statement.clone();
    now.standing.challenge = Challenge([8; 32]);
    let again = |device: &Statement| station.inject_order(device, &shipment);
    assert_eq!(rejected(&station, again(&now)), Fault::NoSuchJob);
    let refused = device.receipt(&first, Outcome::Refused(Refusal::Stale), |_, _| {});
    station
        .log
        .lock()
        .received(&first.digest(), &refused)
        .unwrap();
    let mut moved = now.clone();
    moved.standing.counter += 1;
    assert_eq!(rejected(&station, again(&moved)), Fault::NoSuchJob);
    let second = again(&now).unwrap();
    assert_eq!(stages(&station), [Stage::Ordered]);
    assert_eq!(rejected(&station, again(&now)), Fault::NoSuchJob);

    let (mut log, digest) = (station.log.lock(), second.digest());
    log.received(&digest, &device.stored(&second, &shipment))
        .unwrap();
    log.proved(device.id, &digest, [(0, Proof::Cmac)]).unwrap();
    drop(log);
    let report = whole(&station);
    assert_eq!((report.tally.wrapped, report.tally.proved), (1, 1));
}

#[test]
fn a_proof_needs_the_receipt_that_holds_it() {
    let folder = tempfile::tempdir().unwrap();
    let (station, device, statement) = with_device(&folder);
    let shipment = wrap(&statement, &[aes_key(16, 1), hmac_key(2)], 1);
    let job = station.wrapping(&statement, &shipment).unwrap();
    let order = station.inject_order(&statement, &shipment).unwrap();
    let digest = order.digest();
    let all = vec![(0, Proof::Cmac), (1, Proof::HmacSha256)];
    let say = |slots: &[(u16, Proof)]| {
        let mut log = station.log.lock();
        log.proved(device.id, &digest, slots.iter().copied())
    };
    let receive = |receipt: &SignedReceipt| station.log.lock().received(&digest, receipt);
    assert_eq!(rejected(&station, say(&all)), Fault::NotApplied);

    // The receipt of a device that nobody knows, and of one that is known, and is another.
    let stranger = Invented::new(4);
    let foreign = stranger.stored(&order, &shipment);
    assert_eq!(rejected(&station, receive(&foreign)), Fault::OtherDevice);
    stranger.enroll(&station, stranger.blank());
    assert_eq!(rejected(&station, receive(&foreign)), Fault::OtherDevice);
    let posing = Invented {
        identity: SoftAuthority::new(4),
        id: device.id,
    };
    let posed = posing.stored(&order, &shipment);
    assert_eq!(rejected(&station, receive(&posed)), Fault::OtherDevice);
    // The right device's, with a signature that is not its own; and to another order.
    let mut forged = device.stored(&order, &shipment);
    forged.signature = foreign.signature;
    assert_eq!(
        rejected(&station, receive(&forged)),
        Fault::ReceiptSignature
    );
    let lock = station
        .order(header(Kind::Lock, &statement), &Body::Lock)
        .unwrap();
    let locked = device.receipt(&lock, Outcome::Applied, |_, _| {});
    assert_eq!(rejected(&station, receive(&locked)), Fault::OtherOrder);

    // A refusal proves nothing.
    let refused = device.receipt(&order, Outcome::Refused(Refusal::Entropy), |_, _| {});
    receive(&refused).unwrap();
    assert_eq!(rejected(&station, say(&all)), Fault::NotApplied);
    assert_eq!(stages(&station), [Stage::Refused; 2]);

    // A receipt that holds a weaker proof of one key, and another version of the other.
    let mut weaker = shipment.clone();
    weaker.parcels[0].proof = Proof::CheckValue;
    weaker.parcels[1].version = 2;
    receive(&device.stored(&order, &weaker)).unwrap();
    for slots in [
        vec![all[0]],
        vec![all[1]],
        all.clone(),
        vec![(0, Proof::CheckValue)],
    ] {
        assert!(matches!(
            rejected(&station, say(&slots)),
            Fault::NotReported(_)
        ));
    }
    let right = device.stored(&order, &shipment);
    assert_eq!(rejected(&station, receive(&right)), Fault::AnsweredTwice);
    assert_eq!(stages(&station), [Stage::Applied; 2]);
    give_up(&station, Work::Order(digest)).unwrap();
    assert_eq!(stages(&station), []);
    let again = give_up(&station, Work::Job(job));
    assert_eq!(rejected(&station, again), Fault::NoSuchJob);
}

fn stages(station: &Station) -> Vec<Stage> {
    let open = station.log.lock().open_keys();
    open.iter().map(|key| key.stage).collect()
}

#[test]
fn an_answer_that_is_not_to_be_believed_is_kept_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let (station, device, statement) = with_device(&folder);
    let order = station
        .order(header(Kind::Lock, &statement), &Body::Lock)
        .unwrap();
    let right = device.receipt(&order, Outcome::Applied, |_, _| {});
    let mut forged = right.clone();
    forged.signature.s[31] ^= 1;
    let mut witness = station.log.clone();
    witness.receipt(&order.digest(), &forged).unwrap();
    assert_eq!(whole(&station).noticed, 1);
    assert_eq!(whole(&station).open_orders.len(), 1);
    witness.receipt(&order.digest(), &right).unwrap();
    let lines = whole(&station).lines;
    // The stored receipt of an order that is sent again is nothing new.
    witness.receipt(&order.digest(), &right).unwrap();
    assert_eq!(
        (whole(&station).lines, whole(&station).open_orders),
        (lines, vec![])
    );
}

#[test]
fn a_key_is_proved_once_and_its_job_is_then_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let (station, device, statement) = with_device(&folder);
    let shipment = wrap(&statement, &[aes_key(16, 1), hmac_key(2)], 1);
    let job = station.wrapping(&statement, &shipment).unwrap();
    let order = station.inject_order(&statement, &shipment).unwrap();
    let digest = order.digest();
    // Given up, and then its receipt comes after all.
    give_up(&station, Work::Job(job)).unwrap();
    assert_eq!(stages(&station), []);
    let mut log = station.log.lock();
    log.received(&digest, &device.stored(&order, &shipment))
        .unwrap();
    log.proved(device.id, &digest, [(0, Proof::Cmac)]).unwrap();
    let again = log.proved(device.id, &digest, [(0, Proof::Cmac)]);
    assert!(matches!(
        again,
        Err(AuditError::Rejected(Fault::NotOpen(0)))
    ));
    log.proved(device.id, &digest, [(1, Proof::HmacSha256)])
        .unwrap();
    let again = log.proved(device.id, &digest, [(1, Proof::HmacSha256)]);
    assert!(matches!(
        again,
        Err(AuditError::Rejected(Fault::NoSuchOrder))
    ));
    drop(log);
    let report = whole(&station);
    assert_eq!((report.tally.proved, report.tally.failed), (2, 0));
    assert!(report.reconciles());
}

#[test]
fn a_later_proof_settles_a_key_whose_receipt_was_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (station, device, statement) = with_device(&folder);
    let mut shipment = wrap(&statement, &[aes_key(16, 1)], 1);
    station.wrapping(&statement, &shipment).unwrap();
    station.inject_order(&statement, &shipment).unwrap();
    let prove = |shipment: &Shipment| {
        let demands = [Demand::from((0, Proof::Cmac))];
        let mut log = station.log.lock();
        let terms = flow::terms(&statement, log.head().digest).unwrap();
        let challenge = Challenge([log.head().digest.0[0]; 32]);
        let order = flow::prove_order(&station.authority, terms, &demands, challenge).unwrap();
        log.ordered(&order).unwrap();
        log.received(&order.digest(), &device.stored(&order, shipment))
            .unwrap();
        log.proved(device.id, &order.digest(), [(0, Proof::Cmac)])
            .unwrap();
    };
    // Another version is in the slot: that is another key.
    shipment.parcels[0].version = 2;
    prove(&shipment);
    assert_eq!(stages(&station), [Stage::Ordered]);
    shipment.parcels[0].version = 1;
    prove(&shipment);
    assert_eq!(stages(&station), []);
    let tally = whole(&station).tally;
    assert_eq!((tally.wrapped, tally.proved, tally.proofs_again), (1, 1, 1));
}

/// An order was given up, the same key went out again, and the station died before it had verified the proof: what is in the slot is the second
/// one's key, not that of the order which was given up.
#[test]
fn a_later_proof_is_of_the_key_that_arrived_and_not_of_one_that_was_given_up() {
    for received in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let (station, device, mut statement) = with_device(&folder);
        let shipment = wrap(&statement, &[aes_key(16, 1)], 1);
        let first = station.wrapping(&statement, &shipment).unwrap();
        station.inject_order(&statement, &shipment).unwrap();
        give_up(&station, Work::Job(first)).unwrap();
        statement.standing.challenge = Challenge([8; 32]);
        statement.standing.counter += 1;
        station.wrapping(&statement, &shipment).unwrap();
        let second = station.inject_order(&statement, &shipment).unwrap();
        let mut log = station.log.lock();
        if received {
            let receipt = device.stored(&second, &shipment);
            log.received(&second.digest(), &receipt).unwrap();
        }
        statement.standing.counter += 1;
        let demands = [Demand::from((0, Proof::Cmac))];
        let terms = flow::terms(&statement, log.head().digest).unwrap();
        let prove = flow::prove_order(&station.authority, terms, &demands, Challenge([7; 32]));
        let prove = prove.unwrap();
        log.ordered(&prove).unwrap();
        log.received(&prove.digest(), &device.stored(&prove, &shipment))
            .unwrap();
        log.proved(device.id, &prove.digest(), [(0, Proof::Cmac)])
            .unwrap();
        drop(log);
        assert_eq!(stages(&station), [], "received: {received}");
        let tally = whole(&station).tally;
        assert_eq!((tally.wrapped, tally.proved, tally.failed), (2, 1, 1));
    }
}

#[test]
fn a_key_of_which_no_proof_was_demanded_is_counted_apart() {
    let folder = tempfile::tempdir().unwrap();
    let (station, device, statement) = with_device(&folder);
    let mut shipment = wrap(&statement, &[aes_key(16, 1)], 1);
    shipment.parcels[0].proof = Proof::None;
    station.wrapping(&statement, &shipment).unwrap();
    let order = station.inject_order(&statement, &shipment).unwrap();
    let receipt = device.stored(&order, &shipment);
    let mut log = station.log.lock();
    log.received(&order.digest(), &receipt).unwrap();
    drop(log);
    let report = whole(&station);
    assert_eq!((report.tally.proved, report.tally.unproved), (0, 1));
    assert!(report.reconciles() && report.open.is_empty());
}

/// An injection with the least demands failed once its keys had arrived: the log does not take `none` for a proof.
#[test]
fn a_station_says_nothing_of_proofs_that_were_not_demanded() {
    let folder = tempfile::tempdir().unwrap();
    let (station, device, _) = with_device(&folder);
    let path = station.log.lock().path().to_owned();
    drop(station);
    let log = AuditLog::open(&path).unwrap();
    let before = log.head();
    let records = Records {
        audit: Some(log),
        registry: None,
        journal: None,
    };
    let scribe = Scribe::new(Arc::new(Mutex::new(records)));
    let order = Digest([1; 32]);
    scribe
        .proved(device.id, order, &[(0, 1, Proof::None)])
        .unwrap();
    let head = scribe.records().audit.as_ref().map(AuditLog::head);
    assert_eq!(head, Some(before));
    let claimed = scribe.proved(device.id, order, &[(0, 1, Proof::Cmac)]);
    assert!(matches!(
        claimed,
        Err(JobError::Audit(AuditError::Rejected(Fault::NoSuchOrder)))
    ));
}

#[test]
fn an_order_stands_for_its_job_its_device_and_its_place_in_the_chain() {
    let folder = tempfile::tempdir().unwrap();
    let (mut station, _device, statement) = with_device(&folder);
    let shipment = wrap(&statement, &[aes_key(16, 1)], 1);
    let result = station.inject_order(&statement, &shipment);
    assert_eq!(rejected(&station, result), Fault::NoSuchJob);
    station.wrapping(&statement, &shipment).unwrap();

    // Another slot, another version, another suite than was said before wrapping.
    let mut other = shipment.clone();
    other.parcels[0].slot = 1;
    let result = station.inject_order(&statement, &other);
    assert_eq!(rejected(&station, result), Fault::NoSuchJob);
    other = shipment.clone();
    other.parcels[0].version = 2;
    let result = station.inject_order(&statement, &other);
    assert_eq!(rejected(&station, result), Fault::NoSuchJob);
    other = shipment.clone();
    other.suite = Suite::RsaOaepSha1;
    let result = station.inject_order(&statement, &other);
    assert_eq!(rejected(&station, result), Fault::NoSuchJob);

    // Made before another line was written.
    let terms = flow::terms(&statement, station.log.lock().head().digest).unwrap();
    let order = flow::inject_order(&station.authority, terms, &shipment, Challenge([1; 32]));
    station.log.lock().note("in between").unwrap();
    let result = station.log.lock().ordered(&order.unwrap());
    assert_eq!(rejected(&station, result), Fault::OrderHead);

    // Another authority's.
    let ours = std::mem::replace(&mut station.authority, SoftAuthority::new(9));
    let result = station.inject_order(&statement, &shipment);
    assert_eq!(rejected(&station, result), Fault::OrderSignature);
    station.authority = ours;
    let order = station.inject_order(&statement, &shipment).unwrap();
    let result = station.inject_order(&statement, &shipment);
    assert_eq!(rejected(&station, result), Fault::NoSuchJob);
    let open = station.log.lock().open_keys();
    assert_eq!(open[0].order, Some(order.digest()));

    // A device that nobody trusted, and one with other keys.
    let stranger = Invented::new(7);
    let mut unknown = statement.clone();
    unknown.device = stranger.id;
    let result = station.wrapping(&unknown, &shipment);
    assert_eq!(rejected(&station, result), Fault::NotTrusted(stranger.id));
    let mut swapped = statement.clone();
    swapped.unwrap_key = SoftAuthority::new(8).public_key().to_vec();
    let distrusted = Fault::NotTrusted(statement.device);
    let result = station.wrapping(&swapped, &shipment);
    assert_eq!(rejected(&station, result), distrusted);
    let result = station.order(header(Kind::Lock, &swapped), &Body::Lock);
    assert_eq!(rejected(&station, result), distrusted);
}

#[test]
fn trust_rests_on_a_statement() {
    let folder = tempfile::tempdir().unwrap();
    let (station, device, statement) = with_device(&folder);
    let missing = Fault::NoStatement(device.id);
    let trust = |statement: &Statement| {
        let mut log = station.log.lock();
        log.trusted(statement, false, "registry", "it was here before")
    };
    // The statement was used up when the device was enrolled; another order's is another.
    assert_eq!(rejected(&station, trust(&statement)), missing);
    let mut other = statement.clone();
    other.order = Digest([1; 32]);
    assert_eq!(rejected(&station, trust(&other)), missing);

    // A statement that answers another nonce, and one that names another authority.
    let public = station.authority.public_key().to_vec();
    let foreign = SoftAuthority::new(61).public_key().to_vec();
    for (nonce, named) in [(Challenge([1; 32]), &public), (ONCE, &foreign)] {
        let body = Body::Enroll(Enroll {
            authority: &public,
            nonce,
            unwrap: UnwrapAlgorithm::P256,
        });
        let order = station.order(header(Kind::Enroll, &statement), &body);
        let order = order.unwrap();
        let stated = device.stated(&order, named);
        let result = station.log.lock().received(&order.digest(), &stated);
        assert_eq!(rejected(&station, result), Fault::Statement);
    }

    // From another station of the same authority, and of another.
    let elsewhere = Station::new(&folder.path().join("elsewhere.log"));
    let second = Invented::new(4);
    let statement = second.enroll(&elsewhere, second.blank());
    let take = |statement: &Statement| {
        let mut log = station.log.lock();
        log.trusted_by_statement(statement, "registry", "from the first line")
    };
    let mut forged = statement.clone();
    forged.receipt.signature.r[0] ^= 1;
    assert_eq!(rejected(&station, take(&forged)), Fault::ReceiptSignature);
    take(&statement).unwrap();
    let order = station
        .order(header(Kind::Lock, &statement), &Body::Lock)
        .unwrap();
    let receipt = second.receipt(&order, Outcome::Applied, |_, _| {});
    let received = station.log.lock().received(&order.digest(), &receipt);
    received.unwrap();
    let mut elsewhere = Station::new(&folder.path().join("foreign.log"));
    elsewhere.authority = SoftAuthority::new(60);
    let add = Event::Authority(keyferry::audit::Authority {
        key: elsewhere.authority.public_key().to_vec(),
    });
    elsewhere.log.lock().append(add).unwrap();
    let statement = second.enroll(&elsewhere, second.blank());
    assert_eq!(rejected(&station, take(&statement)), Fault::Statement);
    whole(&station);
    // An auditor who knows the authorities does not believe the log that there is one more.
    let path = elsewhere.log.lock().path().to_owned();
    let result = verify::<AuditError>(&path, keys_of(&station), &[], |_, _| Ok(()));
    assert_eq!(broken_line(&result), Some(3), "{result:?}");
}

/// SPEC: M-50
#[test]
fn a_device_that_says_it_began_anew_is_believed_no_more_and_its_other_key_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (station, device, statement) = with_device(&folder);
    let public = station.authority.public_key().to_vec();
    let blank = Header::new(Kind::Wipe, device.blank(), Freshness::Challenge(ONCE), 9);
    let body = Body::Recover(Recover { authority: &public });
    let order = station.order(blank, &body).unwrap();
    let once = Invented {
        identity: SoftAuthority::new(32),
        id: device.id,
    };
    let key = once.identity.public_key().to_vec();
    let receipt = once.receipt(&order, Outcome::Applied, |writer, buffer| {
        writer.recovered(&Recovered { key: &key }, buffer).unwrap();
    });
    // Who was known before cannot say it as an ordinary receipt, and the key must be the one that signs.
    let ordinary = device.receipt(&order, Outcome::Applied, |_, _| {});
    let other = device.receipt(&order, Outcome::Applied, |writer, buffer| {
        writer.recovered(&Recovered { key: &key }, buffer).unwrap();
    });
    for wrong in [ordinary, other] {
        let taken = station.log.lock().received(&order.digest(), &wrong);
        assert!(matches!(taken, Err(AuditError::Rejected(_))), "{taken:?}");
    }
    let taken = station.log.lock().received(&order.digest(), &receipt);
    taken.unwrap();
    assert_eq!(whole(&station).open_orders.len(), 0);
    // What is addressed to its old keys is no order of this log any more.
    let old = station.order(header(Kind::Lock, &statement), &Body::Lock);
    assert!(old.is_err());
    let reborn = Invented {
        identity: SoftAuthority::new(30),
        id: device.id,
    };
    reborn.enroll(&station, reborn.blank());
    assert_eq!(whole(&station).noticed, 1);
}

#[test]
fn a_changed_identity_is_noticed_and_a_wipe_explains_it() {
    let folder = tempfile::tempdir().unwrap();
    let (station, device, statement) = with_device(&folder);
    let order = station
        .order(header(Kind::Wipe, &statement), &Body::Wipe)
        .unwrap();
    let receipt = device.receipt(&order, Outcome::Applied, |_, _| {});
    station
        .log
        .lock()
        .received(&order.digest(), &receipt)
        .unwrap();
    let reborn = Invented {
        identity: SoftAuthority::new(30),
        id: device.id,
    };
    reborn.enroll(&station, reborn.blank());
    assert_eq!(whole(&station).noticed, 0);
    let fake = Invented {
        identity: SoftAuthority::new(31),
        id: device.id,
    };
    fake.enroll(&station, fake.blank());
    assert_eq!(whole(&station).noticed, 1);
}

#[test]
fn after_a_rotate_only_the_new_authority_gives_orders() {
    let folder = tempfile::tempdir().unwrap();
    let (mut station, device, statement) = with_device(&folder);
    let given = keys_of(&station);
    let new = SoftAuthority::new(50);
    let terms = flow::terms(&statement, station.log.lock().head().digest).unwrap();
    let order = flow::rotate_order(&station.authority, &new, terms).unwrap();
    let mut wrong = order.clone();
    wrong.second = None;
    let result = station.log.lock().ordered(&wrong);
    assert_eq!(rejected(&station, result), Fault::OrderFields);
    wrong.second = Some(order.signature);
    let result = station.log.lock().ordered(&wrong);
    assert_eq!(rejected(&station, result), Fault::OrderSignature);
    station.log.lock().ordered(&order).unwrap();
    let receipt = device.receipt(&order, Outcome::Applied, |_, _| {});
    station
        .log
        .lock()
        .received(&order.digest(), &receipt)
        .unwrap();

    let lock = header(Kind::Lock, &statement);
    let result = station.order(lock, &Body::Lock);
    assert_eq!(rejected(&station, result), Fault::OrderSignature);
    let old = std::mem::replace(&mut station.authority, new);
    station.order(lock, &Body::Lock).unwrap();
    // It may not give orders to other devices.
    let new = std::mem::replace(&mut station.authority, old);
    let other = Invented::new(4);
    let statement = other.enroll(&station, other.blank());
    station.authority = new;
    let result = station.order(header(Kind::Lock, &statement), &Body::Lock);
    assert_eq!(rejected(&station, result), Fault::OrderSignature);
    let path = station.log.lock().path().to_owned();
    verify::<AuditError>(&path, given, &[], |_, _| Ok(())).unwrap();
}
