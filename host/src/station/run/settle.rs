//! What became of an order that had left when a station was stopped: the device says so, signed. And what the other books say of it.

use keyferry_protocol::identity::{Challenge, DeviceId, Digest, Fingerprint};
use keyferry_protocol::order::Kind;

use super::attend::Shared;
use super::error::UnitError;
use super::lock;
use super::unit::Way;
use crate::audit::{AuditError, AuditLog, Work};
use crate::device::flow;
use crate::device::session::Session;
use crate::device::verify::Standing;
use crate::hsm::random;
use crate::station::finding::Finding;
use crate::station::journal::{Step, Unit};
use crate::station::records::patiently;
use crate::station::registry::RegistryError;
use crate::station::{JobError, Records, Visit};

const STOPPED: &str =
    "the station was stopped before its answer came, and the device says that it was not applied";

const RELEASED: &str = "the device was released from the registry since, or no order of the unit is one of the device as it was enrolled last";

const ELSEWHERE: &str = "the registry has it as done, by an order that was not one of this unit";

/// What is known of a unit's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// No order with them was applied, and none can be any more.
    NotApplied,
    /// None was when the device had this counter. One that somebody has kept back may still come.
    NotYet {
        /// The counter.
        counter: u32,
    },
    /// One was.
    Applied,
    /// The device has applied another order since: its slots will tell.
    Unclear,
    /// They were proved.
    Proved,
}

impl Shared<'_> {
    /// Another station has done the device since this one was stopped with it: what is open of it here is closed.
    pub(super) fn done_elsewhere(&self, unit: &Unit) -> Result<(), UnitError> {
        self.close_unit(unit, ELSEWHERE)
    }

    /// Closes a unit none of whose keys is in the device, and what stands open of it in the other books.
    pub(super) fn close_unit(&self, unit: &Unit, reason: &str) -> Result<(), UnitError> {
        for order in self.journal(|journal| journal.sent(unit.id))? {
            let mut records = lock(self.line.records);
            given_up(&mut records, unit.device, &order.digest, reason)?;
        }
        if let Some(log) = &mut lock(self.line.records).audit {
            close(log, unit.device, None)?;
        }
        self.journal(|journal| journal.failed(unit.id, reason))?;
        Ok(())
    }

    /// The unit of a device that is under way, unless somebody has released the device since, or enrolled it anew: then nothing counts that was open
    /// of it, and its keys, which another device may hold, go nowhere. One whose keys were proved, and that says that it is the very device still, goes on:
    /// what it holds, it has to confirm.
    pub(super) fn unless_released(
        &self,
        unit: Option<Unit>,
        identity: Fingerprint,
    ) -> Result<Option<Unit>, UnitError> {
        let Some(unit) = unit else {
            return Ok(None);
        };
        let (record, orders) = patiently(self.line.records, |records| match &records.registry {
            Some(registry) => {
                let record = registry.find(unit.device)?;
                Ok::<_, RegistryError>((record, registry.orders(unit.device)?))
            }
            None => Ok((None, Vec::new())),
        })?;
        let Some(record) = record else {
            return Ok(Some(unit));
        };
        let mut is_its = unit.step < Step::Ordered;
        for order in &orders {
            is_its |= self.journal(|journal| journal.is_of(unit.id, &order.digest))?;
        }
        let is_same = record.identity == identity && unit.step >= Step::Proved;
        if is_its && (record.released.is_none() || is_same) {
            return Ok(Some(unit));
        }
        self.close_unit(&unit, RELEASED)?;
        Ok(None)
    }
}

impl Way<'_> {
    /// Asks the device for a signed status of each order that may have left, and writes down what it says.
    pub(super) fn settle(&self, session: &mut Session) -> Result<Settled, UnitError> {
        let (shared, unit) = (self.shared, self.unit);
        let sent = shared.journal(|journal| journal.sent(unit.id))?;
        let Some(record) = shared.record(unit.device)? else {
            // Keys are ordered for devices that are in the registry: it was released since, or is another file.
            return Err(RegistryError::UnknownDevice {
                device: unit.device,
            }
            .into());
        };
        let identity_key = record.statement()?.identity_key;
        let mut counter = 0;
        for order in sent.iter().filter(|order| order.kind == Kind::Inject) {
            let (applied, standing) = self.ask(session, &identity_key, order.digest)?;
            counter = standing.counter;
            if applied {
                shared.journal(|journal| journal.settled(unit.id, Some(&order.digest)))?;
                return Ok(Settled::Applied);
            }
        }
        if sent.iter().all(|order| counter < order.counter) {
            return Ok(Settled::NotYet { counter });
        }
        Ok(Settled::Unclear)
    }

    /// Asks the device whether it was locked, so that the registry knows of the order as well: an unknown one would put the keys in doubt.
    pub(super) fn settle_lock(&self, session: &mut Session) -> Result<(), UnitError> {
        let (shared, unit) = (self.shared, self.unit);
        let sent = shared.journal(|journal| journal.sent(unit.id))?;
        let Some(record) = shared.record(unit.device)? else {
            return Ok(());
        };
        let identity_key = record.statement()?.identity_key;
        for order in sent.iter().filter(|order| order.kind == Kind::Lock) {
            self.ask(session, &identity_key, order.digest)?;
        }
        Ok(())
    }

    /// Asks the device for a signed status of an order. If it was applied last, the registry is told.
    fn ask(
        &self,
        session: &mut Session,
        identity_key: &[u8],
        order: Digest,
    ) -> Result<(bool, Standing), UnitError> {
        let nonce = Challenge(random()?);
        let (applied, standing, signed) = flow::signed_status(session, identity_key, order, nonce)?;
        if applied {
            let mut records = lock(self.shared.line.records);
            records.tell(self.unit.device, &Finding::moved(&signed))?;
        }
        Ok((applied, standing))
    }

    /// None of the unit's orders was applied, and none can be any more: they were made for challenges that are gone.
    pub(super) fn not_applied(&self) -> Result<(), UnitError> {
        let (shared, unit) = (self.shared, self.unit);
        let sent = shared.journal(|journal| journal.sent(unit.id))?;
        for order in &sent {
            let mut records = lock(shared.line.records);
            given_up(&mut records, unit.device, &order.digest, STOPPED)?;
        }
        shared.journal(|journal| journal.settled(unit.id, None))?;
        Ok(())
    }

    /// Closes what a stopped station, or a broken line, has left open in the audit log: keys that no order carries, and questions whose
    /// answer is lost.
    /// The device was met anew since, so nothing of it can be applied any more.
    pub(super) fn tidy(&self, visit: &Visit) -> Result<(), UnitError> {
        let mut records = visit.scribe.records();
        let Some(log) = &mut records.audit else {
            return Ok(());
        };
        // The statement that has just come answers an order that is done.
        Ok(close(log, self.unit.device, Some(visit.statement.order))?)
    }
}

/// Closes what is open of a device in the audit log, but for this order.
fn close(log: &mut AuditLog, device: DeviceId, but: Option<Digest>) -> Result<(), AuditError> {
    let keys = log.open_keys().into_iter();
    let mut jobs: Vec<_> = keys
        .filter(|key| key.device == device && key.order.is_none())
        .map(|key| key.job)
        .collect();
    jobs.dedup();
    for job in jobs {
        log.failed(
            Work::Job(job),
            "the device was met anew before an order carried it",
        )?;
    }
    let orders = log.open_orders().into_iter();
    for order in orders.filter(|order| order.device == device) {
        if Some(order.digest) != but {
            log.failed(
                Work::Order(order.digest),
                "its answer never came, and the device was met anew since",
            )?;
        }
    }
    Ok(())
}

/// An order was not applied: both books are told, as far as they know it.
fn given_up(
    records: &mut Records,
    device: DeviceId,
    order: &Digest,
    reason: &str,
) -> Result<(), JobError> {
    if let Some(log) = &mut records.audit {
        let in_keys = log.open_keys().iter().any(|key| key.order == Some(*order));
        let in_orders = log.open_orders().iter().any(|open| open.digest == *order);
        if in_keys || in_orders {
            log.failed(Work::Order(*order), reason)?;
        }
    }
    records.tell(device, &Finding::given_up(order))
}
