//! What can go wrong with a recording.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// What went wrong with a recording.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// There is a file of that name.
    #[error("{} exists", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be made.
    #[error("the recording {} cannot be made: {source}", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// It cannot be written any more.
    #[error("the recording {} cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// It cannot be read.
    #[error("the recording {} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// It is something else.
    #[error("{} is no recording of a line", path.display())]
    NotOne {
        /// The file.
        path: PathBuf,
    },
    /// It was made by a newer program.
    #[error("{} is a recording of form {found}; this program reads form {known}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its form.
        found: u32,
        /// The newest form that is known here.
        known: u32,
    },
    /// A line in it is none of a recording's.
    #[error("line {line} of {} is damaged", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
    },
}

impl CaptureError {
    /// The next move, for a person.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Exists { .. } => {
                "choose another name, or remove it: no recording is ever overwritten"
            }
            Self::Create { source, .. } if matches!(source.kind(), io::ErrorKind::NotFound) => {
                "make its folder first, or choose another; nothing was sent to the device"
            }
            Self::Create { .. } => {
                "look for room and rights in that folder; nothing was sent to the device"
            }
            Self::Write { .. } => "look for room and rights in that folder",
            Self::Read { .. } => "check the file's name, and whether you may read it",
            Self::NotOne { .. } => {
                "a recording is made with --capture FILE on a `keyferry device` command"
            }
            Self::Format { .. } => "update this program",
            Self::Line { .. } => {
                "what stands before it has been shown; take an undamaged copy for the rest"
            }
        }
    }
}
