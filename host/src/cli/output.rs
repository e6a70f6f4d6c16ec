//! What a command says: to scripts in JSON on stdout, to people on stderr.

use std::io::{self, ErrorKind, IsTerminal as _, Write};
use std::process::ExitCode;
use std::sync::OnceLock;

use anstyle::{AnsiColor, Style};
use serde_json::{Map, Value};

use super::{Outcome, fields};
use crate::error::{Exit, Failure};

const ERROR: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default();
const HEADING: Style = Style::new().bold();

/// Who listens to a command.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    json: bool,
    quiet: bool,
}

impl Context {
    pub(super) const fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet }
    }

    /// Whether a script listens: no progress bars, no questions.
    #[must_use]
    pub const fn is_json(&self) -> bool {
        self.json
    }

    /// Whether a person wants to see what happens on the way.
    #[must_use]
    pub const fn is_talkative(&self) -> bool {
        !self.json && !self.quiet
    }

    /// Tells a script that something happened; people see nothing of it.
    pub fn event(&self, event: Map<String, Value>) {
        if self.json {
            print_line(&Value::Object(event).to_string());
        }
    }

    /// Tells a person what happens, on stderr.
    pub fn note(&self, text: &str) {
        if self.is_talkative() {
            note_line(text);
        }
    }

    /// Tells what must not be overlooked, to scripts and to people, however quiet the command is to be.
    pub fn warn(&self, text: &str) {
        if self.json {
            print_line(&Value::Object(fields! { "warning" => text }).to_string());
        } else {
            note_line(&format!("{WARNING}warning:{WARNING:#} {text}"));
        }
    }

    /// Prints for a person what the command was asked for, on stdout.
    pub fn print(&self, text: &str) {
        if !self.json {
            print_line(text);
        }
    }

    /// Prints a table for a person on stdout: columns as wide as their content, the heading in bold on a terminal.
    pub fn table<const N: usize>(&self, heading: [&str; N], rows: &[[String; N]]) {
        if self.json {
            return;
        }
        let widths: [usize; N] = std::array::from_fn(|column| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .chain([heading[column].chars().count()])
                .max()
                .unwrap_or(0)
        });
        let line = |cells: [&str; N]| {
            let padded: Vec<_> = cells
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            padded.join("  ").trim_end().to_owned()
        };
        print_line(&format!("{HEADING}{}{HEADING:#}", line(heading)));
        for row in rows {
            print_line(&line(std::array::from_fn(|column| row[column].as_str())));
        }
    }

    /// Ends a command: the last JSON object, or the error and its hint; gives the exit code.
    pub(super) fn end(&self, outcome: Outcome) -> ExitCode {
        finish(match outcome {
            Ok(rest) => {
                if self.json {
                    let mut last = fields! { "ok" => true };
                    last.extend(rest);
                    print_line(&Value::Object(last).to_string());
                }
                Exit::Done
            }
            Err(failure) => {
                self.fail(&failure);
                failure.exit()
            }
        })
    }

    fn fail(&self, failure: &Failure) {
        report(
            self.json,
            &failure.to_string(),
            failure.hint(),
            failure.exit(),
        );
    }
}

/// Ends a command line that could not be understood; help and version are printed as they are.
pub(super) fn usage(error: &clap::Error, json: bool) -> ExitCode {
    use clap::error::ErrorKind;
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            written(error.print());
            finish(Exit::Done)
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand if !json => {
            let _ = error.print();
            finish(Exit::Usage)
        }
        _ => {
            let text = error.to_string();
            if json {
                // What is wrong stands before the first empty line: names of missing arguments have lines of their own.
                let lines = text.lines().map(str::trim);
                let words: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
                let words = words.join(" ");
                let message = match error.kind() {
                    ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                        "a subcommand is missing"
                    }
                    _ => words.trim_start_matches("error: "),
                };
                let hint = Some("see the same command with --help".to_owned());
                report(true, message, hint, Exit::Usage);
            } else {
                let _ = error.print();
            }
            finish(Exit::Usage)
        }
    }
}

fn report(json: bool, error: &str, hint: Option<String>, exit: Exit) {
    if json {
        let mut last = fields! { "ok" => false, "error" => error };
        if let Some(hint) = hint {
            last.insert("hint".into(), hint.into());
        }
        last.insert("exit".into(), exit.code().into());
        print_line(&Value::Object(last).to_string());
        return;
    }
    note_line(&format!("{ERROR}error:{ERROR:#} {error}"));
    if let Some(hint) = hint {
        note_line(&format!("{HINT}hint:{HINT:#} {hint}"));
    }
}

/// A number of things: "1 frame", "2 frames".
pub(super) fn counted(count: u64, thing: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{ending}")
}

/// Why something that was to be on stdout is not there: the first reason.
static NOT_WRITTEN: OnceLock<io::Error> = OnceLock::new();

/// Remembers that stdout was not written. A reader that went away is no failure of the job.
fn written(result: io::Result<()>) {
    if let Err(error) = result
        && error.kind() != ErrorKind::BrokenPipe
    {
        let _ = NOT_WRITTEN.set(error);
    }
}

/// The exit code of a command, which has failed as well if its output was lost. That is said on stderr, with `--json`, too: stdout takes nothing.
fn finish(exit: Exit) -> ExitCode {
    let Some(error) = NOT_WRITTEN.get() else {
        return ExitCode::from(exit.code());
    };
    report(
        false,
        &format!("the output cannot be written: {error}"),
        Some("what the command was to do may be done all the same; make room where its output goes, and look before you try again".to_owned()),
        Exit::JobFailed,
    );
    ExitCode::from(match exit {
        Exit::Done => Exit::JobFailed.code(),
        Exit::JobFailed | Exit::Usage | Exit::Hsm | Exit::Device | Exit::Policy => exit.code(),
    })
}

/// Writes a line to stdout.
fn print_line(line: &str) {
    written(writeln!(anstream::stdout(), "{line}"));
}

fn note_line(line: &str) {
    // A progress bar may stand in the terminal's line; it is drawn again below. (ECMA-48, 8.3.41: EL erases the line.)
    let erase = if std::io::stderr().is_terminal() {
        "\r\x1b[2K"
    } else {
        ""
    };
    let _ = write!(anstream::stderr(), "{erase}");
    let _ = writeln!(anstream::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn one_thing_is_not_many() {
        let told = [0, 1, 2].map(|count| counted(count, "frame"));
        assert_eq!(told, ["0 frames", "1 frame", "2 frames"]);
    }
}
