//! A line: many devices, each on its own way and in its own thread, by one plan.
//!
//! The way of a device is that of the single commands: a [`Visitor`](super::Visitor) decides who it is, `job` does what it is visited
//! for. What is added is that the journal knows before and after each step how far a device has come, so that a line which is stopped
//! by whatever goes on where it was. A port that fails never stops another one; what fails is told with the next move.
//!
//! Threads wait in the operating system, for their port or for a seat at the token; none spins. What a device takes is bounded, and
//! so is the number of those that are worked on at once.

mod backend;
mod error;
mod event;
mod hook;
mod json;
mod known;
mod settle;
mod unit;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use keyferry_protocol::identity::DeviceId;
use serde_json::Value;

pub use backend::{Manifests, Sign, write_exports};
pub use error::UnitError;
pub use event::{Done, Event, Nest, Outcome, Verdict, What, task};
pub use hook::{Hook, HookError, Moment};
pub use json::as_json;

use super::journal::RunId;
use super::plan::{KeyPlan, KeySource, OnFailure, Plan};
use super::policy::Rules;
use super::{Backend, Hsm as _, JobError, KeyCard, Records, SharedHsm, Target, check_proofs};
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
        let mut cards = Vec::new();
        for key in &plan.keys {
            let card = card(hsm, plan, key, DeviceId::ZERO)?;
            let target = Target {
                key: card.clone(),
                slot: key.slot,
            };
            check_proofs(&[target], plan.minimum_proof)?;
            if let Some(backend) = backend.filter(|_| key.export) {
                hsm.export(&card, &context(plan, key, DeviceId::ZERO), backend)?;
            }
            let is_token = matches!(key.source, KeySource::Token { .. });
            cards.push(is_token.then_some(card));
        }
        Ok(Self { cards })
    }
}

/// Which key of which device.
const fn context(plan: &Plan, key: &KeyPlan, device: DeviceId) -> DeviceContext {
    DeviceContext {
        device,
        slot: key.slot,
        version: plan.version,
    }
}

/// A key of the plan for a device.
fn card(
    hsm: &SharedHsm,
    plan: &Plan,
    key: &KeyPlan,
    device: DeviceId,
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
        } => {
            let context = context(plan, key, device);
            hsm.diversified(label, *key_type, key.device_use, master, &context)
        }
    }
}

/// What the threads of a line share.
struct Shared<'a> {
    line: &'a Line<'a>,
    stock: &'a Stock,
    /// Which devices are worked on, and where.
    busy: Mutex<HashMap<DeviceId, String>>,
    begun: AtomicU32,
    failed_in_a_row: AtomicU32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is changed in one go.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Line<'_> {
    /// Does all devices at these nests, and gives what became of each, in the order of the nests.
    pub fn run(&self, stock: &Stock, nests: &[Nest]) -> Vec<Outcome> {
        let shared = Shared {
            line: self,
            stock,
            busy: Mutex::default(),
            begun: AtomicU32::new(0),
            failed_in_a_row: AtomicU32::new(0),
        };
        let next = AtomicUsize::new(0);
        let workers = self.plan.limits.at_once.min(nests.len());
        let work = || {
            let mut done = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(nest) = nests.get(index) else {
                    return done;
                };
                done.push((index, shared.attend(nest)));
            }
        };
        let mut outcomes: Vec<Option<Outcome>> = nests.iter().map(|_| None).collect();
        thread::scope(|scope| {
            let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            for thread in threads {
                // A thread that broke off has told of nothing: its device is found missing below.
                for (index, outcome) in thread.join().unwrap_or_default() {
                    if let Some(place) = outcomes.get_mut(index) {
                        *place = Some(outcome);
                    }
                }
            }
        });
        let broke_off = |nest: &Nest| Outcome {
            nest: nest.clone(),
            device: None,
            verdict: Verdict::Failed(UnitError::BrokeOff),
            took: std::time::Duration::ZERO,
        };
        outcomes
            .into_iter()
            .zip(nests)
            .map(|(outcome, nest)| outcome.unwrap_or_else(|| broke_off(nest)))
            .collect()
    }
}

impl Shared<'_> {
    /// Why no further device is begun, if so.
    fn closed(&self) -> Option<&'static str> {
        let limits = &self.line.plan.limits;
        if self.line.stop.load(Ordering::Relaxed) {
            return Some("the line was stopped");
        }
        let failed = self.failed_in_a_row.load(Ordering::Relaxed);
        if limits.failures_in_a_row.is_some_and(|most| failed >= most) {
            return Some("too many devices failed one after the other");
        }
        let begun = self.begun.fetch_add(1, Ordering::Relaxed);
        if limits.devices.is_some_and(|most| begun >= most) {
            return Some("the plan allows no more devices in one run");
        }
        None
    }

    /// Does the device at a nest.
    fn attend(&self, nest: &Nest) -> Outcome {
        let start = Instant::now();
        let tell = |what: What<'_>| (self.line.on_event)(&Event { nest, what });
        let mut device = None;
        let why = self.closed();
        let verdict = match why {
            Some(why) => Verdict::NotBegun(why),
            None => {
                tell(What::Begun);
                self.work(nest, &mut device).unwrap_or_else(Verdict::Failed)
            }
        };
        let mut outcome = Outcome {
            nest: nest.clone(),
            device,
            verdict,
            took: start.elapsed(),
        };
        if why.is_none() {
            self.call_after(&mut outcome);
            if outcome.verdict.is_pass() {
                self.failed_in_a_row.store(0, Ordering::Relaxed);
            } else {
                self.failed_in_a_row.fetch_add(1, Ordering::Relaxed);
            }
        }
        tell(What::Ended(&outcome));
        outcome
    }

    /// Calls the hook before a device is touched.
    fn call_before(
        &self,
        nest: &Nest,
        device: DeviceId,
        serial: Option<&str>,
    ) -> Result<(), UnitError> {
        let line = self.line;
        let Some((hook, on_failure)) = line.hook.and_then(|it| Some((it, it.plan.before?))) else {
            return Ok(());
        };
        self.tell(nest, What::Hook(Moment::Before));
        let event = json::before(line.run, &line.plan.name, nest, device, serial);
        match (hook.call(&Value::Object(event).to_string()), on_failure) {
            (Ok(()), _) => Ok(()),
            (Err(error), OnFailure::Fail) => Err(UnitError::HookBefore(error)),
            (Err(error), OnFailure::Warn) => {
                self.tell(nest, What::Warning(&error.to_string()));
                Ok(())
            }
        }
    }

    /// Calls the hook when a device is over. What is done stays done, whatever comes of it.
    fn call_after(&self, outcome: &mut Outcome) {
        let line = self.line;
        let Some((hook, on_failure)) = line.hook.and_then(|it| Some((it, it.plan.after?))) else {
            return;
        };
        self.tell(&outcome.nest, What::Hook(Moment::After));
        let event = json::after(line.run, &line.plan.name, outcome);
        let Err(error) = hook.call(&Value::Object(event).to_string()) else {
            return;
        };
        match on_failure {
            OnFailure::Fail if outcome.verdict.is_pass() => {
                outcome.verdict = Verdict::Failed(UnitError::HookAfter(error));
            }
            // Of a device that has failed, the first reason is the one that counts.
            OnFailure::Fail | OnFailure::Warn => {
                self.tell(&outcome.nest, What::Warning(&error.to_string()));
            }
        }
    }

    /// Takes a device for one nest, as long as what comes back is held.
    fn enter(&self, device: DeviceId, nest: &Nest) -> Result<Busy<'_>, UnitError> {
        let mut busy = lock(&self.busy);
        if let Some(other) = busy.get(&device) {
            let other = other.clone();
            return Err(UnitError::Twice { device, other });
        }
        busy.insert(device, nest.name.clone());
        Ok(Busy {
            device,
            busy: &self.busy,
        })
    }
}

/// A device that is worked on.
struct Busy<'a> {
    device: DeviceId,
    busy: &'a Mutex<HashMap<DeviceId, String>>,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        lock(self.busy).remove(&self.device);
    }
}
