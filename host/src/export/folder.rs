//! A folder with keys of devices for a backend. It appears under its name when it is complete, and not before.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::backend::{MAXIMUM_MANIFEST, Manifest};
use super::error::ExportError;
use super::sidecar::signature_path;
use super::signature::{MAXIMUM_SIGNATURE, Trust};

/// The manifest's file; its signature is in a file of this name and `.sig`.
pub const MANIFEST: &str = "manifest.json";

/// A folder that is being written, under a temporary name beside the one it will have. It is removed again unless it is
/// finished.
#[derive(Debug)]
pub struct Folder {
    target: PathBuf,
    temporary: TempDir,
}

impl Folder {
    /// Begins a folder.
    ///
    /// # Errors
    /// [`ExportError::FolderExists`] if there is anything of this name already; [`ExportError::Write`].
    pub fn begin(target: &Path) -> Result<Self, ExportError> {
        if target.symlink_metadata().is_ok() {
            return Err(ExportError::FolderExists(target.into()));
        }
        let mut builder = tempfile::Builder::new();
        let prefix = unfinished(target);
        builder.prefix(&prefix);
        // What is in it is wrapped or public.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(std::fs::Permissions::from_mode(0o777));
        }
        let temporary =
            builder
                .tempdir_in(parent(target))
                .map_err(|source| ExportError::Write {
                    path: target.into(),
                    source,
                })?;
        Ok(Self {
            target: target.into(),
            temporary,
        })
    }

    /// Removes what a process that was killed has left of a folder of this name. Nobody else may be writing one.
    ///
    /// # Errors
    /// [`ExportError::Write`].
    pub fn sweep(target: &Path) -> Result<(), ExportError> {
        let failed = |source| ExportError::Write {
            path: target.into(),
            source,
        };
        let prefix = unfinished(target);
        for entry in std::fs::read_dir(parent(target)).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if name
                .as_encoded_bytes()
                .starts_with(prefix.as_encoded_bytes())
            {
                std::fs::remove_dir_all(entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Writes a file.
    ///
    /// # Errors
    /// [`ExportError::Write`].
    pub fn add(&self, name: &str, bytes: &[u8]) -> Result<(), ExportError> {
        File::create_new(self.temporary.path().join(name))
            .and_then(|mut file| {
                file.write_all(bytes)?;
                file.sync_all()
            })
            .map_err(|source| ExportError::Write {
                path: self.target.join(name),
                source,
            })
    }

    /// Writes manifest and signature, and gives the folder its name.
    ///
    /// # Errors
    /// [`ExportError::Write`], also if there is something of this name by now.
    pub fn finish(self, manifest: &[u8], signature: &[u8]) -> Result<(), ExportError> {
        self.finish_as(MANIFEST, manifest, signature)
    }

    /// As [`Folder::finish`], with another name for the manifest.
    ///
    /// # Errors
    /// As [`Folder::finish`].
    pub fn finish_as(
        self,
        name: &str,
        manifest: &[u8],
        signature: &[u8],
    ) -> Result<(), ExportError> {
        self.add(name, manifest)?;
        let of_signature = signature_path(Path::new(name));
        self.add(&of_signature.to_string_lossy(), signature)?;
        sync(self.temporary.path())
            .and_then(|()| std::fs::rename(self.temporary.path(), &self.target))
            .map_err(|source| ExportError::Write {
                path: self.target.clone(),
                source,
            })?;
        // Nothing is left under the temporary name.
        let _ = self.temporary.keep();
        sync(parent(&self.target)).map_err(|source| ExportError::Write {
            path: self.target.clone(),
            source,
        })
    }
}

/// How the name of a folder begins that does not have its own yet.
fn unfinished(target: &Path) -> std::ffi::OsString {
    let mut prefix = std::ffi::OsString::from(".");
    prefix.push(target.file_name().unwrap_or_default());
    prefix.push(".keyferry-");
    prefix
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    }
}

/// Makes a folder, and those above it, where there is none; their names are durable, also where whoever made it was killed before they were.
pub(crate) fn make(folder: &Path) -> std::io::Result<()> {
    let above = folder.ancestors().filter(|it| !it.as_os_str().is_empty());
    let missing = above.take_while(|it| !it.exists()).count();
    std::fs::create_dir_all(folder)?;
    let mut made = folder.ancestors().take(missing.max(1));
    made.try_for_each(|it| sync(parent(it)))
}

/// Makes a folder's names durable.
#[cfg(unix)]
pub(crate) fn sync(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Makes a folder's names durable: elsewhere the system sees to that.
#[cfg(not(unix))]
pub(crate) fn sync(_folder: &Path) -> std::io::Result<()> {
    Ok(())
}

/// Reads a folder and checks all of it: the manifest's signature, then that each file it names is the one that was signed for,
/// and that there is no other. Files whose names begin with a dot are the system's own.
///
/// # Errors
/// As [`Manifest::read`]; [`ExportError::Incomplete`], [`ExportError::BlobLength`], [`ExportError::OtherBlob`], [`ExportError::Stray`],
/// [`ExportError::Read`].
pub fn read_folder(folder: &Path, trust: Trust<'_>) -> Result<Manifest, ExportError> {
    let path = folder.join(MANIFEST);
    let document = read_file(&path, MAXIMUM_MANIFEST)?
        .ok_or_else(|| ExportError::Incomplete(MANIFEST.into()))?;
    let of_signature = signature_path(&path);
    let signature = read_file(&of_signature, MAXIMUM_SIGNATURE)?;
    let manifest = Manifest::read(&document, signature.as_deref(), trust)?;
    let mut named: HashSet<&str> = HashSet::from([MANIFEST]);
    for (name, blob) in manifest.keys.iter().flat_map(|key| key.files()) {
        let found = read_file(&folder.join(name), blob.bytes)?
            .ok_or_else(|| ExportError::Incomplete(name.into()))?;
        blob.check(name, &found)?;
        named.insert(name);
    }
    let failed = |source| ExportError::Read {
        path: folder.into(),
        source,
    };
    for entry in folder.read_dir().map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let signature = entry.path() == of_signature;
        if !signature && !named.contains(name.as_str()) && !name.starts_with('.') {
            return Err(ExportError::Stray(name));
        }
    }
    Ok(manifest)
}

/// A file's content, or nothing if there is no such file. Of one that is too long, one byte more than `limit`.
pub(crate) fn read_file(path: &Path, limit: usize) -> Result<Option<Vec<u8>>, ExportError> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let read = File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ExportError::Read {
            path: path.into(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = folder.read_dir().unwrap();
        let name = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.unwrap().file_name().to_string_lossy().into_owned()
        };
        entries.map(name).collect()
    }

    #[test]
    fn what_a_killed_process_has_left_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let (target, other) = (parent.path().join("out"), parent.path().join("out-2"));
        let folder = Folder::begin(&target).unwrap();
        folder.add("key", b"blob").unwrap();
        let others = Folder::begin(&other).unwrap();
        std::mem::forget(folder);
        Folder::sweep(&target).unwrap();
        others.finish(b"manifest", b"signature").unwrap();
        assert_eq!(names(parent.path()), ["out-2"]);
    }

    #[test]
    fn a_folder_appears_when_it_is_complete() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("out");
        let folder = Folder::begin(&target).unwrap();
        folder.add("key", b"blob").unwrap();
        assert!(!target.exists());
        // What a process that is killed here leaves behind is hidden, and has no manifest.
        let [hidden] = names(parent.path()).try_into().unwrap();
        assert!(hidden.contains(".keyferry-"));
        assert_eq!(names(&parent.path().join(hidden)), ["key"]);
        folder.finish(b"manifest", b"signature").unwrap();
        assert_eq!(names(parent.path()), ["out"]);
        let mut found = names(&target);
        found.sort();
        assert_eq!(found, ["key", "manifest.json", "manifest.json.sig"]);
        assert!(matches!(
            Folder::begin(&target),
            Err(ExportError::FolderExists(_))
        ));
    }

    #[test]
    fn a_folder_that_is_given_up_leaves_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::begin(&parent.path().join("out")).unwrap();
        folder.add("key", b"blob").unwrap();
        assert!(matches!(
            folder.add("key", b"blob"),
            Err(ExportError::Write { .. })
        ));
        drop(folder);
        assert!(names(parent.path()).is_empty());
    }

    #[test]
    fn what_came_in_the_meantime_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("out");
        let folder = Folder::begin(&target).unwrap();
        std::fs::create_dir(&target).unwrap();
        std::fs::write(target.join("theirs"), b"theirs").unwrap();
        assert!(matches!(
            folder.finish(b"manifest", b"signature"),
            Err(ExportError::Write { .. })
        ));
        assert_eq!(names(parent.path()), ["out"]);
        assert_eq!(names(&target), ["theirs"]);
    }
}
