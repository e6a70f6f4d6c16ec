//! `Inject`: the path of a key from its blob into its slot. `proving` has what comes after.
//!
//! Blobs stream in one at a time. A wrapped KEK costs the one private-key operation; each wrapped key is then opened in
//! place and written, encrypted, into the store's open transaction. When the last is in, each key is read back from flash
//! and proved, and one commit makes keys, counter, version floors and receipt durable together.
//!
//! Whatever is wrong with a blob, all blobs are taken and all keys unwrapped before the one answer `Unwrap` is given.

use heapless::Vec;
use keyferry_protocol::MAX_ENTRIES;
use keyferry_protocol::identity::{Digest, p256_spki};
use keyferry_protocol::message::{SlotInfo, Task};
use keyferry_protocol::order::{BlobRef, BlobRole, Entry, InjectView, Kind, View};
use keyferry_protocol::receipt::{Refusal, State, Writer, slot_report_length};
use sha2::{Digest as _, Sha256};

use super::answer::{slot_item, storage, too_long};
use super::buffer::LONGEST_BLOB;
use super::enroll::MAX_UNWRAP_SECRET;
use super::memory::Memory;
use super::orders::{self, Accepted};
use super::proving::check_receipt_fits;
use super::{Device, Job};
use crate::keys;
use crate::platform::{Mark, Platform, Stretch};
use crate::store::{Change, ItemId};
use crate::unwrap;
use crate::wipe::{Secret, wipe};

/// An `Inject` or a `Prove` under way. A `Prove` has no blobs to take and begins with its proofs. What else the order says is looked up
/// in its bytes.
pub(super) struct Injecting {
    pub(super) order: Accepted,
    /// The blob that is due, while one is.
    pub(super) due: Option<(BlobRole, BlobRef)>,
    /// Blobs taken.
    pub(super) blobs: usize,
    pub(super) kek_ready: bool,
    /// Some blob did not unwrap; said only at the end.
    pub(super) failed: bool,
    /// Proofs to make.
    pub(super) proofs: usize,
    /// Proofs made.
    pub(super) proved: usize,
    /// Bytes of the questions that they have taken.
    pub(super) asked: usize,
    pub(super) writer: Option<Writer>,
    pub(super) next: Memory,
}

impl Injecting {
    /// An order with so many proofs, of which nothing is done yet.
    pub(super) const fn new(order: Accepted, proofs: usize, next: Memory) -> Self {
        Self {
            order,
            due: None,
            blobs: 0,
            kek_ready: false,
            failed: false,
            proofs,
            proved: 0,
            asked: 0,
            writer: None,
            next,
        }
    }
}

/// Looks at the `Inject` under way.
pub(super) fn view_inject(order: &[u8]) -> Result<InjectView<'_>, Refusal> {
    match orders::view(order, Kind::Inject)? {
        View::Inject(inject) => Ok(inject),
        View::Enroll(_)
        | View::Prove(_)
        | View::Remove(_)
        | View::Rotate(_)
        | View::Lock
        | View::Wipe
        | View::Recover(_) => Err(Refusal::Malformed),
    }
}

impl<P: Platform, const RX: usize, const OUT: usize> Device<P, RX, OUT> {
    #[inline(never)]
    pub(super) fn begin_inject(&mut self, order: &Accepted) -> Result<(), Refusal> {
        let suite = order.header.suite.ok_or(Refusal::Suite)?;
        let algorithm = self.unwrap_algorithm()?;
        let inject = view_inject(&self.order[..self.order_length])?;
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
        let mut reports = 0;
        for entry in inject.entries.iter() {
            let kind = entry.attributes.kind().map_err(|_| Refusal::Attributes)?;
            if !keys::supported(kind, entry.attributes.algorithm)
                || usize::from(entry.blob.length) > LONGEST_BLOB
            {
                return Err(Refusal::Attributes);
            }
            self.check_version(&entry)?;
            if let Some(floor) = next.floors.get_mut(usize::from(entry.slot)) {
                *floor = entry.version;
            }
            let change = Change::Put {
                id: slot_item(entry.slot)?,
                public: SlotInfo::MAX_LENGTH,
                secret: keys::secret_length(kind),
            };
            changes.push(change).map_err(|_| Refusal::Malformed)?;
            reports += slot_report_length(entry.proof.length(kind));
        }
        check_receipt_fits(reports)?;
        let blobs = inject.blob_count();
        let mut injecting = Injecting::new(*order, inject.entries.len(), next);
        injecting.due = inject.blob(0);
        self.begin(changes)?;
        self.job = Job::Inject(injecting);
        self.fed = self.now;
        self.began = self.now;
        self.progress(Task::Unwrap, 0, blobs as u16);
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
            Job::Inject(injecting) => injecting.due.is_some() && !self.blob_is_complete(),
            Job::Idle | Job::Enroll(_) => false,
        }
    }

    pub(super) fn blob_is_complete(&self) -> bool {
        match &self.job {
            Job::Inject(injecting) => injecting
                .due
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
        let step = match injecting.due {
            Some(_) if !self.blob_is_complete() => return false,
            Some((role, blob)) => self.open_blob(role, &blob.digest),
            None if injecting.failed => Err(Refusal::Unwrap),
            None if injecting.proved < injecting.proofs => self.prove_next(),
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
        let altered = Sha256::digest(&self.buffer.blob()[..length])[..] != digest.0;
        match role {
            BlobRole::Certificate => self.take_certificate(length, altered)?,
            BlobRole::Kek(_) => self.open_kek(length, altered)?,
            BlobRole::Entry(index) => self.open_key(index, length, altered)?,
        }
        wipe(&mut self.buffer.blob()[..length]);
        let Job::Inject(injecting) = &mut self.job else {
            return Err(Refusal::Sequence);
        };
        injecting.failed |= altered;
        injecting.blobs += 1;
        let inject = view_inject(&self.order[..self.order_length])?;
        injecting.due = inject.blob(injecting.blobs);
        let (done, total) = (injecting.blobs as u16, inject.blob_count() as u16);
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
        let certificate = &self.buffer.blob()[..length];
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
                &self.buffer.blob()[..length],
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
        if altered || !injecting.kek_ready {
            injecting.failed = true;
            return Ok(());
        }
        let inject = view_inject(&self.order[..self.order_length])?;
        let entry = inject.entries.get(index).ok_or(Refusal::Sequence)?;
        let kind = entry.attributes.kind().map_err(|_| Refusal::Attributes)?;
        let blob = &mut self.buffer.blob()[..length];
        self.platform.measure(Mark::Begins(Stretch::Key));
        let opened = unwrap::open_key(&self.kek, kind, blob);
        self.platform.measure(Mark::Ends(Stretch::Key));
        match opened {
            Ok(key_length) if !injecting.failed => {
                let mut public = [0; SlotInfo::MAX_LENGTH];
                let slot = slot_item(entry.slot)?;
                let info = SlotInfo {
                    slot: entry.slot,
                    version: entry.version,
                    attributes: entry.attributes,
                    label: entry.label,
                };
                let public = info.encode(&mut public).map_err(too_long)?;
                self.store
                    .put(slot, public, Some(&mut blob[..key_length]))
                    .map_err(storage)?;
            }
            Ok(_) => {}
            Err(_) => injecting.failed = true,
        }
        Ok(())
    }
}
