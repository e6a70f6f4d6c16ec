//! `keyferry broker`: holds a token's login in a process of its own.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use clap::{Args, Subcommand};
use keyferry_protocol::order::Kind;

use super::hsm_args::LocalArgs;
use super::policy::{BothArgs, RegistryArgs};
use super::signals::end_on_signals;
use super::{Context, Outcome, fields};
use crate::broker::{
    AllowedKey, AllowedKeys, BrokerError, Journal, Limits, Listener, Service, USUAL_KINDS, status,
};
use crate::error::Failure;

/// Holds a token's login in a process of its own, and gives out what its rules allow.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Broker {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say what a running broker did so far.
    Status(Status),
}

#[derive(Debug, Args)]
struct Status {
    /// The broker's socket.
    #[arg(long, value_name = "SOCKET", env = "KEYFERRY_BROKER")]
    socket: PathBuf,
}

#[derive(Debug, Args)]
struct Serve {
    #[command(flatten)]
    local: LocalArgs,
    /// The socket to listen on; its folder is made for its owner alone.
    #[arg(long, value_name = "SOCKET")]
    socket: Option<PathBuf>,
    /// A further user who may connect, by number; may be given more than once. Without it only the user who runs the broker.
    #[arg(long, value_name = "UID")]
    allow_uid: Vec<u32>,
    /// A key that may go to devices; may be given more than once. `=USE` allows it for that use, and not for what it may do on the
    /// token.
    #[arg(long = "allow-key", value_name = "LABEL[=USE]", conflicts_with = "allow_all_keys", value_parser = parse_key)]
    allow_keys: Vec<AllowedKey>,
    /// Let every key go to devices that may leave the token, for every use.
    #[arg(long)]
    allow_all_keys: bool,
    /// A key of the token under which random keys of single devices are kept until they are proved; may be given more than once.
    #[arg(long, value_name = "LABEL")]
    keep_under: Vec<String>,
    /// The kinds of order to sign [default: enroll,inject,prove,remove,lock]; besides these there is rotate and wipe.
    #[arg(long, value_name = "KINDS", value_delimiter = ',', value_parser = parse_kind)]
    allow_kinds: Vec<Kind>,
    /// The most keys to wrap, all devices together.
    #[arg(long, value_name = "N")]
    max_wraps: Option<u64>,
    /// The most devices to wrap keys for.
    #[arg(long, value_name = "N")]
    max_devices: Option<u64>,
    #[command(flatten)]
    rules: BothArgs,
    #[command(flatten)]
    registry: RegistryArgs,
    /// Append a line of JSON for each request that matters to this file, which is made for its owner alone.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

fn parse_key(text: &str) -> Result<AllowedKey, String> {
    // As in `device inject`: a label may hold a sign of its own.
    let with_use = text
        .rsplit_once('=')
        .and_then(|(label, name)| Some((label, name.parse().ok()?)));
    let (label, device_use) = match with_use {
        Some((label, device_use)) => (label, Some(device_use)),
        None => (text, None),
    };
    if label.is_empty() {
        return Err("a label is missing".to_owned());
    }
    Ok(AllowedKey {
        label: label.to_owned(),
        device_use,
    })
}

const KINDS: [Kind; 7] = [
    Kind::Enroll,
    Kind::Inject,
    Kind::Prove,
    Kind::Remove,
    Kind::Rotate,
    Kind::Lock,
    Kind::Wipe,
];

fn parse_kind(name: &str) -> Result<Kind, String> {
    KINDS
        .into_iter()
        .find(|kind| kind.name() == name)
        .ok_or_else(|| {
            let names = KINDS.map(Kind::name);
            format!("there is {}", names.join(", "))
        })
}

pub(super) fn run(context: &Context, arguments: &Broker) -> Outcome {
    match &arguments.command {
        None => serve(context, &arguments.serve),
        Some(Command::Status(arguments)) => show(context, arguments),
    }
}

impl Serve {
    fn limits(&self) -> Result<Limits, Failure> {
        let keys = if self.allow_all_keys {
            AllowedKeys::All
        } else if self.allow_keys.is_empty() {
            return Err(Failure::Missing {
                name: "--allow-key",
                because: "no key is given out by default; --allow-all-keys gives all that may leave",
            });
        } else {
            AllowedKeys::Only(self.allow_keys.clone())
        };
        let kinds = if self.allow_kinds.is_empty() {
            USUAL_KINDS.to_vec()
        } else {
            self.allow_kinds.clone()
        };
        Ok(Limits {
            kinds,
            keys,
            keepers: self.keep_under.clone(),
            maximum_keys: self.max_wraps,
            maximum_devices: self.max_devices,
        })
    }
}

fn serve(context: &Context, arguments: &Serve) -> Outcome {
    // All that can be wrong on the command line first: nobody is asked for a PIN in vain.
    let socket = arguments.socket.as_ref().ok_or(Failure::Missing {
        name: "--socket",
        because: "it says where stations find the broker",
    })?;
    let limits = arguments.limits()?;
    let rules = arguments.rules.rules()?;
    let registry = arguments.registry.open_or_begin()?;
    let told = *context;
    let journal = Journal::new(
        arguments.log.as_deref(),
        Box::new(move |words| told.note(words)),
    )?;
    let hsm = arguments.local.open(context)?;
    let service = Service::new(hsm, rules, registry, limits, journal);
    let token = service.described().token.clone();
    let service = Mutex::new(service);

    let stop = Arc::new(AtomicBool::new(false));
    end_on_signals(&stop).map_err(|source| BrokerError::Socket {
        socket: socket.clone(),
        source,
    })?;
    let listener = Listener::new(socket, &arguments.allow_uid)?;
    context.event(fields! {
        "ready" => true,
        "socket" => socket.display().to_string(),
        "token" => &token,
        "process" => std::process::id(),
    });
    context.print(&format!("ready: {token} on {}", socket.display()));
    listener.serve(&service, &stop)?;
    context.note("ended; the socket is gone");
    let service = service
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let counts = service.status().counts;
    Ok(fields! { "counts" => counts })
}

fn show(context: &Context, arguments: &Status) -> Outcome {
    let status = status(&arguments.socket)?;
    let limit = |limit: Option<u64>| limit.map_or("no limit".to_owned(), |limit| limit.to_string());
    let counts = &status.counts;
    let rows = [
        ("token", status.token.clone()),
        ("process", status.process.to_string()),
        ("running for", format!("{} s", status.seconds)),
        (
            "keys wrapped",
            format!("{} ({})", counts.keys_wrapped, limit(status.maximum_keys)),
        ),
        (
            "devices",
            format!("{} ({})", counts.devices, limit(status.maximum_devices)),
        ),
        ("orders signed", counts.orders.to_string()),
        ("certificates issued", counts.certificates.to_string()),
        ("checkpoints signed", counts.checkpoints.to_string()),
        ("proofs checked", counts.proofs.to_string()),
        ("requests", counts.requests.to_string()),
        ("refused", counts.refused.to_string()),
        ("failed", counts.failed.to_string()),
    ]
    .map(|(name, value)| [name.to_owned(), value]);
    context.table(["what", "since it was started"], &rows);
    Ok(fields! {
        "token" => status.token,
        "process" => status.process,
        "seconds" => status.seconds,
        "counts" => counts,
        "maximum_keys" => status.maximum_keys,
        "maximum_devices" => status.maximum_devices,
    })
}
