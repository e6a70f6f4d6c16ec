//! Findings: what became of a device, to be told to the registry. While the registry's server is away, the journal keeps them, in their
//! order, and nothing is lost.
//!
//! Telling one twice does no harm: a station that is stopped between the registry and its journal does so.

use keyferry_protocol::identity::{DeviceId, Digest, Fingerprint, Signature};
use serde::{Deserialize, Serialize};

use super::registry::{Registry, RegistryError};
use crate::device::verify::SignedReceipt;

/// What became of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub(super) enum Finding {
    /// It has signed a receipt or a status; both are hexadecimal digits.
    Moved { receipt: String, signature: String },
    /// The proofs of these slots and versions were verified, which came with the answer to an order.
    Proved {
        #[serde(default)]
        order: Option<String>,
        slots: Vec<(u16, u32)>,
    },
    /// These slots and versions do not hold the keys that they should.
    Wrong {
        #[serde(default)]
        order: Option<String>,
        slots: Vec<(u16, u32)>,
    },
    /// It says, signed, that these slots do not hold these versions, which it has had.
    Gone {
        #[serde(default)]
        identity: Option<String>,
        slots: Vec<(u16, u32)>,
    },
    /// Its identity key was certified; hexadecimal digits.
    Certified { certificate: String },
    /// No receipt of this order will come.
    GivenUp { order: String },
    /// It is let go of.
    Released {
        #[serde(default)]
        identity: Option<String>,
        reason: String,
    },
}

impl Finding {
    pub(super) fn moved(signed: &SignedReceipt) -> Self {
        Self::Moved {
            receipt: hex::encode(&signed.bytes),
            signature: hex::encode(signed.signature.to_bytes()),
        }
    }

    pub(super) fn certified(certificate: &[u8]) -> Self {
        Self::Certified {
            certificate: hex::encode(certificate),
        }
    }

    pub(super) fn proved(order: &Digest, slots: Vec<(u16, u32)>) -> Self {
        Self::Proved {
            order: Some(order.to_string()),
            slots,
        }
    }

    pub(super) fn wrong(order: &Digest, slots: Vec<(u16, u32)>) -> Self {
        Self::Wrong {
            order: Some(order.to_string()),
            slots,
        }
    }

    pub(super) fn gone(identity: &Fingerprint, slots: Vec<(u16, u32)>) -> Self {
        Self::Gone {
            identity: Some(identity.to_string()),
            slots,
        }
    }

    pub(super) fn released(identity: &Fingerprint, reason: &str) -> Self {
        Self::Released {
            identity: Some(identity.to_string()),
            reason: reason.to_owned(),
        }
    }

    pub(super) fn given_up(order: &Digest) -> Self {
        Self::GivenUp {
            order: order.to_string(),
        }
    }

    /// Writes it into the registry.
    ///
    /// # Errors
    /// Those of the registry.
    pub(super) fn tell(&self, device: DeviceId, registry: &Registry) -> Result<(), RegistryError> {
        match self {
            Self::Moved { receipt, signature } => {
                let signed = SignedReceipt {
                    bytes: bytes(device, receipt)?,
                    signature: read_signature(device, signature)?,
                };
                match registry.moved(device, &signed) {
                    // A device that a policy has yet to accept, or an answer that will not be believed either.
                    Ok(_)
                    | Err(
                        RegistryError::UnknownDevice { .. } | RegistryError::NotItsReceipt { .. },
                    ) => Ok(()),
                    Err(error) => Err(error),
                }
            }
            Self::Proved { order, slots } => {
                registry.slots_proved(device, &digest_of(device, order.as_deref())?, slots)
            }
            Self::Wrong { order, slots } => {
                registry.slots_failed(device, &digest_of(device, order.as_deref())?, slots)
            }
            Self::Gone { identity, slots } => {
                let identity = digest_of(device, identity.as_deref())?;
                registry.slots_gone(device, Fingerprint(identity.0), slots)
            }
            Self::Certified { certificate } => {
                registry.certified(device, &bytes(device, certificate)?)
            }
            Self::GivenUp { order } => {
                match registry.order_given_up(&digest_of(device, Some(order))?) {
                    // The station was stopped between the books.
                    Ok(()) | Err(RegistryError::UnknownOrder { .. }) => Ok(()),
                    Err(error) => Err(error),
                }
            }
            Self::Released { identity, reason } => {
                let identity = match identity {
                    Some(identity) => Fingerprint(digest_of(device, Some(identity))?.0),
                    // In a journal of before: the one that it has, as nothing passes by that.
                    None => match registry.find(device)? {
                        Some(record) => record.identity,
                        None => return Err(RegistryError::UnknownDevice { device }),
                    },
                };
                registry.release(device, identity, reason)
            }
        }
    }

    /// As [`Finding::tell`], for one that the journal has kept: it may have been told before.
    ///
    /// # Errors
    /// Those of the registry.
    pub(super) fn tell_again(
        &self,
        device: DeviceId,
        registry: &Registry,
    ) -> Result<(), RegistryError> {
        match (self, self.tell(device, registry)) {
            // Or it was enrolled anew since.
            (
                Self::Released { .. },
                Err(RegistryError::Released { .. } | RegistryError::OtherKeys { .. }),
            ) => Ok(()),
            (_, told) => told,
        }
    }
}

fn unreadable(device: DeviceId) -> RegistryError {
    RegistryError::Inconsistent {
        device,
        reason: "the journal's note of it cannot be read",
    }
}

fn bytes(device: DeviceId, text: &str) -> Result<Vec<u8>, RegistryError> {
    hex::decode(text).map_err(|_| unreadable(device))
}

/// What is not said, in journals of before, is nothing's.
fn digest_of(device: DeviceId, text: Option<&str>) -> Result<Digest, RegistryError> {
    let mut digest = Digest::ZERO;
    if let Some(text) = text {
        hex::decode_to_slice(text, &mut digest.0).map_err(|_| unreadable(device))?;
    }
    Ok(digest)
}

fn read_signature(device: DeviceId, text: &str) -> Result<Signature, RegistryError> {
    let mut bytes = [0; Signature::LENGTH];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| unreadable(device))?;
    Ok(Signature::from_bytes(&bytes))
}
