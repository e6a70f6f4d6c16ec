//! `keyferry device`: one device on one port.

mod bar;
mod keys;
mod lifecycle;
mod look;
mod provision;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use clap::{Args, Subcommand};

use super::hsm_args::HsmArgs;
use super::policy::VisitArgs;
use super::records::RecordArgs;
use super::{Context, Outcome};
use crate::device::session::{OnProgress, Session};
use crate::error::Failure;
use crate::station::{Hsm, Records, Visit, Visitor};

use bar::Bar;
pub(super) use keys::{announce, targets};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Say what the device says of itself, unverified.
    Info(PortArgs),
    /// Give a blank device its keys and its authority, or have an enrolled one state itself anew.
    Enroll(provision::Enroll),
    /// Put keys of the token into the device's slots, and prove each.
    Inject(provision::Inject),
    /// Show the device's slots, unverified.
    List(PortArgs),
    /// Prove keys that are in the device's slots.
    Prove(provision::Prove),
    /// Take keys out of the device's slots.
    Remove(lifecycle::Remove),
    /// Let nobody change the device's slots any more.
    Lock(lifecycle::Lock),
    /// Hand the device over to another authority.
    Rotate(lifecycle::Rotate),
    /// Destroy the device's own keys and all that it holds.
    Wipe(lifecycle::Wipe),
    /// Read the certificate of the device's identity key.
    Certificate(look::Certificate),
    /// Send bytes to the device and have them sent back, to try the cable.
    Echo(look::Echo),
}

#[derive(Debug, Args)]
pub(super) struct PortArgs {
    /// The device's port: a serial device, tcp:HOST:NUMBER or unix:PATH.
    #[arg(long, value_name = "PORT", value_parser = super::port::named)]
    port: String,
    /// Record what goes over the line in a new file, for `keyferry line decode`.
    #[arg(long, value_name = "FILE")]
    capture: Option<PathBuf>,
}

/// The device, the HSM that it works with, and the books.
#[derive(Debug, Args)]
struct Desk {
    #[command(flatten)]
    port: PortArgs,
    #[command(flatten)]
    hsm: HsmArgs,
    #[command(flatten)]
    records: RecordArgs,
}

/// A device that was enrolled before, and why it is taken for that one.
#[derive(Debug, Args)]
struct Known {
    #[command(flatten)]
    desk: Desk,
    #[command(flatten)]
    policy: VisitArgs,
}

impl Known {
    /// Visits the device. `serial` is the number on its label, where it was given.
    fn visit(
        &self,
        context: &Context,
        hsm: &dyn Hsm,
        serial: Option<&str>,
    ) -> Result<Visit, Failure> {
        let visit = self.meet(context, hsm, |visitor, session, progress| {
            Ok(visitor.visit(session, serial, progress)?)
        })?;
        context.trust(&visit.trust);
        Ok(visit)
    }

    /// Greets the device, and goes on with it.
    fn meet<T>(
        &self,
        context: &Context,
        hsm: &dyn Hsm,
        go_on: impl FnOnce(&Visitor<'_>, Session, &mut OnProgress<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let rules = self.policy.rules()?;
        let records: Arc<Mutex<Records>> = self.desk.records.open()?;
        let visitor = Visitor {
            hsm,
            rules: &rules,
            records: &records,
            on_note: &|text| context.note(text),
        };
        let session = greet(context, &self.desk.port)?;
        let progress = Bar::new(context);
        let met = go_on(&visitor, session, &mut |step| progress.show(step))?;
        drop(progress);
        Ok(met)
    }
}

pub(super) fn run(context: &Context, command: Command) -> Outcome {
    match command {
        Command::Info(port) => look::info(context, &port),
        Command::Enroll(arguments) => provision::enroll(context, &arguments),
        Command::Inject(arguments) => provision::inject(context, &arguments),
        Command::List(port) => look::list(context, &port),
        Command::Prove(arguments) => provision::prove(context, &arguments),
        Command::Remove(arguments) => lifecycle::remove(context, &arguments),
        Command::Lock(arguments) => lifecycle::lock(context, &arguments),
        Command::Rotate(arguments) => lifecycle::rotate(context, &arguments),
        Command::Wipe(arguments) => lifecycle::wipe(context, &arguments),
        Command::Certificate(arguments) => look::certificate(context, &arguments),
        Command::Echo(arguments) => look::echo(context, &arguments),
    }
}

fn greet(context: &Context, port: &PortArgs) -> Result<Session, Failure> {
    let line = super::port::open_recorded(context, &port.port, port.capture.as_deref())?;
    let mut session = Session::open(line)?;
    super::port::tell_of_quiet(context, &mut session);
    Ok(session)
}
