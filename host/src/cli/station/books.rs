//! The registry of a station, and what becomes of it while its server is away: new devices wait, what was found out of others waits in
//! the journal.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::files::Loaded;
use crate::cli::output::counted;
use crate::cli::{Context, fields};
use crate::error::Failure;
use crate::station::registry::{Location, Registry, RegistryError};
use crate::station::{JobError, Patience, Records};

/// How often a server that is away is looked for.
const LOOK: Duration = Duration::from_millis(500);

/// Opens the registry of the plan, as soon as its server is there.
///
/// # Errors
/// [`Failure::Registry`].
pub(super) fn open_registry(
    context: &Context,
    loaded: &Loaded,
    stop: Arc<AtomicBool>,
) -> Result<Registry, Failure> {
    let plan = &loaded.plan;
    let location = Location::parse(&plan.registry, &loaded.folder).map_err(RegistryError::from)?;
    if let Location::File(path) = &location
        && !path.exists()
    {
        context.note(&format!("registry {} is new", path.display()));
    }
    let password = plan.registry_password.as_deref();
    let password = password.map(|path| loaded.path(path));
    let limit = plan.limits.registry_wait;
    let context = *context;
    let is_away = AtomicBool::new(false);
    let told = move |why: Option<&str>| match why {
        Some(why) if !is_away.swap(true, Ordering::Relaxed) => context.warn(&format!(
            "{why}; devices wait for it, {} s at most",
            limit.as_secs()
        )),
        None if is_away.swap(false, Ordering::Relaxed) => {
            context.event(fields! { "event" => "registry", "is" => "back" });
            context.note("the registry is back");
        }
        Some(_) | None => {}
    };
    let mut registry = wait_for(&location, password.as_deref(), limit, &told)?;
    registry.be_patient(Patience {
        limit,
        stop,
        told: Arc::new(told),
    });
    Ok(registry)
}

fn wait_for(
    location: &Location,
    password: Option<&Path>,
    limit: Duration,
    told: &dyn Fn(Option<&str>),
) -> Result<Registry, RegistryError> {
    let begun = Instant::now();
    loop {
        match Registry::open_at(location, password) {
            Err(error) if error.is_away() && begun.elapsed() < limit => {
                told(Some(&error.to_string()));
                thread::sleep(LOOK);
            }
            Ok(registry) => {
                told(None);
                return Ok(registry);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Has the registry told what still waits in the journal, and gives how much of it still does. Nothing is lost if it does: the next run
/// goes on.
///
/// # Errors
/// [`Failure`], except that the server is away.
pub(super) fn catch_up(
    context: &Context,
    records: &Mutex<Records>,
    loaded: &Loaded,
    stop: &AtomicBool,
) -> Result<u64, Failure> {
    let begun = Instant::now();
    let limit = loaded.plan.limits.registry_wait;
    let told = loop {
        let mut held = records.lock().unwrap_or_else(PoisonError::into_inner);
        match held.catch_up() {
            Ok(()) => break Ok(()),
            Err(JobError::Registry(error)) if error.is_away() => {
                if stop.load(Ordering::Relaxed) || begun.elapsed() >= limit {
                    break Ok(());
                }
                let patience = held.registry.as_ref().and_then(Registry::patience).cloned();
                drop(held);
                if let Some(patience) = patience {
                    (patience.told)(Some(&error.to_string()));
                }
                thread::sleep(LOOK);
            }
            Err(error) => break Err(error),
        }
    };
    let held = records.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(journal) = &held.journal else {
        return Ok(0);
    };
    let waiting = journal.waiting_count().map_err(JobError::from)?;
    if waiting > 0 {
        context.warn(&format!(
            "what the registry is still to be told waits in the journal ({}): run the plan again when its server is back",
            counted(waiting, "note")
        ));
    }
    for untaken in journal.untaken().map_err(JobError::from)? {
        context.warn(&format!(
            "device {}: the registry did not take what was found out of it: {}; take it off the line, and look at `keyferry registry show`",
            untaken.device, untaken.reason
        ));
    }
    told?;
    Ok(waiting)
}
