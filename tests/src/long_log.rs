//! A long audit log, in seconds.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use keyferry::audit::{
    DateTime, Event, JobId, LogId, Opened, Ordered, Proved, ProvedSlot, Received, Record, Trust,
    Wrapped, WrappedKey, head_after,
};
use keyferry::device::flow::{self, Authority, Parcel, Shipment, SignedOrder};
use keyferry::device::verify::{self, SignedReceipt, Statement, fingerprint};
use keyferry_protocol::identity::Digest;
use keyferry_protocol::order::{Body, Enroll, Freshness, Header, Kind};
use keyferry_protocol::proof::Proof;
use keyferry_protocol::suite::{Suite, UnwrapAlgorithm};

use crate::audited::{Invented, ONCE};
use crate::software::{SoftAuthority, aes_key};

/// Writes a log without waiting for the disk at each line, so that it can be long: `jobs` jobs of one key, on as many devices in
/// turn. Gives the number of lines.
///
/// # Panics
/// If it cannot be written.
pub fn write_long(path: &Path, jobs: u32, devices: u8) -> u64 {
    let mut writer = Long {
        file: BufWriter::new(File::create(path).unwrap()),
        authority: SoftAuthority::new(0),
        lines: 0,
        head: Digest::ZERO,
    };
    writer.event(Event::Opened(Opened {
        log: LogId([7; 16]),
        station: "long".into(),
        authorities: vec![writer.authority.public_key().to_vec()],
        audit_key: SoftAuthority::new(100).public_key().to_vec(),
    }));
    let mut known: Vec<(Invented, Option<Statement>)> = (0..devices)
        .map(|number| (Invented::new(number), None))
        .collect();
    for (job, at) in (0..jobs).zip((0..known.len()).cycle()) {
        let (device, statement) = &mut known[at];
        *statement = Some(writer.job(device, statement.as_ref(), job));
    }
    writer.file.flush().unwrap();
    writer.lines
}

struct Long {
    file: BufWriter<File>,
    authority: SoftAuthority,
    lines: u64,
    head: Digest,
}

impl Long {
    fn event(&mut self, event: Event) {
        let record = Record {
            n: self.lines,
            previous: self.head,
            time: DateTime::new(2026, 1, 1, 0, 0, 0).unwrap(),
            event,
        };
        let line = record.write().unwrap();
        self.head = head_after(&line);
        self.lines += 1;
        self.file.write_all(&line).unwrap();
        self.file.write_all(b"\n").unwrap();
    }

    fn order(&mut self, job: Option<JobId>, order: &SignedOrder) {
        let (header, _) = keyferry_protocol::order::decode(&order.bytes).unwrap();
        self.event(Event::Ordered(Ordered {
            job,
            device: header.device,
            kind: header.kind,
            digest: order.digest(),
            order: order.bytes.clone(),
            signature: order.signature,
            second: None,
        }));
    }

    fn receive(&mut self, device: &Invented, order: &SignedOrder, receipt: SignedReceipt) {
        self.event(Event::Received(Received {
            device: device.id,
            order: order.digest(),
            identity_key: device.identity.public_key().to_vec(),
            receipt: receipt.bytes,
            signature: receipt.signature,
        }));
    }

    /// A visit with one key: seven lines.
    fn job(&mut self, device: &Invented, known: Option<&Statement>, job: u32) -> Statement {
        let public = self.authority.public_key().to_vec();
        let body = Body::Enroll(Enroll {
            authority: &public,
            nonce: ONCE,
            unwrap: UnwrapAlgorithm::P256,
        });
        let address = known.map_or(device.blank(), flow::address);
        let header = Header {
            audit_head: self.head,
            ..Header::new(Kind::Enroll, address, Freshness::Challenge(ONCE), job)
        };
        let order = SignedOrder::new(&self.authority, header, &body).unwrap();
        self.order(None, &order);
        let receipt = device.stated(&order, &public);
        let authority = fingerprint(&public);
        let statement =
            verify::statement(&receipt, device.id, &order.digest(), ONCE, authority).unwrap();
        self.receive(device, &order, receipt);
        let address = flow::address(&statement);
        self.event(Event::Trusted(Trust {
            device: device.id,
            identity: address.identity,
            unwrap: address.unwrap,
            order: order.digest(),
            policy: "open".into(),
            reason: "it was invented".into(),
            statement: None,
        }));
        let shipment = invented_shipment(job + 1);
        let name = JobId(std::array::from_fn(|at| job.to_le_bytes()[at % 4]));
        let parcel = &shipment.parcels[0];
        self.event(Event::Wrapped(Wrapped {
            job: name,
            device: device.id,
            unwrap: address.unwrap,
            suite: shipment.suite,
            token: "in software".into(),
            keys: vec![WrappedKey {
                slot: parcel.slot,
                version: parcel.version,
                label: parcel.label.as_str().into(),
                key_type: "aes-128".into(),
                proof: parcel.proof,
            }],
        }));
        let terms = flow::terms(&statement, self.head).unwrap();
        let order = flow::inject_order(&self.authority, terms, &shipment, ONCE).unwrap();
        self.order(Some(name), &order);
        self.receive(device, &order, device.stored(&order, &shipment));
        self.event(Event::Proved(Proved {
            device: device.id,
            order: order.digest(),
            slots: vec![ProvedSlot {
                slot: parcel.slot,
                proof: parcel.proof,
            }],
        }));
        statement
    }
}

/// A shipment of blobs that nobody ever opens.
fn invented_shipment(version: u32) -> Shipment {
    let key = aes_key(16, 1);
    Shipment {
        suite: Suite::EcdhP256Null,
        certificate: None,
        kek: vec![4; 65],
        parcels: vec![Parcel {
            slot: 0,
            version,
            attributes: key.attributes,
            label: "key".try_into().unwrap(),
            proof: Proof::Cmac,
            question: Vec::new(),
            blob: vec![5; 24],
        }],
    }
}
