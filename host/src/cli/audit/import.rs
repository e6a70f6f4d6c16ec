//! `keyferry audit import`: receipts of detached orders come back to where the HSM is.

use std::path::PathBuf;

use clap::Args;
use keyferry_protocol::identity::DeviceId;

use crate::cli::hsm_args::HsmArgs;
use crate::cli::records::RecordArgs;
use crate::cli::{Context, Outcome, fields};
use crate::export::{Signer, Trust};
use crate::hsm::PublicKey;
use crate::station::offline::{self, BatchFolder, Fate, Imported, OfflineError};
use crate::station::{JobError, Scribe};

#[derive(Debug, Args)]
pub(in crate::cli) struct Import {
    /// The folder that `order prepare` made, with the receipts that `order deliver` has put into it.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    #[command(flatten)]
    hsm: HsmArgs,
    #[command(flatten)]
    records: RecordArgs,
}

pub(super) fn import(context: &Context, arguments: &Import) -> Outcome {
    let hsm = arguments.hsm.open(context)?;
    let authority = PublicKey::from_spki_der(hsm.authority().public_key());
    let signer = Signer::new(&authority.map_err(JobError::from)?)?;
    let folder =
        BatchFolder::open(&arguments.folder, Trust::Signer(&signer)).map_err(OfflineError::from)?;
    let records = arguments.records.open()?;
    let scribe = Scribe::new(records);
    let mut all = Vec::new();
    let mut bad = None;
    for entry in &folder.batch().orders {
        match offline::import(&*hsm, &scribe, &folder, entry) {
            Ok(imported) => {
                tell(context, &imported);
                all.push(imported);
            }
            // What is wrong with one device's keeps nobody else's from coming back.
            Err(error) if error.is_one_devices() => {
                context.warn(&format!("device {}: {error}", entry.device));
                bad.get_or_insert(error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    show(context, &all);
    let count = |fate: &dyn Fn(&Fate) -> bool| all.iter().filter(|one| fate(&one.fate)).count();
    let proved: usize = all.iter().map(|one| one.proved).sum();
    let imported = count(&|fate| *fate == Fate::Imported);
    let already = count(&|fate| *fate == Fate::Already);
    let wrong: Vec<(DeviceId, &Vec<u16>)> = all
        .iter()
        .filter_map(|one| match &one.fate {
            Fate::Wrong(slots) => Some((one.device, slots)),
            Fate::Open | Fate::Refused | Fate::Imported | Fate::Already => None,
        })
        .collect();
    if imported == 0 && wrong.is_empty() && already > 0 {
        context.note("already imported");
    }
    if let Some((first, slots)) = wrong.first() {
        return Err(OfflineError::Wrong {
            devices: wrong.len(),
            first: *first,
            slots: (*slots).clone(),
        }
        .into());
    }
    if let Some(error) = bad {
        return Err(error.into());
    }
    Ok(fields! {
        "batch" => folder.batch().name(),
        "orders" => all.len(),
        "imported" => imported,
        "already_imported" => already,
        "open" => count(&|fate| *fate == Fate::Open),
        "refused" => count(&|fate| *fate == Fate::Refused),
        "proofs_verified" => proved,
    })
}

/// What became of an order, in words.
fn words(fate: &Fate) -> &'static str {
    match fate {
        Fate::Open => "open: no receipt",
        Fate::Refused => "open: refused by the device",
        Fate::Imported => "imported",
        Fate::Already => "already imported",
        Fate::Wrong(_) => "WRONG PROOF",
    }
}

fn tell(context: &Context, one: &Imported) {
    let wrong: &[u16] = match &one.fate {
        Fate::Wrong(slots) => slots,
        Fate::Open | Fate::Refused | Fate::Imported | Fate::Already => &[],
    };
    let state = match &one.fate {
        Fate::Open => "open",
        Fate::Refused => "refused",
        Fate::Imported => "imported",
        Fate::Already => "already imported",
        Fate::Wrong(_) => "failed",
    };
    context.event(fields! {
        "device" => one.device.to_string(),
        "kind" => one.kind.name(),
        "state" => state,
        "proofs_verified" => one.proved,
        "wrong_slots" => wrong,
    });
}

fn show(context: &Context, all: &[Imported]) {
    let rows: Vec<_> = all
        .iter()
        .map(|one| {
            [
                one.device.to_string(),
                one.kind.name().to_owned(),
                words(&one.fate).to_owned(),
                one.proved.to_string(),
            ]
        })
        .collect();
    context.table(["device", "order", "state", "proofs verified"], &rows);
}
