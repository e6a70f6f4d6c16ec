//! `cargo xtask line`: a bad cable in real time, between a device's port and a new one that it prints.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use clap::Args;
use keyferry_tests::line::{Adapter, Counts, Proxy, Settings, SpellWord, StretchWord, Words};
use serde_json::{Map, json};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::Outcome;
use crate::screen::{GOOD, NOTE, Screen};

/// How often it looks whether it shall end.
const TURN: Duration = Duration::from_millis(50);

/// What the words of the options consist of.
const WORDS: &str = "\
RATE is the chance of each bit or byte, such as 1e-5; LONGEST (16 where none is given) and LENGTH are bytes; TIME is such as 300ms, 2s, 50us.
PLACE says where something happens exactly once: at a byte (5000), after a time (2s), or at a byte that the seed chooses: random (among
the first 4096), random:N. It counts the bytes of both directions and hits both; with /down (to the device) or /up behind it, one.
An option may be given more than once.";

/// The line, and what is wrong with it.
#[derive(Args)]
#[command(after_help = WORDS)]
pub(crate) struct Line {
    /// The device's port: a serial device, the pseudo-terminal of an emulated board, unix:PATH, tcp:HOST:PORT.
    #[arg(long = "in", value_name = "PORT")]
    device: String,
    /// Make a symbolic link here to the new port; `-` makes none.
    #[arg(long, value_name = "PATH", default_value = "-")]
    out: PathBuf,
    /// Chance of each bit on the wire to arrive inverted.
    #[arg(long, value_name = "RATE", default_value = "0", value_parser = keyferry_tests::line::rate)]
    ber: f64,
    /// Lose bytes: RATE or RATE:LONGEST for stretches at random, LENGTH@PLACE for one.
    #[arg(long, value_name = "WORD")]
    drop: Vec<StretchWord>,
    /// Send bytes twice: RATE, RATE:LONGEST or LENGTH@PLACE.
    #[arg(long, value_name = "WORD")]
    duplicate: Vec<StretchWord>,
    /// Spoil every bit of a stretch: RATE, RATE:LONGEST or LENGTH@PLACE.
    #[arg(long, value_name = "WORD")]
    burst: Vec<StretchWord>,
    /// Let nothing move for a time: TIME:RATE or TIME@PLACE, such as 300ms@random.
    #[arg(long, value_name = "WORD")]
    stall: Vec<SpellWord>,
    /// Lose everything for a time: TIME:RATE (one direction each time) or TIME@PLACE.
    #[arg(long, value_name = "WORD")]
    dead: Vec<SpellWord>,
    /// Carry no faster than a wire at this baud rate; without it, as fast as bytes come.
    #[arg(long, default_value_t = Settings::UNPACED, hide_default_value = true, value_parser = clap::value_parser!(u32).range(50..))]
    baud: u32,
    /// Hold bytes for the station back as a USB adapter with this latency timer does, such as 16ms.
    #[arg(long, value_name = "TIME", value_parser = keyferry_tests::line::time)]
    latency_timer: Option<u64>,
    /// The same seed injects the same faults into the same bytes; without it there is a new one each time.
    #[arg(long)]
    seed: Option<u64>,
}

impl Line {
    fn settings(&self, seed: u64) -> Settings {
        let words = Words {
            ber: self.ber,
            drop: self.drop.clone(),
            duplicate: self.duplicate.clone(),
            burst: self.burst.clone(),
            stall: self.stall.clone(),
            dead: self.dead.clone(),
        };
        let mut settings = Settings::real_time(self.baud, words.faults(seed), seed);
        settings.adapter = self.latency_timer.map(|timer| Adapter {
            timer,
            ..Adapter::SLOW
        });
        settings
    }
}

/// The door. It carries until it is interrupted.
///
/// # Errors
/// If the device's port does not open, or the new one cannot be made.
pub(crate) fn run(screen: &Screen, line: &Line) -> anyhow::Result<Outcome> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .context("cannot listen to signals")?;
    }
    let seed = line.seed.unwrap_or_else(new_seed);
    let mut proxy = Proxy::start(&line.device, &line.settings(seed))?;
    let mut port = proxy.path().to_owned();
    if line.out.as_os_str() != "-" {
        proxy.link(&line.out)?;
        port = line.out.display().to_string();
    }
    screen.record(&json!({ "port": port, "seed": seed }))?;
    screen.mark(GOOD, "line", format!("{} as {port}", line.device));
    screen.say(format!("           --seed {seed}; Ctrl-C ends it"));
    let mut connected = true;
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(TURN);
        ensure!(proxy.is_running(), "the line's own terminal has failed");
        if connected != proxy.is_connected() {
            connected = !connected;
            let word = if connected { "is back" } else { "is gone" };
            screen.mark(NOTE, "device", format!("'{}' {word}", line.device));
        }
    }
    let counts = proxy.counts();
    drop(proxy);
    tell(screen, &counts);
    Ok(Outcome {
        ok: true,
        summary: Map::from_iter([
            ("seed".to_owned(), json!(seed)),
            ("counts".to_owned(), counts.to_json()),
        ]),
    })
}

/// A seed that has not been used: the time will do, for a line that is to be bad and not secret.
fn new_seed() -> u64 {
    let time = SystemTime::now().duration_since(UNIX_EPOCH);
    time.map_or(0, |time| time.as_micros() as u64)
}

/// The counts that are not zero, for people.
fn tell(screen: &Screen, counts: &Counts) {
    for (way, tally) in [("down", counts.down), ("up", counts.up)] {
        let fields = tally.to_json();
        let told: Vec<String> = fields
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(_, value)| value.as_u64() != Some(0))
            .map(|(name, value)| format!("{} {value}", name.replace('_', " ")))
            .collect();
        screen.mark(NOTE, way, told.join(", "));
    }
}
