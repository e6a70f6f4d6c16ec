//! `device remove`, `lock`, `rotate`, `wipe`: orders of which the receipt says only that they were applied.

use clap::Args;

use super::{Bar, Known};
use crate::cli::{Context, Outcome, fields};
use crate::device::flow;
use crate::device::verify::Standing;
use crate::station::{JobError, Visit};

#[derive(Debug, Args)]
pub(in crate::cli) struct Remove {
    #[command(flatten)]
    known: Known,
    /// A slot to empty; may be given more than once.
    #[arg(long = "slot", value_name = "SLOT", required = true, value_parser = clap::value_parser!(u8).range(..keyferry_protocol::MAX_SLOTS as i64))]
    slots: Vec<u8>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Lock {
    #[command(flatten)]
    known: Known,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Rotate {
    #[command(flatten)]
    known: Known,
    /// Label of the new authority's key.
    #[arg(long, value_name = "LABEL")]
    new_authority: String,
    /// PKCS#11 URI of the token with the new authority's key, if it is another one.
    #[arg(long, value_name = "URI")]
    new_token: Option<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Wipe {
    #[command(flatten)]
    known: Known,
    /// Say that the device may lose all its keys.
    #[arg(long, required = true)]
    yes: bool,
}

fn done(context: &Context, visit: &Visit, standing: &Standing, what: &str) -> Outcome {
    let device = visit.statement.device;
    context.note(&format!("device {device}: {what}"));
    Ok(fields! {
        "device" => device.to_string(),
        "policy" => visit.trust.policy,
        "state" => standing.state.name(),
        "counter" => standing.counter,
    })
}

pub(super) fn remove(context: &Context, arguments: &Remove) -> Outcome {
    let hsm = arguments.known.desk.hsm.open(context)?;
    let mut visit = arguments.known.visit(context, &*hsm)?;
    let progress = Bar::new(context);
    let standing = flow::remove(
        &mut visit.session,
        hsm.authority(),
        &visit.statement,
        &arguments.slots,
        &mut |step| progress.show(step),
    )
    .map_err(JobError::from)?;
    drop(progress);
    done(context, &visit, &standing, "the slots are empty")
}

pub(super) fn lock(context: &Context, arguments: &Lock) -> Outcome {
    let hsm = arguments.known.desk.hsm.open(context)?;
    let mut visit = arguments.known.visit(context, &*hsm)?;
    let progress = Bar::new(context);
    let standing = flow::lock(
        &mut visit.session,
        hsm.authority(),
        &visit.statement,
        &mut |step| progress.show(step),
    )
    .map_err(JobError::from)?;
    drop(progress);
    done(context, &visit, &standing, "locked")
}

pub(super) fn rotate(context: &Context, arguments: &Rotate) -> Outcome {
    let desk = &arguments.known.desk;
    let hsm = desk.hsm.open(context)?;
    let new = desk.hsm.other_signer(
        context,
        arguments.new_token.as_deref(),
        &arguments.new_authority,
    )?;
    let mut visit = arguments.known.visit(context, &*hsm)?;
    let progress = Bar::new(context);
    let standing = flow::rotate(
        &mut visit.session,
        hsm.authority(),
        &new,
        &visit.statement,
        &mut |step| progress.show(step),
    )
    .map_err(JobError::from)?;
    drop(progress);
    let what = format!("it obeys {} now", flow::authority_fingerprint(&new));
    done(context, &visit, &standing, &what)
}

pub(super) fn wipe(context: &Context, arguments: &Wipe) -> Outcome {
    let hsm = arguments.known.desk.hsm.open(context)?;
    let mut visit = arguments.known.visit(context, &*hsm)?;
    let progress = Bar::new(context);
    let standing = flow::wipe(
        &mut visit.session,
        hsm.authority(),
        &visit.statement,
        &mut |step| progress.show(step),
    )
    .map_err(JobError::from)?;
    drop(progress);
    visit.scribe.wiped(visit.statement.device)?;
    done(
        context,
        &visit,
        &standing,
        "all its keys are destroyed; it is blank",
    )
}
