//! The books that a command writes into: the audit log and the registry.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use clap::Args;

use super::policy::RegistryArgs;
use crate::audit::AuditLog;
use crate::error::Failure;
use crate::station::Records;
use crate::station::registry::Registry;

/// Where a station writes down what it does.
#[derive(Debug, Args)]
#[command(next_help_heading = "Records")]
pub(super) struct RecordArgs {
    #[command(flatten)]
    registry: RegistryArgs,
    /// The audit log, begun with `keyferry audit create`.
    #[arg(long, value_name = "FILE", env = "KEYFERRY_AUDIT")]
    audit: Option<PathBuf>,
}

impl RecordArgs {
    /// Opens the books, which must be there: an empty registry under a name written wrongly would know no device, and so refuse none
    /// for its keys.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) fn open(&self) -> Result<Arc<Mutex<Records>>, Failure> {
        self.with(self.registry.open()?)
    }

    /// Opens the books where devices are enrolled; begins a registry that is not there yet.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) fn open_or_begin(&self) -> Result<Arc<Mutex<Records>>, Failure> {
        self.with(self.registry.open_or_begin()?)
    }

    fn with(&self, registry: Option<Registry>) -> Result<Arc<Mutex<Records>>, Failure> {
        let audit = self.audit.as_deref().map(AuditLog::open).transpose()?;
        Ok(Arc::new(Mutex::new(Records {
            audit,
            registry,
            journal: None,
        })))
    }
}
