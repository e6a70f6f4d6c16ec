//! Many devices of the board `native` in one process, each with a folder and a serial port of its own. A device that fails ends alone;
//! all end with the [`Fleet`], which to them is a power cut.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use keyferry_protocol::identity::DeviceId;

use super::emulator::{START_PATIENCE, end, exited};
use super::folder::{self, OUTPUT, on};
use super::native::{self, LONGEST_NAME, PROGRAM, words};
use super::process::Process;
use super::{Board, EmulateError, Entropy, Line, firmware};

/// A device by its number among several, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbered(pub u16);

impl Numbered {
    /// Its id: the number.
    #[must_use]
    pub fn id(self) -> DeviceId {
        let mut id = DeviceId::ZERO;
        let [.., high, low] = &mut id.0;
        [*high, *low] = self.0.to_be_bytes();
        id
    }

    /// The name of its folder.
    #[must_use]
    pub fn folder(self) -> String {
        format!("device-{}", self.0)
    }
}

/// A fleet.
#[derive(Clone, Debug)]
pub struct FleetConfig {
    /// The firmware: a program of this machine.
    pub firmware: PathBuf,
    /// The folder that holds the devices' folders, and the log of their process, `emulator.log`. What is missing is made. One fleet at
    /// a time may run on it.
    pub dir: PathBuf,
    /// How many devices.
    pub count: u16,
    /// Where they get their randomness.
    pub entropy: Entropy,
    /// What their serial ports are.
    pub line: Line,
}

/// A running fleet. Dropping it kills it.
pub struct Fleet {
    process: Process,
    /// Has the process's input, with which it ends: also on systems whose kernel does not end it with us.
    _input: Receiver<ChildStdin>,
    told: Receiver<Told>,
    dir: PathBuf,
    ports: Vec<String>,
}

/// A device that runs no more, though its fleet does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Which.
    pub device: Numbered,
    /// Its own words.
    pub reason: String,
}

/// What the process tells of a device.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Port(u16, String),
    Failed(u16, String),
    Ended(u16, String),
    /// Something else.
    Unclear,
}

impl Fleet {
    /// Starts the devices with the numbers from 1. When it returns, all serial ports exist.
    ///
    /// # Errors
    /// [`EmulateError`]; then none runs.
    pub fn start(config: &FleetConfig) -> Result<Self, EmulateError> {
        if !cfg!(unix) && config.line != Line::Tcp {
            return Err(EmulateError::NoPseudoTerminal);
        }
        firmware::check(&config.firmware, Board::Native)?;
        check_open_files(config.count)?;
        let devices = || (1..=config.count).map(Numbered);
        let dir = std::path::absolute(&config.dir).map_err(on(&config.dir))?;
        let log = folder::prepare_fleet(&dir)?;
        for device in devices() {
            folder::prepare(&dir.join(device.folder()), Board::Native)?;
        }

        let words = ["fleet=stdin".to_owned()];
        let mut process = native::spawn(&config.firmware, &words, &dir, log)?;
        let pipes = process.child.stdin.take().zip(process.child.stdout.take());
        let Some((input, output)) = pipes else {
            end(&mut process);
            return Err(EmulateError::NotUnderstood { program: PROGRAM });
        };
        let (send, told) = mpsc::channel();
        thread::spawn(move || listen(output, &send));
        let lines: Vec<_> = devices().map(|device| arguments(config, device)).collect();
        let (keep, kept) = mpsc::channel();
        thread::spawn(move || start_all(&lines, input, &keep));
        let mut fleet = Self {
            process,
            _input: kept,
            told,
            dir,
            ports: Vec::new(),
        };
        for device in devices() {
            let port = fleet.port_of(device)?;
            fleet.ports.push(port);
        }
        Ok(fleet)
    }

    /// Waits until a device of the fleet has its port. They come in the order in which they were asked for.
    fn port_of(&mut self, device: Numbered) -> Result<String, EmulateError> {
        match self.told.recv_timeout(START_PATIENCE) {
            Ok(Told::Port(number, name)) if number == device.0 => Ok(name),
            Ok(Told::Failed(number, reason) | Told::Ended(number, reason)) => {
                Err(EmulateError::Device { number, reason })
            }
            Ok(Told::Port(..) | Told::Unclear) => {
                Err(EmulateError::NotUnderstood { program: PROGRAM })
            }
            Err(RecvTimeoutError::Timeout) => Err(EmulateError::TimedOut {
                what: "name all serial ports",
                after: START_PATIENCE,
            }),
            Err(RecvTimeoutError::Disconnected) => Err(self.exited()?),
        }
    }

    /// Why the process is no more: it has closed its output, so it ends or has ended.
    fn exited(&mut self) -> Result<EmulateError, EmulateError> {
        let status = self.process.child.wait();
        let status = status.map_err(on(&self.dir.join(OUTPUT)))?;
        Ok(exited(status, &self.dir))
    }

    /// The serial ports, as one names them to `--port`, in the order of the devices' numbers.
    #[must_use]
    pub fn ports(&self) -> &[String] {
        &self.ports
    }

    /// The serial port of one device, if the fleet has it.
    #[must_use]
    pub fn port(&self, device: Numbered) -> Option<&str> {
        let index = usize::from(device.0).checked_sub(1)?;
        self.ports.get(index).map(String::as_str)
    }

    /// The id of the process that they all are.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.process.child.id()
    }

    /// Waits for a device to end by itself, at most for `patience`; each is told once.
    ///
    /// # Errors
    /// [`EmulateError::Exited`] if all have, with their process.
    pub fn ended(&mut self, patience: Duration) -> Result<Option<Ended>, EmulateError> {
        match self.told.recv_timeout(patience) {
            Ok(Told::Ended(number, reason)) if self.port(Numbered(number)).is_some() => {
                let device = Numbered(number);
                Ok(Some(Ended { device, reason }))
            }
            Ok(Told::Port(..) | Told::Failed(..) | Told::Ended(..) | Told::Unclear) => {
                Err(EmulateError::NotUnderstood { program: PROGRAM })
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(self.exited()?),
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

/// The words of one device. None holds a blank.
fn arguments(config: &FleetConfig, device: Numbered) -> String {
    let folder = device.folder();
    let dir = config.dir.join(&folder);
    let prefix = format!("{folder}/");
    words(device.id(), config.entropy, config.line, &dir, &prefix).join(" ")
}

/// Has the process start the devices. In a thread of its own, because a program that does not read would have us wait; then the input is kept.
fn start_all(lines: &[String], mut input: ChildStdin, keep: &Sender<ChildStdin>) {
    for line in lines {
        if writeln!(input, "{line}").is_err() {
            // It has ended, and whoever waits for its answers finds that out.
            return;
        }
    }
    let _ = keep.send(input);
}

/// Passes on what the process tells, until it closes its output or says something that is not understood.
fn listen(output: ChildStdout, send: &Sender<Told>) {
    let mut output = BufReader::new(output);
    loop {
        let mut line = String::new();
        let told = match (&mut output).take(LONGEST_NAME).read_line(&mut line) {
            Ok(0) => return,
            Ok(_) => told(&line),
            Err(_) => None,
        };
        let clear = told.is_some();
        if send.send(told.unwrap_or(Told::Unclear)).is_err() || !clear {
            return;
        }
    }
}

/// What a line tells.
fn told(line: &str) -> Option<Told> {
    let mut words = line.strip_suffix('\n')?.trim_end().splitn(3, ' ');
    let (what, number, text) = (words.next()?, words.next()?, words.next()?);
    let number = number.parse().ok()?;
    match what {
        "port" => Some(Told::Port(number, text.to_owned())),
        "failed" => Some(Told::Failed(number, text.to_owned())),
        "ended" => Some(Told::Ended(number, text.to_owned())),
        _ => None,
    }
}

/// Checks that the process may have as many files open as it needs: it asks for as many as the system allows.
#[cfg(unix)]
fn check_open_files(count: u16) -> Result<(), EmulateError> {
    use nix::sys::resource::{Resource, getrlimit};

    /// Most that it has open for one device: flash, both ends of a terminal or a socket and its caller, what it waits with.
    const FILES_OF_DEVICE: u64 = 8;
    /// Most that it has open besides.
    const FILES: u64 = 64;

    let wanted = FILES + FILES_OF_DEVICE * u64::from(count);
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, limit)) if limit < wanted => Err(EmulateError::OpenFiles {
            count,
            wanted,
            limit,
        }),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// There is no such limit.
#[cfg(not(unix))]
fn check_open_files(_count: u16) -> Result<(), EmulateError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_device_has_its_own_id_and_folder() {
        let mut id = [0; 16];
        id[15] = 7;
        assert_eq!(Numbered(7).id(), DeviceId(id));
        id[14..].copy_from_slice(&[1, 0]);
        assert_eq!(Numbered(256).id(), DeviceId(id));
        let config = FleetConfig {
            firmware: "unused".into(),
            dir: "un used".into(),
            count: 1,
            entropy: Entropy::Host,
            line: Line::UnixSocket,
        };
        assert_eq!(
            arguments(&config, Numbered(256)),
            "id=00000000000000000000000000000100 fuse=device-256/fuse.bin flash=device-256/flash.bin \
             line=unix:device-256/uart.socket"
        );
    }

    #[test]
    fn what_is_told_is_understood_or_not_believed() {
        let text = |text: &str| text.to_owned();
        assert_eq!(
            told("port 3 /dev/pts/5\n"),
            Some(Told::Port(3, text("/dev/pts/5")))
        );
        assert_eq!(
            told("failed 300 no such file\r\n"),
            Some(Told::Failed(300, text("no such file")))
        );
        assert_eq!(told("ended 1 gone\n"), Some(Told::Ended(1, text("gone"))));
        for line in [
            "",
            "\n",
            "port 3 /dev/pts/5",
            "port 3\n",
            "port x y\n",
            "port 70000 y\n",
            "hello 3 x\n",
        ] {
            assert_eq!(told(line), None, "{line:?}");
        }
    }
}
