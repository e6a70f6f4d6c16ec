//! Where a registry is: a file, or a database on a PostgreSQL server, named by a URL.
//!
//! A URL never holds a password: it stands in plans, on command lines and in errors. One that does is refused, and not repeated.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;

/// Where a registry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// In an SQLite file.
    File(PathBuf),
    /// On a server.
    Server(Box<Address>),
}

/// A database on a PostgreSQL server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The server.
    pub(super) host: Host,
    /// Its port.
    pub(super) port: u16,
    /// The role that the station logs in as.
    pub(super) user: String,
    /// The database.
    pub(super) database: String,
    /// The certificates of the CAs that the server's certificate may come from, PEM; without them nothing is encrypted.
    pub(super) authorities: Option<PathBuf>,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    Name(String),
    /// The folder of its socket.
    Socket(PathBuf),
}

/// What is wrong with a URL. It says nothing of the URL itself, which may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// It holds a password.
    #[error("the registry's URL holds a password")]
    Password,
    /// It is no URL of a database.
    #[error("the registry's URL is not understood: {0}")]
    Malformed(&'static str),
    /// Nobody would notice who listens, or who answers.
    #[error("the registry's server is on another computer, and its URL says nothing of TLS")]
    NoTls,
}

impl LocationError {
    /// The next move, for a person.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Password => {
                "take it out of the URL; put it into a file and name that with --registry-password-file or 'registry-password' in the plan, or into the file of PGPASSFILE"
            }
            Self::Malformed(_) => {
                "write postgresql://USER@HOST/DATABASE?sslrootcert=CA.pem, with percent signs for what is no letter or digit"
            }
            Self::NoTls => {
                "add ?sslrootcert=CA.pem with the CA of the server's certificate, or ?sslmode=disable where the network is safe by itself"
            }
        }
    }
}

/// What a URL of a server begins with.
const SCHEMES: [&str; 2] = ["postgresql://", "postgres://"];

/// PostgreSQL's port.
const PORT: u16 = 5432;

impl Location {
    /// Reads the name of a file or the URL of a server. File names are seen from `folder`.
    ///
    /// # Errors
    /// [`LocationError`].
    pub fn parse(name: &Path, folder: &Path) -> Result<Self, LocationError> {
        let text = name.to_str().unwrap_or_default();
        let rest = SCHEMES.iter().find_map(|scheme| text.strip_prefix(scheme));
        match rest {
            Some(rest) => Ok(Self::Server(Box::new(Address::parse(rest, folder)?))),
            None => Ok(Self::File(folder.join(name))),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Server(address) => address.fmt(f),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgresql://{}@", self.user)?;
        match &self.host {
            Host::Name(name) if name.contains(':') => write!(f, "[{name}]:{}", self.port)?,
            Host::Name(name) => write!(f, "{name}:{}", self.port)?,
            Host::Socket(folder) => write!(f, "{}:{}", folder.display(), self.port)?,
        }
        write!(f, "/{}", self.database)
    }
}

impl Address {
    fn parse(rest: &str, folder: &Path) -> Result<Self, LocationError> {
        let malformed = LocationError::Malformed;
        let (before, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = before.split_once('/').unwrap_or((before, ""));
        // A password may have an at sign in it.
        let (user, server) = authority.rsplit_once('@').unwrap_or(("", authority));
        if user.contains(':') {
            return Err(LocationError::Password);
        }
        let (host, port) = host_and_port(server)?;
        let mut host = Host::Name(decoded(host)?);
        let mut tls = None;
        let mut authorities = None;
        for parameter in parameters.split('&').filter(|it| !it.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = decoded(value)?;
            match name {
                "password" | "passfile" => return Err(LocationError::Password),
                "host" if value.starts_with('/') => host = Host::Socket(value.into()),
                "sslmode" if value == "disable" => tls = Some(false),
                "sslmode" if value == "verify-full" => tls = Some(true),
                "sslmode" => return Err(malformed("sslmode is verify-full or disable")),
                "sslrootcert" if !value.is_empty() => authorities = Some(folder.join(value)),
                _ => return Err(malformed("there is host, sslmode and sslrootcert")),
            }
        }
        let address = Self {
            host,
            port,
            user: decoded(user)?,
            database: decoded(database)?,
            authorities: authorities.filter(|_| tls != Some(false)),
        };
        if address.user.is_empty() {
            return Err(malformed("it names no user"));
        }
        if address.database.is_empty() {
            return Err(malformed("it names no database"));
        }
        if matches!(&address.host, Host::Name(name) if name.is_empty()) {
            return Err(malformed("it names no host"));
        }
        if tls == Some(true) && address.authorities.is_none() {
            return Err(malformed("verify-full needs sslrootcert"));
        }
        if tls.is_none() && address.authorities.is_none() && !address.is_local() {
            return Err(LocationError::NoTls);
        }
        Ok(address)
    }

    /// Whether nothing leaves this computer.
    fn is_local(&self) -> bool {
        match &self.host {
            Host::Socket(_) => true,
            Host::Name(name) => {
                name == "localhost" || name.parse::<IpAddr>().is_ok_and(|it| it.is_loopback())
            }
        }
    }

    /// The database's name.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The host, as a person calls it.
    pub(super) fn host(&self) -> String {
        match &self.host {
            Host::Name(name) => name.clone(),
            Host::Socket(folder) => folder.display().to_string(),
        }
    }
}

fn host_and_port(server: &str) -> Result<(&str, u16), LocationError> {
    let malformed = LocationError::Malformed;
    let (host, rest) = match server.strip_prefix('[') {
        Some(rest) => rest.split_once(']').ok_or(malformed("a bracket is open"))?,
        None => server.split_at(server.find(':').unwrap_or(server.len())),
    };
    if host.contains(',') || rest.contains(',') {
        return Err(malformed("it names more than one host"));
    }
    match rest.strip_prefix(':') {
        Some(number) => {
            let number = number.parse().map_err(|_| malformed("its port is none"))?;
            Ok((host, number))
        }
        None if rest.is_empty() => Ok((host, PORT)),
        None => Err(malformed("its port is none")),
    }
}

fn decoded(text: &str) -> Result<String, LocationError> {
    let text = percent_decode_str(text).decode_utf8();
    let text = text.map_err(|_| LocationError::Malformed("it is not UTF-8"))?;
    if text.contains(char::is_control) {
        return Err(LocationError::Malformed("it has control characters"));
    }
    Ok(text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Location, LocationError> {
        Location::parse(Path::new(text), Path::new("/plans"))
    }

    fn server(text: &str) -> Address {
        match parse(text).unwrap() {
            Location::Server(address) => *address,
            Location::File(path) => panic!("{}", path.display()),
        }
    }

    #[test]
    fn a_server_is_named_by_a_url_and_all_else_is_a_file() {
        assert_eq!(
            parse("plant.db"),
            Ok(Location::File("/plans/plant.db".into()))
        );
        assert_eq!(parse("/a.db"), Ok(Location::File("/a.db".into())));
        let address = server("postgresql://line%203@db.plant:6432/key%66erry?sslrootcert=ca.pem");
        assert_eq!(address.host, Host::Name("db.plant".into()));
        assert_eq!((address.port, address.user.as_str()), (6432, "line 3"));
        assert_eq!(
            address.authorities.as_deref(),
            Some(Path::new("/plans/ca.pem"))
        );
        assert_eq!(
            address.to_string(),
            "postgresql://line 3@db.plant:6432/keyferry"
        );
        let address = server("postgres://line@/keyferry?host=/run/postgresql");
        assert_eq!(address.host, Host::Socket("/run/postgresql".into()));
        assert_eq!(address.port, 5432);
        assert_eq!(server("postgres://a@[::1]:7/b").port, 7);
    }

    #[test]
    fn a_password_is_refused_and_not_repeated() {
        for text in [
            "postgresql://line:secret@localhost/keyferry",
            "postgresql://line:se@cret@localhost/keyferry",
            "postgresql://line:@localhost/keyferry",
            "postgresql://line@localhost/keyferry?password=secret",
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error, LocationError::Password, "{text}");
            assert!(!format!("{error} {error:?} {}", error.hint()).contains("cret"));
        }
    }

    #[test]
    fn what_leaves_the_computer_is_encrypted_unless_a_person_says_otherwise() {
        for text in [
            "postgresql://line@db.plant/keyferry",
            "postgresql://line@192.0.2.7/keyferry",
        ] {
            assert_eq!(parse(text), Err(LocationError::NoTls), "{text}");
            assert!(parse(&format!("{text}?sslmode=disable")).is_ok());
            assert!(parse(&format!("{text}?sslrootcert=ca.pem")).is_ok());
        }
        for text in ["localhost", "127.0.0.1", "[::1]"] {
            assert!(
                server(&format!("postgresql://a@{text}/b"))
                    .authorities
                    .is_none()
            );
        }
    }

    #[test]
    fn anything_else_is_a_mistake() {
        for text in [
            "postgresql://",
            "postgresql://localhost/keyferry",
            "postgresql://line@localhost",
            "postgresql://line@/keyferry",
            "postgresql://line@localhost:no/keyferry",
            "postgresql://line@localhost:70000/keyferry",
            "postgresql://line@[::1/keyferry",
            "postgresql://line@a,b/keyferry",
            "postgresql://line@localhost/keyferry?sslmode=prefer",
            "postgresql://line@localhost/keyferry?sslmode=verify-full",
            "postgresql://line@localhost/keyferry?options=-c",
            "postgresql://line%00@localhost/keyferry",
        ] {
            assert!(
                matches!(parse(text), Err(LocationError::Malformed(_))),
                "{text}"
            );
        }
    }
}
