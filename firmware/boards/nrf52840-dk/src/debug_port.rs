//! Access port protection (nRF52840 product specification 1.8, 4.8.2, "DIF"): whether a debugger can read this chip.
//!
//! Chips with a build code below `F` (revisions 1 and 2) are open unless `UICR.APPROTECT` says enabled, and voltage glitches are known
//! to open them all the same. Chips from build code `F` on (revision 3) are closed at every reset unless `UICR.APPROTECT` says
//! disabled *and* the program then writes `APPROTECT.DISABLE`. An image for development opens the port where the chip lets it; a
//! product's closes it for good, which only an erasure of the whole chip undoes.

use nrf52840_pac::{FICR, NVMC, UICR};

#[cfg(not(feature = "debug-port"))]
use cortex_m::peripheral::SCB;

use crate::nvmc::{Mode, with};

/// `UICR.APPROTECT` of a chip that was erased.
#[cfg(feature = "debug-port")]
const ERASED: u32 = 0xff;
/// [`UICR`] and `APPROTECT.DISABLE`: open, on chips of revision 3.
const DISABLED: u32 = 0x5a;
/// [`UICR`]: closed, on all.
const ENABLED: u32 = 0x00;

/// The first build code of revision 3.
const REVISION_3: u8 = b'F';

/// `APPROTECT.DISABLE`, which the register description that the crate was made from does not have: [`DISABLED`] opens the port until
/// the next reset.
const SOFTWARE_DISABLE: *mut u32 = 0x4000_0558 as *mut u32;
/// `APPROTECT.FORCEPROTECT`: zero closes it until the next reset.
#[cfg(not(feature = "debug-port"))]
const FORCE_PROTECT: *mut u32 = 0x4000_0550 as *mut u32;

/// Opens or closes the port, as the image is for development or not, and tells whether it is closed.
pub(crate) fn settle(_: &NVMC, uicr: &UICR, ficr: &FICR) -> bool {
    // Such as "AAF0": the third letter is the build code's.
    let [_, build, ..] = ficr.info.variant.read().bits().to_le_bytes();
    let newer = (REVISION_3..=b'Z').contains(&build);
    let state = || uicr.approtect.read().bits() & 0xff;

    #[cfg(feature = "debug-port")]
    if newer {
        if state() == ERASED {
            // From the next reset on.
            program(uicr, DISABLED);
        }
        if state() == DISABLED {
            // SAFETY: a register of revision 3, which this chip is; it touches no memory.
            unsafe { SOFTWARE_DISABLE.write_volatile(DISABLED) };
        }
    }
    #[cfg(not(feature = "debug-port"))]
    {
        if newer {
            // SAFETY: as above.
            unsafe { FORCE_PROTECT.write_volatile(0) };
        }
        if state() != ENABLED {
            program(uicr, ENABLED);
            if state() == ENABLED {
                SCB::sys_reset();
            }
        }
    }

    if newer {
        // SAFETY: as above.
        let disabled = unsafe { SOFTWARE_DISABLE.read_volatile() } & 0xff == DISABLED;
        !(state() == DISABLED && disabled)
    } else {
        state() == ENABLED
    }
}

/// Programs `UICR.APPROTECT`; bits that are clear stay clear.
fn program(uicr: &UICR, value: u32) {
    let address = uicr.approtect.as_ptr();
    with(Mode::Program, |_| {
        // SAFETY: the register is a word of flash, which the controller programs.
        unsafe { address.write_volatile(0xffff_ff00 | value) };
    });
}
