//! Says what a message is. Nothing is verified here: a recording shows what was said, not what is true.

use std::fmt::Display;

use keyferry_protocol::identity::{Fingerprint, Hint};
use keyferry_protocol::message::{Reply, Request, SlotInfo, Task};
use keyferry_protocol::order::{self, Freshness};
use keyferry_protocol::receipt::{self, Outcome, Status};
use serde_json::{Value, json};

use super::To;
use crate::device::session::printable;

/// What a message is.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// Its name in the specification, in lower case; `unknown` if it does not decode.
    pub name: &'static str,
    /// What it says: names and values, without control characters.
    pub fields: Vec<(&'static str, Value)>,
}

impl Description {
    fn new<const N: usize>(name: &'static str, fields: [(&'static str, Value); N]) -> Self {
        Self {
            name,
            fields: fields.into(),
        }
    }

    fn unknown(bytes: &[u8]) -> Self {
        Self::new("unknown", [("bytes", json!(bytes.len()))])
    }
}

/// Says what a message is that went to a device or to a station.
#[must_use]
pub fn describe(to: To, bytes: &[u8]) -> Description {
    let known = match to {
        To::Device => Request::decode(bytes).ok().map(request),
        To::Station => Reply::decode(bytes).ok().map(reply),
    };
    known.unwrap_or_else(|| Description::unknown(bytes))
}

fn request(request: Request<'_>) -> Description {
    match request {
        Request::Hello { min, max } => {
            Description::new("hello", [("min", json!(min)), ("max", json!(max))])
        }
        Request::Order { second, order, .. } => {
            let mut description = an_order(order);
            if second.is_some() {
                description.fields.push(("second_signature", json!(true)));
            }
            description
        }
        Request::Blob { bytes } => Description::new("blob", [("bytes", json!(bytes.len()))]),
        Request::Status { order, .. } => {
            Description::new("status", [("order", json!(order.to_string()))])
        }
        Request::List => Description::new("list", []),
        Request::Echo { bytes } => Description::new("echo", [("bytes", json!(bytes.len()))]),
        Request::Certificate => Description::new("certificate", []),
        Request::Rate { baud } => Description::new("rate", [("baud", json!(baud))]),
        Request::Failed => Description::new("failed", []),
    }
}

fn an_order(bytes: &[u8]) -> Description {
    let length = ("bytes", json!(bytes.len()));
    let Ok((header, body)) = order::view(bytes) else {
        return Description::new("order", [("unreadable", json!(true)), length]);
    };
    let mut fields = vec![
        ("kind", json!(header.kind.name())),
        ("device", json!(header.device.to_string())),
        ("counter", json!(header.counter)),
    ];
    if let Freshness::Detached { below } = header.freshness {
        fields.push(("below", json!(below)));
    }
    if let Some(suite) = header.suite {
        fields.push(("suite", json!(suite.name())));
    }
    match body {
        order::View::Enroll(enroll) => {
            fields.push(("unwrap", json!(enroll.unwrap.name())));
        }
        order::View::Inject(inject) => {
            let slots: Vec<u16> = inject.entries.iter().map(|entry| entry.slot).collect();
            let blobs: usize = (0..inject.blob_count())
                .filter_map(|index| inject.blob(index))
                .map(|(_, blob)| usize::from(blob.length))
                .sum();
            fields.push(("slots", json!(slots)));
            fields.push(("certificate", json!(inject.certificate.is_some())));
            fields.push(("blob_bytes", json!(blobs)));
        }
        order::View::Prove(prove) => {
            let slots: Vec<u16> = prove.slots.iter().map(|one| one.slot).collect();
            fields.push(("slots", json!(slots)));
        }
        order::View::Remove(slots) => {
            fields.push(("slots", json!(slots)));
        }
        order::View::Rotate(_)
        | order::View::Lock
        | order::View::Wipe
        | order::View::Recover(_) => {}
    }
    fields.push(length);
    Description {
        name: "order",
        fields,
    }
}

/// A key's fingerprint, or null where there is no key.
fn known<T: PartialEq + Display>(fingerprint: T, none: T) -> Value {
    json!((fingerprint != none).then(|| fingerprint.to_string()))
}

fn reply(reply: Reply<'_>) -> Description {
    match reply {
        Reply::Hello(hello) => Description::new(
            "hello",
            [
                ("version", json!(hello.version)),
                ("device", json!(hello.device.to_string())),
                ("state", json!(hello.state.name())),
                ("counter", json!(hello.counter)),
                ("certified", json!(hello.certified)),
                ("board", json!(printable(hello.board))),
                ("firmware", json!(printable(hello.firmware))),
                ("identity", known(hello.identity, Fingerprint::ZERO)),
                ("authority", known(hello.authority, Hint::ZERO)),
            ],
        ),
        Reply::Progress(progress) => Description::new(
            "progress",
            [
                ("task", json!(task(progress.task))),
                ("done", json!(progress.done)),
                ("total", json!(progress.total)),
            ],
        ),
        Reply::Receipt { receipt, .. } => a_receipt(receipt),
        Reply::Refused(refusal) => Description::new(
            "refused",
            [
                ("refusal", json!(refusal.to_string())),
                ("signed", json!(false)),
            ],
        ),
        Reply::Status { status, .. } => match Status::decode(status) {
            Ok(status) => Description::new(
                "status",
                [
                    ("applied", json!(status.applied)),
                    ("state", json!(status.state.name())),
                    ("counter", json!(status.counter)),
                    ("order", json!(status.order.to_string())),
                ],
            ),
            Err(_) => Description::new("status", [("unreadable", json!(true))]),
        },
        Reply::Slots { table } => {
            let labels: Result<Vec<String>, _> = SlotInfo::table(table)
                .map(|slot| slot.map(|slot| format!("{}: {}", slot.slot, printable(&slot.label))))
                .collect();
            match labels {
                Ok(labels) => Description::new("slots", [("slots", json!(labels))]),
                Err(_) => Description::new("slots", [("unreadable", json!(true))]),
            }
        }
        Reply::Echo { bytes } => Description::new("echo", [("bytes", json!(bytes.len()))]),
        Reply::Rate { baud } => Description::new("rate", [("baud", json!(baud))]),
        Reply::Failed => Description::new("failed", []),
        Reply::Certificate { bytes } => {
            Description::new("certificate", [("bytes", json!(bytes.len()))])
        }
    }
}

fn a_receipt(bytes: &[u8]) -> Description {
    let length = ("bytes", json!(bytes.len()));
    let Ok((header, body)) = receipt::decode(bytes) else {
        return Description::new("receipt", [("unreadable", json!(true)), length]);
    };
    let mut fields = vec![("kind", json!(header.kind.name()))];
    match header.outcome {
        Outcome::Applied => fields.push(("outcome", json!("applied"))),
        Outcome::Refused(refusal) => {
            fields.push(("outcome", json!("refused")));
            fields.push(("refusal", json!(refusal.to_string())));
        }
    }
    fields.push(("state", json!(header.state.name())));
    fields.push(("counter", json!(header.counter)));
    match body {
        receipt::Body::Statement(statement) => {
            fields.push(("board", json!(printable(statement.board))));
            fields.push(("firmware", json!(printable(statement.firmware))));
        }
        receipt::Body::Slots(reports) => {
            let proofs: Vec<String> = reports
                .iter()
                .map(|report| format!("{}: {}", report.slot, report.proof.name()))
                .collect();
            fields.push(("proofs", json!(proofs)));
        }
        receipt::Body::Recovered(_) => fields.push(("recovered", json!(true))),
        receipt::Body::Empty => {}
    }
    fields.push(("order", json!(header.order.to_string())));
    fields.push(length);
    Description {
        name: "receipt",
        fields,
    }
}

const fn task(task: Task) -> &'static str {
    match task {
        Task::GenerateUnwrapKey => "generate-unwrap-key",
        Task::Unwrap => "unwrap",
        Task::Prove => "prove",
    }
}
