//! An image's bytes: what it takes of flash, and of RAM before it runs.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

/// `PT_LOAD` and the sizes of an ELF32 header and of one of its program headers (System V ABI, chapters 4 and 5).
const LOADABLE: u32 = 1;
const HEADER: usize = 52;
const SEGMENT: usize = 32;
/// Where the board's RAM begins; flash is below.
const RAM: u32 = 0x2000_0000;

/// Lengths in bytes.
pub(super) struct Lengths {
    /// What the file brings: code, constants, and initial values.
    pub(super) flash: u64,
    /// What is static in RAM.
    pub(super) ram: u64,
}

/// Reads the program headers of an ELF file for a 32-bit little-endian part.
///
/// # Errors
/// If the file is none.
pub(super) fn lengths(path: &Path) -> Result<Lengths> {
    let file = std::fs::read(path).with_context(|| path.display().to_string())?;
    ensure!(
        file.starts_with(b"\x7fELF\x01\x01"),
        "no ELF file for such a part"
    );
    let word = |at: usize| -> Result<u32> {
        let bytes = file.get(at..at + 4).context("the file is cut off")?;
        Ok(u32::from_le_bytes(bytes.try_into()?))
    };
    let begin = word(28)? as usize;
    let count = word(HEADER - 8)? as u16;
    let mut lengths = Lengths { flash: 0, ram: 0 };
    for index in 0..usize::from(count) {
        let at = begin + index * SEGMENT;
        if word(at)? != LOADABLE {
            continue;
        }
        let (address, in_file, in_memory) = (word(at + 8)?, word(at + 16)?, word(at + 20)?);
        lengths.flash += u64::from(in_file);
        if address >= RAM {
            lengths.ram += u64::from(in_memory);
        }
    }
    if lengths.flash == 0 {
        bail!("nothing in it is loaded");
    }
    Ok(lengths)
}
