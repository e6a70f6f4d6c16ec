//! A running emulated device.

use std::fs::{self, File};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::control::{Control, Machine};
use super::firmware;
use super::folder::{self, CAPTURE, FLASH, LOG, Logs, OUTPUT, SOCKET, on};
use super::logs::Log;
use super::monitor::{Monitor, pseudo_terminal, tcp_number};
use super::process::{self, Process, UART};
use super::{Config, EmulateError, Line, MonitorError, QemuBoard, native};

/// How long QEMU may take to connect its monitor, or a process to name a serial port.
pub(super) const START_PATIENCE: Duration = Duration::from_secs(30);
/// How often a wait looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// How much of QEMU's own output an error repeats, in bytes.
const OUTPUT_TAIL: usize = 1000;

/// A running emulated device. Dropping it kills it, which to the device is a power cut.
pub struct Emulator {
    process: Process,
    control: Control,
    dir: PathBuf,
    /// The firmware that it runs.
    firmware: PathBuf,
    /// Where in the log this start begins, in bytes.
    log_begin: u64,
    port: String,
    /// The station's end of the serial port, open as long as the device runs: QEMU drops what a device sends while nobody
    /// has opened its pseudo-terminal, and looks only once a second whether somebody has.
    _terminal: Option<File>,
}

impl Emulator {
    /// Starts a device. When it returns, the serial port exists; the firmware may still be starting, so begin with a
    /// handshake.
    ///
    /// # Errors
    /// [`EmulateError`]: QEMU or the firmware is missing, the folder cannot be used or is in use, or QEMU fails to start.
    pub fn start(config: &Config) -> Result<Self, EmulateError> {
        if !cfg!(unix) && config.line != Line::Tcp {
            return Err(EmulateError::NoPseudoTerminal);
        }
        firmware::check(&config.firmware, config.board)?;
        let dir = std::path::absolute(&config.dir).map_err(on(&config.dir))?;
        let logs = folder::prepare(&dir, config.board)?;
        let log_begin = logs.device.metadata().map_err(on(&dir))?.len();

        match config.board.qemu() {
            Some(board) => Self::start_machine(board, config, dir, logs, log_begin),
            None => Self::start_native(config, dir, logs, log_begin),
        }
    }

    /// Starts a device that QEMU runs.
    fn start_machine(
        board: QemuBoard,
        config: &Config,
        dir: PathBuf,
        logs: Logs,
        log_begin: u64,
    ) -> Result<Self, EmulateError> {
        let program = board.program();
        let failed = |source| EmulateError::Start { program, source };
        // Bound before QEMU starts, so that no port has to be guessed and nobody has to try again.
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let monitor_port = listener.local_addr().map_err(failed)?.port();

        let mut process = process::start(board, config, &dir, logs, monitor_port)?;
        match Self::connect(&mut process, &listener, &dir, config.line) {
            Ok((monitor, port, terminal)) => Ok(Self {
                process,
                control: Control::Machine(Machine::new(monitor)),
                dir,
                firmware: config.firmware.clone(),
                log_begin,
                port,
                _terminal: terminal,
            }),
            Err(error) => {
                end(&mut process);
                Err(error)
            }
        }
    }

    /// Starts a device that is a process by itself.
    fn start_native(
        config: &Config,
        dir: PathBuf,
        logs: Logs,
        log_begin: u64,
    ) -> Result<Self, EmulateError> {
        let mut process = native::start(config, &dir, logs)?;
        let pipes = process.child.stdin.take().zip(process.child.stdout.take());
        let named = match pipes {
            Some((input, output)) => native::port(output, START_PATIENCE)
                .map(|port| port.map(|port| (Control::Native(input), port))),
            None => Ok(None),
        };
        match named {
            Ok(Some((control, port))) => Ok(Self {
                process,
                control,
                dir,
                firmware: config.firmware.clone(),
                log_begin,
                port,
                // It holds the station's end itself.
                _terminal: None,
            }),
            Ok(None) => {
                // It has closed its output: it ends, or has ended.
                let status = process.child.wait().map_err(on(&dir.join(OUTPUT)))?;
                Err(exited(status, &dir))
            }
            Err(error) => {
                end(&mut process);
                Err(error)
            }
        }
    }

    /// Waits for the monitor, asks it for the serial port, and lets the device start.
    ///
    /// The terminal is opened before QEMU builds the board: building it is when QEMU looks, and a first look in vain would
    /// cost a second.
    fn connect(
        process: &mut Process,
        listener: &TcpListener,
        dir: &Path,
        line: Line,
    ) -> Result<(Monitor, String, Option<File>), EmulateError> {
        let stream = accept(process, listener, dir)?;
        let mut monitor = Monitor::new(stream)?;
        const COMMAND: &str = "query-chardev";
        let devices = monitor.execute(COMMAND, json!({}))?;
        let unclear = MonitorError::NotUnderstood { command: COMMAND };
        let (port, terminal) = match line {
            Line::PseudoTerminal => {
                let port = pseudo_terminal(&devices, UART).ok_or(unclear)?;
                let terminal = open_terminal(Path::new(&port)).map_err(on(Path::new(&port)))?;
                (port, Some(terminal))
            }
            Line::UnixSocket => (format!("unix:{}", dir.join(SOCKET).display()), None),
            Line::Tcp => {
                let number = tcp_number(&devices, UART).ok_or(unclear)?;
                (format!("tcp:127.0.0.1:{number}"), None)
            }
        };
        monitor.execute("x-exit-preconfig", json!({}))?;
        Ok((monitor, port, terminal))
    }

    /// The serial port, as one names it to `--port`. It exists as long as the device runs; another start may give another one.
    #[must_use]
    pub fn port(&self) -> &str {
        &self.port
    }

    /// The emulator's process id.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.process.child.id()
    }

    /// The flash file. What the device writes is in it at once, also when the device is killed.
    #[must_use]
    pub fn flash_path(&self) -> PathBuf {
        self.dir.join(FLASH)
    }

    /// The device's log: defmt frames (encoding rzCOBS) of all its starts on this folder, one after the other. Each start
    /// begins with a line of QEMU's own and a zero byte, which a decoder meets as one malformed frame.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.dir.join(LOG)
    }

    /// What the device has logged and logs since this start, decoded.
    ///
    /// # Errors
    /// [`EmulateError::Log`] if the firmware does not use defmt.
    pub fn log(&self) -> Result<Log, EmulateError> {
        Ok(Log::open(&self.firmware, self.log_path(), self.log_begin)?)
    }

    /// What the device sent in all its starts with [`Config::capture`] on this folder.
    #[must_use]
    pub fn capture_path(&self) -> PathBuf {
        self.dir.join(CAPTURE)
    }

    /// Whether the emulator runs (a stopped device counts as running).
    ///
    /// # Errors
    /// [`EmulateError::Start`] if the operating system cannot say.
    pub fn is_running(&mut self) -> Result<bool, EmulateError> {
        Ok(self.status()?.is_none())
    }

    /// Waits until the emulator has ended by itself, at most for `patience`.
    ///
    /// # Errors
    /// [`EmulateError::TimedOut`] if it has not.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus, EmulateError> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.status()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                return Err(EmulateError::TimedOut {
                    what: "end",
                    after: patience,
                });
            }
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// Cuts the device's power: the emulator gets `SIGKILL`. When this returns it is gone, and its serial port with it.
    pub fn kill(mut self) {
        end(&mut self.process);
    }

    /// Resets the device, as its reset button does. Its flash and its serial port stay.
    ///
    /// # Errors
    /// [`EmulateError::Monitor`].
    pub fn reset(&mut self) -> Result<(), EmulateError> {
        self.control.reset()
    }

    /// The machine that QEMU emulates; `None` for the board `native`.
    pub const fn machine(&mut self) -> Option<&mut Machine> {
        match &mut self.control {
            Control::Machine(machine) => Some(machine),
            Control::Native(_) => None,
        }
    }

    /// How the emulator ended, if it has.
    fn status(&mut self) -> Result<Option<ExitStatus>, EmulateError> {
        self.process
            .child
            .try_wait()
            .map_err(on(&self.dir.join(OUTPUT)))
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

/// Kills the emulator and waits until it is gone. Does nothing if it is.
pub(super) fn end(process: &mut Process) {
    // Both fail only for a process that is no more.
    let _ = process.child.kill();
    let _ = process.child.wait();
}

/// Waits for QEMU's monitor to connect.
fn accept(
    process: &mut Process,
    listener: &TcpListener,
    dir: &Path,
) -> Result<TcpStream, EmulateError> {
    let log = dir.join(OUTPUT);
    let deadline = Instant::now() + START_PATIENCE;
    loop {
        match listener.accept() {
            Ok((stream, _)) => return Ok(stream),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(source) => {
                return Err(EmulateError::Monitor(MonitorError::Connection {
                    command: "connect",
                    source,
                }));
            }
        }
        if let Some(status) = process.child.try_wait().map_err(on(&log))? {
            return Err(exited(status, dir));
        }
        if Instant::now() >= deadline {
            return Err(EmulateError::TimedOut {
                what: "connect its monitor",
                after: START_PATIENCE,
            });
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// The emulator ended by itself.
pub(super) fn exited(status: ExitStatus, dir: &Path) -> EmulateError {
    EmulateError::Exited {
        status,
        output: tail(&fs::read(dir.join(OUTPUT)).unwrap_or_default()),
    }
}

/// The last lines of what it wrote.
fn tail(output: &[u8]) -> String {
    let start = output.len().saturating_sub(OUTPUT_TAIL);
    String::from_utf8_lossy(&output[start..]).trim().to_owned()
}

/// Opens a pseudo-terminal without making it the one that controls this process: its end would else end us too.
#[cfg(unix)]
fn open_terminal(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;

    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::fcntl::OFlag::O_NOCTTY.bits())
        .open(path)
}

/// There are none; `Emulator::start` has said so before it comes to this.
#[cfg(not(unix))]
fn open_terminal(_path: &Path) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use keyferry_protocol::identity::DeviceId;

    use super::super::Board;
    use super::*;

    #[test]
    fn missing_firmware_is_said_before_anything_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("device");
        let config = Config::new(
            Board::Mps2An386,
            dir.path().join("none.elf"),
            device.clone(),
            DeviceId([1; 16]),
        );
        let error = Emulator::start(&config).err().unwrap();
        assert!(matches!(error, EmulateError::FirmwareMissing { .. }));
        assert!(error.hint().is_some());
        assert!(!device.exists());
    }

    #[test]
    fn the_tail_of_a_long_output_is_its_end() {
        let output = [vec![b'x'; 5000], b"the last words\n".to_vec()].concat();
        let tail = tail(&output);
        assert!(tail.ends_with("the last words"));
        assert_eq!(tail.len(), OUTPUT_TAIL - 1);
    }
}
