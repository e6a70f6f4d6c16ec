//! The key store's flash: the rules of NOR over a file.
//!
//! Each word goes to the file with a write of its own, in the order of the program: a process that is killed leaves behind
//! what a device leaves behind that loses its power. No write is forced onto the disk, so a power cut of the host itself may lose or
//! reorder some of them.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keyferry_emulated::nor::{Memory, MemoryFailed, NorModel, PAGE_SIZE, WORD_SIZE};

/// Pages of the key store's area.
const PAGES: usize = 32;
/// Length of the file in bytes.
const LENGTH: u64 = (PAGES * PAGE_SIZE) as u64;

/// The key store's area.
pub(crate) type Flash = NorModel<FlashFile, PAGES>;

/// A flash file, which is locked: two devices on one store would spoil it. A clone is for the same device's next life; the one before
/// must be over.
#[derive(Clone)]
pub(crate) struct FlashFile(Arc<File>);

/// Why a flash file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FlashFileError {
    /// It cannot be opened or locked.
    #[error("cannot use the flash file {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another device runs on it.
    #[error("a device already runs on the flash file {}", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It is not one that this board made.
    #[error("the flash file {} is {found} bytes long, and the board's flash is {LENGTH}", path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        found: u64,
    },
}

impl FlashFileError {
    /// What to do about it, for people.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::File { .. } => {
                "`keyferry emulate --board native` makes a new device's files; check the permissions of an old one's"
            }
            Self::InUse { .. } => "stop that device, or use another file",
            Self::Length { .. } => {
                "remove the file to start with a blank device, or use another one"
            }
        }
    }
}

impl FlashFile {
    /// Opens and locks a file that is there.
    pub(crate) fn open(path: &Path) -> Result<Self, FlashFileError> {
        let failed = |source| FlashFileError::File {
            path: path.to_owned(),
            source,
        };
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(FlashFileError::InUse {
                    path: path.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let found = file.metadata().map_err(failed)?.len();
        if found != LENGTH {
            return Err(FlashFileError::Length {
                path: path.to_owned(),
                found,
            });
        }
        Ok(Self(Arc::new(file)))
    }

    /// The file, which the next access finds at this place.
    fn at(&self, offset: usize) -> io::Result<&File> {
        let mut file = &*self.0;
        file.seek(SeekFrom::Start(offset as u64))?;
        Ok(file)
    }
}

impl Memory for FlashFile {
    fn read(&mut self, offset: usize, bytes: &mut [u8]) -> Result<(), MemoryFailed> {
        self.at(offset)
            .and_then(|mut file| file.read_exact(bytes))
            .map_err(|_| MemoryFailed)
    }

    fn write(&mut self, offset: usize, word: [u8; WORD_SIZE]) -> Result<(), MemoryFailed> {
        self.at(offset)
            .and_then(|mut file| file.write_all(&word))
            .map_err(|_| MemoryFailed)
    }
}
