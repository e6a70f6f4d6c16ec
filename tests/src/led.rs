//! What the LED of a board shows, by its log.

use std::thread;
use std::time::{Duration, Instant};

use keyferry::emulate::logs::Entry;

use crate::board::Rig;

/// By how many milliseconds a change of the LED may be late or early: on a machine with other work to do, the emulator is late by some in
/// every turn. No two patterns are as close as that.
const TOLERANCE: i64 = 20;

/// What the log says of the LED: milliseconds of the device's own time, and whether it was lit then.
///
/// # Panics
/// If it cannot be read.
#[must_use]
pub fn switched(log: &[Entry]) -> Vec<(i64, bool)> {
    log.iter()
        .filter_map(|entry| {
            let lit = entry
                .message
                .strip_prefix("LED ")?
                .parse()
                .expect("true or false");
            let time = entry.time.as_deref().expect("a time");
            let seconds: f64 = time.parse().expect("seconds");
            Some(((seconds * 1_000.0).round() as i64, lit))
        })
        .collect()
}

/// What the log says from its last entry with these words on.
fn log_from(rig: &Rig, words: &str) -> Vec<Entry> {
    let mut log = rig.log();
    let begin = log.iter().rposition(|entry| entry.message.contains(words));
    log.drain(..begin.unwrap_or(log.len()));
    log
}

/// Waits until the LED was lit and then switched after each of these spans in milliseconds, since the log had these words. The device's
/// clock does not run while the host lets it wait in its work, but may be late by that at the end of a sleep: then another turn of the pattern counts.
///
/// # Panics
/// If it does not for two minutes.
pub fn await_pattern(rig: &Rig, words: &str, spans: &[i64]) {
    let fits = |changes: &[(i64, bool)]| {
        let (begin, lit) = changes[0];
        let mut expected = begin;
        lit && spans.iter().zip(&changes[1..]).all(|(span, (at, _))| {
            expected += span;
            (expected - TOLERANCE..=expected + TOLERANCE).contains(at)
        })
    };
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        let log = log_from(rig, words);
        let changes = switched(&log);
        // It is told of changes only.
        assert!(changes.windows(2).all(|pair| pair[0].1 != pair[1].1));
        if changes.windows(spans.len() + 1).any(fits) {
            return;
        }
        assert!(Instant::now() < end, "{spans:?}: {log:?}");
        thread::sleep(Duration::from_millis(100));
    }
}
