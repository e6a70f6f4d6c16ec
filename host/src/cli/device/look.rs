//! `device info`, `list`, `certificate`, `echo`: nothing is ordered, and nothing that the device says is verified, but for a
//! certificate by its CA.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

use clap::Args;
use keyferry_protocol::identity::{Fingerprint, Hint};
use keyferry_protocol::message::{Reply, Request};
use serde_json::{Value, json};

use super::{PortArgs, greet};
use crate::certificate::{CERTIFICATE_LABEL, Document, MAXIMUM_DEVICE_CERTIFICATE, to_pem};
use crate::cli::output::counted;
use crate::cli::policy::cas;
use crate::cli::{Context, Outcome, fields, write_new};
use crate::device::session::Mishaps;
use crate::device::{DeviceError, flow};
use crate::error::Failure;
use crate::station::JobError;

#[derive(Debug, Args)]
pub(in crate::cli) struct Certificate {
    #[command(flatten)]
    port: PortArgs,
    /// Certificate of a CA that must have issued it, PEM; may be given more than once.
    #[arg(long, value_name = "FILE")]
    ca: Vec<PathBuf>,
    /// Write it to this file, PEM.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace an existing file.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Echo {
    #[command(flatten)]
    port: PortArgs,
    /// How many bytes a message has, 1 to 2000: a device takes no message that is much longer.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u16).range(1..=2000))]
    bytes: u16,
    /// How many messages, 1 to 100000.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: u32,
}

pub(super) fn info(context: &Context, port: &PortArgs) -> Outcome {
    let session = greet(context, port)?;
    let greeting = session.greeting();
    let rows = [
        ("device", greeting.device.to_string()),
        ("state", greeting.state.name().to_owned()),
        ("counter", greeting.counter.to_string()),
        ("board", greeting.board.clone()),
        ("firmware", greeting.firmware.clone()),
        (
            "identity key",
            or_none(greeting.identity, Fingerprint::ZERO),
        ),
        ("authority", or_none(greeting.authority, Hint::ZERO)),
    ]
    .map(|(name, value)| [name.to_owned(), value]);
    context.table(["what", "as the device says, unverified"], &rows);
    Ok(fields! {
        "device" => greeting.device.to_string(),
        "state" => greeting.state.name(),
        "counter" => greeting.counter,
        "board" => greeting.board,
        "firmware" => greeting.firmware,
        "identity" => known(greeting.identity, Fingerprint::ZERO),
        "authority" => known(greeting.authority, Hint::ZERO),
    })
}

/// A key's fingerprint; a blank device has no keys, and says zero.
fn known<T: PartialEq + Display>(fingerprint: T, none: T) -> Option<String> {
    (fingerprint != none).then(|| fingerprint.to_string())
}

/// The same for people.
fn or_none<T: PartialEq + Display>(fingerprint: T, none: T) -> String {
    known(fingerprint, none).unwrap_or_else(|| "none yet".to_owned())
}

pub(super) fn list(context: &Context, port: &PortArgs) -> Outcome {
    let mut session = greet(context, port)?;
    let slots = flow::list(&mut session)?;
    let rows: Vec<_> = slots
        .iter()
        .map(|slot| {
            [
                slot.slot.to_string(),
                slot.label.as_str().replace(char::is_control, "?"),
                slot.version.to_string(),
                format!("{:#06x}", slot.attributes.key_type),
                slot.attributes.bits.to_string(),
            ]
        })
        .collect();
    context.table(["slot", "label", "version", "PSA type", "bits"], &rows);
    let slots: Vec<Value> = slots
        .iter()
        .map(|slot| {
            json!({
                "slot": slot.slot,
                "label": slot.label.as_str(),
                "version": slot.version,
                "type": slot.attributes.key_type,
                "bits": slot.attributes.bits,
                "usage": slot.attributes.usage,
                "algorithm": slot.attributes.algorithm,
            })
        })
        .collect();
    Ok(fields! { "slots" => slots })
}

pub(super) fn certificate(context: &Context, arguments: &Certificate) -> Outcome {
    let trusted = if arguments.ca.is_empty() {
        None
    } else {
        Some(cas("--ca", &arguments.ca)?)
    };
    let mut session = greet(context, &arguments.port)?;
    let device = session.greeting().device;
    let der = flow::certificate(&mut session)?.ok_or(JobError::NoCertificate { device })?;
    let document = Document::read(&der, MAXIMUM_DEVICE_CERTIFICATE)?;
    let accepted = trusted
        .map(|ca| ca.check_issued(&der, SystemTime::now()))
        .transpose()?;
    let pem = to_pem(CERTIFICATE_LABEL, &der)?;
    if let Some(path) = &arguments.out {
        write_new(path, pem.as_bytes(), arguments.force)?;
    } else {
        context.print(pem.trim_end());
    }
    let subject = crate::certificate::printable(document.subject());
    let verdict = match &accepted {
        Some(accepted) => format!("issued by {}", accepted.issuer),
        None => "not checked: no --ca was given".to_owned(),
    };
    context.note(&format!("{subject}; {verdict}"));
    Ok(fields! {
        "device" => device.to_string(),
        "subject" => subject,
        "serial" => hex::encode(document.number()),
        "key" => document.key()?.fingerprint().to_string(),
        "verified" => accepted.is_some(),
        "certificate" => pem,
    })
}

pub(super) fn echo(context: &Context, arguments: &Echo) -> Outcome {
    let mut session = greet(context, &arguments.port)?;
    let start = Instant::now();
    for round in 0..arguments.count {
        let bytes: Vec<u8> = (0..arguments.bytes)
            .map(|place| (u32::from(place).wrapping_mul(31) ^ round) as u8)
            .collect();
        let message = session.exchange(&Request::Echo { bytes: &bytes }, &mut |_| {})?;
        match Reply::decode(&message) {
            Ok(Reply::Echo { bytes: back }) if back == bytes => {}
            Ok(_) | Err(_) => return Err(Failure::Device(DeviceError::Unexpected)),
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let bytes = u64::from(arguments.count) * u64::from(arguments.bytes);
    let Mishaps { damaged, repeated } = session.mishaps();
    let line = if (damaged, repeated) == (0, 0) {
        "no frame was damaged or sent again".to_owned()
    } else {
        format!(
            "{} came damaged, {} sent again",
            counted(damaged.into(), "frame"),
            counted(repeated.into(), "frame")
        )
    };
    context.note(&format!(
        "{bytes} bytes went to the device and back in {seconds:.2} s, without a mistake; {line}"
    ));
    Ok(fields! {
        "device" => session.greeting().device.to_string(),
        "bytes" => bytes,
        "seconds" => seconds,
        "damaged" => damaged,
        "repeated" => repeated,
    })
}
