//! `keyferry audit`: begin a log, vouch for it, verify it, read it.

mod checkpoint;
mod create;
mod export;
mod import;
mod show;
mod verify;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::key::public_key_file;
use super::{Context, Outcome};
use crate::audit::GivenKeys;
use crate::error::Failure;
use crate::hsm::KeyType;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Begin a log: which keys may sign orders and checkpoints stands in its first line.
    Create(create::Create),
    /// Have the audit key sign the log so far; keep the file that --out names elsewhere, as an anchor.
    Checkpoint(checkpoint::Checkpoint),
    /// Say whether a log is whole, and what became of each key. Needs public keys only.
    Verify(verify::Verify),
    /// Show a log, one line for each record.
    Show(show::Show),
    /// Write a log as a table.
    Export(export::Export),
    /// Bring receipts of detached orders back, and have the HSM verify their proofs.
    Import(import::Import),
}

pub(super) fn run(context: &Context, command: Command) -> Outcome {
    match command {
        Command::Create(arguments) => create::create(context, &arguments),
        Command::Checkpoint(arguments) => checkpoint::checkpoint(context, &arguments),
        Command::Verify(arguments) => verify::verify(context, &arguments),
        Command::Show(arguments) => show::show(context, &arguments),
        Command::Export(arguments) => export::export(context, &arguments),
        Command::Import(arguments) => import::import(context, &arguments),
    }
}

/// Public keys that the auditor has from elsewhere.
#[derive(Debug, Args)]
struct KeyFiles {
    /// Public key of an authority that may sign orders; without, those that the log names. May be given several times.
    #[arg(long = "authority", value_name = "FILE")]
    authorities: Vec<PathBuf>,
    /// Public key of the audit key; without, the one that the log names.
    #[arg(long, value_name = "FILE")]
    audit_key: Option<PathBuf>,
}

impl KeyFiles {
    fn read(&self) -> Result<GivenKeys, Failure> {
        Ok(GivenKeys {
            authorities: self
                .authorities
                .iter()
                .map(|path| p256_file(path))
                .collect::<Result<_, _>>()?,
            audit_key: self.audit_key.as_deref().map(p256_file).transpose()?,
        })
    }
}

/// The `SubjectPublicKeyInfo` of a P-256 key in a file.
fn p256_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let key = public_key_file(path)?;
    if key.key_type() != KeyType::P256 {
        return Err(Failure::OtherType {
            path: path.into(),
            found: key.key_type(),
            wanted: KeyType::P256,
        });
    }
    Ok(key.spki_der().to_vec())
}
