//! Writes a recording while a session runs.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use der::DateTime;
use keyferry_protocol::link::Millis;

use super::{CaptureError, FORMAT, Heading, PIECE, To, Written};
use crate::device::port::Port;

/// Is told, once, that the recording has ended before the session.
pub type OnFailure = Box<dyn FnMut(&CaptureError) + Send>;

/// A new file for a recording. It is made before the port is opened, so that a bad name costs no session; where no session comes about,
/// it goes again.
pub struct NewFile {
    path: PathBuf,
    /// Until it is a recording.
    file: Option<File>,
}

impl NewFile {
    /// Makes the file for a recording of the port of this name, for its owner alone.
    ///
    /// # Errors
    /// [`CaptureError::Exists`], [`CaptureError::Create`].
    pub fn make(path: &Path, port: &str) -> Result<Self, CaptureError> {
        let failed = |source: io::Error| match source.kind() {
            ErrorKind::AlreadyExists => CaptureError::Exists { path: path.into() },
            _ => CaptureError::Create {
                path: path.into(),
                source,
            },
        };
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
        }
        let started = DateTime::from_system_time(SystemTime::now())
            .map_err(|error| failed(io::Error::other(error)))?;
        let heading = Heading {
            format: FORMAT,
            port: port.to_owned(),
            started: started.to_string(),
        };
        let mut new = Self {
            path: path.to_owned(),
            file: None,
        };
        let file = new.file.insert(options.open(path).map_err(failed)?);
        write_line(file, &heading).map_err(failed)?;
        Ok(new)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if self.file.is_some() {
            // An empty file that stays is a nuisance, no more.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A port that writes down what passes. The session goes on when that fails.
pub struct Recorder {
    port: Box<dyn Port>,
    path: PathBuf,
    /// Until it fails.
    file: Option<File>,
    on_failure: OnFailure,
}

impl Recorder {
    /// Records `port` into this file.
    #[must_use]
    pub fn new(port: Box<dyn Port>, mut to: NewFile, on_failure: OnFailure) -> Self {
        Self {
            port,
            path: to.path.clone(),
            file: to.file.take(),
            on_failure,
        }
    }

    fn record(&mut self, line: &Written) {
        let Some(file) = &mut self.file else {
            return;
        };
        if let Err(source) = write_line(file, line) {
            self.file = None;
            (self.on_failure)(&CaptureError::Write {
                path: self.path.clone(),
                source,
            });
        }
    }

    fn bytes(&mut self, to: To, bytes: &[u8]) {
        let ms = self.port.now();
        for piece in bytes.chunks(PIECE) {
            self.record(&Written {
                ms,
                to: Some(to),
                hex: Some(hex::encode(piece)),
                ..Written::default()
            });
        }
    }

    /// Writes down why the port failed.
    fn result<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            let line = Written {
                ms: self.port.now(),
                gone: Some(error.to_string()),
                ..Written::default()
            };
            self.record(&line);
        }
        result
    }
}

/// One write for the whole line: a program that dies leaves whole lines.
fn write_line(file: &mut File, line: &impl serde::Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    file.write_all(&text)
}

impl Port for Recorder {
    fn name(&self) -> &str {
        self.port.name()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.port.write(bytes);
        let written = self.result(written)?;
        self.bytes(To::Device, bytes.get(..written).unwrap_or(bytes));
        Ok(written)
    }

    fn read(&mut self, bytes: &mut [u8], until: Millis) -> io::Result<usize> {
        let count = self.port.read(bytes, until);
        let count = self.result(count)?;
        self.bytes(To::Station, bytes.get(..count).unwrap_or(bytes));
        Ok(count)
    }

    fn now(&self) -> Millis {
        self.port.now()
    }

    fn set_baud(&mut self, baud: u32) -> io::Result<bool> {
        let changed = self.port.set_baud(baud);
        let changed = self.result(changed)?;
        if changed {
            let line = Written {
                ms: self.port.now(),
                baud: Some(baud),
                ..Written::default()
            };
            self.record(&line);
        }
        Ok(changed)
    }
}
