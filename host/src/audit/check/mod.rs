//! What a log means, line by line: the chain, who is trusted, what is under way, what became of each key.
//!
//! The writer and the verifier share it: a log refuses to write what the verifier would not believe. It holds what is under
//! way or has failed, and some hundred bytes for each device; nothing of what is done.

mod keys;
mod orders;
mod trust;

use std::collections::HashMap;

use der::DateTime;
use keyferry_protocol::identity::{DeviceId, Digest, Fingerprint, Signature, p256_spki};

use super::checkpoint::signed_bytes;
use super::fault::Fault;
use super::record::{Event, JobId, LogId, Opened, Record, head_after};
use crate::device::verify::{fingerprint, signature_is_valid};
use keys::Job;
use orders::Orders;
use trust::Device;

pub use keys::{OpenKey, Stage};
pub use orders::OpenOrder;

/// Keys that an auditor has from elsewhere, as `SubjectPublicKeyInfo` DER. What is not given is taken from the log itself.
#[derive(Clone, Debug, Default)]
pub struct GivenKeys {
    /// The keys that may sign orders; none means those that the log names.
    pub authorities: Vec<Vec<u8>>,
    /// The key that may sign checkpoints.
    pub audit_key: Option<Vec<u8>>,
}

/// Whether signatures are verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// All of them.
    Signatures,
    /// None: the log was verified when it was written.
    Chain,
}

/// How often things happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Keys that were wrapped.
    pub wrapped: u64,
    /// Of those, keys that were proved from their slots.
    pub proved: u64,
    /// Of those, keys that arrived, and of which no proof was demanded.
    pub unproved: u64,
    /// Of those, keys that were given up.
    pub failed: u64,
    /// Proofs of keys that were proved before, or that this log does not know.
    pub proofs_again: u64,
    /// Orders.
    pub orders: u64,
    /// Receipts of orders that were applied.
    pub applied: u64,
    /// Receipts of orders that were refused.
    pub refused: u64,
    /// Certificates.
    pub certified: u64,
    /// Checkpoints.
    pub checkpoints: u64,
}

/// What is no fault, and still worth a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A known device stated another identity key, and no wipe in this log explains it.
    IdentityChanged(DeviceId),
    /// An answer that was not to be believed: somebody may be on the line.
    Disbelieved,
    /// The station's clock went back.
    ClockWentBack,
    /// A write had been interrupted, and what there was of the line was cut off.
    Torn(u64),
}

/// A key that may sign orders.
struct AuthorityKey {
    spki: Vec<u8>,
    fingerprint: Fingerprint,
    /// Whether for every device; if not, for those that were rotated to it.
    for_all: bool,
}

/// Reads a log's lines one after the other.
pub(super) struct Checker {
    depth: Depth,
    given: GivenKeys,
    next: u64,
    head: Digest,
    time: Option<DateTime>,
    opened: Option<Opened>,
    authorities: Vec<AuthorityKey>,
    devices: HashMap<DeviceId, Device>,
    orders: Orders,
    jobs: HashMap<JobId, Job>,
    tally: Tally,
    notice: Option<Notice>,
}

impl Checker {
    pub(super) fn new(depth: Depth, given: GivenKeys) -> Self {
        Self {
            depth,
            given,
            next: 0,
            head: Digest::ZERO,
            time: None,
            opened: None,
            authorities: Vec::new(),
            devices: HashMap::new(),
            orders: HashMap::new(),
            jobs: HashMap::new(),
            tally: Tally::default(),
            notice: None,
        }
    }

    /// How many lines were read.
    pub(super) const fn lines(&self) -> u64 {
        self.next
    }

    /// The head of the chain after them.
    pub(super) const fn head(&self) -> Digest {
        self.head
    }

    /// The first line, once it was read.
    pub(super) const fn opened(&self) -> Option<&Opened> {
        self.opened.as_ref()
    }

    pub(super) const fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(super) fn devices(&self) -> usize {
        self.devices.len()
    }

    /// What was worth a look in the last line.
    pub(super) const fn take_notice(&mut self) -> Option<Notice> {
        self.notice.take()
    }

    /// Verifies all signatures from here on.
    pub(super) const fn deepen(&mut self) {
        self.depth = Depth::Signatures;
    }

    /// Takes the next line, without its newline.
    ///
    /// # Errors
    /// [`Fault`]; nothing of the line was taken then.
    pub(super) fn line(&mut self, line: &[u8]) -> Result<Record, Fault> {
        let record = Record::read(line)?;
        self.record(&record)?;
        self.head = head_after(line);
        Ok(record)
    }

    fn record(&mut self, record: &Record) -> Result<(), Fault> {
        if record.n != self.next {
            return Err(Fault::Number {
                expected: self.next,
                found: record.n,
            });
        }
        if record.previous != self.head {
            return Err(Fault::Previous);
        }
        self.notice = None;
        self.event(record)?;
        if self.time.is_some_and(|before| before > record.time) {
            self.notice = self.notice.or(Some(Notice::ClockWentBack));
        }
        self.time = Some(record.time);
        self.next += 1;
        Ok(())
    }

    /// Each event checks everything before it changes anything.
    fn event(&mut self, record: &Record) -> Result<(), Fault> {
        if self.opened.is_none() != matches!(record.event, Event::Opened(_)) {
            return Err(match self.opened {
                None => Fault::NotOpened,
                Some(_) => Fault::OpenedTwice,
            });
        }
        match &record.event {
            Event::Opened(opened) => self.open(opened),
            Event::Authority(authority) => self.add_authority(&authority.key),
            Event::Enrolled(trust) | Event::Trusted(trust) => self.trust(trust),
            Event::Wrapped(wrapped) => self.wrapped(wrapped),
            Event::Ordered(ordered) => self.ordered(ordered, &record.previous),
            Event::Received(received) => self.received(received),
            Event::Proved(proved) => self.proved(proved),
            Event::Failed(failed) => self.failed(failed),
            Event::Certified(certified) => self.certified(certified),
            Event::Checkpoint(line) => self.checkpoint(&line.log, &line.signature, record),
            Event::Torn(torn) => {
                self.notice = Some(Notice::Torn(torn.bytes));
                Ok(())
            }
            Event::Disbelieved(_) => {
                self.notice = Some(Notice::Disbelieved);
                Ok(())
            }
            Event::Note(_) => Ok(()),
        }
    }

    fn open(&mut self, opened: &Opened) -> Result<(), Fault> {
        check_key(&opened.audit_key, "the audit key")?;
        for key in opened.authorities.iter().chain(&self.given.authorities) {
            check_key(key, "an authority key")?;
        }
        if let Some(given) = &self.given.audit_key
            && *given != opened.audit_key
        {
            return Err(Fault::OtherAuditKey);
        }
        let keys = if self.given.authorities.is_empty() {
            &opened.authorities
        } else {
            &self.given.authorities
        };
        self.authorities = keys.iter().map(|key| AuthorityKey::new(key)).collect();
        self.opened = Some(opened.clone());
        Ok(())
    }

    fn add_authority(&mut self, key: &[u8]) -> Result<(), Fault> {
        check_key(key, "an authority key")?;
        // An auditor who names the authorities believes no other.
        if self.given.authorities.is_empty() {
            match self.authorities.iter_mut().find(|known| known.spki == key) {
                Some(known) => known.for_all = true,
                None => self.authorities.push(AuthorityKey::new(key)),
            }
        }
        Ok(())
    }

    /// The authority with this fingerprint that may sign for every device.
    fn authority_for_all(&self, wanted: &Fingerprint) -> Option<usize> {
        self.authorities
            .iter()
            .position(|known| known.for_all && known.fingerprint == *wanted)
    }

    /// Whether an order of a witness is signed by a key that may.
    pub(super) fn is_authentic(&self, order: &[u8], signature: &Signature) -> bool {
        self.authorities
            .iter()
            .any(|known| signature_is_valid(&known.spki, order, signature))
    }

    fn signed(&self, key: &[u8], message: &[u8], signature: &Signature) -> bool {
        match self.depth {
            Depth::Signatures => signature_is_valid(key, message, signature),
            Depth::Chain => true,
        }
    }

    fn checkpoint(
        &mut self,
        log: &LogId,
        signature: &Signature,
        record: &Record,
    ) -> Result<(), Fault> {
        let opened = self.opened.as_ref().ok_or(Fault::NotOpened)?;
        if *log != opened.log {
            return Err(Fault::CheckpointLog);
        }
        let message = signed_bytes(log, record.n, &record.previous, record.time);
        if !self.signed(&opened.audit_key, &message, signature) {
            return Err(Fault::CheckpointSignature);
        }
        self.tally.checkpoints += 1;
        Ok(())
    }
}

impl AuthorityKey {
    fn new(spki: &[u8]) -> Self {
        Self {
            spki: spki.to_vec(),
            fingerprint: fingerprint(spki),
            for_all: true,
        }
    }
}

fn check_key(spki: &[u8], what: &'static str) -> Result<(), Fault> {
    p256_spki::to_point(spki)
        .and_then(|point| p256::PublicKey::from_sec1_bytes(point).ok())
        .map(|_| ())
        .ok_or(Fault::BadKey(what))
}
