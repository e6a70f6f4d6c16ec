//! `keyferry emulate --count`: many devices, with a port, a folder and a fate of their own each. Those of the board `native` are one
//! process, all others a process each.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use keyferry::device::flow;
use keyferry::device::session::Session;
use keyferry_protocol::identity::{Challenge, DeviceId};
use keyferry_protocol::receipt::State;
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::board::{Board, Image, open_again};
use keyferry_tests::command::{self, Answer};
use keyferry_tests::software::SoftAuthority;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// The command with what it emulates.
fn emulate(dir: &Path, count: u16) -> Command {
    emulate_on(Board::Native, dir, count)
}

fn emulate_on(board: Board, dir: &Path, count: u16) -> Command {
    let mut command = command::keyferry();
    command.args(["emulate", "--board", board.name(), "--firmware"]);
    command.arg(Image::Default.elf(board));
    command.arg("--dir").arg(dir);
    command.args(["--count", &count.to_string()]);
    command
}

/// A running command. It ends with this value.
struct Fleet {
    command: Child,
    /// Kept open, for the command says more.
    _output: BufReader<ChildStdout>,
    /// The port of each device.
    ports: Vec<String>,
    /// The processes that they are.
    processes: BTreeSet<i32>,
}

impl Fleet {
    fn start(mut command: Command, count: u16) -> Self {
        let command = command.arg("--json").stdout(Stdio::piped());
        let mut command = command.spawn().unwrap();
        let mut output = BufReader::new(command.stdout.take().unwrap());
        let lines: Vec<_> = (0..count).map(|_| next(&mut output)).collect();
        let mut ports = Vec::new();
        let mut processes = BTreeSet::new();
        for (number, line) in (1..).zip(&lines) {
            assert_eq!(line["device"], device_id(number).to_string(), "{line}");
            ports.push(line["port"].as_str().unwrap().to_owned());
            let process = line["process"].as_i64().unwrap();
            processes.insert(i32::try_from(process).unwrap());
        }
        Self {
            command,
            _output: output,
            ports,
            processes,
        }
    }

    fn is_running(&self) -> bool {
        self.processes.iter().any(|process| is_running(*process))
    }

    fn session(&self, number: u16) -> Session {
        Session::open(open_again(&self.ports[usize::from(number) - 1])).unwrap()
    }

    /// Ends the command by a signal, and waits until the devices are gone with it.
    fn end(mut self, signal: Signal) {
        let command = Pid::from_raw(i32::try_from(self.command.id()).unwrap());
        kill(command, signal).unwrap();
        self.command.wait().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.is_running() {
            assert!(Instant::now() < deadline, "the devices run on");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _ = self.command.kill();
        let _ = self.command.wait();
    }
}

/// Whether there is a process of this number. One that has ended and that nobody has asked about is none.
fn is_running(process: i32) -> bool {
    let state = Command::new("ps")
        .args(["-o", "stat=", "-p", &process.to_string()])
        .output()
        .expect("ps");
    let state = String::from_utf8(state.stdout).unwrap();
    !matches!(state.trim_start().chars().next(), None | Some('Z'))
}

/// The next thing that the command tells.
fn next(output: &mut BufReader<ChildStdout>) -> Value {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|_| panic!("it has ended: {line:?}"))
}

fn device_id(number: u16) -> DeviceId {
    let mut id = DeviceId::ZERO;
    id.0[14..].copy_from_slice(&number.to_be_bytes());
    id
}

fn enroll(session: &mut Session) {
    let (authority, nonce) = (SoftAuthority::new(0), Challenge([1; 32]));
    let kind = UnwrapAlgorithm::P256;
    flow::enroll(session, &authority, kind, nonce, &mut |_| {}).unwrap();
}

/// With no more open files than many systems give a process at first.
#[test]
fn two_hundred_devices_are_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let inner = emulate(folder.path(), 200);
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -Sn 1024 && exec \"$@\"", "sh"])
        .arg(inner.get_program())
        .args(inner.get_args());
    let fleet = Fleet::start(command, 200);
    assert_eq!(fleet.processes.len(), 1);
    let different: BTreeSet<_> = fleet.ports.iter().collect();
    assert_eq!(different.len(), 200);
    for number in 1..=200 {
        let session = fleet.session(number);
        assert_eq!(session.greeting().device, device_id(number));
        assert_eq!(session.greeting().state, State::Blank);
    }
    enroll(&mut fleet.session(117));
    // Not SIGINT, which who runs tests in the background has switched off for all that he starts.
    fleet.end(Signal::SIGTERM);

    // Started again, and killed without a chance to say anything: they are the same devices.
    let fleet = Fleet::start(emulate(folder.path(), 200), 200);
    assert_eq!(fleet.session(117).greeting().state, State::Enrolled);
    assert_eq!(fleet.session(118).greeting().state, State::Blank);
    fleet.end(Signal::SIGKILL);
}

#[test]
fn boards_are_a_machine_each() {
    let folder = tempfile::tempdir().unwrap();
    for board in [Board::Mps2An386, Board::RiscvVirt] {
        let folder = folder.path().join(board.name());
        let fleet = Fleet::start(emulate_on(board, &folder, 3), 3);
        assert_eq!(fleet.processes.len(), 3);
        enroll(&mut fleet.session(2));
        fleet.end(Signal::SIGTERM);
        // Again: they are the same devices.
        let fleet = Fleet::start(emulate_on(board, &folder, 3), 3);
        for (number, state) in [(1, State::Blank), (2, State::Enrolled), (3, State::Blank)] {
            let session = fleet.session(number);
            assert_eq!(session.greeting().device, device_id(number));
            assert_eq!(session.greeting().state, state);
            assert_eq!(session.greeting().board, board.name());
        }
        fleet.end(Signal::SIGKILL);
    }
}

#[test]
fn a_device_that_fails_leaves_the_others_alone() {
    let folder = tempfile::tempdir().unwrap();
    let fleet = Fleet::start(emulate(folder.path(), 3), 3);
    enroll(&mut fleet.session(1));
    enroll(&mut fleet.session(2));
    let flash = folder.path().join("device-2/flash.bin");
    let flash = OpenOptions::new().write(true).open(flash).unwrap();
    flash.set_len(0).unwrap();
    let (authority, nonce) = (SoftAuthority::new(0), Challenge([2; 32]));
    let kind = UnwrapAlgorithm::P256;
    let mut session = fleet.session(2);
    let failed = flow::enroll(&mut session, &authority, kind, nonce, &mut |_| {});
    assert!(failed.is_err(), "its flash is gone");
    for (number, state) in [(1, State::Enrolled), (3, State::Blank)] {
        assert_eq!(fleet.session(number).greeting().state, state);
        enroll(&mut fleet.session(number));
    }
    assert!(fleet.is_running());

    // Nobody else gets the folder meanwhile.
    let start = || emulate(folder.path(), 3);
    let error = "a device already runs on";
    command::refused(start, 4, error, "use another folder");
}

#[test]
fn too_many_devices_for_the_system_are_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let devices = folder.path().join("devices");
    let start = || {
        let inner = emulate(&devices, 200);
        let mut command = Command::new("sh");
        command
            .args(["-c", "ulimit -n 512 && exec \"$@\"", "sh"])
            .arg(inner.get_program())
            .args(inner.get_args());
        command
    };
    let error = "200 devices in one process need 1664 open files, and this system allows 512";
    command::refused(start, 4, error, "start fewer devices");
    assert!(!devices.exists());
    let start = || emulate(&devices, 1001);
    assert_eq!(Answer::of(&mut start()).code, 2);
}

/// A process that says of its devices what this script says.
fn says(folder: &Path, script: &str) -> Command {
    let (text, program) = (folder.join("says.sh"), folder.join("says"));
    fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
    // Not by this process: while some other test starts a program, that would have the file open for writing, and nobody could run it.
    let install = Command::new("install")
        .args(["-m", "700"])
        .args([&text, &program])
        .status();
    assert!(install.unwrap().success());
    let mut command = command::keyferry();
    command.args(["emulate", "--board", "native", "--count", "2", "--firmware"]);
    command
        .arg(program)
        .arg("--dir")
        .arg(folder.join("devices"));
    command
}

#[test]
fn whatever_a_fleet_says_is_told() {
    let folder = tempfile::tempdir().unwrap();
    // One after the other ends.
    let script =
        "echo port 1 a; echo port 2 b; echo ended 2 no cable; echo ended 1 no more; exec cat";
    let mut command = says(folder.path(), script);
    let answer = Answer::of(command.arg("--json"));
    assert_eq!(answer.code, 4, "{answer:?}");
    let told = answer.json();
    assert_eq!(told[1]["port"], "b");
    let warning = |index: usize| told[index]["warning"].as_str().unwrap().to_owned();
    assert_eq!(warning(2), "the emulated device on b ended: no cable");
    assert_eq!(warning(3), "the emulated device on a ended: no more");
    assert_eq!(answer.last()["error"], "the emulated device on a ended");

    let cases = [
        // Firmware of another kind, or another version.
        (
            "echo nonsense; exec cat",
            "says something that is not understood",
        ),
        (
            "echo port 2 b; exec cat",
            "says something that is not understood",
        ),
        (
            "echo port 1 a; echo port 2 b; echo ended 3 x; exec cat",
            "not understood",
        ),
        (
            "echo port 1 a; echo port 2 b; exec tr '\\n' x < /dev/zero",
            "not understood",
        ),
        ("echo argument 1 >&2; exit 2", "argument 1"),
        (
            "echo port 1 a; echo failed 2 no space; exec cat",
            "device 2 does not start: no space",
        ),
        ("echo port 1 a; echo port 2 b; exit 3", "the emulator ended"),
    ];
    for (script, error) in cases {
        let answer = Answer::of(says(folder.path(), script).arg("--json"));
        assert_eq!(answer.code, 4, "{script}: {answer:?}");
        let last = answer.last();
        let said = last["error"].as_str().unwrap();
        assert!(said.contains(error), "{script}: {last}");
    }

    // A folder that cannot be a device's.
    let devices = folder.path().join("spoiled");
    fs::create_dir_all(devices.join("device-2")).unwrap();
    fs::write(devices.join("device-2/flash.bin"), "short").unwrap();
    let start = || emulate(&devices, 3);
    command::refused(start, 4, "device-2/flash.bin is 5 bytes long", "remove");
}
