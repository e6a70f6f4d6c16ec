//! LED 0 of the FPGAIO block (Arm DAI 0386, FPGA system control and I/O).

use core::convert::Infallible;

use embedded_hal::digital::{ErrorType, OutputPin};

use crate::mmio::Register;

/// The LEDs, one bit each.
const LEDS: Register<0x4002_8000> = Register;

/// The status LED.
pub struct Led(());

impl Led {
    /// The status LED, off. It is the only user of the register.
    pub fn off() -> Self {
        LEDS.write(0);
        Self(())
    }
}

impl ErrorType for Led {
    type Error = Infallible;
}

impl OutputPin for Led {
    fn set_low(&mut self) -> Result<(), Infallible> {
        LEDS.write(0);
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Infallible> {
        LEDS.write(1);
        Ok(())
    }
}
