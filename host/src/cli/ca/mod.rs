//! `keyferry ca`: the factory's CA and the certificates of devices.

mod init;
mod issue;
mod show;
mod verify;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use keyferry_protocol::identity::DeviceId;

use super::{Context, Outcome};
use crate::certificate::{CertificateError, MAXIMUM_FILE, Serial};
use crate::cli::files::read_short;
use crate::error::Failure;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make the CA's certificate, or a request for one that an offline root signs.
    Init(init::Init),
    /// Issue the certificate of one device.
    Issue(issue::Issue),
    /// Say what is in a certificate or a request. This takes no token, and does not check who has issued it.
    Show(show::Show),
    /// Check a device's certificate against trusted CAs. This takes no token.
    Verify(verify::Verify),
}

pub(super) fn run(context: &Context, command: Command) -> Outcome {
    match command {
        Command::Init(arguments) => init::init(context, &arguments),
        Command::Issue(arguments) => issue::issue(context, &arguments),
        Command::Show(arguments) => show::show(context, &arguments),
        Command::Verify(arguments) => verify::verify(context, &arguments),
    }
}

/// Which device.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct DeviceArgs {
    /// The device's id, 32 hexadecimal digits (see `keyferry device info`).
    #[arg(long, value_name = "ID", value_parser = parse_id)]
    device: Option<DeviceId>,
    /// The product's serial number in place of the id: 1 to 64 of letters, digits and ' ()+,-./:=?
    #[arg(long, value_name = "TEXT")]
    serial: Option<String>,
}

impl DeviceArgs {
    /// The serial number in the certificate's subject, if a device is named.
    fn serial(&self) -> Result<Option<Serial>, CertificateError> {
        match (self.device, &self.serial) {
            (Some(id), _) => Ok(Some(id.into())),
            (None, Some(text)) => Serial::product(text).map(Some),
            (None, None) => Ok(None),
        }
    }
}

fn parse_id(text: &str) -> Result<DeviceId, String> {
    let mut id = DeviceId::ZERO;
    hex::decode_to_slice(text, &mut id.0)
        .map(|()| id)
        .map_err(|_| format!("{} hexadecimal digits", 2 * DeviceId::LENGTH))
}

/// Reads a file with certificates.
fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    read_short(path, MAXIMUM_FILE)
}

/// Says in which file something is wrong.
fn in_file(path: &Path) -> impl FnOnce(CertificateError) -> Failure {
    let path = PathBuf::from(path);
    |reason| Failure::CertificateFile { path, reason }
}
