//! The simulated line itself: what it claims to do to bytes, it does, and does so again from the same seed.

mod errors;
mod faults;
#[cfg(unix)]
mod proxy;
mod timing;
mod words;
mod world;

use keyferry_tests::line::{Cable, Nanos, SECOND, Settings, Way};

/// Sends these bytes in one direction as fast as the line takes them, and gives what came out, each byte with its time.
fn carry(cable: &mut Cable, way: Way, bytes: &[u8], from: Nanos) -> Vec<(Nanos, u8)> {
    let mut now = from;
    let mut rest = bytes;
    let mut arrived = Vec::new();
    let mut buffer = [0; 256];
    loop {
        let written = cable.write(way, rest, now);
        rest = &rest[written..];
        loop {
            let count = cable.read(way, &mut buffer, now);
            arrived.extend(buffer[..count].iter().map(|byte| (now, *byte)));
            if count == 0 {
                break;
            }
        }
        assert!(now < from + 1_000 * SECOND, "the line never falls silent");
        match cable.next() {
            Some(at) => now = at.max(now + 1),
            None if rest.is_empty() => return arrived,
            None => now += 1,
        }
    }
}

/// Only the bytes.
fn bytes_of(arrived: &[(Nanos, u8)]) -> Vec<u8> {
    arrived.iter().map(|(_, byte)| *byte).collect()
}

/// Bytes that do not repeat themselves soon.
fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|index| (index * 7919 + index / 251) as u8)
        .collect()
}

/// A line with these settings changed.
fn cable(change: impl FnOnce(&mut Settings)) -> Cable {
    let mut settings = Settings::default();
    change(&mut settings);
    Cable::new(&settings)
}
