//! A line: many devices, each on its own way and in its own thread, by one plan.
//!
//! The way of a device is that of the single commands: a [`Visitor`](super::Visitor) decides who it is, `job` does what it is visited
//! for. What is added is that the journal knows before and after each step how far a device has come, so that a line which is stopped
//! by whatever goes on where it was. A port that fails never stops another one; what fails is told with the next move.
//!
//! Threads wait in the operating system, for their port or for a seat at the token; none spins. What a device takes is bounded, and
//! so is the number of those that are worked on at once.

mod attend;
mod backend;
mod confirm;
mod error;
mod event;
mod hook;
mod json;
mod known;
mod settle;
mod unit;
mod watch;

use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use keyferry_protocol::attributes::Attributes;
use keyferry_protocol::identity::DeviceId;
use keyferry_protocol::suite::Suite;

pub use backend::{Manifests, Sign, write_exports};
pub use error::UnitError;
pub use event::{Done, Event, Nest, Outcome, Verdict, What, task};
pub use hook::{Hook, HookError, Moment};
pub use json::as_json;
pub use watch::{Closed, Fixture, Plugged};

use attend::Shared;

use super::journal::RunId;
use super::plan::{KeyPlan, KeySource, Plan};
use super::policy::Rules;
use super::{Backend, Hsm as _, JobError, KeyCard, Records, SharedHsm, Target, check_targets};
use crate::hsm::{DeviceContext, KeySpec};

/// A station at work.
pub struct Line<'a> {
    /// What it does.
    pub plan: &'a Plan,
    /// Which devices it believes.
    pub rules: &'a Rules,
    /// The HSM.
    pub hsm: &'a SharedHsm,
    /// Who gets devices' own keys as well, if the plan says so.
    pub backend: Option<&'a Backend>,
    /// What is called before and after each device, if the plan says so.
    pub hook: Option<&'a Hook>,
    /// Its books; all three of registry, journal and, if the plan has one, audit log.
    pub records: &'a Arc<Mutex<Records>>,
    /// Its name in the journal.
    pub run: RunId,
    /// Whether it takes only devices of the registry, and gives those whose keys are not proved, or that lack what else the plan asks for, their keys anew, with a higher version.
    pub rework: bool,
    /// Once it is set, no device is begun, and those whose keys were not sent are let go of.
    pub stop: &'a AtomicBool,
    /// Is told what happens, from all threads.
    pub on_event: &'a (dyn Fn(&Event<'_>) + Sync),
}

/// The plan's keys as the token has them, looked up before any device is touched.
#[derive(Clone, Debug)]
pub struct Stock {
    /// For each key of the plan: the token's, where it is the same for all devices.
    cards: Vec<Option<KeyCard>>,
    /// For each key of the plan: what it is and may do on a device.
    attributes: Vec<Attributes>,
}

impl Stock {
    /// Looks the keys up, and makes sure that each will show as much as the plan demands, and that the backend can have what it is to
    /// have. Of a key that each device has of its own, one is made for that, and forgotten.
    ///
    /// # Errors
    /// [`JobError`].
    pub fn look_up(
        hsm: &SharedHsm,
        plan: &Plan,
        backend: Option<&Backend>,
    ) -> Result<Self, JobError> {
        // Found out by trial: once, and not by the first devices side by side. Devices that were enrolled elsewhere may have other unwrap keys.
        let (mut suites, others): (Vec<_>, Vec<_>) = Suite::ALL
            .into_iter()
            .filter(|it| plan.suites.contains(it))
            .partition(|it| it.fits(plan.unwrap));
        if plan.enrolment.is_none() {
            suites.extend(others);
        }
        let mut is_able = false;
        for suite in &suites {
            is_able = hsm.supports(*suite)?;
            if is_able {
                break;
            }
        }
        if !is_able {
            return Err(JobError::NoSuite { suites });
        }
        let mut cards = Vec::new();
        let mut attributes = Vec::new();
        for key in &plan.keys {
            let context = context(key, DeviceId::ZERO, plan.version);
            let card = card(hsm, plan, key, &context)?;
            let target = Target {
                key: card.clone(),
                slot: key.slot,
            };
            check_targets(&[target], plan.minimum_proof)?;
            if let Some(backend) = backend.filter(|_| key.export) {
                hsm.export(&card, &context, backend)?;
            }
            attributes.push(card.attributes);
            let is_token = matches!(key.source, KeySource::Token { .. });
            cards.push(is_token.then_some(card));
        }
        Ok(Self { cards, attributes })
    }
}

/// Which key of which device.
const fn context(key: &KeyPlan, device: DeviceId, version: u32) -> DeviceContext {
    DeviceContext {
        device,
        slot: key.slot,
        version,
    }
}

/// A key of the plan for a device.
fn card(
    hsm: &SharedHsm,
    plan: &Plan,
    key: &KeyPlan,
    context: &DeviceContext,
) -> Result<KeyCard, JobError> {
    match &key.source {
        KeySource::Token { label } => hsm.key(&KeySpec::label(label), key.device_use),
        KeySource::Fresh { label, key_type } => {
            let under = plan.hsm.keep_under.as_deref().unwrap_or_default();
            hsm.fresh(label, *key_type, key.device_use, under)
        }
        KeySource::Master {
            master,
            label,
            key_type,
        } => hsm.diversified(label, *key_type, key.device_use, master, context),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is changed in one go.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Line<'_> {
    /// Does all devices at these nests, and gives what became of each, in the order of the nests.
    pub fn run(&self, stock: &Stock, nests: &[Nest]) -> Vec<Outcome> {
        let shared = Shared::new(self, stock, true);
        let next = AtomicUsize::new(0);
        let workers = self.plan.limits.at_once.min(nests.len());
        let outcomes = Mutex::new(BTreeMap::new());
        let work = || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(nest) = nests.get(index) else {
                    return;
                };
                // A fault of this program at one device is none of the others'.
                let attended = panic::catch_unwind(AssertUnwindSafe(|| shared.attend(nest)));
                let outcome = attended.unwrap_or_else(|_| shared.broke_off(nest));
                lock(&outcomes).insert(index, outcome);
            }
        };
        thread::scope(|scope| {
            for _ in 1..workers {
                // Where the system gives no further thread, those that there are do the work.
                if thread::Builder::new().spawn_scoped(scope, work).is_err() {
                    break;
                }
            }
            work();
        });
        let outcomes = outcomes.into_inner();
        let outcomes = outcomes.unwrap_or_else(PoisonError::into_inner);
        outcomes.into_values().collect()
    }
}
