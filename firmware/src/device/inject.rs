//! `Inject` and `Prove`: the path of a key from its blob into its slot, and its proof from there.
//!
//! Blobs stream in one at a time. A wrapped KEK costs the one private-key operation; each wrapped key is then opened in
//! place and written, encrypted, into the store's open transaction. When the last is in, each key is read back from flash
//! and proved, and one commit makes keys, counter, version floors and receipt durable together.
//!
//! Whatever is wrong with a blob, all blobs are taken and all keys unwrapped before the one answer `Unwrap` is given.

use heapless::Vec;
use keyferry_protocol::attributes::KeyKind;
use keyferry_protocol::identity::{Challenge, Digest, p256_spki};
use keyferry_protocol::message::{Reply, SlotInfo, Task};
use keyferry_protocol::order::{BlobRole, Entry, Inject, Prove};
use keyferry_protocol::proof::{Proof, proof_input};
use keyferry_protocol::receipt::{
    MAX_HEADER, MAX_RECEIPT, Refusal, SlotReport, State, Writer, slot_report_length,
};
use keyferry_protocol::{MAX_ENTRIES, MAX_SLOTS};
use sha2::{Digest as _, Sha256};

use super::answer::{slot_item, storage, too_long};
use super::enroll::MAX_UNWRAP_SECRET;
use super::memory::Memory;
use super::orders::Accepted;
use super::{Device, Job};
use crate::keys;
use crate::platform::Platform;
use crate::prove::prove;
use crate::store::{Change, ItemId};
use crate::unwrap;
use crate::wipe::{Secret, wipe};

/// Longest stored key in bytes, filled up to a multiple of eight, and longer than any proof: RSA-4096's.
const MAX_KEY: usize = (4_usize + 512).next_multiple_of(8);

/// An `Inject` or a `Prove` under way. A `Prove` has no blobs to take and begins with its proofs.
pub(super) struct Injecting {
    order: Accepted,
    body: Option<Inject>,
    /// Blobs taken.
    blobs: usize,
    kek_ready: bool,
    /// Some blob did not unwrap; said only at the end.
    failed: bool,
    challenge: Challenge,
    proofs: Vec<ProofDue, MAX_ENTRIES>,
    /// Proofs made.
    proved: usize,
    writer: Option<Writer>,
    next: Memory,
}

struct ProofDue {
    info: SlotInfo,
    kind: KeyKind,
    proof: Proof,
}

impl<P: Platform> Device<P> {
    pub(super) fn begin_inject(
        &mut self,
        order: &Accepted,
        inject: &Inject,
    ) -> Result<(), Refusal> {
        let suite = order.header.suite.ok_or(Refusal::Suite)?;
        let algorithm = self.unwrap_algorithm()?;
        let kek_length = algorithm.kek_blob_length();
        if !suite.fits(algorithm)
            || !unwrap::supported(suite)
            || inject
                .keks
                .iter()
                .any(|kek| usize::from(kek.length) != kek_length)
        {
            return Err(Refusal::Suite);
        }
        let mut next = self.after(order);
        if !inject.entries.is_empty() {
            next.state = State::Provisioned;
        }
        let mut changes: Vec<Change, { MAX_ENTRIES + 1 }> = Vec::new();
        if let Some(certificate) = inject.certificate {
            let change = Change::Put {
                id: ItemId::CERTIFICATE,
                public: usize::from(certificate.length),
                secret: 0,
            };
            changes.push(change).map_err(|_| Refusal::Malformed)?;
        }
        let mut proofs = Vec::new();
        for entry in &inject.entries {
            let kind = entry.attributes.kind().map_err(|_| Refusal::Attributes)?;
            if !keys::kind_supported(kind) {
                return Err(Refusal::Attributes);
            }
            self.check_version(entry)?;
            if let Some(floor) = next.floors.get_mut(usize::from(entry.slot)) {
                *floor = entry.version;
            }
            let info = slot_info(entry);
            let change = Change::Put {
                id: slot_item(entry.slot)?,
                public: SlotInfo::MAX_LENGTH,
                secret: keys::secret_length(kind),
            };
            let due = ProofDue {
                info,
                kind,
                proof: entry.proof,
            };
            changes.push(change).map_err(|_| Refusal::Malformed)?;
            proofs.push(due).map_err(|_| Refusal::Malformed)?;
        }
        check_receipt_fits(&proofs)?;
        self.begin(changes)?;
        self.job = Job::Inject(Injecting {
            order: *order,
            body: Some(inject.clone()),
            blobs: 0,
            kek_ready: false,
            failed: false,
            challenge: inject.challenge,
            proofs,
            proved: 0,
            writer: None,
            next,
        });
        self.reply(&Reply::Accepted);
        Ok(())
    }

    /// Raising the version replaces a key; the same version is taken; a lower one is refused, also after a removal.
    fn check_version(&self, entry: &Entry) -> Result<(), Refusal> {
        let floor = self
            .memory
            .floors
            .get(usize::from(entry.slot))
            .ok_or(Refusal::Malformed)?;
        if entry.version > *floor {
            Ok(())
        } else if entry.version == *floor && self.store.contains(slot_item(entry.slot)?) {
            Err(Refusal::SlotTaken)
        } else {
            Err(Refusal::VersionRollback)
        }
    }

    pub(super) fn begin_prove(&mut self, order: &Accepted, prove: &Prove) -> Result<(), Refusal> {
        let mut proofs = Vec::new();
        for request in &prove.slots {
            if usize::from(request.slot) >= MAX_SLOTS {
                return Err(Refusal::SlotEmpty);
            }
            let info = self.slot_info(request.slot)?.ok_or(Refusal::SlotEmpty)?;
            let kind = info.attributes.kind().map_err(|_| Refusal::Storage)?;
            if !request.proof.permitted(kind, &info.attributes) {
                return Err(Refusal::Attributes);
            }
            let due = ProofDue {
                info,
                kind,
                proof: request.proof,
            };
            proofs.push(due).map_err(|_| Refusal::Malformed)?;
        }
        check_receipt_fits(&proofs)?;
        self.begin([])?;
        self.job = Job::Inject(Injecting {
            order: *order,
            body: None,
            blobs: 0,
            kek_ready: false,
            failed: false,
            challenge: prove.challenge,
            proofs,
            proved: 0,
            writer: None,
            next: self.after(order),
        });
        Ok(())
    }

    /// Takes a piece of the blob that is due.
    pub(super) fn take_blob(&mut self, bytes: &[u8]) {
        if self.blob_is_complete() {
            // The one before is opened first: the next needs its place.
            self.step();
        }
        let Job::Inject(injecting) = &self.job else {
            self.refuse(Refusal::Sequence);
            return;
        };
        let due = injecting
            .due_blob()
            .map(|(_, blob)| usize::from(blob.length));
        let end = self.blob_length + bytes.len();
        match (due, self.blob.get_mut(self.blob_length..end)) {
            (Some(due), Some(place)) if end <= due && !bytes.is_empty() => {
                place.copy_from_slice(bytes);
                self.blob_length = end;
            }
            _ => {
                let order = injecting.order;
                self.answer_refusal(&order, Refusal::Sequence);
            }
        }
    }

    fn blob_is_complete(&self) -> bool {
        match &self.job {
            Job::Inject(injecting) => injecting
                .due_blob()
                .is_some_and(|(_, blob)| self.blob_length >= usize::from(blob.length)),
            Job::Idle | Job::Enroll(_) => false,
        }
    }

    /// Opens the blob that is complete, or makes the next proof, or concludes.
    pub(super) fn step_inject(&mut self) -> bool {
        let Job::Inject(injecting) = &self.job else {
            return false;
        };
        let order = injecting.order;
        let step = match injecting.due_blob() {
            Some(_) if !self.blob_is_complete() => return false,
            Some((role, blob)) => self.open_blob(role, &blob.digest),
            None if injecting.failed => Err(Refusal::Unwrap),
            None if injecting.proved < injecting.proofs.len() => self.prove_next(),
            None => {
                let concluded = self.conclude_proofs();
                if let Err(refusal) = concluded {
                    self.answer_refusal(&order, refusal);
                }
                return false;
            }
        };
        match step {
            Ok(()) => true,
            Err(refusal) => {
                self.answer_refusal(&order, refusal);
                false
            }
        }
    }

    fn open_blob(&mut self, role: BlobRole, digest: &Digest) -> Result<(), Refusal> {
        let length = core::mem::take(&mut self.blob_length);
        let altered = Sha256::digest(&self.blob[..length])[..] != digest.0;
        match role {
            BlobRole::Certificate => self.take_certificate(length, altered)?,
            BlobRole::Kek(_) => self.open_kek(length, altered)?,
            BlobRole::Entry(index) => self.open_key(index, length, altered)?,
        }
        wipe(&mut self.blob[..length]);
        let Job::Inject(injecting) = &mut self.job else {
            return Err(Refusal::Sequence);
        };
        injecting.failed |= altered;
        injecting.blobs += 1;
        let done = injecting.blobs as u16;
        let total = injecting.body.as_ref().map_or(0, Inject::blob_count) as u16;
        self.progress(Task::Unwrap, done, total);
        Ok(())
    }

    /// Keeps a certificate. Reading it is the business of whoever is shown it; that it names this device's own key is looked
    /// at, since a mix-up on the way would be noticed only in the field.
    ///
    /// A certificate is public, it comes before any KEK, and the order states its digest: so a refusal of its own tells nothing
    /// of a key.
    fn take_certificate(&mut self, length: usize, altered: bool) -> Result<(), Refusal> {
        if altered {
            return Ok(());
        }
        let mut identity = [0; p256_spki::LENGTH];
        let identity = self
            .store
            .public(ItemId::IDENTITY, &mut identity)
            .map_err(storage)?
            .ok_or(Refusal::Storage)?;
        let certificate = &self.blob[..length];
        if !certificate
            .windows(identity.len())
            .any(|part| part == identity)
        {
            return Err(Refusal::Attributes);
        }
        self.store
            .put(ItemId::CERTIFICATE, certificate, None)
            .map_err(storage)
    }

    fn open_kek(&mut self, length: usize, altered: bool) -> Result<(), Refusal> {
        if !altered {
            let mut secret = Secret::<MAX_UNWRAP_SECRET>::zeroed();
            let (algorithm, secret_length) = self.unwrap_secret(&mut secret)?;
            let (Job::Inject(injecting), Some(random)) = (&self.job, &mut self.random) else {
                return Err(Refusal::Entropy);
            };
            let suite = injecting.order.header.suite.ok_or(Refusal::Suite)?;
            self.unwrap_operations += 1;
            self.kek = unwrap::open_kek(
                suite,
                algorithm,
                &secret.expose()[..secret_length],
                &self.blob[..length],
                random,
            );
        }
        if let Job::Inject(injecting) = &mut self.job {
            injecting.kek_ready = !altered;
        }
        Ok(())
    }

    fn open_key(&mut self, index: usize, length: usize, altered: bool) -> Result<(), Refusal> {
        let Job::Inject(injecting) = &mut self.job else {
            return Err(Refusal::Sequence);
        };
        let due = injecting.proofs.get(index).ok_or(Refusal::Sequence)?;
        if altered || !injecting.kek_ready {
            injecting.failed = true;
            return Ok(());
        }
        let blob = &mut self.blob[..length];
        match unwrap::open_key(&self.kek, due.kind, blob) {
            Ok(key_length) if !injecting.failed => {
                let mut public = [0; SlotInfo::MAX_LENGTH];
                let public = due.info.encode(&mut public).map_err(too_long)?;
                self.store
                    .put(
                        slot_item(due.info.slot)?,
                        public,
                        Some(&mut blob[..key_length]),
                    )
                    .map_err(storage)?;
            }
            Ok(_) => {}
            Err(_) => injecting.failed = true,
        }
        Ok(())
    }

    fn prove_next(&mut self) -> Result<(), Refusal> {
        let mut writer = self.proof_writer()?;
        let (Job::Inject(injecting), Some(random)) = (&mut self.job, &mut self.random) else {
            return Err(Refusal::Entropy);
        };
        let due = injecting
            .proofs
            .get(injecting.proved)
            .ok_or(Refusal::Sequence)?;
        let slot = due.info.slot;
        let input = proof_input(&injecting.order.digest, slot, &injecting.challenge);
        let mut secret = Secret::<MAX_KEY>::zeroed();
        let mut value = [0; MAX_KEY];
        let mut value_length = 0;
        if due.proof != Proof::None {
            // From flash, not from RAM: what is proved is what the slot holds.
            let read = if injecting.body.is_some() {
                self.store
                    .staged_secret(slot_item(slot)?, secret.expose_mut())
            } else {
                self.store.secret(slot_item(slot)?, secret.expose_mut())
            };
            let key = read.map_err(storage)?.ok_or(Refusal::Storage)?;
            value_length = prove(due.proof, due.kind, key, &input, random, &mut value)
                .map_err(|_| Refusal::Attributes)?;
        }
        let report = SlotReport {
            slot,
            version: due.info.version,
            attributes: due.info.attributes,
            proof: due.proof,
            value: &value[..value_length],
        };
        writer.slot(&report, &mut self.receipt).map_err(too_long)?;
        injecting.writer = Some(writer);
        injecting.proved += 1;
        let (done, total) = (injecting.proved as u16, injecting.proofs.len() as u16);
        self.progress(Task::Prove, done, total);
        Ok(())
    }

    /// The receipt so far; begun if it is not.
    fn proof_writer(&mut self) -> Result<Writer, Refusal> {
        let Job::Inject(injecting) = &self.job else {
            return Err(Refusal::Sequence);
        };
        if let Some(writer) = injecting.writer {
            return Ok(writer);
        }
        let header = self.receipt_header(&injecting.order, &injecting.next);
        let mut writer = Writer::new(&header, &mut self.receipt).map_err(too_long)?;
        writer
            .slot_count(injecting.proofs.len(), &mut self.receipt)
            .map_err(too_long)?;
        Ok(writer)
    }

    fn conclude_proofs(&mut self) -> Result<(), Refusal> {
        let writer = self.proof_writer()?;
        let Job::Inject(injecting) = &self.job else {
            return Err(Refusal::Sequence);
        };
        let next = injecting.next.clone();
        self.sign_and_conclude(writer.length(), next)
    }
}

impl Injecting {
    fn due_blob(&self) -> Option<(BlobRole, keyferry_protocol::order::BlobRef)> {
        self.body.as_ref()?.blob(self.blobs)
    }
}

fn slot_info(entry: &Entry) -> SlotInfo {
    SlotInfo {
        slot: entry.slot,
        version: entry.version,
        attributes: entry.attributes,
        label: entry.label.clone(),
    }
}

/// Said before any work is done, not after.
fn check_receipt_fits(proofs: &[ProofDue]) -> Result<(), Refusal> {
    let reports: usize = proofs
        .iter()
        .map(|due| slot_report_length(due.proof.length(due.kind)))
        .sum();
    if MAX_HEADER + 1 + reports > MAX_RECEIPT {
        return Err(Refusal::TooLong);
    }
    Ok(())
}
