//! The broker's socket: who may connect, how many at once, and for how long they may say nothing.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::error::BrokerError;
use super::service::Service;
use super::wire::{self, Failed, FrameError, MAXIMUM_FRAME, Reply, Request};
use crate::error::Exit;

/// How many connections are served at once. One more is told so and closed.
const MAXIMUM_CONNECTIONS: usize = 64;

/// How long a request may take to arrive whole, and an answer to be read. A station opens a connection when it has something to ask.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often it is looked whether the broker is to end.
const TICK: u16 = 200;

/// A socket that is listened on; it is removed with this.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    socket: PathBuf,
    /// Device and inode of the socket, so that only our own is removed.
    made: (u64, u64),
    users: Vec<u32>,
}

impl Listener {
    /// Makes the socket, for its owner alone, in a folder for its owner alone, which is made if it is not there. `users` may
    /// connect besides the owner: to them the folder must be opened by whoever runs the broker.
    ///
    /// # Errors
    /// [`BrokerError::Occupied`] if a broker listens there; [`BrokerError::NotASocket`], [`BrokerError::OpenFolder`],
    /// [`BrokerError::Socket`].
    pub fn new(socket: &Path, users: &[u32]) -> Result<Self, BrokerError> {
        let failed = |source| BrokerError::Socket {
            socket: socket.to_owned(),
            source,
        };
        check_folder(socket, users)?;
        clear(socket)?;
        let listener = UnixListener::bind(socket).map_err(failed)?;
        // The folder has kept others out until here.
        let mode = if users.is_empty() { 0o600 } else { 0o666 };
        fs::set_permissions(socket, Permissions::from_mode(mode)).map_err(failed)?;
        let metadata = fs::symlink_metadata(socket).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self {
            listener,
            socket: socket.to_owned(),
            made: (metadata.dev(), metadata.ino()),
            users: users.to_vec(),
        })
    }

    /// Serves until `stop` is set: each connection in a thread, one request at a time. Then the socket is gone.
    ///
    /// # Errors
    /// [`BrokerError::Socket`] if the system fails on the socket itself.
    pub fn serve(self, service: &Mutex<Service>, stop: &AtomicBool) -> Result<(), BrokerError> {
        let open = AtomicUsize::new(0);
        let listener = &self;
        std::thread::scope(|scope| {
            while !stop.load(Ordering::Relaxed) {
                let Some(stream) = listener.next()? else {
                    continue;
                };
                if open.load(Ordering::Relaxed) >= MAXIMUM_CONNECTIONS {
                    turn_away(stream);
                    continue;
                }
                let taken = Taken::new(&open);
                let serve = move || {
                    let _taken = taken;
                    listener.connection(stream, service, stop);
                };
                // Without a thread the connection is closed, and the next may fare better.
                let _ = std::thread::Builder::new().spawn_scoped(scope, serve);
            }
            Ok(())
        })
    }

    /// The next connection, if there is one within a tick.
    fn next(&self) -> Result<Option<UnixStream>, BrokerError> {
        let mut wanted = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        match poll(&mut wanted, PollTimeout::from(TICK)) {
            // A signal: the caller looks whether it was one to end.
            Ok(0) | Err(nix::errno::Errno::EINTR) => return Ok(None),
            Ok(_) => {}
            Err(error) => {
                return Err(BrokerError::Socket {
                    socket: self.socket.clone(),
                    source: error.into(),
                });
            }
        }
        match self.listener.accept() {
            Ok((stream, _)) => Ok(Some(stream)),
            // Whoever wanted to connect is gone again, or there are too many open files for a moment.
            Err(_) => {
                std::thread::sleep(Duration::from_millis(10));
                Ok(None)
            }
        }
    }

    fn connection(&self, stream: UnixStream, service: &Mutex<Service>, stop: &AtomicBool) {
        let lock = || service.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(user) = peer(&stream) else {
            return;
        };
        let mut line = Deadlined::new(stream, stop);
        if user != nix::unistd::geteuid().as_raw() && !self.users.contains(&user) {
            let reply = lock().turn_away(user);
            let _ = line.answer(&reply);
            return;
        }
        loop {
            line.begin();
            let reply = match wire::read_frame(&mut line) {
                // Gone, or silent for too long, in the middle of a frame or between two.
                Ok(None) | Err(FrameError::Io(_)) => return,
                Ok(Some(frame)) => match wire::decode::<Request>(&frame) {
                    Ok(request) => lock().answer(Some(user), request),
                    Err(error) => lock().unreadable(Some(user), error),
                },
                Err(error) => {
                    // What follows is the rest of something that is not read.
                    let reply = lock().unreadable(Some(user), error);
                    line.begin();
                    let _ = line.answer(&reply);
                    return;
                }
            };
            line.begin();
            if line.answer(&reply).is_err() || stop.load(Ordering::Relaxed) {
                return;
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.socket)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.made);
        if ours {
            let _ = fs::remove_file(&self.socket);
        }
    }
}

/// One of the connections that are counted.
struct Taken<'a>(&'a AtomicUsize);

impl<'a> Taken<'a> {
    fn new(open: &'a AtomicUsize) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(open)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream of which whole frames must come and go in time, however small the pieces.
struct Deadlined<'a> {
    stream: UnixStream,
    until: Instant,
    stop: &'a AtomicBool,
}

impl<'a> Deadlined<'a> {
    fn new(stream: UnixStream, stop: &'a AtomicBool) -> Self {
        Self {
            stream,
            until: Instant::now() + PATIENCE,
            stop,
        }
    }

    /// The time for the next frame begins.
    fn begin(&mut self) {
        self.until = Instant::now() + PATIENCE;
    }

    fn answer(&mut self, reply: &Reply) -> Result<(), FrameError> {
        let frame = wire::encode(reply)?;
        wire::write_frame(self, &frame)
    }

    /// Runs `attempt` with a short timeout until it does something or the time is over.
    fn in_time(
        &mut self,
        mut attempt: impl FnMut(&mut UnixStream) -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            if self.stop.load(Ordering::Relaxed) || Instant::now() >= self.until {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let tick = Some(Duration::from_millis(u64::from(TICK)));
            self.stream.set_read_timeout(tick)?;
            self.stream.set_write_timeout(tick)?;
            match attempt(&mut self.stream) {
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock
                            | io::ErrorKind::TimedOut
                            | io::ErrorKind::Interrupted
                    ) => {}
                result => return result,
            }
        }
    }
}

impl io::Read for Deadlined<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.in_time(|stream| stream.read(bytes))
    }
}

impl io::Write for Deadlined<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.in_time(|stream| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Tells one connection too many that it is one, if that can be done at once.
fn turn_away(mut stream: UnixStream) {
    let busy = Reply::Failed(Failed {
        exit: Exit::Hsm.code(),
        error: format!("{MAXIMUM_CONNECTIONS} connections are open already"),
        hint: Some("close programs that use the broker, then repeat the command".to_owned()),
    });
    if let Ok(frame) = wire::encode(&busy)
        && stream.set_nonblocking(true).is_ok()
    {
        let _ = wire::write_frame(&mut stream, &frame);
    }
}

/// The user at the other end, as the system says.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn peer(stream: &UnixStream) -> nix::Result<u32> {
    use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
    Ok(getsockopt(stream, PeerCredentials)?.uid())
}

/// The user at the other end, as the system says.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn peer(stream: &UnixStream) -> nix::Result<u32> {
    Ok(nix::unistd::getpeereid(stream)?.0.as_raw())
}

/// Makes the folder, or checks that nobody else can put a socket of their own into it.
fn check_folder(socket: &Path, users: &[u32]) -> Result<(), BrokerError> {
    let folder = match socket.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    let failed = |source| BrokerError::Socket {
        socket: socket.to_owned(),
        source,
    };
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) if !users.is_empty() => {
            // They may pass through, and see nothing.
            return fs::set_permissions(folder, Permissions::from_mode(0o711)).map_err(failed);
        }
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
    }
    let metadata = fs::metadata(folder).map_err(failed)?;
    let others = if users.is_empty() { 0o077 } else { 0o066 };
    let owner = nix::unistd::geteuid().as_raw();
    if !metadata.is_dir() || metadata.uid() != owner || metadata.mode() & others != 0 {
        return Err(BrokerError::OpenFolder {
            folder: folder.to_owned(),
        });
    }
    Ok(())
}

/// Removes the socket of a broker that is no more.
fn clear(socket: &Path) -> Result<(), BrokerError> {
    let failed = |source| BrokerError::Socket {
        socket: socket.to_owned(),
        source,
    };
    match fs::symlink_metadata(socket) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(BrokerError::NotASocket {
                socket: socket.to_owned(),
            });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(socket) {
        // Nobody listens: it was left behind.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(socket).map_err(failed)
        }
        Ok(_) | Err(_) => Err(BrokerError::Occupied {
            socket: socket.to_owned(),
        }),
    }
}

const _: () = assert!(MAXIMUM_FRAME >= keyferry_protocol::MAX_MESSAGE * 16);
