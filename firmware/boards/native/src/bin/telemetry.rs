//! An application on a provisioned device that is a process of the host: see `keyferry_emulated::telemetry`.

use std::process::ExitCode;

fn main() -> ExitCode {
    keyferry_native::run(keyferry_native::Device::start_telemetry)
}
