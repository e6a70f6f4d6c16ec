//! `keyferry order prepare`.

use std::path::PathBuf;
use std::sync::PoisonError;

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use keyferry_protocol::MAX_SLOTS;
use keyferry_protocol::suite::Suite;

use super::devices::DeviceArgs;
use crate::cli::device::{announce, targets};
use crate::cli::hsm_args::HsmArgs;
use crate::cli::policy::VisitArgs;
use crate::cli::records::RecordArgs;
use crate::cli::{Context, Outcome, fields};
use crate::error::Failure;
use crate::hsm::{DeviceUse, KeyType};
use crate::station::offline::{Fresh, Injection, OfflineError, Preparation, Prepared, Work};
use crate::station::{Hsm, check_proofs};

/// What the orders are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OrderKind {
    /// Put keys into slots.
    Inject,
    /// Have keys proved that are in slots.
    Prove,
    /// Take keys out of slots.
    Remove,
    /// Refuse every later change of the slots.
    Lock,
    /// Destroy the device's own keys and all slots.
    Wipe,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Prepare {
    #[command(flatten)]
    hsm: HsmArgs,
    #[command(flatten)]
    records: RecordArgs,
    #[command(flatten)]
    policy: VisitArgs,
    #[command(flatten)]
    devices: DeviceArgs,
    /// What the orders are to do.
    #[arg(long, value_name = "KIND", default_value = "inject")]
    kind: OrderKind,
    /// A key's label, the slot it goes to and what the device uses it for, as in `device inject`.
    #[arg(long = "key", value_name = "LABEL[@SLOT][=USE]")]
    keys: Vec<String>,
    /// A random key that each device gets of its own, made inside the token.
    #[arg(long = "fresh", value_name = "TYPE@SLOT[=USE]", value_parser = parse_fresh, requires = "keep_under")]
    fresh: Vec<Fresh>,
    /// Label of the token's AES key that random keys are kept under until their proofs have come back.
    #[arg(long, value_name = "LABEL")]
    keep_under: Option<String>,
    /// A slot to empty, of kind remove; may be given several times.
    #[arg(long = "slot", value_name = "SLOT", value_parser = clap::value_parser!(u8).range(..MAX_SLOTS as i64))]
    slots: Vec<u8>,
    /// Version of the keys; a higher one replaces a key in its slot.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    version: u32,
    /// How the KEK travels, instead of the strongest way that token and device share.
    #[arg(long, value_name = "SUITE", value_parser = parse_suite)]
    suite: Option<Suite>,
    /// Issue the devices' certificates anew, also where they have one.
    #[arg(long)]
    recertify: bool,
    /// Say that the devices may lose all their keys, of kind wipe.
    #[arg(long)]
    yes: bool,
    /// The folder to make.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

fn parse_suite(name: &str) -> Result<Suite, String> {
    name.parse().map_err(|_| {
        let names: Vec<_> = Suite::ALL.iter().map(|suite| suite.name()).collect();
        format!("there is {}", names.join(", "))
    })
}

fn parse_fresh(text: &str) -> Result<Fresh, String> {
    let wrong =
        || "write TYPE@SLOT or TYPE@SLOT=USE, for example aes-256@3 or p-256@4=ecdh".to_owned();
    let (place, device_use) = match text.split_once('=') {
        Some((place, name)) => {
            let device_use: DeviceUse = name.parse().map_err(|_| {
                let names: Vec<_> = DeviceUse::ALL.iter().map(|one| one.name()).collect();
                format!("there is {}", names.join(", "))
            })?;
            (place, Some(device_use))
        }
        None => (text, None),
    };
    let (name, slot) = place.split_once('@').ok_or_else(wrong)?;
    let slot: u16 = slot.parse().map_err(|_| wrong())?;
    if usize::from(slot) >= MAX_SLOTS {
        return Err(format!("slots are 0 to {}", MAX_SLOTS - 1));
    }
    let key_type = KeyType::from_name(name)
        .filter(|key_type| key_type.is_creatable())
        .ok_or_else(|| format!("'{name}' is no type of key that is made here"))?;
    Ok(Fresh {
        key_type,
        slot,
        device_use,
    })
}

impl Prepare {
    /// What the orders are to do. Arguments for another kind are mistakes.
    fn work(&self, hsm: &dyn Hsm) -> Result<Work, Failure> {
        let missing = |name, because| Err(Failure::Missing { name, because });
        let unfit = |given: bool, argument: &'static str| {
            if given {
                Err(Failure::NotForKind { argument })
            } else {
                Ok(())
            }
        };
        let inject = self.kind == OrderKind::Inject;
        unfit(!inject && !self.fresh.is_empty(), "--fresh")?;
        unfit(!inject && self.suite.is_some(), "--suite")?;
        unfit(!inject && self.version != 1, "--version")?;
        unfit(!inject && self.recertify, "--recertify")?;
        unfit(
            !inject && self.kind != OrderKind::Prove && !self.keys.is_empty(),
            "--key",
        )?;
        unfit(
            self.kind != OrderKind::Remove && !self.slots.is_empty(),
            "--slot",
        )?;
        match self.kind {
            OrderKind::Inject if self.keys.is_empty() && self.fresh.is_empty() => {
                missing("--key", "an order of kind inject carries keys")
            }
            OrderKind::Inject => {
                let targets = targets(hsm, &self.keys)?;
                let mut taken: Vec<u16> = targets.iter().map(|target| target.slot).collect();
                for fresh in &self.fresh {
                    if taken.contains(&fresh.slot) {
                        return Err(Failure::BadSlot(format!(
                            "{}@{}",
                            fresh.key_type, fresh.slot
                        )));
                    }
                    taken.push(fresh.slot);
                }
                Ok(Work::Inject(Injection {
                    targets,
                    fresh: self.fresh.clone(),
                    keep_under: self.keep_under.clone(),
                    version: self.version,
                    suite: self.suite,
                    recertify: self.recertify,
                }))
            }
            OrderKind::Prove if self.keys.is_empty() => {
                missing("--key", "an order of kind prove names keys")
            }
            OrderKind::Prove => Ok(Work::Prove {
                targets: targets(hsm, &self.keys)?,
            }),
            OrderKind::Remove if self.slots.is_empty() => {
                missing("--slot", "an order of kind remove names slots")
            }
            OrderKind::Remove => Ok(Work::Remove(self.slots.clone())),
            OrderKind::Lock => Ok(Work::Lock),
            OrderKind::Wipe if !self.yes => {
                missing("--yes", "a wiped device has lost all its keys")
            }
            OrderKind::Wipe => Ok(Work::Wipe),
        }
    }
}

pub(in crate::cli) fn prepare(context: &Context, arguments: &Prepare) -> Outcome {
    let rules = arguments.policy.rules()?;
    let hsm = arguments.hsm.open(context)?;
    let work = arguments.work(&*hsm)?;
    if let Work::Inject(Injection { targets, .. }) | Work::Prove { targets } = &work {
        check_proofs(targets, rules.minimum_proof)?;
        announce(context, targets);
    }
    let records = arguments.records.open()?;
    let devices = {
        let records = records.lock().unwrap_or_else(PoisonError::into_inner);
        let registry = records.registry.as_ref().ok_or(OfflineError::NoRegistry)?;
        arguments.devices.find(registry)?
    };
    let preparation = Preparation {
        hsm: &*hsm,
        rules: &rules,
        records: &records,
        work: &work,
    };
    let bar = if context.is_talkative() {
        ProgressBar::new(u64::try_from(devices.len()).unwrap_or(u64::MAX))
    } else {
        ProgressBar::hidden()
    };
    let batch = preparation.batch(&devices, &arguments.out, &mut |order| {
        bar.inc(1);
        tell(context, order);
    });
    bar.finish_and_clear();
    let batch = batch?;
    let keys: usize = batch.orders.iter().map(|order| order.keys.len()).sum();
    context.note(&format!(
        "{}: {} orders with {keys} keys, signed by {}",
        arguments.out.display(),
        batch.orders.len(),
        batch.signer
    ));
    Ok(fields! {
        "batch" => batch.name(),
        "authority" => batch.signer.to_string(),
        "orders" => batch.orders.len(),
        "keys" => keys,
    })
}

fn tell(context: &Context, order: &Prepared) {
    let entry = &order.entry;
    context.event(fields! {
        "device" => entry.device.to_string(),
        "kind" => entry.kind.name(),
        "counter" => entry.counter,
        "order" => entry.order.to_string(),
        "suite" => entry.suite.map(|suite| suite.name()),
        "keys" => entry.keys.len(),
        "certified" => order.certified,
    });
}
