//! The audit log and what anchors it: files that anybody may have written.

use std::fs;
use std::path::Path;

use keyferry::audit::{
    AuditError, AuditLog, GivenKeys, Record, Seen, describe, head_after, read_signed_bytes, rows,
    safe_cell, signed_bytes, verify,
};
use keyferry_protocol::identity::Digest;

/// One line, or the signed bytes of a checkpoint as a broker gets them.
pub(super) fn line(data: &[u8]) -> bool {
    if let Some((log, lines, head, time)) = read_signed_bytes(data) {
        assert_eq!(signed_bytes(&log, lines, &head, time), data);
        return true;
    }
    let Ok(record) = Record::read(data) else {
        return false;
    };
    assert_eq!(record.write().expect("it was not longer"), data);
    // Whatever is in it: it is for a person's terminal, and for a spreadsheet.
    assert!(!describe(&record).chars().any(char::is_control));
    for row in rows(&record) {
        for cell in row.cells() {
            assert!(!safe_cell(cell).starts_with(['=', '+', '-', '@']));
        }
    }
    true
}

/// A whole log. The fuzzer cannot compute hashes, so lines that are records get the place and the hash that they need; all else
/// stays as it is.
pub(super) fn log(data: &[u8]) -> bool {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("log");
    fs::write(&path, chained(data)).expect("the folder can be written");

    let verified = verified(&path);
    // Whoever opens it to write on looks at the chain and cuts off an unfinished line, and mends nothing else.
    let opened = AuditLog::open(&path).map(|log| log.head());
    if let Ok((lines, head)) = verified {
        let opened = opened.expect("what verifies can be written on");
        assert_eq!((opened.lines, opened.digest), (lines, head));
    }
    verified.is_ok()
}

/// Verifies a log; gives the number of its lines and its head.
fn verified(path: &Path) -> Result<(u64, Digest), AuditError> {
    let mut last = 0;
    let report = verify(path, GivenKeys::default(), &[], |line, record| {
        assert_eq!(line, last + 1);
        assert_eq!(record.n, last);
        last = line;
        Ok::<(), AuditError>(())
    })?;
    assert_eq!(report.lines, last);
    assert!(report.reconciles());
    assert!(!report.is_anchored() || report.lines == 0);
    Ok((report.lines, report.head))
}

/// The lines, those that are records with their place and the hash before them.
fn chained(data: &[u8]) -> Vec<u8> {
    let (mut out, mut head, mut place) = (Vec::new(), Digest::ZERO, 0);
    for piece in data.split_inclusive(|byte| *byte == b'\n') {
        let (line, newline) = match piece.strip_suffix(b"\n") {
            Some(line) => (line, true),
            None => (piece, false),
        };
        let mut line = line.to_vec();
        if let Ok(mut record) = Record::read(&line) {
            record.n = place;
            record.previous = head;
            if let Ok(chained) = record.write() {
                line = chained;
            }
        }
        head = head_after(&line);
        place += 1;
        out.extend(line);
        out.extend(newline.then_some(b'\n'));
    }
    out
}

/// An anchor's file.
pub(super) fn anchor(data: &[u8]) -> bool {
    let Ok(seen) = Seen::from_json(data) else {
        return false;
    };
    match &seen {
        Seen::Checkpoint(checkpoint) => assert!(checkpoint.is_signed()),
        Seen::Witness(witness) => {
            witness.head().expect("it was looked at");
        }
    }
    let json = seen.to_json().expect("it can be written");
    if let Ok(again) = Seen::from_json(json.as_bytes()) {
        assert_eq!(again, seen);
    }
    true
}
