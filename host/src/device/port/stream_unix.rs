//! A port on a file descriptor that never blocks: what serial devices and sockets have in common on Unix.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::time::Instant;

use keyferry_protocol::link::Millis;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Port;

/// What a port is made of. Reads and writes must not block.
pub(super) trait Source: AsFd + Read + Write + Send {
    /// See [`Port::set_baud`].
    fn set_baud(&mut self, baud: u32) -> io::Result<bool>;
}

/// A port.
pub(super) struct Stream<S> {
    name: String,
    opened: Instant,
    source: S,
    /// Whether the last write found less room than it needed.
    crowded: bool,
}

impl<S: Source> Stream<S> {
    pub(super) fn new(name: String, source: S) -> Self {
        Self {
            name,
            opened: Instant::now(),
            source,
            crowded: false,
        }
    }

    /// Waits until there is something to read, or room if some was missing, or the moment has come.
    fn wait(&self, until: Millis) -> io::Result<PollFlags> {
        let left = until.saturating_sub(self.now());
        let patience = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let wanted = if self.crowded {
            PollFlags::POLLIN | PollFlags::POLLOUT
        } else {
            PollFlags::POLLIN
        };
        let mut waiting = [PollFd::new(self.source.as_fd(), wanted)];
        match poll(&mut waiting, patience) {
            Ok(_) => Ok(waiting[0].revents().unwrap_or(PollFlags::empty())),
            Err(Errno::EINTR) => Ok(PollFlags::empty()),
            Err(error) => Err(error.into()),
        }
    }
}

impl<S: Source> Port for Stream<S> {
    fn name(&self) -> &str {
        &self.name
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = moved(self.source.write(bytes))?.unwrap_or(0);
        self.crowded = written < bytes.len();
        Ok(written)
    }

    fn read(&mut self, bytes: &mut [u8], until: Millis) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        loop {
            // What came before the other end went is read first.
            match moved(self.source.read(bytes))? {
                Some(0) => return Err(gone(ErrorKind::UnexpectedEof.into())),
                Some(count) => return Ok(count),
                None => {}
            }
            let happened = self.wait(until)?;
            if happened.intersects(PollFlags::POLLIN) {
                continue;
            }
            if happened.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL) {
                return Err(gone(ErrorKind::UnexpectedEof.into()));
            }
            if happened.intersects(PollFlags::POLLOUT) {
                self.crowded = false;
                return Ok(0);
            }
            if self.now() >= until {
                return Ok(0);
            }
        }
    }

    fn now(&self) -> Millis {
        Millis::try_from(self.opened.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }

    fn set_baud(&mut self, baud: u32) -> io::Result<bool> {
        self.source.set_baud(baud)
    }
}

/// Tells "nothing now" from a port that is gone.
fn moved(result: io::Result<usize>) -> io::Result<Option<usize>> {
    let error = match result {
        Ok(count) => return Ok(Some(count)),
        Err(error) => error,
    };
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(None),
        // Said by the serial library, not by the operating system: there a connection has died.
        ErrorKind::TimedOut if error.raw_os_error().is_none() => Ok(None),
        ErrorKind::TimedOut
        | ErrorKind::BrokenPipe
        | ErrorKind::UnexpectedEof
        | ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::NotConnected => Err(gone(error)),
        _ => match error.raw_os_error().map(Errno::from_raw) {
            // A terminal whose other end was closed, an adapter that was pulled out.
            Some(Errno::EIO | Errno::ENXIO | Errno::ENODEV) => Err(gone(error)),
            _ => Err(error),
        },
    }
}

/// The one kind that says: the port was there, and is no more.
fn gone(source: io::Error) -> io::Error {
    io::Error::new(ErrorKind::BrokenPipe, source)
}
