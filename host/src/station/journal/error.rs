//! What can go wrong with a journal.

use std::path::PathBuf;

use crate::error::Exit;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file is something else.
    #[error("{} is no journal of a station", path.display())]
    NotAJournal {
        /// The file.
        path: PathBuf,
    },
    /// A newer program has written it.
    #[error("{} is a journal of version {found}, and this program knows versions up to {known}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest known.
        known: i64,
    },
    /// The file is damaged.
    #[error("the journal {} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        reason: String,
    },
    /// There is no such file.
    #[error("there is no journal at {}", path.display())]
    NotThere {
        /// Where it should be.
        path: PathBuf,
    },
    /// Something is to be written over it.
    #[error("the journal {} is no place for a page", path.display())]
    NotForOutput {
        /// The file.
        path: PathBuf,
    },
    /// It knows no run of that name.
    #[error("the journal has no run '{}'", run.escape_default())]
    NoRun {
        /// What was asked for.
        run: String,
    },
    /// It knows several runs whose names begin so.
    #[error("the journal has several runs whose names begin with '{}'", digits.escape_default())]
    SeveralRuns {
        /// What was asked for.
        digits: String,
    },
    /// Another station works with it.
    #[error("the journal {} is in use by another station", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// What it writes would not be on the disk when it says so.
    #[error("the journal {} cannot be made durable: {setting} is {found}", path.display())]
    NotDurable {
        /// The file.
        path: PathBuf,
        /// The setting of SQLite.
        setting: &'static str,
        /// Its value.
        found: String,
    },
    /// SQLite failed.
    #[error("the journal {} failed: {source}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: rusqlite::Error,
    },
    /// A unit is not where its next step begins.
    #[error("the journal has no unit {unit} that could become '{step}'")]
    OutOfStep {
        /// The unit's number.
        unit: i64,
        /// The step.
        step: &'static str,
    },
    /// A key cannot be written down or read back.
    #[error("the journal cannot hold the key for slot {slot}")]
    Key {
        /// The slot.
        slot: u16,
    },
    /// It names a folder that no station has named so.
    #[error("the journal names a folder '{}' for a backend's keys, and no station has named one so", folder.escape_default())]
    Folder {
        /// The name.
        folder: String,
    },
    /// What the registry is to be told cannot be written down or read back.
    #[error("the journal cannot hold what the registry is to be told")]
    Finding,
    /// The clock is before 1970 or after 9999.
    #[error("the station's clock is wrong")]
    Clock,
    /// There is none.
    #[error("the station has no journal")]
    None,
    /// No randomness.
    #[error("there is no randomness for the name of a run")]
    Random,
}

impl JournalError {
    /// The exit code for it.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::NotAJournal { .. }
            | Self::NotThere { .. }
            | Self::NotForOutput { .. }
            | Self::NoRun { .. }
            | Self::SeveralRuns { .. }
            | Self::Newer { .. }
            | Self::InUse { .. } => Exit::Usage,
            Self::Damaged { .. }
            | Self::NotDurable { .. }
            | Self::Database { .. }
            | Self::OutOfStep { .. }
            | Self::Key { .. }
            | Self::Folder { .. }
            | Self::Finding
            | Self::Clock
            | Self::None
            | Self::Random => Exit::JobFailed,
        }
    }

    /// The next move, for a person.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::NotAJournal { .. } => "check the name after journal in the plan",
            Self::NotThere { .. } => "name the file that stands after journal in the plan",
            Self::NotForOutput { .. } => "name another file after --out",
            Self::NoRun { .. } => {
                "`keyferry station runs --journal FILE` shows the runs; leave the name out for the last one"
            }
            Self::SeveralRuns { .. } => {
                "give more digits; `keyferry station runs --journal FILE` shows the runs"
            }
            Self::Newer { .. } => "update this program",
            Self::Damaged { .. } => {
                "keep the file for those who mend it; registry and audit log tell what was done"
            }
            Self::InUse { .. } => {
                "one journal is for one station at a time: wait until the other has ended, or give this one a journal of its own"
            }
            Self::NotDurable { .. } => {
                "put the journal on a local disk: network file systems and memory do not keep it"
            }
            Self::Database { .. } => "check the disk and the rights to the file and its folder",
            Self::OutOfStep { .. } | Self::Key { .. } | Self::Finding => {
                "run the plan again; if it stays, somebody has changed the journal by other means"
            }
            Self::Folder { .. } => {
                "somebody has changed the journal by other means: keep the file for those who mend it"
            }
            Self::None => "name one in the plan",
            Self::Clock => "set the clock",
            Self::Random => "check the operating system",
        }
    }
}
