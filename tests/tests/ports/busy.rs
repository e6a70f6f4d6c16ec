//! A port has one user, and the next one learns who that is.

use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use keyferry::device::port::{self, PortError};
use keyferry_tests::board::open_again;
use keyferry_tests::command;

use super::{info, terminal};

/// Runs `keyferry device info` until it has opened the port, which stays silent.
fn first_user(path: &str) -> std::process::Child {
    let user = command::keyferry()
        .args(["device", "info", "--port", path])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while matches!(port::open(path), Ok(_port)) {
        assert!(Instant::now() < deadline, "nobody opens {path}");
        thread::sleep(Duration::from_millis(5));
    }
    user
}

#[test]
fn a_port_in_use_is_refused_and_its_user_named() {
    let (_device, path, _held) = terminal();
    let mut user = first_user(&path);
    let (code, error, hint) = info(&path);
    let id = user.id();
    user.kill().unwrap();
    user.wait().unwrap();
    assert_eq!(code, 4);
    assert!(error.contains(&format!("'{path}' is in use by")), "{error}");
    assert!(hint.contains("close the other program"), "{hint}");
    if cfg!(target_os = "linux") {
        let named = format!("keyferry (process {id})");
        assert!(error.contains(&named), "{error} does not name {named}");
    }
    // It is free again.
    drop(open_again(&path));
}

#[test]
fn a_program_does_not_open_a_port_twice() {
    let (_device, path, _held) = terminal();
    let first = port::open(&path).unwrap();
    let Err(error) = port::open(&path) else {
        panic!("opened twice");
    };
    assert!(matches!(error, PortError::Busy { .. }), "{error}");
    if cfg!(target_os = "linux") {
        assert!(
            error.to_string().ends_with("this program itself"),
            "{error}"
        );
    }
    drop(first);
    drop(open_again(&path));
}

#[test]
fn what_is_no_port_is_told_before_anything_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("notes.txt");
    std::fs::write(&file, "not a port").unwrap();
    for path in [file.as_path(), folder.path()] {
        let (code, error, _) = info(path.to_str().unwrap());
        assert_eq!(code, 4);
        assert!(error.ends_with("is no serial port"), "{error}");
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"not a port");
    for name in ["", "tcp:", "tcp:host", "tcp:host:0", "unix:"] {
        let (code, error, _) = info(name);
        assert_eq!(code, 2, "{name}: {error}");
    }
}
