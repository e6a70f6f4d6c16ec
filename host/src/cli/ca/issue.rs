//! `keyferry ca issue`.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;

use super::{DeviceArgs, in_file, read};
use crate::certificate::{
    CERTIFICATE_LABEL, CaCertificate, DeviceCa, Identity, Issuer, check_ca_key, to_pem,
};
use crate::cli::files::{check_new, write_new};
use crate::cli::key::public_key_file;
use crate::cli::{Context, Outcome, TokenArgs, fields};
use crate::error::Failure;
use crate::hsm::{KeySpec, KeyType};
use crate::station::TokenSigner;

#[derive(Debug, Args)]
pub(in crate::cli) struct Issue {
    /// Label of the CA's key on the token.
    #[arg(long, value_name = "LABEL")]
    ca_key: String,
    /// The CA's certificate.
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// Public key file of the device's identity key, P-256. Whoever gives it vouches for it: it is certified as it is.
    #[arg(long, value_name = "FILE")]
    identity_key: PathBuf,
    #[command(flatten)]
    device: DeviceArgs,
    /// Who makes the device: O in the subject.
    #[arg(long, value_name = "TEXT")]
    organization: Option<String>,
    /// What the device is: CN in the subject.
    #[arg(long, value_name = "TEXT")]
    common_name: Option<String>,
    /// The file to write, in PEM.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Write DER instead of PEM.
    #[arg(long)]
    der: bool,
    /// Replace an existing file.
    #[arg(long)]
    force: bool,
    // Last, because its heading in the help goes on to the end.
    #[command(flatten)]
    token: TokenArgs,
}

pub(super) fn issue(context: &Context, arguments: &Issue) -> Outcome {
    check_new(&arguments.out, arguments.force)?;
    let serial = arguments.device.serial()?.ok_or(Failure::Missing {
        name: "--device or --serial",
        because: "a certificate is for one device",
    })?;
    let ca = CaCertificate::read(&read(&arguments.ca)?).map_err(in_file(&arguments.ca))?;
    let identity_key = public_key_file(&arguments.identity_key)?;
    if identity_key.key_type() != KeyType::P256 {
        return Err(Failure::OtherType {
            path: arguments.identity_key.clone(),
            found: identity_key.key_type(),
            wanted: KeyType::P256,
        });
    }
    let (token, _) = arguments.token.open(context)?;
    let key = token.with_pair(token.key(&KeySpec::label(&arguments.ca_key))?)?;
    check_ca_key(&key)?;
    let authority = TokenSigner::new(token, key)?;
    let trusted = ca.document().der().to_vec();
    let issuer = Issuer::new(&authority, ca)?;
    let identity = Identity {
        serial: serial.clone(),
        organization: arguments.organization.as_deref(),
        common_name: arguments.common_name.as_deref(),
        key: identity_key.spki_der(),
    };
    let now = SystemTime::now();
    let der = issuer.issue(&identity, now)?;
    // What others will ask of it, asked once before it goes out.
    let accepted = DeviceCa::new(&[trusted])?.check(&der, identity_key.spki_der(), &serial, now)?;
    let pem = to_pem(CERTIFICATE_LABEL, &der)?;
    let bytes = if arguments.der { &der } else { pem.as_bytes() };
    write_new(&arguments.out, bytes, arguments.force)?;
    context.note(&format!(
        "'{}' has certified '{}' in {}, {} bytes in DER",
        accepted.issuer,
        accepted.subject,
        arguments.out.display(),
        der.len()
    ));
    Ok(fields! {
        "serial" => accepted.serial,
        "subject" => accepted.subject,
        "issuer" => accepted.issuer,
        "number" => accepted.number,
        "identity" => identity_key.fingerprint().to_string(),
        "sha256" => accepted.fingerprint.to_string(),
        "bytes" => der.len(),
        "out" => arguments.out.display().to_string(),
    })
}
