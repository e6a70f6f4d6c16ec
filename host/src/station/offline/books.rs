//! What is written down of detached orders, in the same words as of all others: only the times differ.

use keyferry_protocol::identity::{DeviceId, Digest};
use keyferry_protocol::order::Kind;
use keyferry_protocol::proof::Proof;

use super::error::OfflineError;
use super::order_file::DetachedOrder;
use crate::audit::{AuditLog, Event, Failed, Work};
use crate::device::verify::{SignedReceipt, SlotReport, Statement};
use crate::station::policy::Trust;
use crate::station::registry::{OrderState, RegistryError, SlotState};
use crate::station::{JobError, Records, Scribe, Target};

/// A policy has accepted a device that is not there, by the statement that was kept of it. The statement goes into the log: it may have
/// answered an order of another one.
pub(super) fn known(
    scribe: &Scribe,
    device: &Statement,
    trust: &Trust,
) -> Result<(), OfflineError> {
    if let Some(log) = &mut scribe.records().audit {
        log.trusted_by_statement(device, trust.policy, &trust.reason)
            .map_err(JobError::from)?;
    }
    Ok(())
}

/// Keeps the random keys of an order until their proofs have come.
pub(super) fn keep(scribe: &Scribe, order: &Digest, fresh: &[Target]) -> Result<(), OfflineError> {
    if let Some(registry) = &scribe.records().registry {
        for target in fresh {
            registry.keep_key(order, target.slot, &target.key)?;
        }
    }
    Ok(())
}

/// An order is given up.
pub(super) fn given_up(records: &mut Records, order: &Digest, why: &str) -> Result<(), JobError> {
    if let Some(log) = &mut records.audit {
        log.failed(Work::Order(*order), why)?;
    }
    if let Some(registry) = &records.registry {
        registry.order_given_up(order)?;
        registry.release_keys(order)?;
    }
    Ok(())
}

/// What the books say of an order whose receipt has come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// What the registry says.
    pub(super) state: OrderState,
    /// Whether something in the books waits for its proofs.
    pub(super) open: bool,
}

impl Written {
    /// Whether there is nothing more to write.
    pub(super) fn is_done(self) -> bool {
        self.state == OrderState::Applied && !self.open
    }
}

/// Looks an order up in the books.
pub(super) fn look_up(
    records: &mut Records,
    order: &DetachedOrder,
) -> Result<Written, OfflineError> {
    let digest = order.digest();
    let device = order.statement.device;
    let registry = records.registry.as_ref().ok_or(OfflineError::NoRegistry)?;
    let known = registry
        .order(&digest)?
        .ok_or(RegistryError::UnknownOrder { order: digest })?;
    let slots = registry.slots(device)?;
    let mut open = slots.iter().any(|slot| {
        slot.order == digest && slot.state == SlotState::Pending && slot.proof != Proof::None
    });
    match &mut records.audit {
        Some(log) => {
            if order.header.audit_head == Digest::ZERO {
                return Err(OfflineError::NotInLog { device });
            }
            let in_log = is_open(log, &digest);
            // What is done is in the log as well, unless it is another log.
            if !in_log && known.state != OrderState::Applied && !holds(log, &digest)? {
                return Err(OfflineError::NotInLog { device });
            }
            open |= in_log;
        }
        None if order.header.audit_head != Digest::ZERO => {
            return Err(OfflineError::NeedsLog { device });
        }
        None => {}
    }
    Ok(Written {
        state: known.state,
        open,
    })
}

/// The slots of these reports whose keys are not the right ones, by the registry: whichever order has brought them, and whichever has found that out.
pub(super) fn failed(
    records: &Records,
    device: DeviceId,
    reports: &[SlotReport],
) -> Result<Vec<u16>, OfflineError> {
    let registry = records.registry.as_ref().ok_or(OfflineError::NoRegistry)?;
    let slots = registry.slots(device)?;
    let has_failed = |report: &&SlotReport| {
        slots.iter().any(|slot| {
            (slot.slot, slot.version, slot.state)
                == (report.slot, report.version, SlotState::Failed)
        })
    };
    Ok(reports
        .iter()
        .filter(has_failed)
        .map(|report| report.slot)
        .collect())
}

fn is_open(log: &AuditLog, order: &Digest) -> bool {
    log.open_keys().iter().any(|key| key.order == Some(*order))
        || log.open_orders().iter().any(|open| open.digest == *order)
}

fn holds(log: &mut AuditLog, order: &Digest) -> Result<bool, OfflineError> {
    Ok(log.holds_order(order).map_err(JobError::from)?)
}

/// Writes an answer down that was verified, with what the HSM says of its proofs. The registry learns last that the order was applied:
/// an import that is cut off before is simply done again.
pub(super) fn imported(
    records: &mut Records,
    order: &DetachedOrder,
    receipt: &SignedReceipt,
    right: &[&SlotReport],
    wrong: &[&SlotReport],
) -> Result<(), JobError> {
    let digest = order.digest();
    let device = order.statement.device;
    if let Some(log) = &mut records.audit {
        log.answered(&digest, receipt)?;
        if is_open(log, &digest) {
            if !right.is_empty() {
                let slots = right.iter().map(|report| (report.slot, report.proof));
                log.proved(device, &digest, slots)?;
            }
            if !wrong.is_empty() {
                // Keys of an order fail one by one; a mere request for proofs fails as a whole.
                let slots = match order.header.kind {
                    Kind::Inject => wrong.iter().map(|report| report.slot).collect(),
                    Kind::Enroll
                    | Kind::Prove
                    | Kind::Remove
                    | Kind::Rotate
                    | Kind::Lock
                    | Kind::Wipe => Vec::new(),
                };
                log.append(Event::Failed(Failed {
                    work: Work::Order(digest),
                    slots,
                    reason: "the proof is not the one that the HSM's key gives".into(),
                }))?;
            }
        }
    }
    if let Some(registry) = &records.registry {
        // Receipts come back in any order: that of a removal, or of a newer key, may have been here before.
        let slots = registry.slots(device)?;
        let gone = |place: &(u16, u32)| {
            slots
                .iter()
                .any(|slot| (slot.slot, slot.version) == *place && slot.state == SlotState::Removed)
        };
        let places = |reports: &[&SlotReport]| -> Vec<_> {
            let places = reports.iter().map(|report| (report.slot, report.version));
            places.filter(|place| !gone(place)).collect()
        };
        registry.slots_proved(device, &digest, &places(right))?;
        registry.slots_failed(device, &digest, &places(wrong))?;
        registry.moved(device, receipt)?;
        for report in right {
            registry.release_key(&digest, report.slot)?;
        }
    }
    Ok(())
}

/// Writes down that a device has refused an order. It may still be delivered.
pub(super) fn refused(
    records: &mut Records,
    order: &DetachedOrder,
    receipt: &SignedReceipt,
) -> Result<(), JobError> {
    if let Some(log) = &mut records.audit {
        log.answered(&order.digest(), receipt)?;
    }
    if let Some(registry) = &records.registry {
        registry.moved(order.statement.device, receipt)?;
    }
    Ok(())
}
