//! The key store's flash: the rules of NOR over the memory at 0x2100_0000.
//!
//! On the board that memory is PSRAM; QEMU backs it with a file, so that it survives the process.

use keyferry_emulated::nor::{Memory, MemoryFailed, NorModel, WORD_SIZE};

/// Where the area begins.
const BASE: usize = 0x2100_0000;
/// Pages of the key store's area; the emulator's factory erase covers the same 128 KiB.
const PAGES: usize = 32;

/// The key store's area.
pub type Flash = NorModel<Psram, PAGES>;

/// The memory. The linker's script leaves it to this driver alone.
pub struct Psram(());

impl Psram {
    /// Called once.
    pub const fn new() -> Self {
        Self(())
    }
}

impl Memory for Psram {
    fn read(&mut self, offset: usize, bytes: &mut [u8]) -> Result<(), MemoryFailed> {
        let start = BASE + offset;
        for (index, byte) in bytes.iter_mut().enumerate() {
            // SAFETY: within the area, as the caller promises.
            *byte = unsafe { ((start + index) as *const u8).read_volatile() };
        }
        Ok(())
    }

    fn write(&mut self, offset: usize, word: [u8; WORD_SIZE]) -> Result<(), MemoryFailed> {
        // SAFETY: an aligned word within the area, as the caller promises. Volatile: a kill of the emulator must find the writes in
        // program order.
        unsafe { ((BASE + offset) as *mut u32).write_volatile(u32::from_le_bytes(word)) };
        Ok(())
    }
}
