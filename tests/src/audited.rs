//! A station that keeps an audit log: orders are signed in software, devices are real ones on the desk, or invented.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use keyferry::audit::{
    AuditError, AuditLog, DateTime, Event, JobId, LogId, Opened, Ordered, Proved, ProvedSlot,
    Received, Record, SharedLog, Trust, Wrapped, WrappedKey, head_after,
};
use keyferry::device::flow::{self, Authority, Demand, Parcel, Proofs, Shipment, SignedOrder};
use keyferry::device::session::Session;
use keyferry::device::verify::{self, SignedReceipt, Statement, fingerprint};
use keyferry_protocol::identity::{Challenge, DeviceId, Digest, Fingerprint, Signature};
use keyferry_protocol::order::{Address, Body, Enroll, Freshness, Header, Kind};
use keyferry_protocol::proof::Proof;
use keyferry_protocol::receipt::{self, Flavour, Outcome, SourceClass, State};
use keyferry_protocol::suite::{Suite, UnwrapAlgorithm};

use crate::desk::OnDesk;
use crate::software::{SoftAuthority, SoftKey, aes_key, wrap};

fn quiet(_: keyferry_protocol::message::Progress) {}

/// The nonces and challenges of this station.
pub const ONCE: Challenge = Challenge([9; 32]);

/// The station.
pub struct Station {
    /// Its log.
    pub log: SharedLog,
    /// What signs its orders.
    pub authority: SoftAuthority,
    /// What signs its checkpoints.
    pub audit_key: SoftAuthority,
}

impl Station {
    /// A station with a new log.
    ///
    /// # Panics
    /// If the log cannot be created.
    #[must_use]
    pub fn new(log: &Path) -> Self {
        let authority = SoftAuthority::new(0);
        let audit_key = SoftAuthority::new(100);
        let opened = Opened {
            log: LogId::random().unwrap(),
            station: "line 7".into(),
            authorities: vec![authority.public_key().to_vec()],
            audit_key: audit_key.public_key().to_vec(),
        };
        Self {
            log: SharedLog::new(AuditLog::create(log, opened).unwrap()),
            authority,
            audit_key,
        }
    }

    /// Signs an order that names the head of the chain, and writes it down.
    ///
    /// # Panics
    /// If it does not fit into a message.
    pub fn order(&self, header: Header, body: &Body<'_>) -> Result<SignedOrder, AuditError> {
        let mut log = self.log.lock();
        let header = Header {
            audit_head: log.head().digest,
            ..header
        };
        let order = SignedOrder::new(&self.authority, header, body).unwrap();
        log.ordered(&order)?;
        Ok(order)
    }

    /// Has a device state itself, and trusts it.
    ///
    /// # Panics
    /// If any of it fails.
    pub fn visit(&self, device: &OnDesk) -> (Session, Statement) {
        let mut session = Session::open(device.port()).unwrap();
        session.set_witness(Box::new(self.log.clone()));
        let unwrap = UnwrapAlgorithm::P256;
        let statement =
            flow::enroll(&mut session, &self.authority, unwrap, ONCE, &mut quiet).unwrap();
        self.log
            .lock()
            .trusted(&statement, true, "open", "it was on the desk")
            .unwrap();
        (session, statement)
    }

    /// Writes down that a shipment is wrapped for a device.
    pub fn wrapping(&self, device: &Statement, shipment: &Shipment) -> Result<JobId, AuditError> {
        let keys = shipment.parcels.iter().map(|parcel| WrappedKey {
            slot: parcel.slot,
            version: parcel.version,
            label: parcel.label.as_str().into(),
            key_type: "aes-128".into(),
            proof: parcel.proof,
        });
        self.log
            .lock()
            .wrapping(device, shipment.suite, "in software", keys.collect())
    }

    /// Signs the order that carries a shipment.
    ///
    /// # Panics
    /// If it does not fit into a message.
    pub fn inject_order(
        &self,
        device: &Statement,
        shipment: &Shipment,
    ) -> Result<SignedOrder, AuditError> {
        let mut log = self.log.lock();
        let terms = flow::terms(device, log.head().digest);
        let order = flow::inject_order(&self.authority, terms, shipment, ONCE).unwrap();
        log.ordered(&order)?;
        Ok(order)
    }

    /// Injects keys into slots 0, 1, 2 …, and believes the proofs.
    ///
    /// # Panics
    /// If any of it fails.
    pub fn inject(&self, session: &mut Session, device: &Statement, keys: &[SoftKey]) {
        let shipment = wrap(device, keys, 1);
        self.wrapping(device, &shipment).unwrap();
        let authority = &self.authority;
        let proofs = flow::inject(session, authority, device, &shipment, ONCE, &mut quiet).unwrap();
        self.believe(device, &proofs);
    }

    /// Has slots proved, and believes the proofs.
    ///
    /// # Panics
    /// If any of it fails.
    pub fn prove(&self, session: &mut Session, device: &Statement, slots: &[(u16, Proof)]) {
        let demands: Vec<_> = slots.iter().copied().map(Demand::from).collect();
        let authority = &self.authority;
        let proofs = flow::prove(session, authority, device, &demands, ONCE, &mut quiet).unwrap();
        self.believe(device, &proofs);
    }

    fn believe(&self, device: &Statement, proofs: &Proofs) {
        let slots = proofs
            .reports
            .iter()
            .map(|report| (report.slot, report.proof));
        self.log
            .lock()
            .proved(device.device, &proofs.order, slots)
            .unwrap();
    }
}

/// The header of the next order for a device.
#[must_use]
pub fn header(kind: Kind, device: &Statement) -> Header {
    Header::new(
        kind,
        flow::address(device),
        Freshness::Challenge(device.standing.challenge),
        device.standing.counter + 1,
    )
}

/// A device that never was: its answers are signed by a key of this process, and say what a test likes.
pub struct Invented {
    /// Its identity key.
    pub identity: SoftAuthority,
    /// Its id.
    pub id: DeviceId,
}

impl Invented {
    /// The device with this number.
    #[must_use]
    pub fn new(number: u8) -> Self {
        Self {
            identity: SoftAuthority::new(number),
            id: DeviceId([number; 16]),
        }
    }

    /// Has it state itself to a station, and be trusted. `address` is who the station takes it for.
    ///
    /// # Panics
    /// If any of it fails.
    pub fn enroll(&self, station: &Station, address: Address) -> Statement {
        let public = station.authority.public_key().to_vec();
        let body = Body::Enroll(Enroll {
            authority: &public,
            nonce: ONCE,
            unwrap: UnwrapAlgorithm::P256,
        });
        let header = Header::new(Kind::Enroll, address, Freshness::Challenge(ONCE), 1);
        let order = station.order(header, &body).unwrap();
        let receipt = self.stated(&order, &public);
        let authority = fingerprint(&public);
        let statement =
            verify::statement(&receipt, self.id, &order.digest(), ONCE, authority).unwrap();
        let mut log = station.log.lock();
        log.received(&order.digest(), &receipt).unwrap();
        log.trusted(&statement, true, "open", "it was invented")
            .unwrap();
        statement
    }

    /// Its address before it has keys.
    #[must_use]
    pub fn blank(&self) -> Address {
        Address {
            device: self.id,
            identity: Fingerprint::ZERO,
            unwrap: Fingerprint::ZERO,
        }
    }

    /// A receipt of this device: what `fill` adds follows the header.
    ///
    /// # Panics
    /// If it is too long.
    pub fn receipt(
        &self,
        order: &SignedOrder,
        outcome: Outcome,
        fill: impl FnOnce(&mut receipt::Writer, &mut [u8]),
    ) -> SignedReceipt {
        let (header, _) = keyferry_protocol::order::decode(&order.bytes).unwrap();
        let mut buffer = [0; receipt::MAX_RECEIPT];
        let header = receipt::Header {
            tag: receipt::TAG,
            format: receipt::FORMAT,
            kind: header.kind,
            device: self.id,
            identity: fingerprint(self.identity.public_key()),
            order: order.digest(),
            outcome,
            state: State::Enrolled,
            counter: header.counter,
            challenge: ONCE,
        };
        let mut writer = receipt::Writer::new(&header, &mut buffer).unwrap();
        fill(&mut writer, &mut buffer);
        let bytes = buffer[..writer.length()].to_vec();
        let signature = self.identity.sign(&bytes).unwrap();
        SignedReceipt {
            signature: Signature::from_bytes(&signature),
            bytes,
        }
    }

    /// The statement that answers an `Enroll`.
    ///
    /// # Panics
    /// If it is too long.
    #[must_use]
    pub fn stated(&self, order: &SignedOrder, authority: &[u8]) -> SignedReceipt {
        // Its unwrap key is its identity key: nothing is ever unwrapped.
        let key = self.identity.public_key();
        self.receipt(order, Outcome::Applied, |writer, buffer| {
            let body = receipt::Statement {
                nonce: ONCE,
                identity_key: key,
                unwrap_key: key,
                suites: std::iter::once(Suite::EcdhP256Null).collect(),
                board: "invented",
                firmware: "0",
                flavour: Flavour::Development,
                rng: SourceClass::Test,
                root_key: SourceClass::Test,
                authority: fingerprint(authority),
                epoch: 0,
                voucher: None,
            };
            writer.statement(&body, buffer).unwrap();
        })
    }

    /// The receipt of an `Inject` that stores and proves all it was given, with proofs of a right length.
    ///
    /// # Panics
    /// If it is too long.
    #[must_use]
    pub fn stored(&self, order: &SignedOrder, shipment: &Shipment) -> SignedReceipt {
        self.receipt(order, Outcome::Applied, |writer, buffer| {
            writer.slot_count(shipment.parcels.len(), buffer).unwrap();
            for parcel in &shipment.parcels {
                let kind = parcel.attributes.kind().unwrap();
                let report = receipt::SlotReport {
                    slot: parcel.slot,
                    version: parcel.version,
                    attributes: parcel.attributes,
                    proof: parcel.proof,
                    value: &vec![7; parcel.proof.length(kind)],
                };
                writer.slot(&report, buffer).unwrap();
            }
        })
    }
}

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
    let mut known: Vec<Option<Statement>> = vec![None; usize::from(devices)];
    for job in 0..jobs {
        let number = job % u32::from(devices);
        let device = Invented::new(u8::try_from(number).unwrap());
        let known = &mut known[usize::try_from(number).unwrap()];
        *known = Some(writer.job(&device, known.as_ref(), job));
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
        let terms = flow::terms(&statement, self.head);
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
