//! A log with all kinds of events, and the ways to look at it that the tests share.

use std::path::PathBuf;

use keyferry::audit::{Anchor, AuditError, Fault, GivenKeys, Head, Report, Seen, Work, verify};
use keyferry::device::flow::Authority;
use keyferry::device::verify::Statement;
use keyferry_protocol::proof::Proof;
use keyferry_tests::audited::{Invented, Station};
use keyferry_tests::desk::{Desk, OnDesk};
use keyferry_tests::software::{aes_key, hmac_key, wrap};
use tempfile::TempDir;

/// A log that holds all kinds of events, and what was kept elsewhere of it.
pub(crate) struct Kept {
    pub(crate) folder: TempDir,
    /// Made when all lines but the last were written, which holds it.
    pub(crate) anchor: Anchor,
    pub(crate) keys: GivenKeys,
}

impl Kept {
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("audit.log")
    }

    pub(crate) fn lines(&self) -> Vec<Vec<u8>> {
        let bytes = std::fs::read(self.path()).unwrap();
        bytes
            .split_inclusive(|&byte| byte == b'\n')
            .map(<[u8]>::to_vec)
            .collect()
    }

    /// Verifies other content as if it were this log, with the auditor's own keys.
    pub(crate) fn judge(&self, content: &[u8], anchors: &[Anchor]) -> Result<Report, AuditError> {
        let path = self.folder.path().join("judged.log");
        std::fs::write(&path, content).unwrap();
        verify(&path, self.keys.clone(), anchors, |_, _| Ok(()))
    }

    pub(crate) fn anchors(&self) -> &[Anchor] {
        std::slice::from_ref(&self.anchor)
    }
}

pub(crate) fn keys_of(station: &Station) -> GivenKeys {
    GivenKeys {
        authorities: vec![station.authority.public_key().to_vec()],
        audit_key: Some(station.audit_key.public_key().to_vec()),
    }
}

/// Two devices: one gets two keys and proves one of them again, the other's key is open; a third's failed.
pub(crate) fn kept() -> Kept {
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

pub(crate) fn give_up(station: &Station, work: Work) -> Result<Head, AuditError> {
    station.log.lock().failed(work, "the cable was pulled")
}

/// The line that breaks a log, if it is broken and not only different from what an anchor has seen.
pub(crate) fn broken_line(result: &Result<Report, AuditError>) -> Option<u64> {
    match result {
        Err(AuditError::Broken { line, .. }) => Some(*line),
        Err(AuditError::Truncated { .. } | AuditError::Replaced { .. }) | Ok(_) => None,
        Err(error) => panic!("{error}"),
    }
}

/// The fault that keeps an event out of a log; the log is as before.
pub(crate) fn rejected<T: std::fmt::Debug>(
    station: &Station,
    result: Result<T, AuditError>,
) -> Fault {
    let log = station.log.lock();
    let on_disk = std::fs::read(log.path()).unwrap();
    let lines = on_disk.iter().filter(|&&byte| byte == b'\n').count();
    assert_eq!(log.head().lines, lines as u64);
    match result {
        Err(AuditError::Rejected(fault)) => fault,
        other => panic!("{other:?}"),
    }
}

/// A station with one invented, trusted device.
pub(crate) fn with_device(folder: &TempDir) -> (Station, Invented, Statement) {
    let station = Station::new(&folder.path().join("audit.log"));
    let device = Invented::new(3);
    let statement = device.enroll(&station, device.blank());
    (station, device, statement)
}

/// The report of a station's log, with the auditor's own keys.
pub(crate) fn whole(station: &Station) -> Report {
    let path = station.log.lock().path().to_owned();
    verify::<AuditError>(&path, keys_of(station), &[], |_, _| Ok(())).unwrap()
}
