//! keyferry's firmware as a process of the host. It prints the name of its serial port, and runs until it is killed.

use std::process::ExitCode;

fn main() -> ExitCode {
    keyferry_native::run(keyferry_native::Device::start)
}
