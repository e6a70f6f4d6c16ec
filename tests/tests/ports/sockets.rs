//! Devices behind sockets.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use keyferry_tests::command::{self, Answer};
use keyferry_tests::desk::{Desk, OnDesk};
use keyferry_tests::relay::Relay;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};

use super::info;

fn desk() -> Box<dyn keyferry::device::port::Port> {
    OnDesk::start(Desk::new(7, 64)).port()
}

/// Asks the device behind `port` twice who it is, and for an echo.
fn talk(port: &str) {
    for _ in 0..2 {
        let answer =
            Answer::of(command::keyferry().args(["--json", "device", "info", "--port", port]));
        assert_eq!(answer.code, 0, "{answer:?}");
        assert_eq!(answer.last()["device"], "07".repeat(16), "{answer:?}");
    }
    let answer = Answer::of(command::keyferry().args(["device", "echo", "--port", port]));
    assert_eq!(answer.code, 0, "{answer:?}");
}

#[test]
fn a_device_is_reached_over_tcp() {
    let relay = Relay::on_tcp(desk());
    talk(relay.path());
    let by_name = relay.path().replace("127.0.0.1", "localhost");
    assert_ne!(by_name, relay.path());
    talk(&by_name);
}

#[test]
fn a_device_is_reached_over_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let relay = Relay::on_unix(&folder.path().join("device"), desk());
    talk(relay.path());
}

#[test]
fn the_keys_that_a_blank_device_does_not_have_are_null() {
    let relay = Relay::on_tcp(desk());
    let mut info = command::keyferry();
    info.args(["device", "info", "--port", relay.path()]);
    let last = command::done(&mut info);
    assert_eq!(last["state"], "blank");
    for name in ["identity", "authority"] {
        let fields = last.as_object().unwrap();
        assert!(fields[name].is_null(), "{last}");
    }
}

#[test]
fn a_socket_that_nobody_serves_is_named() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("tcp:{}", free.local_addr().unwrap());
    drop(free);
    let (code, error, hint) = info(&port);
    assert_eq!(code, 4);
    assert_eq!(error, format!("nobody listens at '{port}'"));
    assert!(hint.contains("start what serves the port"), "{hint}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("left behind");
    drop(UnixListener::bind(&path).unwrap());
    let port = format!("unix:{}", path.display());
    let (code, error, _) = info(&port);
    assert_eq!(code, 4);
    assert_eq!(error, format!("nobody listens at '{port}'"));

    let port = format!("unix:{}/none", folder.path().display());
    let (code, error, hint) = info(&port);
    assert_eq!(code, 4);
    assert_eq!(error, format!("port '{port}' does not exist"));
    assert!(hint.contains("start what serves the socket"), "{hint}");
}

#[test]
fn a_host_without_its_prefix_is_told_how_to_write_it() {
    let (code, error, hint) = info("localhost:4001");
    assert_eq!(code, 4);
    assert_eq!(error, "port 'localhost:4001' does not exist");
    assert!(hint.contains("tcp:HOST:NUMBER"), "{hint}");
}

#[test]
fn a_host_that_nobody_knows_is_named() {
    // RFC 6761, section 6.4: no name below .invalid is ever found.
    let start = Instant::now();
    let (code, error, hint) = info("tcp:station.invalid:4001");
    assert_eq!(code, 4);
    assert_eq!(
        error,
        "the host 'station.invalid' of port 'tcp:station.invalid:4001' cannot be found"
    );
    assert!(hint.contains("give the address"), "{hint}");
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_socket_whose_queue_is_full_is_busy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("busy");
    let made = || {
        socket(
            AddressFamily::Unix,
            SockType::Stream,
            SockFlag::empty(),
            None,
        )
        .unwrap()
    };
    let address = UnixAddr::new(&path).unwrap();
    let server = made();
    bind(std::os::fd::AsRawFd::as_raw_fd(&server), &address).unwrap();
    listen(&server, Backlog::new(0).unwrap()).unwrap();
    // Linux lets one more in than the queue is long.
    let first = made();
    connect(std::os::fd::AsRawFd::as_raw_fd(&first), &address).unwrap();
    let port = format!("unix:{}", path.display());
    let (code, error, _) = info(&port);
    assert_eq!(code, 4);
    assert_eq!(error, format!("port '{port}' is in use by another program"));
}

#[test]
fn a_socket_that_hangs_up_at_once_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("tcp:{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || drop(listener.accept()));
    let (code, error, hint) = info(&port);
    server.join().unwrap();
    assert_eq!(code, 4);
    assert_eq!(
        error,
        format!("'{port}' was closed at its other end before a device answered")
    );
    assert!(hint.contains("nobody else is being served"), "{hint}");
}

#[test]
fn a_server_that_says_something_and_hangs_up_is_no_device_that_disappeared() {
    let text = b"port in use by 10.0.0.7\r\n";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let port = format!("unix:{}", path.display());
    let server = std::thread::spawn(move || {
        let (mut caller, _) = listener.accept().unwrap();
        caller.write_all(text).unwrap();
    });
    let (code, error, hint) = info(&port);
    server.join().unwrap();
    assert_eq!(code, 4);
    let words = "was closed at its other end before a device answered (25 bytes came)";
    assert_eq!(error, format!("'{port}' {words}"));
    assert!(hint.contains("--capture FILE"), "{hint}");
}

#[test]
fn a_server_that_hangs_up_in_the_midst_of_the_greeting_is_named_so_too() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("tcp:{}", listener.local_addr().unwrap());
    // Having read one byte only, it resets the connection (RFC 9293, section 3.6.1).
    let server = std::thread::spawn(move || {
        let (mut caller, _) = listener.accept().unwrap();
        caller.read_exact(&mut [0; 1]).unwrap();
    });
    let (code, error, _) = info(&port);
    server.join().unwrap();
    assert_eq!(code, 4);
    assert!(
        error.contains("was closed at its other end before a device answered"),
        "{error}"
    );
}
