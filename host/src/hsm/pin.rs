//! Where a token's PIN comes from: a prompt, a file that only its owner can read, an environment variable, or the
//! `pin-source` of a PKCS#11 URI. Never from an argument, which every process of the machine can see; and it never reaches
//! a log, an error or `Debug`.

use std::ffi::OsString;
use std::fmt;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use zeroize::Zeroizing;

/// What a login takes.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The PIN; nothing if it is entered at the token itself.
    pub(super) pin: Option<SecretString>,
    /// The PIN of keys that ask for it at each use (`CKA_ALWAYS_AUTHENTICATE`), where it is not the same.
    pub(super) key_pin: Option<SecretString>,
    /// Whether the PIN is sent even if a wrong one would lock the token.
    pub(super) even_at_last_try: bool,
}

impl Credentials {
    /// A PIN. It is not sent to a token that has one try left.
    #[must_use]
    pub const fn pin(pin: SecretString) -> Self {
        Self {
            pin: Some(pin),
            key_pin: None,
            even_at_last_try: false,
        }
    }

    /// The PIN is entered at the token, which has keys or a reader for it (`CKF_PROTECTED_AUTHENTICATION_PATH`).
    #[must_use]
    pub const fn pin_pad() -> Self {
        Self {
            pin: None,
            key_pin: None,
            even_at_last_try: false,
        }
    }

    /// Another PIN for keys that ask for one at each use.
    #[must_use]
    pub fn with_key_pin(mut self, pin: SecretString) -> Self {
        self.key_pin = Some(pin);
        self
    }

    /// Sends the PIN even if a wrong one would lock the token: a person has said so.
    #[must_use]
    pub fn even_at_last_try(mut self) -> Self {
        self.even_at_last_try = true;
        self
    }
}

/// The environment variable that is looked at when no other source is named.
pub const PIN_VARIABLE: &str = "KEYFERRY_PIN";

/// Longest PIN file that is read, in bytes.
const MAXIMUM_FILE: u64 = 4096;

/// Why there is no PIN.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The file cannot be read.
    #[error("the PIN file {} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Others than its owner may read or write the file.
    #[error("the PIN file {} is open to others (mode {mode:04o})", path.display())]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The source has no usable PIN: empty, not one line, or not UTF-8.
    #[error("there is no usable PIN in {source_name}")]
    Unusable {
        /// The file or variable.
        source_name: String,
    },
    /// The environment variable that was named is not set.
    #[error("the environment variable {0} is not set")]
    NotSet(String),
    /// A `pin-source` that is not a file.
    #[error("this pin-source is not supported: only file:PATH is")]
    UnsupportedSource,
    /// No source is named, and there is nobody to ask.
    #[error("the token needs a PIN, and there is no terminal to ask at")]
    NobodyToAsk,
    /// The prompt failed.
    #[error("the PIN could not be asked for: {0}")]
    Prompt(std::io::Error),
}

impl PinError {
    /// The next move for a person, where there is one to name.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unreadable { .. } | Self::Prompt(_) => None,
            Self::OpenToOthers { path, .. } => Some(format!("chmod 600 {}", path.display())),
            Self::Unusable { .. } => Some("it must hold the PIN on one line, in UTF-8".into()),
            Self::NotSet(_) | Self::UnsupportedSource | Self::NobodyToAsk => Some(format!(
                "use --pin-file, --pin-env, {PIN_VARIABLE} or pin-source=file:PATH in the URI"
            )),
        }
    }
}

/// One place a PIN can come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PinSource {
    /// The first line of a file that belongs to its owner alone.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A person at the terminal.
    Prompt,
}

/// After "the PIN": where it comes from.
impl fmt::Display for PinSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "in {}", path.display()),
            Self::Environment(name) => write!(f, "in the environment variable {name}"),
            Self::Prompt => f.write_str("that was typed"),
        }
    }
}

impl PinSource {
    /// Reads a `pin-source` (RFC 7512 §2.4): a path or a `file:` URI.
    ///
    /// # Errors
    /// [`PinError::UnsupportedSource`] for anything else, such as a command to run.
    pub fn from_uri(source: &str) -> Result<Self, PinError> {
        let path = match source.strip_prefix("file:") {
            Some(rest) => rest.strip_prefix("//").unwrap_or(rest),
            None if source.starts_with('|') || source.contains("://") => {
                return Err(PinError::UnsupportedSource);
            }
            None => source,
        };
        if path.is_empty() {
            return Err(PinError::UnsupportedSource);
        }
        Ok(Self::File(path.into()))
    }

    /// The source to use when none is named: the environment variable [`PIN_VARIABLE`] if it is set, else a person.
    #[must_use]
    pub fn unnamed() -> Self {
        if std::env::var_os(PIN_VARIABLE).is_some() {
            Self::Environment(PIN_VARIABLE.into())
        } else {
            Self::Prompt
        }
    }

    /// Fetches the PIN; `token` is what a prompt calls the token.
    ///
    /// # Errors
    /// [`PinError`].
    pub fn fetch(&self, token: &str) -> Result<SecretString, PinError> {
        match self {
            Self::File(path) => from_file(path),
            Self::Environment(name) => {
                let value = std::env::var_os(name).ok_or_else(|| PinError::NotSet(name.clone()))?;
                from_variable(name, value)
            }
            Self::Prompt => {
                if !std::io::stdin().is_terminal() {
                    return Err(PinError::NobodyToAsk);
                }
                rpassword::prompt_password(format!("PIN of {token}: "))
                    .map(SecretString::from)
                    .map_err(PinError::Prompt)
            }
        }
    }
}

fn from_variable(name: &str, value: OsString) -> Result<SecretString, PinError> {
    match value.into_string() {
        Ok(pin) if !pin.is_empty() => Ok(SecretString::from(pin)),
        Ok(_) | Err(_) => Err(PinError::Unusable {
            source_name: format!("the environment variable {name}"),
        }),
    }
}

fn from_file(path: &Path) -> Result<SecretString, PinError> {
    use std::io::Read;
    let unreadable = |source| PinError::Unreadable {
        path: path.into(),
        source,
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    check_owner_only(path, &file.metadata().map_err(unreadable)?)?;
    // Reserved in full, so that no copy is left behind by growing.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAXIMUM_FILE as usize + 64));
    file.take(MAXIMUM_FILE)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    let line = bytes
        .strip_suffix(b"\r\n")
        .or_else(|| bytes.strip_suffix(b"\n"))
        .unwrap_or(&bytes);
    match std::str::from_utf8(line) {
        Ok(pin) if !pin.is_empty() && !pin.contains(['\n', '\r']) => Ok(SecretString::from(pin)),
        Ok(_) | Err(_) => Err(PinError::Unusable {
            source_name: path.display().to_string(),
        }),
    }
}

/// Refuses a file that group or others may read or write. Other systems than Unix have no such bits; there the folder's
/// access rights must do.
#[cfg(unix)]
pub(crate) fn check_owner_only(path: &Path, metadata: &std::fs::Metadata) -> Result<(), PinError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 {
        Ok(())
    } else {
        Err(PinError::OpenToOthers {
            path: path.into(),
            mode,
        })
    }
}

#[cfg(not(unix))]
pub(crate) fn check_owner_only(
    _path: &Path,
    _metadata: &std::fs::Metadata,
) -> Result<(), PinError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_source_is_a_file_or_nothing() {
        for source in ["file:/etc/pin", "file:///etc/pin", "/etc/pin"] {
            assert_eq!(
                PinSource::from_uri(source).unwrap(),
                PinSource::File("/etc/pin".into())
            );
        }
        for source in ["|/bin/ask", "https://x/pin", "file:", ""] {
            assert!(PinSource::from_uri(source).is_err(), "{source}");
        }
    }
}
