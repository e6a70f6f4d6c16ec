//! The command line: one file per subcommand, and what they share.
//!
//! With `--json` a command prints one JSON object per line on stdout, the last one with `"ok": true` or `"ok": false`, and
//! nothing on stderr, but where stdout cannot be written. Without, people read what happens on stderr, and only what a command is asked for goes to stdout.

mod audit;
mod broker;
mod ca;
mod device;
mod emulate;
mod files;
mod hsm;
mod hsm_args;
mod key;
mod line;
mod order;
mod output;
mod policy;
mod port;
mod records;
mod registry;
mod signals;
mod station;
mod token;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use files::write_new;
pub use output::Context;
pub use policy::{EnrolmentArgs, RegistryArgs, VisitArgs};
use token::PinArgs;
pub use token::TokenArgs;

use crate::error::Failure;

/// Carries keys from an HSM into devices, and between HSMs.
#[derive(Debug, Parser)]
#[command(name = "keyferry", version, arg_required_else_help = true)]
struct Arguments {
    /// Print JSON, one object per line; the last has "ok".
    #[arg(long, global = true)]
    json: bool,
    /// Say nothing on the way; results and errors only.
    #[arg(long, short, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The HSM and its tokens.
    #[command(subcommand)]
    Hsm(hsm::Command),
    /// The keys on a token.
    #[command(subcommand)]
    Key(key::Command),
    /// The audit log of a station.
    #[command(subcommand)]
    Audit(audit::Command),
    /// The registry: what was enrolled, and which keys went where.
    #[command(subcommand)]
    Registry(registry::Command),
    /// One device on one port.
    #[command(subcommand)]
    Device(device::Command),
    /// The factory's CA, and certificates of devices.
    #[command(subcommand)]
    Ca(ca::Command),
    /// Hold a token's login in a process of its own, and give out what its rules allow.
    Broker(Box<broker::Broker>),
    /// Orders as files, for lines without an HSM.
    #[command(subcommand)]
    Order(order::Command),
    /// A line of devices, worked on by a plan.
    #[command(subcommand)]
    Station(station::Command),
    /// What went over a line.
    #[command(subcommand)]
    Line(line::Command),
    /// Emulated devices.
    Emulate(emulate::Emulate),
}

/// Runs one command line, the program's name first, and gives the exit code that the design lists.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<_> = arguments.into_iter().collect();
    let parsed = match Arguments::try_parse_from(&arguments) {
        Ok(parsed) => parsed,
        Err(error) => {
            // Not parsed, so looked for as it stands: a script's JSON reader must not meet plain text.
            let json = arguments.iter().any(|argument| argument == "--json");
            return output::usage(&error, json);
        }
    };
    let context = Context::new(parsed.json, parsed.quiet);
    let result = match parsed.command {
        Command::Hsm(command) => hsm::run(&context, command),
        Command::Key(command) => key::run(&context, command),
        Command::Audit(command) => audit::run(&context, command),
        Command::Registry(command) => registry::run(&context, command),
        Command::Device(command) => device::run(&context, command),
        Command::Ca(command) => ca::run(&context, command),
        Command::Broker(arguments) => broker::run(&context, &arguments),
        Command::Order(command) => order::run(&context, command),
        Command::Station(command) => station::run(&context, command),
        Command::Line(command) => line::run(&context, command),
        Command::Emulate(arguments) => emulate::run(&context, &arguments),
    };
    context.end(result)
}

/// What a command ends with: the fields of its last JSON object beside `"ok"`.
pub type Outcome = Result<serde_json::Map<String, serde_json::Value>, Failure>;

/// Makes the fields of a JSON object: `fields! { "label" => label }`.
macro_rules! fields {
    ($($name:literal => $value:expr),* $(,)?) => {{
        #[allow(unused_mut, reason = "no fields are fine")]
        let mut map = serde_json::Map::new();
        $(map.insert($name.to_owned(), serde_json::json!($value));)*
        map
    }};
}
pub(crate) use fields;
