//! A NOR flash with the common flash interface (JEDEC JESD68) and Intel's command set (number 0x0001): two x16 chips side by
//! side on a 32-bit bus, each with half of every word.
//!
//! Commands go to both chips at once, so each stands in both halves of a word, and both halves of a status must be well.
//! Commands and status bits are those of the Intel StrataFlash J3 (28F128J3, datasheet 290667, "Device Commands" and "Status
//! Register"), which QEMU models in `hw/block/pflash_cfi01.c`. The J3's blocks leave the factory unlocked; a locked one is an
//! error here.
//!
//! Between operations the chips are in array mode, where they read like memory. QEMU does not refuse to set bits that are
//! clear, and a real chip reports it only after the attempt: so the driver looks first.

use embedded_storage::nor_flash::{
    ErrorType, NorFlash, ReadNorFlash, check_erase, check_read, check_write,
};
use keyferry_board::flash::FlashError;

use crate::clock::Patience;

/// Length of a word, the unit of programming, in bytes: one half for each chip.
const WORD_SIZE: usize = 4;
/// Length of a sector, the unit of erasing, in bytes: a block of 128 KiB of each chip.
const SECTOR_SIZE: usize = 256 * 1024;

/// A command or a status of one chip, for both.
const fn both(half: u16) -> u32 {
    (half as u32) << 16 | half as u32
}

/// Command: the chips read like memory.
const READ_ARRAY: u32 = both(0xff);
/// Command: the chips read as the table that describes them.
const QUERY: u32 = both(0x98);
/// Command: forget the errors in the status.
const CLEAR_STATUS: u32 = both(0x50);
/// Command: the next write is a word to program.
const PROGRAM: u32 = both(0x40);
/// Command: erase a sector, if [`CONFIRM`] follows.
const ERASE: u32 = both(0x20);
/// Command: do it.
const CONFIRM: u32 = both(0xd0);

/// Status: not at work (SR.7).
const READY: u32 = both(1 << 7);
/// Status: erasing failed (SR.5), programming failed (SR.4), the voltage is too low (SR.3), the block is locked (SR.1).
const FAILED: u32 = both(1 << 5 | 1 << 4 | 1 << 3 | 1 << 1);

/// What the driver must find in the table (JESD68, "CFI query structure"): index of a 16-bit entry, and its low byte.
const EXPECTED: [(usize, u8); 9] = [
    (0x10, b'Q'),
    (0x11, b'R'),
    (0x12, b'Y'),
    // The command set.
    (0x13, 0x01),
    (0x14, 0x00),
    // All blocks are of one length ...
    (0x2c, 1),
    // ... which is a sector's half, in units of 256 bytes.
    (0x2f, (SECTOR_SIZE / 2 / 256) as u8),
    (0x30, ((SECTOR_SIZE / 2 / 256) >> 8) as u8),
    // Blocks of a chip, less one: more than the area needs, see `find`.
    (0x2e, 0),
];
/// Index of the chip's number of blocks, less one, low byte.
const BLOCKS: usize = 0x2d;
/// Index of the exponent of the time that programming a word typically takes, in microseconds.
const PROGRAM_TIME: usize = 0x1f;
/// Index of the exponent of the factor from there to the longest time.
const PROGRAM_FACTOR: usize = 0x23;
/// Index of the exponent of the time that erasing a block typically takes, in milliseconds.
const ERASE_TIME: usize = 0x21;
/// Index of the exponent of the factor from there to the longest time.
const ERASE_FACTOR: usize = 0x25;

/// The longest times that the chips say they take, in microseconds.
#[derive(Clone, Copy)]
struct Limits {
    program: u64,
    erase: u64,
}

/// The first `SECTORS` sectors of the chips at `BASE`.
pub struct CfiNor<const BASE: usize, const SECTORS: u32> {
    /// `None` where there are no such chips.
    limits: Option<Limits>,
}

impl<const BASE: usize, const SECTORS: u32> CfiNor<BASE, SECTORS> {
    /// Fails to compile for an area outside the board's two flash banks.
    const IS_FLASH: () = assert!(
        BASE >= 0x2000_0000
            && BASE + SECTORS as usize * SECTOR_SIZE <= 0x2400_0000
            && BASE.is_multiple_of(SECTOR_SIZE),
        "the area lies in the flash region"
    );

    /// Asks the chips what they are. Where they are others than expected, every operation gives [`FlashError::Failed`].
    ///
    /// Two values would be two hands on one store, so the platform asks for one only.
    pub fn find() -> Self {
        let () = Self::IS_FLASH;
        // Whatever mode a reset of the processor alone has left them in.
        command::<BASE>(0, READ_ARRAY);
        command::<BASE>(0, QUERY);
        let known = EXPECTED
            .iter()
            .all(|(index, value)| entry::<BASE>(*index) == Some(*value));
        let blocks = entry::<BASE>(BLOCKS);
        let limit = |time, factor| {
            let exponent = u32::from(entry::<BASE>(time)?) + u32::from(entry::<BASE>(factor)?);
            1_u64.checked_shl(exponent)
        };
        let limits = (|| {
            Some(Limits {
                program: limit(PROGRAM_TIME, PROGRAM_FACTOR)?,
                erase: limit(ERASE_TIME, ERASE_FACTOR)?.checked_mul(1000)?,
            })
        })();
        command::<BASE>(0, READ_ARRAY);
        let large_enough = blocks.is_some_and(|last| u32::from(last) >= SECTORS - 1);
        if !known || !large_enough {
            defmt::error!("no flash that this driver knows");
        }
        Self {
            limits: limits.filter(|_| known && large_enough),
        }
    }

    /// Waits until both chips have done their work, and puts them back into array mode.
    fn finish(&self, offset: usize, micros: u64) -> Result<(), FlashError> {
        let patience = Patience::micros(micros);
        let done = loop {
            // Looked at before the clock is: a status that comes late is still one.
            let over = patience.is_over();
            let status = word::<BASE>(offset);
            if status & READY == READY {
                break if status & FAILED == 0 {
                    Ok(())
                } else {
                    Err(FlashError::Failed)
                };
            }
            if over {
                break Err(FlashError::Failed);
            }
        };
        if done.is_err() {
            command::<BASE>(offset, CLEAR_STATUS);
        }
        done
    }
}

/// Reads an aligned word of the chips at `BASE`: of what they hold in array mode, else their status or table.
fn word<const BASE: usize>(offset: usize) -> u32 {
    // SAFETY: an aligned word of the flash region (checked by `IS_FLASH` and by the callers' bounds), which the linker
    // script leaves to this driver alone.
    unsafe { ((BASE + offset) as *const u32).read_volatile() }
}

/// Writes a command or a word to program to the chips at `BASE`.
fn command<const BASE: usize>(offset: usize, value: u32) {
    // SAFETY: as in `word`. Volatile: the chips must get every command, in program order.
    unsafe { ((BASE + offset) as *mut u32).write_volatile(value) }
}

/// An entry of the table, if both chips say the same.
fn entry<const BASE: usize>(index: usize) -> Option<u8> {
    let word = word::<BASE>(index * WORD_SIZE);
    let low = word as u8;
    (word == both(low.into())).then_some(low)
}

impl<const BASE: usize, const SECTORS: u32> ErrorType for CfiNor<BASE, SECTORS> {
    type Error = FlashError;
}

impl<const BASE: usize, const SECTORS: u32> ReadNorFlash for CfiNor<BASE, SECTORS> {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), FlashError> {
        check_read(self, offset, bytes.len())?;
        self.limits.ok_or(FlashError::Failed)?;
        let mut offset = offset as usize;
        let mut rest = bytes;
        while !rest.is_empty() {
            let skipped = offset % WORD_SIZE;
            let word = word::<BASE>(offset - skipped).to_le_bytes();
            let count = rest.len().min(WORD_SIZE - skipped);
            let (now, later) = rest.split_at_mut(count);
            for (byte, value) in now.iter_mut().zip(word.iter().skip(skipped)) {
                *byte = *value;
            }
            rest = later;
            offset += count;
        }
        Ok(())
    }

    fn capacity(&self) -> usize {
        SECTORS as usize * SECTOR_SIZE
    }
}

impl<const BASE: usize, const SECTORS: u32> NorFlash for CfiNor<BASE, SECTORS> {
    const WRITE_SIZE: usize = WORD_SIZE;
    const ERASE_SIZE: usize = SECTOR_SIZE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), FlashError> {
        check_erase(self, from, to)?;
        let limits = self.limits.ok_or(FlashError::Failed)?;
        for sector in (from as usize..to as usize).step_by(SECTOR_SIZE) {
            command::<BASE>(sector, ERASE);
            command::<BASE>(sector, CONFIRM);
            let done = self.finish(sector, limits.erase);
            command::<BASE>(sector, READ_ARRAY);
            done?;
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashError> {
        check_write(self, offset, bytes.len())?;
        let limits = self.limits.ok_or(FlashError::Failed)?;
        let start = offset as usize;
        let (words, _) = bytes.as_chunks::<WORD_SIZE>();
        // Looked at as a whole, for reading is in another mode than programming.
        let fits = words
            .iter()
            .enumerate()
            .take_while(|(index, wanted)| {
                u32::from_le_bytes(**wanted) & !word::<BASE>(start + index * WORD_SIZE) == 0
            })
            .count();
        let mut done = Ok(());
        for (index, wanted) in words.iter().enumerate().take(fits) {
            let place = start + index * WORD_SIZE;
            command::<BASE>(place, PROGRAM);
            command::<BASE>(place, u32::from_le_bytes(*wanted));
            done = self.finish(place, limits.program);
            if done.is_err() {
                break;
            }
        }
        command::<BASE>(start, READ_ARRAY);
        done?;
        if fits < words.len() {
            return Err(FlashError::NotErased);
        }
        Ok(())
    }
}
