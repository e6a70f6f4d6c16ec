//! What the threads of a line share, and how one of them attends to a device: limits, the plan's hook, the end.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use keyferry_protocol::identity::DeviceId;
use serde_json::Value;

use super::error::UnitError;
use super::event::{Nest, Outcome, Verdict, What};
use super::hook::Moment;
use super::watch::Closed;
use super::{Line, Stock, json, lock};
use crate::device::session::Session;
use crate::device::{DeviceError, flow, port};
use crate::station::JobError;
use crate::station::journal::{End, Ending};
use crate::station::plan::OnFailure;

/// What the threads of a line share.
pub(super) struct Shared<'a> {
    pub(super) line: &'a Line<'a>,
    pub(super) stock: &'a Stock,
    /// Which devices are worked on, and where.
    busy: Mutex<HashMap<DeviceId, String>>,
    /// The devices that were begun and how often, where their number is limited: one that is plugged in again is the same one.
    begun: Mutex<BTreeMap<DeviceId, u32>>,
    failed_in_a_row: AtomicU32,
    /// Whether a nest may be empty: where ports are looked at only once, nobody knows whether anything is plugged in.
    may_be_empty: bool,
}

/// What was found out of a device before it was over.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Who it says it is.
    pub(super) device: Option<DeviceId>,
    /// The serial number of its label, if it was scanned or stands in the books.
    pub(super) serial: Option<String>,
}

impl<'a> Shared<'a> {
    pub(super) fn new(line: &'a Line<'a>, stock: &'a Stock, may_be_empty: bool) -> Self {
        Self {
            line,
            stock,
            busy: Mutex::default(),
            begun: Mutex::default(),
            failed_in_a_row: AtomicU32::new(0),
            may_be_empty,
        }
    }

    /// Why no further device is begun, if so.
    pub(super) fn closed(&self) -> Option<Closed> {
        let begun = lock(&self.begun).len();
        let enough = self.most_devices().is_some_and(|most| begun >= most);
        self.stopped().or(enough.then_some(Closed::Devices))
    }

    /// Why no further device is looked at, if so: one that was done before passes also where enough were begun.
    fn stopped(&self) -> Option<Closed> {
        let limits = &self.line.plan.limits;
        if self.line.stop.load(Ordering::Relaxed) {
            return Some(Closed::Stopped);
        }
        let failed = self.failed_in_a_row.load(Ordering::Relaxed);
        if limits.failures_in_a_row.is_some_and(|most| failed >= most) {
            return Some(Closed::Failures);
        }
        None
    }

    /// Counts a device that is to be begun, or says that there are enough.
    pub(super) fn begin(&self, device: DeviceId) -> Result<(), Closed> {
        let Some(most) = self.most_devices() else {
            return Ok(());
        };
        let mut begun = lock(&self.begun);
        if begun.len() >= most && !begun.contains_key(&device) {
            return Err(Closed::Devices);
        }
        *begun.entry(device).or_default() += 1;
        Ok(())
    }

    fn most_devices(&self) -> Option<usize> {
        let most = self.line.plan.limits.devices?;
        usize::try_from(most).ok()
    }

    /// Takes it back: it needed nothing.
    pub(super) fn withdraw(&self, device: DeviceId) {
        if let Entry::Occupied(mut times) = lock(&self.begun).entry(device) {
            *times.get_mut() -= 1;
            if *times.get() == 0 {
                times.remove();
            }
        }
    }

    /// Does the device at a nest, unless the line was closed.
    pub(super) fn attend(&self, nest: &Nest) -> Outcome {
        let start = Instant::now();
        let mut heard = Heard::default();
        let verdict = match self.stopped() {
            Some(why) => Verdict::NotBegun(why.words()),
            None => {
                self.tell(nest, What::Begun);
                self.work(nest, &mut heard).unwrap_or_else(Verdict::Failed)
            }
        };
        let mut outcome = Outcome {
            nest: Nest {
                serial: heard.serial.or_else(|| nest.serial.clone()),
                ..nest.clone()
            },
            device: heard.device,
            verdict,
            took: start.elapsed(),
        };
        if matches!(outcome.verdict, Verdict::NotBegun(_)) {
            self.end(nest, &outcome);
            return outcome;
        }
        self.call_after(&mut outcome);
        if let (Verdict::Failed(error), Some(device)) = (&outcome.verdict, outcome.device) {
            show_failed(nest, device, error);
        }
        if outcome.verdict.is_pass() {
            self.failed_in_a_row.store(0, Ordering::Relaxed);
        } else if outcome.device.is_some() || !self.may_be_empty {
            self.failed_in_a_row.fetch_add(1, Ordering::Relaxed);
        }
        self.end(nest, &outcome);
        outcome
    }

    /// The work on a device ended by a fault of this program. That counts as a failure like any other.
    pub(super) fn broke_off(&self, nest: &Nest) -> Outcome {
        let outcome = Outcome::broke_off(nest);
        self.failed_in_a_row.fetch_add(1, Ordering::Relaxed);
        self.end(nest, &outcome);
        outcome
    }

    /// Tells how it ended, and has the journal remember it for the report. What was done does not depend on that.
    fn end(&self, nest: &Nest, outcome: &Outcome) {
        let (end, reason) = match &outcome.verdict {
            Verdict::Done(_) => (End::Done, None),
            Verdict::Before => (End::Before, None),
            Verdict::Failed(error) => (End::Failed, Some(error.to_string())),
            Verdict::NotBegun(why) => (End::NotBegun, Some((*why).to_owned())),
        };
        let ending = Ending {
            nest: outcome.nest.name.clone(),
            // Two that claim to be one device are counted by their nests.
            device: match &outcome.verdict {
                Verdict::Failed(UnitError::Twice { .. }) => None,
                Verdict::Failed(_) | Verdict::NotBegun(_) | Verdict::Done(_) | Verdict::Before => {
                    outcome.device
                }
            },
            serial: outcome.nest.serial.clone(),
            end,
            reason,
            took: outcome.took,
        };
        if let Err(error) = self.journal(|journal| journal.ended(self.line.run, &ending)) {
            self.tell(nest, What::Warning(&error.to_string()));
        }
        self.tell(nest, What::Ended(outcome));
    }

    /// Calls the hook before a device is touched.
    pub(super) fn call_before(
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
    pub(super) fn enter(&self, device: DeviceId, nest: &Nest) -> Result<Busy<'_>, UnitError> {
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
pub(super) struct Busy<'a> {
    device: DeviceId,
    busy: &'a Mutex<HashMap<DeviceId, String>>,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        lock(self.busy).remove(&self.device);
    }
}

/// Has a board show that it has failed where it cannot know: by what the books say, or a proof. Whether it does changes nothing of what was done.
/// Meanwhile another one may have been plugged in.
fn show_failed(nest: &Nest, device: DeviceId, error: &UnitError) {
    match error {
        // It has refused, and shows that; or nobody can talk to it.
        UnitError::Job(JobError::Device(_)) => return,
        // It is not to blame.
        UnitError::Stopped | UnitError::BrokeOff | UnitError::HookBefore(_) => return,
        UnitError::Job(_)
        | UnitError::Twice { .. }
        | UnitError::NoSerial { .. }
        | UnitError::OtherSerial { .. }
        | UnitError::Erased { .. }
        | UnitError::OtherKey { .. }
        | UnitError::Forgotten { .. }
        | UnitError::OtherPlan { .. }
        | UnitError::NotCertified { .. }
        | UnitError::OtherCertificate { .. }
        | UnitError::NotExported { .. }
        | UnitError::Locked { .. }
        | UnitError::NothingToRework { .. }
        | UnitError::HookAfter(_) => {}
    }
    let session = port::open(&nest.port).map_err(DeviceError::from);
    let shown =
        session
            .and_then(Session::open)
            .and_then(|mut session| match session.greeting().device {
                found if found == device => flow::show_failed(&mut session),
                _ => Ok(()),
            });
    drop(shown);
}
