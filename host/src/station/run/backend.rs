//! What a backend gets of the devices that were done: folders with a signed manifest, each key in one of them.
//!
//! Keys are given to a folder in the journal before it is written, and taken out of it when it has its name. A folder appears whole or
//! not at all, so a stop in between is found out by looking whether it is there.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use keyferry_protocol::identity::Fingerprint;

use super::lock;
use crate::export::{ExportError, Folder, MAXIMUM_KEYS, Manifest, Signer, Trust, read_folder};
use crate::hsm::PublicKey;
use crate::station::journal::{Journal, JournalError, RunId};
use crate::station::{JobError, Records};

/// Signs a document: the signature in DER.
pub type Sign<'a> = dyn Fn(&[u8]) -> Result<Vec<u8>, ExportError> + 'a;

/// Where folders are made, for whom, and who signs.
pub struct Manifests<'a> {
    /// The folder of the folders.
    pub folder: &'a Path,
    /// The backend's key.
    pub recipient: &'a PublicKey,
    /// The key that signs, for what was signed before a stop.
    pub signer: &'a Signer,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    /// Signs a document.
    pub sign: &'a Sign<'a>,
}

/// Writes all that is to be written, also of runs that were stopped before. Gives the folders, and how many keys are in each.
///
/// # Errors
/// [`JobError::Export`], [`JobError::Journal`]; what is not written then is written by the next run.
pub fn write_exports(
    records: &Mutex<Records>,
    run: RunId,
    manifests: &Manifests<'_>,
) -> Result<Vec<(PathBuf, usize)>, JobError> {
    let claimed = with(records, Journal::claimed_folders)?;
    for number in 1_u32.. {
        let name = format!("{run}-{number}");
        if claimed.contains(&name) {
            continue;
        }
        if with(records, |journal| {
            journal.claim_exports(&name, MAXIMUM_KEYS)
        })? == 0
        {
            break;
        }
    }
    let mut written = Vec::new();
    for name in with(records, Journal::claimed_folders)? {
        let exports = with(records, |journal| journal.exports_in(&name))?;
        let path = manifests.folder.join(&name);
        if path.symlink_metadata().is_ok() {
            // It has its name, so it is whole. It is ours if it is signed, and all that belongs into it is there.
            let found = read_folder(&path, Trust::Signer(manifests.signer))?;
            let all = exports.iter().all(|export| {
                let mut keys = found.keys.iter();
                keys.any(|key| (key.device, key.slot) == (export.entry.device, export.entry.slot))
            });
            if !all {
                return Err(ExportError::FolderExists(path).into());
            }
        } else {
            std::fs::create_dir_all(manifests.folder).map_err(|source| ExportError::Write {
                path: manifests.folder.to_owned(),
                source,
            })?;
            Folder::sweep(&path)?;
            let folder = Folder::begin(&path)?;
            for export in &exports {
                folder.add(&export.entry.file, &export.blob)?;
            }
            let entries = exports.iter().map(|export| export.entry.clone()).collect();
            let manifest = Manifest::new(manifests.recipient, entries, manifests.fingerprint)?;
            let json = manifest.to_json()?;
            let signature = (manifests.sign)(&json)?;
            folder.finish(&json, &signature)?;
        }
        with(records, |journal| journal.exported(&name))?;
        written.push((path, exports.len()));
    }
    Ok(written)
}

fn with<T>(
    records: &Mutex<Records>,
    work: impl FnOnce(&Journal) -> Result<T, JournalError>,
) -> Result<T, JobError> {
    match &lock(records).journal {
        Some(journal) => Ok(work(journal)?),
        None => Err(JournalError::None.into()),
    }
}
