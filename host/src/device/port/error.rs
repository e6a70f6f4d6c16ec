//! Why a port cannot be opened.

use std::io;
use std::time::Duration;

use thiserror::Error;

use super::{Holder, NameError};

/// Why a port cannot be opened.
#[derive(Debug, Error)]
pub enum PortError {
    /// The name is no port's.
    #[error(transparent)]
    Name(#[from] NameError),
    /// There is no such device or socket.
    #[error("port '{port}' does not exist")]
    Missing {
        /// The port as given.
        port: String,
    },
    /// Another program has the port.
    #[error("port '{port}' is in use by {}", holder.as_ref().map_or_else(|| "another program".to_owned(), Holder::to_string))]
    Busy {
        /// The port as given.
        port: String,
        /// Who has it, where the operating system says so.
        holder: Option<Holder>,
    },
    /// The user has no right to it.
    #[error("port '{port}' may not be opened by this user")]
    Forbidden {
        /// The port as given.
        port: String,
    },
    /// It exists, but is something else.
    #[error("'{port}' is no serial port")]
    NotSerial {
        /// The port as given.
        port: String,
    },
    /// Nothing knows the host's name.
    #[error("the host '{host}' of port '{port}' cannot be found")]
    HostUnknown {
        /// The port as given.
        port: String,
        /// The host in it.
        host: String,
        /// What the name's resolution said.
        source: io::Error,
    },
    /// The host, or the socket, is there; nobody serves it.
    #[error("nobody listens at '{port}'")]
    NobodyListens {
        /// The port as given.
        port: String,
    },
    /// No connection came about in time.
    #[error("no connection to '{port}' within {} s", waited.as_secs())]
    TimedOut {
        /// The port as given.
        port: String,
        /// How long it was tried.
        waited: Duration,
    },
    /// The operating system failed on the port.
    #[error("port '{port}' cannot be opened")]
    Failed {
        /// The port as given.
        port: String,
        /// What the operating system said.
        source: io::Error,
    },
}

impl PortError {
    /// The next move, for a person.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Name(_) => "name a serial device, tcp:HOST:NUMBER or unix:PATH",
            Self::Missing { port } if port.starts_with("unix:") => {
                "start what serves the socket (device server, emulator), and check its path"
            }
            Self::Missing { port } if port.contains(':') && !port.contains(['/', '\\']) => {
                "a TCP port is named tcp:HOST:NUMBER; a serial device by its path"
            }
            Self::Missing { .. } => {
                "plug the device in, or look up the port's name (such as /dev/ttyUSB0 or COM3)"
            }
            Self::Busy { .. } => "close the other program (a terminal, a second keyferry)",
            Self::Forbidden { .. } => {
                "get the right to open it: on Linux, be in the group that the device belongs to (often dialout)"
            }
            Self::NotSerial { .. } => {
                "name the device's serial port; a socket is named tcp:HOST:NUMBER or unix:PATH"
            }
            Self::HostUnknown { .. } => {
                "check how the name is spelled and the network, or give the address"
            }
            Self::NobodyListens { .. } => {
                "start what serves the port (device server, emulator), and check its number or path"
            }
            Self::TimedOut { .. } => "check address, network and firewall",
            Self::Failed { .. } => "unplug the adapter, plug it in again, and try once more",
        }
    }
}
