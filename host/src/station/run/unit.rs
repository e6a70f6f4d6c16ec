//! One device: found, believed, given its keys, proved, locked. The journal is told before each step and after it.

use std::path::Path;
use std::sync::atomic::Ordering;

use keyferry_protocol::attributes::Attributes;
use keyferry_protocol::identity::{Challenge, Fingerprint};
use keyferry_protocol::message::Progress;
use keyferry_protocol::receipt::{Refusal, State};

use super::attend::{Heard, Shared};
use super::confirm::{is_missing, version_of};
use super::error::UnitError;
use super::event::{Done, Event, Nest, Verdict, What};
use super::known::Known;
use super::settle::Settled;
use super::{card, context, lock};
use crate::device::port::{self, SYSFS};
use crate::device::session::Session;
use crate::device::{DeviceError, flow};
use crate::hsm::{DeviceContext, random};
use crate::station::journal::{Journal, JournalError, NewUnit, Step, Unit, UnitId};
use crate::station::plan::{KeyPlan, KeySource};
use crate::station::policy::Visiting;
use crate::station::registry::{RegistryError, SlotState};
use crate::station::visit::unless_quarantined;
use crate::station::{
    Exported, Hsm as _, JobError, KeyCard, Proved, Shipping, Target, Visit, Visitor, certify,
    choose_suite, inject, prove,
};

const CONFIRMED: &str = "the books could not pass it as it is (changed since, or a new label): it has confirmed what it holds";

/// Whether a device has its keys, and lacks something else that the plan asks for.
const fn is_extra(error: &UnitError) -> bool {
    matches!(
        error,
        UnitError::NotCertified { .. }
            | UnitError::OtherCertificate { .. }
            | UnitError::NotExported { .. }
    )
}

impl Shared<'_> {
    pub(super) fn journal<T>(
        &self,
        work: impl FnOnce(&Journal) -> Result<T, JournalError>,
    ) -> Result<T, JobError> {
        match &lock(self.line.records).journal {
            Some(journal) => Ok(work(journal)?),
            None => Err(JournalError::None.into()),
        }
    }

    pub(super) fn tell(&self, nest: &Nest, what: What<'_>) {
        (self.line.on_event)(&Event { nest, what });
    }

    pub(super) fn progress<'n>(&'n self, nest: &'n Nest) -> impl FnMut(Progress) + 'n {
        move |progress| self.tell(nest, What::Progress(progress))
    }

    /// Does the device on a port. `heard` is filled in as soon as one has answered.
    pub(super) fn work(&self, nest: &Nest, heard: &mut Heard) -> Result<Verdict, UnitError> {
        let opened = port::open_telling(&nest.port, Path::new(SYSFS), &mut |slow| {
            self.tell(nest, What::Slow(&slow));
        });
        let mut session = Session::open(opened.map_err(DeviceError::from)?)?;
        let found = session.greeting().device;
        heard.device = Some(found);
        self.tell(nest, What::Found(found));
        let _busy = self.enter(found, nest)?;

        let before = self.journal(|journal| journal.under_way(found))?;
        let identity = session.greeting().identity;
        let before = self.unless_released(before, identity)?;
        heard.serial = self.serial(found, before.as_ref(), nest)?;
        let serial = heard.serial.as_deref();
        let known = self.known(found)?;
        unless_quarantined(&session)?;
        if session.greeting().identity == Fingerprint::ZERO && !matches!(known, Known::Not) {
            return Err(UnitError::Erased { device: found });
        }
        if matches!(known, Known::Not) && self.is_forgotten(found)? {
            return Err(UnitError::Forgotten { device: found });
        }
        if self.line.rework && matches!(known, Known::Not) {
            return Err(UnitError::NothingToRework { device: found });
        }
        let is_others = match &before {
            Some(unit) => self.is_done_by_another(unit, &known)?,
            None => true,
        };
        let was_done = is_others && self.was_done(&mut session, &known, serial)?;
        let before = match before {
            Some(unit) if is_others => {
                self.done_elsewhere(&unit)?;
                None
            }
            before => before,
        };
        if was_done {
            let is_locked = session.greeting().state == State::Locked;
            match self.check_extras(&mut session) {
                Ok(()) => return Ok(Verdict::Before),
                // It gets keys anew, and what it lacks with them.
                Err(error) if self.line.rework && !is_locked && is_extra(&error) => {}
                Err(error) => return Err(error),
            }
        }
        if let (false, Known::Otherwise { slot, holds }) = (self.line.rework, &known) {
            let (device, slot, holds) = (found, *slot, holds.clone());
            return Err(UnitError::OtherKey {
                device,
                slot,
                holds,
            });
        }
        if let Err(why) = self.begin(found) {
            return Ok(Verdict::NotBegun(why.words()));
        }
        self.call_before(nest, found, serial)
            .inspect_err(|_| self.withdraw(found))?;
        let new = NewUnit {
            run: self.line.run,
            device: found,
            port: &nest.port,
            nest: &nest.name,
            serial,
        };
        let unit = self.journal(|journal| journal.begin(&new))?;
        if let Some(before) = &before {
            self.tell(nest, What::Resumed(before.step));
        }
        let way = Way {
            shared: self,
            nest,
            unit: &unit,
            known,
            label: serial,
            version: self.version(found)?,
        };
        way.go(session).inspect_err(|error| {
            // Nothing may have been sent yet, or nobody knows what became of it: then the journal keeps the unit.
            if let Err(unwritten) = way.give_up(error) {
                self.tell(nest, What::Note(&unwritten.to_string()));
            }
        })
    }

    /// Whether a device that the books have as done is that device, and stands where it stood then. Unsigned, it says so; signed, it is.
    /// One whose flash was put back is met like any other, and refused by what the registry has pinned; one that has done orders since which the
    /// registry does not know has to say what it holds.
    /// A label that the registry does not have is written down only beside a device that has stated who it is.
    fn was_done(
        &self,
        session: &mut Session,
        known: &Known,
        label: Option<&str>,
    ) -> Result<bool, UnitError> {
        let Known::Done {
            identity_key,
            last,
            counter,
            state,
            serial,
            ..
        } = known
        else {
            return Ok(false);
        };
        if label.is_some() && label != serial.as_deref() {
            return Ok(false);
        }
        let nonce = Challenge(random()?);
        let (was_last, standing, _) = flow::signed_status(session, identity_key, *last, nonce)?;
        Ok(was_last && standing.counter == *counter && standing.state == *state)
    }

    /// A device whose keys were not sent is let go of when the line is stopped.
    fn check_stop(&self) -> Result<(), UnitError> {
        if self.line.stop.load(Ordering::Relaxed) {
            return Err(UnitError::Stopped);
        }
        Ok(())
    }
}

/// A device on its way.
pub(super) struct Way<'a> {
    pub(super) shared: &'a Shared<'a>,
    pub(super) nest: &'a Nest,
    pub(super) unit: &'a Unit,
    pub(super) known: Known,
    /// The serial number on its label, where one is known.
    label: Option<&'a str>,
    /// The version of its keys.
    version: u32,
}

impl Way<'_> {
    fn id(&self) -> UnitId {
        self.unit.id
    }

    fn at(&self, step: Step) {
        self.shared.tell(self.nest, What::Step(step));
    }

    fn go(&self, mut session: Session) -> Result<Verdict, UnitError> {
        let settled = match self.unit.step {
            Step::Ordered => self.settle(&mut session)?,
            Step::Arrived => Settled::Applied,
            Step::Begun | Step::Trusted | Step::Prepared => Settled::NotApplied,
            Step::Locking => {
                self.settle_lock(&mut session)?;
                Settled::Proved
            }
            Step::Proved | Step::Done | Step::Failed => Settled::Proved,
        };
        if matches!(settled, Settled::NotApplied | Settled::NotYet { .. }) {
            self.shared.check_stop()?;
        }
        let mut visit = self.meet(session)?;
        let settled = match settled {
            // Since then the device has done one order, the one it was met with: none that was kept back came between, and none can come.
            Settled::NotYet { counter }
                if counter.checked_add(1) == Some(visit.statement.standing.counter) =>
            {
                self.not_applied()?;
                Settled::NotApplied
            }
            settled => settled,
        };
        self.tidy(&visit)?;
        let mut done = Done {
            policy: visit.trust.policy,
            suite: None,
            keys: Vec::new(),
            certified: false,
            locked: false,
        };
        let known = self.known_now()?;
        match (settled, known.as_ref().unwrap_or(&self.known)) {
            (Settled::NotApplied, Known::Doubted | Known::Proved | Known::Done { .. }) => {
                self.believed()?;
                match self.confirm(&mut visit) {
                    Err(error) if self.shared.line.rework && is_missing(&error) => {
                        self.deliver(&mut visit, &mut done)?;
                    }
                    Ok(_) if self.shared.line.rework && self.lacks_extras(&mut visit)? => {
                        self.deliver(&mut visit, &mut done)?;
                    }
                    confirmed => {
                        done.keys = confirmed?;
                        if self.unit.step <= Step::Trusted && !self.is_to_be_locked(&visit) {
                            self.shared.check_extras(&mut visit.session)?;
                            self.shared
                                .journal(|journal| journal.withdrawn(self.id()))?;
                            self.shared.withdraw(self.unit.device);
                            self.shared.tell(self.nest, What::Note(CONFIRMED));
                            return Ok(Verdict::Before);
                        }
                        self.shared.journal(|journal| journal.proved(self.id()))?;
                        self.at(Step::Proved);
                    }
                }
            }
            (Settled::NotApplied, Known::Not | Known::Enrolled | Known::Otherwise { .. }) => {
                self.deliver(&mut visit, &mut done)?;
            }
            (Settled::Applied, _) => {
                done.keys = self.prove(&mut visit).inspect_err(|error| {
                    // They were removed since, or its flash was put back; or another station has ordered keys for the slots since.
                    if is_empty(error) || is_older(error) || is_out_of_date(error) {
                        self.end_saying(&error.to_string());
                    }
                })?;
            }
            (Settled::Unclear | Settled::NotYet { .. }, _) => match self.prove(&mut visit) {
                Err(error) if is_empty(&error) || is_older(&error) => {
                    // What is not in its slot was not brought by the order, and cannot be any more.
                    self.not_applied()?;
                    self.deliver(&mut visit, &mut done)?;
                }
                Err(error) if is_out_of_date(&error) => {
                    self.end_saying(&error.to_string());
                    return Err(error);
                }
                proved => done.keys = proved?,
            },
            (Settled::Proved, _) => {}
        }
        self.check_plan(&mut visit, &done)?;
        done.locked = self.lock(&mut visit)?;
        self.shared.journal(|journal| journal.finished(self.id()))?;
        self.at(Step::Done);
        Ok(Verdict::Done(done))
    }

    /// The plan may have been changed since the unit began: a device that has only what was asked for then is neither locked nor passed. Its unit is
    /// over, and what is missing comes with the next one.
    ///
    /// Nor is one that has done something else since.
    fn check_plan(&self, visit: &mut Visit, done: &Done) -> Result<(), UnitError> {
        let device = self.unit.device;
        if done.suite.is_some() {
            // All that this plan names went out just now.
            return Ok(());
        }
        match self.shared.known(device)? {
            Known::Doubted => {
                self.confirm(visit).inspect_err(|error| {
                    if is_missing(error) {
                        self.end_saying(&error.to_string());
                    }
                })?;
            }
            Known::Proved | Known::Done { .. } => {}
            Known::Not | Known::Enrolled | Known::Otherwise { .. } => {
                self.shared.journal(|journal| journal.finished(self.id()))?;
                return Err(UnitError::OtherPlan { device });
            }
        }
        let checked = self.shared.check_extras(&mut visit.session);
        if checked.as_ref().is_err_and(is_extra) {
            self.shared.journal(|journal| journal.finished(self.id()))?;
        }
        checked
    }

    /// Whether the device has its keys, and lacks something else that the plan asks for.
    fn lacks_extras(&self, visit: &mut Visit) -> Result<bool, UnitError> {
        match self.shared.check_extras(&mut visit.session) {
            Ok(()) => Ok(false),
            Err(error) if is_extra(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Enrols the device or visits it. One that the visit policy cannot speak for yet has to satisfy the policy for new devices: a stranger
    /// to the registry, or one that was released; one that has no certificate or is on no list, for its work broke off before it had its keys, or
    /// before it was done here.
    fn meet(&self, session: Session) -> Result<Visit, UnitError> {
        let line = self.shared.line;
        let note = |text: &str| self.shared.tell(self.nest, What::Note(text));
        let visitor = Visitor {
            hsm: line.hsm,
            rules: line.rules,
            records: line.records,
            on_note: &note,
        };
        let greeting = session.greeting();
        let blank = greeting.identity == Fingerprint::ZERO;
        let device = greeting.device;
        let is_stranger = matches!(self.known, Known::Not);
        let was_released = is_stranger && self.shared.found(device)?.is_some();
        let can_be_visited = match &line.rules.visiting {
            Some(Visiting::Certificate(_)) => greeting.certified && !was_released,
            Some(Visiting::Allowlist(list)) => list.identity_of(device).is_some() && !was_released,
            Some(Visiting::Registry | Visiting::Open) | None => !is_stranger,
        };
        // Who reworks says that a device is to get what it lacks, a certificate as well.
        let by_certificate = matches!(&line.rules.visiting, Some(Visiting::Certificate(_)));
        let may_enrol = is_stranger
            || (line.rework && by_certificate)
            || self.unit.step >= Step::Prepared
            || self
                .shared
                .slots(device)?
                .iter()
                .all(|slot| matches!(slot.state, SlotState::Pending | SlotState::Failed));
        let enrols = blank || (!can_be_visited && may_enrol && line.rules.enrolment.is_some());
        let mut progress = self.shared.progress(self.nest);
        let visit = if enrols {
            visitor.enroll(session, line.plan.unwrap, self.label, &mut progress)?
        } else {
            visitor.visit(session, self.label, &mut progress)?
        };
        Ok(visit)
    }

    fn believed(&self) -> Result<(), UnitError> {
        if self.unit.step <= Step::Trusted {
            self.shared.journal(|journal| journal.trusted(self.id()))?;
            self.at(Step::Trusted);
        }
        Ok(())
    }

    /// Makes or finds the device's keys, and sends them.
    fn deliver(&self, visit: &mut Visit, done: &mut Done) -> Result<(), UnitError> {
        let line = self.shared.line;
        if visit.statement.standing.state == State::Locked {
            // It would refuse the order, and the registry would have keys as failed that it was never to have.
            let device = visit.statement.device;
            return Err(UnitError::Locked { device });
        }
        self.believed()?;
        self.shared.check_stop()?;
        let suite = choose_suite(line.hsm, line.rules, &visit.statement)?;
        let certificate = certify(visit, line.hsm, self.label, false)?;
        done.certified = certificate.is_some();
        let targets = self.targets()?;
        let exports = self.exports(&targets)?;
        self.shared
            .journal(|journal| journal.prepared(self.id(), &targets, &exports))?;
        self.at(Step::Prepared);
        self.shared.check_stop()?;
        let shipping = Shipping {
            suite,
            version: self.version,
            targets: &targets,
            minimum: line.plan.minimum_proof,
            certificate,
        };
        let mut progress = self.shared.progress(self.nest);
        done.suite = Some(suite);
        done.keys = inject(visit, line.hsm, &shipping, &mut progress).inspect_err(|error| {
            if is_final(error) {
                self.end_saying(&error.to_string());
            }
            // The registry has refused the order, so that it never left.
            if let JobError::Registry(RegistryError::SlotHeld { .. }) = error
                && let Err(unwritten) = self.shared.close_unit(self.unit, &error.to_string())
            {
                self.at_end(&unwritten);
            }
        })?;
        self.shared.journal(|journal| journal.proved(self.id()))?;
        self.at(Step::Proved);
        Ok(())
    }

    /// The device's keys. Of random ones, those that were made before a stop are taken.
    fn targets(&self) -> Result<Vec<Target>, UnitError> {
        let (line, stock) = (self.shared.line, self.shared.stock);
        let kept = self.shared.journal(|journal| journal.targets(self.id()))?;
        let mut targets = Vec::new();
        let cards = stock.cards.iter().zip(&stock.attributes);
        for (key, (of_token, attributes)) in line.plan.keys.iter().zip(cards) {
            let found = match of_token {
                Some(card) => Some(card.clone()),
                None => self.kept(&kept, key, attributes),
            };
            let card = match found {
                Some(card) => card,
                None => card(line.hsm, line.plan, key, &self.context(key))?,
            };
            targets.push(Target {
                key: card,
                slot: key.slot,
            });
        }
        Ok(targets)
    }

    const fn context(&self, key: &KeyPlan) -> DeviceContext {
        context(key, self.unit.device, self.version)
    }

    /// The random key that was made for the device before, if it is of the kind that the plan wants.
    fn kept(&self, kept: &[Target], key: &KeyPlan, attributes: &Attributes) -> Option<KeyCard> {
        let KeySource::Fresh { label, key_type } = &key.source else {
            return None;
        };
        let under = self.shared.line.plan.hsm.keep_under.as_deref();
        let mut kept = kept.iter();
        let found = kept.find(|kept| {
            let card = &kept.key;
            kept.slot == key.slot
                && card.label == *label
                && card.attributes == *attributes
                && card.key_type == key_type.to_string()
                && card.kept.as_ref().map(|kept| kept.under.as_str()) == under
        });
        found.map(|kept| kept.key.clone())
    }

    /// What the backend gets of the keys.
    fn exports(&self, targets: &[Target]) -> Result<Vec<Exported>, UnitError> {
        let line = self.shared.line;
        let Some(backend) = line.backend else {
            return Ok(Vec::new());
        };
        let mut exports = Vec::new();
        for (key, target) in line.plan.keys.iter().zip(targets) {
            if key.export {
                let exported = line.hsm.export(&target.key, &self.context(key), backend)?;
                exports.push(exported);
            }
        }
        Ok(exports)
    }

    /// Has the keys proved that a stopped station has sent.
    fn prove(&self, visit: &mut Visit) -> Result<Vec<Proved>, UnitError> {
        let line = self.shared.line;
        let targets = self.shared.journal(|journal| journal.targets(self.id()))?;
        let ordered = self.shared.ordered_by(self.unit)?;
        let versions = |slot| version_of(&ordered, slot);
        let minimum = line.plan.minimum_proof;
        let mut progress = self.shared.progress(self.nest);
        let proved = prove(visit, line.hsm, &targets, &versions, minimum, &mut progress);
        let proved = proved.map_err(UnitError::from).inspect_err(|error| {
            // What is missing or older, another order brings.
            if is_missing(error) && !is_empty(error) && !is_older(error) {
                self.end_saying(&error.to_string());
            }
        })?;
        self.shared.journal(|journal| journal.proved(self.id()))?;
        self.at(Step::Proved);
        Ok(proved)
    }

    /// Locks the device where the plan says so, unless its statement says that it is locked.
    fn lock(&self, visit: &mut Visit) -> Result<bool, UnitError> {
        let line = self.shared.line;
        if !self.is_to_be_locked(visit) {
            return Ok(line.plan.lock);
        }
        self.shared.journal(|journal| journal.locking(self.id()))?;
        self.at(Step::Locking);
        let mut progress = self.shared.progress(self.nest);
        let (session, authority) = (&mut visit.session, line.hsm.authority());
        let locked = flow::lock(session, authority, &visit.statement, &mut progress);
        visit.statement.standing = locked.map_err(JobError::from)?;
        Ok(true)
    }

    fn is_to_be_locked(&self, visit: &Visit) -> bool {
        self.shared.line.plan.lock && visit.statement.standing.state != State::Locked
    }

    fn end(&self, reason: &str) -> Result<(), JobError> {
        self.shared
            .journal(|journal| journal.failed(self.id(), reason))
    }

    /// Ends the unit on the way to another error.
    fn end_saying(&self, reason: &str) {
        if let Err(unwritten) = self.end(reason) {
            self.at_end(&unwritten);
        }
    }

    /// Tells of what could not be written on the way to another error.
    fn at_end(&self, unwritten: &dyn std::fmt::Display) {
        let words = unwritten.to_string();
        self.shared.tell(self.nest, What::Note(&words));
    }

    /// Ends the unit, unless an order of it may have been applied.
    fn give_up(&self, error: &UnitError) -> Result<(), JobError> {
        let now = self
            .shared
            .journal(|journal| journal.under_way(self.unit.device))?;
        match now {
            Some(unit) if unit.step < Step::Ordered => self.end(&error.to_string()),
            Some(_) | None => Ok(()),
        }
    }
}

/// Whether the device says, signed, that a slot holds an earlier version than it was to get.
const fn is_older(error: &UnitError) -> bool {
    matches!(
        error,
        UnitError::Job(JobError::OtherVersion { found, expected, .. }) if *found < *expected
    )
}

/// Whether the registry has another order for these slots by now.
const fn is_out_of_date(error: &UnitError) -> bool {
    matches!(
        error,
        UnitError::Job(JobError::Registry(RegistryError::NotItsOrder { .. }))
    )
}

/// Whether the device says, signed, that there is no key in a slot.
pub(super) const fn is_empty(error: &UnitError) -> bool {
    matches!(
        error,
        UnitError::Job(JobError::Device(DeviceError::Refused {
            refusal: Refusal::SlotEmpty,
            signed: true,
        }))
    )
}

/// Whether it is certain that a device has none of the keys, or not the right ones.
fn is_final(error: &JobError) -> bool {
    match error {
        JobError::SlotRefused { .. } | JobError::ProofWrong { .. } => true,
        JobError::Device(error) => !error.leaves_order_open(),
        JobError::Hsm(_)
        | JobError::OtherVersion { .. }
        | JobError::Export(_)
        | JobError::Policy(_)
        | JobError::Audit(_)
        | JobError::Registry(_)
        | JobError::Journal(_)
        | JobError::NotEnrolled { .. }
        | JobError::NoCertificate { .. }
        | JobError::OtherCertificate { .. }
        | JobError::Quarantined { .. }
        | JobError::NotQuarantined { .. }
        | JobError::CounterUnknown { .. }
        | JobError::Certificate(_)
        | JobError::Broker(_)
        | JobError::UnwrapKey(_)
        | JobError::NoCommonSuite { .. }
        | JobError::NoSuite { .. }
        | JobError::LabelTooLong(_)
        | JobError::ProofTooWeak { .. } => false,
    }
}
