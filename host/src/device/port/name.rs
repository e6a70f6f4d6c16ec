//! How ports are named: what stands after `--port`.

use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// A port's name, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// A serial device: any name without one of the prefixes below. On Windows `COM3`, elsewhere a path.
    Serial(PathBuf),
    /// `tcp:HOST:NUMBER`: a socket of a serial device server or an emulator. An IPv6 address stands in brackets.
    Tcp {
        /// A name, or an address without its brackets.
        host: String,
        /// The TCP port number.
        number: u16,
    },
    /// `unix:PATH`: a Unix socket on this machine.
    Unix(PathBuf),
}

/// A name that names no port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// There is nothing.
    #[error("the port's name is empty")]
    Empty,
    /// After `tcp:`, something is missing or wrong.
    #[error("a TCP port is named tcp:HOST:NUMBER, with a number from 1 to 65535")]
    Tcp,
    /// After `unix:`, there is nothing.
    #[error("a Unix socket is named unix:PATH")]
    Unix,
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if let Some(path) = name.strip_prefix("unix:") {
            return match path {
                "" => Err(NameError::Unix),
                path => Ok(Self::Unix(path.into())),
            };
        }
        let Some(address) = name.strip_prefix("tcp:") else {
            return Ok(Self::Serial(name.into()));
        };
        let (host, number) = address.rsplit_once(':').ok_or(NameError::Tcp)?;
        let number = match number.parse() {
            Ok(0) | Err(_) => return Err(NameError::Tcp),
            Ok(number) => number,
        };
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        match bare {
            Some(address) if !address.is_empty() => Ok(Self::Tcp {
                host: address.to_owned(),
                number,
            }),
            None if !host.is_empty() && !host.contains([':', '[', ']']) => Ok(Self::Tcp {
                host: host.to_owned(),
                number,
            }),
            Some(_) | None => Err(NameError::Tcp),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, number: u16) -> Result<Name, NameError> {
        Ok(Name::Tcp {
            host: host.to_owned(),
            number,
        })
    }

    #[test]
    fn each_kind_has_its_form() {
        for device in ["/dev/ttyUSB0", "COM3", "/dev/serial/by-id/usb:1", "tcp"] {
            assert_eq!(device.parse(), Ok(Name::Serial(device.into())));
        }
        assert_eq!("tcp:line-3:4001".parse(), tcp("line-3", 4001));
        assert_eq!("tcp:127.0.0.1:1".parse(), tcp("127.0.0.1", 1));
        assert_eq!("tcp:[::1]:65535".parse(), tcp("::1", 65535));
        assert_eq!("unix:a:b".parse(), Ok(Name::Unix("a:b".into())));
    }

    #[test]
    fn what_names_nothing_is_refused() {
        assert_eq!("".parse::<Name>(), Err(NameError::Empty));
        assert_eq!("unix:".parse::<Name>(), Err(NameError::Unix));
        for name in [
            "tcp:",
            "tcp:host",
            "tcp::1",
            "tcp:host:",
            "tcp:host:0",
            "tcp:host:65536",
            "tcp:host:-1",
            "tcp:::1:4001",
            "tcp:[]:1",
            "tcp:[::1:1",
        ] {
            assert_eq!(name.parse::<Name>(), Err(NameError::Tcp), "{name}");
        }
    }
}
