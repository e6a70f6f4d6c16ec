//! The boards that QEMU runs.

use std::ops::Range;

use super::Board;

/// A board that QEMU emulates, whole: one can look into its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QemuBoard {
    /// [`Board::Mps2An386`].
    Mps2An386,
    /// [`Board::RiscvVirt`].
    RiscvVirt,
}

impl From<QemuBoard> for Board {
    fn from(board: QemuBoard) -> Self {
        match board {
            QemuBoard::Mps2An386 => Self::Mps2An386,
            QemuBoard::RiscvVirt => Self::RiscvVirt,
        }
    }
}

impl QemuBoard {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Mps2An386, Self::RiscvVirt];

    /// The name used on the command line and in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mps2An386 => Board::Mps2An386.name(),
            Self::RiscvVirt => Board::RiscvVirt.name(),
        }
    }

    /// The program that emulates it.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::Mps2An386 => "qemu-system-arm",
            Self::RiscvVirt => "qemu-system-riscv32",
        }
    }

    /// The Rust target that its firmware is built for.
    #[must_use]
    pub const fn target(self) -> &'static str {
        match self {
            Self::Mps2An386 => "thumbv7em-none-eabi",
            Self::RiscvVirt => "riscv32imac-unknown-none-elf",
        }
    }

    /// The machine that an ELF file for it names in its header (`e_machine`): 40 is Arm, 243 RISC-V.
    pub(crate) const fn elf_machine(self) -> u16 {
        match self {
            Self::Mps2An386 => 40,
            Self::RiscvVirt => 243,
        }
    }

    /// Addresses of the RAM that its firmware may use, for [`super::Machine::dump_memory`].
    #[must_use]
    pub const fn ram(self) -> Range<u32> {
        match self {
            Self::Mps2An386 => 0x2000_0000..0x2004_0000,
            Self::RiscvVirt => 0x8040_0000..0x8044_0000,
        }
    }
}
