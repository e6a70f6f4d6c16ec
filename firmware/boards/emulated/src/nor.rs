//! A NOR flash over memory that has not its rules, so that they are made here: an erase sets a page to ones, programming only clears
//! bits, and an attempt to set one is an error, as a real part's verify would report it.

use embedded_storage::nor_flash::{
    ErrorType, NorFlash, ReadNorFlash, check_erase, check_read, check_write,
};
use keyferry_board::flash::FlashError;

/// Length of an erase page in bytes.
pub const PAGE_SIZE: usize = 4096;
/// Length of a word, the unit of programming, in bytes.
pub const WORD_SIZE: usize = 4;

/// Memory that keeps what is in it when the device loses its power. Offsets are those of the flash, and within its length.
pub trait Memory {
    /// Reads, in any alignment.
    ///
    /// # Errors
    /// [`MemoryFailed`].
    fn read(&mut self, offset: usize, bytes: &mut [u8]) -> Result<(), MemoryFailed>;

    /// Writes one word, which is aligned, as a whole. What was written before is there first.
    ///
    /// # Errors
    /// [`MemoryFailed`].
    fn write(&mut self, offset: usize, word: [u8; WORD_SIZE]) -> Result<(), MemoryFailed>;
}

/// The memory could not be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryFailed;

impl From<MemoryFailed> for FlashError {
    fn from(_: MemoryFailed) -> Self {
        Self::Failed
    }
}

/// A flash of `PAGES` pages over a memory of that length.
pub struct NorModel<M, const PAGES: usize>(M);

impl<M: Memory, const PAGES: usize> NorModel<M, PAGES> {
    /// Two values over one memory would be two hands on one store, so a platform gives out one only.
    pub const fn over(memory: M) -> Self {
        Self(memory)
    }
}

impl<M: Memory, const PAGES: usize> ErrorType for NorModel<M, PAGES> {
    type Error = FlashError;
}

impl<M: Memory, const PAGES: usize> ReadNorFlash for NorModel<M, PAGES> {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), FlashError> {
        check_read(self, offset, bytes.len())?;
        Ok(self.0.read(offset as usize, bytes)?)
    }

    fn capacity(&self) -> usize {
        PAGES * PAGE_SIZE
    }
}

impl<M: Memory, const PAGES: usize> NorFlash for NorModel<M, PAGES> {
    const WRITE_SIZE: usize = WORD_SIZE;
    const ERASE_SIZE: usize = PAGE_SIZE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), FlashError> {
        check_erase(self, from, to)?;
        for offset in (from as usize..to as usize).step_by(WORD_SIZE) {
            self.0.write(offset, [0xff; WORD_SIZE])?;
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashError> {
        check_write(self, offset, bytes.len())?;
        let (words, _) = bytes.as_chunks::<WORD_SIZE>();
        for (offset, wanted) in (offset as usize..).step_by(WORD_SIZE).zip(words) {
            let mut present = [0; WORD_SIZE];
            self.0.read(offset, &mut present)?;
            if wanted.iter().zip(present).any(|(new, old)| new & !old != 0) {
                return Err(FlashError::NotErased);
            }
            self.0.write(offset, *wanted)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two pages of memory, of which the second may fail.
    struct Bytes {
        bytes: [u8; 2 * PAGE_SIZE],
        failing: bool,
    }

    impl Memory for Bytes {
        fn read(&mut self, offset: usize, bytes: &mut [u8]) -> Result<(), MemoryFailed> {
            bytes.copy_from_slice(&self.bytes[offset..][..bytes.len()]);
            Ok(())
        }

        fn write(&mut self, offset: usize, word: [u8; WORD_SIZE]) -> Result<(), MemoryFailed> {
            if self.failing && offset >= PAGE_SIZE {
                return Err(MemoryFailed);
            }
            self.bytes[offset..][..WORD_SIZE].copy_from_slice(&word);
            Ok(())
        }
    }

    fn flash(failing: bool) -> NorModel<Bytes, 2> {
        NorModel::over(Bytes {
            bytes: [0; 2 * PAGE_SIZE],
            failing,
        })
    }

    fn read(flash: &mut NorModel<Bytes, 2>, offset: u32) -> [u8; 8] {
        let mut bytes = [0; 8];
        flash.read(offset, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn programming_only_clears_bits_and_an_erase_sets_them() {
        let mut flash = flash(false);
        assert_eq!(flash.write(0, &[1, 0, 0, 0]), Err(FlashError::NotErased));
        flash.erase(0, 4096).unwrap();
        assert_eq!(read(&mut flash, 4092), [255, 255, 255, 255, 0, 0, 0, 0]);
        flash.write(4, &[0xf0, 1, 2, 3]).unwrap();
        flash.write(4, &[0x70, 1, 0, 3]).unwrap();
        // The word before the one that cannot be programmed is.
        let two = [7, 7, 7, 7, 0x80, 0, 0, 0];
        assert_eq!(flash.write(0, &two), Err(FlashError::NotErased));
        assert_eq!(read(&mut flash, 0), [7, 7, 7, 7, 0x70, 1, 0, 3]);
    }

    #[test]
    fn what_is_misaligned_or_outside_is_refused() {
        let mut flash = flash(false);
        assert_eq!(flash.write(2, &[0; 4]), Err(FlashError::NotAligned));
        assert_eq!(flash.write(0, &[0; 3]), Err(FlashError::NotAligned));
        assert_eq!(flash.erase(0, 100), Err(FlashError::NotAligned));
        assert_eq!(flash.erase(0, 3 * 4096), Err(FlashError::OutOfBounds));
        assert_eq!(flash.read(8190, &mut [0; 3]), Err(FlashError::OutOfBounds));
        assert_eq!(flash.capacity(), 8192);
    }

    #[test]
    fn a_memory_that_fails_is_an_error() {
        let mut flash = flash(true);
        assert_eq!(flash.erase(0, 8192), Err(FlashError::Failed));
        assert_eq!(read(&mut flash, 4092), [255, 255, 255, 255, 0, 0, 0, 0]);
    }
}
