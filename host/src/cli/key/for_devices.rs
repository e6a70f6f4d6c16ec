//! `keyferry key for-devices`: a key of its own for each device, wrapped for the backend.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use clap::Args;
use keyferry_protocol::MAX_SLOTS;
use keyferry_protocol::identity::DeviceId;
use keyferry_protocol::order::MAX_LABEL;
use keyferry_protocol::suite::Suite;
use serde_json::{Map, Value};

use super::arguments::{BackendArgs, parse_key_type, parse_suite, public_key_file};
use super::export::strongest_suite;
use super::signing::SignArgs;
use crate::cli::files::read_short;
use crate::cli::{Context, Outcome, TokenArgs, fields};
use crate::error::Failure;
use crate::export::{Batch, BatchOf, DeviceKey, Folder, MAXIMUM_KEYS, Manifest, Source};
use crate::hsm::{Diversification, HsmError, KeyClass, KeySpec, KeyType, PublicKey};

/// Longest list of devices that is read, in bytes: as many lines as there are keys, with a long path in each.
const MAXIMUM_LIST: usize = MAXIMUM_KEYS * 512;

#[derive(Debug, Args)]
pub(in crate::cli) struct ForDevices {
    #[command(flatten)]
    token: TokenArgs,
    /// A device: its id, 32 hexadecimal digits. With =FILE, the public key file of its unwrap key, its key is wrapped for the
    /// device too. Can be given several times.
    #[arg(long, value_name = "ID[=FILE]")]
    device: Vec<String>,
    /// A file with one device on each line, written as after --device. Empty lines and lines that begin with # are skipped.
    #[arg(long, value_name = "FILE")]
    devices: Option<PathBuf>,
    /// The slot of the keys on their devices.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(..MAX_SLOTS as i64))]
    slot: u16,
    /// The version of the keys in their slots.
    #[arg(long, value_name = "N", default_value_t = 1)]
    version: u32,
    /// The slot's label on the devices, at most 32 bytes.
    #[arg(long, value_name = "LABEL", value_parser = parse_label)]
    label: String,
    /// aes-128, aes-192, aes-256, hmac-256; with --fresh also other hmac lengths, p-256, rsa-2048, rsa-3072, rsa-4096.
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_key_type)]
    key_type: KeyType,
    /// Derive each key from this master key, an AES key of the token that may derive and nothing else.
    #[arg(long, value_name = "LABEL", required_unless_present = "fresh")]
    master: Option<String>,
    /// Derive in this way and no other: sp800-108-counter or aes-ecb-encrypt-data.
    #[arg(long, value_name = "WAY", requires = "master", value_parser = parse_derivation)]
    derivation: Option<Diversification>,
    /// Make each key at random. It is on no token afterwards: whoever opens what was wrapped has it, and nobody else.
    #[arg(long, conflicts_with = "master")]
    fresh: bool,
    #[command(flatten)]
    backend: BackendArgs,
    /// rsa-oaep-sha256 or rsa-oaep-sha1, for the backend; without it, the stronger that the token does.
    #[arg(long, value_name = "SUITE", value_parser = parse_suite)]
    suite: Option<Suite>,
    #[command(flatten)]
    sign: SignArgs,
    /// Write private keys that the token puts zeros behind, which a strict importer refuses.
    #[arg(long)]
    allow_zero_tail: bool,
    /// The folder to make: a file for each key, manifest.json, manifest.json.sig. It appears when it is complete.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// A device that is to have a key.
struct Device {
    id: DeviceId,
    unwrap_key: Option<PublicKey>,
}

pub(super) fn for_devices(context: &Context, arguments: &ForDevices) -> Outcome {
    let folder = Folder::begin(&arguments.out)?;
    let devices = devices(arguments)?;
    let backend = arguments.backend.read(context)?;
    let (token, _) = arguments.token.open(context)?;
    let signer = arguments
        .sign
        .open(context, &token, &arguments.token)?
        .ok_or(Failure::Missing {
            name: "--sign-with",
            because: "only a signed manifest says which key is which device's",
        })?;
    let master = match &arguments.master {
        Some(label) => Some(token.key(&KeySpec {
            class: Some(KeyClass::Secret),
            ..KeySpec::label(label)
        })?),
        None => None,
    };
    let suite = match arguments.suite {
        Some(suite) => suite,
        None => strongest_suite(&token, &backend)?,
    };
    let batch = Batch::new(
        &token,
        BatchOf {
            recipient: &backend,
            suite,
            source: match &master {
                Some(key) => Source::Master {
                    key,
                    by: arguments.derivation,
                },
                None => Source::Fresh,
            },
            key_type: arguments.key_type,
            label: &arguments.label,
            slot: arguments.slot,
            version: arguments.version,
            allow_zero_tail: arguments.allow_zero_tail,
        },
    )?;
    let mut keys = Vec::new();
    for device in &devices {
        let unwrap_key = match &device.unwrap_key {
            Some(key) => Some((key, strongest_suite(&token, key)?)),
            None => None,
        };
        let made = batch.make(device.id, unwrap_key)?;
        folder.add(&made.entry.file, &made.blob)?;
        if let (Some(for_device), Some(blob)) = (&made.entry.for_device, &made.device_blob) {
            folder.add(&for_device.file, blob)?;
        }
        keys.push(made.entry);
    }
    let manifest = Manifest::new(&backend, keys, signer.fingerprint())?;
    let json = manifest.to_json()?;
    let signature = signer.sign(&json)?;
    folder.finish(&json, &signature)?;

    for key in &manifest.keys {
        context.event(describe(key));
    }
    let wrapped_twice = manifest.keys.iter().filter(|key| key.for_device.is_some());
    let for_devices = wrapped_twice.count();
    let made = batch.made().to_string();
    context.note(&format!(
        "{} keys ({made}), wrapped under {suite} for the backend in {}",
        manifest.keys.len(),
        arguments.out.display()
    ));
    if arguments.fresh && for_devices < manifest.keys.len() {
        context.note(&format!(
            "{} of them are for the backend's eyes only: their devices can have them from nobody else",
            manifest.keys.len() - for_devices
        ));
    }
    Ok(fields! {
        "keys" => manifest.keys.len(),
        "for_devices" => for_devices,
        "made" => made,
        "suite" => suite.name(),
        "recipient" => backend.fingerprint().to_string(),
        "signer" => signer.fingerprint().to_string(),
        "out" => arguments.out.display().to_string(),
    })
}

/// One key for a script.
pub(super) fn describe(key: &DeviceKey) -> Map<String, Value> {
    fields! {
        "device" => key.device.to_string(),
        "slot" => key.slot,
        "version" => key.version,
        "label" => key.label,
        "type" => key.key_type.to_string(),
        "made" => key.made.to_string(),
        "file" => key.file,
        "device_file" => key.for_device.as_ref().map(|other| other.file.clone()),
    }
}

/// The devices that are named, each once, with their keys.
fn devices(arguments: &ForDevices) -> Result<Vec<Device>, Failure> {
    let mut lines = arguments.device.clone();
    if let Some(path) = &arguments.devices {
        let bytes = read_short(path, MAXIMUM_LIST)?;
        let text = String::from_utf8_lossy(&bytes);
        let listed = text.lines().map(str::trim);
        lines.extend(
            listed
                .filter(|line| !line.is_empty() && !line.starts_with('#'))
                .map(str::to_owned),
        );
    }
    if lines.is_empty() {
        return Err(Failure::Missing {
            name: "--device or --devices",
            because: "no device is named",
        });
    }
    if lines.len() > MAXIMUM_KEYS {
        return Err(Failure::TooManyDevices {
            found: lines.len(),
            most: MAXIMUM_KEYS,
        });
    }
    let mut seen = HashSet::new();
    lines
        .into_iter()
        .map(|line| {
            let (id, file) = match line.split_once('=') {
                Some((id, file)) => (id, Some(file)),
                None => (line.as_str(), None),
            };
            let mut device = DeviceId::ZERO;
            if hex::decode_to_slice(id.trim(), &mut device.0).is_err() || !seen.insert(device) {
                return Err(Failure::BadDevice(line));
            }
            let unwrap_key = match file {
                Some(file) => Some(unwrap_key(Path::new(file.trim()))?),
                None => None,
            };
            Ok(Device {
                id: device,
                unwrap_key,
            })
        })
        .collect()
}

fn unwrap_key(path: &Path) -> Result<PublicKey, Failure> {
    let key = public_key_file(path)?;
    key.check_recipient().map_err(HsmError::from)?;
    Ok(key)
}

fn parse_label(label: &str) -> Result<String, String> {
    if label.is_empty() || label.len() > MAX_LABEL {
        return Err(format!("1 to {MAX_LABEL} bytes"));
    }
    Ok(label.into())
}

fn parse_derivation(name: &str) -> Result<Diversification, String> {
    name.parse().map_err(|_| {
        let names = Diversification::ALL.map(Diversification::name);
        format!("one of: {}", names.join(", "))
    })
}
