//! Writing a log. A line is on the disk before its writer goes on, or the writer is told that it is not.

mod entries;

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use der::DateTime;
use keyferry_protocol::identity::{Digest, Fingerprint, Signature};
use keyferry_protocol::receipt;

use super::check::{Checker, Depth, GivenKeys, OpenKey, OpenOrder};
use super::checkpoint::{Checkpoint, signed_bytes};
use super::error::AuditError;
use super::fault::Fault;
use super::lines::{Line, Lines};
use super::record::{CheckpointLine, Event, LogId, Opened, Record, Torn};
use crate::device::flow::Authority;
use crate::device::verify::{digest, fingerprint};

/// The end of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// How many lines the log has.
    pub lines: u64,
    /// The head of the chain after them.
    pub digest: Digest,
}

/// A log that this process writes to, and no other.
///
/// It refuses what would break it, so that what it has confirmed verifies later.
pub struct AuditLog {
    path: PathBuf,
    /// Locked as long as it is open.
    file: File,
    /// Its length in bytes.
    length: u64,
    checker: Checker,
    opened: Opened,
    /// The identity keys of devices that have stated themselves.
    identities: HashMap<Fingerprint, Vec<u8>>,
    /// Whether a write failed, and nobody knows what is in the file.
    unusable: bool,
}

impl AuditLog {
    /// Begins a log in a new file. `opened.log` is its name, made with [`LogId::random`].
    ///
    /// # Errors
    /// [`AuditError::Exists`], [`AuditError::Write`], [`AuditError::Locked`]; [`AuditError::Rejected`] if a key is none.
    pub fn create(path: &Path, opened: Opened) -> Result<Self, AuditError> {
        let failed = |source| AuditError::Write {
            path: path.into(),
            source,
        };
        let mut checker = Checker::new(Depth::Signatures, GivenKeys::default());
        let record = Record {
            n: 0,
            previous: Digest::ZERO,
            time: now()?,
            event: Event::Opened(opened.clone()),
        };
        let mut line = record.write().map_err(AuditError::Rejected)?;
        checker.line(&line).map_err(AuditError::Rejected)?;
        line.push(b'\n');

        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            Some(_) | None => Path::new("."),
        };
        let mut file = new_file(folder).map_err(failed)?;
        lock(file.as_file(), path)?;
        file.write_all(&line)
            .and_then(|()| file.as_file().sync_all())
            .map_err(failed)?;
        let file = file.persist_noclobber(path).map_err(|error| {
            if error.error.kind() == io::ErrorKind::AlreadyExists {
                AuditError::Exists(path.into())
            } else {
                failed(error.error)
            }
        })?;
        sync_folder(folder).map_err(failed)?;
        Ok(Self {
            path: path.into(),
            file,
            length: line.len() as u64,
            checker,
            opened,
            identities: HashMap::new(),
            unusable: false,
        })
    }

    /// Opens a log to write on. The chain of all lines is verified, their signatures are not: they were, when they were written.
    /// If the last line is not finished, it is cut off, and a [`Event::Torn`] says so. Nothing else is ever mended.
    ///
    /// # Errors
    /// [`AuditError::Locked`] if another process has it open; [`AuditError::Broken`], [`AuditError::Empty`], [`AuditError::Read`],
    /// [`AuditError::Write`].
    pub fn open(path: &Path) -> Result<Self, AuditError> {
        let read_failed = |source| AuditError::Read {
            path: path.into(),
            source,
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(read_failed)?;
        lock(&file, path)?;
        let mut checker = Checker::new(Depth::Chain, GivenKeys::default());
        let mut lines = Lines::of_file(file.try_clone().map_err(read_failed)?);
        let mut length = 0;
        let mut torn = None;
        let mut identities = HashMap::new();
        while let Some(line) = lines.next().map_err(read_failed)? {
            let taken = match line {
                Line::Whole(bytes) => {
                    let taken = checker.line(bytes).map(|record| {
                        identities.extend(identity(&record.event));
                    });
                    length += bytes.len() as u64 + 1;
                    taken
                }
                Line::Unfinished(bytes) => {
                    torn = Some(Torn {
                        bytes: bytes.len() as u64,
                        digest: digest(bytes),
                    });
                    break;
                }
                Line::TooLong => Err(Fault::TooLong),
            };
            taken.map_err(|fault| AuditError::Broken {
                path: path.into(),
                line: checker.lines() + 1,
                fault,
            })?;
        }
        let Some(opened) = checker.opened().cloned() else {
            return Err(AuditError::Empty(path.into()));
        };
        checker.deepen();
        let mut log = Self {
            path: path.into(),
            file,
            length,
            checker,
            opened,
            identities,
            unusable: false,
        };
        if let Some(torn) = torn {
            log.cut(torn)?;
        }
        Ok(log)
    }

    /// Writes the note that says so over an unfinished line, and cuts off the rest of it: at no instant is there nothing that shows
    /// that something was there.
    fn cut(&mut self, torn: Torn) -> Result<(), AuditError> {
        let line = self.next_line(Event::Torn(torn))?;
        let end = self.length + line.len() as u64;
        self.write_line(&line, |file| file.set_len(end))
    }

    /// The log's name.
    #[must_use]
    pub const fn id(&self) -> LogId {
        self.opened.log
    }

    /// The key that has to sign its checkpoints, P-256 `SubjectPublicKeyInfo` DER.
    #[must_use]
    pub fn audit_key(&self) -> &[u8] {
        &self.opened.audit_key
    }

    /// The station's name.
    #[must_use]
    pub fn station(&self) -> &str {
        &self.opened.station
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The end of the chain: what goes into [`keyferry_protocol::order::Header::audit_head`] of the next order.
    #[must_use]
    pub const fn head(&self) -> Head {
        Head {
            lines: self.checker.lines(),
            digest: self.checker.head(),
        }
    }

    /// Keys that were wrapped, and of which the log does not say yet what became of them.
    #[must_use]
    pub fn open_keys(&self) -> Vec<OpenKey> {
        self.checker.open_keys()
    }

    /// Other orders without an answer, or with proofs that were not verified.
    #[must_use]
    pub fn open_orders(&self) -> Vec<OpenOrder> {
        self.checker.open_orders()
    }

    /// Whether an order was written down, whatever has become of it. This reads the whole file.
    ///
    /// # Errors
    /// [`AuditError::Read`].
    pub fn holds_order(&self, order: &Digest) -> Result<bool, AuditError> {
        let failed = |source| AuditError::Read {
            path: self.path.clone(),
            source,
        };
        let mut file = self.file.try_clone().map_err(failed)?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let mut lines = Lines::of_file(file);
        while let Some(line) = lines.next().map_err(failed)? {
            let Line::Whole(bytes) = line else {
                return Ok(false);
            };
            if let Ok(Event::Ordered(ordered)) = Record::read(bytes).map(|record| record.event)
                && ordered.digest == *order
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes an event. When this comes back, it is on the disk.
    ///
    /// # Errors
    /// [`AuditError::Rejected`] if it would break the log, and the log is as before; [`AuditError::Write`], [`AuditError::Changed`],
    /// [`AuditError::Clock`]; [`AuditError::Unusable`] after a failed write.
    pub fn append(&mut self, event: Event) -> Result<Head, AuditError> {
        let identity = identity(&event);
        let line = self.next_line(event)?;
        self.write_at_end(&line)?;
        self.identities.extend(identity);
        Ok(self.head())
    }

    /// Has the audit key sign the chain so far, and writes that down. What comes back is the anchor, to be kept elsewhere
    /// ([`super::Seen::Checkpoint`]).
    ///
    /// # Errors
    /// [`AuditError::OtherSigner`] if it is not the log's audit key; [`AuditError::Signer`]; as [`AuditLog::append`].
    pub fn checkpoint(&mut self, signer: &dyn Authority) -> Result<Checkpoint, AuditError> {
        self.usable()?;
        if signer.public_key() != self.opened.audit_key {
            return Err(AuditError::OtherSigner {
                expected: fingerprint(&self.opened.audit_key),
                found: fingerprint(signer.public_key()),
            });
        }
        let Head {
            lines,
            digest: head,
        } = self.head();
        let log = self.opened.log;
        let time = now()?;
        let message = signed_bytes(&log, lines, &head, time);
        let signature = signer.sign(&message).map_err(AuditError::Signer)?;
        let signature = Signature::from_bytes(&signature);
        let event = Event::Checkpoint(CheckpointLine { log, signature });
        let line = self.line_at(time, event)?;
        self.write_at_end(&line)?;
        Ok(Checkpoint {
            log,
            lines,
            head,
            time,
            audit_key: self.opened.audit_key.clone(),
            signature,
        })
    }

    fn usable(&self) -> Result<(), AuditError> {
        if self.unusable {
            return Err(AuditError::Unusable(self.path.clone()));
        }
        Ok(())
    }

    /// The next line with its newline, once it is certain that it would not break the log. It has to be written now.
    fn next_line(&mut self, event: Event) -> Result<Vec<u8>, AuditError> {
        self.line_at(now()?, event)
    }

    fn line_at(&mut self, time: DateTime, event: Event) -> Result<Vec<u8>, AuditError> {
        self.usable()?;
        let record = Record {
            n: self.checker.lines(),
            previous: self.checker.head(),
            time,
            event,
        };
        let mut line = record.write().map_err(AuditError::Rejected)?;
        self.checker.line(&line).map_err(AuditError::Rejected)?;
        line.push(b'\n');
        Ok(line)
    }

    /// Writes at the end, which nobody else has moved.
    fn write_at_end(&mut self, line: &[u8]) -> Result<(), AuditError> {
        // What the checker has taken is in the file, or nothing more is written.
        self.unusable = true;
        let found = self.file.metadata().map_err(|source| AuditError::Read {
            path: self.path.clone(),
            source,
        })?;
        if found.len() != self.length {
            return Err(AuditError::Changed(self.path.clone()));
        }
        self.write_line(line, |_| Ok(()))
    }

    /// Writes in one go behind the last whole line, and has the disk confirm it.
    fn write_line(
        &mut self,
        line: &[u8],
        after: impl FnOnce(&File) -> io::Result<()>,
    ) -> Result<(), AuditError> {
        self.unusable = true;
        let failed = |source| AuditError::Write {
            path: self.path.clone(),
            source,
        };
        self.file
            .seek(SeekFrom::Start(self.length))
            .map_err(failed)?;
        self.file
            .write_all(line)
            .and_then(|()| after(&self.file))
            .and_then(|()| self.file.sync_data())
            .map_err(failed)?;
        self.length += line.len() as u64;
        self.unusable = false;
        Ok(())
    }
}

/// The identity key of a device that states itself, by its fingerprint.
fn identity(event: &Event) -> Option<(Fingerprint, Vec<u8>)> {
    let receipt = match event {
        Event::Received(received) => &received.receipt,
        Event::Enrolled(trust) | Event::Trusted(trust) => &trust.statement.as_ref()?.receipt,
        Event::Opened(_)
        | Event::Authority(_)
        | Event::Wrapped(_)
        | Event::Ordered(_)
        | Event::Disbelieved(_)
        | Event::Proved(_)
        | Event::Failed(_)
        | Event::Certified(_)
        | Event::Checkpoint(_)
        | Event::Torn(_)
        | Event::Note(_) => return None,
    };
    match receipt::decode(receipt) {
        Ok((header, receipt::Body::Statement(statement))) => {
            Some((header.identity, statement.identity_key.to_vec()))
        }
        // The key of a recovered device's receipt signs nothing else.
        Ok((_, receipt::Body::Slots(_) | receipt::Body::Recovered(_) | receipt::Body::Empty))
        | Err(_) => None,
    }
}

fn now() -> Result<DateTime, AuditError> {
    DateTime::from_system_time(SystemTime::now()).map_err(|_| AuditError::Clock)
}

fn lock(file: &File, path: &Path) -> Result<(), AuditError> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => AuditError::Locked(path.into()),
        TryLockError::Error(source) => AuditError::Write {
            path: path.into(),
            source,
        },
    })
}

/// A file under a temporary name, with the permissions of any new file: nothing in a log is secret.
fn new_file(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    #[cfg_attr(
        not(unix),
        expect(unused_mut, reason = "there are no permissions to set")
    )]
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}

/// Makes a folder's names durable.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Makes a folder's names durable: elsewhere the system sees to that.
#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}
