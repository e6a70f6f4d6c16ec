//! Memory-mapped registers: the one place that reads and writes them.
//!
//! Addresses are from Arm DAI 0386 (AN386, memory map) and the Cortex-M System Design Kit manual (Arm DDI 0479).

/// A 32-bit register at a fixed address.
pub struct Register<const ADDRESS: usize>;

impl<const ADDRESS: usize> Register<ADDRESS> {
    /// Fails to compile for an address that is not a word in the board's peripheral space.
    const IS_PERIPHERAL: () = assert!(
        ADDRESS >= 0x4000_0000 && ADDRESS < 0x4003_0000 && ADDRESS.is_multiple_of(4),
        "registers lie in the peripheral region"
    );

    /// The register's address.
    #[cfg(feature = "measure")]
    pub const fn address(&self) -> usize {
        let () = Self::IS_PERIPHERAL;
        ADDRESS
    }

    /// Reads the register.
    pub fn read(&self) -> u32 {
        let () = Self::IS_PERIPHERAL;
        // SAFETY: an aligned word of the peripheral region (checked above), where reads touch no memory that Rust owns.
        unsafe { (ADDRESS as *const u32).read_volatile() }
    }

    /// Writes the register.
    pub fn write(&self, value: u32) {
        let () = Self::IS_PERIPHERAL;
        // SAFETY: an aligned word of the peripheral region (checked above). None of the peripherals in use masters the
        // bus, so no register write can change memory that Rust owns.
        unsafe { (ADDRESS as *mut u32).write_volatile(value) }
    }
}
