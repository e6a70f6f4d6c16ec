//! The developer's doors: `cargo xtask setup`, `cargo xtask demo`, `cargo xtask test`, `cargo xtask bench`,
//! `cargo xtask dist`, `cargo xtask fuzz`, `cargo xtask line`.
//!
//! What CI runs is what a person runs. Everything here goes through `std::process` without a shell, so that it works the
//! same wherever the prerequisites do. A door never skips a step without saying so.

#[cfg(unix)]
mod bad_line;
mod bench;
mod checks;
mod demo;
mod dependencies;
mod dist;
mod firmware;
mod fuzz;
mod hardware;
mod kryoptic;
#[cfg(unix)]
mod line;
mod process;
mod screen;
mod setup;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use keyferry::emulate::Board;
use keyferry::error::Exit;
#[cfg(unix)]
use keyferry_tests::line::ProxyError;
use serde_json::{Map, Value, json};

use firmware::Variant;
use screen::{BAD, GOOD, NOTE, Screen};
use setup::Need;

/// keyferry's doors for developers.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    /// One JSON object per line on stdout; the last one has "ok".
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    door: Door,
}

/// One door.
#[derive(Subcommand)]
enum Door {
    /// Say what this machine lacks, and install it.
    Setup {
        /// Only say what is missing; change nothing.
        #[arg(long)]
        check: bool,
    },
    /// The main job from nothing: a token, an emulated board, five keys injected, proved, and proved again after a power cut.
    Demo {
        /// The emulated board.
        #[arg(long, default_value = "mps2-an386")]
        board: Board,
        /// Kind of the device's unwrap key.
        #[arg(long, default_value = "rsa-2048", value_parser = ["rsa-2048", "p-256"])]
        unwrap: String,
        /// Over a bad cable in real time: bit errors, a stall of 300 ms at a random place, and a reset of the device in mid-order.
        #[cfg(unix)]
        #[arg(long)]
        bad_line: bool,
        /// Chooses what goes wrong on the bad cable; random without it.
        #[cfg(unix)]
        #[arg(long, requires = "bad_line")]
        seed: Option<u64>,
    },
    /// Builds a firmware of an emulated board, and says where it is.
    Image {
        /// The emulated board.
        #[arg(long, default_value = "mps2-an386")]
        board: Board,
        /// Which firmware.
        #[arg(value_enum, default_value_t = Variant::Default)]
        variant: Variant,
    },
    /// Everything that CI checks: setup, formatting, lints, documentation, no_std builds, tests.
    Test {
        /// Add the slow campaigns.
        #[arg(long)]
        long: bool,
        /// Go on after a step that failed, to see everything that is wrong at once.
        #[arg(long)]
        keep_going: bool,
    },
    /// Runs the fuzz targets; fails on any crash, hang or growth.
    Fuzz {
        /// Seconds for each target.
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
        seconds: u32,
        /// Keep the inputs that were found in the repository, minimised.
        #[arg(long)]
        keep: bool,
        /// The targets; without any, all of them.
        targets: Vec<String>,
    },
    /// Figures, beside their targets.
    Bench {
        #[command(subcommand)]
        bench: bench::Bench,
    },
    /// Pack what users get: the command, built for this system, the firmware of the emulated boards, plans and guides.
    Dist,
    /// Build the images of boards that are not emulated, and tell what flash and RAM they take. Nothing is flashed.
    Hardware,
    /// A bad cable in real time: carries bytes between a device's port and a new one, with faults. Linux and macOS.
    #[cfg(unix)]
    Line(line::Line),
}

/// How a door ended.
struct Outcome {
    ok: bool,
    /// What the last JSON line says beside `ok`.
    summary: Map<String, Value>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let screen = Screen::new(arguments.json);
    let outcome = match arguments.door {
        Door::Setup { check: true } => setup::check(&screen),
        Door::Setup { check: false } => setup::run(&screen, Need::Fuzz),
        #[cfg(unix)]
        Door::Demo {
            board,
            unwrap,
            bad_line,
            seed,
        } => demo::run(
            &screen,
            board,
            &unwrap,
            bad_line.then(|| seed.unwrap_or_else(demo::any_seed)),
        ),
        #[cfg(not(unix))]
        Door::Demo { board, unwrap } => demo::run(&screen, board, &unwrap, None),
        Door::Image { board, variant } => image(&screen, board, variant),
        Door::Test { long, keep_going } => checks::run(&screen, long, keep_going),
        Door::Fuzz {
            seconds,
            keep,
            targets,
        } => fuzz::run(
            &screen,
            &fuzz::Wanted {
                seconds,
                targets: &targets,
                keep,
            },
        ),
        Door::Hardware => hardware::build(&screen).map(|()| Outcome {
            ok: true,
            summary: Map::new(),
        }),
        Door::Dist => dist::run(&screen),
        Door::Bench { bench } => bench::run(&screen, &bench),
        #[cfg(unix)]
        Door::Line(line) => line::run(&screen, &line),
    };
    let (outcome, exit) = match outcome {
        Ok(outcome) => (outcome, Exit::JobFailed),
        Err(error) => {
            let (exit, hint) = advice(&error);
            screen.mark(BAD, "error", format!("{error:#}"));
            let mut summary = Map::from_iter([
                ("error".to_owned(), json!(format!("{error:#}"))),
                ("exit".to_owned(), json!(exit.code())),
            ]);
            if let Some(hint) = hint {
                screen.mark(NOTE, "hint", hint);
                summary.insert("hint".to_owned(), json!(hint));
            }
            (Outcome { ok: false, summary }, exit)
        }
    };
    let mut last = outcome.summary;
    last.insert("ok".to_owned(), json!(outcome.ok));
    let written = screen.record(&Value::Object(last));
    if outcome.ok && written.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(exit.code())
    }
}

/// Builds a firmware.
fn image(screen: &Screen, board: Board, variant: Variant) -> anyhow::Result<Outcome> {
    let path = firmware::build(board, variant)?;
    screen.mark(GOOD, "built", path.display().to_string());
    let summary = Map::from_iter([("path".to_owned(), json!(path))]);
    Ok(Outcome { ok: true, summary })
}

/// The exit code for an error, as the `keyferry` command would have it, and the next move for a person where there is one to name.
#[cfg(unix)]
fn advice(error: &anyhow::Error) -> (Exit, Option<&'static str>) {
    match error.downcast_ref::<ProxyError>() {
        Some(error) => (error.exit(), error.hint()),
        None => (Exit::JobFailed, None),
    }
}

/// There are no lines that could not be laid.
#[cfg(not(unix))]
fn advice(_error: &anyhow::Error) -> (Exit, Option<&'static str>) {
    (Exit::JobFailed, None)
}
