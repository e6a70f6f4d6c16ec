//! `keyferry key`: the keys of a token, one file for each command.

mod arguments;
mod create;
mod export;
mod for_devices;
mod import;
mod import_public;
mod list;
mod migrate;
mod public;
mod signing;
mod verify_export;

pub(super) use arguments::public_key_file;

use clap::Subcommand;

use super::{Context, Outcome, TokenArgs};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a key inside the token.
    Create(create::Create),
    /// List the keys of a token: attributes, check values and fingerprints, never values.
    List {
        #[command(flatten)]
        token: TokenArgs,
    },
    /// Write the public key of a pair to a file, or to stdout.
    Public(public::Public),
    /// Wrap a key for a recipient and write the blob to a file.
    Export(export::Export),
    /// Make a key of its own for each of several devices, and wrap them all for a backend.
    ForDevices(for_devices::ForDevices),
    /// Check an export, or a folder of `for-devices`, and its signature. This takes no token, only the signer's public key.
    VerifyExport(verify_export::VerifyExport),
    /// Take the key out of an export.
    Import(import::Import),
    /// Put a public key on a token, to wrap keys for it.
    ImportPublic(import_public::ImportPublic),
    /// Move a key to another token, and prove the copy.
    Migrate(migrate::Migrate),
}

pub(super) fn run(context: &Context, command: Command) -> Outcome {
    match command {
        Command::Create(arguments) => create::create(context, arguments),
        Command::List { token } => list::list(context, &token),
        Command::Public(arguments) => public::public(context, &arguments),
        Command::Export(arguments) => export::export(context, &arguments),
        Command::ForDevices(arguments) => for_devices::for_devices(context, &arguments),
        Command::VerifyExport(arguments) => verify_export::verify_export(context, &arguments),
        Command::Import(arguments) => import::import(context, &arguments),
        Command::ImportPublic(arguments) => import_public::import_public(context, &arguments),
        Command::Migrate(arguments) => migrate::migrate(context, arguments),
    }
}
