//! Valid inputs to begin with: the frozen vectors, a session with a device on the desk as its station's audit log has recorded
//! it, and one of each file.

mod certificates;
mod files;
mod wire;

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use keyferry::audit::{Event, Record, Seen, Witness, WitnessReceipt, signed_bytes};
use keyferry::device::verify::Statement;
use keyferry_protocol::order::{Body, Remove};
use keyferry_protocol::proof::Proof;

use crate::audited::{Station, header};
use crate::desk::{Desk, OnDesk};
use crate::software::{aes_key, hmac_key, p256_key};

pub(super) use certificates::{authority_key, certificates, public_keys, trusted};
pub(super) use files::{lists, manifests, names, order_files, plans};
pub(super) use wire::{broker_frames, replies, requests};

type Inputs = Vec<Vec<u8>>;

/// What happened in one session.
struct Recorded {
    log: Vec<u8>,
    records: Vec<Record>,
    anchors: Vec<Seen>,
    statement: Statement,
}

/// A device is enrolled, gets three keys, proves one, loses one, is asked for something it refuses, and is locked.
fn recorded() -> &'static Recorded {
    static RECORDED: OnceLock<Recorded> = OnceLock::new();
    RECORDED.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("log");
        let station = Station::new(&path);
        let device = OnDesk::start(Desk::new(1, 16));
        let (mut session, statement) = station.visit(&device);
        station.inject(
            &mut session,
            &statement,
            &[aes_key(16, 1), hmac_key(2), p256_key(3)],
        );
        drop(session);
        let (mut session, statement) = station.visit(&device);
        station.prove(&mut session, &statement, &[(0, Proof::Cmac)]);
        drop(session);
        let anchor = station.log.lock().checkpoint(&station.audit_key);
        let mut anchors = vec![Seen::Checkpoint(anchor.expect("the log can be written"))];
        let more = [
            Body::Remove(Remove {
                slots: std::iter::once(0).collect(),
            }),
            Body::Lock,
            Body::Wipe,
        ];
        for body in more {
            station
                .order(header(body.kind(), &statement), &body)
                .expect("the log can be written");
        }
        station
            .log
            .lock()
            .note("a note of a person: ümläut")
            .expect("the log can be written");
        let log = fs::read(&path).expect("it was written");
        let records: Vec<Record> = lines(&log)
            .map(|line| Record::read(line).expect("it was written here"))
            .collect();
        anchors.extend(witness(&records));
        Recorded {
            log,
            records,
            anchors,
            statement,
        }
    })
}

fn lines(log: &[u8]) -> impl Iterator<Item = &[u8]> {
    log.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
}

/// The first order with its receipt, and by itself, as something that has seen the log.
fn witness(records: &[Record]) -> Vec<Seen> {
    let ordered = records.iter().find_map(|record| match &record.event {
        Event::Ordered(ordered) => Some(ordered),
        _ => None,
    });
    let received = records.iter().find_map(|record| match &record.event {
        Event::Received(received) => Some(received),
        _ => None,
    });
    let (Some(ordered), Some(received)) = (ordered, received) else {
        return Vec::new();
    };
    let alone = Witness {
        order: ordered.order.clone(),
        signature: ordered.signature,
        receipt: None,
    };
    let answered = Witness {
        receipt: Some(WitnessReceipt {
            identity_key: received.identity_key.clone(),
            receipt: received.receipt.clone(),
            signature: received.signature,
        }),
        ..alone.clone()
    };
    vec![Seen::Witness(alone), Seen::Witness(answered)]
}

/// The frozen vectors whose names begin like this.
fn vectors(prefix: &str) -> Inputs {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/vectors");
    let mut paths: Vec<_> = fs::read_dir(&folder)
        .expect("the vectors are in their folder")
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with(prefix))
        })
        .collect();
    paths.sort();
    let read = |path| {
        let digits = fs::read_to_string(path).expect("a vector can be read");
        hex::decode(digits.trim()).expect("a vector is in hexadecimal digits")
    };
    paths.into_iter().map(read).collect()
}

/// Orders of every kind.
pub(super) fn orders() -> Inputs {
    let recorded = recorded().records.iter();
    let orders = recorded.filter_map(|record| match &record.event {
        Event::Ordered(ordered) => Some(ordered.order.clone()),
        _ => None,
    });
    vectors("order-").into_iter().chain(orders).collect()
}

/// Receipts and a status.
pub(super) fn receipts() -> Inputs {
    let recorded = recorded().records.iter();
    let receipts = recorded.filter_map(|record| match &record.event {
        Event::Received(received) => Some(received.receipt.clone()),
        _ => None,
    });
    [vectors("receipt-"), vectors("status")]
        .concat()
        .into_iter()
        .chain(receipts)
        .collect()
}

/// The lines of the log, and a checkpoint's signed bytes.
pub(super) fn audit_lines() -> Inputs {
    let mut inputs: Inputs = lines(&recorded().log).map(<[u8]>::to_vec).collect();
    inputs.extend(recorded().anchors.iter().filter_map(|seen| match seen {
        Seen::Checkpoint(point) => Some(signed_bytes(
            &point.log,
            point.lines,
            &point.head,
            point.time,
        )),
        Seen::Witness(_) => None,
    }));
    inputs
}

/// The log, and shorter ones.
pub(super) fn audit_logs() -> Inputs {
    let log = &recorded().log;
    let lines: Vec<_> = log.split_inclusive(|byte| *byte == b'\n').collect();
    vec![
        log.clone(),
        lines.iter().take(3).copied().collect::<Vec<_>>().concat(),
        lines.iter().take(1).copied().collect::<Vec<_>>().concat(),
    ]
}

/// A checkpoint and witnesses.
pub(super) fn anchors() -> Inputs {
    let json = |seen: &Seen| seen.to_json().expect("it can be written").into_bytes();
    recorded().anchors.iter().map(json).collect()
}
