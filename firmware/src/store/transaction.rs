//! A change of state: planned, staged item by item, and switched to in one step.

use embedded_storage::nor_flash::NorFlash;
use sha2::{Digest, Sha256};

use super::layout::{
    Commit, Directory, Entry, Format, ItemId, MAX_ITEMS, MAX_PUBLIC, MAX_SEALED, MAX_SECRET,
    RecordHead, Snapshot, sealed_length,
};
use super::ring::{Defect, LINE, Ring};
use super::seal::{self, Checks};
use super::staging::Staging;
use super::{Current, Reason, Store, StoreError, read};
use crate::platform::RootKey;
use crate::wipe::wipe;

/// What a transaction will do to an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Add or replace it.
    Put {
        /// Which item.
        id: ItemId,
        /// Bytes of its public part, at most; no more than [`MAX_PUBLIC`].
        public: usize,
        /// Bytes of its secret part, at most, 0 for none; no more than [`MAX_SECRET`].
        secret: usize,
    },
    /// Remove it, if it is there.
    Remove(ItemId),
}

/// What is planned for an item.
#[derive(Clone, Copy)]
enum Plan {
    /// It stays.
    Keep,
    /// It goes.
    Remove,
    /// It will be put, with parts of at most these lengths.
    Put { public: u16, sealed: u16 },
    /// It has been put.
    Done,
}

/// An open transaction.
pub(super) struct Transaction {
    plan: [Plan; MAX_ITEMS],
    staging: Staging,
}

impl Transaction {
    fn plan(&self, id: ItemId) -> Plan {
        self.plan
            .get(usize::from(id.number()))
            .copied()
            .unwrap_or(Plan::Keep)
    }

    /// Copies what stays from the snapshot in force, and commits.
    fn finish<F: NorFlash>(
        &mut self,
        ring: &mut Ring<F>,
        root: &RootKey,
        old: &Snapshot,
    ) -> Result<Snapshot, StoreError> {
        for id in ItemId::all() {
            if let Plan::Put { .. } = self.plan(id) {
                return Err(StoreError::NotPut(id));
            }
        }
        self.copy_kept(ring, root, old)?;
        if ring.has(Defect::EraseFirst) {
            for page in 0..old.pages(Ring::<F>::PAGE) {
                ring.erase_page(ring.page_after(old.start, page))
                    .map_err(StoreError::Flash)?;
            }
        }
        let sequence = old.sequence.checked_add(1).ok_or(StoreError::Exhausted)?;
        self.staging
            .finish(ring, sequence, old.boots())
            .map_err(StoreError::Flash)
    }

    /// Copies the records that stay, as they are. On the way the whole old snapshot is checked against its MAC once more:
    /// what has rotted since the start must not come under a new MAC.
    fn copy_kept<F: NorFlash>(
        &mut self,
        ring: &mut Ring<F>,
        root: &RootKey,
        old: &Snapshot,
    ) -> Result<(), StoreError> {
        let first = ring.read_line(old.start, 0).map_err(StoreError::Flash)?;
        let mac = ring
            .read_line(old.start, LINE as u32)
            .map_err(StoreError::Flash)?;
        let mut checks = Checks::new(root);
        for offset in (Commit::LENGTH..Commit::LENGTH + old.body).step_by(LINE) {
            let line = ring
                .read_line(old.start, offset)
                .map_err(StoreError::Flash)?;
            checks.body(&line);
            let (id, entry) = old.directory.owner(offset).ok_or(StoreError::Damaged)?;
            if let Plan::Keep = self.plan(id) {
                self.staging
                    .copy(ring, id, entry, &line)
                    .map_err(StoreError::Flash)?;
            }
        }
        let same = matches!(Commit::decode(&first), Format::Known(commit) if commit.sequence == old.sequence);
        let (fields, crc) = first.split_first_chunk().ok_or(StoreError::Damaged)?;
        let crc = crc.first_chunk().ok_or(StoreError::Damaged)?;
        let (crc_fits, mac_fits) = checks.fits(fields, crc, &mac);
        if same && crc_fits && mac_fits || ring.has(Defect::CommitFirst) {
            Ok(())
        } else {
            Err(StoreError::Damaged)
        }
    }
}

/// The snapshot that a plan leads to, as far as it can be known beforehand: lengths are upper bounds.
fn planned_snapshot(plan: &[Plan; MAX_ITEMS], old: &Snapshot, start: u32) -> Snapshot {
    let mut planned = Snapshot {
        start,
        sequence: old.sequence.saturating_add(1),
        body: 0,
        base: old.boots(),
        ticks_used: 0,
        committed: false,
        directory: Directory::EMPTY,
    };
    for (id, plan) in ItemId::all().zip(plan) {
        let entry = match plan {
            Plan::Keep => old.directory.get(id),
            Plan::Put { public, sealed } => Some(Entry {
                offset: 0,
                public: *public,
                sealed: *sealed,
            }),
            Plan::Remove | Plan::Done => None,
        };
        if let Some(entry) = entry {
            planned.body += RecordHead::record_length(entry.public, entry.sealed);
            planned.directory.set(id, entry);
        }
    }
    planned
}

fn limited(length: usize, limit: usize) -> Result<usize, StoreError> {
    if length > limit {
        Err(StoreError::TooLong { length, limit })
    } else {
        Ok(length)
    }
}

impl<F: NorFlash> Store<F> {
    /// Opens a transaction that makes `changes` and keeps all other items; a transaction that is open is aborted. For an
    /// item that is named twice the last change counts.
    ///
    /// # Errors
    /// [`StoreError::Full`] if the new state does not fit, [`StoreError::TooLong`], [`StoreError::Flash`] if remains of an
    /// earlier failure cannot be erased, [`StoreError::Quarantined`]. In all of them the state is unchanged.
    pub fn begin(&mut self, changes: impl IntoIterator<Item = Change>) -> Result<(), StoreError> {
        self.abort();
        let capacity = self.capacity();
        let current = self
            .current
            .as_mut()
            .map_err(|reason| StoreError::Quarantined(*reason))?;

        let mut plan = [Plan::Keep; MAX_ITEMS];
        for change in changes {
            let (id, planned) = match change {
                Change::Remove(id) => (id, Plan::Remove),
                Change::Put { id, public, secret } => {
                    let public = limited(public, MAX_PUBLIC)?;
                    let sealed = sealed_length(limited(secret, MAX_SECRET)?);
                    #[allow(
                        clippy::cast_possible_truncation,
                        reason = "both limits are far below 65536"
                    )]
                    (
                        id,
                        Plan::Put {
                            public: public as u16,
                            sealed: sealed as u16,
                        },
                    )
                }
            };
            if let Some(place) = plan.get_mut(usize::from(id.number())) {
                *place = planned;
            }
        }
        let planned = planned_snapshot(&plan, &current.snapshot, current.next_page(&self.ring));
        if planned.body > capacity {
            return Err(StoreError::Full {
                needed: planned.body,
                capacity,
            });
        }

        current.settle(&mut self.ring).map_err(StoreError::Flash)?;
        if current.residue {
            current
                .clean(&mut self.ring, &self.root)
                .map_err(StoreError::Flash)?;
        }
        let mut staging = Staging::new(planned.start, current.unsure, &self.root);
        if self.ring.has(Defect::CommitFirst) {
            staging
                .commit_first(&mut self.ring, &planned)
                .map_err(StoreError::Flash)?;
        }
        self.transaction = Some(Transaction { plan, staging });
        Ok(())
    }

    /// Writes an item to flash, its secret sealed. An empty secret counts as none. `secret` is wiped, whatever comes
    /// of it.
    ///
    /// # Errors
    /// [`StoreError::NotPlanned`], [`StoreError::Flash`], [`StoreError::NoTransaction`]. Each aborts the transaction.
    pub fn put(
        &mut self,
        id: ItemId,
        public: &[u8],
        mut secret: Option<&mut [u8]>,
    ) -> Result<(), StoreError> {
        let result = self.stage(id, public, secret.as_deref().unwrap_or(&[]));
        if let Some(secret) = &mut secret {
            wipe(secret);
        }
        if result.is_err() {
            self.abort();
        }
        result
    }

    fn stage(&mut self, id: ItemId, public: &[u8], secret: &[u8]) -> Result<(), StoreError> {
        let transaction = self.transaction.as_mut().ok_or(StoreError::NoTransaction)?;
        let (public_limit, sealed_limit) = match transaction.plan(id) {
            Plan::Put { public, sealed } => (usize::from(public), usize::from(sealed)),
            Plan::Keep | Plan::Remove | Plan::Done => return Err(StoreError::NotPlanned(id)),
        };
        if public.len() > public_limit || sealed_length(secret.len()) > sealed_limit {
            return Err(StoreError::NotPlanned(id));
        }
        let mut sealed = [0; MAX_SEALED];
        let public_digest = Sha256::digest(public).into();
        let sealed =
            seal::seal(&self.root, id, &public_digest, secret, &mut sealed).map_err(|_| {
                StoreError::TooLong {
                    length: secret.len(),
                    limit: MAX_SECRET,
                }
            })?;
        transaction
            .staging
            .record(&mut self.ring, id, public, sealed)
            .map_err(StoreError::Flash)?;
        if let Some(place) = transaction.plan.get_mut(usize::from(id.number())) {
            *place = Plan::Done;
        }
        Ok(())
    }

    /// Reads back from flash the secret of an item put in the open transaction, and opens it in `buf`, as
    /// [`Self::secret`] does.
    ///
    /// # Errors
    /// As [`Self::secret`]; [`StoreError::NoTransaction`]. None of them aborts the transaction.
    pub fn staged_secret<'b>(
        &mut self,
        id: ItemId,
        buf: &'b mut [u8],
    ) -> Result<Option<&'b mut [u8]>, StoreError> {
        let staging = &self
            .transaction
            .as_ref()
            .ok_or(StoreError::NoTransaction)?
            .staging;
        match staging.directory.get(id) {
            Some(entry) if entry.sealed > 0 => {
                read::secret(&mut self.ring, &self.root, staging.start, id, entry, buf).map(Some)
            }
            Some(_) | None => Ok(None),
        }
    }

    /// Copies the items that stay and switches to the new state. When this returns `Ok`, the new state is durable and
    /// nothing is left on flash of what it replaced.
    ///
    /// # Errors
    /// [`StoreError::Residue`]: the new state is in force, but the old one could not be erased. In all other cases the old
    /// state stays and the transaction is aborted: [`StoreError::NotPut`], [`StoreError::Damaged`] if the items that
    /// stay have rotted, [`StoreError::Flash`], [`StoreError::Exhausted`], [`StoreError::NoTransaction`],
    /// [`StoreError::Quarantined`].
    pub fn commit(&mut self) -> Result<(), StoreError> {
        let current = self
            .current
            .as_mut()
            .map_err(|reason| StoreError::Quarantined(*reason))?;
        let transaction = self.transaction.as_mut().ok_or(StoreError::NoTransaction)?;
        let snapshot = match transaction.finish(&mut self.ring, &self.root, &current.snapshot) {
            Ok(snapshot) => snapshot,
            Err(error) => {
                self.abort();
                return Err(error);
            }
        };
        self.transaction = None;
        let unsure = current
            .unsure
            .saturating_sub(snapshot.pages(Ring::<F>::PAGE));
        let next = Current {
            snapshot,
            settled: true,
            unsure,
            residue: false,
        };
        let old = core::mem::replace(current, next).snapshot;
        for page in 0..old.pages(Ring::<F>::PAGE) {
            if let Err(kind) = self.ring.erase_page(self.ring.page_after(old.start, page)) {
                current.note_residue(&self.ring);
                return Err(StoreError::Residue(kind));
            }
        }
        Ok(())
    }

    /// Ends the open transaction, if there is one, and erases what it wrote. The state is unchanged. If erasing fails,
    /// [`Self::has_residue`] says so; if that comes after the commit block was written, the store is quarantined until the
    /// next start, because that start alone can tell which state holds.
    pub fn abort(&mut self) {
        if let Some(mut transaction) = self.transaction.take()
            && transaction.staging.undo(&mut self.ring).is_err()
        {
            if transaction.staging.sealed {
                self.current = Err(Reason::Unsettled);
            } else if let Ok(current) = &mut self.current {
                current.note_residue(&self.ring);
            }
        }
    }
}
