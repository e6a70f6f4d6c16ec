//! A socket that leads to a device: a serial device server, an emulator, a relay. Whoever listens there decides who is served.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::stream::{Source, Stream};
use super::{Port, PortError};

/// How long finding a host may take, and how long a connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many addresses of a host are tried.
const ADDRESSES: usize = 8;

/// Connects to a TCP port.
pub(super) fn tcp(port: &str, host: &str, number: u16) -> Result<Box<dyn Port>, PortError> {
    let unknown = |source| PortError::HostUnknown {
        port: port.to_owned(),
        host: host.to_owned(),
        source,
    };
    let named = (host.to_owned(), number);
    let addresses: Vec<SocketAddr> =
        in_time(move || Ok(named.to_socket_addrs()?.take(ADDRESSES).collect())).map_err(unknown)?;
    let mut failure = unknown(ErrorKind::NotFound.into());
    let end = Instant::now() + PATIENCE;
    for (index, address) in addresses.iter().enumerate() {
        // A silent address leaves time for those after it.
        let left = end.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - index).unwrap_or(1);
        match TcpStream::connect_timeout(address, share.max(Duration::from_millis(1))) {
            Ok(stream) => {
                return ready(&stream)
                    .map(|()| Box::new(Stream::new(port.to_owned(), stream)) as Box<dyn Port>)
                    .map_err(|source| refused(port, source));
            }
            Err(error) => failure = refused(port, error),
        }
    }
    Err(failure)
}

/// Connects to a Unix socket.
#[cfg(unix)]
pub(super) fn unix(port: &str, path: &Path) -> Result<Box<dyn Port>, PortError> {
    use std::os::unix::net::UnixStream;

    let there = path.to_owned();
    // Where nobody accepts any more, connecting waits.
    let stream =
        in_time(move || UnixStream::connect(there)).map_err(|error| match error.kind() {
            ErrorKind::TimedOut => PortError::Busy {
                port: port.to_owned(),
                holder: None,
            },
            _ => refused(port, error),
        })?;
    stream
        .set_nonblocking(true)
        .map_err(|source| refused(port, source))?;
    Ok(Box::new(Stream::new(port.to_owned(), stream)))
}

/// There are none.
#[cfg(not(unix))]
pub(super) fn unix(port: &str, _path: &Path) -> Result<Box<dyn Port>, PortError> {
    Err(refused(port, ErrorKind::Unsupported.into()))
}

/// Runs something that may wait for longer than anybody should. Its thread is left alone if it does.
fn in_time<T: Send + 'static>(
    slow: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (done, result) = mpsc::channel();
    thread::Builder::new()
        .name("port".to_owned())
        .spawn(move || done.send(slow()))?;
    result
        .recv_timeout(PATIENCE)
        .unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

/// Small frames go at once, and nothing blocks.
fn ready(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    #[cfg(unix)]
    stream.set_nonblocking(true)?;
    #[cfg(not(unix))]
    stream.set_write_timeout(Some(Duration::from_millis(1)))?;
    Ok(())
}

fn refused(port: &str, source: io::Error) -> PortError {
    let port = port.to_owned();
    match source.kind() {
        ErrorKind::ConnectionRefused => PortError::NobodyListens { port },
        ErrorKind::NotFound => PortError::Missing { port },
        ErrorKind::PermissionDenied => PortError::Forbidden { port },
        ErrorKind::TimedOut => PortError::TimedOut {
            port,
            waited: PATIENCE,
        },
        _ => PortError::Failed { port, source },
    }
}

impl Source for TcpStream {
    fn set_baud(&mut self, _baud: u32) -> io::Result<bool> {
        Ok(false)
    }

    #[cfg(not(unix))]
    fn set_patience(&mut self, patience: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(patience))
    }
}

#[cfg(unix)]
impl Source for std::os::unix::net::UnixStream {
    fn set_baud(&mut self, _baud: u32) -> io::Result<bool> {
        Ok(false)
    }
}
