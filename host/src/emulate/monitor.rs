//! The emulator's monitor: QMP, one JSON object a line (QEMU, docs/interop/qmp-spec).

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::error::MonitorError;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest line that is accepted, in bytes. The longest real one, the list of character devices, has some hundred.
const LONGEST_LINE: usize = 64 * 1024;

/// A connection to a monitor that takes commands.
pub(crate) struct Monitor {
    stream: BufReader<TcpStream>,
}

impl Monitor {
    /// Greets the monitor at the other end.
    pub(crate) fn new(stream: TcpStream) -> Result<Self, MonitorError> {
        const COMMAND: &str = "qmp_capabilities";
        stream
            .set_nonblocking(false)
            .map_err(|source| MonitorError::Connection {
                command: COMMAND,
                source,
            })?;
        let mut monitor = Self {
            stream: BufReader::new(stream),
        };
        let greeting = monitor.line(COMMAND, Instant::now() + PATIENCE)?;
        if greeting.get("QMP").is_none() {
            return Err(MonitorError::NotUnderstood { command: COMMAND });
        }
        monitor.execute(COMMAND, json!({}))?;
        Ok(monitor)
    }

    /// Runs a command and gives its result.
    pub(crate) fn execute(
        &mut self,
        command: &'static str,
        arguments: Value,
    ) -> Result<Value, MonitorError> {
        let deadline = Instant::now() + PATIENCE;
        let mut request = json!({ "execute": command, "arguments": arguments }).to_string();
        request.push('\n');
        self.stream
            .get_mut()
            .write_all(request.as_bytes())
            .map_err(|source| MonitorError::Connection { command, source })?;
        loop {
            let line = self.line(command, deadline)?;
            if let Some(answer) = understand(command, line) {
                return answer;
            }
        }
    }

    /// Reads one line.
    fn line(&mut self, command: &'static str, deadline: Instant) -> Result<Value, MonitorError> {
        let line = read_line(&mut self.stream, deadline)
            .map_err(|source| MonitorError::Connection { command, source })?;
        serde_json::from_slice(&line).map_err(|_| MonitorError::NotUnderstood { command })
    }
}

/// What a line says about the command under way: its result, or nothing if it is an event.
fn understand(command: &'static str, line: Value) -> Option<Result<Value, MonitorError>> {
    let Value::Object(mut line) = line else {
        return Some(Err(MonitorError::NotUnderstood { command }));
    };
    if line.contains_key("event") {
        return None;
    }
    Some(if let Some(result) = line.remove("return") {
        Ok(result)
    } else if let Some(description) = line.get("error").and_then(|error| error["desc"].as_str()) {
        Err(MonitorError::Refused {
            command,
            description: description.to_owned(),
        })
    } else {
        Err(MonitorError::NotUnderstood { command })
    })
}

/// Reads up to and with the next line end.
fn read_line(stream: &mut BufReader<TcpStream>, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.get_ref().set_read_timeout(Some(left))?;
        let bytes = match stream.fill_buf() {
            Ok([]) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let (count, ended) = match bytes.iter().position(|byte| *byte == b'\n') {
            Some(end) => (end + 1, true),
            None => (bytes.len(), false),
        };
        line.extend_from_slice(&bytes[..count]);
        stream.consume(count);
        if ended {
            return Ok(line);
        }
        if line.len() > LONGEST_LINE {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

/// Where the character device `label` leads, in QEMU's words, from the result of `query-chardev`: `pty:/dev/pts/7`, or of a socket that
/// nobody has called `disconnected:tcp:127.0.0.1:4711,server=on`.
fn filename<'a>(devices: &'a Value, label: &str) -> Option<&'a str> {
    devices
        .as_array()?
        .iter()
        .find(|device| device["label"] == label)?["filename"]
        .as_str()
}

/// The pseudo-terminal of the character device `label`, from the result of `query-chardev`.
pub(crate) fn pseudo_terminal(devices: &Value, label: &str) -> Option<String> {
    filename(devices, label)?
        .strip_prefix("pty:")
        .map(str::to_owned)
}

/// The TCP port's number of the character device `label` on the loopback address, from the result of `query-chardev`.
pub(crate) fn tcp_number(devices: &Value, label: &str) -> Option<u16> {
    let address = filename(devices, label)?.strip_prefix("disconnected:tcp:127.0.0.1:")?;
    let end = address.find(|c: char| !c.is_ascii_digit());
    address[..end.unwrap_or(address.len())].parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// A monitor's end of a connection that says `script`, whatever it is asked.
    fn scripted(script: &'static str) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(script.as_bytes()).unwrap();
            // The end stays open until the other side has gone: bytes on their way are not lost to a reset.
            let _ = io::copy(&mut stream, &mut io::sink());
        });
        TcpStream::connect(address).unwrap()
    }

    #[test]
    fn a_command_gets_its_result_past_events() {
        let mut monitor = Monitor::new(scripted(concat!(
            "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n",
            "{\"return\": {}}\r\n",
            "{\"event\": \"STOP\", \"timestamp\": {}}\r\n",
            "{\"return\": {\"running\": true}}\r\n",
        )))
        .unwrap();
        let status = monitor.execute("query-status", json!({})).unwrap();
        assert_eq!(status["running"], true);
    }

    #[test]
    fn a_refusal_carries_the_monitors_words() {
        let mut monitor = Monitor::new(scripted(concat!(
            "{\"QMP\": {}}\n{\"return\": {}}\n",
            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"Could not open 'x'\"}}\n",
        )))
        .unwrap();
        let error = monitor.execute("pmemsave", json!({})).unwrap_err();
        assert!(matches!(
            error,
            MonitorError::Refused { command: "pmemsave", description } if description == "Could not open 'x'"
        ));
    }

    #[test]
    fn something_else_than_a_monitor_is_noticed() {
        for script in ["{\"hello\": 1}\n", "HTTP/1.1 200 OK\n", "[]\n"] {
            assert!(matches!(
                Monitor::new(scripted(script)),
                Err(MonitorError::NotUnderstood { .. })
            ));
        }
    }

    #[test]
    fn the_terminal_is_found_by_its_label() {
        let devices = json!([
            { "frontend-open": true, "filename": "disconnected:tcp:127.0.0.1:1", "label": "monitor" },
            { "frontend-open": true, "filename": "pty:/dev/pts/7", "label": "uart" },
        ]);
        assert_eq!(
            pseudo_terminal(&devices, "uart").as_deref(),
            Some("/dev/pts/7")
        );
        assert_eq!(pseudo_terminal(&devices, "monitor"), None);
        assert_eq!(pseudo_terminal(&devices, "other"), None);
        assert_eq!(pseudo_terminal(&json!({}), "uart"), None);
        let devices = json!([
            { "filename": "disconnected:tcp:127.0.0.1:37475,server=on", "label": "uart" },
            { "filename": "disconnected:tcp:127.0.0.1:,server=on", "label": "none" },
        ]);
        assert_eq!(tcp_number(&devices, "uart"), Some(37475));
        assert_eq!(tcp_number(&devices, "none"), None);
        assert_eq!(tcp_number(&devices, "other"), None);
    }
}
