//! The flash area as a ring of erase pages, read and programmed in lines of 32 bytes.
//!
//! All access goes by whole lines: that satisfies every `READ_SIZE` and `WRITE_SIZE` up to 32, no line ever crosses the
//! end of a page or of the ring, and the format on flash does not depend on the part's word size.

use embedded_storage::nor_flash::{NorFlash, NorFlashError, NorFlashErrorKind};

/// The unit of reading and programming, in bytes.
pub(super) const LINE: usize = 32;

/// What an erased line reads as.
pub(super) const ERASED: [u8; LINE] = [0xff; LINE];

/// Fewest pages a ring may have: two halves, each of which can hold a snapshot and move on by a page.
pub(super) const MIN_PAGES: u32 = 4;

/// Most pages a ring may have, so that a page number plus a page count never overflows.
const MAX_PAGES: u32 = 1 << 24;

/// The flash area.
pub(super) struct Ring<F> {
    flash: F,
    pages: u32,
    #[cfg(test)]
    pub(super) defect: Option<Defect>,
}

/// Deliberate defects, which the power-cut test must catch. Only the unit tests can switch one on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Defect {
    /// The commit block is written before the records, and trusted.
    CommitFirst,
    /// The old snapshot is erased before the new one is committed.
    EraseFirst,
    /// A snapshot counts as committed with its commit block alone, though power may have failed while that was programmed,
    /// so that the next start may read it differently.
    CommitUnsettled,
    /// The boot count is given out before its tick is on flash.
    TickLate,
}

impl<F: NorFlash> Ring<F> {
    /// Bytes of a page.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "checked here, at compile time"
    )]
    pub(super) const PAGE: u32 = {
        assert!(
            F::WRITE_SIZE > 0 && LINE.is_multiple_of(F::WRITE_SIZE),
            "WRITE_SIZE must divide 32"
        );
        assert!(
            F::READ_SIZE > 0 && LINE.is_multiple_of(F::READ_SIZE),
            "READ_SIZE must divide 32"
        );
        assert!(
            F::ERASE_SIZE >= 256 && F::ERASE_SIZE.is_multiple_of(LINE),
            "ERASE_SIZE must be at least 256, in 32s"
        );
        assert!(
            F::ERASE_SIZE <= 1 << 24,
            "ERASE_SIZE must be at most 16 MiB"
        );
        F::ERASE_SIZE as u32
    };

    /// Lines of a page.
    #[allow(clippy::cast_possible_truncation, reason = "LINE is 32")]
    pub(super) const LINES: u32 = Self::PAGE / LINE as u32;

    /// Takes the area; a rest at its end that is no whole page stays unused. `pages()` is 0 if the area is too small.
    pub(super) fn new(flash: F) -> Self {
        let bytes = u32::try_from(flash.capacity()).unwrap_or(u32::MAX);
        let pages = (bytes / Self::PAGE).min(MAX_PAGES);
        Self {
            flash,
            pages: if pages < MIN_PAGES { 0 } else { pages },
            #[cfg(test)]
            defect: None,
        }
    }

    /// Whether a test asked for this defect.
    #[allow(clippy::unused_self, reason = "used in tests")]
    pub(super) fn has(&self, defect: Defect) -> bool {
        #[cfg(test)]
        let asked = self.defect;
        #[cfg(not(test))]
        let asked = None;
        asked == Some(defect)
    }

    /// Pages of the ring, 0 if the area is too small to be one.
    pub(super) const fn pages(&self) -> u32 {
        self.pages
    }

    /// Bytes of the ring.
    pub(super) const fn bytes(&self) -> u32 {
        self.pages * Self::PAGE
    }

    /// The flash itself.
    #[cfg(test)]
    pub(super) fn flash_mut(&mut self) -> &mut F {
        &mut self.flash
    }

    /// The flash.
    pub(super) const fn flash(&self) -> &F {
        &self.flash
    }

    /// Gives the flash back.
    pub(super) fn into_flash(self) -> F {
        self.flash
    }

    /// The number of the page that is `steps` pages after `page`.
    pub(super) const fn page_after(&self, page: u32, steps: u32) -> u32 {
        match (page + steps).checked_rem(self.pages) {
            Some(page) => page,
            None => 0,
        }
    }

    /// Where byte `offset` of a snapshot that starts with page `start` lies in the area.
    const fn address(&self, start: u32, offset: u32) -> u32 {
        self.page_after(start, offset / Self::PAGE) * Self::PAGE + offset % Self::PAGE
    }

    /// Reads the line at byte `offset`, a multiple of 32, counted from the start of page `start` around the ring.
    pub(super) fn read_line(
        &mut self,
        start: u32,
        offset: u32,
    ) -> Result<[u8; LINE], NorFlashErrorKind> {
        let mut line = ERASED;
        let address = self.address(start, offset);
        self.flash
            .read(address, &mut line)
            .map_err(|error| error.kind())?;
        Ok(line)
    }

    /// Programs the erased line at byte `offset`, counted as in [`Self::read_line`], and reads it back.
    pub(super) fn program_line(
        &mut self,
        start: u32,
        offset: u32,
        line: &[u8; LINE],
    ) -> Result<(), NorFlashErrorKind> {
        let address = self.address(start, offset);
        self.flash
            .write(address, line)
            .map_err(|error| error.kind())?;
        if self.read_line(start, offset)? == *line {
            Ok(())
        } else {
            Err(NorFlashErrorKind::Other)
        }
    }

    /// Erases a page, and looks whether it is: a worn part may say so and keep what was there.
    pub(super) fn erase_page(&mut self, page: u32) -> Result<(), NorFlashErrorKind> {
        let address = self.address(page, 0);
        self.flash
            .erase(address, address + Self::PAGE)
            .map_err(|error| error.kind())?;
        if self.is_blank(page) {
            Ok(())
        } else {
            Err(NorFlashErrorKind::Other)
        }
    }

    /// Whether every line of a page reads as erased. A line that cannot be read does not.
    pub(super) fn is_blank(&mut self, page: u32) -> bool {
        (0..Self::LINES).all(|line| matches!(self.read_line(page, line * LINE as u32), Ok(ERASED)))
    }
}
