//! `keyferry order`: orders as files, for lines without an HSM.

mod deliver;
mod devices;
mod prepare;
mod show;

use std::path::Path;

use clap::Subcommand;

use super::key::public_key_file;
use super::{Context, Outcome};
use crate::error::Failure;
use crate::export::Signer;
pub(super) use devices::parse_device;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make orders for devices that are not there now. This is where the HSM is.
    Prepare(Box<prepare::Prepare>),
    /// Show prepared orders: for whom they are, what they do, and whether they are genuine. Needs public keys only.
    Show(show::Show),
    /// Deliver prepared orders to the devices on these ports, and collect their receipts. Needs no HSM.
    Deliver(deliver::Deliver),
}

pub(super) fn run(context: &Context, command: Command) -> Outcome {
    match command {
        Command::Prepare(arguments) => prepare::prepare(context, &arguments),
        Command::Show(arguments) => show::show(context, &arguments),
        Command::Deliver(arguments) => deliver::deliver(context, &arguments),
    }
}

/// The authority whose signature is believed, from a file with its public key.
fn authority(path: &Path) -> Result<Signer, Failure> {
    Ok(Signer::new(&public_key_file(path)?)?)
}
