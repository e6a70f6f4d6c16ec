//! `keyferry ca verify`.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;

use super::{DeviceArgs, in_file, read};
use crate::certificate::{DeviceCa, one_certificate};
use crate::cli::key::public_key_file;
use crate::cli::{Context, Outcome, fields};

#[derive(Debug, Args)]
pub(in crate::cli) struct Verify {
    /// The device's certificate, in PEM or DER.
    #[arg(value_name = "FILE")]
    certificate: PathBuf,
    /// A file with certificates of trusted CAs. Can be given several times.
    #[arg(long, value_name = "FILE", required = true)]
    ca: Vec<PathBuf>,
    /// A file with certificates of CAs between a trusted one and the device. Can be given several times.
    #[arg(long, value_name = "FILE")]
    between: Vec<PathBuf>,
    /// Public key file of the identity key that the certificate has to be for.
    #[arg(long, value_name = "FILE")]
    identity_key: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

pub(super) fn verify(context: &Context, arguments: &Verify) -> Outcome {
    let serial = arguments.device.serial()?;
    let mut cas = DeviceCa::nobody();
    for path in &arguments.ca {
        cas = cas.trusting(&read(path)?).map_err(in_file(path))?;
    }
    for path in &arguments.between {
        cas = cas.with_between(&read(path)?).map_err(in_file(path))?;
    }
    let path = &arguments.certificate;
    let der = one_certificate(&read(path)?).map_err(in_file(path))?;
    let accepted = cas
        .check_issued(&der, SystemTime::now())
        .map_err(in_file(path))?;
    if let Some(serial) = &serial {
        accepted.check_serial(serial).map_err(in_file(path))?;
    }
    if let Some(file) = &arguments.identity_key {
        let key = public_key_file(file)?;
        accepted.check_key(key.spki_der()).map_err(in_file(path))?;
    }
    context.note(&format!(
        "'{}' has certified '{}'",
        accepted.issuer, accepted.subject
    ));
    if arguments.identity_key.is_none() {
        context.note("whether a device is that one, only its identity key can tell");
    }
    Ok(fields! {
        "serial" => accepted.serial,
        "subject" => accepted.subject,
        "issuer" => accepted.issuer,
        "trusted" => accepted.trusted.to_string(),
        "number" => accepted.number,
        "sha256" => accepted.fingerprint.to_string(),
    })
}
