//! `Inject`: the path of a key from its blob into its slot. `proving` has what comes after.
//!
//! Blobs stream in one at a time. A wrapped KEK costs the one private-key operation; each wrapped key is then opened in
//! place and written, encrypted, into the store's open transaction. When the last is in, each key is read back from flash
//! and proved, and one commit makes keys, counter, version floors and receipt durable together.
//!
//! Whatever is wrong with a blob, all blobs are taken and all keys unwrapped before the one answer `Unwrap` is given.

use heapless::Vec;
use keyferry_protocol::MAX_ENTRIES;
use keyferry_protocol::identity::{Challenge, Digest, p256_spki};
use keyferry_protocol::message::{SlotInfo, Task};
use keyferry_protocol::order::{BlobRole, Entry, Inject, Questions};
use keyferry_protocol::receipt::{Refusal, State, Writer};
use sha2::{Digest as _, Sha256};

use super::answer::{slot_item, storage, too_long};
use super::enroll::MAX_UNWRAP_SECRET;
use super::memory::Memory;
use super::orders::Accepted;
use super::proving::{ProofDue, check_receipt_fits};
use super::{Device, Job};
use crate::keys;
use crate::platform::{Mark, Platform, Stretch};
use crate::store::{Change, ItemId};
use crate::unwrap;
use crate::wipe::{Secret, wipe};

/// An `Inject` or a `Prove` under way. A `Prove` has no blobs to take and begins with its proofs.
pub(super) struct Injecting {
    pub(super) order: Accepted,
    pub(super) asked: Asked,
    /// Blobs taken.
    pub(super) blobs: usize,
    pub(super) kek_ready: bool,
    /// Some blob did not unwrap; said only at the end.
    pub(super) failed: bool,
    pub(super) challenge: Challenge,
    pub(super) proofs: Vec<ProofDue, MAX_ENTRIES>,
    /// Proofs made.
    pub(super) proved: usize,
    pub(super) writer: Option<Writer>,
    pub(super) next: Memory,
}

/// What the order says beside its header.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one, and no heap to put the larger into"
)]
pub(super) enum Asked {
    Inject(Inject),
    /// The questions of a `Prove`.
    Prove(Questions),
}

impl Asked {
    pub(super) fn inject(&self) -> Option<&Inject> {
        match self {
            Self::Inject(inject) => Some(inject),
            Self::Prove(_) => None,
        }
    }

    pub(super) fn questions(&self) -> &[u8] {
        match self {
            Self::Inject(inject) => &inject.questions,
            Self::Prove(questions) => questions,
        }
    }
}

impl<P: Platform, const RX: usize, const OUT: usize> Device<P, RX, OUT> {
    #[inline(never)]
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
        let (mut proofs, mut questions) = (Vec::new(), 0);
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
            let due = ProofDue::new(info, kind, entry.proof, &mut questions);
            changes.push(change).map_err(|_| Refusal::Malformed)?;
            proofs.push(due).map_err(|_| Refusal::Malformed)?;
        }
        check_receipt_fits(&proofs)?;
        self.begin(changes)?;
        self.job = Job::Inject(Injecting {
            order: *order,
            asked: Asked::Inject(inject.clone()),
            blobs: 0,
            kek_ready: false,
            failed: false,
            challenge: inject.challenge,
            proofs,
            proved: 0,
            writer: None,
            next,
        });
        self.fed = self.now;
        self.began = self.now;
        self.progress(Task::Unwrap, 0, inject.blob_count() as u16);
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

    /// Whether an order waits for bytes from the station.
    pub(super) fn awaits_blob(&self) -> bool {
        match &self.job {
            Job::Inject(injecting) => injecting.due_blob().is_some() && !self.blob_is_complete(),
            Job::Idle | Job::Enroll(_) => false,
        }
    }

    pub(super) fn blob_is_complete(&self) -> bool {
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
        let total = injecting.asked.inject().map_or(0, Inject::blob_count) as u16;
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
            self.operations.unwrap += 1;
            self.platform.measure(Mark::Begins(Stretch::Kek));
            self.kek = unwrap::open_kek(
                suite,
                unwrap::UnwrapKey {
                    algorithm,
                    secret: &secret.expose()[..secret_length],
                    fingerprint: self.memory.unwrap,
                },
                &self.blob[..length],
                random,
            );
            self.platform.measure(Mark::Ends(Stretch::Kek));
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
        self.platform.measure(Mark::Begins(Stretch::Key));
        let opened = unwrap::open_key(&self.kek, due.kind, blob);
        self.platform.measure(Mark::Ends(Stretch::Key));
        match opened {
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
}

impl Injecting {
    pub(super) fn due_blob(&self) -> Option<(BlobRole, keyferry_protocol::order::BlobRef)> {
        self.asked.inject()?.blob(self.blobs)
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
