//! A cable for the real command: a pseudo-terminal whose other end leads to any port of a test, a tampered one too.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
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
    _held: OwnedFd,
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
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || carry(master.into(), port, &stopped));
        Self {
            path: path.display().to_string(),
            stop,
            thread: Some(thread),
            _held: slave,
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

/// Carries bytes both ways until it is stopped, or the port is gone.
fn carry(mut terminal: File, mut port: Box<dyn Port>, stop: &AtomicBool) {
    let mut buffer = [0; 1024];
    while !stop.load(Ordering::Relaxed) {
        let until = port.now() + TURN;
        let Ok(count) = port.read(&mut buffer, until) else {
            return;
        };
        if terminal.write_all(&buffer[..count]).is_err() {
            return;
        }
        // A desk's clock moves on by the turn with each idle read: it shall not run faster than the command's.
        let patience = PollTimeout::from(if count == 0 { TURN as u8 } else { 0 });
        let mut waiting = [PollFd::new(terminal.as_fd(), PollFlags::POLLIN)];
        if poll(&mut waiting, patience).unwrap_or(0) == 0 {
            continue;
        }
        let Ok(count) = terminal.read(&mut buffer) else {
            return;
        };
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            match port.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(_) => return,
            }
        }
    }
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
