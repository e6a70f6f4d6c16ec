//! What the system has for serial ports, and waiting for it. The one place with unsafe code.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
#[cfg(unix)]
use std::os::fd::OwnedFd;
#[cfg(unix)]
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use polling::{AsRawSource, AsSource, Event, Events, Poller};

/// Where a station comes from. Accepting never waits.
pub(crate) enum Source {
    /// A terminal. The station's side of it stays open here: it does not hang up when a station closes it.
    #[cfg(unix)]
    Terminal {
        /// Held, and otherwise not used.
        _station: OwnedFd,
    },
    /// A Unix socket.
    #[cfg(unix)]
    Unix(UnixListener),
    /// A TCP port.
    Tcp(TcpListener),
}

/// What bytes go over. Reading and writing never wait.
pub(crate) enum Wire {
    /// The device's side of a terminal.
    #[cfg(unix)]
    Terminal(std::fs::File),
    /// A station on a Unix socket.
    #[cfg(unix)]
    Unix(UnixStream),
    /// A station on a TCP port.
    Tcp(TcpStream),
}

/// What is waited for.
#[derive(Clone, Copy)]
pub(crate) enum Wait {
    /// Bytes from the station, or a station.
    Bytes,
    /// Room for bytes to the station, or bytes from it.
    RoomOrBytes,
}

/// A terminal: its path, where its station comes from, and its wire.
#[cfg(unix)]
pub(crate) fn terminal() -> io::Result<(String, Source, Wire)> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use nix::pty::{OpenptyResult, openpty};
    use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
    use nix::unistd::ttyname;

    let OpenptyResult { master, slave } = openpty(None, None)?;
    // Every byte as it is, also before the station has said so.
    let mut settings = tcgetattr(&slave)?;
    cfmakeraw(&mut settings);
    tcsetattr(&slave, SetArg::TCSANOW, &settings)?;
    fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let name = ttyname(&slave)?.display().to_string();
    let source = Source::Terminal { _station: slave };
    Ok((name, source, Wire::Terminal(master.into())))
}

/// A socket at `path`. One that is left over there is replaced, and nothing else.
#[cfg(unix)]
pub(crate) fn unix(path: &std::path::Path) -> io::Result<Source> {
    use std::os::unix::fs::FileTypeExt as _;

    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(Source::Unix(listener))
}

/// A TCP port of the loopback address: its address and where stations come from.
pub(crate) fn tcp(number: u16) -> io::Result<(std::net::SocketAddr, Source)> {
    let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, number))?;
    listener.set_nonblocking(true)?;
    Ok((listener.local_addr()?, Source::Tcp(listener)))
}

impl Source {
    /// Lets a station in, if one waits.
    pub(crate) fn accept(&self) -> io::Result<Option<Wire>> {
        let accepted = match self {
            #[cfg(unix)]
            Self::Terminal { .. } => return Ok(None),
            #[cfg(unix)]
            Self::Unix(listener) => listener.accept().and_then(|(stream, _)| {
                stream.set_nonblocking(true)?;
                Ok(Wire::Unix(stream))
            }),
            Self::Tcp(listener) => listener.accept().and_then(|(stream, _)| {
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                Ok(Wire::Tcp(stream))
            }),
        };
        match accepted {
            Ok(wire) => Ok(Some(wire)),
            Err(error) => match error.kind() {
                // Nobody waits, or who waited has gone.
                ErrorKind::WouldBlock
                | ErrorKind::Interrupted
                | ErrorKind::ConnectionAborted
                | ErrorKind::ConnectionReset => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// Whether another station may come when one has gone.
    pub(crate) const fn outlives_a_station(&self) -> bool {
        match self {
            #[cfg(unix)]
            Self::Terminal { .. } => false,
            #[cfg(unix)]
            Self::Unix(_) => true,
            Self::Tcp(_) => true,
        }
    }
}

impl Wire {
    /// Takes what has come and fits.
    pub(crate) fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            #[cfg(unix)]
            Self::Terminal(file) => file.read(bytes),
            #[cfg(unix)]
            Self::Unix(stream) => stream.read(bytes),
            Self::Tcp(stream) => stream.read(bytes),
        }
    }

    /// Sends what there is room for.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            #[cfg(unix)]
            Self::Terminal(file) => file.write(bytes),
            #[cfg(unix)]
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
        }
    }
}

/// Resets a device, from any thread.
#[derive(Clone)]
pub struct ResetButton(Arc<Button>);

struct Button {
    pressed: AtomicBool,
    poller: Poller,
}

impl ResetButton {
    /// Resets the device as soon as it has done the piece of work that it is at. Its flash and its serial port stay.
    pub fn press(&self) {
        self.0.pressed.store(true, Ordering::Relaxed);
        // If that fails, the device learns of it when it next wakes up.
        let _ = self.0.poller.notify();
    }
}

/// Waits until something happens.
pub(crate) struct Waker {
    button: ResetButton,
    events: Events,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            button: ResetButton(Arc::new(Button {
                pressed: AtomicBool::new(false),
                poller: Poller::new()?,
            })),
            events: Events::new(),
        })
    }

    /// What ends a wait from outside.
    pub(crate) fn button(&self) -> ResetButton {
        self.button.clone()
    }

    /// Whether it was pressed since this was last asked.
    pub(crate) fn was_reset(&self) -> bool {
        self.button.0.pressed.swap(false, Ordering::Relaxed)
    }

    /// Waits for `what` on the wire, or without one for a station; at most for `timeout`. It may return early.
    pub(crate) fn wait(
        &mut self,
        wire: Option<&Wire>,
        from: &Source,
        what: Wait,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        let interest = match what {
            Wait::Bytes => Event::readable(0),
            Wait::RoomOrBytes => Event::all(0),
        };
        match (wire, from) {
            #[cfg(unix)]
            (Some(Wire::Terminal(file)), _) => self.wait_on(file, interest, timeout),
            #[cfg(unix)]
            (Some(Wire::Unix(stream)), _) => self.wait_on(stream, interest, timeout),
            (Some(Wire::Tcp(stream)), _) => self.wait_on(stream, interest, timeout),
            #[cfg(unix)]
            (None, Source::Unix(listener)) => self.wait_on(listener, Event::readable(0), timeout),
            (None, Source::Tcp(listener)) => self.wait_on(listener, Event::readable(0), timeout),
            // A terminal that has gone does not come back; its device ends.
            #[cfg(unix)]
            (None, Source::Terminal { .. }) => {
                std::thread::sleep(timeout.unwrap_or_default());
                Ok(())
            }
        }
    }

    fn wait_on<S: AsSource>(
        &mut self,
        source: &S,
        interest: Event,
        timeout: Option<Duration>,
    ) -> io::Result<()>
    where
        for<'s> &'s S: AsRawSource,
    {
        let poller = &self.button.0.poller;
        self.events.clear();
        // SAFETY: the source is taken away again below, and is borrowed until then.
        unsafe { poller.add(source, interest)? };
        let waited = poller.wait(&mut self.events, timeout);
        poller.delete(source)?;
        match waited {
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}
