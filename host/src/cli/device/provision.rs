//! `device enroll`, `inject`, `prove`.

use std::path::PathBuf;

use clap::Args;
use keyferry_protocol::suite::{Suite, UnwrapAlgorithm};

use super::keys::{announce, as_json, show, targets};
use super::{Bar, Desk, Known, greet};
use crate::certificate::Serial;
use crate::cli::policy::EnrolmentArgs;
use crate::cli::{Context, Outcome, fields, write_new};
use crate::device::verify::fingerprint;
use crate::hsm::PublicKey;
use crate::station::{self, JobError, Visitor};

#[derive(Debug, Args)]
pub(in crate::cli) struct Enroll {
    #[command(flatten)]
    desk: Desk,
    #[command(flatten)]
    policy: EnrolmentArgs,
    /// Kind of unwrap key that a blank device makes: rsa-2048, rsa-3072, rsa-4096 or p-256.
    #[arg(long, value_name = "KIND", default_value = "rsa-2048", value_parser = parse_unwrap)]
    unwrap: UnwrapAlgorithm,
    /// The serial number on the device's label, for the registry.
    #[arg(long, value_name = "TEXT", value_parser = parse_label)]
    serial: Option<String>,
    /// Write the device's unwrap key to this file, PEM.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace an existing file.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Inject {
    #[command(flatten)]
    known: Known,
    /// A key's label, the slot it goes to and what the device uses it for (cmac, gcm, ccm, ctr, cbc, hmac-sha256, data, ecdsa,
    /// ecdh, rsa-pkcs1, rsa-oaep). Without `@SLOT` keys go to slots 0, 1, 2 … in the order given; without `=USE` a device does what
    /// the key may do on the token.
    #[arg(long = "key", value_name = "LABEL[@SLOT][=USE]", required = true)]
    keys: Vec<String>,
    /// Version of the keys; a higher one replaces a key in its slot.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    version: u32,
    /// How the KEK travels, instead of the strongest way that token and device share.
    #[arg(long, value_name = "SUITE", value_parser = parse_suite)]
    suite: Option<Suite>,
    /// The serial number on the device's label, for the registry and its certificate. Without it the certificate says the label that the registry has, or else the device's id.
    #[arg(long, value_name = "TEXT", value_parser = parse_label)]
    serial: Option<String>,
    /// Issue the device's certificate anew, also where keys were injected before.
    #[arg(long)]
    recertify: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Prove {
    #[command(flatten)]
    known: Known,
    /// A key's label, its slot and its use, as they were given to `inject`.
    #[arg(long = "key", value_name = "LABEL[@SLOT][=USE]", required = true)]
    keys: Vec<String>,
}

fn parse_unwrap(name: &str) -> Result<UnwrapAlgorithm, String> {
    name.parse()
        .map_err(|_| "there is rsa-2048, rsa-3072, rsa-4096 and p-256".to_owned())
}

/// A label that a certificate can say.
fn parse_label(text: &str) -> Result<String, String> {
    let serial = Serial::product(text).map_err(|error| error.to_string())?;
    Ok(serial.as_str().to_owned())
}

fn parse_suite(name: &str) -> Result<Suite, String> {
    name.parse().map_err(|_| {
        let names: Vec<_> = Suite::ALL.iter().map(|suite| suite.name()).collect();
        format!("there is {}", names.join(", "))
    })
}

pub(super) fn enroll(context: &Context, arguments: &Enroll) -> Outcome {
    let desk = &arguments.desk;
    let rules = arguments.policy.rules()?;
    let hsm = desk.hsm.open(context)?;
    let records = desk.records.open_or_begin()?;
    let visitor = Visitor {
        hsm: &*hsm,
        rules: &rules,
        records: &records,
        on_note: &|text| context.note(text),
    };
    let session = greet(context, &desk.port)?;
    let progress = Bar::new(context);
    let visit = visitor.enroll(
        session,
        arguments.unwrap,
        arguments.serial.as_deref(),
        &mut |step| progress.show(step),
    )?;
    drop(progress);
    context.trust(&visit.trust);
    let statement = &visit.statement;
    if let Some(path) = &arguments.out {
        let pem = PublicKey::from_spki_der(&statement.unwrap_key)
            .map_err(JobError::from)?
            .to_pem();
        write_new(path, pem.as_bytes(), arguments.force)?;
    }
    let suites: Vec<_> = statement.suites.iter().map(|suite| suite.name()).collect();
    let identity = fingerprint(&statement.identity_key).to_string();
    let unwrap = fingerprint(&statement.unwrap_key).to_string();
    let rows = [
        ("device", statement.device.to_string()),
        ("state", statement.standing.state.name().to_owned()),
        ("board", statement.board.clone()),
        ("firmware", statement.firmware.clone()),
        ("randomness", statement.rng.name().to_owned()),
        ("root key", statement.root_key.name().to_owned()),
        ("suites", suites.join(", ")),
        ("identity key", identity.clone()),
        ("unwrap key", unwrap.clone()),
        ("authority", statement.authority.to_string()),
        ("epoch", statement.epoch.to_string()),
    ]
    .map(|(name, value)| [name.to_owned(), value]);
    context.table(["what", "from the device's signed statement"], &rows);
    Ok(fields! {
        "device" => statement.device.to_string(),
        "state" => statement.standing.state.name(),
        "board" => statement.board,
        "firmware" => statement.firmware,
        "rng" => statement.rng.name(),
        "root_key" => statement.root_key.name(),
        "suites" => suites,
        "identity" => identity,
        "unwrap" => unwrap,
        "authority" => statement.authority.to_string(),
        "epoch" => statement.epoch,
        "counter" => statement.standing.counter,
        "policy" => visit.trust.policy,
    })
}

pub(super) fn inject(context: &Context, arguments: &Inject) -> Outcome {
    let known = &arguments.known;
    let rules = known.policy.rules()?;
    // Everything that can be wrong on the HSM's side is found before the device is touched.
    let hsm = known.desk.hsm.open(context)?;
    let targets = targets(&*hsm, &arguments.keys)?;
    station::check_targets(&targets, rules.minimum_proof)?;
    announce(context, &targets);
    let serial = arguments.serial.as_deref();
    let mut visit = known.visit(context, &*hsm, serial)?;
    let suite = match arguments.suite {
        Some(suite) => suite,
        None => station::choose_suite(&*hsm, &rules, &visit.statement)?,
    };
    context.note(&format!("suite {suite}"));
    let certificate = station::certify(&mut visit, &*hsm, serial, arguments.recertify)?;
    let certified = certificate.is_some();
    let progress = Bar::new(context);
    let proved = station::inject(
        &mut visit,
        &*hsm,
        &station::Shipping {
            suite,
            version: arguments.version,
            targets: &targets,
            minimum: rules.minimum_proof,
            certificate,
        },
        &mut |step| progress.show(step),
    )?;
    drop(progress);
    show(context, &proved);
    Ok(fields! {
        "device" => visit.statement.device.to_string(),
        "suite" => suite.name(),
        "policy" => visit.trust.policy,
        "certified" => certified,
        "keys_injected" => targets.len(),
        "keys_proved" => proved.len(),
        "keys" => as_json(&proved),
    })
}

pub(super) fn prove(context: &Context, arguments: &Prove) -> Outcome {
    let known = &arguments.known;
    let rules = known.policy.rules()?;
    let hsm = known.desk.hsm.open(context)?;
    let targets = targets(&*hsm, &arguments.keys)?;
    station::check_proofs(&targets, rules.minimum_proof)?;
    announce(context, &targets);
    let mut visit = known.visit(context, &*hsm, None)?;
    let progress = Bar::new(context);
    let proved = station::prove(
        &mut visit,
        &*hsm,
        &targets,
        &|_| None,
        rules.minimum_proof,
        &mut |step| progress.show(step),
    )?;
    drop(progress);
    show(context, &proved);
    Ok(fields! {
        "device" => visit.statement.device.to_string(),
        "policy" => visit.trust.policy,
        "keys_proved" => proved.len(),
        "keys" => as_json(&proved),
    })
}
