//! A process that is many devices. Each line of its standard input has the words of one, and starts it; what becomes of it is told on
//! standard output, one line each, with the device's number, from 1:
//!
//! - `port NUMBER NAME`: it runs, and this is its serial port;
//! - `failed NUMBER REASON`: it could not be started;
//! - `ended NUMBER REASON`: its serial port is no more.
//!
//! The devices share nothing but the process: one that fails or panics leaves the others alone. The process ends with its input.

use std::ffi::OsString;
use std::io::{self, BufRead, Read as _, Write as _};
use std::process::ExitCode;
use std::thread;

use crate::{Device, LineError, NativeError, Settings, SettingsError};

/// The word that asks for it.
pub(crate) const WORD: &str = "fleet=stdin";

/// Longest line of the input in bytes.
const LONGEST: u64 = 16 * 1024;

/// Bytes of the stack of a thread that waits for a device's end.
const STACK: usize = 64 * 1024;

/// Starts what the input says, and stays until there is no more input.
pub(crate) fn run(start: fn(Settings) -> Result<Device, NativeError>) -> ExitCode {
    allow_open_files();
    let mut input = io::stdin().lock();
    for number in 1_u32.. {
        match line(&mut input) {
            Ok(Some(line)) => {
                if let Err(error) = begin(number, &line, start) {
                    tell("failed", number, &error.to_string());
                }
            }
            // Whoever started it is gone. To the devices it is a power cut.
            Ok(None) => break,
            Err(error) => {
                tell("failed", number, &error.to_string());
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// The next line; none if there is no more.
fn line(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    if input.take(LONGEST).read_line(&mut line)? == 0 {
        return Ok(None);
    }
    // Half a line is half a device, also where the input has ended in it.
    match line.strip_suffix('\n') {
        Some(whole) => Ok(Some(whole.to_owned())),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn begin(
    number: u32,
    line: &str,
    start: fn(Settings) -> Result<Device, NativeError>,
) -> Result<(), NativeError> {
    let settings = Settings::read(line.split_whitespace().map(OsString::from))?;
    if settings.control {
        return Err(SettingsError::OthersInput.into());
    }
    let device = start(settings)?;
    let port = device.port().to_owned();
    let wait = move || {
        let end = device.wait();
        tell("ended", number, &end.to_string());
    };
    thread::Builder::new()
        .name(format!("end of device {number}"))
        .stack_size(STACK)
        .spawn(wait)
        .map_err(LineError::Failed)?;
    tell("port", number, &port);
    Ok(())
}

/// Tells one thing, in one line whatever is in it. Whoever does not listen has no use for it.
fn tell(what: &str, number: u32, text: &str) {
    let text = text.replace(char::is_control, "?");
    let _ = writeln!(io::stdout().lock(), "{what} {number} {text}");
}

/// Takes as many open files as the system allows: each device has several, and many systems give a process 1024 unless it asks.
#[cfg(unix)]
fn allow_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    /// `OPEN_MAX` of macOS, which allows no more whatever it says (setrlimit(2) there).
    const OPEN_MAX: u64 = 10_240;

    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return;
    };
    for wanted in [hard, OPEN_MAX.min(hard)] {
        // Where neither is granted, the device that has no file left says so.
        if wanted <= soft || setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok() {
            return;
        }
    }
}

/// There is no such limit.
#[cfg(not(unix))]
fn allow_open_files() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_and_of_a_bounded_length() {
        let long = "x".repeat(LONGEST as usize);
        let mut input = "id=1 flash=a\n\nid=2".as_bytes();
        assert_eq!(line(&mut input).unwrap(), Some("id=1 flash=a".to_owned()));
        assert_eq!(line(&mut input).unwrap(), Some(String::new()));
        assert!(line(&mut input).is_err());
        assert_eq!(line(&mut "".as_bytes()).unwrap(), None);
        assert!(line(&mut long.as_bytes()).is_err());
        assert!(line(&mut [0xff, b'\n'].as_slice()).is_err());
    }

    #[test]
    fn a_line_is_the_words_of_a_device() {
        let refused = |line| begin(1, line, Device::start).unwrap_err().to_string();
        assert_eq!(refused(""), "no flash file is named");
        let control = "flash=none/flash.bin control=stdin";
        assert!(refused(control).contains("starts devices"));
        assert!(refused("flash=none/flash.bin").contains("none/flash.bin"));
    }
}
