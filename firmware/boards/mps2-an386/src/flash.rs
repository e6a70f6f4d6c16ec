//! The key store's flash: a NOR model over the memory at 0x2100_0000.
//!
//! On the board that memory is PSRAM; QEMU backs it with a file, so that it survives the process. Neither has flash's
//! rules, so they are made here: an erase sets a page to ones, programming only clears bits, and an attempt to set one
//! is an error, as a real part's verify would report it.

use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash, check_erase, check_read,
    check_write,
};

/// Where the area begins.
const BASE: usize = 0x2100_0000;
/// Length of an erase page in bytes.
const PAGE_SIZE: usize = 4096;
/// Length of a word, the unit of programming, in bytes.
const WORD_SIZE: usize = 4;
/// Pages of the key store's area; the emulator's factory erase covers the same 128 KiB.
const PAGES: usize = 32;

/// The key store's area.
pub struct Flash(());

impl Flash {
    /// The area. Two values would be two hands on one store, so the platform gives out one only.
    pub const fn new() -> Self {
        Self(())
    }
}

/// Why a flash operation did not happen, or stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlashError {
    /// Offset or length is not a multiple of what the operation works in.
    NotAligned,
    /// The range reaches beyond the area.
    OutOfBounds,
    /// A word was to get a bit set that is clear already: it has not been erased. Words before it are programmed.
    NotErased,
}

impl NorFlashError for FlashError {
    fn kind(&self) -> NorFlashErrorKind {
        match self {
            Self::NotAligned => NorFlashErrorKind::NotAligned,
            Self::OutOfBounds => NorFlashErrorKind::OutOfBounds,
            Self::NotErased => NorFlashErrorKind::Other,
        }
    }
}

impl From<NorFlashErrorKind> for FlashError {
    fn from(kind: NorFlashErrorKind) -> Self {
        // The checks give these two only; the enum is not ours and may grow.
        if kind == NorFlashErrorKind::NotAligned {
            Self::NotAligned
        } else {
            Self::OutOfBounds
        }
    }
}

impl ErrorType for Flash {
    type Error = FlashError;
}

impl ReadNorFlash for Flash {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), FlashError> {
        check_read(self, offset, bytes.len())?;
        let start = BASE + offset as usize;
        for (index, byte) in bytes.iter_mut().enumerate() {
            // SAFETY: within the area (checked above), which the linker script leaves to this driver alone.
            *byte = unsafe { ((start + index) as *const u8).read_volatile() };
        }
        Ok(())
    }

    fn capacity(&self) -> usize {
        PAGES * PAGE_SIZE
    }
}

impl NorFlash for Flash {
    const WRITE_SIZE: usize = WORD_SIZE;
    const ERASE_SIZE: usize = PAGE_SIZE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), FlashError> {
        check_erase(self, from, to)?;
        for address in (BASE + from as usize..BASE + to as usize).step_by(WORD_SIZE) {
            // SAFETY: an aligned word within the area (checked above), which the linker script leaves to this driver
            // alone. Volatile: a kill of the emulator must find the writes in program order.
            unsafe { (address as *mut u32).write_volatile(u32::MAX) };
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashError> {
        check_write(self, offset, bytes.len())?;
        let start = BASE + offset as usize;
        let (words, _) = bytes.as_chunks::<WORD_SIZE>();
        for (index, word) in words.iter().enumerate() {
            let address = (start + index * WORD_SIZE) as *mut u32;
            let wanted = u32::from_le_bytes(*word);
            // SAFETY: an aligned word within the area (checked above), which the linker script leaves to this driver
            // alone. Volatile: a kill of the emulator must find the writes in program order.
            unsafe {
                let present = address.read_volatile();
                if wanted & !present != 0 {
                    return Err(FlashError::NotErased);
                }
                address.write_volatile(wanted & present);
            }
        }
        Ok(())
    }
}
