//! Delivering an order of a batch, at a line that has no HSM.

use keyferry_protocol::identity::{Challenge, DeviceId};
use keyferry_protocol::order::{self, Body, Kind};
use keyferry_protocol::receipt::Refusal;

use super::answer::check_answer;
use super::error::OfflineError;
use super::folder::BatchFolder;
use super::order_file::DetachedOrder;
use crate::device::DeviceError;
use crate::device::flow;
use crate::device::port::Port;
use crate::device::session::{OnProgress, Session};
use crate::hsm::random;
use crate::station::JobError;
use crate::station::job::name_slots;

/// How a receipt came into the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The order was delivered now.
    Delivered,
    /// The order had been applied before, and its receipt was lost: the device has given it again.
    Collected,
}

/// A device whose receipt is in the folder now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The device.
    pub device: DeviceId,
    /// What its order asked for.
    pub kind: Kind,
    /// How the receipt came.
    pub how: How,
    /// How many proofs the HSM has to verify when the receipt is brought back.
    pub pending: usize,
}

/// Delivers the order for whatever device is on the port, and keeps its receipt. An order is delivered once: one whose receipt is in
/// the folder is refused, and one that the device has applied is not done again.
///
/// # Errors
/// [`OfflineError::UnknownDevice`], [`OfflineError::OtherKeys`], [`OfflineError::AlreadyDelivered`], [`OfflineError::MovedOn`]; those of
/// [`BatchFolder::order`], [`BatchFolder::receipt`] and [`BatchFolder::keep`]; [`OfflineError::Device`], [`JobError::SlotRefused`].
pub fn deliver(
    folder: &BatchFolder,
    port: Box<dyn Port>,
    on_progress: &mut OnProgress<'_>,
) -> Result<Delivered, OfflineError> {
    let mut session = Session::open(port)?;
    let greeting = session.greeting();
    let device = greeting.device;
    let entry = folder
        .batch()
        .order_for(device)
        .ok_or_else(|| OfflineError::UnknownDevice {
            port: session.port_name(),
            device,
        })?;
    let order = folder.order(entry)?;
    if folder.receipt(entry, &order)?.is_some() {
        return Err(OfflineError::AlreadyDelivered { device });
    }
    // The device's own word, unsigned: a device that lies here gets an order that it cannot use.
    if (greeting.device, greeting.identity) != (order.header.device, order.header.identity) {
        return Err(OfflineError::OtherKeys { device });
    }
    let nonce = Challenge(random()?);
    let identity_key = &order.statement.identity_key;
    let (applied, standing) = flow::status(&mut session, identity_key, order.digest(), nonce)?;
    let moved_on = |counter| OfflineError::MovedOn {
        device,
        counter,
        below: order.below,
    };
    if !applied && standing.counter >= order.below {
        return Err(moved_on(standing.counter));
    }
    let blobs = order.blobs.iter();
    let (receipt, _) = flow::carry_out(&mut session, &order.order, blobs, on_progress)?;
    let answer = match check_answer(&order, &receipt) {
        Err(OfflineError::Device(DeviceError::Refused {
            refusal: Refusal::Stale,
            signed: true,
        })) => return Err(moved_on(standing.counter)),
        Err(error) if error.is_signed_refusal() => {
            folder.keep_refusal(entry, &receipt)?;
            return Err(in_full(&mut session, &order, error));
        }
        result => result?,
    };
    folder.keep(entry, &receipt)?;
    Ok(Delivered {
        device,
        kind: entry.kind,
        how: if applied {
            How::Collected
        } else {
            How::Delivered
        },
        pending: answer.pending(),
    })
}

/// A refusal with the slot that it is about, if it is about one.
fn in_full(session: &mut Session, order: &DetachedOrder, error: OfflineError) -> OfflineError {
    let OfflineError::Device(error) = error else {
        return error;
    };
    let Ok((_, Body::Inject(inject))) = order::decode(&order.order.bytes) else {
        return error.into();
    };
    let slots: Vec<_> = inject.entries.iter().map(|entry| entry.slot).collect();
    let version = inject.entries.first().map_or(0, |entry| entry.version);
    let device = order.statement.device;
    match name_slots(session, device, &slots, version, error) {
        JobError::Device(error) => error.into(),
        named => named.into(),
    }
}
