//! Words from a file that end up on a terminal.

use super::export::{rows, short};
use super::record::{Event, Record, Work};
use crate::device::verify::fingerprint;

/// A text without what a terminal would obey: control characters, and those that turn the direction of writing or break lines
/// (Unicode UAX #9 and #14).
#[must_use]
pub fn printable(text: &str) -> String {
    let obeyed = |c: char| {
        c.is_control()
            || matches!(
                c,
                '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{2028}' | '\u{2029}'
            )
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.replace(obeyed, "?")
}

/// A record in one line, for a person. Whatever stands in the file, a terminal only shows it.
#[must_use]
pub fn describe(record: &Record) -> String {
    let text = match &record.event {
        Event::Opened(opened) => format!("log {} of station '{}'", opened.log, opened.station),
        Event::Authority(authority) => {
            format!(
                "orders are signed by {} as well",
                fingerprint(&authority.key)
            )
        }
        Event::Enrolled(trust) | Event::Trusted(trust) => format!(
            "device {} by policy {}: {}",
            trust.device, trust.policy, trust.reason
        ),
        Event::Wrapped(wrapped) => {
            let keys: Vec<_> = wrapped
                .keys
                .iter()
                .map(|key| {
                    format!(
                        "{}@{} ({}, proof {})",
                        key.label,
                        key.slot,
                        key.key_type,
                        key.proof.name()
                    )
                })
                .collect();
            format!("for device {}: {}", wrapped.device, keys.join(", "))
        }
        Event::Ordered(ordered) => format!(
            "{} {} for device {}{}",
            ordered.kind.name(),
            short(&ordered.digest),
            ordered.device,
            slots(record)
        ),
        Event::Received(received) => {
            let outcome = rows(record).into_iter().next().and_then(|row| row.outcome);
            format!(
                "{} by device {}: {}{}",
                short(&received.order),
                received.device,
                outcome.unwrap_or_default(),
                slots(record)
            )
        }
        Event::Disbelieved(answer) => {
            format!("an answer to {}: {}", short(&answer.order), answer.reason)
        }
        Event::Proved(proved) => format!(
            "{} by device {}{}",
            short(&proved.order),
            proved.device,
            slots(record)
        ),
        Event::Failed(failed) => {
            let work = match failed.work {
                Work::Job(job) => format!("job {job}"),
                Work::Order(order) => format!("order {}", short(&order)),
            };
            format!("{work}{}: {}", slots(record), failed.reason)
        }
        Event::Certified(certified) => format!(
            "device {}, serial number {}",
            certified.device,
            hex::encode(&certified.serial)
        ),
        Event::Checkpoint(_) => format!("{} lines, head {}", record.n, short(&record.previous)),
        Event::Torn(torn) => format!("{} bytes of an unfinished line were cut off", torn.bytes),
        Event::Note(note) => note.text.clone(),
    };
    printable(&format!(
        "{:>6}  {}  {:<10}  {text}",
        record.n + 1,
        record.time,
        record.event.name()
    ))
}

/// The slots that a record is about.
fn slots(record: &Record) -> String {
    let slots: Vec<_> = rows(record)
        .into_iter()
        .filter_map(|row| row.slot)
        .collect();
    match slots.len() {
        0 => String::new(),
        1 => format!(", slot {}", slots.join("")),
        2.. => format!(", slots {}", slots.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use keyferry_protocol::identity::Digest;

    use super::super::record::Note;
    use super::*;

    #[test]
    fn nothing_in_a_record_reaches_the_terminal_raw() {
        let text = "one\x1b[2Jtwo\nthree\r\u{9b}four\u{202e}five\u{2028}six\0";
        let record = Record {
            n: 0,
            previous: Digest::ZERO,
            time: der::DateTime::new(2026, 1, 2, 3, 4, 5).unwrap(),
            event: Event::Note(Note { text: text.into() }),
        };
        assert_eq!(
            describe(&record),
            "     1  2026-01-02T03:04:05Z  note        one?[2Jtwo?three??four?five?six?"
        );
    }
}
