//! `cargo xtask bench`: builds the figures' own program in release mode, runs it, hands its rows on, and judges.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use clap::Subcommand;
use keyferry::emulate::Board;
use serde_json::{Map, Value, json};

use crate::Outcome;
use crate::firmware::{self, Variant, cargo};
use crate::kryoptic;
use crate::process::command;
use crate::screen::{self, BAD, GOOD, NOTE, Screen};
use crate::setup;

/// The package that measures.
const PACKAGE: &str = "keyferry-bench";

/// The package that runs sessions over bad lines.
const CAMPAIGN: &str = "keyferry-campaign";

/// Takes the link's check away.
const UNCHECKED: [&str; 2] = ["--features", "unchecked"];

/// What is measured.
#[derive(Subcommand)]
pub(crate) enum Bench {
    /// The time for one new device (wrap a key for it, sign its order) through keyferry, beside the bare calls of the token:
    /// SoftHSM, NSS, kryoptic.
    Hsm,
    /// How much of the wire the link uses: the shipped state machines at both ends of a simulated cable, beside stop-and-wait, XMODEM-1K
    /// and YMODEM.
    Link,
    /// Whether a device gives away what is wrong with a blob: at least 200 orders that fail, in QEMU, their answers and the
    /// instructions that unwrapping took.
    Leakage,
    /// What the firmware costs on the emulated Cortex-M4: instructions, flash, RAM; three builds in two profiles.
    Firmware {
        /// Only the images whose name, `<build>-<profile>`, contains this: `full`, `rsa`, `ecdh`; `size`, `speed`.
        #[arg(long, default_value = "")]
        only: String,
        /// How many RSA-2048 keys each image that can makes, each from another seed.
        #[arg(long, default_value_t = 12)]
        seeds: u8,
    },
    /// What a line costs: devices a second with up to 256 devices, the station's own time for one beside the bare calls of the token, a registry
    /// of a million devices, an audit log of a million records.
    Station {
        /// Only this part of it.
        #[arg(long, value_parser = ["devices", "ports", "registry", "audit"])]
        only: Option<String>,
    },
    /// Thousands of sessions, and long streams, over bad lines in virtual time: how many end well in time, how the others end, and that no
    /// wrong byte is delivered.
    Sessions {
        /// Chooses among all campaigns.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many sessions.
        #[arg(long, default_value_t = 10_000)]
        sessions: u64,
        /// Take the check of the link's frames away: then wrong bytes must be found.
        #[arg(long)]
        unchecked: bool,
    },
}

impl Bench {
    const fn package(&self) -> &'static str {
        match self {
            Self::Hsm
            | Self::Link
            | Self::Leakage
            | Self::Firmware { .. }
            | Self::Station { .. } => PACKAGE,
            Self::Sessions { .. } => CAMPAIGN,
        }
    }

    const fn features(&self) -> &'static [&'static str] {
        match self {
            Self::Sessions {
                unchecked: true, ..
            } => &UNCHECKED,
            Self::Hsm
            | Self::Link
            | Self::Leakage
            | Self::Firmware { .. }
            | Self::Station { .. }
            | Self::Sessions { .. } => &[],
        }
    }
}

/// The door.
///
/// # Errors
/// If something cannot be built, or a measurement fails. That a target is missed is in the outcome.
pub(crate) fn run(screen: &Screen, bench: &Bench) -> anyhow::Result<Outcome> {
    // Virtual time needs no token and no emulator.
    if matches!(
        bench,
        Bench::Hsm | Bench::Leakage | Bench::Firmware { .. } | Bench::Station { .. }
    ) {
        setup::ensure(screen, setup::Need::Tests)?;
    }
    build(bench)?;
    let mut measure = cargo_on(bench, "run");
    match bench {
        Bench::Hsm => measure
            .args(["--", "hsm"])
            .env("KEYFERRY_KRYOPTIC", kryoptic::built().unwrap_or_default()),
        Bench::Link => measure.args(["--", "link"]),
        Bench::Station { only } => {
            let only = only.iter().flat_map(|part| ["--only", part]);
            measure.args(["--", "station"]).args(only)
        }
        Bench::Leakage => measure
            .args(["--", "leakage"])
            .env("KEYFERRY_FIRMWARE_DIR", images()?),
        Bench::Firmware { only, seeds } => measure
            .args([
                "--",
                "firmware",
                "--only",
                only,
                "--seeds",
                &seeds.to_string(),
            ])
            .env("KEYFERRY_FIRMWARE_DIR", compared(only)?),
        Bench::Sessions { seed, sessions, .. } => measure
            .args(["--", "--json", "--seed", &seed.to_string()])
            .args(["--sessions", &sessions.to_string()]),
    };
    let mut child = measure
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo")?;
    let mut counts = Counts::default();
    for line in BufReader::new(child.stdout.take().context("no output")?).lines() {
        let line = line?;
        let row: Value =
            serde_json::from_str(&line).with_context(|| format!("not a row: {line}"))?;
        // The campaign sums up in a row of its own, as this does.
        if row.get("case").is_some() {
            screen.record(&row)?;
            counts.take(screen, &row);
        }
    }
    let status = child.wait()?;
    let told = counts.missed > 0;
    ensure!(status.success() || told, "the measurement failed: {status}");
    ensure!(counts.held + counts.missed > 0, "nothing was measured");
    counts.close(screen);
    Ok(Outcome {
        ok: counts.missed == 0,
        summary: Map::from_iter([
            ("targets_held".to_owned(), json!(counts.held)),
            ("targets_missed".to_owned(), json!(counts.missed)),
            ("skipped".to_owned(), json!(counts.skipped)),
        ]),
    })
}

/// Builds the images that measure, and gives the folder they are in.
fn images() -> anyhow::Result<PathBuf> {
    let mut folder = None;
    for variant in Variant::MEASURED {
        folder = firmware::build(Board::Mps2An386, variant)?
            .parent()
            .map(Path::to_owned);
    }
    folder.context("the images are in no folder")
}

/// Builds the images whose names contain `only`, for `bench firmware`, and gives the folder they are in.
fn compared(only: &str) -> anyhow::Result<PathBuf> {
    let mut folder = None;
    for build in firmware::BUILDS {
        for profile in firmware::PROFILES {
            let name = format!("{}-{}", build.0, profile.0);
            // The `rsa` images cannot make the RSA key they are to use; a `full` one of the same profile does.
            let maker = build.0 == "full" && format!("rsa-{}", profile.0).contains(only);
            if name.contains(only) || maker {
                folder = Some(firmware::build_compared(build, profile)?);
            }
        }
    }
    folder.with_context(|| format!("no image's name contains {only:?}"))
}

/// Builds first, so that no compiler runs beside a measurement.
fn build(bench: &Bench) -> anyhow::Result<()> {
    let status = cargo_on(bench, "build")
        .stdout(Stdio::null())
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "{} does not build", bench.package());
    Ok(())
}

/// Cargo on the release build of the package. Its words go to stderr.
fn cargo_on(bench: &Bench, word: &str) -> Command {
    let package = ["--release", "--quiet", "--package", bench.package()];
    command(
        cargo(),
        [word]
            .iter()
            .chain(&package)
            .chain(bench.features())
            .copied(),
    )
}

/// What the rows said.
#[derive(Default)]
struct Counts {
    held: usize,
    missed: usize,
    skipped: usize,
}

impl Counts {
    /// Notes a row, and tells it to people.
    fn take(&mut self, screen: &Screen, row: &Value) {
        let case = row["case"].as_str().unwrap_or("?");
        if let Some(reason) = row["skipped"].as_str() {
            self.skipped += 1;
            screen.mark(NOTE, "skipped", format!("{case:<48} {reason}"));
            return;
        }
        let value = figure(row);
        // Rows without a target are there for comparison.
        match row["ok"].as_bool() {
            None => screen.say(format!("{:>9}  {case:<48} {value}", "")),
            Some(ok) => {
                let target = &row["target"];
                let bound = row["bound"].as_str().unwrap_or("below");
                let (style, word) = if ok { (GOOD, "ok") } else { (BAD, "missed") };
                *(if ok { &mut self.held } else { &mut self.missed }) += 1;
                screen.mark(
                    style,
                    word,
                    format!("{case:<48} {value} (target: {bound} {target})"),
                );
            }
        }
        if row["errors"].is_object() {
            screen.say(format!("{:>9}  {:<48}   {}", "", "", fates(row)));
        }
    }

    fn close(&self, screen: &Screen) {
        let held = screen::count(self.held, "target");
        if self.missed == 0 {
            screen.mark(GOOD, "ok", format!("{held} held"));
        } else {
            screen.mark(
                BAD,
                "missed",
                format!("{} of {}", self.missed, self.held + self.missed),
            );
        }
    }
}

/// What became of the sessions of a row.
fn fates(row: &Value) -> String {
    let some = |name: &str| &row[name];
    let late = row["late"].as_array().map_or(0, Vec::len);
    format!(
        "{} of {}; {late} late; errors {}; {} of {} with a reset",
        some("done"),
        some("sessions"),
        some("errors"),
        some("with_reset_survived"),
        some("with_reset"),
    )
}

/// A row's value with its unit.
fn figure(row: &Value) -> String {
    let value = row["value"].as_f64().unwrap_or(f64::NAN);
    match row["metric"].as_str() {
        Some("seconds") => format!("{:>10.1} µs", value * 1e6),
        Some("ratio") => format!("{value:>10.4}"),
        Some("instructions") => match &row["within_round"] {
            Value::Object(within) => {
                let part = |name: &str| within[name].as_f64().unwrap_or(f64::NAN);
                format!(
                    "{value:>10.0} instructions; less the round's mean: {:+.1} (min), {:+.1} (median), {:+.1} (max), {:+.2} (mean), {:.2} (sd)",
                    part("min"),
                    part("median"),
                    part("max"),
                    part("mean"),
                    part("deviation"),
                )
            }
            _ => format!("{value:>10.1} instructions"),
        },
        _ => format!("{value:>10} {}", row["metric"].as_str().unwrap_or("?")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_over_its_target_is_a_miss_and_a_skipped_one_is_neither() {
        let mut counts = Counts::default();
        let screen = Screen::new(false);
        for row in [
            json!({"case": "a", "metric": "ratio", "value": 1.1, "target": 1.15, "ok": true}),
            json!({"case": "b", "metric": "ratio", "value": 1.3, "target": 1.15, "ok": false}),
            json!({"case": "b/bare", "metric": "seconds", "value": 0.0001}),
            json!({"case": "c", "skipped": "not a suite of this token"}),
        ] {
            counts.take(&screen, &row);
        }
        let Counts {
            held,
            missed,
            skipped,
        } = counts;
        assert_eq!((held, missed, skipped), (1, 1, 1));
    }

    #[test]
    fn figures_have_units() {
        let seconds = json!({"metric": "seconds", "value": 0.000_153_4});
        assert_eq!(figure(&seconds).trim(), "153.4 µs");
        let ratio = json!({"metric": "ratio", "value": 1.05});
        assert_eq!(figure(&ratio).trim(), "1.0500");
        let instructions = json!({"metric": "instructions", "value": 12.34});
        assert_eq!(figure(&instructions).trim(), "12.3 instructions");
    }
}
