//! The broker's log: one line for each request that matters, and what became of it. There is no place in it for a key or a PIN.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use der::DateTime;
use serde::Serialize;

use super::error::BrokerError;
use super::wire::Counts;

/// One line.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Line {
    /// RFC 3339, UTC.
    pub(super) time: String,
    /// Who asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<u32>,
    /// What was asked.
    pub(super) request: &'static str,
    /// The kind of order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<&'static str>,
    /// For which device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) device: Option<String>,
    /// Its identity key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) identity: Option<String>,
    /// Labels of the keys.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) keys: Vec<String>,
    /// SHA-256 of the order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) order: Option<String>,
    /// `granted`, `refused` or `failed`.
    pub(super) verdict: &'static str,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    /// The counts after it, in all.
    #[serde(flatten)]
    pub(super) counts: Counts,
}

impl Line {
    /// For people.
    #[must_use]
    pub(super) fn words(&self) -> String {
        let mut words = format!("{}: {}", self.request, self.verdict);
        let mut add = |name: &str, value: &Option<String>| {
            if let Some(value) = value {
                words.push_str(&format!(", {name} {value}"));
            }
        };
        add("kind", &self.kind.map(str::to_owned));
        add("device", &self.device);
        add(
            "keys",
            &Some(self.keys.join(", ")).filter(|keys| !keys.is_empty()),
        );
        if let Some(reason) = &self.reason {
            words.push_str(&format!(": {reason}"));
        }
        words.push_str(&format!(
            " ({} keys for {} devices, {} orders, {} refused)",
            self.counts.keys_wrapped, self.counts.devices, self.counts.orders, self.counts.refused
        ));
        // Labels come from a token and a station: neither draws on the operator's screen.
        words.replace(char::is_control, "?")
    }
}

/// Where the lines go.
pub struct Journal {
    file: Option<(PathBuf, File)>,
    told: Box<dyn Fn(&str) + Send>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl Journal {
    /// Tells people through `told`, and appends to the file, which is made for its owner alone.
    ///
    /// # Errors
    /// [`BrokerError::Log`], [`BrokerError::OpenLog`].
    pub fn new(path: Option<&Path>, told: Box<dyn Fn(&str) + Send>) -> Result<Self, BrokerError> {
        let file = match path {
            None => None,
            Some(path) => {
                let file = open(path).map_err(|source| BrokerError::Log {
                    path: path.to_owned(),
                    source,
                })?;
                check_owner_only(path, &file)?;
                Some((path.to_owned(), file))
            }
        };
        Ok(Self { file, told })
    }

    /// Writes a line, and does not come back before it is on the disk.
    ///
    /// # Errors
    /// [`BrokerError::Log`]: then what it says must not happen.
    pub(super) fn write(&mut self, mut line: Line, counts: &Counts) -> Result<(), BrokerError> {
        line.time = DateTime::from_system_time(SystemTime::now())
            .map(|time| time.to_string())
            .unwrap_or_default();
        line.counts = *counts;
        if let Some((path, file)) = &mut self.file {
            let mut append = || {
                let mut text = serde_json::to_vec(&line)?;
                text.push(b'\n');
                let before = file.metadata()?.len();
                file.write_all(&text).inspect_err(|_| {
                    // The next line begins where this one did. What cannot be cut back is no file.
                    let _ = file.set_len(before);
                })?;
                file.sync_data()
            };
            append().map_err(|source| BrokerError::Log {
                path: path.clone(),
                source,
            })?;
        }
        (self.told)(&line.words());
        Ok(())
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)
}

#[cfg(unix)]
fn check_owner_only(path: &Path, file: &File) -> Result<(), BrokerError> {
    use std::os::unix::fs::MetadataExt;
    let metadata = file.metadata().map_err(|source| BrokerError::Log {
        path: path.to_owned(),
        source,
    })?;
    // A device such as a terminal belongs to whom it belongs.
    if metadata.is_file() && metadata.mode() & 0o077 != 0 {
        return Err(BrokerError::OpenLog {
            path: path.to_owned(),
        });
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_owner_only(_path: &Path, _file: &File) -> Result<(), BrokerError> {
    Ok(())
}
