//! The way out of quarantine: a store that begins anew over whatever is on flash.

use embedded_storage::nor_flash::NorFlash;

use super::layout::RecordHead;
use super::recovery;
use super::ring::Ring;
use super::staging::Staging;
use super::{Condition, Current, ItemId, MAX_PUBLIC, Reason, Store, StoreError};

impl<F: NorFlash> Store<F> {
    /// Looks at a quarantined flash again, and says what a store opened now would be: a reading may have failed once. Changes nothing, this
    /// store neither.
    pub fn look_again(&mut self) -> Condition {
        let found = match &self.current {
            Ok(_) => return Condition::Ready,
            Err(reason @ (Reason::NoRootKey | Reason::AreaTooSmall | Reason::Unsettled)) => {
                Err(*reason)
            }
            Err(_) => recovery::find(&mut self.ring, &self.root),
        };
        match found {
            Ok(Some(_)) => Condition::Ready,
            // As after first formats that were all cut off: there is nothing to lose.
            Ok(None) => Condition::Quarantined(Reason::Damaged),
            Err(reason) => Condition::Quarantined(reason),
        }
    }

    /// Gives up all that is on flash, understood or not, for these items without secrets, and counts starts on from `boots` or from the
    /// highest count found, whichever is more. It is for a store in quarantine, by the order of whoever may give it up.
    ///
    /// The new snapshot is complete and committed before anything is erased that does not lie under it, and something always does not: so
    /// a start after a power cut finds either a quarantine or the new state, and never a flash that could be taken for a blank one.
    ///
    /// # Errors
    /// [`StoreError::Quarantined`] without a root key, with too small an area, or while that is for the next start to settle, [`StoreError::TooLong`], [`StoreError::Full`],
    /// [`StoreError::Flash`], and [`StoreError::Residue`] if something of the old could not be erased. In all of them the store stays as it
    /// was, or is in quarantine.
    pub fn begin_anew(&mut self, items: &[(ItemId, &[u8])], boots: u32) -> Result<(), StoreError> {
        self.abort();
        if let Err(reason @ (Reason::NoRootKey | Reason::AreaTooSmall | Reason::Unsettled)) =
            self.current
        {
            return Err(StoreError::Quarantined(reason));
        }
        let mut needed = 0;
        for (_, public) in items {
            let length = public.len();
            let limit = MAX_PUBLIC;
            let public = u16::try_from(length).ok().filter(|_| length <= limit);
            let public = public.ok_or(StoreError::TooLong { length, limit })?;
            needed += RecordHead::record_length(public, 0);
        }
        let capacity = self.capacity();
        if needed > capacity {
            return Err(StoreError::Full { needed, capacity });
        }
        // Until the end nothing holds but what is on flash.
        self.current = Err(Reason::Damaged);
        let (mut sequence, mut base, mut occupied) = (0, boots, None);
        for page in 0..self.ring.pages() {
            if let Ok(found) = recovery::inspect(&mut self.ring, &self.root, page) {
                sequence = found.sequence.max(sequence);
                base = base.max(found.boots());
            }
            if !self.ring.is_blank(page) {
                occupied = Some(page);
            }
        }
        // A snapshot takes half of the ring at most, so this page is not under it.
        let start = occupied.map_or(0, |page| self.ring.page_after(page, 1));
        let mut staging = Staging::new(start, self.ring.pages(), &self.root);
        for (id, public) in items {
            staging
                .record(&mut self.ring, *id, public, &[])
                .map_err(StoreError::Flash)?;
        }
        let sequence = sequence.checked_add(1).ok_or(StoreError::Exhausted)?;
        let snapshot = staging
            .finish(&mut self.ring, sequence, base)
            .map_err(StoreError::Flash)?;
        for step in snapshot.pages(Ring::<F>::PAGE)..self.ring.pages() {
            self.ring
                .erase_page(self.ring.page_after(start, step))
                .map_err(StoreError::Residue)?;
        }
        self.current = Ok(Current {
            snapshot,
            settled: true,
            unsure: 0,
            residue: false,
        });
        Ok(())
    }
}
