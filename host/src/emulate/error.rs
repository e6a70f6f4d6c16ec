//! What can go wrong with an emulated device, and what to do then.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use super::Board;
use super::logs::LogError;

/// Why an emulated device could not be started, stopped or looked into.
#[derive(Debug, thiserror::Error)]
pub enum EmulateError {
    /// The host has no pseudo-terminals and no Unix sockets.
    #[error(
        "the serial port of an emulated device can only be a TCP port on this operating system"
    )]
    NoPseudoTerminal,
    /// The emulator is not installed, or not found in `PATH`.
    #[error("the emulator `{program}` was not found")]
    QemuMissing {
        /// The program's name.
        program: &'static str,
    },
    /// The firmware file is not there.
    #[error("there is no firmware at {}", path.display())]
    FirmwareMissing {
        /// Where it should be.
        path: PathBuf,
        /// The board that it would run on.
        board: Board,
    },
    /// The firmware file holds something else than a program for the board.
    #[error("{} is no firmware for board {}: {reason}", path.display(), board.name())]
    NotFirmware {
        /// The file.
        path: PathBuf,
        /// The board.
        board: Board,
        /// What it is instead.
        reason: &'static str,
    },
    /// Another emulated device runs on the same folder.
    #[error("a device already runs on {}", dir.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
    },
    /// The flash file is not one that this board made.
    #[error("{} is {found} bytes long, and the board's flash is {expected}", path.display())]
    FlashLength {
        /// The flash file.
        path: PathBuf,
        /// Its length in bytes.
        found: u64,
        /// The board's length in bytes.
        expected: u64,
    },
    /// A file of the device cannot be made, read or opened.
    #[error("cannot use {}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The emulator could not be started.
    #[error("cannot start `{program}`")]
    Start {
        /// The program's name.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The emulator ended by itself.
    #[error("the emulator ended ({status}): {output}")]
    Exited {
        /// How it ended.
        status: ExitStatus,
        /// The last lines it wrote.
        output: String,
    },
    /// The emulator did not do something in time.
    #[error("the emulator did not {what} within {} s", after.as_secs())]
    TimedOut {
        /// What was waited for.
        what: &'static str,
        /// For how long.
        after: Duration,
    },
    /// A process may not have as many files open as the devices need.
    #[error(
        "{count} devices in one process need {wanted} open files, and this system allows {limit}"
    )]
    OpenFiles {
        /// How many devices.
        count: u16,
        /// How many files.
        wanted: u64,
        /// The hard limit of this process.
        limit: u64,
    },
    /// One device of a fleet could not be started.
    #[error("device {number} does not start: {reason}")]
    Device {
        /// Its number, from 1.
        number: u16,
        /// The device's own words.
        reason: String,
    },
    /// A fleet says something that is not understood.
    #[error("`{program}` says something that is not understood")]
    NotUnderstood {
        /// The program's name.
        program: &'static str,
    },
    /// The emulator's monitor failed or refused.
    #[error("the emulator's monitor failed")]
    Monitor(#[from] MonitorError),
    /// The device's log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl EmulateError {
    /// What to do about it, for people.
    #[must_use]
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoPseudoTerminal => Some("use a TCP port, or Linux or macOS (or WSL)"),
            Self::QemuMissing { .. } => Some(
                "install QEMU: `apt install qemu-system-arm qemu-system-misc`, `dnf install qemu-system-arm qemu-system-riscv` or `brew install qemu`",
            ),
            Self::FirmwareMissing {
                board: Board::Native,
                ..
            }
            | Self::NotFirmware {
                board: Board::Native,
                ..
            } => Some(
                "build it: `cargo build --package keyferry-native --release`; or name the file of another build",
            ),
            Self::FirmwareMissing { .. } | Self::NotFirmware { .. } => Some(
                "build it: `cargo build --package keyferry-mps2-an386 --target thumbv7em-none-eabi --profile firmware` or `cargo build --package keyferry-riscv-virt --target riscv32imac-unknown-none-elf --profile firmware`; or name the file of another build",
            ),
            Self::InUse { .. } => Some("stop that device, or use another folder"),
            Self::FlashLength { .. } => {
                Some("remove the file to start with a blank device, or use another folder")
            }
            Self::File { .. } => Some("check the folder's permissions and the space on its disk"),
            Self::Exited { .. } => Some("the folder's emulator.log has everything it wrote"),
            Self::TimedOut { .. } => {
                Some("the machine may be overloaded: start fewer devices at once")
            }
            Self::Log(error) => error.hint(),
            Self::OpenFiles { .. } => {
                Some("start fewer devices, or have the limit raised (`ulimit -Hn` shows it)")
            }
            Self::Device { .. } => Some(
                "if it says that there is no space or no file left, start fewer devices: terminals and open files are limited",
            ),
            Self::NotUnderstood { .. } => {
                Some("firmware and command belong together: take both from the same version")
            }
            Self::Start { .. } | Self::Monitor(_) => None,
        }
    }
}

/// Why a command to the emulator's monitor failed.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// The connection broke, or an answer did not come in time.
    #[error("no answer to `{command}`")]
    Connection {
        /// The command under way.
        command: &'static str,
        /// Why.
        source: io::Error,
    },
    /// An answer that is not QMP.
    #[error("an answer to `{command}` that is not understood")]
    NotUnderstood {
        /// The command under way.
        command: &'static str,
    },
    /// The monitor refused the command.
    #[error("`{command}` was refused: {description}")]
    Refused {
        /// The command.
        command: &'static str,
        /// The monitor's own words.
        description: String,
    },
}
