//! The audit log: what a station writes verifies, and whatever is done to it afterwards is found.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use keyferry::audit::{
    Anchor, AuditError, AuditLog, Difference, Event, Fault, GivenKeys, Head, Report, Seen, Stage,
    Witness, Work, verify,
};
use keyferry::certificate::{
    CaCertificate, Identity, Issuer, Serial, Validity, parse_subject, self_signed,
};
use keyferry::device::Witness as _;
use keyferry::device::flow::{self, Authority, Demand, Shipment};
use keyferry::device::verify::{SignedReceipt, Statement};
use keyferry_protocol::identity::{Challenge, Digest};
use keyferry_protocol::order::{Body, Enroll, Kind};
use keyferry_protocol::proof::Proof;
use keyferry_protocol::receipt::{Outcome, Refusal};
use keyferry_protocol::suite::{Suite, UnwrapAlgorithm};
use keyferry_tests::audited::{Invented, ONCE, Station, header};
use keyferry_tests::command::{Answer, binary, done, keyferry, refused};
use keyferry_tests::desk::{Desk, OnDesk};
use keyferry_tests::software::{SoftAuthority, aes_key, hmac_key, wrap};
use keyferry_tests::tokens::{Kind as TokenKind, Scratch};
use tempfile::TempDir;

/// A log that holds all kinds of events, and what was kept elsewhere of it.
struct Kept {
    folder: TempDir,
    /// Made when all lines but the last were written, which holds it.
    anchor: Anchor,
    keys: GivenKeys,
}

impl Kept {
    fn path(&self) -> PathBuf {
        self.folder.path().join("audit.log")
    }

    fn lines(&self) -> Vec<Vec<u8>> {
        let bytes = std::fs::read(self.path()).unwrap();
        bytes
            .split_inclusive(|&byte| byte == b'\n')
            .map(<[u8]>::to_vec)
            .collect()
    }

    /// Verifies other content as if it were this log, with the auditor's own keys.
    fn judge(&self, content: &[u8], anchors: &[Anchor]) -> Result<Report, AuditError> {
        let path = self.folder.path().join("judged.log");
        std::fs::write(&path, content).unwrap();
        verify(&path, self.keys.clone(), anchors, |_, _| Ok(()))
    }

    fn anchors(&self) -> &[Anchor] {
        std::slice::from_ref(&self.anchor)
    }
}

fn keys_of(station: &Station) -> GivenKeys {
    GivenKeys {
        authorities: vec![station.authority.public_key().to_vec()],
        audit_key: Some(station.audit_key.public_key().to_vec()),
    }
}

/// Two devices: one gets two keys and proves one of them again, the other's key is open; a third's failed.
fn kept() -> Kept {
    let folder = tempfile::tempdir().unwrap();
    let station = Station::new(&folder.path().join("audit.log"));
    let first = OnDesk::start(Desk::new(1, 32));
    let (mut session, statement) = station.visit(&first);
    station.inject(&mut session, &statement, &[aes_key(16, 1), hmac_key(2)]);
    let (mut session, statement) = station.visit(&first);
    station.prove(&mut session, &statement, &[(1, Proof::HmacSha256)]);

    let second = OnDesk::start(Desk::new(2, 32));
    let (_session, statement) = station.visit(&second);
    let shipment = wrap(&statement, &[aes_key(16, 3)], 1);
    station.wrapping(&statement, &shipment).unwrap();
    station.inject_order(&statement, &shipment).unwrap();

    let third = Invented::new(3);
    let statement = third.enroll(&station, third.blank());
    let job = station.wrapping(&statement, &shipment).unwrap();
    give_up(&station, Work::Job(job)).unwrap();
    station
        .log
        .lock()
        .note("=end of the shift\u{1b}[2J")
        .unwrap();
    let checkpoint = station.log.lock().checkpoint(&station.audit_key).unwrap();
    let keys = keys_of(&station);
    let anchor = Anchor {
        path: folder.path().join("anchor.json"),
        seen: Seen::Checkpoint(checkpoint),
    };
    std::fs::write(&anchor.path, anchor.seen.to_json().unwrap()).unwrap();
    for (name, key) in [
        ("authority.der", &keys.authorities[0]),
        ("audit.der", keys.audit_key.as_ref().unwrap()),
    ] {
        std::fs::write(folder.path().join(name), key).unwrap();
    }
    Kept {
        folder,
        anchor,
        keys,
    }
}

fn give_up(station: &Station, work: Work) -> Result<Head, AuditError> {
    station.log.lock().failed(work, "the cable was pulled")
}

/// The line that breaks a log, if it is broken and not only different from what an anchor has seen.
fn broken_line(result: &Result<Report, AuditError>) -> Option<u64> {
    match result {
        Err(AuditError::Broken { line, .. }) => Some(*line),
        Err(AuditError::Truncated { .. } | AuditError::Replaced { .. }) | Ok(_) => None,
        Err(error) => panic!("{error}"),
    }
}

/// The fault that keeps an event out of a log; the log is as before.
fn rejected<T: std::fmt::Debug>(station: &Station, result: Result<T, AuditError>) -> Fault {
    let log = station.log.lock();
    let on_disk = std::fs::read(log.path()).unwrap();
    let lines = on_disk.iter().filter(|&&byte| byte == b'\n').count();
    assert_eq!(log.head().lines, lines as u64);
    match result {
        Err(AuditError::Rejected(fault)) => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_a_station_writes_verifies_and_adds_up() {
    let kept = kept();
    let lines = kept.lines().len() as u64;
    let bytes = std::fs::read(kept.path()).unwrap();
    let report = kept.judge(&bytes, kept.anchors()).unwrap();
    assert!(report.is_anchored() && report.reconciles());
    assert_eq!((report.lines, report.devices), (lines, 3));
    let tally = &report.tally;
    assert_eq!((tally.wrapped, tally.proved, tally.failed), (4, 2, 1));
    assert_eq!((tally.proofs_again, tally.unproved), (1, 0));
    let [open] = &report.open[..] else {
        panic!("{report:?}");
    };
    assert_eq!(
        (open.device.0, open.slot, open.stage),
        ([2; 16], 0, Stage::Ordered)
    );
    assert_eq!(report.open_orders, []);
    assert_eq!(report.noticed, 0);

    let alone = kept.judge(&bytes, &[]).unwrap();
    assert!(!alone.is_anchored());
    assert_eq!(alone.anchored_lines, 0);
}

#[test]
fn a_bit_altered_anywhere_is_found_and_the_line_is_named() {
    let kept = kept();
    let bytes = std::fs::read(kept.path()).unwrap();
    // A fixed sample, spread over the whole file: 7919 is a prime, and no line's length.
    let positions = (0..bytes.len())
        .step_by(23)
        .chain((0..bytes.len()).step_by(7919));
    let newlines = (0..bytes.len()).filter(|&at| bytes[at] == b'\n');
    let mut tried = 0;
    for at in positions.chain(newlines) {
        let mut altered = bytes.clone();
        altered[at] ^= 1 << (at % 8);
        let line = bytes[..at].iter().filter(|&&byte| byte == b'\n').count() as u64 + 1;
        let result = kept.judge(&altered, &[]);
        let found = broken_line(&result);
        assert!(
            found.is_some_and(|found| found == line || found == line + 1),
            "byte {at} of line {line}: {result:?}"
        );
        tried += 1;
    }
    assert!(tried > 500, "{tried}");
}

#[test]
fn a_line_has_one_spelling() {
    let kept = kept();
    let lines = kept.lines();
    let last = String::from_utf8(lines[lines.len() - 1].clone()).unwrap();
    let (front, signature) = last.split_once("\"signature\":\"").unwrap();
    let (digits, back) = signature.split_at(128);
    let upper = digits.to_uppercase();
    assert_ne!(digits, upper);
    // The same content each time, in the line that no other line vouches for.
    for other in [
        format!("{front}\"signature\":\"{upper}{back}"),
        format!("{front}\"signature\": \"{signature}"),
        last.replacen('{', "{ ", 1),
        last.replacen("\"n\"", "\"\\u006e\"", 1),
    ] {
        let mut altered = lines[..lines.len() - 1].concat();
        altered.extend(other.as_bytes());
        let result = kept.judge(&altered, kept.anchors());
        assert!(
            matches!(
                result,
                Err(AuditError::Broken {
                    fault: Fault::OtherSpelling,
                    ..
                })
            ),
            "{other}: {result:?}"
        );
    }
    // ECDSA has a second signature that is as good, and that anybody can make. It is not the one that was anchored.
    let Seen::Checkpoint(checkpoint) = &kept.anchor.seen else {
        panic!("an anchor of another kind");
    };
    let (r, s) = (checkpoint.signature.r, checkpoint.signature.s);
    let signature = p256::ecdsa::Signature::from_scalars(r, s).unwrap();
    let twin = p256::ecdsa::Signature::from_scalars(*signature.r(), -*signature.s()).unwrap();
    let mut altered = lines[..lines.len() - 1].concat();
    altered.extend(last.replace(digits, &hex::encode(twin.to_bytes())).bytes());
    let report = kept.judge(&altered, kept.anchors()).unwrap();
    assert!(!report.is_anchored());
    assert_eq!(report.anchored_lines, report.lines - 1);
}

#[test]
fn every_line_removed_doubled_or_exchanged_is_found() {
    let kept = kept();
    let lines = kept.lines();
    for at in 0..lines.len() {
        let mut removed = lines.clone();
        removed.remove(at);
        let result = kept.judge(&removed.concat(), kept.anchors());
        if at + 1 == lines.len() {
            // It held the anchor, and nothing else: nothing is lost.
            assert!(result.unwrap().is_anchored());
        } else {
            assert_eq!(broken_line(&result), Some(at as u64 + 1), "{result:?}");
        }
        let mut doubled = lines.clone();
        doubled.insert(at, lines[at].clone());
        let result = kept.judge(&doubled.concat(), kept.anchors());
        assert_eq!(broken_line(&result), Some(at as u64 + 2), "{result:?}");
        for other in at + 1..lines.len() {
            let mut exchanged = lines.clone();
            exchanged.swap(at, other);
            let result = kept.judge(&exchanged.concat(), kept.anchors());
            assert_eq!(broken_line(&result), Some(at as u64 + 1), "{result:?}");
        }
    }
}

#[test]
fn a_log_cut_off_anywhere_is_found_with_an_anchor_and_not_called_whole_without() {
    let kept = kept();
    let lines = kept.lines();
    let seen = lines.len() as u64 - 1;
    for keep in 1..lines.len() - 1 {
        let cut = lines[..keep].concat();
        match kept.judge(&cut, kept.anchors()) {
            Err(AuditError::Truncated {
                lines, seen: had, ..
            }) => {
                assert_eq!((lines, had), (keep as u64, seen));
            }
            other => panic!("{other:?}"),
        }
        let alone = kept.judge(&cut, &[]).unwrap();
        assert!(!alone.is_anchored());
        assert_eq!(alone.lines, keep as u64);
        // In the middle of a line.
        let torn = &cut[..cut.len() - 2];
        let result = kept.judge(torn, &[]);
        assert_eq!(broken_line(&result), Some(keep as u64), "{result:?}");
    }
    assert!(matches!(
        kept.judge(b"", kept.anchors()),
        Err(AuditError::Empty(_))
    ));
}

#[test]
fn a_log_that_was_replaced_is_found() {
    let kept = kept();
    let replaced = |content: &[u8]| match kept.judge(content, kept.anchors()) {
        Err(AuditError::Replaced { difference, .. }) => difference,
        other => panic!("{other:?}"),
    };
    // Another log of the same station, as long and as good.
    let other = self::kept();
    assert_eq!(replaced(&other.lines().concat()), Difference::Log);

    // The same log, gone on with from an earlier line by somebody who has no keys.
    let path = kept.folder.path().join("forked.log");
    std::fs::write(&path, kept.lines()[..5].concat()).unwrap();
    let mut forked = AuditLog::open(&path).unwrap();
    while forked.head().lines < kept.lines().len() as u64 {
        forked.note("nothing happened").unwrap();
    }
    drop(forked);
    let content = std::fs::read(&path).unwrap();
    assert!(matches!(replaced(&content), Difference::Lines { .. }));
    assert!(kept.judge(&content, &[]).is_ok());

    // A log with another audit key does not even fit to the anchor.
    let elsewhere = Station::new(&kept.folder.path().join("elsewhere.log"));
    elsewhere.log.lock().note("another key").unwrap();
    let checkpoint = elsewhere
        .log
        .lock()
        .checkpoint(&elsewhere.audit_key)
        .unwrap();
    let mut anchor = kept.anchor.clone();
    anchor.seen = Seen::Checkpoint(checkpoint);
    assert!(matches!(
        kept.judge(&kept.lines().concat(), &[anchor]),
        Err(AuditError::Replaced {
            difference: Difference::Log,
            ..
        })
    ));
}

#[test]
fn an_order_and_its_receipt_witness_the_log() {
    let kept = kept();
    let lines = kept.lines();
    let mut witnesses = Vec::new();
    verify::<AuditError>(&kept.path(), kept.keys.clone(), &[], |line, record| {
        if let Event::Ordered(ordered) = &record.event {
            let witness = Witness {
                order: ordered.order.clone(),
                signature: ordered.signature,
                receipt: None,
            };
            witnesses.push((line, witness));
        }
        Ok(())
    })
    .unwrap();
    assert!(witnesses.len() >= 6);
    for (line, witness) in witnesses {
        let json = Seen::Witness(witness.clone()).to_json().unwrap();
        let anchor = Anchor {
            path: "witness.json".into(),
            seen: Seen::from_json(json.as_bytes()).unwrap(),
        };
        let anchors = [anchor];
        let report = kept.judge(&lines.concat(), &anchors).unwrap();
        assert_eq!(report.anchored_lines, line - 1);
        let before = usize::try_from(line - 1).unwrap();
        assert!(matches!(
            kept.judge(&lines[..before].concat(), &anchors),
            Err(AuditError::Replaced {
                difference: Difference::Order,
                ..
            })
        ));
        // Somebody else's order is no witness.
        let mut forged = witness;
        forged.signature.r[5] ^= 1;
        let anchor = Anchor {
            path: "forged.json".into(),
            seen: Seen::Witness(forged),
        };
        assert!(matches!(
            kept.judge(&lines[..before].concat(), &[anchor]),
            Err(AuditError::NotAnAnchor { .. })
        ));
    }
}

#[test]
fn a_torn_line_is_cut_off_and_noted_and_nothing_else_is_mended() {
    let kept = kept();
    let whole = kept.lines();
    let path = kept.folder.path().join("torn.log");
    let last = &whole[whole.len() - 1];
    for length in [1, 17, last.len() - 1] {
        let mut torn = whole[..whole.len() - 1].concat();
        torn.extend(&last[..length]);
        std::fs::write(&path, &torn).unwrap();
        let log = AuditLog::open(&path).unwrap();
        assert_eq!(log.head().lines, whole.len() as u64);
        drop(log);
        let report = kept
            .judge(&std::fs::read(&path).unwrap(), kept.anchors())
            .unwrap();
        assert_eq!(report.lines, whole.len() as u64);
        assert_eq!(report.noticed, 1);
        assert_eq!(report.tally.wrapped, 4);
    }
    // A longer rest than the note that is written over it.
    let mut torn = whole.concat();
    torn.extend(vec![b'x'; 5000]);
    std::fs::write(&path, &torn).unwrap();
    drop(AuditLog::open(&path).unwrap());
    let again = std::fs::read(&path).unwrap();
    assert!(again.len() < torn.len() && again.ends_with(b"}\n"));
    assert_eq!(kept.judge(&again, kept.anchors()).unwrap().noticed, 1);

    for at in 0..whole.len() {
        let mut altered = whole.clone();
        altered[at][40] ^= 1;
        std::fs::write(&path, altered.concat()).unwrap();
        assert!(matches!(
            AuditLog::open(&path),
            Err(AuditError::Broken { .. })
        ));
        assert_eq!(std::fs::read(&path).unwrap(), altered.concat());
    }
}

#[test]
fn one_writer_at_a_time_and_only_the_one_that_holds_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let station = Station::new(&path);
    assert!(matches!(AuditLog::open(&path), Err(AuditError::Locked(_))));
    station.log.lock().note("one").unwrap();
    drop(station);
    let mut log = AuditLog::open(&path).unwrap();
    assert_eq!(log.head().lines, 2);
    // Somebody who does not care about locks.
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend(b"something\n");
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(log.note("two"), Err(AuditError::Changed(_))));
    assert!(matches!(log.note("three"), Err(AuditError::Unusable(_))));
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_log_never_replaces_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let kept = kept();
    let opened = AuditLog::open(&kept.path()).unwrap();
    std::fs::write(&path, b"theirs").unwrap();
    let opened = keyferry::audit::Opened {
        log: opened.id(),
        station: opened.station().into(),
        authorities: Vec::new(),
        audit_key: opened.audit_key().to_vec(),
    };
    assert!(matches!(
        AuditLog::create(&path, opened),
        Err(AuditError::Exists(_))
    ));
    assert_eq!(std::fs::read(&path).unwrap(), b"theirs");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn only_the_audit_key_signs_checkpoints() {
    let kept = kept();
    let path = kept.path();
    let mut log = AuditLog::open(&path).unwrap();
    assert!(matches!(
        log.checkpoint(&SoftAuthority::new(5)),
        Err(AuditError::OtherSigner { .. })
    ));
    // A signer that names the right key, and signs with another.
    struct Liar(Vec<u8>, SoftAuthority);
    impl Authority for Liar {
        fn public_key(&self) -> &[u8] {
            &self.0
        }
        fn sign(
            &self,
            message: &[u8],
        ) -> Result<[u8; 64], Box<dyn std::error::Error + Send + Sync>> {
            self.1.sign(message)
        }
    }
    let liar = Liar(log.audit_key().to_vec(), SoftAuthority::new(5));
    assert!(matches!(
        log.checkpoint(&liar),
        Err(AuditError::Rejected(Fault::CheckpointSignature))
    ));
    drop(log);
    assert!(
        kept.judge(&std::fs::read(&path).unwrap(), kept.anchors())
            .is_ok()
    );
    // The log itself says which key it is; an auditor who knows better finds another.
    let keys = GivenKeys {
        audit_key: Some(SoftAuthority::new(5).public_key().to_vec()),
        ..kept.keys.clone()
    };
    let result = verify::<AuditError>(&path, keys, &[], |_, _| Ok(()));
    assert!(matches!(
        result,
        Err(AuditError::Broken {
            line: 1,
            fault: Fault::OtherAuditKey,
            ..
        })
    ));
    let keys = GivenKeys {
        authorities: vec![SoftAuthority::new(5).public_key().to_vec()],
        ..kept.keys.clone()
    };
    let result = verify::<AuditError>(&path, keys, &[], |_, _| Ok(()));
    assert!(matches!(
        result,
        Err(AuditError::Broken {
            line: 2,
            fault: Fault::OrderSignature,
            ..
        })
    ));
}

/// A station with one invented, trusted device.
fn with_device(folder: &TempDir) -> (Station, Invented, Statement) {
    let station = Station::new(&folder.path().join("audit.log"));
    let device = Invented::new(3);
    let statement = device.enroll(&station, device.blank());
    (station, device, statement)
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

/// The report of a station's log, with the auditor's own keys.
fn whole(station: &Station) -> Report {
    let path = station.log.lock().path().to_owned();
    verify::<AuditError>(&path, keys_of(station), &[], |_, _| Ok(())).unwrap()
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
        let terms = flow::terms(&statement, log.head().digest);
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
    let terms = flow::terms(&statement, station.log.lock().head().digest);
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
    let terms = flow::terms(&statement, station.log.lock().head().digest);
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

/// A certificate for a device's identity key.
fn certificate(statement: &Statement) -> Vec<u8> {
    let key = SoftAuthority::new(70);
    let now = SystemTime::now();
    let subject = parse_subject("CN=factory").unwrap();
    let ca = self_signed(&key, &subject, Validity::Unlimited, now).unwrap();
    let ca = CaCertificate::read(&ca).unwrap();
    let identity = Identity {
        serial: Serial::product("0001").unwrap(),
        organization: None,
        common_name: None,
        key: &statement.identity_key,
    };
    Issuer::new(&key, ca)
        .unwrap()
        .issue(&identity, now)
        .unwrap()
}

#[test]
fn a_certificate_is_the_devices_and_is_written_down_before_it_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let (station, device, statement) = with_device(&folder);
    let der = certificate(&statement);
    let with = |der: Vec<u8>| Shipment {
        certificate: Some(der),
        ..wrap(&statement, &[aes_key(16, 1)], 1)
    };
    let result = station.wrapping(&statement, &with(der.clone()));
    result.unwrap();
    let result = station.inject_order(&statement, &with(der.clone()));
    assert_eq!(rejected(&station, result), Fault::OtherCertificate);

    let stranger = Invented::new(4);
    let other = certificate(&stranger.enroll(&station, stranger.blank()));
    let result = station.log.lock().certified(device.id, &other);
    assert!(matches!(rejected(&station, result), Fault::Certificate(_)));
    let mut altered = der.clone();
    let last = altered.len() - 1;
    altered[last] ^= 1;
    station.log.lock().certified(device.id, &der).unwrap();
    let result = station.inject_order(&statement, &with(altered));
    assert_eq!(rejected(&station, result), Fault::OtherCertificate);
    station.inject_order(&statement, &with(der)).unwrap();
    assert_eq!(whole(&station).tally.certified, 1);
}

/// Enrolled, certified, given keys, one removed, handed over, proved, wiped: twelve orders.
fn live(station: &mut Station, device: &OnDesk) {
    let (mut session, statement) = station.visit(device);
    let der = certificate(&statement);
    station
        .log
        .lock()
        .certified(statement.device, &der)
        .unwrap();
    let shipment = Shipment {
        certificate: Some(der),
        parcels: Vec::new(),
        ..wrap(&statement, &[], 1)
    };
    let authority = &station.authority;
    let quiet = &mut |_| {};
    let once = Challenge([8; 32]);
    flow::inject(&mut session, authority, &statement, &shipment, once, quiet).unwrap();
    let (mut session, statement) = station.visit(device);
    station.inject(&mut session, &statement, &[aes_key(32, 1), hmac_key(2)]);
    let (mut session, statement) = station.visit(device);
    flow::remove(&mut session, authority, &statement, &[0], quiet).unwrap();

    let (mut session, statement) = station.visit(device);
    let new = SoftAuthority::new(50);
    flow::rotate(&mut session, authority, &new, &statement, quiet).unwrap();
    station.authority = new;
    let (mut session, statement) = station.visit(device);
    station.prove(&mut session, &statement, &[(1, Proof::HmacSha256)]);
    let (mut session, statement) = station.visit(device);
    flow::wipe(&mut session, &station.authority, &statement, quiet).unwrap();
}

#[test]
fn the_whole_life_of_a_device_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let mut station = Station::new(&path);
    let given = keys_of(&station);
    live(&mut station, &OnDesk::start(Desk::new(1, 32)));
    let report = verify::<AuditError>(&path, given, &[], |_, _| Ok(())).unwrap();
    let tally = &report.tally;
    assert_eq!((tally.orders, tally.applied, tally.refused), (12, 12, 0));
    assert_eq!((tally.wrapped, tally.proved, tally.proofs_again), (2, 2, 1));
    assert_eq!((report.devices, report.noticed), (0, 0));
    // The same, by a station that starts again.
    drop(station);
    let log = AuditLog::open(&path).unwrap();
    assert_eq!(
        (log.head().lines, log.open_orders()),
        (report.lines, vec![])
    );
}

// The command.

fn audit(arguments: &[&str]) -> Command {
    let mut command = keyferry();
    command.arg("audit").args(arguments);
    command
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_command_says_what_is_wrong_and_where() {
    let kept = kept();
    let path = kept.path();
    let file = |name: &str| text(&kept.folder.path().join(name)).to_owned();
    let (anchor, authority, key) = (
        file("anchor.json"),
        file("authority.der"),
        file("audit.der"),
    );
    let whole = [
        "verify",
        text(&path),
        "--authority",
        &authority,
        "--audit-key",
        &key,
    ];
    let with_anchor = [&whole[..], &["--anchor", &anchor]].concat();

    let last = done(&mut audit(&with_anchor));
    assert_eq!(
        (&last["anchored"], &last["keys"]["open"]),
        (&true.into(), &1.into())
    );
    let answer = Answer::of(&mut audit(&with_anchor));
    assert!(!answer.stderr.contains("warning"), "{answer:?}");

    let answer = Answer::of(&mut audit(&whole));
    assert_eq!(answer.code, 0);
    assert!(answer.stderr.contains("end not anchored"), "{answer:?}");
    let last = done(&mut audit(&whole));
    assert_eq!(
        (&last["anchored"], &last["anchored_until"]),
        (&false.into(), &0.into())
    );

    let answer = Answer::of(&mut audit(&["verify", text(&path)]));
    assert!(
        answer.stderr.contains("taken from the log itself"),
        "{answer:?}"
    );

    let lines = kept.lines();
    let mut altered = lines.clone();
    altered[6][30] ^= 1;
    std::fs::write(&path, altered.concat()).unwrap();
    refused(|| audit(&whole), 1, "line 7: ", "keep the file as it is");
    let answer = Answer::of(audit(&whole).arg("--json"));
    assert_eq!(answer.json()[0]["broken_line"], 7);
    // What comes before it is shown.
    let answer = Answer::of(&mut audit(&["show", text(&path)]));
    assert_eq!((answer.code, answer.stdout.lines().count()), (1, 6));
    let out = file("table.csv");
    refused(
        || audit(&["export", text(&path), "--format", "csv", "--out", &out]),
        1,
        "line 7: ",
        "keep the file as it is",
    );
    assert!(!Path::new(&out).exists());

    std::fs::write(&path, lines[..8].concat()).unwrap();
    refused(
        || audit(&with_anchor),
        1,
        "the log was cut off: it has 8 lines",
        "look for the log",
    );
    std::fs::write(&path, self::kept().lines().concat()).unwrap();
    refused(
        || audit(&with_anchor),
        1,
        "the log was replaced",
        "look for the log",
    );
    std::fs::write(&path, &lines.concat()[..lines.concat().len() - 9]).unwrap();
    refused(
        || audit(&whole),
        1,
        "it is not finished",
        "next opened for writing",
    );

    let mut forged = std::fs::read_to_string(&anchor).unwrap();
    let seen = lines.len() - 1;
    forged = forged.replace(&format!("\"lines\": {seen}"), "\"lines\": 3");
    std::fs::write(&anchor, forged).unwrap();
    refused(
        || audit(&with_anchor),
        2,
        "its signature is wrong",
        "an anchor is",
    );
    std::fs::write(&anchor, "{}").unwrap();
    refused(|| audit(&with_anchor), 2, "is no anchor", "an anchor is");
    std::fs::write(&anchor, vec![b' '; 1 << 20]).unwrap();
    refused(|| audit(&with_anchor), 2, "longer than", "an anchor is");
    refused(
        || audit(&["verify", &file("absent")]),
        2,
        "cannot be read",
        "",
    );
}

#[test]
fn a_log_is_shown_and_exported_without_harm() {
    let kept = kept();
    let path = kept.path();
    let answer = Answer::of(&mut audit(&["show", text(&path)]));
    assert_eq!(answer.code, 0, "{answer:?}");
    assert_eq!(answer.stdout.lines().count(), kept.lines().len());
    assert!(answer.stdout.contains("=end of the shift?[2J"));
    assert!(!answer.stdout.contains('\u{1b}'));

    let out = kept.folder.path().join("table.csv");
    let csv = [
        "export",
        text(&path),
        "--format",
        "csv",
        "--out",
        text(&out),
    ];
    let rows = done(&mut audit(&csv))["rows"].as_u64().unwrap();
    let table = std::fs::read_to_string(&out).unwrap();
    assert_eq!(table.lines().count() as u64, rows + 1);
    assert!(table.starts_with("line,time,event,device,"));
    assert!(table.contains("'=end of the shift"));
    assert!(table.contains("refused") || table.contains("applied"));
    refused(|| audit(&csv), 2, "exists already", "--force");

    let out = kept.folder.path().join("table.json");
    let json = [
        "export",
        text(&path),
        "--format",
        "json",
        "--out",
        text(&out),
    ];
    assert_eq!(done(&mut audit(&json))["rows"], rows);
    let table: serde_json::Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
    let objects = table.as_array().unwrap();
    assert_eq!(objects.len() as u64, rows);
    assert!(
        objects
            .iter()
            .any(|row| row["text"] == "=end of the shift\u{1b}[2J")
    );
    let proved = objects
        .iter()
        .filter(|row| row["event"] == "proved")
        .count();
    assert_eq!(proved, 3);
}

/// The command gets two MiB for its data, and a log that is longer: it does not hold the lines.
#[cfg(target_os = "linux")]
#[test]
fn a_long_log_is_verified_in_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let lines = keyferry_tests::audited::write_long(&path, 400, 20);
    assert_eq!(lines, 2801);
    let length = std::fs::metadata(&path).unwrap().len();
    assert!(length > 2 << 20, "{length}");
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -d 2048 && exec \"$@\"", "sh"])
        .arg(binary())
        .args(["audit", "verify", text(&path)]);
    let last = done(&mut command);
    assert_eq!(
        (&last["lines"], &last["keys"]["proved"]),
        (&2801.into(), &400.into())
    );
}

/// The commands of `host/AUDIT.md`, run as they stand there. They are for a shell, so this is for systems that have one.
#[test]
fn the_guide_works_as_it_stands() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/AUDIT.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let blocks: Vec<_> = guide
        .split("\n```sh\n")
        .skip(1)
        .map(|rest| rest.split_once("\n```").unwrap().0)
        .collect();
    assert!(blocks.len() >= 4, "{blocks:?}");
    let scratch = Scratch::with(&[(TokenKind::SoftHsm, "line")]);
    let search = std::env::var("PATH").unwrap();
    for block in blocks {
        let output = Command::new("sh")
            .args(["-e", "-u", "-c", block])
            .current_dir(scratch.path(""))
            .envs(scratch.environment())
            .env("TOKEN", scratch.uri_of("line"))
            .env(
                "PATH",
                format!("{}:{search}", binary().parent().unwrap().display()),
            )
            .env_remove("KEYFERRY_TOKEN")
            .env_remove("KEYFERRY_PIN")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{block}\n{said}");
    }
    // What the guide says of keys that do more than sign, and of another key than the log's.
    let file = |name: &str| text(&scratch.path(name)).to_owned();
    let command = |arguments: &[&str]| {
        let mut command = audit(arguments);
        command
            .args(["--token", &scratch.uri_of("line")])
            .envs(scratch.environment());
        command
    };
    let mut create = keyferry();
    create
        .args(["key", "create", "--label", "loose", "--type", "p-256"])
        .args(["--usage", "sign,verify,derive"])
        .args(["--token", &scratch.uri_of("line")])
        .envs(scratch.environment());
    done(&mut create);
    let new = file("new.log");
    let create = |authority: &'static str, audit_key: &'static str| {
        let mut command = command(&["create", &new, "--station", "s"]);
        command.args(["--authority", authority, "--audit-key", audit_key]);
        command
    };
    refused(
        || create("authority", "loose"),
        5,
        "may do more than sign",
        "key create",
    );
    assert!(!Path::new(&new).exists());
    let last = done(&mut create("authority", "audit"));
    assert_eq!((&last["station"], &last["lines"]), (&"s".into(), &1.into()));
    refused(
        || create("authority", "audit"),
        2,
        "exists already",
        "name a new file",
    );
    let log = file("line-7.log");
    let checkpoint = |key: &'static str| command(&["checkpoint", &log, "--audit-key", key]);
    let before = std::fs::read(&log).unwrap();
    refused(
        || checkpoint("loose"),
        5,
        "may do more than sign",
        "key create",
    );
    refused(
        || checkpoint("authority"),
        2,
        "the log's audit key is",
        "use the audit key",
    );
    assert_eq!(std::fs::read(&log).unwrap(), before);
    let held = AuditLog::open(Path::new(&log)).unwrap();
    refused(
        || checkpoint("audit"),
        1,
        "in use by another process",
        "end the other station",
    );
    drop(held);
    done(&mut checkpoint("audit"));
}
