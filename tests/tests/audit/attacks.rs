//! Whatever is done to a log afterwards is found.

use keyferry::audit::{
    Anchor, AuditError, AuditLog, Difference, Event, Fault, Seen, Stage, Witness, verify,
};
use keyferry_tests::audited::Station;

use crate::kept::{broken_line, kept};

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
    let other = crate::kept::kept();
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
