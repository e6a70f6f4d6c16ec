//! A log as a table: one row for each event, and for each key of an event that is about several.
//!
//! What orders and receipts say stands in it in words. It is for spreadsheets and reports; what is signed is the log.

use keyferry_protocol::identity::Digest;
use keyferry_protocol::order::{self, Body, Freshness};
use keyferry_protocol::receipt::{self, Outcome};
use serde::Serialize;

use super::record::{Event, Record, Trust, Work};
use super::text::Text;

/// Defines a row, and its columns in their order.
macro_rules! row {
    ($($(#[$meta:meta])* $name:ident),* $(,)?) => {
        /// One row; what does not apply is left out.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct Row {
            $(
                $(#[$meta])*
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $name: Option<String>,
            )*
        }

        /// The columns of a table.
        pub const COLUMNS: &[&str] = &[$(stringify!($name)),*];

        impl Row {
            /// Its cells, in the order of [`COLUMNS`].
            #[must_use]
            pub fn cells(&self) -> Vec<&str> {
                vec![$(self.$name.as_deref().unwrap_or_default()),*]
            }
        }
    };
}
row! {
    /// The line's number, from 1.
    line,
    /// When it was written.
    time,
    /// The event's name.
    event,
    /// The device's id.
    device,
    /// SHA-256 of the order.
    order,
    /// What the order asks for.
    kind,
    /// The job.
    job,
    /// The slot.
    slot,
    /// The key's version.
    version,
    /// The slot's label.
    label,
    /// The key's type.
    key_type,
    /// How it is to be proved, or was.
    proof,
    /// How the KEK travels.
    suite,
    /// The token.
    token,
    /// `applied`, or `refused: ` and why.
    outcome,
    /// The device's state after it.
    state,
    /// The device's counter: that of the order, or that of the receipt.
    counter,
    /// `challenge`, or the counter below which a detached order is valid.
    freshness,
    /// The policy by which a device was trusted.
    policy,
    /// Why it was, or why something failed.
    reason,
    /// Fingerprint of the identity key.
    identity,
    /// Fingerprint of the unwrap key.
    unwrap,
    /// A certificate's serial number.
    serial,
    /// SHA-256 of a certificate, or of what was cut off.
    digest,
    /// The station's name, or the words of a note.
    text,
    /// The head of the chain before the line.
    previous,
}

/// The rows of a line.
#[must_use]
pub fn rows(record: &Record) -> Vec<Row> {
    let front = Row {
        line: Some((record.n + 1).to_string()),
        time: Some(record.time.to_text()),
        event: Some(record.event.name().into()),
        previous: Some(record.previous.to_text()),
        ..Row::default()
    };
    match &record.event {
        Event::Opened(opened) => vec![Row {
            text: Some(opened.station.clone()),
            ..front
        }],
        Event::Authority(authority) => vec![Row {
            digest: Some(crate::device::verify::fingerprint(&authority.key).to_string()),
            ..front
        }],
        Event::Enrolled(trust) | Event::Trusted(trust) => vec![of_trust(trust, front)],
        Event::Wrapped(wrapped) => {
            let front = Row {
                device: Some(wrapped.device.to_text()),
                job: Some(wrapped.job.to_text()),
                suite: Some(wrapped.suite.to_text()),
                token: Some(wrapped.token.clone()),
                unwrap: Some(wrapped.unwrap.to_text()),
                ..front
            };
            let keys = wrapped.keys.iter().map(|key| Row {
                slot: Some(key.slot.to_string()),
                version: Some(key.version.to_string()),
                label: Some(key.label.clone()),
                key_type: Some(key.key_type.clone()),
                proof: Some(key.proof.to_text()),
                ..front.clone()
            });
            keys.collect()
        }
        Event::Ordered(ordered) => of_order(
            &ordered.order,
            Row {
                device: Some(ordered.device.to_text()),
                order: Some(ordered.digest.to_text()),
                kind: Some(ordered.kind.to_text()),
                job: ordered.job.map(|job| job.to_text()),
                ..front
            },
        ),
        Event::Received(received) => of_receipt(
            &received.receipt,
            Row {
                device: Some(received.device.to_text()),
                order: Some(received.order.to_text()),
                ..front
            },
        ),
        Event::Disbelieved(answer) => vec![Row {
            order: Some(answer.order.to_text()),
            reason: Some(answer.reason.clone()),
            ..front
        }],
        Event::Proved(proved) => {
            let slots = proved.slots.iter().map(|slot| Row {
                device: Some(proved.device.to_text()),
                order: Some(proved.order.to_text()),
                slot: Some(slot.slot.to_string()),
                proof: Some(slot.proof.to_text()),
                ..front.clone()
            });
            slots.collect()
        }
        Event::Failed(failed) => {
            let (job, order) = match failed.work {
                Work::Job(job) => (Some(job.to_text()), None),
                Work::Order(order) => (None, Some(order.to_text())),
            };
            let front = Row {
                job,
                order,
                reason: Some(failed.reason.clone()),
                ..front
            };
            if failed.slots.is_empty() {
                return vec![front];
            }
            let slots = failed.slots.iter().map(|slot| Row {
                slot: Some(slot.to_string()),
                ..front.clone()
            });
            slots.collect()
        }
        Event::Certified(certified) => vec![Row {
            device: Some(certified.device.to_text()),
            serial: Some(certified.serial.to_text()),
            digest: Some(certified.digest.to_text()),
            ..front
        }],
        Event::Checkpoint(_) => vec![front],
        Event::Torn(torn) => vec![Row {
            digest: Some(torn.digest.to_text()),
            text: Some(format!("{} bytes cut off", torn.bytes)),
            ..front
        }],
        Event::Note(note) => vec![Row {
            text: Some(note.text.clone()),
            ..front
        }],
    }
}

fn of_trust(trust: &Trust, front: Row) -> Row {
    Row {
        device: Some(trust.device.to_text()),
        order: Some(trust.order.to_text()),
        policy: Some(trust.policy.clone()),
        reason: Some(trust.reason.clone()),
        identity: Some(trust.identity.to_text()),
        unwrap: Some(trust.unwrap.to_text()),
        ..front
    }
}

/// What an order says. The log has decoded it before.
fn of_order(bytes: &[u8], front: Row) -> Vec<Row> {
    let Ok((header, body)) = order::decode(bytes) else {
        return vec![front];
    };
    let front = Row {
        suite: header.suite.map(|suite| suite.to_text()),
        counter: Some(header.counter.to_string()),
        freshness: Some(match header.freshness {
            Freshness::Challenge(_) => "challenge".into(),
            Freshness::Detached { below } => format!("detached, below {below}"),
        }),
        identity: Some(header.identity.to_text()),
        unwrap: Some(header.unwrap.to_text()),
        ..front
    };
    let rows: Vec<Row> = match body {
        Body::Inject(inject) => inject
            .entries
            .iter()
            .map(|entry| Row {
                slot: Some(entry.slot.to_string()),
                version: Some(entry.version.to_string()),
                label: Some(entry.label.as_str().into()),
                proof: Some(entry.proof.to_text()),
                ..front.clone()
            })
            .collect(),
        Body::Prove(prove) => prove
            .slots
            .iter()
            .map(|slot| Row {
                slot: Some(slot.slot.to_string()),
                proof: Some(slot.proof.to_text()),
                ..front.clone()
            })
            .collect(),
        Body::Remove(remove) => remove
            .slots
            .iter()
            .map(|slot| Row {
                slot: Some(slot.to_string()),
                ..front.clone()
            })
            .collect(),
        Body::Enroll(_) | Body::Rotate(_) | Body::Lock | Body::Wipe | Body::Recover(_) => {
            Vec::new()
        }
    };
    if rows.is_empty() { vec![front] } else { rows }
}

/// What a receipt says. The log has decoded it before.
fn of_receipt(bytes: &[u8], front: Row) -> Vec<Row> {
    let Ok((header, body)) = receipt::decode(bytes) else {
        return vec![front];
    };
    let front = Row {
        kind: Some(header.kind.to_text()),
        outcome: Some(match header.outcome {
            Outcome::Applied => "applied".into(),
            Outcome::Refused(refusal) => format!("refused: {refusal}"),
        }),
        state: Some(header.state.name().into()),
        counter: Some(header.counter.to_string()),
        identity: Some(header.identity.to_text()),
        ..front
    };
    match body {
        receipt::Body::Slots(reports) if !reports.is_empty() => reports
            .iter()
            .map(|report| Row {
                slot: Some(report.slot.to_string()),
                version: Some(report.version.to_string()),
                proof: Some(report.proof.to_text()),
                ..front.clone()
            })
            .collect(),
        receipt::Body::Statement(statement) => vec![Row {
            unwrap: Some(crate::device::verify::fingerprint(statement.unwrap_key).to_text()),
            text: Some(format!(
                "{}, firmware {}",
                statement.board, statement.firmware
            )),
            ..front
        }],
        receipt::Body::Slots(_) | receipt::Body::Recovered(_) | receipt::Body::Empty => {
            vec![front]
        }
    }
}

/// A cell that no spreadsheet takes for a formula (CWE-1236): an apostrophe stands before what could be one.
#[must_use]
pub fn safe_cell(cell: &str) -> String {
    if cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']) {
        format!("'{cell}")
    } else {
        cell.to_owned()
    }
}

/// A digest's first digits, enough to find it again by.
pub(super) fn short(digest: &Digest) -> String {
    let mut text = digest.to_text();
    text.truncate(12);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula() {
        for formula in [
            "=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1",
        ] {
            assert_eq!(safe_cell(formula), format!("'{formula}"));
        }
        for fine in ["", "sensor", "a=b", "'=1", "0"] {
            assert_eq!(safe_cell(fine), fine);
        }
    }

    #[test]
    fn cells_stand_in_the_order_of_the_columns() {
        let row = Row {
            line: Some("1".into()),
            previous: Some("2".into()),
            ..Row::default()
        };
        assert_eq!(row.cells().len(), COLUMNS.len());
        assert_eq!(row.cells().first(), Some(&"1"));
        assert_eq!(row.cells().last(), Some(&"2"));
        assert_eq!(
            (COLUMNS[0], COLUMNS[COLUMNS.len() - 1]),
            ("line", "previous")
        );
    }
}
