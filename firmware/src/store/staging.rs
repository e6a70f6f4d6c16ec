//! A snapshot being written: records first, line after line, the commit block last.

use embedded_storage::nor_flash::{NorFlash, NorFlashErrorKind};

use super::layout::{Commit, Directory, Entry, ItemId, RecordHead, Snapshot, TICK, VOID};
use super::ring::{ERASED, LINE, Ring};
use super::seal::{CRC, Checks, Seal};
use crate::platform::RootKey;

/// A snapshot that is not committed yet.
pub(super) struct Staging {
    /// Its first page.
    pub(super) start: u32,
    /// The records written so far.
    pub(super) directory: Directory,
    /// Whether programming of the commit block has begun: from then on the next start may find it committed.
    pub(super) sealed: bool,
    body: u32,
    /// Tick lines that were tried.
    ticks_used: u32,
    /// Pages at its beginning that are known to be erased, so that they can be written.
    ready: u32,
    /// Pages at its beginning that must be erased before use, whatever they read as: a page whose erasing or
    /// programming was cut off may read as erased today and not tomorrow.
    unsure: u32,
    checks: Checks,
}

impl Staging {
    /// Starts at page `start`, of which and of whose successors `unsure` pages must be erased before use.
    pub(super) fn new(start: u32, unsure: u32, root: &RootKey) -> Self {
        Self {
            start,
            directory: Directory::EMPTY,
            sealed: false,
            body: 0,
            ticks_used: 0,
            ready: 0,
            unsure,
            checks: Checks::new(root),
        }
    }

    /// Makes the first `pages` pages ready for writing.
    fn prepare<F: NorFlash>(
        &mut self,
        ring: &mut Ring<F>,
        pages: u32,
    ) -> Result<(), NorFlashErrorKind> {
        if pages > ring.pages() / 2 {
            // The plan was checked against the capacity, so this does not happen; nothing may be overrun even so.
            return Err(NorFlashErrorKind::OutOfBounds);
        }
        while self.ready < pages {
            if self.ready < self.unsure {
                ring.erase_page(ring.page_after(self.start, self.ready))?;
            }
            self.ready += 1;
        }
        Ok(())
    }

    /// Appends a line to the body.
    fn line<F: NorFlash>(
        &mut self,
        ring: &mut Ring<F>,
        line: &[u8; LINE],
    ) -> Result<(), NorFlashErrorKind> {
        let offset = Commit::LENGTH + self.body;
        self.prepare(ring, offset / Ring::<F>::PAGE + 1)?;
        ring.program_line(self.start, offset, line)?;
        self.checks.body(line);
        self.body += LINE as u32;
        Ok(())
    }

    /// Appends an item's record.
    ///
    /// `public` and `sealed` must be no longer than an item's parts may be.
    pub(super) fn record<F: NorFlash>(
        &mut self,
        ring: &mut Ring<F>,
        id: ItemId,
        public: &[u8],
        sealed: &[u8],
    ) -> Result<(), NorFlashErrorKind> {
        let length =
            |part: &[u8]| u16::try_from(part.len()).map_err(|_| NorFlashErrorKind::OutOfBounds);
        let head = RecordHead {
            id,
            public: length(public)?,
            sealed: length(sealed)?,
        };
        self.enter(id, head.public, head.sealed);

        let checked = head.encode();
        let mut crc = CRC.digest();
        crc.update(&checked);
        crc.update(public);
        let crc = crc.finalize().to_le_bytes();

        let mut line = ERASED;
        let mut filled = 0;
        for part in [checked.as_slice(), &crc, public, sealed] {
            for byte in part {
                line[filled] = *byte;
                filled += 1;
                if filled == LINE {
                    self.line(ring, &line)?;
                    line = ERASED;
                    filled = 0;
                }
            }
        }
        if filled > 0 {
            self.line(ring, &line)?;
        }
        Ok(())
    }

    /// Appends a line of a record that is being copied as it is.
    pub(super) fn copy<F: NorFlash>(
        &mut self,
        ring: &mut Ring<F>,
        id: ItemId,
        entry: Entry,
        line: &[u8; LINE],
    ) -> Result<(), NorFlashErrorKind> {
        if self.directory.get(id).is_none() {
            self.enter(id, entry.public, entry.sealed);
        }
        self.line(ring, line)
    }

    /// Notes that an item's record begins here.
    fn enter(&mut self, id: ItemId, public: u16, sealed: u16) {
        self.directory.set(
            id,
            Entry {
                offset: Commit::LENGTH + self.body,
                public,
                sealed,
            },
        );
    }

    /// Programs the commit block and then the first boot tick, which is what commits: once it is complete, the commit block
    /// was complete before it, and all records before that.
    pub(super) fn finish<F: NorFlash>(
        &mut self,
        ring: &mut Ring<F>,
        sequence: u32,
        base: u32,
    ) -> Result<Snapshot, NorFlashErrorKind> {
        let mut snapshot = self.snapshot(sequence, base);
        self.prepare(ring, snapshot.pages(Ring::<F>::PAGE))?;
        if !self.sealed {
            self.sealed = true;
            let [first, second] = commit_block(ring, &snapshot, self.checks.clone());
            ring.program_line(self.start, 0, &first)?;
            ring.program_line(self.start, LINE as u32, &second)?;
        }
        let marked = mark(ring, &mut snapshot, &TICK);
        self.ticks_used = snapshot.ticks_used;
        marked?;
        snapshot.committed = true;
        Ok(snapshot)
    }

    /// The snapshot as far as it is written.
    fn snapshot(&self, sequence: u32, base: u32) -> Snapshot {
        let directory = self.directory.clone();
        Snapshot {
            start: self.start,
            sequence,
            body: self.body,
            base,
            ticks_used: self.ticks_used,
            committed: false,
            directory,
        }
    }

    /// The defect of that name: writes the commit block for a body of `body` bytes that is still to come.
    pub(super) fn commit_first<F: NorFlash>(
        &mut self,
        ring: &mut Ring<F>,
        planned: &Snapshot,
    ) -> Result<(), NorFlashErrorKind> {
        self.prepare(ring, 1)?;
        self.sealed = true;
        let [first, second] = commit_block(ring, planned, self.checks.clone());
        ring.program_line(self.start, 0, &first)?;
        ring.program_line(self.start, LINE as u32, &second)
    }

    /// Erases what was written, the commit block first.
    pub(super) fn undo<F: NorFlash>(
        &mut self,
        ring: &mut Ring<F>,
    ) -> Result<(), NorFlashErrorKind> {
        if self.sealed {
            void(ring, self.snapshot(0, 0));
        }
        (0..self.ready).try_for_each(|page| ring.erase_page(ring.page_after(self.start, page)))
    }
}

/// The two lines of the commit block of a snapshot whose body `checks` has seen.
pub(super) fn commit_block<F: NorFlash>(
    ring: &Ring<F>,
    snapshot: &Snapshot,
    checks: Checks,
) -> [[u8; LINE]; 2] {
    let fields = Commit {
        items: snapshot.directory.count(),
        sequence: snapshot.sequence,
        body: snapshot.body,
        base: snapshot.base,
        page: Ring::<F>::PAGE,
        area: ring.bytes(),
    }
    .encode();
    let Seal { crc, mac } = checks.seal(&fields);
    let mut first = ERASED;
    first[..Commit::FIELDS].copy_from_slice(&fields);
    first[Commit::FIELDS..].copy_from_slice(&crc);
    [first, mac]
}

/// Programs a mark, [`TICK`] or [`VOID`], into the next tick line: when this returns, it is complete and reads so. A line
/// that does not take it is passed over: power may have failed on it before, in a way that does not show.
pub(super) fn mark<F: NorFlash>(
    ring: &mut Ring<F>,
    snapshot: &mut Snapshot,
    mark: &[u8; LINE],
) -> Result<(), NorFlashErrorKind> {
    let mut result = Err(NorFlashErrorKind::OutOfBounds);
    while result.is_err() && snapshot.ticks_used < snapshot.ticks(Ring::<F>::PAGE) {
        result = ring.program_line(
            snapshot.start,
            snapshot.tick_offset(snapshot.ticks_used),
            mark,
        );
        snapshot.ticks_used += 1;
    }
    result
}

/// Voids a snapshot that is about to be erased and is not in force, though power may have failed on its first tick, which
/// may then read as complete at a later start. Were the erase cut off as well, both might read as if nothing had
/// happened.
pub(super) fn void<F: NorFlash>(ring: &mut Ring<F>, mut snapshot: Snapshot) {
    // This fails only where tick lines refuse to be programmed, because an erase was cut off before. Then it is void
    // already.
    let _ = mark(ring, &mut snapshot, &VOID);
}
