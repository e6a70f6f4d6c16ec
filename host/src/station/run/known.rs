//! What the books say of a device before it is worked on: whether it was done, and which label it has.

use keyferry_protocol::identity::{DeviceId, Digest};
use keyferry_protocol::receipt::State;

use super::attend::Shared;
use super::error::UnitError;
use super::event::Nest;
use crate::device::session::Session;
use crate::station::job::certified_as;
use crate::station::journal::{Step, Unit};
use crate::station::plan::{KeyPlan, MAXIMUM_VERSION};
use crate::station::records::patiently;
use crate::station::registry::{DeviceRecord, RegistryError, SlotRecord, SlotState};
use crate::station::{Hsm as _, JobError};

/// A rework adds this to the version of a device's keys; versions of plans are below.
const REWORK: u32 = MAXIMUM_VERSION + 1;

/// What the registry says of a device, seen from the plan.
pub(super) enum Known {
    /// Nothing that counts.
    Not,
    /// It was enrolled; some of its keys are missing.
    Enrolled,
    /// It was enrolled, and a slot of the plan holds another key.
    Otherwise {
        /// The slot.
        slot: u16,
        /// What it holds: label and type.
        holds: String,
    },
    /// All its keys were proved. It has done something since that the registry does not know.
    Doubted,
    /// All its keys were proved. It is still to be locked, or newer ones were ordered for it.
    Proved,
    /// All is done.
    Done {
        /// Its pinned identity key.
        identity_key: Vec<u8>,
        /// The order that brought its keys.
        order: Digest,
        /// The order that it has done last.
        last: Digest,
        /// Its counter when it was heard last.
        counter: u32,
        /// Its state then.
        state: State,
        /// The serial number of its label.
        serial: Option<String>,
    },
}

impl Shared<'_> {
    /// The serial number of a device's label: the one that was scanned, or the one in the books. A label belongs to one device, and stays
    /// with it; whoever has none is not begun with where the plan wants one.
    pub(super) fn serial(
        &self,
        device: DeviceId,
        unit: Option<&Unit>,
        nest: &Nest,
    ) -> Result<Option<String>, UnitError> {
        // Its label stays with it, also where its keys count no more.
        let of_record = self.found(device)?.and_then(|record| record.serial);
        let of_unit = unit.and_then(|unit| unit.serial.clone());
        // Whoever was there when it was begun had only said that it was this device: a label that is scanned now counts for more.
        let known = match unit {
            Some(unit) if unit.step == Step::Begun && nest.serial.is_some() => of_record,
            Some(_) | None => of_record.or(of_unit),
        };
        let Some(given) = &nest.serial else {
            return match known {
                None if self.line.plan.serials => Err(UnitError::NoSerial {
                    nest: nest.name.clone(),
                }),
                known => Ok(known),
            };
        };
        let holder = patiently(self.line.records, |records| match &records.registry {
            Some(registry) => registry.holder_of_serial(given),
            None => Ok(None),
        })?;
        if let Some(holder) = holder.filter(|holder| *holder != device) {
            let serial = given.clone();
            return Err(RegistryError::SerialTaken {
                device,
                serial,
                holder,
            }
            .into());
        }
        match known {
            Some(known) if known != *given => Err(UnitError::OtherSerial {
                device,
                known,
                given: given.clone(),
            }),
            Some(_) | None => Ok(Some(given.clone())),
        }
    }

    /// What the registry has of a device that was not released.
    pub(super) fn record(&self, device: DeviceId) -> Result<Option<DeviceRecord>, JobError> {
        let record = self.found(device)?;
        Ok(record.filter(|record| record.released.is_none()))
    }

    /// What the registry has of a device, released or not.
    pub(super) fn found(&self, device: DeviceId) -> Result<Option<DeviceRecord>, JobError> {
        patiently(self.line.records, |records| {
            // What this station has found out of the device, the registry knows as well.
            records.catch_up()?;
            let registry = records.registry.as_ref();
            let record = registry.map(|registry| registry.find(device));
            Ok::<_, JobError>(record.transpose()?.flatten())
        })
    }

    /// Whether the journal has a device as done that the registry has never seen: it is not the registry that it was.
    pub(super) fn is_forgotten(&self, device: DeviceId) -> Result<bool, JobError> {
        Ok(
            self.found(device)?.is_none()
                && self.journal(|journal| journal.times_done(device))? > 0,
        )
    }

    pub(super) fn slots(&self, device: DeviceId) -> Result<Vec<SlotRecord>, JobError> {
        let slots = patiently(self.line.records, |records| {
            let registry = records.registry.as_ref();
            registry.map(|registry| registry.slots(device)).transpose()
        })?;
        Ok(slots.unwrap_or_default())
    }

    /// The version that a device's keys get: the plan's, above one step for each rework. A device under rework may hold whatever was ordered for it,
    /// right or wrong; the step has it take other keys all the same, and the plan's next version is still higher.
    pub(super) fn version(&self, device: DeviceId) -> Result<u32, JobError> {
        let plan = self.line.plan;
        let slots = self.slots(device)?.into_iter();
        let of_plan = slots.filter(|it| plan.keys.iter().any(|key| key.slot == it.slot));
        let Some(held) = of_plan.map(|it| it.version).max() else {
            return Ok(plan.version);
        };
        let reworks =
            (held - held % REWORK).saturating_add(if self.line.rework { REWORK } else { 0 });
        Ok(reworks.saturating_add(plan.version))
    }

    /// The keys of the plan's slots that were proved last, where all are and none is of an earlier version than the plan's.
    pub(super) fn proved(&self, device: DeviceId) -> Result<Option<Vec<SlotRecord>>, JobError> {
        let slots = self.slots(device)?;
        let keys = self.line.plan.keys.iter();
        Ok(keys
            .map(|key| self.proved_of(&slots, key).cloned())
            .collect())
    }

    /// Whether a device that has all its keys has what else the plan asks for: it may have been another plan when it got them.
    ///
    /// # Errors
    /// [`UnitError::NotCertified`], [`UnitError::OtherCertificate`], [`UnitError::NotExported`]; [`UnitError::Job`].
    pub(super) fn check_extras(&self, session: &mut Session) -> Result<(), UnitError> {
        let (line, device) = (self.line, session.greeting().device);
        if line.hsm.certifies() {
            let Some(found) = certified_as(session)? else {
                return Err(UnitError::NotCertified { device });
            };
            // One that says the id was made before there was a label, and is nobody else's.
            let label = self.record(device)?.and_then(|record| record.serial);
            if label.is_some_and(|label| label != found) && found != device.to_string() {
                return Err(UnitError::OtherCertificate { device, found });
            }
        }
        if line.backend.is_none() {
            return Ok(());
        }
        let held = self.proved(device)?.unwrap_or_default();
        for (key, held) in line.plan.keys.iter().zip(&held) {
            let slot = key.slot;
            if key.export && !self.journal(|journal| journal.was_exported(&held.order, slot))? {
                return Err(UnitError::NotExported { device, slot });
            }
        }
        Ok(())
    }

    fn proved_of<'s>(&self, slots: &'s [SlotRecord], key: &KeyPlan) -> Option<&'s SlotRecord> {
        let mut slots = slots.iter();
        slots.find(|it| {
            it.slot == key.slot
                && it.state == SlotState::Proved
                && it.version % REWORK >= self.line.plan.version
        })
    }

    /// The keys that were ordered last for their slot and version by an order of this unit.
    pub(super) fn ordered_by(&self, unit: &Unit) -> Result<Vec<SlotRecord>, JobError> {
        let mut slots = Vec::new();
        for slot in self.slots(unit.device)? {
            if self.journal(|journal| journal.is_of(unit.id, &slot.order))? {
                slots.push(slot);
            }
        }
        Ok(slots)
    }

    /// Whether another order than one of the unit's has brought the device all its keys, and none of the unit's can be in it.
    pub(super) fn is_done_by_another(&self, unit: &Unit, known: &Known) -> Result<bool, JobError> {
        let by_another = match known {
            Known::Done { order, .. } => !self.journal(|journal| journal.is_of(unit.id, order))?,
            Known::Doubted | Known::Proved => unit.step == Step::Ordered,
            Known::Not | Known::Enrolled | Known::Otherwise { .. } => false,
        };
        let may_be_there = |slot: &SlotRecord| match slot.state {
            SlotState::Pending | SlotState::Proved => true,
            SlotState::Failed | SlotState::Removed => false,
        };
        Ok(by_another && !self.ordered_by(unit)?.iter().any(may_be_there))
    }

    pub(super) fn known(&self, device: DeviceId) -> Result<Known, JobError> {
        let Some(record) = self.record(device)? else {
            return Ok(Known::Not);
        };
        let slots = self.slots(device)?;
        let plan = self.line.plan;
        let proved = |key: &KeyPlan| self.proved_of(&slots, key);
        // A key with another label, of another type or for another use is another key: a plan that names it asks for a new version, or another
        // slot.
        let keys = plan.keys.iter().zip(&self.stock.attributes);
        let other = keys
            .filter_map(|(key, attributes)| Some((key, attributes, proved(key)?)))
            .find(|(key, attributes, it)| {
                it.label != key.source.label() || it.attributes != **attributes
            });
        if let Some((key, _, it)) = other {
            return Ok(Known::Otherwise {
                slot: key.slot,
                holds: format!(
                    "'{}' ({}, {})",
                    it.label.escape_default(),
                    it.key_type,
                    it.proof.name()
                ),
            });
        }
        let all: Option<Vec<_>> = plan.keys.iter().map(proved).collect();
        let Some(all) = all else {
            return Ok(Known::Enrolled);
        };
        let has_newer = |it: &SlotRecord| {
            let mut slots = slots.iter();
            slots.any(|other| other.slot == it.slot && other.version > it.version)
        };
        if all.iter().any(|it| it.doubted) {
            return Ok(Known::Doubted);
        }
        let is_to_be_locked = plan.lock && record.state != State::Locked;
        if is_to_be_locked || all.iter().any(|it| has_newer(it)) {
            return Ok(Known::Proved);
        }
        Ok(Known::Done {
            identity_key: record.statement()?.identity_key,
            order: all.first().map_or(Digest::ZERO, |slot| slot.order),
            last: record.latest_order()?,
            counter: record.counter,
            state: record.state,
            serial: record.serial,
        })
    }
}
