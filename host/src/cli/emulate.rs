//! `keyferry emulate`: emulated devices that keep their flash.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::Args;
use keyferry_protocol::identity::DeviceId;

use super::{Context, Outcome, fields};
use crate::emulate::logs::{self, Log};
use crate::emulate::{Board, Config, Emulator, Entropy};
use crate::error::Failure;

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
    /// How many devices.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    count: u8,
    /// Make the devices' randomness repeatable. Their keys then follow from this number.
    #[arg(long, value_name = "N")]
    seed: Option<u8>,
    /// Show what the devices log, decoded: their firmware must use defmt, which that of the board native does not.
    #[arg(long)]
    logs: bool,
}

/// The id of the device of this number.
fn device_id(number: u8) -> DeviceId {
    let mut id = DeviceId::ZERO;
    id.0[DeviceId::LENGTH - 1] = number;
    id
}

/// Starts the devices, prints their ports, and stays until it is interrupted or a device ends.
pub(super) fn run(context: &Context, arguments: &Emulate) -> Outcome {
    if arguments.logs {
        // Before anybody is given a port.
        logs::check(&arguments.firmware).map_err(|error| Failure::Emulate(error.into()))?;
    }
    let mut devices = Vec::new();
    let mut shown = Vec::new();
    for number in 1..=arguments.count {
        let id = device_id(number);
        let dir = arguments.dir.join(format!("device-{number}"));
        let mut config = Config::new(arguments.board, arguments.firmware.clone(), dir, id);
        if let Some(seed) = arguments.seed {
            config.entropy = Entropy::Seed([seed; 32]);
        }
        let device = Emulator::start(&config).map_err(Failure::Emulate)?;
        context.event(fields! {
            "device" => id.to_string(),
            "port" => device.port(),
            "process" => device.process_id(),
        });
        context.print(device.port());
        if arguments.logs {
            shown.push((number, device.log().map_err(Failure::Emulate)?));
        }
        devices.push(device);
    }
    context.note("running; Ctrl-C ends them, their flash stays");
    loop {
        thread::sleep(Duration::from_millis(200));
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
fn show(context: &Context, number: u8, log: &mut Log) -> Result<(), Failure> {
    let entries = log
        .entries()
        .map_err(|error| Failure::Emulate(error.into()))?;
    for entry in entries {
        let (level, time) = (
            entry.level.unwrap_or("-"),
            entry.time.as_deref().unwrap_or("-"),
        );
        context.note(&format!(
            "device {number}: {time} {level:<5} {}",
            entry.message
        ));
        context.event(fields! {
            "device" => device_id(number).to_string(),
            "level" => entry.level,
            "time" => entry.time,
            "log" => entry.message,
        });
    }
    Ok(())
}
