//! How a port waits: for bytes and for room, no longer than it must; and what it says when its other end goes.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use keyferry::device::DeviceError;
use keyferry::device::flow;
use keyferry::device::port::{self, BAUD, Port};
use keyferry::device::session::Session;
use keyferry_tests::desk::{Desk, OnDesk};
use keyferry_tests::relay::Relay;
use rustix::termios::tcgetattr;

use super::terminal;

/// Longer than any machine takes to wake up, shorter than any deadline below.
const AT_ONCE: Duration = Duration::from_secs(2);
/// A deadline that is not to be reached, in milliseconds.
const FAR: u64 = 30_000;

/// How long a read with a far deadline takes, and what it gives.
fn timed(port: &mut dyn Port) -> (Duration, std::io::Result<usize>) {
    let start = Instant::now();
    let until = port.now() + FAR;
    let result = port.read(&mut [0; 64], until);
    (start.elapsed(), result)
}

#[test]
fn a_read_waits_until_its_moment_and_no_longer_than_for_a_byte() {
    let (mut device, path, _held) = terminal();
    let mut port = port::open(&path).unwrap();
    let start = port.now();
    assert_eq!(port.read(&mut [0; 64], start + 50).unwrap(), 0);
    assert!(port.now() >= start + 50);
    // A moment that has passed is no wait.
    let before = Instant::now();
    assert_eq!(port.read(&mut [0; 64], start).unwrap(), 0);
    assert!(before.elapsed() < AT_ONCE);

    let late = thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        device.write_all(b"late").unwrap();
        device
    });
    let (took, result) = timed(&mut *port);
    assert_eq!(result.unwrap(), 4);
    assert!(took < AT_ONCE, "{took:?}");
    late.join().unwrap();
}

#[test]
fn a_pulled_plug_ends_the_wait_that_is_under_way() {
    let (mut device, path, held) = terminal();
    let mut port = port::open(&path).unwrap();
    drop(held);
    let pulled = thread::spawn(move || {
        device.write_all(b"last").unwrap();
        thread::sleep(Duration::from_millis(100));
    });
    // What came before is not lost.
    assert_eq!(timed(&mut *port).1.unwrap(), 4);
    let (took, result) = timed(&mut *port);
    assert_eq!(result.unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert!(took < AT_ONCE, "{took:?}");
    pulled.join().unwrap();
    let error = port.write(b"x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
}

#[test]
fn a_closed_socket_ends_the_wait_that_is_under_way() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let mut port = port::open(&format!("unix:{}", path.display())).unwrap();
    let (other, _) = listener.accept().unwrap();
    let closed = thread::spawn(move || {
        thread::sleep(Duration::from_millis(100));
        drop(other);
    });
    let (took, result) = timed(&mut *port);
    assert_eq!(result.unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert!(took < AT_ONCE, "{took:?}");
    closed.join().unwrap();
}

/// Fills the line: gives what went in before there was no room.
fn fill(port: &mut dyn Port) -> usize {
    let start = Instant::now();
    let mut filled = 0;
    loop {
        match port.write(&[0x55; 4096]).unwrap() {
            0 => break,
            count => filled += count,
        }
        assert!(start.elapsed() < AT_ONCE, "there is always room");
    }
    assert!(filled > 0);
    filled
}

/// Reads `count` bytes after a while.
fn drain(mut from: impl Read + Send + 'static, count: usize) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(100));
        let mut bytes = vec![0; count];
        from.read_exact(&mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0x55));
        // Not hung up before the other side has looked.
        thread::sleep(AT_ONCE);
    })
}

#[test]
fn a_write_takes_what_there_is_room_for_and_a_read_ends_when_there_is_more() {
    let (device, path, _held) = terminal();
    let mut port = port::open(&path).unwrap();
    let filled = fill(&mut *port);
    let drained = drain(device, filled);
    let (took, result) = timed(&mut *port);
    assert_eq!(result.unwrap(), 0);
    assert!(took < AT_ONCE, "{took:?}");
    assert!(port.write(b"more").unwrap() > 0);
    drained.join().unwrap();

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let mut port = port::open(&format!("unix:{}", path.display())).unwrap();
    let (other, _): (UnixStream, _) = listener.accept().unwrap();
    let filled = fill(&mut *port);
    let drained = drain(other, filled);
    let (took, result) = timed(&mut *port);
    assert_eq!(result.unwrap(), 0);
    assert!(took < AT_ONCE, "{took:?}");
    assert!(port.write(b"more").unwrap() > 0);
    drained.join().unwrap();
}

#[test]
fn a_terminal_without_a_wire_and_a_socket_have_no_rate() {
    let (_device, path, held) = terminal();
    let mut port = port::open(&path).unwrap();
    let rate = || tcgetattr(&held).unwrap().output_speed();
    assert_eq!(rate(), BAUD);
    assert_eq!(port.set_baud(921_600).unwrap(), !cfg!(target_os = "linux"));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let _listener = UnixListener::bind(&path).unwrap();
    let mut port = port::open(&format!("unix:{}", path.display())).unwrap();
    assert!(!port.set_baud(921_600).unwrap());
}

/// A session through a relay that is pulled out.
fn pulled_in_mid_session(relay: Relay) {
    let mut session = Session::open(port::open(relay.path()).unwrap()).unwrap();
    let name = relay.path().to_owned();
    let start = Instant::now();
    drop(relay);
    let error = flow::list(&mut session).unwrap_err();
    assert!(
        matches!(&error, DeviceError::Disappeared { port } if *port == name),
        "{error}"
    );
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
}

#[test]
fn a_device_that_goes_in_mid_session_is_missed_at_once_on_every_kind_of_port() {
    let desk = || OnDesk::start(Desk::new(1, 64)).port();
    let folder = tempfile::tempdir().unwrap();
    pulled_in_mid_session(Relay::to(desk()));
    pulled_in_mid_session(Relay::on_tcp(desk()));
    pulled_in_mid_session(Relay::on_unix(&folder.path().join("s"), desk()));
}
