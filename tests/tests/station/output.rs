//! What commands of a station say: output that is lost, hints that fit a plan, names that are seen from its folder.

use std::fs;

use keyferry_tests::command::{Answer, keyferry};

use crate::{Fleet, Plant, ended};

const TEST_DEVICES: &str = "[devices]\nallow-test-devices = true\n";

/// A full disk under stdout, as `/dev/full` is one. A factory's MES that read nothing must not take the command for done.
#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let full = |words: &[&str], code: i32| {
        let output = fs::OpenOptions::new().write(true).open("/dev/full");
        let mut command = keyferry();
        command.current_dir(folder.path()).args(words);
        let child = command
            .stdout(output.expect("the device is there"))
            .stderr(std::process::Stdio::piped())
            .spawn();
        let ended = child.and_then(std::process::Child::wait_with_output);
        let ended = ended.expect("the command ends");
        let said = String::from_utf8(ended.stderr).expect("text");
        assert_eq!(ended.status.code(), Some(code), "{words:?}: {said}");
        let reason = "error: the output cannot be written: No space left on device";
        for part in [reason, "hint: "] {
            assert!(said.contains(part), "{words:?}: {said}");
        }
    };
    full(&["--help"], 1);
    full(&["--version"], 1);
    full(&["station", "schema"], 1);
    full(&["--json", "station", "schema"], 1);
    // A failure keeps its own code.
    full(&["--json", "station", "check", "none.toml"], 2);
    full(&["--json", "station"], 2);
}

/// A reader that went away has what it wants.
#[cfg(unix)]
#[test]
fn a_reader_that_went_away_is_no_error() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = keyferry();
    command.args(["station", "schema"]).stdout(writer);
    let child = command.stderr(std::process::Stdio::piped()).spawn();
    let ended = child.and_then(std::process::Child::wait_with_output);
    let ended = ended.expect("the command ends");
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.stderr.is_empty(), "{ended:?}");
}

/// SoftHSM puts zeros behind the private keys of pairs.
#[test]
fn a_hint_names_what_the_plan_has() {
    let plant = Plant::new();
    let plan = plant.plan(TEST_DEVICES);
    let text = fs::read_to_string(&plan).expect("a plan");
    let strict = text.replace("allow-zero-tail = true\n", "");
    assert_ne!(text, strict);
    fs::write(&plan, strict).expect("a plan");
    let fleet = Fleet::new();
    let device = fleet.start(1);
    let answer = plant.run(&plan, &[device.port()], &[]);
    assert_eq!(answer.code, 5, "{answer:?}");
    let last = answer.last();
    let hint = last["hint"].as_str().unwrap_or_default();
    assert!(
        hint.contains("`allow-zero-tail = true` under [backend]"),
        "{last}"
    );
}

/// Everything that a plan names is seen from its folder, also its ports; wherever it is run from.
#[cfg(unix)]
#[test]
fn ports_of_a_plan_are_seen_from_its_folder() {
    use keyferry_native::LineKind;

    let plant = Plant::new();
    let fleet = Fleet::new();
    let device = fleet.start_on(1, LineKind::PseudoTerminal);
    let socket = LineKind::UnixSocket(plant.scratch.path("A2.socket"));
    let _second = fleet.start_on(2, socket);
    let plan = plant.plan(&format!(
        "{TEST_DEVICES}[[port]]\nport = \"nests/A1\"\nnest = \"A1\"\n\
         [[port]]\nport = \"unix:A2.socket\"\nnest = \"A2\"\n\
         [[port]]\nport = \"nests/A3\"\nnest = \"A3\"\n"
    ));
    let nests = plant.scratch.path("nests");
    fs::create_dir(&nests).expect("a folder");
    std::os::unix::fs::symlink(device.port(), nests.join("A1")).expect("a link");
    let elsewhere = tempfile::tempdir().expect("a folder");
    let mut command = plant.scratch.command();
    command.current_dir(elsewhere.path());
    command.args(["station", "run", "--json"]).arg(&plan);
    let answer = Answer::of(&mut command);
    assert_eq!(answer.code, 1, "{answer:?}");
    for end in ended(&answer) {
        let failed = end["error"].as_str();
        assert_eq!(failed.is_some(), end["nest"] == "A3", "{end}");
        // What is told of it is where it was looked for.
        let missing = nests.join("A3").display().to_string();
        assert!(failed.is_none_or(|error| error.contains(&missing)), "{end}");
    }
    assert_eq!(ended(&answer).len(), 3, "{answer:?}");
}

/// On a terminal each nest has a bar that is full in the end, and what has become of it a colour; elsewhere there is neither.
#[cfg(unix)]
#[test]
fn a_terminal_shows_a_bar_for_each_nest() {
    use std::io::Read as _;

    use nix::pty::{OpenptyResult, Winsize, openpty};

    let plant = Plant::new();
    let plan = plant.plan(TEST_DEVICES);
    let fleet = Fleet::new();
    let devices = fleet.start_all(2);
    let run = || {
        let mut command = plant.scratch.command();
        command.env("TERM", "xterm").env_remove("NO_COLOR");
        command.args(["station", "run"]).arg(&plan);
        for device in &devices {
            command.args(["--port", device.port()]);
        }
        command
    };
    let size = Winsize {
        ws_row: 24,
        ws_col: 160,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let OpenptyResult { master, slave } = openpty(&size, None).expect("a pseudo-terminal");
    let mut command = run();
    let output = slave.try_clone().expect("another end");
    let mut child = command
        .stdout(output)
        .stderr(slave)
        .spawn()
        .expect("it starts");
    // It holds the terminal's other end, which would be open for ever.
    drop(command);
    let mut screen = Vec::new();
    let mut master = fs::File::from(master);
    let mut part = [0; 4096];
    // Where nobody has the other end any more, Linux says so with an error, and macOS with an end.
    while let Ok(length @ 1..) = master.read(&mut part) {
        screen.extend_from_slice(&part[..length]);
    }
    let status = child.wait().expect("it ends");
    let screen = String::from_utf8(screen).expect("text");
    assert!(status.success(), "{screen}");
    for nest in ["1", "2"] {
        let bar = format!("{nest:>8} {}", "\u{2588}".repeat(20));
        assert!(screen.contains(&bar), "{screen:?}");
    }
    assert!(screen.contains("\u{1b}[1m\u{1b}[32mPASS"), "{screen:?}");
    assert!(screen.contains("keys proved"), "{screen:?}");

    let answer = Answer::of(&mut run());
    assert_eq!(answer.code, 0, "{answer:?}");
    let said = format!("{}{}", answer.stdout, answer.stderr);
    assert!(said.contains("PASS 1 2"), "{said}");
    assert!(!said.contains(['\u{1b}', '\u{2588}']), "{said:?}");
}
