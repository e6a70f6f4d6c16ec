//! Whether a file can be a board's firmware. QEMU finds out only after the device has got its port, and takes other files for raw
//! code. The firmware of the board `native` is a program of this machine, which must not be one for another.
//!
//! It looks at the header and nothing else: what the program does is its own affair.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::folder::on;
use super::{Board, EmulateError, QemuBoard};

/// What the first bytes of a 32-bit little-endian ELF file of version 1 are (System V ABI, chapter 4, "ELF Identification").
const IDENTIFICATION: [u8; 7] = [0x7f, b'E', b'L', b'F', 1, 1, 1];

/// How much of the header is looked at, in bytes: up to and with `e_machine`.
const LENGTH: usize = 20;

/// `e_type` of a program that stands at fixed addresses.
const EXECUTABLE: u16 = 2;

/// Checks that the file is an ELF program for the board's processor.
///
/// # Errors
/// [`EmulateError::FirmwareMissing`], [`EmulateError::NotFirmware`], [`EmulateError::File`].
pub(super) fn check(path: &Path, board: Board) -> Result<(), EmulateError> {
    if !path.is_file() {
        return Err(EmulateError::FirmwareMissing {
            path: path.into(),
            board,
        });
    }
    let file = File::open(path).map_err(on(path))?;
    let mut header = Vec::with_capacity(LENGTH);
    file.take(LENGTH as u64)
        .read_to_end(&mut header)
        .map_err(on(path))?;
    let mistake = match board.qemu() {
        Some(board) => mistake(&header, board.elf_machine()),
        None => foreign(&header).or_else(|| closed(path)),
    };
    match mistake {
        None => Ok(()),
        Some(reason) => Err(EmulateError::NotFirmware {
            path: path.into(),
            board,
            reason,
        }),
    }
}

/// What keeps a file from being a program of this machine, as far as can be told without starting it.
fn foreign(header: &[u8]) -> Option<&'static str> {
    let for_a_board = QemuBoard::ALL
        .iter()
        .any(|board| mistake(header, board.elf_machine()).is_none());
    for_a_board.then_some("it is a program for another processor")
}

/// What keeps the system from starting it, whatever it is.
#[cfg(unix)]
fn closed(path: &Path) -> Option<&'static str> {
    use std::os::unix::fs::PermissionsExt as _;

    let executable = path
        .metadata()
        .is_ok_and(|found| found.permissions().mode() & 0o111 != 0);
    (!executable).then_some("it is not executable")
}

/// Nothing that could be told beforehand.
#[cfg(not(unix))]
fn closed(_path: &Path) -> Option<&'static str> {
    None
}

fn mistake(header: &[u8], wanted: u16) -> Option<&'static str> {
    if !header.starts_with(&IDENTIFICATION[..4]) {
        return Some("it is no ELF file");
    }
    let &[.., type_low, type_high, machine_low, machine_high] = header else {
        return Some("it ends within its header");
    };
    if header.len() < LENGTH {
        return Some("it ends within its header");
    }
    let machine = u16::from_le_bytes([machine_low, machine_high]);
    if !header.starts_with(&IDENTIFICATION) || machine != wanted {
        return Some("it is a program for another processor");
    }
    if u16::from_le_bytes([type_low, type_high]) != EXECUTABLE {
        return Some("it is no program that could run on a bare board");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(class: u8, kind: u16, machine: u16) -> Vec<u8> {
        let mut bytes = vec![0x7f, b'E', b'L', b'F', class, 1, 1];
        bytes.resize(16, 0);
        bytes.extend(kind.to_le_bytes());
        bytes.extend(machine.to_le_bytes());
        bytes
    }

    #[test]
    fn a_program_for_the_processor_is_taken_and_nothing_else() {
        assert_eq!(mistake(&header(1, 2, 40), 40), None);
        let no_elf = Some("it is no ELF file");
        assert_eq!(mistake(b"", 40), no_elf);
        assert_eq!(mistake(b"\x7fEL", 40), no_elf);
        assert_eq!(mistake(&[0x55; 20], 40), no_elf);
        for length in 4..LENGTH {
            let cut = &header(1, 2, 40)[..length];
            assert_eq!(mistake(cut, 40), Some("it ends within its header"));
        }
        let other = Some("it is a program for another processor");
        assert_eq!(mistake(&header(1, 2, 243), 40), other);
        assert_eq!(mistake(&header(2, 2, 62), 40), other);
        assert_eq!(mistake(&header(2, 2, 40), 40), other);
        let board = header(1, 2, 243);
        assert_eq!(foreign(&board), other);
        assert_eq!(foreign(&header(2, 3, 62)), None);
        assert_eq!(foreign(b"#!/bin/sh"), None);
        let object = Some("it is no program that could run on a bare board");
        assert_eq!(mistake(&header(1, 1, 40), 40), object);
    }
}
