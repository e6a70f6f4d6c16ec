//! Where the password of a server comes from: a file that only its owner can read, named by a person; or the password file of all
//! PostgreSQL programs. Never from a URL, an argument or a log.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::location::{Address, Host};
use crate::hsm::{PinError, PinSource, check_owner_only};

/// Names the password file of all PostgreSQL programs.
const VARIABLE: &str = "PGPASSFILE";

/// Longest password file that is read, in bytes.
const MAXIMUM_FILE: u64 = 1 << 20;

/// What is wrong with a password file.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// It cannot be read.
    #[error("the password file {} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Others than its owner may read or write it.
    #[error("the password file {} is open to others (mode {mode:04o})", path.display())]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// There is no password in it.
    #[error("there is no usable password in {}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
    },
}

impl PasswordError {
    /// The next move, for a person.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Unreadable { .. } => "check the file's name and the rights to it".to_owned(),
            Self::OpenToOthers { path, .. } => format!("chmod 600 {}", path.display()),
            Self::Unusable { .. } => {
                "the file must hold the password on one line, in UTF-8".to_owned()
            }
        }
    }

    fn of(path: &Path, error: PinError) -> Self {
        let path = path.into();
        match error {
            PinError::Unreadable { source, .. } => Self::Unreadable { path, source },
            PinError::OpenToOthers { mode, .. } => Self::OpenToOthers { path, mode },
            PinError::Unusable { .. }
            | PinError::NotSet(_)
            | PinError::UnsupportedSource
            | PinError::NobodyToAsk
            | PinError::Prompt(_) => Self::Unusable { path },
        }
    }
}

/// Looks a password up. Without one, the server may let the station in by other means, such as the user of the operating system.
///
/// # Errors
/// [`PasswordError`]: of the file that was named, or of the common one if it is there and cannot be read or is open to others.
pub(super) fn password(
    address: &Address,
    named: Option<&Path>,
) -> Result<Option<SecretString>, PasswordError> {
    if let Some(path) = named {
        let found = PinSource::File(path.into()).fetch("the registry");
        return found
            .map(Some)
            .map_err(|error| PasswordError::of(path, error));
    }
    let Some(path) = common_file() else {
        return Ok(None);
    };
    let unreadable = |source| PasswordError::Unreadable {
        path: path.clone(),
        source,
    };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let metadata = file.metadata().map_err(unreadable)?;
    check_owner_only(&path, &metadata).map_err(|error| PasswordError::of(&path, error))?;
    let mut text = Zeroizing::new(String::new());
    let read = file.take(MAXIMUM_FILE).read_to_string(&mut text);
    read.map_err(unreadable)?;
    Ok(text.lines().find_map(|line| entry(line, address)))
}

fn common_file() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(VARIABLE) {
        return Some(path.into());
    }
    let (variable, name) = if cfg!(windows) {
        ("APPDATA", "postgresql/pgpass.conf")
    } else {
        ("HOME", ".pgpass")
    };
    std::env::var_os(variable).map(|folder| PathBuf::from(folder).join(name))
}

/// The password of a line, if it is for this server: `host:port:database:user:password`, where a star stands for anything
/// (<https://www.postgresql.org/docs/current/libpq-pgpass.html>).
fn entry(line: &str, address: &Address) -> Option<SecretString> {
    if line.starts_with('#') {
        return None;
    }
    let mut fields: Vec<Zeroizing<String>> = vec![Zeroizing::new(String::new())];
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        let letter = match letter {
            ':' if fields.len() < 5 => {
                fields.push(Zeroizing::new(String::new()));
                continue;
            }
            '\\' => letters.next()?,
            letter => letter,
        };
        fields.last_mut()?.push(letter);
    }
    let [host, port, database, user, password] = fields.as_slice() else {
        return None;
    };
    let is = |field: &str, wanted: &str| field == "*" || field == wanted;
    let is_host = match &address.host {
        Host::Name(name) => is(host, name),
        Host::Socket(folder) => is(host, "localhost") || is(host, &folder.to_string_lossy()),
    };
    let is_it = is_host
        && is(port, &address.port.to_string())
        && is(database, &address.database)
        && is(user, &address.user);
    is_it.then(|| SecretString::from(password.as_str()))
}

/// The password, to be given to the server.
pub(super) fn bytes(password: &SecretString) -> &[u8] {
    password.expose_secret().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::location::Location;
    use super::*;

    #[test]
    fn the_first_line_that_fits_has_the_password() {
        let name = Path::new("postgresql://line@localhost/plant");
        let Ok(Location::Server(address)) = Location::parse(name, Path::new("")) else {
            panic!("it is a URL");
        };
        let of = |line| entry(line, &address).map(|password| password.expose_secret().to_owned());
        assert_eq!(
            of("localhost:5432:plant:line:a:b\\:c\\\\").unwrap(),
            "a:b:c\\"
        );
        assert_eq!(of("*:*:*:*:x").unwrap(), "x");
        for line in [
            "# *:*:*:*:x",
            "",
            "*:*:*:x",
            "other:*:*:*:x",
            "*:5433:*:*:x",
            "*:*:other:*:x",
            "*:*:*:other:x",
        ] {
            assert_eq!(of(line), None, "{line}");
        }
    }
}
