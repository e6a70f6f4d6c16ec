//! Runs one command and keeps what it printed. No shell is involved anywhere.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;

use crate::screen::Watch;

/// The repository's root folder, where every command runs.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here)
}

/// A command that has ended.
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    /// Both streams, line by line in the order of arrival.
    pub(crate) output: String,
}

/// A command that runs in the repository's root and reads nothing.
pub(crate) fn command<A: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    arguments: impl IntoIterator<Item = A>,
) -> Command {
    let mut command = Command::new(program);
    // What cargo says to this program of its own package. Build scripts that look at it would run again, and all be built anew.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    command
        .args(arguments)
        .current_dir(root())
        .stdin(Stdio::null());
    command
}

/// Runs `command` to its end and shows its lines through `watch` as they come.
///
/// # Errors
/// If the program cannot be started or waited for. That it failed is no error here: see [`Finished::status`].
pub(crate) fn run(command: &mut Command, watch: &Watch) -> anyhow::Result<Finished> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", line(command)))?;
    let output = Mutex::new(String::new());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        scope.spawn(|| collect(stdout, &output, watch));
        collect(stderr, &output, watch);
    });
    let status = child
        .wait()
        .with_context(|| format!("lost sight of `{}`", line(command)))?;
    let output = output.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(Finished { status, output })
}

/// Runs `command` quietly and gives back its stdout if it exits with 0.
pub(crate) fn ask(command: &mut Command) -> Option<String> {
    let answer = command.stderr(Stdio::null()).output().ok()?;
    answer
        .status
        .success()
        .then(|| String::from_utf8_lossy(&answer.stdout).into_owned())
}

/// Moves the lines of one stream into `output`.
fn collect(stream: Option<impl Read>, output: &Mutex<String>, watch: &Watch) {
    let Some(stream) = stream else { return };
    // Byte-wise, because a test may print what is not UTF-8.
    for bytes in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_end_matches('\r');
        let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
        output.push_str(text);
        output.push('\n');
        watch.line(text);
    }
}

/// `command` as a person would type it into a POSIX shell.
pub(crate) fn line(command: &Command) -> String {
    let mut line = String::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            // Writing to a String cannot fail.
            let _ = write!(line, "{}={} ", name.to_string_lossy(), quoted(value));
        }
    }
    line.push_str(&quoted(command.get_program()));
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&quoted(argument));
    }
    line
}

/// `word`, in single quotes where a shell would otherwise take it apart.
fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_can_be_typed_again() {
        let mut command = command("cargo", ["doc", "it's", ""]);
        command.env("RUSTDOCFLAGS", "-D warnings");
        assert_eq!(
            line(&command),
            r"RUSTDOCFLAGS='-D warnings' cargo doc 'it'\''s' ''"
        );
    }

    #[test]
    fn the_root_holds_the_workspace() {
        assert!(root().join("rust-toolchain.toml").is_file());
    }

    #[test]
    fn a_program_that_does_not_exist_gives_no_answer() {
        assert!(ask(&mut command("keyferry-no-such-program", [""; 0])).is_none());
    }
}
