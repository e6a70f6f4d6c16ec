//! What a backend gets of the devices that were done: folders with a signed manifest, each key in one of them.
//!
//! Keys are given to a folder in the journal before it is written, and taken out of it when it has its name. A folder appears whole or
//! not at all, so a stop in between is found out by looking whether it is there.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use keyferry_protocol::identity::Fingerprint;

use super::lock;
use crate::export::{
    ExportError, Folder, MAXIMUM_KEYS, Manifest, Signer, Trust, make_folder, read_folder,
    sync_folder,
};
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

/// Writes all that is to be written for the backend, also of runs that were stopped before. Tells of each folder and how many keys are in it,
/// and gives how many there are in all. Keys that are wrapped for another backend stay where they are.
///
/// # Errors
/// [`JobError::Export`], [`JobError::Journal`]: the first that was met; all folders are tried. What is not written then is written by the
/// next run.
pub fn write_exports(
    records: &Mutex<Records>,
    run: RunId,
    manifests: &Manifests<'_>,
    on_written: &mut dyn FnMut(&Path, usize),
) -> Result<usize, JobError> {
    let recipient = manifests.recipient.fingerprint();
    let claimed = with(records, |journal| journal.claimed_folders(recipient))?;
    for number in 1_u32.. {
        let name = format!("{run}-{number}");
        if claimed.contains(&name) {
            continue;
        }
        if with(records, |journal| {
            journal.claim_exports(run, recipient, &name, MAXIMUM_KEYS)
        })? == 0
        {
            break;
        }
    }
    let mut keys = 0;
    let mut failed = Ok(());
    for name in with(records, |journal| journal.claimed_folders(recipient))? {
        match write_folder(records, &name, manifests) {
            Ok((path, written)) => {
                on_written(&path, written);
                keys += written;
            }
            Err(error) => failed = failed.and(Err(error)),
        }
    }
    failed.map(|()| keys)
}

/// Writes a folder, unless that was done before a stop. Gives where it is, and how many keys are in it.
fn write_folder(
    records: &Mutex<Records>,
    name: &str,
    manifests: &Manifests<'_>,
) -> Result<(PathBuf, usize), JobError> {
    // Whoever can change the journal must not say where files are written.
    if !is_ours(name) {
        let folder = name.to_owned();
        return Err(JournalError::Folder { folder }.into());
    }
    let recipient = manifests.recipient.fingerprint();
    let exports = with(records, |journal| journal.exports_in(name, recipient))?;
    let entries = exports.iter().map(|export| export.entry.clone()).collect();
    // It checks the names of the files as well.
    let manifest = Manifest::new(manifests.recipient, entries, manifests.fingerprint)?;
    let path = manifests.folder.join(name);
    if path.symlink_metadata().is_ok() {
        // It has its name, so it is whole. It is ours if it is signed for this backend, and all that belongs into it is there.
        let found = read_folder(&path, Trust::Signer(manifests.signer))?;
        let all = manifest.keys.iter().all(|key| found.keys.contains(key));
        if !all || found.recipient != manifest.recipient {
            return Err(ExportError::FolderExists(path).into());
        }
        // Whoever gave it its name may have been stopped before that was on the disk.
        sync_folder(manifests.folder).map_err(|source| ExportError::Write {
            path: manifests.folder.to_owned(),
            source,
        })?;
    } else {
        make_folder(manifests.folder).map_err(|source| ExportError::Write {
            path: manifests.folder.to_owned(),
            source,
        })?;
        Folder::sweep(&path)?;
        let folder = Folder::begin(&path)?;
        for export in &exports {
            folder.add(&export.entry.file, &export.blob)?;
        }
        let json = manifest.to_json()?;
        let signature = (manifests.sign)(&json)?;
        folder.finish(&json, &signature)?;
    }
    with(records, |journal| journal.exported(name, recipient))?;
    Ok((path, exports.len()))
}

/// Whether a name of a folder is made as those of [`write_exports`] are: a run, a stroke and a number. So it is one component of a path.
fn is_ours(name: &str) -> bool {
    let parts = name.split_once('-');
    parts.is_some_and(|(run, number)| {
        run.len() == 32
            && run.bytes().all(|digit| digit.is_ascii_hexdigit())
            && number.parse::<u32>().is_ok()
    })
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
