//! Emulated devices: boards that QEMU runs, and the board `native`, which is a process by itself; each with a folder of its own that
//! holds its flash, its fuses, its vendor key where it has one (`vendor.der`, `vendor.key`), and its logs.
//!
//! A [`Fleet`] has many devices of the board `native` in one process.
//!
//! The library starts and stops them and nothing more: whoever wants to talk to one opens [`Emulator::port`] like any
//! other serial port. An emulated device is for tests and trials; its statement says `test`, and its root key is a plain
//! file.
//!
//! The serial port is a pseudo-terminal, which Linux and macOS have and Windows has not, or a socket.

mod control;
mod emulator;
mod error;
mod firmware;
mod fleet;
mod folder;
pub mod logs;
mod monitor;
mod native;
mod process;
mod qemu;

use std::path::PathBuf;
use std::str::FromStr;

use keyferry_protocol::identity::DeviceId;

pub use control::Machine;
pub use emulator::Emulator;
pub use error::{EmulateError, MonitorError};
pub use fleet::{Ended, Fleet, FleetConfig, Numbered};
pub use qemu::QemuBoard;

/// A board that can be emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Board {
    /// Arm MPS2+ with the AN386 image, a Cortex-M4.
    Mps2An386,
    /// QEMU's RISC-V `virt` machine, an RV32IMAC with CFI flash.
    RiscvVirt,
    /// A process of the host that runs the firmware library: no machine is emulated.
    Native,
}

impl Board {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Mps2An386, Self::RiscvVirt, Self::Native];

    /// The name used on the command line and in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mps2An386 => "mps2-an386",
            Self::RiscvVirt => "riscv-virt",
            Self::Native => "native",
        }
    }

    /// The board as QEMU's, if QEMU runs it.
    #[must_use]
    pub const fn qemu(self) -> Option<QemuBoard> {
        match self {
            Self::Mps2An386 => Some(QemuBoard::Mps2An386),
            Self::RiscvVirt => Some(QemuBoard::RiscvVirt),
            Self::Native => None,
        }
    }

    /// The package in this repository that builds its firmware, and the name of the binary.
    #[must_use]
    pub const fn package(self) -> &'static str {
        match self {
            Self::Mps2An386 => "keyferry-mps2-an386",
            Self::RiscvVirt => "keyferry-riscv-virt",
            Self::Native => "keyferry-native",
        }
    }

    /// Length in bytes of the flash file: the memory that it stands for has a fixed size.
    pub(crate) const fn flash_length(self) -> u64 {
        match self {
            Self::Mps2An386 => 16 * 1024 * 1024,
            Self::RiscvVirt => 32 * 1024 * 1024,
            Self::Native => 128 * 1024,
        }
    }

    /// Length in bytes of what is flash, at the start of the flash file: it leaves the factory erased.
    pub(crate) const fn erased_length(self) -> usize {
        match self {
            // The key store's area. The memory as a whole is RAM, of which the file has a hole.
            Self::Mps2An386 => 128 * 1024,
            Self::RiscvVirt => 32 * 1024 * 1024,
            Self::Native => 128 * 1024,
        }
    }
}

/// A name that is no board's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no emulated board `{0}`; there are `mps2-an386`, `riscv-virt` and `native`")]
pub struct UnknownBoard(pub String);

impl FromStr for Board {
    type Err = UnknownBoard;

    fn from_str(name: &str) -> Result<Self, UnknownBoard> {
        Self::ALL
            .into_iter()
            .find(|board| board.name() == name)
            .ok_or_else(|| UnknownBoard(name.to_owned()))
    }
}

/// Where an emulated device gets its randomness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entropy {
    /// From the host's random device.
    Host,
    /// From a stream that this seed determines, the same at every start: for repeatable runs. A device's keys then follow
    /// from the seed.
    Seed([u8; 32]),
    /// From a source that reports a failure at every request.
    Failing,
    /// From a source that gives only zeros and says it is well.
    Stuck,
}

/// What an emulated device's serial port is on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// A pseudo-terminal.
    PseudoTerminal,
    /// A Unix socket in the device's folder: whoever may use the folder may reach the device.
    UnixSocket,
    /// A TCP port of the loopback address: everybody on this machine may reach the device.
    Tcp,
}

impl Line {
    /// A pseudo-terminal, where there are such.
    pub const USUAL: Self = if cfg!(unix) {
        Self::PseudoTerminal
    } else {
        Self::Tcp
    };
}

/// One emulated device.
#[derive(Clone, Debug)]
pub struct Config {
    /// The board.
    pub board: Board,
    /// The firmware: an ELF file built for that board, or for the board `native` a program of this machine.
    pub firmware: PathBuf,
    /// The device's folder, made if it is missing. It is the device: started again on the same folder it holds the same
    /// keys. One device at a time may run on it.
    pub dir: PathBuf,
    /// The device's id.
    pub device_id: DeviceId,
    /// Where it gets its randomness.
    pub entropy: Entropy,
    /// Counts instructions: virtual time then follows from them (one instruction is `2^shift` ns) and not from the host's
    /// clock, so that measurements repeat. `None` runs as fast as the host can. Only QEMU can count.
    pub instruction_shift: Option<u8>,
    /// Starts frozen: the device does nothing until [`Machine::cont`], and what is sent to it arrives meanwhile. Only QEMU can.
    pub frozen: bool,
    /// Records what the device sends, in `uart.bin` in its folder.
    pub capture: bool,
    /// What its serial port is.
    pub line: Line,
    /// More words for the firmware's command line, for images that know them. What is not known is ignored, or by the board `native` refused.
    pub words: Vec<String>,
}

impl Config {
    /// A device with the host's randomness and no measuring.
    #[must_use]
    pub const fn new(board: Board, firmware: PathBuf, dir: PathBuf, device_id: DeviceId) -> Self {
        Self {
            board,
            firmware,
            dir,
            device_id,
            entropy: Entropy::Host,
            instruction_shift: None,
            frozen: false,
            capture: false,
            line: Line::USUAL,
            words: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boards_are_found_by_their_names() {
        for board in Board::ALL {
            assert_eq!(board.name().parse(), Ok(board));
        }
        let unknown: Result<Board, _> = "mps2".parse();
        assert_eq!(unknown, Err(UnknownBoard("mps2".to_owned())));
    }

    #[test]
    fn the_error_for_an_unknown_board_names_every_board() {
        let text = UnknownBoard("x".to_owned()).to_string();
        for board in Board::ALL {
            assert!(text.contains(board.name()), "{text}");
        }
    }
}
