//! A process that is one device, or a fleet of them.

use std::io::{self, Write as _};
use std::process::{self, ExitCode};
use std::{env, thread};

use crate::{Device, NativeError, Settings, fleet, report_places};

/// What the process ends with when its arguments are wrong.
const USAGE: u8 = 2;

/// Reads the process's arguments, starts the device, prints the name of its serial port, and stays until the device's line is no more.
/// With `fleet=stdin` as the only argument it does so for many: each line of standard input has the arguments of one, and what becomes of
/// each is told in a line on standard output: `port`, `failed` or `ended`, its number from 1, and the port's name or the reason.
pub fn run(start: fn(Settings) -> Result<Device, NativeError>) -> ExitCode {
    report_places();
    if env::args_os().skip(1).eq([fleet::WORD]) {
        return fleet::run(start);
    }
    let (error, code) = match one(start) {
        Err(error @ NativeError::Settings(_)) => (error, ExitCode::from(USAGE)),
        Err(error) | Ok(error) => (error, ExitCode::FAILURE),
    };
    eprintln!("keyferry-native: {error}");
    if let Some(hint) = error.hint() {
        eprintln!("hint: {hint}");
    }
    code
}

fn one(start: fn(Settings) -> Result<Device, NativeError>) -> Result<NativeError, NativeError> {
    let settings = Settings::read(env::args_os().skip(1))?;
    let control = settings.control;
    let device = start(settings)?;
    // Whoever does not listen has no use for the name.
    let _ = writeln!(io::stdout(), "{}", device.port());
    if control {
        let button = device.reset_button();
        thread::spawn(move || {
            for line in io::stdin().lines().map_while(Result::ok) {
                if line == "reset" {
                    button.press();
                }
            }
            // Whoever started it is gone. To the device it is a power cut.
            process::exit(0);
        });
    }
    Ok(device.wait().into())
}
