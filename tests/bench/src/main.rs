//! What keyferry costs: its figures, one JSON object a line. `cargo xtask bench` builds this in release mode, runs it, and
//! judges.

mod bare;
mod firmware;
mod hsm;
mod leakage;
mod link;
mod measure;
mod rows;
mod station;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde_json::Value;

/// keyferry's figures.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

/// What is measured.
#[derive(Subcommand)]
enum Bench {
    /// The time for one new device (wrap a key for it, sign its order) beside the bare calls of the token.
    Hsm {
        /// How long each case is measured, in seconds.
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
    },
    /// How much of the wire the link uses, in virtual time.
    Link,
    /// Whether a device that counts its instructions tells by its answers or its work what is wrong with a blob.
    Leakage {
        /// The folder with the images that measure.
        #[arg(long, env = "KEYFERRY_FIRMWARE_DIR")]
        images: PathBuf,
    },
    /// What the firmware costs: instructions, flash, RAM.
    Firmware {
        /// The folder with the images.
        #[arg(long, env = "KEYFERRY_FIRMWARE_DIR")]
        images: PathBuf,
        /// Only the images whose names contain this.
        #[arg(long, default_value = "")]
        only: String,
        /// How many keys are made.
        #[arg(long, default_value_t = 12)]
        seeds: u8,
    },
    /// What a line costs: devices a second, the station's time beside the bare calls, grown books.
    Station {
        /// Only this part of it.
        #[arg(long, value_enum)]
        only: Option<station::Part>,
    },
    /// The `keyferry` command, in a process whose time is counted.
    #[command(hide = true)]
    StationCommand {
        /// Where to tell what it took.
        report: PathBuf,
        /// Its arguments.
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
    /// The bare calls for so many devices, in a process whose time is counted.
    #[command(hide = true)]
    StationBare {
        /// Where to tell what they took.
        report: PathBuf,
        /// The token, with its PIN's file.
        uri: String,
        /// How many.
        devices: u32,
    },
    /// The cases of one token, in a process of its own: a token's library is initialised once for the process, and reads its
    /// configuration then.
    #[command(hide = true)]
    HsmToken {
        /// The token's software, as in the case's name.
        #[arg(long)]
        kind: String,
        /// The token's library.
        #[arg(long)]
        module: PathBuf,
        /// The token, with its PIN's file.
        #[arg(long)]
        uri: String,
        /// As above.
        #[arg(long)]
        seconds: f64,
    },
}

/// Writes a row.
fn record(row: &Value) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{row}")?;
    Ok(out.flush()?)
}

fn main() -> anyhow::Result<ExitCode> {
    let done = match Arguments::parse().bench {
        Bench::Link => link::run(),
        Bench::Firmware {
            images,
            only,
            seeds,
        } => firmware::run(&images, &only, seeds),
        Bench::Leakage { images } => leakage::run(&images),
        Bench::Hsm { seconds } => hsm::run(seconds),
        Bench::HsmToken {
            kind,
            module,
            uri,
            seconds,
        } => hsm::token(&kind, &module, &uri, seconds),
        Bench::Station { only } => station::run(only),
        Bench::StationCommand { report, arguments } => return station::command(&report, arguments),
        Bench::StationBare {
            report,
            uri,
            devices,
        } => station::bare(&report, &uri, devices),
    };
    done.map(|()| ExitCode::SUCCESS)
}
