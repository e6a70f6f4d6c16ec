//! `device remove`, `lock`, `rotate`, `wipe`: orders of which the receipt says only that they were applied.

use clap::Args;
use keyferry_protocol::identity::DeviceId;
use keyferry_protocol::order::MAX_RECOVERED_COUNTER;
use keyferry_protocol::receipt::State;
use serde_json::{Map, Value};

use super::{Bar, Known};
use crate::cli::order::parse_device;
use crate::cli::{Context, Outcome, fields};
use crate::device::DeviceError;
use crate::device::flow::{self, Authority};
use crate::device::session::{OnProgress, Session};
use crate::device::verify::{Standing, Statement, fingerprint};
use crate::error::Failure;
use crate::station::{Hsm, JobError, Visit};

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
    /// The device is quarantined: its id, 32 hexadecimal digits, from its label or your records. Nothing that it says can be believed.
    #[arg(long, value_name = "DEVICE-ID", value_parser = parse_device)]
    quarantined: Option<DeviceId>,
    /// For a quarantined device that no registry knows: a number above those of all orders that were ever made for it, which it counts on
    /// from. A recorded order for a blank device cannot pass again then.
    #[arg(long, value_name = "N", requires = "quarantined", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_RECOVERED_COUNTER)))]
    counter: Option<u32>,
}

type Order<'a> = dyn Fn(
        &mut Session,
        &dyn Authority,
        &Statement,
        &mut OnProgress<'_>,
    ) -> Result<Standing, DeviceError>
    + 'a;

/// Visits the device and has one order carried out. `what` says what has become of it.
fn carry_out(
    context: &Context,
    known: &Known,
    hsm: &dyn Hsm,
    what: &str,
    order: &Order<'_>,
) -> Result<(Visit, Map<String, Value>), Failure> {
    let visit = known.visit(context, hsm, None)?;
    carry_out_at(context, visit, hsm, what, order)
}

/// [`carry_out`], on a visit.
fn carry_out_at(
    context: &Context,
    mut visit: Visit,
    hsm: &dyn Hsm,
    what: &str,
    order: &Order<'_>,
) -> Result<(Visit, Map<String, Value>), Failure> {
    let progress = Bar::new(context);
    let standing = order(
        &mut visit.session,
        hsm.authority(),
        &visit.statement,
        &mut |step| progress.show(step),
    )
    .map_err(JobError::from)?;
    drop(progress);
    let device = visit.statement.device;
    context.note(&format!("device {device}: {what}"));
    let fields = fields! {
        "device" => device.to_string(),
        "policy" => visit.trust.policy,
        "state" => standing.state.name(),
        "counter" => standing.counter,
    };
    Ok((visit, fields))
}

pub(super) fn remove(context: &Context, arguments: &Remove) -> Outcome {
    let known = &arguments.known;
    let hsm = known.desk.hsm.open(context)?;
    let slots = &arguments.slots;
    let (_, fields) = carry_out(
        context,
        known,
        &*hsm,
        "the slots are empty",
        &|session, authority, device, progress| {
            flow::remove(session, authority, device, slots, progress)
        },
    )?;
    Ok(fields)
}

pub(super) fn lock(context: &Context, arguments: &Lock) -> Outcome {
    let hsm = arguments.known.desk.hsm.open(context)?;
    let (_, fields) = carry_out(context, &arguments.known, &*hsm, "locked", &flow::lock)?;
    Ok(fields)
}

pub(super) fn rotate(context: &Context, arguments: &Rotate) -> Outcome {
    let known = &arguments.known;
    let hsm = known.desk.hsm.open(context)?;
    let new = known.desk.hsm.other_signer(
        context,
        arguments.new_token.as_deref(),
        &arguments.new_authority,
    )?;
    let what = format!("it obeys {} now", flow::authority_fingerprint(&new));
    let (_, fields) = carry_out(
        context,
        known,
        &*hsm,
        &what,
        &|session, authority, device, progress| {
            flow::rotate(session, authority, &new, device, progress)
        },
    )?;
    Ok(fields)
}

/// Whom a wipe found.
enum Met {
    /// A quarantined device, which is blank now and has this counter.
    Recovered(DeviceId, u32),
    /// A device that was believed.
    Known(Box<Visit>),
}

pub(super) fn wipe(context: &Context, arguments: &Wipe) -> Outcome {
    let hsm = arguments.known.desk.hsm.open(context)?;
    let met = arguments
        .known
        .meet(context, &*hsm, |visitor, session, progress| {
            let device = session.greeting().device;
            if session.greeting().state == State::Quarantined {
                let counter =
                    visitor.recover(session, arguments.quarantined, arguments.counter, progress)?;
                Ok(Met::Recovered(device, counter))
            } else if arguments.quarantined.is_some() {
                // Whoever names a device does not want another one wiped that happens to be plugged in.
                Err(JobError::NotQuarantined { device }.into())
            } else {
                Ok(Met::Known(Box::new(
                    visitor.visit(session, None, progress)?,
                )))
            }
        })?;
    let visit = match met {
        Met::Recovered(device, counter) => {
            context.note(&format!(
                "device {device}: it was quarantined, and says that it is blank now; no key of it can prove that. \
                 Enrol it as a new device before it is believed again"
            ));
            return Ok(fields! {
                "device" => device.to_string(),
                "policy" => Value::Null,
                "state" => State::Blank.name(),
                "counter" => counter,
                "recovered" => true,
                "proved" => false,
            });
        }
        Met::Known(visit) => *visit,
    };
    context.trust(&visit.trust);
    let (visit, fields) = carry_out_at(
        context,
        visit,
        &*hsm,
        "all its keys are destroyed; it is blank",
        &flow::wipe,
    )?;
    let statement = &visit.statement;
    let identity = fingerprint(&statement.identity_key);
    visit.scribe.wiped(statement.device, identity)?;
    Ok(fields)
}
