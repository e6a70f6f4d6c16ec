//! What `station run` and `station watch` have in common: books and token are opened before a device is looked at, and closed after the
//! last one.

use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;
use serde_json::{Map, Value};

use super::PlanArgs;
use super::backend::{Exporter, warn_of_waiting};
use super::books;
use super::files::Loaded;
use super::screen::Screen;
use crate::audit::AuditLog;
use crate::cli::hsm_args::named;
use crate::cli::signals::end_on_second_signal;
use crate::cli::{Context, PinArgs, TokenArgs, fields};
use crate::error::Failure;
use crate::hsm::PIN_VARIABLE;
use crate::station::journal::{Journal, JournalError, RunId};
use crate::station::policy::OPEN;
use crate::station::run::{Event, Hook, Line, Stock, What};
use crate::station::{Ca, Hsm, LocalHsm, Records, SharedHsm, Signers};

/// The plan, and the PIN of its token.
#[derive(Debug, Args)]
pub(in crate::cli) struct LineArgs {
    #[command(flatten)]
    pub(super) plan: PlanArgs,
    #[command(flatten)]
    pin: PinArgs,
    /// For units that failed: only devices of the registry; those whose keys are not all proved, or that lack what else the plan asks for, get them anew, with a higher version.
    #[arg(long)]
    rework: bool,
}

/// After so many devices the audit log is signed.
const CHECKPOINT: u32 = 100;

/// A station with its books and its token, in a run.
pub(super) struct Station {
    pub(super) loaded: Loaded,
    pub(super) stock: Stock,
    pub(super) run: RunId,
    rework: bool,
    records: Arc<Mutex<Records>>,
    hsm: SharedHsm,
    exporter: Option<Exporter>,
    stop: Arc<AtomicBool>,
}

/// Shows what happens in a run, from all its threads. A crash of a long run leaves few records that are not signed for: now and then the audit log is
/// signed.
pub(super) struct Follower<'a> {
    station: (&'a SharedHsm, &'a Mutex<Records>),
    stop: &'a AtomicBool,
    screen: &'a Screen,
    /// Whether it was told that the line is being stopped.
    told: AtomicBool,
    /// How many devices are over.
    ended: AtomicU32,
}

impl Follower<'_> {
    pub(super) fn follow(&self, event: &Event<'_>) {
        if self.stop.load(Ordering::Relaxed) && !self.told.swap(true, Ordering::Relaxed) {
            self.screen.warn(
                "stopping: devices that were sent their keys are finished; Ctrl-C again ends at once",
            );
        }
        self.screen.show(event);
        if !matches!(event.what, What::Ended(_)) {
            return;
        }
        let ended = self.ended.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let (hsm, records) = self.station;
        if ended.is_multiple_of(CHECKPOINT)
            && let Err(error) = checkpoint(hsm, records)
        {
            let text = format!("the audit log was not signed: {error}");
            self.screen.warn(&text);
        }
    }
}

/// Has the audit key sign the log, where there are both.
fn checkpoint(hsm: &SharedHsm, records: &Mutex<Records>) -> Result<(), Failure> {
    let mut records = records.lock().unwrap_or_else(PoisonError::into_inner);
    if let (Some(auditor), Some(log)) = (hsm.auditor(), &mut records.audit) {
        log.checkpoint(auditor)?;
    }
    Ok(())
}

/// How a run was closed.
pub(super) struct Closing {
    exported: Result<usize, Failure>,
    checkpoint: Result<(), Failure>,
    /// How much the registry is still to be told.
    pub(super) waiting: u64,
}

impl Closing {
    /// How many keys the backend got.
    pub(super) fn exported(self) -> Result<usize, Failure> {
        self.checkpoint?;
        self.exported
    }
}

impl Station {
    /// Opens everything, and begins a run.
    ///
    /// # Errors
    /// Those of journal, registry, audit log and token.
    pub(super) fn open(
        context: &Context,
        arguments: &LineArgs,
        mut loaded: Loaded,
    ) -> Result<Self, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        let records = Arc::new(Mutex::new(open_books(context, &loaded, &stop)?));
        warn_of_open(context, &loaded);
        let (hsm, exporter) = open_hsm(context, &loaded, arguments)?;
        let backend = exporter.as_ref().map(Exporter::backend);
        let stock = Stock::look_up(&hsm, &loaded.plan, backend)?;
        end_on_second_signal(&stop).map_err(Failure::Signals)?;
        loaded.hook = loaded.hook.map(|hook| Hook {
            withheld: pin_variables(arguments),
            ..hook
        });
        let plan = &loaded.plan;
        let run = with_journal(&records, |journal| {
            journal.begin_run(&plan.name, &plan.digest)
        })?;
        Ok(Self {
            loaded,
            stock,
            run,
            rework: arguments.rework,
            records,
            hsm,
            exporter,
            stop,
        })
    }

    /// Tells of the run, and has the audit log signed.
    pub(super) fn begin(&self, context: &Context, more: Map<String, Value>) -> Result<(), Failure> {
        let mut event = fields! {
            "event" => "run", "run" => self.run.to_string(), "plan" => self.loaded.plan.name,
        };
        event.extend(more);
        context.event(event);
        checkpoint(&self.hsm, &self.records)
    }

    /// The line.
    pub(super) fn line<'a>(&'a self, on_event: &'a (dyn Fn(&Event<'_>) + Sync)) -> Line<'a> {
        Line {
            plan: &self.loaded.plan,
            rules: &self.loaded.rules,
            hsm: &self.hsm,
            backend: self.exporter.as_ref().map(Exporter::backend),
            hook: self.loaded.hook.as_ref(),
            records: &self.records,
            run: self.run,
            rework: self.rework,
            stop: &self.stop,
            on_event,
        }
    }

    /// Who shows what happens in it.
    pub(super) fn follower<'a>(&'a self, screen: &'a Screen) -> Follower<'a> {
        Follower {
            station: (&self.hsm, &self.records),
            stop: &self.stop,
            screen,
            told: AtomicBool::new(false),
            ended: AtomicU32::new(0),
        }
    }

    /// Tells the registry what it is still to be told, gives the backend what it is to have, has the audit log signed, and ends the run.
    /// The first three are all tried, whatever becomes of them.
    pub(super) fn close(&self, context: &Context) -> Result<Closing, Failure> {
        let write = |exporter: &Exporter| exporter.write(context, &self.records, self.run);
        let waiting = books::catch_up(context, &self.records, &self.loaded, &self.stop);
        let exported = self.exporter.as_ref().map_or(Ok(0), write);
        let checkpoint = checkpoint(&self.hsm, &self.records);
        with_journal(&self.records, |journal| journal.end_run(self.run))?;
        let backend = self.exporter.as_ref().map(Exporter::backend);
        let backend = backend.map(|backend| backend.key.fingerprint());
        let others = with_journal(&self.records, |journal| journal.waiting_for_others(backend))?;
        warn_of_waiting(context, &others);
        Ok(Closing {
            exported,
            checkpoint,
            waiting: waiting?,
        })
    }

    /// Names the devices that are under way.
    pub(super) fn warn_of_rest(&self, context: &Context) -> Result<(), Failure> {
        for unit in with_journal(&self.records, Journal::all_under_way)? {
            context.warn(&format!(
                "device {}, last seen at nest '{}', is under way ('{}'): plug it in and run the plan again",
                unit.device,
                unit.nest,
                unit.step.name()
            ));
        }
        Ok(())
    }
}

/// Logs in once, for all threads.
fn open_hsm(
    context: &Context,
    loaded: &Loaded,
    arguments: &LineArgs,
) -> Result<(SharedHsm, Option<Exporter>), Failure> {
    let plan = &loaded.plan;
    let token = TokenArgs::of(plan.hsm.token.clone(), arguments.pin.clone());
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
fn pin_variables(arguments: &LineArgs) -> Vec<OsString> {
    let named = arguments.pin.pin_env.iter().map(OsString::from);
    named.chain([PIN_VARIABLE.into()]).collect()
}

fn open_books(
    context: &Context,
    loaded: &Loaded,
    stop: &Arc<AtomicBool>,
) -> Result<Records, Failure> {
    let plan = &loaded.plan;
    let path = loaded.path(&plan.journal);
    if !path.exists() {
        context.note(&format!("journal {} is new", path.display()));
    }
    // The journal first: where another station is at work, nothing of it is touched.
    let journal = Journal::open(&path)?;
    let registry = books::open_registry(context, loaded, Arc::clone(stop))?;
    let audit = plan.audit.as_ref();
    let audit = audit.map(|file| AuditLog::open(&loaded.path(&file.path)));
    Ok(Records {
        audit: audit.transpose()?,
        registry: Some(registry),
        journal: Some(journal),
    })
}

fn with_journal<T>(
    records: &Mutex<Records>,
    work: impl FnOnce(&Journal) -> Result<T, JournalError>,
) -> Result<T, Failure> {
    let records = records.lock().unwrap_or_else(PoisonError::into_inner);
    match &records.journal {
        Some(journal) => Ok(work(journal)?),
        None => Err(JournalError::None.into()),
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
