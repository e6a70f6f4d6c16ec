//! The device's key store: items in NOR flash, secrets encrypted, every change atomic.
//!
//! All items together are one *snapshot*. A transaction writes the next snapshot beside the current one and then switches
//! to it in one step, so entries, counter, version floors and receipt of an order become durable together or not at all;
//! then the old snapshot is erased, so what was removed or replaced is gone. Snapshots follow each other around a ring of
//! erase pages, which spreads wear. `STORE.md` has the format, and why it is so.
//!
//! The store must never erase a flash it does not understand ([`Condition::Quarantined`]), never take such a flash for a
//! blank one, and never let a secret reach flash in clear.
//!
//! # What a board gives
//!
//! A [`NorFlash`] that is the store's alone, with `READ_SIZE` and `WRITE_SIZE` dividing 32 and `ERASE_SIZE` P a multiple
//! of 32 of at least 256, wholly erased at first (0xFF). It needs `max(4, 2 × ceil((256 + R) / P))` pages, where R is
//! the sum of the records of the fullest state and a record takes `12 + public + sealed` bytes rounded up to 32, `sealed`
//! being the secret rounded up to 8, plus 8. Sixteen RSA-4096 keys with 100 bytes of attributes each, both device
//! keys, a certificate of 1 KiB and a receipt of 2 KiB fit into 32 KiB of 2 KiB pages.
//!
//! # Memory
//!
//! No heap. A [`Store`] takes under 2 KiB beside the flash driver. A call has on the stack, beside what the ciphers need, at
//! most a sealed secret of [`MAX_SECRET`] + 8 bytes and three tables of items of under 400 bytes each.

use embedded_storage::nor_flash::{NorFlash, NorFlashErrorKind};
use keyferry_protocol::message::SlotInfo;

use crate::platform::RootKey;

mod anew;
mod error;
mod layout;
#[cfg(any(test, feature = "nor-fake"))]
pub mod nor_fake;
mod read;
mod recovery;
mod ring;
mod seal;
mod staging;
#[cfg(test)]
mod tests;
mod transaction;

pub use error::{Condition, Reason, StoreError};
pub use layout::{ItemId, MAX_ITEMS, MAX_PUBLIC, MAX_SECRET};
pub use transaction::Change;

use layout::{Entry, Snapshot, TICK};
use ring::Ring;
use staging::{mark, void};
use transaction::Transaction;

/// The key store.
pub struct Store<F: NorFlash> {
    ring: Ring<F>,
    root: RootKey,
    current: Result<Current, Reason>,
    transaction: Option<Transaction>,
}

/// The snapshot in force, and what is known about the rest of the ring.
struct Current {
    snapshot: Snapshot,
    /// Whether this session programmed one of the snapshot's boot ticks, so that no later start can take the snapshot for
    /// uncommitted. Nothing else is written or erased before.
    settled: bool,
    /// Free pages after the snapshot which this session has not erased itself: they must be erased before use.
    unsure: u32,
    /// Whether free pages may hold remains of other snapshots.
    residue: bool,
}

impl Current {
    /// The snapshot found or made at the start.
    fn at_start<F: NorFlash>(ring: &Ring<F>, snapshot: Snapshot) -> Self {
        let unsure = ring.pages() - snapshot.pages(Ring::<F>::PAGE);
        Self {
            snapshot,
            settled: false,
            unsure,
            residue: true,
        }
    }

    /// Programs a boot tick, if this session has not yet.
    fn settle<F: NorFlash>(&mut self, ring: &mut Ring<F>) -> Result<(), NorFlashErrorKind> {
        // Where no tick is left, more than one was used, and the first was complete before the second was begun.
        if !self.settled && self.snapshot.ticks_used < self.snapshot.ticks(Ring::<F>::PAGE) {
            mark(ring, &mut self.snapshot, &TICK)?;
        }
        self.settled = true;
        Ok(())
    }

    /// The first page after the snapshot.
    fn next_page<F: NorFlash>(&self, ring: &Ring<F>) -> u32 {
        ring.page_after(self.snapshot.start, self.snapshot.pages(Ring::<F>::PAGE))
    }

    /// Notes that free pages may hold remains.
    fn note_residue<F: NorFlash>(&mut self, ring: &Ring<F>) {
        self.residue = true;
        self.unsure = ring.pages() - self.snapshot.pages(Ring::<F>::PAGE);
    }

    /// Erases what is left of other snapshots, each from its beginning.
    fn clean<F: NorFlash>(
        &mut self,
        ring: &mut Ring<F>,
        root: &RootKey,
    ) -> Result<(), NorFlashErrorKind> {
        let first = self.next_page(ring);
        for step in 0..ring.pages() - self.snapshot.pages(Ring::<F>::PAGE) {
            let page = ring.page_after(first, step);
            if !ring.is_blank(page) {
                self.settle(ring)?;
                if let Ok(other) = recovery::inspect(ring, root, page)
                    && other.sequence >= self.snapshot.sequence
                {
                    void(ring, other);
                }
                ring.erase_page(page)?;
            }
        }
        self.residue = false;
        Ok(())
    }
}

impl<F: NorFlash> Store<F> {
    /// Opens the store in `flash`, and finishes or undoes what a power cut interrupted. An erased flash is formatted.
    ///
    /// This always gives a store; [`Self::condition`] says whether it can be used. Time and flash accesses are bounded by
    /// the size of the area.
    pub fn open(flash: F, root_key: RootKey) -> Self {
        Self::open_ring(Ring::new(flash), root_key)
    }

    /// [`Self::open`] without finishing or undoing anything: that is for [`Self::tidy`], or the next change. So the flash is as it was,
    /// unless it was erased, for whoever may find that what is in it cannot be vouched for.
    pub fn look(flash: F, root_key: RootKey) -> Self {
        Self::look_ring(Ring::new(flash), root_key)
    }

    /// Finishes or undoes what a power cut interrupted.
    pub fn tidy(&mut self) {
        if let Ok(current) = &mut self.current {
            // Where this fails, the residue stays noted, and the next transaction tries again before anything else.
            let _ = current.clean(&mut self.ring, &self.root);
        }
    }

    /// A store whose root key could not be read: quarantined, and its flash never touched.
    pub fn without_root_key(flash: F) -> Self {
        Self {
            ring: Ring::new(flash),
            root: RootKey::zeroed(),
            current: Err(Reason::NoRootKey),
            transaction: None,
        }
    }

    fn open_ring(ring: Ring<F>, root: RootKey) -> Self {
        let mut store = Self::look_ring(ring, root);
        store.tidy();
        store
    }

    fn look_ring(mut ring: Ring<F>, root: RootKey) -> Self {
        let found = match recovery::find(&mut ring, &root) {
            Ok(Some(snapshot)) => Ok(snapshot),
            Ok(None) => recovery::format(&mut ring, &root),
            Err(reason) => Err(reason),
        };
        let current = found.map(|snapshot| Current::at_start(&ring, snapshot));
        Self {
            ring,
            root,
            current,
            transaction: None,
        }
    }

    /// The flash, to look at.
    pub const fn flash(&self) -> &F {
        self.ring.flash()
    }

    /// Gives the flash back, without ending an open transaction: the next start undoes it.
    pub fn into_flash(self) -> F {
        self.ring.into_flash()
    }

    /// Whether the store can be used.
    #[must_use]
    pub fn condition(&self) -> Condition {
        match &self.current {
            Ok(_) => Condition::Ready,
            Err(reason) => Condition::Quarantined(*reason),
        }
    }

    /// Whether there is an item `id`.
    #[must_use]
    pub fn contains(&self, id: ItemId) -> bool {
        self.entry(id).is_some()
    }

    /// The items there are, by number.
    pub fn ids(&self) -> impl Iterator<Item = ItemId> {
        ItemId::all().filter(|id| self.contains(*id))
    }

    /// Reads an item's public part into `buf`. `None` if there is no such item.
    ///
    /// # Errors
    /// [`StoreError::BufferTooSmall`]; [`StoreError::Flash`] and [`StoreError::Damaged`] if flash cannot be read or
    /// fails the record's checksum; [`StoreError::Quarantined`].
    pub fn public<'b>(
        &mut self,
        id: ItemId,
        buf: &'b mut [u8],
    ) -> Result<Option<&'b [u8]>, StoreError> {
        let snapshot = &self
            .current
            .as_ref()
            .map_err(|reason| StoreError::Quarantined(*reason))?
            .snapshot;
        match snapshot.directory.get(id) {
            Some(entry) => read::public(&mut self.ring, snapshot.start, id, entry, buf).map(Some),
            None => Ok(None),
        }
    }

    /// What a slot holds, as its public part says; `None` if it is empty, or if there is no such slot.
    ///
    /// # Errors
    /// As [`Self::public`]; [`StoreError::Damaged`] also if that says nothing.
    pub fn slot(&mut self, slot: u16) -> Result<Option<SlotInfo>, StoreError> {
        let Some(item) = ItemId::slot(slot) else {
            return Ok(None);
        };
        let mut bytes = [0; SlotInfo::MAX_LENGTH];
        match self.public(item, &mut bytes)? {
            None => Ok(None),
            Some(bytes) => SlotInfo::decode(bytes)
                .map(Some)
                .map_err(|_| StoreError::Damaged),
        }
    }

    /// Reads an item's secret part and opens it in `buf`, which needs the secret's length rounded up to 8. `None` if there is
    /// no such item or it has no secret part. `buf` is wiped on failure; to wipe it after use is up to the caller.
    ///
    /// # Errors
    /// As [`Self::public`]; [`StoreError::Damaged`] also if the seal is broken.
    pub fn secret<'b>(
        &mut self,
        id: ItemId,
        buf: &'b mut [u8],
    ) -> Result<Option<&'b mut [u8]>, StoreError> {
        let snapshot = &self
            .current
            .as_ref()
            .map_err(|reason| StoreError::Quarantined(*reason))?
            .snapshot;
        match snapshot.directory.get(id) {
            Some(entry) if entry.sealed > 0 => {
                read::secret(&mut self.ring, &self.root, snapshot.start, id, entry, buf).map(Some)
            }
            Some(_) | None => Ok(None),
        }
    }

    /// Counts a boot and gives the new count, which is on flash before this returns. No value is ever given twice; there
    /// may be gaps. An open transaction is aborted if a new snapshot is needed for it.
    ///
    /// # Errors
    /// [`StoreError::Flash`] if it could not be made durable, [`StoreError::Exhausted`] after some 4 thousand million
    /// boots, [`StoreError::Quarantined`].
    pub fn next_boot(&mut self) -> Result<u32, StoreError> {
        let current = self
            .current
            .as_mut()
            .map_err(|reason| StoreError::Quarantined(*reason))?;
        if current.snapshot.boots() > u32::MAX - 2 * layout::MAX_TICKS {
            return Err(StoreError::Exhausted);
        }
        if self.ring.has(ring::Defect::TickLate) {
            let early = current.snapshot.boots() + 1;
            let _ = mark(&mut self.ring, &mut current.snapshot, &TICK);
            return Ok(early);
        }
        if mark(&mut self.ring, &mut current.snapshot, &TICK).is_ok() {
            current.settled = true;
            return Ok(current.snapshot.boots());
        }
        self.begin([])?;
        match self.commit() {
            Ok(()) | Err(StoreError::Residue(_)) => {}
            Err(error) => return Err(error),
        }
        self.current
            .as_ref()
            .map(|current| current.snapshot.boots())
            .map_err(|reason| StoreError::Quarantined(*reason))
    }

    /// Bytes of records that fit, see the module's text for what a record takes. 0 if the area is too small.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        Snapshot::body_for(self.ring.pages() / 2, Ring::<F>::PAGE)
    }

    /// Bytes of records there are. 0 in quarantine.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.current
            .as_ref()
            .map_or(0, |current| current.snapshot.body)
    }

    /// How often each page of the area has been erased by now, about: the ring wears evenly, and each snapshot that was ever written
    /// took its pages once. It takes the present size for that of all. A board that knows how many cycles its part endures can tell
    /// from it what is left. 0 in quarantine.
    #[must_use]
    pub fn erase_cycles(&self) -> u32 {
        self.current.as_ref().map_or(0, |current| {
            let snapshot = &current.snapshot;
            let replaced = u64::from(snapshot.sequence.saturating_sub(1));
            let erased = replaced * u64::from(snapshot.pages(Ring::<F>::PAGE));
            let cycles = erased.checked_div(u64::from(self.ring.pages()));
            u32::try_from(cycles.unwrap_or(0)).unwrap_or(u32::MAX)
        })
    }

    /// Whether remains of replaced items may still be on flash, because erasing them failed.
    #[must_use]
    pub fn has_residue(&self) -> bool {
        self.current.as_ref().is_ok_and(|current| current.residue)
    }

    fn entry(&self, id: ItemId) -> Option<Entry> {
        self.current.as_ref().ok()?.snapshot.directory.get(id)
    }
}
