//! What a device has signed and was kept: a receipt or a status, read for what it says of the device.

use keyferry_protocol::identity::{Challenge, DeviceId, Digest};
use keyferry_protocol::order::Kind;
use keyferry_protocol::receipt::{self, Outcome, State, Status};

use super::RegistryError;
use crate::device::verify::{SignedReceipt, Standing, fingerprint, signature_is_valid};

/// What a signed receipt or a signed status says of a device.
pub(super) struct Signed {
    pub(super) order: Digest,
    pub(super) kind: Option<Kind>,
    /// What became of the order; `None` where a status does not say.
    pub(super) outcome: Option<Outcome>,
    pub(super) state: State,
    pub(super) counter: u32,
    challenge: Option<Challenge>,
}

impl Signed {
    /// Reads and verifies it.
    pub(super) fn read(
        signed: &SignedReceipt,
        device: DeviceId,
        identity_key: &[u8],
    ) -> Result<Self, RegistryError> {
        let wrong = |reason| RegistryError::NotItsReceipt { device, reason };
        if !signature_is_valid(identity_key, &signed.bytes, &signed.signature) {
            return Err(wrong("it is not signed by its identity key"));
        }
        let (named, identity, signed) = if let Ok((header, _)) = receipt::decode(&signed.bytes) {
            let read = Self {
                order: header.order,
                kind: Some(header.kind),
                outcome: Some(header.outcome),
                state: header.state,
                counter: header.counter,
                challenge: Some(header.challenge),
            };
            (header.device, header.identity, read)
        } else {
            let status = Status::decode(&signed.bytes).map_err(|_| wrong("it does not decode"))?;
            let read = Self {
                order: status.order,
                kind: None,
                // "Not the last one applied" says nothing of orders before that.
                outcome: status.applied.then_some(Outcome::Applied),
                state: status.state,
                counter: status.counter,
                challenge: None,
            };
            (status.device, status.identity, read)
        };
        if named != device || identity != fingerprint(identity_key) {
            return Err(wrong("it names another device"));
        }
        Ok(signed)
    }

    /// Where the device stands by it; a status tells no challenge.
    pub(super) fn standing(&self, before: Standing) -> Standing {
        Standing {
            state: self.state,
            counter: self.counter,
            challenge: self.challenge.unwrap_or(before.challenge),
        }
    }
}
