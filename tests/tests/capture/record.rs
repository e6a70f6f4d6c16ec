//! How a recording is written: for its owner, whole lines, and never at the session's cost.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use keyferry::device::capture::{CaptureError, Item, Recording, What};
use keyferry::device::port::{self, Port};
use keyferry_protocol::link::Millis;
use keyferry_tests::command::{self, Answer};
use keyferry_tests::desk::{Desk, OnDesk};
use keyferry_tests::relay::Relay;
use nix::pty::openpty;
use nix::unistd::ttyname;

use super::{items, recorded};

fn desk() -> Relay {
    Relay::to(OnDesk::start(Desk::new(3, 64)).port())
}

#[test]
fn a_recording_is_its_owners_and_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("info.capture");
    let relay = desk();
    let info = || {
        Answer::of(
            command::keyferry()
                .args(["--json", "device", "info", "--port", relay.path()])
                .arg("--capture")
                .arg(&path),
        )
    };
    assert_eq!(info().code, 0);
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let recording = Recording::open(&path).unwrap();
    assert_eq!(recording.heading().port, relay.path());
    let before = fs::read(&path).unwrap();

    let answer = info();
    assert_eq!(answer.code, 2, "{answer:?}");
    let error = answer.last()["error"].as_str().unwrap().to_owned();
    assert_eq!(error, format!("{} exists", path.display()));
    assert_eq!(fs::read(&path).unwrap(), before);

    let missing = folder.path().join("none/info.capture");
    // A port that is not there either: the file's name is looked at first.
    for port in [relay.path(), "/dev/there-is-no-such-port"] {
        let start = || {
            let mut info = command::keyferry();
            info.args(["device", "info", "--port", port]);
            info.arg("--capture").arg(&missing);
            info
        };
        command::refused(start, 2, "none/info.capture", "make its folder first");
    }
}

#[test]
fn a_session_that_never_begins_leaves_no_recording() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("info.capture");
    let answer = Answer::of(
        command::keyferry()
            .args(["--json", "device", "info", "--port"])
            .arg("/dev/there-is-no-such-port")
            .arg("--capture")
            .arg(&path),
    );
    assert_eq!(answer.code, 4, "{answer:?}");
    assert!(!path.exists());
}

/// A port that says it has a rate, as real serial devices do and terminals without a wire do not.
struct WithRate(Box<dyn Port>);

impl Port for WithRate {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn read(&mut self, bytes: &mut [u8], until: Millis) -> std::io::Result<usize> {
        self.0.read(bytes, until)
    }

    fn now(&self) -> Millis {
        self.0.now()
    }

    fn set_baud(&mut self, _baud: u32) -> std::io::Result<bool> {
        Ok(true)
    }
}

#[test]
fn every_byte_is_in_it_once_in_its_order() {
    let folder = tempfile::tempdir().unwrap();
    let pair = openpty(None, None).unwrap();
    let mut settings = nix::sys::termios::tcgetattr(&pair.slave).unwrap();
    nix::sys::termios::cfmakeraw(&mut settings);
    nix::sys::termios::tcsetattr(&pair.slave, nix::sys::termios::SetArg::TCSANOW, &settings)
        .unwrap();
    let name = ttyname(&pair.slave).unwrap();
    let mut far = fs::File::from(pair.master);
    let opened = Box::new(WithRate(port::open(name.to_str().unwrap()).unwrap()));
    let (mut near, path) = recorded(opened, folder.path(), "all");
    assert_eq!(near.write(b"to the device").unwrap(), 13);
    std::io::Write::write_all(&mut far, b"to the station").unwrap();
    let mut buffer = [0; 64];
    let until = near.now() + 5_000;
    assert_eq!(near.read(&mut buffer, until).unwrap(), 14);
    // Nothing that came to nothing is written down.
    let now = near.now();
    assert_eq!(near.read(&mut buffer, now).unwrap(), 0);
    assert!(near.set_baud(921_600).unwrap());
    drop((far, pair.slave));
    assert!(near.read(&mut buffer, until).is_err());
    let records: Vec<_> = Recording::open(&path)
        .unwrap()
        .map(|record| record.unwrap().what)
        .collect();
    let [
        What::Bytes { bytes: down, .. },
        What::Bytes { bytes: up, .. },
        What::Baud(921_600),
        What::Gone(_),
    ] = &records[..]
    else {
        panic!("{records:?}");
    };
    assert_eq!(down, b"to the device");
    assert_eq!(up, b"to the station");
}

#[test]
fn a_killed_program_leaves_a_recording_that_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("killed.capture");
    let relay = desk();
    let mut station = command::keyferry()
        .args(["device", "echo", "--count", "100000", "--port"])
        .arg(relay.path())
        .arg("--capture")
        .arg(&path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while fs::metadata(&path).map_or(0, |file| file.len()) < 50_000 {
        assert!(Instant::now() < deadline, "nothing is recorded");
        thread::sleep(Duration::from_millis(5));
    }
    station.kill().unwrap();
    station.wait().unwrap();
    let found = items(&path);
    let echoes = found
        .iter()
        .filter(|item| matches!(item, Item::Message { bytes, .. } if bytes.len() > 1024));
    assert!(echoes.count() > 2);
}

#[test]
fn a_disk_that_is_full_ends_the_recording_and_not_the_session() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("short.capture");
    let relay = desk();
    // A file of this shell's children holds 8 blocks, and the attempt to write more is an error.
    let script = "trap '' XFSZ; ulimit -f 8; exec \"$@\"";
    let answer = Answer::of(
        Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(command::binary())
            .args(["--json", "device", "echo", "--count", "20", "--port"])
            .arg(relay.path())
            .arg("--capture")
            .arg(&path),
    );
    assert_eq!(answer.code, 0, "{answer:?}");
    assert_eq!(answer.last()["ok"], true);
    let warned: Vec<&str> = answer
        .stdout
        .lines()
        .filter(|line| line.contains("\"warning\""))
        .collect();
    let [warning] = &warned[..] else {
        panic!("{answer:?}");
    };
    assert!(
        warning.contains("short.capture") && warning.contains("the session goes on"),
        "{warning}"
    );
    let mut recording = Recording::open(&path).unwrap();
    assert!(recording.by_ref().all(|record| record.is_ok()));
    assert!(recording.is_cut());
}

#[test]
fn what_is_no_recording_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let Err(error) = Recording::open(&path) else {
        panic!("it is not there");
    };
    assert!(matches!(error, CaptureError::Read { .. }), "{error}");
    for content in [
        "",
        "\n",
        "{}\n",
        "not a recording\n",
        "{\"keyferry-capture\":1,\"port\":\"p\",\"started\":\"s\"}",
    ] {
        fs::write(&path, content).unwrap();
        let answer = Answer::of(
            command::keyferry()
                .args(["--json", "line", "decode"])
                .arg(&path),
        );
        assert_eq!(answer.code, 2, "{content}: {answer:?}");
        let error = answer.last()["error"].as_str().unwrap().to_owned();
        assert!(error.ends_with("is no recording of a line"), "{error}");
    }
    fs::write(
        &path,
        "{\"keyferry-capture\":2,\"port\":\"p\",\"started\":\"s\"}\n",
    )
    .unwrap();
    let Err(error) = Recording::open(&path) else {
        panic!("the form is unknown");
    };
    assert!(
        matches!(error, CaptureError::Format { found: 2, .. }),
        "{error}"
    );
}
