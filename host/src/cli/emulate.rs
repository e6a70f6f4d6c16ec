//! `keyferry emulate`: emulated devices that keep their flash.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use super::{Context, Outcome, fields};
use crate::emulate::logs::{self, Log};
use crate::emulate::{Board, Config, Emulator, Entropy, Fleet, FleetConfig, Line, Numbered};
use crate::error::Failure;
use clap::Args;

/// Most devices of one command.
const MAXIMUM_DEVICES: i64 = 1000;

/// How often it is looked whether a device has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(super) struct Emulate {
    /// The board.
    #[arg(long, value_name = "BOARD", default_value = "mps2-an386")]
    board: Board,
    /// The firmware, an ELF file built for the board.
    #[arg(long, value_name = "FILE", env = "KEYFERRY_FIRMWARE")]
    firmware: PathBuf,
    /// Folder that holds the devices, one folder each; started again on it, they hold the same keys.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// How many devices. Those of the board native are one process, and one that fails leaves the others alone; of the other boards each
    /// is a QEMU of its own.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=MAXIMUM_DEVICES))]
    count: u16,
    /// Make the devices' randomness repeatable. Their keys then follow from this number.
    #[arg(long, value_name = "N")]
    seed: Option<u8>,
    /// Show what the devices log, decoded: their firmware must use defmt, which that of the board native does not.
    #[arg(long)]
    logs: bool,
}

/// Starts the devices, prints their ports, and stays until it is interrupted or a device ends.
pub(super) fn run(context: &Context, arguments: &Emulate) -> Outcome {
    if arguments.logs {
        // Before anybody is given a port.
        logs::check(&arguments.firmware).map_err(|error| Failure::Emulate(error.into()))?;
    }
    match arguments.board {
        Board::Native => fleet(context, arguments),
        Board::Mps2An386 | Board::RiscvVirt => machines(context, arguments),
    }
}

/// Where the devices' randomness comes from.
fn entropy(arguments: &Emulate) -> Entropy {
    let seed = arguments.seed;
    seed.map_or(Entropy::Host, |seed| Entropy::Seed([seed; 32]))
}

/// Tells of a device that runs.
fn show_port(context: &Context, device: Numbered, port: &str, process: u32) {
    context.event(fields! {
        "device" => device.id().to_string(),
        "port" => port,
        "process" => process,
    });
    context.print(port);
}

const RUNNING: &str = "running; Ctrl-C ends them, their flash stays";

/// Devices that are one process.
fn fleet(context: &Context, arguments: &Emulate) -> Outcome {
    let config = FleetConfig {
        firmware: arguments.firmware.clone(),
        dir: arguments.dir.clone(),
        count: arguments.count,
        entropy: entropy(arguments),
        line: Line::USUAL,
    };
    let mut fleet = Fleet::start(&config).map_err(Failure::Emulate)?;
    let process = fleet.process_id();
    for (number, port) in (1..).zip(fleet.ports()) {
        show_port(context, Numbered(number), port, process);
    }
    context.note(RUNNING);
    let mut running = arguments.count;
    loop {
        let Some(ended) = fleet.ended(LOOK_AGAIN).map_err(Failure::Emulate)? else {
            continue;
        };
        let port = fleet.port(ended.device).unwrap_or_default();
        let reason = &ended.reason;
        context.warn(&format!("the emulated device on {port} ended: {reason}"));
        running = running.saturating_sub(1);
        if running == 0 {
            return Err(Failure::DeviceEnded(port.to_owned()));
        }
    }
}

/// Devices that are each a machine of its own.
fn machines(context: &Context, arguments: &Emulate) -> Outcome {
    let mut devices = Vec::new();
    let mut shown = Vec::new();
    for number in 1..=arguments.count {
        let number = Numbered(number);
        let dir = arguments.dir.join(number.folder());
        let firmware = arguments.firmware.clone();
        let mut config = Config::new(arguments.board, firmware, dir, number.id());
        config.entropy = entropy(arguments);
        let device = Emulator::start(&config).map_err(Failure::Emulate)?;
        show_port(context, number, device.port(), device.process_id());
        if arguments.logs {
            shown.push((number, device.log().map_err(Failure::Emulate)?));
        }
        devices.push(device);
    }
    context.note(RUNNING);
    loop {
        thread::sleep(LOOK_AGAIN);
        for (number, log) in &mut shown {
            show(context, *number, log)?;
        }
        for device in &mut devices {
            if !device.is_running().map_err(Failure::Emulate)? {
                for (number, log) in &mut shown {
                    show(context, *number, log)?;
                }
                return Err(Failure::DeviceEnded(device.port().to_owned()));
            }
        }
    }
}

/// Shows what a device has logged since the last look.
fn show(context: &Context, device: Numbered, log: &mut Log) -> Result<(), Failure> {
    let entries = log
        .entries()
        .map_err(|error| Failure::Emulate(error.into()))?;
    for entry in entries {
        let (level, time) = (
            entry.level.unwrap_or("-"),
            entry.time.as_deref().unwrap_or("-"),
        );
        context.note(&format!(
            "device {}: {time} {level:<5} {}",
            device.0, entry.message
        ));
        context.event(fields! {
            "device" => device.id().to_string(),
            "level" => entry.level,
            "time" => entry.time,
            "log" => entry.message,
        });
    }
    Ok(())
}
