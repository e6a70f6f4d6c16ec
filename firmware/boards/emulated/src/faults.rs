//! A flash that stops: for the tests that cut a device's power in the middle of an operation (feature `flash-faults`, in images of its
//! own and never in one that is shipped).
//!
//! The wrapper counts the operations since the start, a word programmed or a page erased, writes each down in a journal before it
//! begins, and at the one that the command line names does all, a part or nothing of it. Then it halts: the processor does nothing
//! any more, and whoever reads the journal kills the emulator.
//!
//! | word | meaning |
//! | --- | --- |
//! | `flash-journal=<path>` | the file that gets the journal |
//! | `flash-stop=<hex>` | the operation to stop at, from 0 |
//! | `flash-cut=before`, `torn`, `after` | what becomes of it |
//! | `flash-seed=<hex>` | which bits of a torn word, which part of a torn page |
//!
//! A torn word has a part of those bits cleared that were to be. A torn page is in one of the three states that a NOR part goes
//! through: it is being programmed to zeros before the erase (Intel 28F128J3, datasheet 290667, "Block Erase Command"), a part of
//! it is erased, or all of it is, so weakly that some words do not read so.

use embedded_storage::nor_flash::{ErrorType, NorFlash, ReadNorFlash, check_erase, check_write};

/// Bytes at the beginning of a page of which a torn erase can leave something. A snapshot begins with a page.
const KEPT: usize = 4096;
/// Longest unit of programming in bytes.
const LONGEST_WORD: usize = 32;
/// A torn erase leaves words weak among these first ones.
const WEAK: u32 = 64;

/// What becomes of the operation that the flash stops at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It does not begin.
    Before,
    /// A part of it is done.
    Torn,
    /// It is done.
    After,
}

/// Where to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The operation, counted from 0 since the start.
    pub at: u32,
    /// What becomes of it.
    pub cut: Cut,
    /// Chooses among the forms of a torn one.
    pub seed: u32,
}

/// What the journal holds: each operation as its kind (1 byte), address and length in bytes (4 bytes each, little-endian).
pub const ENTRY_LENGTH: usize = 9;
/// A word is programmed.
pub const PROGRAM: u8 = b'P';
/// A page is erased.
pub const ERASE: u8 = b'E';
/// The device has halted, in the operation before.
pub const HALT: u8 = b'H';

/// Where the operations are written down, and where the device ends.
pub trait Journal {
    /// Writes an entry down.
    fn note(&mut self, entry: [u8; ENTRY_LENGTH]);

    /// Halts. In a device this does not return.
    fn halt(&mut self);
}

/// A flash that counts, and stops.
pub struct FaultyFlash<F, J> {
    flash: F,
    journal: J,
    stop: Option<Stop>,
    operations: u32,
}

impl<F: NorFlash, J: Journal> FaultyFlash<F, J> {
    /// Puts the flash behind the counter.
    pub const fn new(flash: F, journal: J, stop: Option<Stop>) -> Self {
        Self {
            flash,
            journal,
            stop,
            operations: 0,
        }
    }

    /// Notes an operation, and says what becomes of it if it is the one to stop at.
    fn begin(&mut self, kind: u8, address: u32, length: usize) -> Option<Stop> {
        self.journal.note(entry(kind, address, length));
        let number = self.operations;
        self.operations = self.operations.saturating_add(1);
        self.stop.filter(|stop| stop.at == number)
    }

    fn halt(&mut self) {
        self.journal.note(entry(HALT, self.operations, 0));
        self.journal.halt();
    }

    fn program_word(&mut self, address: u32, word: &[u8]) -> Result<(), F::Error> {
        match self.begin(PROGRAM, address, word.len()) {
            None => self.flash.write(address, word),
            Some(stop) => {
                let done = match stop.cut {
                    Cut::Before => Ok(()),
                    Cut::Torn => {
                        let mut torn = [0xff; LONGEST_WORD];
                        let torn = &mut torn[..word.len()];
                        self.flash.read(address, torn)?;
                        let mut noise = Noise::new(stop.seed, address);
                        for (byte, wanted) in torn.iter_mut().zip(word) {
                            // Of the bits to clear, some.
                            *byte &= wanted | noise.byte();
                        }
                        self.flash.write(address, torn)
                    }
                    Cut::After => self.flash.write(address, word),
                };
                self.halt();
                done
            }
        }
    }

    fn erase_page(&mut self, page: u32) -> Result<(), F::Error> {
        match self.begin(ERASE, page, F::ERASE_SIZE) {
            None => self.flash.erase(page, page + F::ERASE_SIZE as u32),
            Some(stop) => {
                let done = match stop.cut {
                    Cut::Before => Ok(()),
                    Cut::Torn => self.tear_page(page, stop.seed),
                    Cut::After => self.flash.erase(page, page + F::ERASE_SIZE as u32),
                };
                self.halt();
                done
            }
        }
    }

    /// Erases a page by a part.
    fn tear_page(&mut self, page: u32, seed: u32) -> Result<(), F::Error> {
        let mut noise = Noise::new(seed, page);
        let length = F::ERASE_SIZE.min(KEPT);
        // Whole words.
        let part = noise.below(length as u32) as usize / F::WRITE_SIZE * F::WRITE_SIZE;
        let word = &[0; LONGEST_WORD][..F::WRITE_SIZE];
        match noise.byte() % 3 {
            0 => {
                for at in (0..part).step_by(F::WRITE_SIZE) {
                    self.flash.write(page + at as u32, word)?;
                }
                Ok(())
            }
            1 => {
                let mut kept = [0xff; KEPT];
                self.flash.read(page, &mut kept[..length])?;
                self.flash.erase(page, page + F::ERASE_SIZE as u32)?;
                self.flash.write(page + part as u32, &kept[part..length])
            }
            2.. => {
                self.flash.erase(page, page + F::ERASE_SIZE as u32)?;
                for at in (0..WEAK).map(|number| number * F::WRITE_SIZE as u32) {
                    let mut weak = [0xff; LONGEST_WORD];
                    let weak = &mut weak[..F::WRITE_SIZE];
                    if noise.byte() < 64 {
                        weak.iter_mut().for_each(|byte| *byte = noise.byte());
                        self.flash.write(page + at, weak)?;
                    }
                }
                Ok(())
            }
        }
    }
}

fn entry(kind: u8, address: u32, length: usize) -> [u8; ENTRY_LENGTH] {
    let mut entry = [kind; ENTRY_LENGTH];
    entry[1..5].copy_from_slice(&address.to_le_bytes());
    entry[5..9].copy_from_slice(&(length as u32).to_le_bytes());
    entry
}

/// Bytes that a seed determines: xorshift with 32 bits (Marsaglia 2003).
struct Noise(u32);

impl Noise {
    const fn new(seed: u32, place: u32) -> Self {
        // Never 0, which would stay so.
        Self(seed.wrapping_mul(0x9e37_79b9) ^ place | 1)
    }

    const fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    const fn byte(&mut self) -> u8 {
        (self.next() >> 16) as u8
    }

    const fn below(&mut self, limit: u32) -> u32 {
        (self.next() >> 8) % limit
    }
}

impl<F: NorFlash, J> ErrorType for FaultyFlash<F, J> {
    type Error = F::Error;
}

impl<F: NorFlash, J> ReadNorFlash for FaultyFlash<F, J> {
    const READ_SIZE: usize = F::READ_SIZE;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), F::Error> {
        self.flash.read(offset, bytes)
    }

    fn capacity(&self) -> usize {
        self.flash.capacity()
    }
}

impl<F: NorFlash, J: Journal> NorFlash for FaultyFlash<F, J> {
    const WRITE_SIZE: usize = F::WRITE_SIZE;
    const ERASE_SIZE: usize = F::ERASE_SIZE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), F::Error> {
        if check_erase(self, from, to).is_err() {
            // The flash says what it is.
            return self.flash.erase(from, to);
        }
        (from..to)
            .step_by(F::ERASE_SIZE)
            .try_for_each(|page| self.erase_page(page))
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), F::Error> {
        if check_write(self, offset, bytes.len()).is_err() {
            return self.flash.write(offset, bytes);
        }
        (offset..)
            .step_by(F::WRITE_SIZE)
            .zip(bytes.chunks_exact(F::WRITE_SIZE))
            .try_for_each(|(address, word)| self.program_word(address, word))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;
    use crate::nor::{Memory, MemoryFailed, NorModel, PAGE_SIZE, WORD_SIZE};

    struct Bytes([u8; 2 * PAGE_SIZE]);

    impl Memory for Bytes {
        fn read(&mut self, offset: usize, bytes: &mut [u8]) -> Result<(), MemoryFailed> {
            bytes.copy_from_slice(&self.0[offset..][..bytes.len()]);
            Ok(())
        }

        fn write(&mut self, offset: usize, word: [u8; WORD_SIZE]) -> Result<(), MemoryFailed> {
            self.0[offset..][..WORD_SIZE].copy_from_slice(&word);
            Ok(())
        }
    }

    /// What a test sees of the journal: kinds and addresses, and how often the device halted.
    #[derive(Default)]
    struct Seen(Vec<(u8, u32)>, usize);

    impl Journal for Seen {
        fn note(&mut self, entry: [u8; ENTRY_LENGTH]) {
            let address = u32::from_le_bytes([entry[1], entry[2], entry[3], entry[4]]);
            self.0.push((entry[0], address));
        }

        fn halt(&mut self) {
            self.1 += 1;
        }
    }

    const OLD: [u8; 8] = [0xf0; 8];
    const NEW: [u8; 8] = [0x30; 8];

    /// Programs two words over two, and erases both pages; gives the flash.
    fn run(stop: Option<Stop>) -> FaultyFlash<NorModel<Bytes, 2>, Seen> {
        let mut flash = NorModel::over(Bytes([0xff; 2 * PAGE_SIZE]));
        flash.write(8, &OLD).unwrap();
        let mut flash = FaultyFlash::new(flash, Seen::default(), stop);
        flash.write(8, &NEW).unwrap();
        flash
    }

    fn word(flash: &mut FaultyFlash<NorModel<Bytes, 2>, Seen>, address: u32) -> [u8; 4] {
        let mut bytes = [0; 4];
        flash.read(address, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn every_word_and_page_is_an_operation() {
        let mut flash = run(None);
        flash.erase(0, 2 * 4096).unwrap();
        let seen = [(PROGRAM, 8), (PROGRAM, 12), (ERASE, 0), (ERASE, 4096)];
        assert_eq!(flash.journal.0, seen);
        assert_eq!(flash.journal.1, 0);
        assert_eq!(word(&mut flash, 8), [0xff; 4]);
    }

    #[test]
    fn a_word_stops_before_within_and_after() {
        let stopped = |cut, seed| {
            let mut flash = run(Some(Stop { at: 1, cut, seed }));
            assert_eq!(flash.journal.1, 1);
            assert_eq!(flash.journal.0[1..3], [(PROGRAM, 12), (HALT, 2)]);
            assert_eq!(word(&mut flash, 8), [0x30; 4]);
            word(&mut flash, 12)
        };
        assert_eq!(stopped(Cut::Before, 0), [0xf0; 4]);
        assert_eq!(stopped(Cut::After, 0), [0x30; 4]);
        let torn: Vec<_> = (0..64).map(|seed| stopped(Cut::Torn, seed)).collect();
        // Bits that were to stay have; of those to clear some are cleared and some not.
        assert!(torn.iter().flatten().all(|byte| byte & 0x3f == 0x30));
        assert!(
            torn.iter()
                .any(|word| *word != [0xf0; 4] && *word != [0x30; 4])
        );
    }

    #[test]
    fn a_page_is_torn_in_each_of_three_ways() {
        let mut ways = [0; 3];
        for seed in 0..200 {
            let stop = Stop {
                at: 0,
                cut: Cut::Torn,
                seed,
            };
            let mut flash = run(None).flash;
            flash.write(4000, &[0x55; 8]).unwrap();
            let mut flash = FaultyFlash::new(flash, Seen::default(), Some(stop));
            flash.erase(0, 4096).unwrap();
            assert_eq!(flash.journal.1, 1);
            let (first, last) = (word(&mut flash, 0), word(&mut flash, 4000));
            let way = match (first, last) {
                ([0, 0, 0, 0], [0x55, ..] | [0, ..]) => 0,
                (_, [0x55, ..]) => 1,
                (_, [0xff, ..]) => 2,
                (_, other) => panic!("{other:?}"),
            };
            ways[way] += 1;
            assert_eq!(word(&mut flash, 4096), [0xff; 4]);
        }
        assert!(ways.iter().all(|count| *count > 20), "{ways:?}");
    }
}
