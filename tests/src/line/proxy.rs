//! The same line in real time: a pseudo-terminal whose bytes pass a [`Cable`] to a device's port and back.
//!
//! A device that goes away is opened again when it comes back, as a cable stays plugged in when a board is reset; but for a
//! pseudo-terminal, which does not come back.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use keyferry::device::port::{self, Port, PortError};
use keyferry::error::Exit;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::{OpenptyResult, openpty};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::ttyname;

use super::{Cable, Counts, Nanos, Settings, Way};

/// Longest time that one direction waits before the other is looked at.
const TURN: Duration = Duration::from_millis(1);
/// The same on a line where nothing has moved for [`CALM`]: a machine carries many of those.
const IDLE_TURN: Duration = Duration::from_millis(10);
/// See [`IDLE_TURN`].
const CALM: Duration = Duration::from_millis(100);
/// Time between two attempts to open a device that has gone away.
const RETRY: Duration = Duration::from_millis(100);
/// Bytes that wait for a reader; nothing more is taken from the writer then.
const BACKLOG: usize = 4_096;

/// A line that cannot be laid.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The device's port does not open.
    #[error(transparent)]
    Device(#[from] PortError),
    /// There is no pseudo-terminal to be had.
    #[error("cannot make a pseudo-terminal")]
    Terminal(#[source] io::Error),
    /// The link to the pseudo-terminal cannot be made.
    #[error("cannot make the link '{}'", path.display())]
    Link {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl ProxyError {
    /// The next move, for a person.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Device(error) => Some(error.hint()),
            Self::Terminal(_) => None,
            Self::Link { .. } => {
                Some("name a path where nothing is, or a link that may be replaced")
            }
        }
    }

    /// The exit code that the `keyferry` command would have for it.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Device(PortError::Name(_)) | Self::Link { .. } => Exit::Usage,
            Self::Device(_) => Exit::Device,
            Self::Terminal(_) => Exit::JobFailed,
        }
    }
}

/// A line in real time. It is unplugged when it is dropped.
pub struct Proxy {
    path: String,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    link: Option<PathBuf>,
    // Keeps the terminal alive while no station has it open.
    _held: OwnedFd,
}

/// What the thread and its owner both look at.
struct Shared {
    stop: AtomicBool,
    connected: AtomicBool,
    counts: Mutex<Counts>,
}

impl Proxy {
    /// Lays a line to the device on this port.
    ///
    /// # Errors
    /// [`ProxyError::Device`], [`ProxyError::Terminal`].
    pub fn start(device: &str, settings: &Settings) -> Result<Self, ProxyError> {
        let port = port::open(device)?;
        let (terminal, held, path) = terminal().map_err(ProxyError::Terminal)?;
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            connected: AtomicBool::new(true),
            counts: Mutex::default(),
        });
        let mut carrier = Carrier {
            shared: shared.clone(),
            cable: Cable::new(settings),
            name: device.to_owned(),
            device: Some(port),
            retry_at: Instant::now(),
            terminal,
            down: VecDeque::new(),
            up: VecDeque::new(),
            begun: Instant::now(),
            moved_at: Instant::now(),
        };
        let thread = thread::spawn(move || carrier.run());
        Ok(Self {
            path,
            shared,
            thread: Some(thread),
            link: None,
            _held: held,
        })
    }

    /// Makes a symbolic link to the pseudo-terminal; it goes with the line. A link that is there is replaced, nothing else is.
    ///
    /// # Errors
    /// [`ProxyError::Link`].
    pub fn link(&mut self, path: &Path) -> Result<(), ProxyError> {
        let failed = |source| ProxyError::Link {
            path: path.to_owned(),
            source,
        };
        if path.is_symlink() {
            std::fs::remove_file(path).map_err(failed)?;
        }
        symlink(&self.path, path).map_err(failed)?;
        self.link = Some(path.to_owned());
        Ok(())
    }

    /// What to give to `--port`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether the device's port is open.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.shared.connected.load(Ordering::Relaxed)
    }

    /// Whether it still carries. It stops only when it is told, or when its terminal fails.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
    }

    /// What has happened to the bytes so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        *self
            .shared
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed already.
            let _ = thread.join();
        }
        if let Some(link) = &self.link
            && link.is_symlink()
        {
            // Whoever removed it meanwhile wanted that.
            let _ = std::fs::remove_file(link);
        }
    }
}

/// A raw pseudo-terminal that never makes anybody wait: this end, the other end, and its path.
fn terminal() -> io::Result<(File, OwnedFd, String)> {
    let OpenptyResult { master, slave } = openpty(None, None)?;
    let mut settings = tcgetattr(&slave)?;
    cfmakeraw(&mut settings);
    tcsetattr(&slave, SetArg::TCSANOW, &settings)?;
    let flags = OFlag::from_bits_retain(fcntl(master.as_fd(), FcntlArg::F_GETFL)?);
    fcntl(master.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    let path = ttyname(&slave)?.display().to_string();
    Ok((master.into(), slave, path))
}

/// Nothing yet is not an error.
fn or_none(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Ok(0)
        }
        other => other,
    }
}

/// What the thread owns.
struct Carrier {
    shared: Arc<Shared>,
    cable: Cable,
    name: String,
    device: Option<Box<dyn Port>>,
    retry_at: Instant,
    terminal: File,
    /// Has come out of the line and waits for the device.
    down: VecDeque<u8>,
    /// Has come out of the line and waits for the station.
    up: VecDeque<u8>,
    begun: Instant,
    /// When bytes were last on their way.
    moved_at: Instant,
}

impl Carrier {
    fn now(&self) -> Nanos {
        Nanos::try_from(self.begun.elapsed().as_nanos()).unwrap_or(Nanos::MAX)
    }

    fn run(&mut self) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            let turned = self.hear_station().and_then(|()| self.tell_station());
            if turned.is_err() {
                return;
            }
            if self
                .hear_device()
                .and_then(|()| self.tell_device())
                .is_err()
            {
                self.disconnect();
            }
            if self.cable.next().is_some() {
                self.moved_at = Instant::now();
            }
            let counts = *self.cable.counts();
            *self
                .shared
                .counts
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = counts;
        }
    }

    fn hear_station(&mut self) -> io::Result<()> {
        let mut buffer = [0; 1_024];
        let room = self.cable.room(Way::Down).min(buffer.len());
        if room > 0 && self.down.len() < BACKLOG {
            let count = or_none(self.terminal.read(&mut buffer[..room]))?;
            let now = self.now();
            self.cable.write(Way::Down, &buffer[..count], now);
        }
        Ok(())
    }

    fn tell_station(&mut self) -> io::Result<()> {
        self.take(Way::Up);
        while !self.up.is_empty() {
            let (bytes, _) = self.up.as_slices();
            let count = or_none(self.terminal.write(bytes))?;
            if count == 0 {
                break;
            }
            self.up.drain(..count);
        }
        Ok(())
    }

    /// Waits for the device, for a turn.
    fn hear_device(&mut self) -> io::Result<()> {
        let mut buffer = [0; 1_024];
        let room = self.cable.room(Way::Up).min(buffer.len());
        let Some(device) = &mut self.device else {
            self.reconnect();
            return Ok(());
        };
        if room == 0 || self.up.len() >= BACKLOG {
            thread::sleep(TURN);
            return Ok(());
        }
        let turn = if self.moved_at.elapsed() < CALM {
            TURN
        } else {
            IDLE_TURN
        };
        let until = device.now() + turn.as_millis() as u64;
        let count = device.read(&mut buffer[..room], until)?;
        let now = self.now();
        self.cable.write(Way::Up, &buffer[..count], now);
        Ok(())
    }

    fn tell_device(&mut self) -> io::Result<()> {
        self.take(Way::Down);
        let Some(device) = &mut self.device else {
            // Nobody is there to hear it.
            self.cable.tally_mut(Way::Down).overruns += self.down.len() as u64;
            self.down.clear();
            return Ok(());
        };
        while !self.down.is_empty() {
            let (bytes, _) = self.down.as_slices();
            let count = device.write(bytes)?;
            if count == 0 {
                break;
            }
            self.down.drain(..count);
        }
        Ok(())
    }

    /// Takes what has come out of the line.
    fn take(&mut self, way: Way) {
        let now = self.now();
        let waiting = match way {
            Way::Down => &mut self.down,
            Way::Up => &mut self.up,
        };
        let mut buffer = [0; 1_024];
        while waiting.len() < BACKLOG {
            let count = self.cable.read(way, &mut buffer, now);
            if count == 0 {
                return;
            }
            waiting.extend(&buffer[..count]);
        }
    }

    fn disconnect(&mut self) {
        self.device = None;
        self.shared.connected.store(false, Ordering::Relaxed);
        self.retry_at = Instant::now();
    }

    fn reconnect(&mut self) {
        // The number of a pseudo-terminal goes to the next program that wants one: whoever is there then is somebody else.
        if Instant::now() < self.retry_at || Path::new(&self.name).starts_with("/dev/pts") {
            thread::sleep(TURN);
            return;
        }
        self.retry_at = Instant::now() + RETRY;
        // While it fails, the device is not there yet.
        if let Ok(device) = port::open(&self.name) {
            self.device = Some(device);
            self.shared.connected.store(true, Ordering::Relaxed);
        }
    }
}
