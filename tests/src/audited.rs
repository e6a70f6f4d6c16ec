//! A station that keeps an audit log: orders are signed in software, devices are real ones on the desk, or invented.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keyferry::audit::{AuditError, AuditLog, JobId, LogId, Opened, WrappedKey};
use keyferry::device::flow::{self, Authority, Demand, Proofs, Shipment, SignedOrder};
use keyferry::device::session::Session;
use keyferry::device::verify::{self, SignedReceipt, Statement, fingerprint};
use keyferry::device::{DeviceError, MakeOrder, Witness};
use keyferry_protocol::identity::{Challenge, DeviceId, Digest, Fingerprint, Signature};
use keyferry_protocol::order::{Address, Body, Enroll, Freshness, Header, Kind};
use keyferry_protocol::proof::Proof;
use keyferry_protocol::receipt::{self, Flavour, Outcome, SourceClass, State};
use keyferry_protocol::suite::{Suite, UnwrapAlgorithm};

use crate::desk::OnDesk;
use crate::software::{SoftAuthority, SoftKey, wrap};

fn quiet(_: keyferry_protocol::message::Progress) {}

/// The nonces and challenges of this station.
pub const ONCE: Challenge = Challenge([9; 32]);

/// A handle to a log. As a session's witness it writes every order and every answer down.
#[derive(Clone)]
pub struct SharedLog(Arc<Mutex<AuditLog>>);

impl SharedLog {
    /// Shares a log.
    #[must_use]
    pub fn new(log: AuditLog) -> Self {
        Self(Arc::new(Mutex::new(log)))
    }

    /// The log, for as long as nobody else has to write to it.
    pub fn lock(&self) -> MutexGuard<'_, AuditLog> {
        // A thread that died while it wrote has left the log unusable, and the log says so itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(error: AuditError) -> DeviceError {
    DeviceError::Witness(Box::new(error))
}

impl Witness for SharedLog {
    /// The log is held while the order is made, so that its head is the order's.
    fn order(&mut self, make: &mut MakeOrder<'_>) -> Result<SignedOrder, DeviceError> {
        let mut log = self.lock();
        let order = make(log.head().digest)?;
        log.ordered(&order).map_err(failed)?;
        Ok(order)
    }

    fn receipt(&mut self, order: &Digest, receipt: &SignedReceipt) -> Result<(), DeviceError> {
        self.lock().answered(order, receipt).map_err(failed)?;
        Ok(())
    }
}

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
        let terms = flow::terms(device, log.head().digest).unwrap();
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
