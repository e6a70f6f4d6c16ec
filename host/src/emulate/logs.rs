//! What an emulated device writes into its log, decoded: defmt frames (encoding rzCOBS), whose words are in the firmware's ELF file.
//!
//! A log is for people and for tests; nothing is decided from it.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use defmt_decoder::{DecodeError, Encoding, Table};

/// Why there is no log to read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The firmware or the log cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The firmware's file does not say what its log means.
    #[error("{} has no words for its log: {reason}", path.display())]
    NoTable {
        /// The firmware.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl LogError {
    /// What to do about it, for people.
    #[must_use]
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::File { .. } => Some("check the folder's permissions"),
            Self::NoTable { .. } => Some(
                "build it with defmt 1 and its linker script (-Tdefmt.x), and name the ELF file as the linker wrote it, not a stripped one; or leave --logs out, as for the board native, which has no log",
            ),
        }
    }
}

/// Most bytes of the log that are read at a time.
const CHUNK: u64 = 256 * 1024;
/// Longest frame in bytes; of a longer one the beginning is dropped.
const LONGEST_FRAME: usize = 64 * 1024;

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `error`, `warn`, `info`, `debug` or `trace`; `None` where the firmware said none.
    pub level: Option<&'static str>,
    /// When, as the firmware writes it: seconds since its start.
    pub time: Option<String>,
    /// What. Control characters are replaced.
    pub message: String,
}

/// A device's log that is read while it grows.
pub struct Log {
    table: Table,
    path: PathBuf,
    /// Bytes of the file that have been read.
    read: u64,
    /// The beginning of a frame whose end has not come.
    pending: Vec<u8>,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log")
            .field("path", &self.path)
            .field("read", &self.read)
            .finish_non_exhaustive()
    }
}

/// Whether the log of a device with this firmware can be decoded.
///
/// # Errors
/// [`LogError`].
pub fn check(firmware: &Path) -> Result<(), LogError> {
    table(firmware).map(drop)
}

/// The words that the firmware's log stands for.
fn table(firmware: &Path) -> Result<Table, LogError> {
    let elf = std::fs::read(firmware).map_err(|source| LogError::File {
        path: firmware.to_owned(),
        source,
    })?;
    let none = |reason: String| LogError::NoTable {
        path: firmware.to_owned(),
        reason,
    };
    let table = Table::parse(&elf)
        .map_err(|error| none(format!("{error:#}")))?
        .ok_or_else(|| none("it does not use defmt".to_owned()))?;
    if table.encoding() != Encoding::Rzcobs {
        return Err(none("its frames are raw, not rzCOBS".to_owned()));
    }
    Ok(table)
}

impl Log {
    /// The log at `path`, which `firmware` writes, from the byte `from` on. The log need not be there yet.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn open(firmware: &Path, path: PathBuf, from: u64) -> Result<Self, LogError> {
        Ok(Self {
            table: table(firmware)?,
            path,
            read: from,
            pending: Vec::new(),
        })
    }

    /// What has been written since the last call. Frames that make no sense are passed over: QEMU writes a line of its own at each start,
    /// and a power cut leaves half a frame.
    ///
    /// # Errors
    /// [`LogError::File`].
    pub fn entries(&mut self) -> Result<Vec<Entry>, LogError> {
        self.fetch().map_err(|source| LogError::File {
            path: self.path.clone(),
            source,
        })?;
        // Each frame ends in a zero.
        let Some(last) = self.pending.iter().rposition(|byte| *byte == 0) else {
            let surplus = self.pending.len().saturating_sub(LONGEST_FRAME);
            self.pending.drain(..surplus);
            return Ok(Vec::new());
        };
        let whole: Vec<u8> = self.pending.drain(..=last).collect();
        let mut entries = Vec::new();
        let mut decoder = self.table.new_stream_decoder();
        decoder.received(&whole);
        loop {
            match decoder.decode() {
                Ok(frame) => entries.push(Entry {
                    level: frame.level().map(|level| level.as_str()),
                    time: frame.display_timestamp().map(|time| time.to_string()),
                    message: frame
                        .display_message()
                        .to_string()
                        .replace(char::is_control, "?"),
                }),
                Err(DecodeError::Malformed) => {}
                Err(DecodeError::UnexpectedEof) => return Ok(entries),
            }
        }
    }

    fn fetch(&mut self) -> io::Result<()> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => file?,
        };
        file.seek(SeekFrom::Start(self.read))?;
        let count = file.take(CHUNK).read_to_end(&mut self.pending)?;
        self.read += count as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_words_is_an_error_that_tells_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let firmware = folder.path().join("fw");
        let open = || Log::open(&firmware, folder.path().join("log"), 0).unwrap_err();
        assert!(matches!(open(), LogError::File { .. }));
        std::fs::write(&firmware, b"no ELF").unwrap();
        let error = open();
        assert!(matches!(error, LogError::NoTable { .. }), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("--logs")));
    }
}
