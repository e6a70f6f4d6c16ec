//! Whether a receipt answers a detached order, and all of it. A line decides so without an HSM, and the import decides so again.

use keyferry_protocol::order::Body;
use keyferry_protocol::proof::Proof;

use super::error::OfflineError;
use super::order_file::DetachedOrder;
use crate::device::DeviceError;
use crate::device::verify::{self, SignedReceipt, SlotReport, Standing};

/// What a receipt says that answers an order: it was applied.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Where the device stands by it.
    pub standing: Standing,
    /// The slots that it reports, in the order in which they were asked for. The proofs are still to be verified.
    pub reports: Vec<SlotReport>,
}

impl Answer {
    /// How many proofs the HSM has to verify.
    #[must_use]
    pub fn pending(&self) -> usize {
        let demanded = self
            .reports
            .iter()
            .filter(|report| report.proof != Proof::None);
        demanded.count()
    }
}

/// Verifies a receipt against its order: signed by the device that the order is for, answers it, and reports exactly what it asked for.
///
/// # Errors
/// [`OfflineError::Device`] with [`DeviceError::Untrusted`] or [`DeviceError::Refused`].
pub fn check_answer(
    order: &DetachedOrder,
    receipt: &SignedReceipt,
) -> Result<Answer, OfflineError> {
    let device = &order.statement;
    let digest = order.digest();
    let kind = order.header.kind;
    let body = order.body()?;
    let (standing, reports, as_asked) = match &body {
        Body::Inject(inject) => {
            let (standing, reports) = verify::slots(receipt, device, &digest, kind)?;
            let as_asked = reports.len() == inject.entries.len()
                && reports.iter().zip(&inject.entries).all(|(report, entry)| {
                    (report.slot, report.version, report.proof)
                        == (entry.slot, entry.version, entry.proof)
                        && report.attributes == entry.attributes
                });
            (standing, reports, as_asked)
        }
        Body::Prove(prove) => {
            let (standing, reports) = verify::slots(receipt, device, &digest, kind)?;
            let as_asked = reports.len() == prove.slots.len()
                && reports.iter().zip(&prove.slots).all(|(report, asked)| {
                    (report.slot, report.proof) == (asked.slot, asked.proof)
                });
            (standing, reports, as_asked)
        }
        Body::Enroll(_)
        | Body::Remove(_)
        | Body::Rotate(_)
        | Body::Lock
        | Body::Wipe
        | Body::Recover(_) => {
            let standing = verify::done(receipt, device, &digest, kind)?;
            (standing, Vec::new(), true)
        }
    };
    if !as_asked {
        return Err(DeviceError::Untrusted {
            reason: "the receipt does not report what the order asked for",
        }
        .into());
    }
    if standing.counter != order.header.counter {
        return Err(DeviceError::Untrusted {
            reason: "the receipt has another counter than the order",
        }
        .into());
    }
    Ok(Answer { standing, reports })
}
