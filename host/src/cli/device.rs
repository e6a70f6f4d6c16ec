//! `keyferry device`: one device on one port.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use keyferry_protocol::identity::{Challenge, Fingerprint};
use keyferry_protocol::message::{Progress, Task};
use keyferry_protocol::proof::Level;
use keyferry_protocol::receipt::Flavour;
use keyferry_protocol::suite::{Suite, UnwrapAlgorithm};
use serde_json::{Value, json};

use super::station::HsmArgs;
use super::{Context, Outcome, fields, write_new};
use crate::device::flow;
use crate::device::port;
use crate::device::session::Session;
use crate::device::verify::{Statement, fingerprint};
use crate::error::Failure;
use crate::hsm::{DeviceUse, KeySpec, random};
use crate::station::{self, Hsm, Proved, Recipient, Target};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Say what the device says of itself, unverified.
    Info(PortArgs),
    /// Give a blank device its keys and its authority, or have an enrolled one state itself anew.
    Enroll(Enroll),
    /// Put keys of the token into the device's slots, and prove each.
    Inject(Inject),
    /// Show the device's slots, unverified.
    List(PortArgs),
    /// Prove keys that are in the device's slots.
    Prove(Prove),
}

#[derive(Debug, Args)]
pub(super) struct PortArgs {
    /// The device's serial port.
    #[arg(long, value_name = "PORT")]
    port: String,
}

/// Why a device is taken for the right one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Policy {
    /// Trust the room: whatever device is on the port.
    Open,
}

#[derive(Debug, Args)]
struct Who {
    #[command(flatten)]
    port: PortArgs,
    #[command(flatten)]
    hsm: HsmArgs,
    /// Why the device is taken for the right one: `open` trusts the room.
    #[arg(long, value_name = "POLICY", required_unless_present = "identity")]
    policy: Option<Policy>,
    /// The only identity key to accept, by its fingerprint (64 hexadecimal digits).
    #[arg(long, value_name = "FINGERPRINT", conflicts_with = "policy", value_parser = parse_fingerprint)]
    identity: Option<Fingerprint>,
}

#[derive(Debug, Args)]
pub(super) struct Enroll {
    #[command(flatten)]
    who: Who,
    /// Kind of unwrap key that a blank device makes: rsa-2048, rsa-3072, rsa-4096 or p-256.
    #[arg(long, value_name = "KIND", default_value = "rsa-2048", value_parser = parse_unwrap)]
    unwrap: UnwrapAlgorithm,
    /// Write the device's unwrap key to this file, PEM.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace an existing file.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
pub(super) struct Inject {
    #[command(flatten)]
    who: Who,
    /// A key's label, the slot it goes to and what the device uses it for (cmac, gcm, ccm, ctr, cbc, hmac-sha256, data, ecdsa,
    /// ecdh, rsa-pkcs1, rsa-oaep). Without `@SLOT` keys go to slots 0, 1, 2 … in the order given; without `=USE` a device does what
    /// the key may do on the token.
    #[arg(long = "key", value_name = "LABEL[@SLOT][=USE]", required = true)]
    keys: Vec<String>,
    /// The least that every key must show: signature, challenge, check-value or none.
    #[arg(long, value_name = "LEVEL", default_value = "check-value", value_parser = parse_level)]
    minimum_proof: Level,
    /// Version of the keys; a higher one replaces a key in its slot.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    version: u32,
    /// How the KEK travels, instead of the strongest way that token and device share.
    #[arg(long, value_name = "SUITE", value_parser = parse_suite)]
    suite: Option<Suite>,
}

#[derive(Debug, Args)]
pub(super) struct Prove {
    #[command(flatten)]
    who: Who,
    /// A key's label, its slot and its use, as they were given to `inject`.
    #[arg(long = "key", value_name = "LABEL[@SLOT][=USE]", required = true)]
    keys: Vec<String>,
    /// The least that every key must show: signature, challenge, check-value or none.
    #[arg(long, value_name = "LEVEL", default_value = "check-value", value_parser = parse_level)]
    minimum_proof: Level,
}

fn parse_unwrap(name: &str) -> Result<UnwrapAlgorithm, String> {
    name.parse()
        .map_err(|_| "there is rsa-2048, rsa-3072, rsa-4096 and p-256".to_owned())
}

fn parse_suite(name: &str) -> Result<Suite, String> {
    name.parse().map_err(|_| {
        let names: Vec<_> = Suite::ALL.iter().map(|suite| suite.name()).collect();
        format!("there is {}", names.join(", "))
    })
}

fn parse_level(name: &str) -> Result<Level, String> {
    name.parse().map_err(|_| {
        let names: Vec<_> = Level::ALL.iter().map(|level| level.name()).collect();
        format!("there is {}", names.join(", "))
    })
}

fn parse_fingerprint(text: &str) -> Result<Fingerprint, String> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes)
        .map_err(|_| "a fingerprint has 64 hexadecimal digits".to_owned())?;
    Ok(Fingerprint(bytes))
}

pub(super) fn run(context: &Context, command: Command) -> Outcome {
    match command {
        Command::Info(port) => info(context, &port),
        Command::Enroll(arguments) => enroll(context, &arguments),
        Command::Inject(arguments) => inject(context, &arguments),
        Command::List(port) => list(context, &port),
        Command::Prove(arguments) => prove(context, &arguments),
    }
}

fn greet(port: &PortArgs) -> Result<Session, Failure> {
    Ok(Session::open(port::open(&port.port)?)?)
}

fn info(context: &Context, port: &PortArgs) -> Outcome {
    let session = greet(port)?;
    let greeting = session.greeting();
    let rows = [
        ("device", greeting.device.to_string()),
        ("state", greeting.state.name().to_owned()),
        ("counter", greeting.counter.to_string()),
        ("board", greeting.board.clone()),
        ("firmware", greeting.firmware.clone()),
        ("identity key", greeting.identity.to_string()),
        ("unwrap key", greeting.unwrap.to_string()),
        ("authority", greeting.authority.to_string()),
    ]
    .map(|(name, value)| [name.to_owned(), value]);
    context.table(["what", "as the device says, unverified"], &rows);
    Ok(fields! {
        "device" => greeting.device.to_string(),
        "state" => greeting.state.name(),
        "counter" => greeting.counter,
        "board" => greeting.board,
        "firmware" => greeting.firmware,
        "identity" => greeting.identity.to_string(),
        "unwrap" => greeting.unwrap.to_string(),
        "authority" => greeting.authority.to_string(),
    })
}

fn list(context: &Context, port: &PortArgs) -> Outcome {
    let mut session = greet(port)?;
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

/// What `enroll`, `inject` and `prove` begin with: the HSM, and a statement that was just verified.
struct Visit {
    hsm: Box<dyn Hsm>,
    session: Session,
    statement: Statement,
}

impl Who {
    fn visit(
        &self,
        context: &Context,
        unwrap: UnwrapAlgorithm,
        may_enroll: bool,
    ) -> Result<Visit, Failure> {
        let hsm = self.hsm.open(context)?;
        self.visit_with(context, hsm, unwrap, may_enroll)
    }

    fn visit_with(
        &self,
        context: &Context,
        hsm: Box<dyn Hsm>,
        unwrap: UnwrapAlgorithm,
        may_enroll: bool,
    ) -> Result<Visit, Failure> {
        let mut session = greet(&self.port)?;
        self.check_greeting(&session, may_enroll)?;
        let nonce = Challenge(random()?);
        let progress = Bar::new(context);
        let statement = flow::enroll(&mut session, hsm.authority(), unwrap, nonce, &mut |step| {
            progress.show(step)
        })?;
        drop(progress);
        self.check(context, &statement)?;
        Ok(Visit {
            hsm,
            session,
            statement,
        })
    }

    /// What can be refused on the device's own word, before anything is signed for it. The signed statement decides.
    fn check_greeting(&self, session: &Session, may_enroll: bool) -> Result<(), Failure> {
        let found = session.greeting().identity;
        if !may_enroll && found == Fingerprint::ZERO {
            return Err(Failure::NotEnrolled(session.port_name()));
        }
        match self.identity {
            Some(expected) if expected != found => {
                Err(Failure::IdentityMismatch { expected, found })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Visit policy: nothing is wrapped before it.
    fn check(&self, context: &Context, statement: &Statement) -> Result<(), Failure> {
        let found = fingerprint(&statement.identity_key);
        match (self.identity, self.policy) {
            (Some(expected), _) if expected != found => {
                return Err(Failure::IdentityMismatch { expected, found });
            }
            (Some(_), _) => context.note("identity key as expected"),
            (None, Some(Policy::Open) | None) => context.note(
                "policy open: whatever device is on this port is trusted; --identity pins one",
            ),
        }
        match statement.flavour {
            Flavour::Sabotaged => return Err(Failure::Sabotaged),
            Flavour::Development => context.note("development firmware"),
            Flavour::Production => {}
        }
        if statement.rng == keyferry_protocol::receipt::SourceClass::Test
            || statement.root_key == keyferry_protocol::receipt::SourceClass::Test
        {
            context.note("this is a test device (emulated randomness or root key)");
        }
        Ok(())
    }
}

/// The keys that `LABEL[@SLOT][=USE]` names.
fn targets(hsm: &dyn Hsm, keys: &[String]) -> Result<Vec<Target>, Failure> {
    let mut targets = Vec::new();
    for (index, text) in keys.iter().enumerate() {
        let bad = || Failure::BadSlot(text.clone());
        // A label may hold a sign of its own: what follows the last one is a use only if it is one.
        let (rest, device_use) = match text.rsplit_once('=') {
            Some((rest, name)) => match name.parse::<DeviceUse>() {
                Ok(device_use) => (rest, Some(device_use)),
                Err(_) => (text.as_str(), None),
            },
            None => (text.as_str(), None),
        };
        let (label, slot) = match rest.rsplit_once('@') {
            Some((label, slot)) => (label, slot.parse().ok()),
            None => (rest, u16::try_from(index).ok()),
        };
        let slot = slot
            .filter(|slot| usize::from(*slot) < keyferry_protocol::MAX_SLOTS)
            .ok_or_else(bad)?;
        if targets.iter().any(|target: &Target| target.slot == slot) {
            return Err(bad());
        }
        let key = hsm.key(&KeySpec::label(label), device_use)?;
        targets.push(Target { key, slot });
    }
    Ok(targets)
}

/// Says how each key will be proved, before anything is wrapped.
fn announce(context: &Context, targets: &[Target]) {
    for target in targets {
        let proof = target.key.proof;
        context.note(&format!(
            "key '{}' will be proved by {} (level {})",
            target.key.name(),
            proof.name(),
            proof.level()
        ));
    }
}

fn enroll(context: &Context, arguments: &Enroll) -> Outcome {
    let visit = arguments.who.visit(context, arguments.unwrap, true)?;
    let statement = &visit.statement;
    if let Some(path) = &arguments.out {
        let pem = crate::hsm::PublicKey::from_spki_der(&statement.unwrap_key)
            .map_err(station::JobError::from)?
            .to_pem();
        write_new(path, pem.as_bytes(), arguments.force)?;
    }
    let suites: Vec<_> = statement.suites.iter().map(|suite| suite.name()).collect();
    let rows = [
        ("device", statement.device.to_string()),
        ("state", statement.standing.state.name().to_owned()),
        ("board", statement.board.clone()),
        ("firmware", statement.firmware.clone()),
        ("randomness", statement.rng.name().to_owned()),
        ("root key", statement.root_key.name().to_owned()),
        ("suites", suites.join(", ")),
        (
            "identity key",
            fingerprint(&statement.identity_key).to_string(),
        ),
        ("unwrap key", fingerprint(&statement.unwrap_key).to_string()),
        ("authority", statement.authority.to_string()),
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
        "identity" => fingerprint(&statement.identity_key).to_string(),
        "unwrap" => fingerprint(&statement.unwrap_key).to_string(),
        "authority" => statement.authority.to_string(),
        "counter" => statement.standing.counter,
    })
}

fn inject(context: &Context, arguments: &Inject) -> Outcome {
    // Everything that can be wrong on the HSM's side is found before the device is touched.
    let hsm = arguments.who.hsm.open(context)?;
    let targets = targets(&*hsm, &arguments.keys)?;
    station::check_proofs(&targets, arguments.minimum_proof)?;
    announce(context, &targets);
    let mut visit = arguments
        .who
        .visit_with(context, hsm, UnwrapAlgorithm::Rsa2048, false)?;
    let suite = match arguments.suite {
        Some(suite) => suite,
        None => station::choose_suite(&*visit.hsm, &visit.statement)?,
    };
    context.note(&format!("suite {suite}"));
    let progress = Bar::new(context);
    let proved = station::inject(
        &mut visit.session,
        &*visit.hsm,
        Recipient {
            statement: &visit.statement,
            certificate: None,
        },
        &station::Shipping {
            suite,
            version: arguments.version,
            targets: &targets,
            minimum: arguments.minimum_proof,
            certificate: None,
        },
        &mut |step| progress.show(step),
    )?;
    drop(progress);
    show(context, &proved);
    Ok(fields! {
        "device" => visit.statement.device.to_string(),
        "suite" => suite.name(),
        "keys_injected" => targets.len(),
        "keys_proved" => proved.len(),
        "keys" => as_json(&proved),
    })
}

fn prove(context: &Context, arguments: &Prove) -> Outcome {
    let mut visit = arguments
        .who
        .visit(context, UnwrapAlgorithm::Rsa2048, false)?;
    let targets = targets(&*visit.hsm, &arguments.keys)?;
    announce(context, &targets);
    let progress = Bar::new(context);
    let proved = station::prove(
        &mut visit.session,
        &*visit.hsm,
        &visit.statement,
        &targets,
        arguments.minimum_proof,
        &mut |step| progress.show(step),
    )?;
    drop(progress);
    show(context, &proved);
    Ok(fields! {
        "device" => visit.statement.device.to_string(),
        "keys_proved" => proved.len(),
        "keys" => as_json(&proved),
    })
}

fn show(context: &Context, proved: &[Proved]) {
    let rows: Vec<_> = proved
        .iter()
        .map(|slot| {
            [
                slot.slot.to_string(),
                slot.label.clone(),
                slot.key_type.clone(),
                slot.proof.name().to_owned(),
            ]
        })
        .collect();
    context.table(["slot", "key", "type", "proved by"], &rows);
}

fn as_json(proved: &[Proved]) -> Vec<Value> {
    proved
        .iter()
        .map(|slot| {
            json!({
                "slot": slot.slot,
                "label": slot.label,
                "type": slot.key_type,
                "proof": slot.proof.name(),
            })
        })
        .collect()
}

/// Progress: a bar for a person at a terminal, JSON lines for a script.
struct Bar<'a> {
    context: &'a Context,
    bar: ProgressBar,
}

impl<'a> Bar<'a> {
    fn new(context: &'a Context) -> Self {
        // indicatif draws on a terminal only.
        let bar = if context.is_talkative() {
            ProgressBar::new(1)
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) = ProgressStyle::with_template("{msg:22} {bar:30} {elapsed}") {
            bar.set_style(style);
        }
        Self { context, bar }
    }

    fn show(&self, progress: Progress) {
        let task = match progress.task {
            Task::GenerateUnwrapKey => "making its unwrap key",
            Task::Unwrap => "unwrapping",
            Task::Prove => "proving",
            Task::Store => "storing",
        };
        self.bar.set_message(task);
        // The search for primes has no end known in advance: the bar stops short of full until it is over.
        let total = u64::from(progress.total).max(u64::from(progress.done) + 1);
        self.bar.set_length(total);
        self.bar.set_position(u64::from(progress.done));
        self.context.event(fields! {
            "progress" => task,
            "done" => progress.done,
            "total" => progress.total,
        });
    }
}

impl Drop for Bar<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
