//! What a line costs: devices a second, a station's own time for a device beside the bare calls of the token, devices an hour on slow
//! ports and with a slow HSM, and what a registry and an audit log cost that have grown for years.
//!
//! The devices are of the board `native`, on threads of this process, their ports pseudo-terminals. The station is a process of its
//! own, whose processor time the kernel counts; so are the bare calls. Both are nearly the same on a machine that is busy otherwise;
//! devices a second and an hour are not, and the devices' own work is in them.

mod child;
mod growth;
mod line;
mod tray;

use anyhow::Result;
use clap::ValueEnum;
use keyferry_tests::tokens::{Kind, Scratch};

use crate::rows::Row;
pub(crate) use child::{bare, command};
use child::{run_bare, run_command};
use tray::Tray;

const BENCH: &str = "station";

/// Devices of a run, and how often that is measured; the median counts.
const FLEETS: [(u16, usize); 4] = [(1, 9), (8, 3), (64, 1), (256, 1)];
/// How often a run without devices is measured.
const EMPTY: usize = 9;
/// How many devices the bare calls are made for.
const BARE: u32 = 1_000;
/// The station's time for a device may be so many times that of the bare calls.
const TARGET: f64 = 3.0;

/// Labels of keys in the token.
const TOKEN: &str = "line";
const AUTHORITY: &str = "authority";
const AUDITOR: &str = "audit";
const KEY: &str = "fleet";

/// What can be measured alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Devices a second, and a station's own time for one.
    Devices,
    /// Devices an hour on slow ports and with a slow HSM.
    Ports,
    /// A registry that has grown.
    Registry,
    /// An audit log that has grown.
    Audit,
}

/// Measures all of it, or one part.
///
/// # Errors
/// If a device, a token or a file does not do as it should. That a target is missed is in the rows.
pub(crate) fn run(only: Option<Part>) -> Result<()> {
    let token = token()?;
    for part in Part::value_variants() {
        match part {
            _ if only.is_some_and(|only| only != *part) => {}
            Part::Devices => fleets(&token)?,
            Part::Ports => line::run(&token)?,
            Part::Registry => growth::registry()?,
            Part::Audit => growth::audit(&token)?,
        }
    }
    Ok(())
}

/// A token with the keys of a line.
fn token() -> Result<Scratch> {
    let scratch = Scratch::of(Kind::SoftHsm, TOKEN);
    let uri = scratch.uri();
    let create = |rest: &[&str]| {
        let words = ["key", "create", "--token", &uri, "--label"];
        run_command(&scratch, &[], &[&words[..], rest].concat())?.done()
    };
    create(&[AUTHORITY, "--type", "p-256", "--usage", "sign"])?;
    create(&[AUDITOR, "--type", "p-256", "--usage", "sign"])?;
    let usage = ["--usage", "sign,verify", "--extractable"];
    create(&[&[KEY, "--type", "aes-256"], &usage[..]].concat())?;
    Ok(scratch)
}

/// Processor time for a device, and devices a second.
fn fleets(token: &Scratch) -> Result<()> {
    let bare = run_bare(token, BARE)?.processor / f64::from(BARE);
    Row::new(BENCH, "bare-calls", "seconds", bare)
        .with(
            "what",
            "processor time for a device: two orders signed, one key wrapped, one MAC made",
        )
        .print()?;
    let uri = token.uri();
    let mut empty = Vec::new();
    for _ in 0..EMPTY {
        empty.push(Tray::new(token)?.without_devices(token, &uri)?.processor);
    }
    let empty = median(empty);
    Row::new(BENCH, "empty-run", "seconds", empty)
        .with("what", "processor time of a run that finds no device")
        .print()?;
    for (count, times) in FLEETS {
        let (mut own, mut wall) = (Vec::new(), Vec::new());
        for _ in 0..times {
            let spent = Tray::new(token)?.fast(token, &uri, count)?;
            // What a run costs before the first device and after the last is no device's own.
            own.push((spent.processor - empty) / f64::from(count));
            wall.push(spent.line);
        }
        let own = median(own);
        let case = |what: &str| format!("devices-{count}/{what}");
        let rate = f64::from(count) / median(wall);
        Row::new(BENCH, case("rate"), "devices a second", rate)
            .with("durability", "journal_mode=wal, synchronous=full")
            .print()?;
        Row::new(BENCH, case("station"), "seconds", own)
            .with("what", "processor time for a device")
            .print()?;
        Row::new(BENCH, case("station-to-bare"), "ratio", own / bare)
            .at_most(TARGET)
            .cause(CAUSE)
            .print()?;
    }
    Ok(())
}

/// Where the station's time goes, by a profile (`perf`, 256 devices) and a count of its calls of `fsync` (`strace`).
const CAUSE: &str = "each device is written down some nineteen times, each time with a wait for the disk, in journal, registry and audit log: a quarter of \
     the time; the token, the tables and the four signatures verified are a tenth each; the rest is spread over the cable and the threads";

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
