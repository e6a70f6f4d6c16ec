//! Flash, through the non-volatile memory controller (nRF52840 product specification 1.8, 4.3): pages of 4096 bytes, words of 4.
//!
//! The part lets each word be programmed twice between erases (n_WRITE) and each page be erased 10 000 times (n_ENDURANCE). The key
//! store asks for less: it programs each word once, and programming only clears bits. Nothing is programmed here beyond what is asked for.
//!
//! While a page is erased, 85 ms, or a word programmed, 41 µs, the processor stands still, as its program is in the same flash. The
//! UART goes on receiving by DMA.

use core::ops::Range;

use embedded_storage::nor_flash::{
    ErrorType, NorFlash, ReadNorFlash, check_erase, check_read, check_write,
};
use keyferry_board::flash::FlashError;
use nrf52840_pac::{ACL, NVMC};

/// Length of a page in bytes.
const PAGE: usize = 4096;
/// Length of a word in bytes.
const WORD: usize = 4;

/// The key store's pages. `memory.x` leaves them, and the root key's, out of the program's flash.
pub(crate) const STORE: Range<u32> = 0x000d_f000..0x000f_f000;
/// The root key's page.
pub(crate) const ROOT: Range<u32> = 0x000f_f000..0x0010_0000;

/// An area of flash.
pub(crate) struct Area(Range<u32>);

impl Area {
    /// Two values of one area would be two hands on it, so the platform makes each once.
    pub(crate) const fn new(pages: Range<u32>) -> Self {
        Self(pages)
    }

    fn address(&self, offset: u32) -> usize {
        (self.0.start + offset) as usize
    }
}

impl ErrorType for Area {
    type Error = FlashError;
}

impl ReadNorFlash for Area {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), FlashError> {
        check_read(self, offset, bytes.len())?;
        let start = self.address(offset);
        for (index, byte) in bytes.iter_mut().enumerate() {
            // SAFETY: within the area (checked above), which the linker script leaves to this driver alone. Volatile: what is there
            // changes by registers.
            *byte = unsafe { ((start + index) as *const u8).read_volatile() };
        }
        Ok(())
    }

    fn capacity(&self) -> usize {
        (self.0.end - self.0.start) as usize
    }
}

impl NorFlash for Area {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = PAGE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), FlashError> {
        check_erase(self, from, to)?;
        for page in (self.address(from)..self.address(to)).step_by(PAGE) {
            with(Mode::Erase, |nvmc| {
                // SAFETY: an address of a page of the area (checked above), in which nothing of the program is.
                unsafe { nvmc.erasepage().write(|w| w.bits(page as u32)) };
            });
            for word in (page..page + PAGE).step_by(WORD) {
                // SAFETY: an aligned word within the area.
                if unsafe { (word as *const u32).read_volatile() } != u32::MAX {
                    return Err(FlashError::Failed);
                }
            }
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashError> {
        check_write(self, offset, bytes.len())?;
        let start = self.address(offset);
        let (words, _) = bytes.as_chunks::<WORD>();
        for (index, word) in words.iter().enumerate() {
            let address = (start + index * WORD) as *mut u32;
            let wanted = u32::from_le_bytes(*word);
            // SAFETY: an aligned word within the area (checked above), which the linker script leaves to this driver alone.
            let read = || unsafe { address.read_volatile() };
            if wanted & !read() != 0 {
                return Err(FlashError::NotErased);
            }
            with(Mode::Program, |_| {
                // SAFETY: as above; the controller takes the write for the programming of the word.
                unsafe { address.write_volatile(wanted) };
            });
            if read() != wanted {
                return Err(FlashError::Failed);
            }
        }
        Ok(())
    }
}

/// What the controller does with a write.
#[derive(Clone, Copy)]
pub(crate) enum Mode {
    /// Programs the word.
    Program,
    /// Erases a page, by a register.
    Erase,
}

/// Does one operation in this mode, and waits for its end. Interrupts wait as well: none of their code may write while the mode is on.
pub(crate) fn with(mode: Mode, operation: impl FnOnce(&nrf52840_pac::nvmc::RegisterBlock)) {
    // SAFETY: the registers are there as long as the chip is, and only this function changes the mode.
    let nvmc = unsafe { &*NVMC::ptr() };
    let ready = || while nvmc.ready.read().ready().is_busy() {};
    critical_section::with(|_| {
        ready();
        match mode {
            Mode::Program => nvmc.config.write(|w| w.wen().wen()),
            Mode::Erase => nvmc.config.write(|w| w.wen().een()),
        }
        // The controller is in its mode before the write comes, and through with it before the mode ends.
        cortex_m::asm::dsb();
        operation(nvmc);
        cortex_m::asm::dsb();
        ready();
        nvmc.config.write(|w| w.wen().ren());
    });
}

/// Locks an area against reading and writing until the next reset (access control lists, 4.4). The debug port cannot read it either, but
/// for one that stops the processor before it comes here.
pub(crate) fn lock(acl: &ACL, area: &Range<u32>) {
    // SAFETY: whole pages of this area, in which nothing of the program is. The registers take one write only, until the next reset.
    unsafe {
        acl.acl[0].addr.write(|w| w.bits(area.start));
        acl.acl[0].size.write(|w| w.bits(area.end - area.start));
        acl.acl[0]
            .perm
            .write(|w| w.write().disable().read().disable());
    }
}
