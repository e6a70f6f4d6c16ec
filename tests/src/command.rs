//! The `keyferry` command itself, as a user runs it, and what it answers.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

use crate::tokens::PIN;

/// The command, without a terminal and without anything in its environment that it would take a token or a PIN from.
///
/// # Panics
/// If it does not build.
#[must_use]
pub fn keyferry() -> Command {
    let mut command = Command::new(binary());
    command
        .env_remove("KEYFERRY_TOKEN")
        .env_remove("KEYFERRY_PIN")
        .env_remove("KEYFERRY_REGISTRY")
        .env_remove("KEYFERRY_REGISTRY_PASSWORD_FILE")
        .env_remove("PGPASSFILE")
        .stdin(Stdio::null());
    command
}

/// The command's binary, built once from what is in the workspace now.
///
/// # Panics
/// If it does not build.
#[must_use]
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        // Together with this package, so that the same features of the dependencies are chosen and nothing is built twice.
        let package = env!("CARGO_PKG_NAME");
        build(
            &["-p", "keyferry", "-p", package, "--bin", "keyferry"],
            "keyferry",
            |message| &message["executable"],
        )
    })
}

/// The developer's doors, `cargo xtask`, built once from what is in the workspace now.
///
/// # Panics
/// If they do not build.
#[must_use]
pub fn xtask() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| build(&["-p", "xtask"], "xtask", |message| &message["executable"]))
}

/// Cargo, without what it says to tests of their own package: build scripts that look at that would run again, and all be built anew.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env!("CARGO"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    command
}

/// Builds a target with cargo, and gives the file that cargo names for it.
pub(crate) fn build(arguments: &[&str], target: &str, file: fn(&Value) -> &Value) -> PathBuf {
    let output = cargo()
        .args([
            "build",
            "--quiet",
            "--message-format=json-render-diagnostics",
        ])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo starts");
    assert!(
        output.status.success(),
        "{target} does not build: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == target)
        .find_map(|message| file(&message).as_str().map(PathBuf::from))
        .expect("cargo names the file")
}

/// How the command ended and what it said.
#[derive(Debug)]
pub struct Answer {
    /// The exit code.
    pub code: i32,
    /// What it printed for scripts, or the result for people.
    pub stdout: String,
    /// What it told people.
    pub stderr: String,
}

impl Answer {
    /// Runs a command to its end.
    ///
    /// # Panics
    /// If it cannot be started, is killed, does not print UTF-8, or prints the PIN.
    #[must_use]
    pub fn of(command: &mut Command) -> Self {
        let Output {
            status,
            stdout,
            stderr,
        } = command.output().expect("the command starts");
        let answer = Self {
            code: status.code().expect("the command is not killed"),
            stdout: String::from_utf8(stdout).expect("text on stdout"),
            stderr: String::from_utf8(stderr).expect("text on stderr"),
        };
        for said in [&answer.stdout, &answer.stderr] {
            assert!(!said.contains(PIN), "the PIN is in the output: {answer:?}");
        }
        answer
    }

    /// The JSON objects on stdout.
    ///
    /// # Panics
    /// If a line is not one, or any but the last has `"ok"`.
    #[must_use]
    pub fn json(&self) -> Vec<Value> {
        let lines: Vec<Value> = self
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).expect("a JSON object on each line"))
            .collect();
        for line in lines.iter().rev().skip(1) {
            assert!(line.get("ok").is_none(), "{self:?}");
        }
        lines
    }

    /// The last of the JSON objects on stdout.
    ///
    /// # Panics
    /// As [`Answer::json`], and if there is none.
    #[must_use]
    pub fn last(&self) -> Value {
        self.json()
            .pop()
            .unwrap_or_else(|| panic!("nothing on stdout: {self:?}"))
    }
}

/// Runs a command with `--json`, and expects it to do its job; gives its last line.
///
/// # Panics
/// If it fails.
pub fn done(command: &mut Command) -> Value {
    let answer = Answer::of(command.arg("--json"));
    assert_eq!(answer.code, 0, "{command:?}: {answer:?}");
    let last = answer.last();
    assert_eq!(last["ok"], true, "{command:?}: {answer:?}");
    last
}

/// Runs what `start` makes twice, for people and for scripts, and expects it to refuse both times with this exit code, an
/// error that contains `error`, and a hint that contains `hint` (or none if that is empty).
///
/// # Panics
/// If it does anything else.
pub fn refused(start: impl Fn() -> Command, code: i32, error: &str, hint: &str) {
    let text = Answer::of(&mut start());
    let asked = start();
    let asked: Vec<_> = asked.get_args().collect();
    assert_eq!(text.code, code, "{asked:?}: {text:?}");
    assert_eq!(text.stdout, "", "{asked:?}: {text:?}");
    let lines: Vec<_> = text
        .stderr
        .lines()
        .skip_while(|line| !line.starts_with("error: "))
        .collect();
    assert!(
        lines.first().is_some_and(|line| line.contains(error)),
        "{asked:?}: {text:?}"
    );
    let given = lines.iter().any(|line| line.starts_with("hint: "));
    let fits = lines
        .iter()
        .any(|line| line.starts_with("hint: ") && line.contains(hint));
    assert!(
        if hint.is_empty() { !given } else { fits },
        "{asked:?}: {text:?}"
    );

    let json = Answer::of(start().arg("--json"));
    assert_eq!(json.code, code, "{asked:?}: {json:?}");
    assert_eq!(json.stderr, "", "{asked:?}: {json:?}");
    let last = json.last();
    assert_eq!(last["ok"], false, "{json:?}");
    assert_eq!(last["exit"], code, "{json:?}");
    let said = |field: &str| last[field].as_str().unwrap_or_default().to_owned();
    assert!(said("error").contains(error), "{asked:?}: {json:?}");
    assert!(
        said("hint").contains(hint) && said("hint").is_empty() == hint.is_empty(),
        "{asked:?}: {json:?}"
    );
}
