//! A cable for the real command: a pseudo-terminal or a socket whose other end leads to any port of a test, a tampered one too.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use keyferry::device::port::Port;
use keyferry_protocol::link::Millis;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{OpenptyResult, openpty};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::ttyname;

/// The cable. It is unplugged when it is dropped.
pub struct Relay {
    path: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    // Keeps the terminal alive while no command has it open.
    _held: Option<OwnedFd>,
}

impl Relay {
    /// Plugs the cable into `port`.
    ///
    /// # Panics
    /// If there are no pseudo-terminals.
    #[must_use]
    pub fn to(port: Box<dyn Port>) -> Self {
        let OpenptyResult { master, slave } = openpty(None, None).expect("a pseudo-terminal");
        let mut settings = tcgetattr(&slave).expect("a terminal has settings");
        cfmakeraw(&mut settings);
        tcsetattr(&slave, SetArg::TCSANOW, &settings).expect("they can be set");
        let path = ttyname(&slave).expect("a terminal has a path");
        Self::plugged(path.display().to_string(), Some(slave), |stop| {
            carry(File::from(master), port, stop);
        })
    }

    /// Lets one caller at a time on this Unix socket have the cable into `port`.
    ///
    /// # Panics
    /// If there can be no such socket.
    #[must_use]
    pub fn on_unix(path: &Path, mut port: Box<dyn Port>) -> Self {
        let listener = UnixListener::bind(path).expect("a socket");
        Self::plugged(format!("unix:{}", path.display()), None, move |stop| {
            while called(&listener, stop) {
                let (caller, _) = listener.accept().expect("somebody calls");
                port = carry(caller, port, stop);
            }
        })
    }

    /// Lets one caller at a time on a TCP port of this machine have the cable into `port`.
    ///
    /// # Panics
    /// If there can be no such socket.
    #[must_use]
    pub fn on_tcp(mut port: Box<dyn Port>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a socket");
        let address = listener.local_addr().expect("it has an address");
        Self::plugged(format!("tcp:{address}"), None, move |stop| {
            while called(&listener, stop) {
                let (caller, _) = listener.accept().expect("somebody calls");
                port = carry(caller, port, stop);
            }
        })
    }

    fn plugged(
        path: String,
        held: Option<OwnedFd>,
        carry: impl FnOnce(&AtomicBool) + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        Self {
            path,
            stop,
            thread: Some(thread::spawn(move || carry(&stopped))),
            _held: held,
        }
    }

    /// What to give to `--port`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// Longest time that one direction waits for bytes before the other is looked at, in milliseconds.
const TURN: Millis = 20;

/// Waits for somebody to call; `false` once it is stopped.
fn called(listener: &impl AsFd, stop: &AtomicBool) -> bool {
    while !stop.load(Ordering::Relaxed) {
        let mut waiting = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        if poll(&mut waiting, TURN as u8).unwrap_or(0) > 0 {
            return true;
        }
    }
    false
}

/// Carries bytes both ways until it is stopped, or one of them is gone.
fn carry(
    mut end: impl AsFd + Read + Write,
    mut port: Box<dyn Port>,
    stop: &AtomicBool,
) -> Box<dyn Port> {
    let mut buffer = [0; 1024];
    while !stop.load(Ordering::Relaxed) {
        let until = port.now() + TURN;
        let Ok(count) = port.read(&mut buffer, until) else {
            break;
        };
        if end.write_all(&buffer[..count]).is_err() {
            break;
        }
        // A desk's clock moves on by the turn with each idle read: it shall not run faster than the command's.
        let patience = PollTimeout::from(if count == 0 { TURN as u8 } else { 0 });
        let mut waiting = [PollFd::new(end.as_fd(), PollFlags::POLLIN)];
        if poll(&mut waiting, patience).unwrap_or(0) == 0 {
            continue;
        }
        let Ok(count @ 1..) = end.read(&mut buffer) else {
            break;
        };
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            match port.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(_) => return port,
            }
        }
    }
    port
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed already.
            let _ = thread.join();
        }
    }
}
