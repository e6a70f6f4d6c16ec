//! An attacker on the disk of the station: the audit log of a real session, rewritten. Whoever verifies has public keys and a
//! checkpoint that was kept elsewhere.

use std::fs;

use keyferry_tests::desk::{Desk, OnDesk};
use keyferry_tests::relay::Relay;

use crate::line::Line;

/// A line whose command has enrolled a device, injected a key and proved it again.
fn lived() -> Line {
    let line = Line::new("line");
    let device = OnDesk::start(Desk::new(99, 32));
    let cable = Relay::to(device.port());
    let port = cable.path();
    line.done("enroll", port, &["--policy", "open", "--unwrap", "p-256"]);
    let more = ["--policy", "registry", "--key", "mac@0"];
    line.done("inject", port, &more);
    line.done("prove", port, &more);
    line
}

#[test]
fn a_rewritten_log_of_a_real_session_is_found_out() {
    let line = lived();
    let log = line.file("audit.log");
    let anchor = line.anchor();
    let whole = fs::read(&log).unwrap();
    let good = line.verify(&log, Some(&anchor));
    assert_eq!(good.code, 0, "{good:?}");
    let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    let count = lines.len();
    assert!(count > 10, "{count}");
    let judged = line.file("judged.log");
    let judge = |content: &[u8], anchor: Option<&str>| {
        fs::write(&judged, content).unwrap();
        let answer = line.verify(&judged, anchor);
        (answer.code, answer.last())
    };
    let found_at = |content: &[u8], at: usize| {
        let (code, last) = judge(content, Some(&anchor));
        assert_eq!(code, 1, "{last}");
        // Or the line after, whose link to the one before breaks.
        let named = [at + 1, at + 2].map(|line| format!("line {line}"));
        let error = last["error"].as_str().unwrap();
        assert!(
            named.iter().any(|line| error.contains(line)),
            "{at}: {error}"
        );
    };
    // The last line holds the anchor's checkpoint, and nothing that could be lost.
    for at in [0, 1, count / 2, count - 2] {
        let mut altered: Vec<Vec<u8>> = lines.iter().map(|line| line.to_vec()).collect();
        let middle = altered[at].len() / 2;
        altered[at][middle] ^= 1;
        found_at(&altered.concat(), at);

        let mut removed = lines.clone();
        removed.remove(at);
        found_at(&removed.concat(), at);

        if at > 0 {
            let mut exchanged = lines.clone();
            exchanged.swap(at, at - 1);
            found_at(&exchanged.concat(), at - 1);
        }
    }
    // Cut off behind any line: found with the anchor, and never called whole without.
    for keep in [1, count / 2, count - 2] {
        let cut = lines[..keep].concat();
        let (code, last) = judge(&cut, Some(&anchor));
        assert_eq!(code, 1, "{last}");
        let (code, last) = judge(&cut, None);
        assert!(code != 0 || last["anchored"] == false, "{last}");
    }
    // A log of its own, whole and well signed by the same station, in place of this one.
    let other = Line::new("line");
    let (code, last) = judge(&fs::read(other.file("audit.log")).unwrap(), Some(&anchor));
    assert_eq!(code, 1, "{last}");
}
