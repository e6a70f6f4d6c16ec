//! `station run`: every device that is plugged in, once.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;

use super::PlanArgs;
use super::backend::Exporter;
use super::files::{Loaded, load};
use super::screen::Screen;
use super::serials;
use crate::audit::AuditLog;
use crate::cli::hsm_args::named;
use crate::cli::output::counted;
use crate::cli::signals::end_on_second_signal;
use crate::cli::{Context, Outcome, TokenArgs, fields};
use crate::error::Failure;
use crate::hsm::PIN_VARIABLE;
use crate::station::journal::Journal;
use crate::station::plan::MAXIMUM_PORTS;
use crate::station::policy::OPEN;
use crate::station::registry::Registry;
use crate::station::run::{Hook, Line, Nest, Stock, Verdict};
use crate::station::{Ca, Hsm, LocalHsm, Records, SharedHsm, Signers};

#[derive(Debug, Args)]
pub(in crate::cli) struct Run {
    #[command(flatten)]
    plan: PlanArgs,
    /// A device's port, instead of those of the plan; may be given more than once. A port of the plan keeps its nest; others are
    /// numbered, unless the nest stands before an equals sign.
    #[arg(long = "port", value_name = "[NEST=]PORT", value_parser = parse_port)]
    ports: Vec<(Option<String>, String)>,
    /// Serial numbers of the devices' labels: a text file, nest and serial number on each line.
    #[arg(long, value_name = "FILE")]
    serials: Option<PathBuf>,
    /// File with the PIN, readable by its owner alone.
    #[arg(long, value_name = "PATH", conflicts_with = "pin_env")]
    pin_file: Option<PathBuf>,
    /// Environment variable with the PIN [default: KEYFERRY_PIN].
    #[arg(long, value_name = "NAME")]
    pin_env: Option<String>,
    /// Send the PIN even if a wrong one would lock the token.
    #[arg(long)]
    allow_last_try: bool,
}

/// What stands after `--port`. The name of a serial device or a host has no equals sign before its colon or stroke.
fn parse_port(text: &str) -> Result<(Option<String>, String), String> {
    let (nest, port) = match text.split_once('=') {
        Some((nest, port)) if !nest.is_empty() && !nest.contains(['/', ':', '\\']) => {
            (Some(nest.to_owned()), port)
        }
        Some(_) | None => (None, text),
    };
    let port = crate::cli::port::named(port).map_err(|error| error.to_string())?;
    Ok((nest, port))
}

/// Where devices are looked for.
fn nests(loaded: &Loaded, arguments: &Run) -> Result<Vec<Nest>, Failure> {
    let nest = |name: String, port: &str| Nest {
        name,
        port: port.to_owned(),
        serial: None,
    };
    let planned = &loaded.plan.ports;
    let mut nests: Vec<Nest> = Vec::new();
    if arguments.ports.is_empty() {
        nests.extend(planned.iter().map(|it| nest(it.nest.clone(), &it.port)));
    }
    for (number, (name, port)) in (1..).zip(&arguments.ports) {
        let known = planned.iter().find(|it| it.port == *port);
        let name = match (name, known) {
            (Some(name), _) => name.clone(),
            (None, Some(known)) => known.nest.clone(),
            (None, None) => number.to_string(),
        };
        nests.push(nest(name, port));
    }
    if nests.is_empty() {
        return Err(Failure::Missing {
            name: "--port",
            because: "the plan names no port either",
        });
    }
    let twice = nests.iter().enumerate().find(|(index, one)| {
        let mut before = nests.iter().take(*index);
        before.any(|other| other.name == one.name || other.port == one.port)
    });
    if let Some((_, twice)) = twice {
        return Err(Failure::NestTwice {
            nest: twice.name.clone(),
            port: twice.port.clone(),
        });
    }
    if nests.len() > MAXIMUM_PORTS {
        return Err(Failure::TooManyPorts(MAXIMUM_PORTS));
    }
    match &arguments.serials {
        Some(path) => serials::bind(path, &mut nests)?,
        None if loaded.plan.serials => {
            return Err(Failure::Missing {
                name: "--serials",
                because: "the plan wants the serial number of every device",
            });
        }
        None => {}
    }
    Ok(nests)
}

/// Logs in once, for all threads.
fn open_hsm(
    context: &Context,
    loaded: &Loaded,
    arguments: &Run,
) -> Result<(SharedHsm, Option<Exporter>), Failure> {
    let plan = &loaded.plan;
    let token = TokenArgs::of(
        plan.hsm.token.clone(),
        arguments.pin_file.clone(),
        arguments.pin_env.clone(),
        arguments.allow_last_try,
    );
    let (token, _) = token.open(context)?;
    let authority = named(&token, &plan.hsm.authority)?;
    let auditor = plan.hsm.audit_key.as_ref();
    let auditor = auditor.map(|label| named(&token, label)).transpose()?;
    let ca = match (&plan.certificates, &loaded.ca) {
        (Some(certificates), Some(certificate)) => {
            let signer = named(&token, &certificates.key)?;
            let organization = certificates.organization.clone();
            Some(Ca::new(signer, certificate.clone(), organization)?)
        }
        (Some(_) | None, Some(_) | None) => None,
    };
    let signers = Signers {
        authority,
        auditor,
        ca,
    };
    let exporter = match (&plan.backend, &loaded.backend) {
        (Some(backend), Some(key)) => Some(Exporter::open(loaded, &token, backend, key)?),
        (Some(_) | None, Some(_) | None) => None,
    };
    Ok((SharedHsm::new(LocalHsm::new(token, signers)), exporter))
}

/// The variables that may hold the PIN.
fn pin_variables(arguments: &Run) -> Vec<OsString> {
    let named = arguments.pin_env.iter().map(OsString::from);
    named.chain([PIN_VARIABLE.into()]).collect()
}

fn open_books(loaded: &Loaded) -> Result<Records, Failure> {
    let plan = &loaded.plan;
    // The journal first: where another station is at work, nothing of it is touched.
    let journal = Journal::open(&loaded.path(&plan.journal))?;
    let registry = Registry::open(&loaded.path(&plan.registry))?;
    let audit = plan.audit.as_ref();
    let audit = audit.map(|file| AuditLog::open(&loaded.path(&file.path)));
    Ok(Records {
        audit: audit.transpose()?,
        registry: Some(registry),
        journal: Some(journal),
    })
}

/// Has the audit key sign the log, where there are both.
fn checkpoint(hsm: &dyn Hsm, records: &Mutex<Records>) -> Result<(), Failure> {
    let mut records = records.lock().unwrap_or_else(PoisonError::into_inner);
    if let (Some(auditor), Some(log)) = (hsm.auditor(), &mut records.audit) {
        log.checkpoint(auditor)?;
    }
    Ok(())
}

fn with_journal<T>(
    records: &Mutex<Records>,
    work: impl FnOnce(&Journal) -> Result<T, crate::station::journal::JournalError>,
) -> Result<T, Failure> {
    let records = records.lock().unwrap_or_else(PoisonError::into_inner);
    match &records.journal {
        Some(journal) => Ok(work(journal)?),
        None => Err(crate::station::journal::JournalError::None.into()),
    }
}

/// What nothing but the room vouches for is said once, and loudly.
fn warn_of_open(context: &Context, loaded: &Loaded) {
    let rules = &loaded.rules;
    let enrolment = rules.enrolment.as_ref().map(|policy| policy.name());
    let visiting = rules.visiting.as_ref().map(|policy| policy.name());
    if [enrolment, visiting].contains(&Some(OPEN)) {
        context.warn("policy open: whatever device is on a port is trusted because the room is");
    }
}

pub(super) fn run(context: &Context, arguments: &Run) -> Outcome {
    // All that can be wrong in files first: nobody is asked for a PIN in vain.
    let loaded = load(&arguments.plan)?;
    let nests = nests(&loaded, arguments)?;
    let records = Arc::new(Mutex::new(open_books(&loaded)?));
    warn_of_open(context, &loaded);
    let (hsm, exporter) = open_hsm(context, &loaded, arguments)?;
    let backend = exporter.as_ref().map(Exporter::backend);
    let hook = loaded.hook.clone().map(|hook| Hook {
        withheld: pin_variables(arguments),
        ..hook
    });
    let stock = Stock::look_up(&hsm, &loaded.plan, backend)?;
    let stop = Arc::new(AtomicBool::new(false));
    end_on_second_signal(&stop).map_err(Failure::Signals)?;

    let plan = &loaded.plan;
    let run = with_journal(&records, |journal| {
        journal.begin_run(&plan.name, &plan.digest)
    })?;
    context.event(fields! {
        "event" => "run", "run" => run.to_string(), "plan" => plan.name, "nests" => nests.len(),
    });
    checkpoint(&hsm, &records)?;
    let screen = Screen::new(context);
    let line = Line {
        plan,
        rules: &loaded.rules,
        hsm: &hsm,
        backend,
        hook: hook.as_ref(),
        records: &records,
        run,
        stop: &stop,
        on_event: &|event| screen.show(event),
    };
    let outcomes = line.run(&stock, &nests);
    screen.clear();
    // Both are tried, whatever becomes of the first.
    let exported = exporter.map(|exporter| exporter.write(context, &records, run));
    let ended = checkpoint(&hsm, &records);
    with_journal(&records, |journal| journal.end_run(run))?;
    screen.table(&outcomes);
    for unit in with_journal(&records, Journal::all_under_way)? {
        context.warn(&format!(
            "device {}, last seen at nest '{}', is under way ('{}'): plug it in and run the plan again",
            unit.device,
            unit.nest,
            unit.step.name()
        ));
    }
    ended?;
    let exported = exported.transpose()?.unwrap_or_default();
    let failed = outcomes.iter().filter(|it| !it.verdict.is_pass()).count();
    let proved: usize = outcomes.iter().map(|it| proved(&it.verdict)).sum();
    let summary = fields! {
        "run" => run.to_string(),
        "devices" => outcomes.len(),
        "passed" => outcomes.len() - failed,
        "failed" => failed,
        "keys_proved" => proved,
        "keys_exported" => exported,
    };
    if failed > 0 {
        let mut event = fields! { "event" => "summary" };
        event.extend(summary);
        context.event(event);
        let devices = outcomes.len();
        return Err(Failure::SomeDevices { failed, devices });
    }
    context.note(&format!(
        "{}, {}",
        counted(outcomes.len() as u64, "device"),
        counted(proved as u64, "key")
    ));
    Ok(summary)
}

fn proved(verdict: &Verdict) -> usize {
    match verdict {
        Verdict::Done(done) => done.keys.len(),
        Verdict::Before | Verdict::Failed(_) | Verdict::NotBegun(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::parse_port;

    #[test]
    fn a_nest_may_stand_before_the_port() {
        let of = |text| parse_port(text).unwrap();
        assert_eq!(
            of("A1=/dev/ttyS0"),
            (Some("A1".into()), "/dev/ttyS0".into())
        );
        assert_eq!(of("tcp:host:1"), (None, "tcp:host:1".into()));
        assert_eq!(of("unix:/a=b"), (None, "unix:/a=b".into()));
        assert!(parse_port("A1=tcp:").is_err());
    }
}
