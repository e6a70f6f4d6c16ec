//! What can go wrong with a log.

use std::io;
use std::path::PathBuf;

use der::DateTime;
use keyferry_protocol::identity::Fingerprint;

use super::fault::Fault;
use crate::error::Exit;
use crate::hsm::HsmError;

/// What went wrong with a log.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// It cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It cannot be written; what it held before is still in it.
    #[error("{} cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is a file already where a log was to begin.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// Another process writes to it.
    #[error("{} is in use by another process", .0.display())]
    Locked(PathBuf),
    /// Something else wrote to it while it was open.
    #[error("{} was changed by something else while it was open", .0.display())]
    Changed(PathBuf),
    /// An earlier write to it failed, so that nobody knows what is in the file now.
    #[error("an earlier write to {} failed", .0.display())]
    Unusable(PathBuf),
    /// A line breaks it.
    #[error("{}, line {line}: {fault}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// The line, from 1 as editors count; its `n` is one less.
        line: u64,
        /// What is wrong with it.
        fault: Fault,
    },
    /// There is nothing in it.
    #[error("{} is empty", .0.display())]
    Empty(PathBuf),
    /// An event that would break the log; it was not written.
    #[error("this cannot be written into the log: {0}")]
    Rejected(Fault),
    /// The system's clock stands outside the years 1970 to 9999.
    #[error("the system's clock does not show a date")]
    Clock,
    /// There is no randomness.
    #[error(transparent)]
    Random(HsmError),
    /// The audit key could not sign.
    #[error("the audit key did not sign")]
    Signer(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The key that was to sign a checkpoint is not the log's.
    #[error("the log's audit key is {expected}, not {found}")]
    OtherSigner {
        /// The fingerprint of the log's audit key.
        expected: Fingerprint,
        /// That of the key that was given.
        found: Fingerprint,
    },
    /// A file is no anchor.
    #[error("{} is no anchor: {reason}", path.display())]
    NotAnAnchor {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: AnchorFault,
    },
    /// The log ends before the anchor.
    #[error(
        "the log was cut off: it has {lines} lines, and {} has seen {seen}",
        anchor.display()
    )]
    Truncated {
        /// The anchor's file.
        anchor: PathBuf,
        /// How many lines the log has.
        lines: u64,
        /// How many it had when the anchor was made.
        seen: u64,
    },
    /// The log is not the one that the anchor is of.
    #[error("the log was replaced: {} {difference}", anchor.display())]
    Replaced {
        /// The anchor's file.
        anchor: PathBuf,
        /// What is different.
        difference: Difference,
    },
}

/// How a log differs from what an anchor has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Difference {
    /// The name.
    #[error("is of another log")]
    Log,
    /// The audit key.
    #[error("is signed by the audit key {anchor}, the log's is {log}")]
    AuditKey {
        /// Fingerprint of the key that signed the anchor.
        anchor: Fingerprint,
        /// Fingerprint of the log's audit key.
        log: Fingerprint,
    },
    /// The content.
    #[error("has seen other lines up to line {lines}, at {time}")]
    Lines {
        /// How many lines the anchor has seen.
        lines: u64,
        /// When.
        time: DateTime,
    },
    /// An order that was signed while this log was kept.
    #[error("holds an order that is not in it, or is not any more")]
    Order,
}

/// Why a file is no anchor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnchorFault {
    /// Longer than any anchor.
    #[error("it is longer than {} bytes", super::anchor::MAXIMUM_ANCHOR)]
    TooLong,
    /// Neither a checkpoint nor a witness.
    #[error("{0}")]
    Malformed(String),
    /// Its signature is wrong.
    #[error("its signature is wrong")]
    Signature,
    /// The order of a witness is signed by nobody whom the log knows.
    #[error("its order is not signed by an authority of this log")]
    Authority,
    /// The order of a witness names no head.
    #[error("its order was made without an audit log")]
    NoHead,
}

impl AuditError {
    /// The exit code for it.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Read { .. }
            | Self::Exists(_)
            | Self::Locked(_)
            | Self::Empty(_)
            | Self::OtherSigner { .. }
            | Self::NotAnAnchor { .. } => Exit::Usage,
            Self::Write { .. }
            | Self::Changed(_)
            | Self::Unusable(_)
            | Self::Broken { .. }
            | Self::Rejected(_)
            | Self::Clock
            | Self::Truncated { .. }
            | Self::Replaced { .. } => Exit::JobFailed,
            Self::Random(_) | Self::Signer(_) => Exit::Hsm,
        }
    }

    /// The next move for a person, where there is one to name.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Read { .. } | Self::Clock => return None,
            Self::Random(error) => return error.hint(),
            Self::Write { .. } | Self::Unusable(_) => {
                "make room on the disk, then start again: nothing that was confirmed is lost"
            }
            Self::Exists(_) => "name a new file; a log is never written over",
            Self::Locked(_) => "end the other station, or give this one a log of its own",
            Self::Changed(_) => {
                "find out what wrote to it; then `keyferry audit verify` says whether the log is whole"
            }
            Self::Broken {
                fault: Fault::Unfinished,
                ..
            } => {
                "if a station is writing just now, try again; a line that was never finished is cut off, and noted, when the log is next opened for writing"
            }
            Self::Broken { .. } => {
                "keep the file as it is, compare it with your copies, and begin a new log"
            }
            Self::Empty(_) => "is this the right file? `keyferry audit create` begins a log",
            Self::Rejected(_) => "this is a mistake of the program that writes the log",
            Self::Signer(_) => "check the token and the audit key",
            Self::OtherSigner { .. } => "use the audit key that the log was created with",
            Self::NotAnAnchor { .. } => {
                "an anchor is what `keyferry audit checkpoint --out` writes, or the order and receipt of a device"
            }
            Self::Truncated { .. } | Self::Replaced { .. } => {
                "keep the file as it is, look for the log that the anchor belongs to, and find out who could write to it"
            }
        };
        Some(hint.into())
    }
}
