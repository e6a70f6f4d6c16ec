//! How a log is written: one writer, torn lines, keys that sign.

use keyferry::audit::{AuditError, AuditLog, Fault, GivenKeys, verify};
use keyferry::device::flow::Authority;
use keyferry_tests::audited::Station;
use keyferry_tests::software::SoftAuthority;

use crate::kept::kept;

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
