//! The host against a device that somebody else could have written: tests/interop/device.py, made from the specification's text.
#![cfg(unix)]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use keyferry::device::port;
use keyferry::device::session::Session;
use keyferry_protocol::message::{Reply, Request};
use keyferry_protocol::receipt::State;
use keyferry_tests::command::{done, keyferry};
use nix::pty::{OpenptyResult, openpty};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::ttyname;

/// The device at one end of a line and the path of the other end. The line flips a bit in every `damage`th byte, both ways.
struct Desk {
    device: Child,
    path: String,
    _held: [std::os::fd::OwnedFd; 2],
}

impl Drop for Desk {
    fn drop(&mut self) {
        // If it is gone already, there is nothing to end.
        let _ = self.device.kill();
        let _ = self.device.wait();
    }
}

fn terminal() -> (File, String, std::os::fd::OwnedFd) {
    let OpenptyResult { master, slave } = openpty(None, None).unwrap();
    let mut settings = tcgetattr(&slave).unwrap();
    cfmakeraw(&mut settings);
    tcsetattr(&slave, SetArg::TCSANOW, &settings).unwrap();
    let path = ttyname(&slave).unwrap().to_str().unwrap().to_owned();
    (master.into(), path, slave)
}

fn carry(mut from: File, mut to: File, damage: Option<usize>) {
    thread::spawn(move || {
        let (mut bytes, mut passed) = ([0; 256], 0_usize);
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            for byte in &mut bytes[..count] {
                passed += 1;
                if damage.is_some_and(|every| passed.is_multiple_of(every)) {
                    *byte ^= 0x10;
                }
            }
            if to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
    });
}

fn start(damage: Option<usize>) -> Desk {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = tests.join("../target/interop/bin/python");
    assert!(
        python.exists(),
        "the Python of the interop test is missing: run cargo xtask setup"
    );
    let (near, device_path, near_held) = terminal();
    let (far, path, far_held) = terminal();
    carry(near.try_clone().unwrap(), far.try_clone().unwrap(), damage);
    carry(far, near, damage);
    let mut device = Command::new(python)
        .arg("-I")
        .arg(tests.join("interop/device.py"))
        .arg(device_path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(device.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "ready\n");
    Desk {
        device,
        path,
        _held: [near_held, far_held],
    }
}

fn echoes(desk: &Desk, sizes: &[usize]) {
    let mut session = Session::open(port::open(&desk.path).unwrap()).unwrap();
    assert_eq!(session.greeting().state, State::Blank);
    assert_eq!(session.greeting().board, "python");
    for &size in sizes {
        let bytes: Vec<u8> = (0..size).map(|place| (place * 31 + size) as u8).collect();
        let request = Request::Echo { bytes: &bytes };
        let message = session.exchange(&request, &mut |_| {}).unwrap();
        assert_eq!(
            Reply::decode(&message).unwrap(),
            Reply::Echo { bytes: &bytes }
        );
    }
}

#[test]
fn the_command_talks_to_a_device_made_from_the_text() {
    let desk = start(None);
    let info = done(keyferry().args(["device", "info", "--port", &desk.path]));
    assert_eq!(info["state"], "blank");
    assert_eq!(info["board"], "python");
    let bytes = ["--bytes", "2000", "--count", "5"];
    let echo = done(
        keyferry()
            .args(["device", "echo", "--port", &desk.path])
            .args(bytes),
    );
    assert_eq!(echo["bytes"], 10_000);
}

#[test]
fn echoes_of_every_size_pass_in_two_sessions() {
    let desk = start(None);
    for _ in 0..2 {
        echoes(
            &desk,
            &[1, 2, 61, 62, 63, 64, 253, 254, 255, 256, 1000, 1999, 2000],
        );
    }
}

#[test]
fn damaged_bytes_are_repaired_by_both_ends() {
    let desk = start(Some(701));
    echoes(&desk, &[1, 64, 500, 1000, 2000, 2000]);
}
