//! A NOR flash in memory, for tests: as strict as the part, and its power can be cut at any operation. Needs std.
//!
//! It refuses misaligned and out-of-range accesses and programming a word twice between erases. An operation is the
//! programming of one word or the erasing of one page. A word or page on which power failed is *torn*: until it is erased it
//! cannot be programmed, and may read differently after every power-on.

extern crate std;

use core::fmt;
use std::{vec, vec::Vec};

use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash,
};

/// What becomes of the operation on which power fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It has not begun.
    Before,
    /// Its first half is done: half a word (of one byte: four bits), half a page. It stays so.
    Half,
    /// It is done so weakly that every power-on may read it as begun, as complete, or as anything between; a page even as
    /// anything at all.
    Unstable,
    /// It is complete.
    After,
}

impl Cut {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Before, Self::Half, Self::Unstable, Self::After];
}

/// How a part at the end of its life goes wrong, at every operation from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wear {
    /// It reports that programming failed, having done half of a word.
    ProgramFails,
    /// It reports that erasing failed, having done half of a page.
    EraseFails,
    /// It reports nothing, and in each word one bit that was to be cleared stays.
    StuckOnes,
    /// It reports nothing, and in each erased page some bits stay cleared.
    StuckZeros,
}

impl Wear {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::ProgramFails,
        Self::EraseFails,
        Self::StuckOnes,
        Self::StuckZeros,
    ];
}

/// Why the fake refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NorFakeError {
    /// Not aligned, or outside of the area.
    Misuse(NorFlashErrorKind),
    /// A word was to be programmed twice.
    ProgrammedTwice,
    /// Power is off.
    Off,
    /// The operation failed because the test wanted it so.
    Injected,
    /// A torn word was read, and error correction is on.
    Uncorrectable,
}

impl NorFlashError for NorFakeError {
    fn kind(&self) -> NorFlashErrorKind {
        match self {
            Self::Misuse(kind) => *kind,
            Self::ProgrammedTwice | Self::Off | Self::Injected | Self::Uncorrectable => {
                NorFlashErrorKind::Other
            }
        }
    }
}

impl fmt::Display for NorFakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Whether power failed on a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Torn {
    /// No, or it was erased since.
    No,
    /// Yes, and it reads the same at every power-on.
    Stable,
    /// While it was programmed; it reads differently.
    Program,
    /// While its page was erased; it reads differently.
    Erase,
}

/// A NOR flash with words of `WORD` bytes and pages of `PAGE` bytes.
#[derive(Clone)]
pub struct NorFake<const WORD: usize, const PAGE: usize> {
    bytes: Vec<u8>,
    /// Words that may not be programmed before the next erase.
    programmed: Vec<bool>,
    /// Per word, whether power failed on it.
    torn: Vec<Torn>,
    /// What torn words that read differently held before.
    before: Vec<u8>,
    /// What they were to hold.
    after: Vec<u8>,
    random: u64,
    off: bool,
    cut: Option<(u64, Cut)>,
    failing: Option<u64>,
    wear: Option<(u64, Wear)>,
    operations: u64,
    reads: u64,
    unreadable: core::ops::Range<u64>,
    read_bytes: u64,
    programs: u64,
    erases: Vec<u32>,
    misuses: u64,
    error_correction: bool,
}

impl<const WORD: usize, const PAGE: usize> NorFake<WORD, PAGE> {
    /// An erased flash of `pages` pages.
    #[must_use]
    pub fn new(pages: usize) -> Self {
        let words = pages * PAGE / WORD;
        Self {
            bytes: vec![0xff; pages * PAGE],
            programmed: vec![false; words],
            torn: vec![Torn::No; words],
            before: vec![0xff; pages * PAGE],
            after: vec![0xff; pages * PAGE],
            random: 0x9e37_79b9_7f4a_7c15,
            off: false,
            cut: None,
            failing: None,
            wear: None,
            operations: 0,
            reads: 0,
            unreadable: 0..0,
            read_bytes: 0,
            programs: 0,
            erases: vec![0; pages],
            misuses: 0,
            error_correction: false,
        }
    }

    /// Makes reading a torn word an error, as parts with error correction do.
    pub fn set_error_correction(&mut self, on: bool) {
        self.error_correction = on;
    }

    /// What the flash reads as.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Sets a byte, against all rules.
    pub fn corrupt(&mut self, address: usize, byte: u8) {
        self.bytes[address] = byte;
    }

    /// Operations since power-on.
    #[must_use]
    pub const fn operations(&self) -> u64 {
        self.operations
    }

    /// Words programmed in all.
    #[must_use]
    pub const fn programs(&self) -> u64 {
        self.programs
    }

    /// How often each page was erased.
    #[must_use]
    pub fn erases(&self) -> &[u32] {
        &self.erases
    }

    /// Accesses that break the part's rules in a way the caller could know of: misaligned, out of range, or programming
    /// a word again that was not torn.
    #[must_use]
    pub const fn misuses(&self) -> u64 {
        self.misuses
    }

    /// Cuts power at the operation after `operations` more ones.
    pub const fn cut_after(&mut self, operations: u64, cut: Cut) {
        self.cut = Some((self.operations + operations, cut));
    }

    /// Lets the operation after `operations` more ones fail, with power staying on.
    pub const fn fail_after(&mut self, operations: u64) {
        self.failing = Some(self.operations + operations);
    }

    /// Lets `count` reading accesses fail, after `accesses` more ones.
    pub const fn fail_reads(&mut self, accesses: u64, count: u64) {
        let first = self.reads + accesses;
        self.unreadable = first..first.saturating_add(count);
    }

    /// Wears the part out: from the operation after `operations` more ones on, over all power-ons, it goes wrong so.
    pub const fn wear_out_after(&mut self, operations: u64, wear: Wear) {
        self.wear = Some((self.operations + operations, wear));
    }

    /// Whether the part was worn out and has been asked for an operation since.
    #[must_use]
    pub fn is_worn(&self) -> bool {
        self.wear.is_some_and(|(at, _)| self.operations > at)
    }

    /// Reading accesses in all, and the bytes read in them.
    #[must_use]
    pub const fn reads(&self) -> (u64, u64) {
        (self.reads, self.read_bytes)
    }

    /// How the operation that has just begun goes wrong, if it does.
    fn worn(&self) -> Option<Wear> {
        self.wear
            .filter(|(at, _)| self.operations > *at)
            .map(|(_, wear)| wear)
    }

    /// Whether the operation that was to fail has been reached.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failing.is_some_and(|at| self.operations > at)
    }

    /// Whether power is off.
    #[must_use]
    pub const fn is_off(&self) -> bool {
        self.off
    }

    /// Switches power on: torn words that read differently do so. `seed` chooses them.
    pub fn power_on(&mut self, seed: u64) {
        self.off = false;
        self.cut = None;
        self.failing = None;
        if let Some((at, _)) = &mut self.wear {
            *at = at.saturating_sub(self.operations);
        }
        self.operations = 0;
        self.random ^= seed.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1;
        let choices = self.random;
        let choice =
            |number: usize| (choices ^ number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        for page in 0..self.erases.len() {
            for at in page * PAGE..(page + 1) * PAGE {
                let (read_as, between) = match self.torn[at / WORD] {
                    Torn::No | Torn::Stable => continue,
                    Torn::Program => (
                        choice(at / WORD),
                        self.after[at] | (self.before[at] & self.noise()),
                    ),
                    Torn::Erase => (choice(page), self.noise()),
                };
                self.bytes[at] = match read_as % 3 {
                    0 => self.before[at],
                    1 => self.after[at],
                    2.. => between,
                };
            }
        }
    }

    /// The next byte of a xorshift generator.
    #[allow(clippy::cast_possible_truncation, reason = "a byte is wanted")]
    fn noise(&mut self) -> u8 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 32) as u8
    }

    fn misuse<T>(&mut self, kind: NorFlashErrorKind) -> Result<T, NorFakeError> {
        self.misuses += 1;
        Err(NorFakeError::Misuse(kind))
    }

    fn check(&mut self, from: u32, length: usize, unit: usize) -> Result<usize, NorFakeError> {
        let from = from as usize;
        if from > self.bytes.len() || length > self.bytes.len() - from {
            return self.misuse(NorFlashErrorKind::OutOfBounds);
        }
        if !from.is_multiple_of(unit) || !length.is_multiple_of(unit) {
            return self.misuse(NorFlashErrorKind::NotAligned);
        }
        Ok(from)
    }

    /// Counts an operation and says what becomes of it.
    fn operate(&mut self) -> Result<Cut, NorFakeError> {
        if self.off {
            return Err(NorFakeError::Off);
        }
        let number = self.operations;
        self.operations += 1;
        match self.cut {
            Some((at, cut)) if at == number => {
                self.off = true;
                Ok(cut)
            }
            Some(_) | None if self.failing == Some(number) => Ok(Cut::Half),
            Some(_) | None => Ok(Cut::After),
        }
    }

    /// What to report of an operation that went as `cut` says.
    fn report(&self, cut: Cut) -> Result<(), NorFakeError> {
        match cut {
            // Power failed right after it: the caller never hears of it.
            Cut::After if !self.off => Ok(()),
            Cut::Before | Cut::Half | Cut::Unstable | Cut::After if self.off => {
                Err(NorFakeError::Off)
            }
            Cut::Before | Cut::Half | Cut::Unstable | Cut::After => Err(NorFakeError::Injected),
        }
    }

    fn program_word(&mut self, at: usize, word: &[u8]) -> Result<(), NorFakeError> {
        if self.off {
            return Err(NorFakeError::Off);
        }
        if self.programmed[at / WORD] {
            self.misuses += u64::from(self.torn[at / WORD] == Torn::No);
            return Err(NorFakeError::ProgrammedTwice);
        }
        let mut cut = self.operate()?;
        let stuck = match self.worn() {
            Some(Wear::ProgramFails) => {
                cut = Cut::Half;
                0
            }
            Some(Wear::StuckOnes) => 1,
            Some(Wear::EraseFails | Wear::StuckZeros) | None => 0,
        };
        self.programs += 1;
        self.programmed[at / WORD] = cut != Cut::Before;
        self.torn[at / WORD] = match cut {
            Cut::Before | Cut::After => Torn::No,
            Cut::Half => Torn::Stable,
            Cut::Unstable => Torn::Program,
        };
        for (index, byte) in word.iter().enumerate() {
            let stays = if index == 0 { stuck } else { 0 };
            let complete = self.bytes[at + index] & (*byte | stays);
            match cut {
                Cut::Before => {}
                Cut::Half if WORD == 1 => self.bytes[at] &= *byte | 0x0f,
                Cut::Half if index >= WORD / 2 => {}
                Cut::Half | Cut::After => self.bytes[at + index] = complete,
                Cut::Unstable => {
                    self.before[at + index] = self.bytes[at + index];
                    self.after[at + index] = complete;
                }
            }
        }
        self.report(cut)
    }

    fn erase_page(&mut self, page: usize) -> Result<(), NorFakeError> {
        let mut cut = self.operate()?;
        let worn = self.worn();
        if worn == Some(Wear::EraseFails) {
            cut = Cut::Half;
        }
        let range = page * PAGE..(page + 1) * PAGE;
        let words = page * PAGE / WORD..(page + 1) * PAGE / WORD;
        match cut {
            Cut::Before => {}
            Cut::Half => {
                self.programmed[words.clone()].fill(true);
                self.torn[words].fill(Torn::Stable);
                self.bytes[page * PAGE..page * PAGE + PAGE / 2].fill(0xff);
            }
            Cut::Unstable => {
                self.programmed[words.clone()].fill(true);
                self.torn[words].fill(Torn::Erase);
                self.before[range.clone()].copy_from_slice(&self.bytes[range.clone()]);
                self.after[range].fill(0xff);
            }
            Cut::After => {
                self.programmed[words.clone()].fill(false);
                self.torn[words].fill(Torn::No);
                self.bytes[range].fill(0xff);
                if worn == Some(Wear::StuckZeros) {
                    self.bytes[page * PAGE + PAGE / 2 + 5] = 0xfb;
                }
                self.erases[page] += 1;
            }
        }
        self.report(cut)
    }
}

impl<const WORD: usize, const PAGE: usize> ErrorType for NorFake<WORD, PAGE> {
    type Error = NorFakeError;
}

impl<const WORD: usize, const PAGE: usize> ReadNorFlash for NorFake<WORD, PAGE> {
    const READ_SIZE: usize = WORD;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
        if self.off {
            return Err(NorFakeError::Off);
        }
        let from = self.check(offset, bytes.len(), WORD)?;
        let unreadable = self.unreadable.contains(&self.reads);
        self.reads += 1;
        if unreadable {
            return Err(NorFakeError::Injected);
        }
        self.read_bytes += bytes.len() as u64;
        let words = from / WORD..(from + bytes.len()) / WORD;
        if self.error_correction && self.torn[words].iter().any(|torn| *torn != Torn::No) {
            return Err(NorFakeError::Uncorrectable);
        }
        bytes.copy_from_slice(&self.bytes[from..from + bytes.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.bytes.len()
    }
}

impl<const WORD: usize, const PAGE: usize> NorFlash for NorFake<WORD, PAGE> {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = PAGE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Self::Error> {
        let from = self.check(from, to.saturating_sub(from) as usize, PAGE)?;
        (from / PAGE..to as usize / PAGE).try_for_each(|page| self.erase_page(page))
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Self::Error> {
        let from = self.check(offset, bytes.len(), WORD)?;
        bytes
            .chunks(WORD)
            .enumerate()
            .try_for_each(|(index, word)| self.program_word(from + index * WORD, word))
    }
}
