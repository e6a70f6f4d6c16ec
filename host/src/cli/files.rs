//! Files a command writes, whole or not at all, and files it reads, up to a length that makes sense for them.

use std::io::{Read, Write};
use std::path::Path;

use crate::error::Failure;

/// Reads a file of at most `limit` bytes.
///
/// # Errors
/// [`Failure::Read`], [`Failure::TooLong`].
pub(super) fn read_short(path: &Path, limit: usize) -> Result<Vec<u8>, Failure> {
    let failed = |source| Failure::Read {
        path: path.into(),
        source,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    // One byte more than allowed tells that there is more, and stops at it, whatever the file's name stands for.
    file.take(u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() > limit {
        return Err(Failure::TooLong {
            path: path.into(),
            limit,
        });
    }
    Ok(bytes)
}

/// Writes a file that appears under its name only when it is complete. An existing file is left alone unless `force` is set.
///
/// # Errors
/// [`Failure::OutputExists`], [`Failure::Write`].
pub fn write_new(path: &Path, bytes: &[u8], force: bool) -> Result<(), Failure> {
    write_new_with(path, force, |file| {
        file.write_all(bytes).map_err(Into::into)
    })
}

/// As [`write_new`], of content that comes piece by piece.
///
/// # Errors
/// [`Failure::OutputExists`], [`Failure::Write`]; what `fill` gives.
pub(super) fn write_new_with<T>(
    path: &Path,
    force: bool,
    fill: impl FnOnce(&mut dyn Write) -> Result<T, Filling>,
) -> Result<T, Failure> {
    let failed = |source| Failure::Write {
        path: path.into(),
        source,
    };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    let mut file = temporary(folder).map_err(failed)?;
    let filled = fill(&mut file).map_err(|error| match error {
        Filling::Write(source) => failed(source),
        Filling::Content(failure) => failure,
    })?;
    file.as_file().sync_all().map_err(failed)?;
    if force {
        file.persist(path).map_err(|error| failed(error.error))?;
        return Ok(filled);
    }
    match file.persist_noclobber(path) {
        Ok(_) => Ok(filled),
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(Failure::OutputExists(path.into()))
        }
        Err(error) => Err(failed(error.error)),
    }
}

/// Why a file was not filled.
pub(super) enum Filling {
    /// It could not be written.
    Write(std::io::Error),
    /// There was something wrong with what was to be in it.
    Content(Failure),
}

impl From<std::io::Error> for Filling {
    fn from(error: std::io::Error) -> Self {
        Self::Write(error)
    }
}

impl From<crate::audit::AuditError> for Filling {
    fn from(error: crate::audit::AuditError) -> Self {
        Self::Content(error.into())
    }
}

/// A temporary file with the permissions of any new file: what is written here is wrapped or public.
fn temporary(folder: &Path) -> std::io::Result<tempfile::NamedTempFile> {
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

/// Refuses early what [`write_new`] would refuse in the end, before the token has done its work for nothing.
///
/// # Errors
/// [`Failure::OutputExists`].
pub(super) fn check_new(path: &Path, force: bool) -> Result<(), Failure> {
    if !force && path.symlink_metadata().is_ok() {
        return Err(Failure::OutputExists(path.into()));
    }
    Ok(())
}
