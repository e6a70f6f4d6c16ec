//! Ports that are not what they should be: real pseudo-terminals and the real command.
#![cfg(unix)]

mod busy;
mod emulated;
mod fleet;
mod latency;
mod sockets;
mod waiting;

use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use keyferry_tests::command::{self, Answer};
use nix::pty::{OpenptyResult, openpty};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::ttyname;

/// A pseudo-terminal: the end that a device would hold, and the path of the other.
fn terminal() -> (std::fs::File, String, std::os::fd::OwnedFd) {
    let OpenptyResult { master, slave } = openpty(None, None).unwrap();
    let mut settings = tcgetattr(&slave).unwrap();
    cfmakeraw(&mut settings);
    tcsetattr(&slave, SetArg::TCSANOW, &settings).unwrap();
    let path = ttyname(&slave).unwrap().to_str().unwrap().to_owned();
    (master.into(), path, slave)
}

fn info(port: &str) -> (i32, String, String) {
    let answer = Answer::of(command::keyferry().args(["--json", "device", "info", "--port", port]));
    let (code, last) = (answer.code, answer.last());
    assert_eq!(last["ok"], false);
    assert_eq!(last["exit"], code);
    let word = |name: &str| last[name].as_str().unwrap_or_default().to_owned();
    (code, word("error"), word("hint"))
}

#[test]
fn a_missing_port_is_named() {
    let (code, error, hint) = info("/dev/there-is-no-such-port");
    assert_eq!(code, 4);
    assert!(
        error.contains("'/dev/there-is-no-such-port' does not exist"),
        "{error}"
    );
    assert!(!hint.is_empty());
    let port = "/dev/there-is-no-such-port";
    let answer = Answer::of(command::keyferry().args(["device", "info", "--port", port]));
    assert!(
        answer.stderr.starts_with("error: ") && answer.stderr.contains("\nhint: "),
        "{answer:?}"
    );
    assert_eq!(answer.stdout, "");
}

#[test]
fn a_missing_argument_is_named_to_scripts_too() {
    let answer = Answer::of(command::keyferry().args(["--json", "device", "info"]));
    assert_eq!(answer.code, 2, "{answer:?}");
    let last = answer.last();
    assert_eq!(last["ok"], false, "{last}");
    assert!(last["error"].as_str().unwrap().contains("--port"), "{last}");
}

#[test]
fn a_silent_port_is_given_up() {
    let (_device, path, _held) = terminal();
    let (code, error, hint) = info(&path);
    assert_eq!(code, 4);
    assert!(
        error.starts_with(&format!("no answer from '{path}'")),
        "{error}"
    );
    assert!(hint.contains("cable"), "{hint}");
}

#[test]
fn a_port_that_speaks_garbage_is_told_from_a_device() {
    let (mut device, path, _held) = terminal();
    let mut writer = device.try_clone().unwrap();
    thread::spawn(move || {
        let text = b"U-Boot 2031.04 (Apr 01)\r\nHit any key to stop autoboot\r\n\0\x07\x01\0";
        while writer.write_all(text).is_ok() {
            thread::sleep(Duration::from_millis(50));
        }
    });
    thread::spawn(move || {
        let mut sink = [0; 256];
        while device.read(&mut sink).is_ok() {}
    });
    let (code, error, _) = info(&path);
    assert_eq!(code, 4);
    assert!(error.contains("no keyferry device"), "{error}");
}

#[test]
fn a_port_that_is_hung_up_is_named() {
    let (device, path, held) = terminal();
    thread::spawn(move || {
        let mut device = device;
        let mut byte = [0; 1];
        let _ = device.read(&mut byte);
        drop((device, held));
    });
    let (code, error, _) = info(&path);
    assert_eq!(code, 4);
    assert!(error.contains(&path), "{error}");
}

#[test]
fn a_looped_back_cable_is_no_device() {
    let (mut device, path, _held) = terminal();
    thread::spawn(move || {
        let mut bytes = [0; 256];
        while let Ok(count) = device.read(&mut bytes) {
            if device.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
    });
    let (code, error, _) = info(&path);
    assert_eq!(code, 4);
    assert!(!error.is_empty());
}
