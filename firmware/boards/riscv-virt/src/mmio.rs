//! Memory-mapped registers: the one place that reads and writes them.
//!
//! Addresses are those of QEMU's `virt` machine (`hw/riscv/virt.c`, `virt_memmap`), which it also writes into the device
//! tree.

use core::marker::PhantomData;

/// A register of type `T` at a fixed address.
pub struct Register<T, const ADDRESS: usize>(PhantomData<T>);

impl<T: Copy, const ADDRESS: usize> Register<T, ADDRESS> {
    /// Fails to compile for an address that is not aligned, or not in the board's peripheral space.
    const IS_PERIPHERAL: () = assert!(
        ADDRESS >= 0x0010_0000 && ADDRESS < 0x1000_0100 && ADDRESS.is_multiple_of(size_of::<T>()),
        "registers lie in the peripheral region"
    );

    /// The register at its address.
    pub const fn new() -> Self {
        let () = Self::IS_PERIPHERAL;
        Self(PhantomData)
    }

    /// Reads the register.
    pub fn read(&self) -> T {
        // SAFETY: an aligned address of the peripheral region (checked above), where reads touch no memory that Rust owns.
        // The registers are integers, for which any bits are a value.
        unsafe { (ADDRESS as *const T).read_volatile() }
    }

    /// Writes the register.
    pub fn write(&self, value: T) {
        // SAFETY: an aligned address of the peripheral region (checked above). None of the peripherals in use masters the
        // bus, so no register write can change memory that Rust owns.
        unsafe { (ADDRESS as *mut T).write_volatile(value) }
    }
}
