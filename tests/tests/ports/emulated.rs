//! Emulated boards behind a terminal and behind sockets, and a plug that is really pulled.

use std::time::{Duration, Instant};

use keyferry::device::DeviceError;
use keyferry::device::flow;
use keyferry::emulate::Line;
use keyferry_protocol::identity::Challenge;
use keyferry_protocol::receipt::State;
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::board::{Board, Image, Rig};
use keyferry_tests::command;
use keyferry_tests::software::SoftAuthority;

keyferry_tests::on_every_board!(a_board_is_enrolled_over_each_kind_of_port);

fn a_board_is_enrolled_over_each_kind_of_port(board: Board) {
    let authority = SoftAuthority::new(0);
    let mut rig = Rig::start_on(board, Image::Default, 61);
    let kinds = [
        (Line::UnixSocket, "unix:/"),
        (Line::Tcp, "tcp:127.0.0.1:"),
        (Line::PseudoTerminal, "/dev/"),
    ];
    for (number, (line, prefix)) in (1..).zip(kinds) {
        rig = rig.restart_on(line);
        assert!(rig.port().starts_with(prefix), "{}", rig.port());
        let nonce = Challenge([number; 32]);
        let mut session = rig.session();
        let statement = flow::enroll(
            &mut session,
            &authority,
            UnwrapAlgorithm::P256,
            nonce,
            &mut |_| {},
        )
        .unwrap();
        assert_eq!(statement.standing.state, State::Enrolled);
    }
    for (line, _) in kinds {
        rig = rig.restart_on(line);
        let mut session = rig.session();
        let port = rig.port().to_owned();
        rig.pull();
        let start = Instant::now();
        let error = flow::list(&mut session).unwrap_err();
        assert!(
            matches!(&error, DeviceError::Disappeared { port: named } if *named == port),
            "{error}"
        );
        assert!(start.elapsed() < Duration::from_secs(2));
        rig = Rig::start_on(board, Image::Default, 61);
    }
}

#[test]
fn a_file_that_is_no_firmware_starts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let devices = folder.path().join("devices");
    let text = folder.path().join("firmware.hex");
    std::fs::write(&text, ":020000040000FA\n").unwrap();
    let this = std::env::current_exe().unwrap();
    let none = folder.path().join("none");
    let cases = [
        (&text, "it is no ELF file"),
        (&this, "it is a program for another processor"),
        (&none, "there is no firmware at"),
    ];
    for (firmware, error) in cases {
        let start = || {
            let mut start = command::keyferry();
            start.arg("emulate").arg("--firmware").arg(firmware);
            start.arg("--dir").arg(&devices);
            start
        };
        command::refused(start, 2, error, "cargo build --package");
    }
    assert!(!devices.exists());
}
