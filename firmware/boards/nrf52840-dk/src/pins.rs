//! LED 1 and button 1 of the DK (nRF52840 DK hardware user guide, "Buttons and LEDs"): both low when lit or pressed.

use nrf52840_pac::P0;

/// LED 1.
const LED: usize = 13;
/// Button 1, the provisioning strap.
const BUTTON: usize = 11;

/// Sets the pins up, and tells whether the strap is set: the button is held while the board starts.
pub(crate) fn start(port: &P0) -> bool {
    light(false);
    port.pin_cnf[LED].write(|w| w.dir().output().input().disconnect());
    port.pin_cnf[BUTTON].write(|w| w.dir().input().input().connect().pull().pullup());
    // The pull-up charges the line: 13 kΩ and some hundred pF, a few microseconds.
    cortex_m::asm::delay(64 * 100);
    port.in_.read().bits() & (1 << BUTTON) == 0
}

/// Switches the LED.
pub(crate) fn light(lit: bool) {
    // SAFETY: the registers are there as long as the chip is; setting and clearing one pin needs no other state.
    let port = unsafe { &*P0::ptr() };
    // SAFETY: bits that are zero leave their pins alone.
    unsafe {
        if lit {
            port.outclr.write(|w| w.bits(1 << LED));
        } else {
            port.outset.write(|w| w.bits(1 << LED));
        }
    }
}
