//! The board `native`: the firmware's program, which is its own emulator.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{ChildStdout, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use keyferry_protocol::identity::DeviceId;

use super::folder::{CAPTURE, FLASH, Logs, SOCKET};
use super::process::{self, Process};
use super::{Config, EmulateError, Entropy, Line};

/// The program, for messages.
pub(super) const PROGRAM: &str = "keyferry-native";

/// Longest name of a serial port in bytes.
pub(super) const LONGEST_NAME: u64 = 4096;

/// Starts it in `dir`.
pub(crate) fn start(config: &Config, dir: &Path, logs: Logs) -> Result<Process, EmulateError> {
    spawn(&config.firmware, &arguments(config, dir), dir, logs.output)
}

/// Starts the program in `dir`.
pub(super) fn spawn(
    firmware: &Path,
    words: &[String],
    dir: &Path,
    log: impl Into<Stdio>,
) -> Result<Process, EmulateError> {
    let failed = |source| EmulateError::Start {
        program: PROGRAM,
        source,
    };
    let firmware = std::path::absolute(firmware).map_err(failed)?;
    let mut command = process::mortal(&firmware);
    command
        .args(words)
        .current_dir(dir)
        // It ends with this pipe: also on systems whose kernel does not end it with us.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log);
    process::spawn(PROGRAM, command)
}

fn arguments(config: &Config, dir: &Path) -> Vec<String> {
    let mut arguments = words(config.device_id, config.entropy, config.line, dir, "");
    if config.capture {
        arguments.push(format!("capture={CAPTURE}"));
    }
    arguments.push("control=stdin".to_owned());
    arguments.extend(config.words.iter().cloned());
    arguments
}

/// What a device is told of itself, its flash and its serial port; see [`process::words`].
pub(super) fn words(
    device_id: DeviceId,
    entropy: Entropy,
    line: Line,
    dir: &Path,
    prefix: &str,
) -> Vec<String> {
    let mut words = process::words(device_id, entropy, dir, prefix);
    words.push(format!("flash={prefix}{FLASH}"));
    words.push(match line {
        Line::PseudoTerminal => "line=pty".to_owned(),
        Line::UnixSocket => format!("line=unix:{prefix}{SOCKET}"),
        Line::Tcp => "line=tcp:127.0.0.1:0".to_owned(),
    });
    words
}

/// The name of its serial port, which it prints when there is one. `None` if it ends before that.
pub(crate) fn port(
    output: ChildStdout,
    patience: Duration,
) -> Result<Option<String>, EmulateError> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(std::io::Read::take(output, LONGEST_NAME)).read_line(&mut line);
        // Whoever no longer waits has said so.
        let _ = send.send(read.map(|_| line));
    });
    match receive.recv_timeout(patience) {
        Ok(Ok(line)) => Ok(line
            .strip_suffix('\n')
            .map(|line| line.trim_end().to_owned())),
        Ok(Err(source)) => Err(EmulateError::Start {
            program: PROGRAM,
            source,
        }),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            Err(EmulateError::TimedOut {
                what: "name its serial port",
                after: patience,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Board;
    use super::*;

    #[test]
    fn the_device_learns_who_it_is_and_what_its_port_is() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new(
            Board::Native,
            "unused".into(),
            dir.path().to_owned(),
            DeviceId([0xab; 16]),
        );
        config.entropy = Entropy::Stuck;
        config.line = Line::Tcp;
        let line = arguments(&config, dir.path()).join(" ");
        let id = "ab".repeat(16);
        assert_eq!(
            line,
            format!(
                "id={id} fuse=fuse.bin entropy=stuck flash=flash.bin line=tcp:127.0.0.1:0 control=stdin"
            )
        );
        config.line = Line::UnixSocket;
        config.capture = true;
        let line = arguments(&config, dir.path()).join(" ");
        assert!(line.contains("line=unix:uart.socket capture=uart.bin "));
    }
}
