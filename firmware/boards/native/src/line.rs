//! A device's serial port: a pseudo-terminal, or a socket that lets one station in at a time.
//!
//! As on a cable, what is sent while nobody is there is lost; on a pseudo-terminal, which cannot tell, it waits. Nothing here waits
//! but [`Port::sleep`], and [`Port::can_send`] for a moment while the other end takes nothing: an idle device takes no time of the processor.

use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::time::{Duration, Instant};

use keyferry_board::turn::Line;
use keyferry_firmware::device::Millis;

use crate::settings::LineKind;
use crate::wire::{self, ResetButton, Source, Wait, Waker, Wire};

/// Bytes that are taken from the system at a time.
const CHUNK: usize = 4096;

/// How long a turn waits while the other end takes nothing: long enough not to burn a core, short enough for the link's clocks.
const STUCK: Duration = Duration::from_millis(20);

/// Why a serial port cannot be made, or is no more.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The system has no more terminals, or the socket's name is taken.
    #[error("cannot make the serial port: {0}")]
    Make(#[source] io::Error),
    /// The record of what is sent cannot be written.
    #[error("cannot write the capture file: {0}")]
    Capture(#[source] io::Error),
    /// The system took it away.
    #[error("the serial port failed: {0}")]
    Failed(#[source] io::Error),
}

impl LineError {
    /// What to do about it, for people.
    #[must_use]
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Make(_) => Some("another process may have it; name another one with line=KIND"),
            Self::Capture(_) => Some("check the folder's permissions and the space on its disk"),
            Self::Failed(_) => None,
        }
    }
}

/// Why a device's life ends.
pub(crate) enum End {
    /// It is reset.
    Reset,
    /// Its serial port is no more.
    Broken(LineError),
}

impl From<LineError> for End {
    fn from(error: LineError) -> Self {
        Self::Broken(error)
    }
}

/// A device's serial port, with the device's clock.
pub(crate) struct Port {
    name: String,
    began: Instant,
    source: Source,
    /// The station, or the terminal.
    wire: Option<Wire>,
    waker: Waker,
    received: Vec<u8>,
    /// The other end took nothing at the last attempt.
    stuck: bool,
    capture: Option<File>,
}

impl Port {
    /// Makes the port. All that is sent goes to the end of `capture`, too.
    pub(crate) fn make(kind: &LineKind, capture: Option<File>) -> Result<Self, LineError> {
        let (name, source, wire) = match kind {
            #[cfg(unix)]
            LineKind::PseudoTerminal => {
                let (name, source, wire) = wire::terminal().map_err(LineError::Make)?;
                (name, source, Some(wire))
            }
            #[cfg(unix)]
            LineKind::UnixSocket(path) => {
                let source = wire::unix(path).map_err(LineError::Make)?;
                let path = std::path::absolute(path).map_err(LineError::Make)?;
                (format!("unix:{}", path.display()), source, None)
            }
            LineKind::Tcp(number) => {
                let (address, source) = wire::tcp(*number).map_err(LineError::Make)?;
                (format!("tcp:{address}"), source, None)
            }
        };
        Ok(Self {
            name,
            began: Instant::now(),
            source,
            wire,
            waker: Waker::new().map_err(LineError::Make)?,
            received: Vec::with_capacity(CHUNK),
            stuck: false,
            capture,
        })
    }

    /// As one names it to `--port`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Resets the device that uses this port, which then begins another life.
    pub(crate) fn reset_button(&self) -> ResetButton {
        self.waker.button()
    }

    /// Sends all of it, however long that takes.
    pub(crate) fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), End> {
        while !bytes.is_empty() {
            if self.can_send()? {
                bytes = &bytes[self.send(bytes)?..];
            }
        }
        Ok(())
    }

    /// The station, if one is there; lets one in that waits.
    fn station(&mut self) -> Result<Option<&mut Wire>, LineError> {
        if self.wire.is_none() {
            self.wire = self.source.accept().map_err(LineError::Failed)?;
            self.stuck = false;
        }
        Ok(self.wire.as_mut())
    }

    /// What an attempt on the wire means: nothing (it would have to wait), so many bytes, or that the station has gone.
    fn outcome(&mut self, result: io::Result<usize>) -> Result<Option<usize>, LineError> {
        match result {
            Ok(0) => self.gone(ErrorKind::UnexpectedEof.into()),
            Ok(count) => Ok(Some(count)),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(None),
                _ => self.gone(error),
            },
        }
    }

    fn gone(&mut self, error: io::Error) -> Result<Option<usize>, LineError> {
        self.wire = None;
        self.stuck = false;
        match self.source.outlives_a_station() {
            true => Ok(None),
            false => Err(LineError::Failed(error)),
        }
    }

    fn wait(&mut self, what: Wait, timeout: Option<Duration>) -> Result<(), LineError> {
        self.waker
            .wait(self.wire.as_ref(), &self.source, what, timeout)
            .map_err(LineError::Failed)
    }
}

impl Line for Port {
    type Error = End;

    fn now(&self) -> Millis {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }

    fn begin_turn(&mut self) {
        // What happens on the line stays until it is taken, and ends a sleep that begins after it.
    }

    fn has_received(&mut self) -> Result<bool, End> {
        if self.waker.was_reset() {
            self.received.clear();
            return Err(End::Reset);
        }
        if self.received.is_empty() {
            let mut chunk = [0; CHUNK];
            if let Some(wire) = self.station()? {
                let result = wire.read(&mut chunk);
                if let Some(count) = self.outcome(result)? {
                    self.received.extend_from_slice(&chunk[..count]);
                }
            }
        }
        Ok(!self.received.is_empty())
    }

    fn receive(&mut self, bytes: &mut [u8]) -> Result<usize, End> {
        let count = bytes.len().min(self.received.len());
        for (place, byte) in bytes.iter_mut().zip(self.received.drain(..count)) {
            *place = byte;
        }
        Ok(count)
    }

    fn follow(&mut self, _rate: u32) -> bool {
        // Bytes come out at the other end at any rate.
        true
    }

    fn can_send(&mut self) -> Result<bool, End> {
        if self.stuck {
            self.wait(Wait::RoomOrBytes, Some(STUCK))?;
        }
        // The next attempt tells; without anybody there, all can be sent, and is lost.
        Ok(true)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<usize, End> {
        let count = match self.station()? {
            None => bytes.len(),
            Some(wire) => {
                let result = wire.write(bytes);
                let sent = self.outcome(result)?;
                self.stuck = sent.is_none() && self.wire.is_some();
                // Gone in this moment: as without anybody there.
                let lost = if self.wire.is_none() { bytes.len() } else { 0 };
                sent.unwrap_or(lost)
            }
        };
        if let Some(capture) = &mut self.capture {
            capture
                .write_all(&bytes[..count])
                .map_err(LineError::Capture)?;
        }
        Ok(count)
    }

    fn sleep(&mut self, deadline: Option<Millis>) -> Result<(), End> {
        // A millisecond more, for the clock rounds down.
        let timeout = deadline
            .map(|at| Duration::from_millis(at.saturating_sub(self.now()).saturating_add(1)));
        Ok(self.wait(Wait::Bytes, timeout)?)
    }
}
