//! A port where there is no `poll` for serial devices: its reads and writes wait by themselves, with time-outs.

use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use keyferry_protocol::link::Millis;

use super::Port;

/// What a port is made of. Writes must not wait longer than a moment.
pub(super) trait Source: Read + Write + Send {
    /// See [`Port::set_baud`].
    fn set_baud(&mut self, baud: u32) -> io::Result<bool>;

    /// Sets how long the next read waits for its first byte; never zero.
    fn set_patience(&mut self, patience: Duration) -> io::Result<()>;
}

/// A port.
pub(super) struct Stream<S> {
    name: String,
    opened: Instant,
    source: S,
}

impl<S: Source> Stream<S> {
    pub(super) fn new(name: String, source: S) -> Self {
        Self {
            name,
            opened: Instant::now(),
            source,
        }
    }
}

impl<S: Source> Port for Stream<S> {
    fn name(&self) -> &str {
        &self.name
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        or_none(self.source.write(bytes))
    }

    fn read(&mut self, bytes: &mut [u8], until: Millis) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let left = until.saturating_sub(self.now()).max(1);
        self.source.set_patience(Duration::from_millis(left))?;
        match self.source.read(bytes) {
            Ok(0) => Err(ErrorKind::BrokenPipe.into()),
            result => or_none(result),
        }
    }

    fn now(&self) -> Millis {
        Millis::try_from(self.opened.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }

    fn set_baud(&mut self, baud: u32) -> io::Result<bool> {
        self.source.set_baud(baud)
    }
}

/// No bytes now is not an error; every way in which a port is gone becomes one kind.
fn or_none(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Ok(count) => Ok(count),
        Err(error) => match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(0),
            ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::NotConnected
            | ErrorKind::UnexpectedEof
            | ErrorKind::NotFound => Err(io::Error::new(ErrorKind::BrokenPipe, error)),
            _ => Err(error),
        },
    }
}
