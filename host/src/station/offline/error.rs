//! What can be wrong with detached orders and their receipts.

use std::path::PathBuf;

use keyferry_protocol::identity::{DeviceId, Digest, Fingerprint};
use keyferry_protocol::receipt::Refusal;

use super::batch::MAXIMUM_ORDERS;
use crate::device::DeviceError;
use crate::export::ExportError;
use crate::hsm::HsmError;
use crate::station::JobError;
use crate::station::registry::RegistryError;

/// Why an order was not prepared, delivered or brought back.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The folder, or a document in it.
    #[error(transparent)]
    Document(#[from] ExportError),
    /// The device or the line.
    #[error(transparent)]
    Device(DeviceError),
    /// The HSM, or what it was to do for a device.
    #[error(transparent)]
    Job(#[from] JobError),
    /// There is no registry.
    #[error("detached orders need the registry, which knows the devices")]
    NoRegistry,
    /// No device was named.
    #[error("there is no device to prepare an order for")]
    NoDevices,
    /// The orders are in an audit log, and none was named.
    #[error("the order for device {device} is in an audit log, and none was named")]
    NeedsLog {
        /// The device.
        device: DeviceId,
    },
    /// The order is not in the audit log.
    #[error("the order for device {device} is not in this audit log")]
    NotInLog {
        /// The device.
        device: DeviceId,
    },
    /// A random key is not kept, or another one is.
    #[error("the random key for slot {slot} of device {device} is not in the registry")]
    NotKept {
        /// The device.
        device: DeviceId,
        /// The slot.
        slot: u16,
    },
    /// Proofs are wrong.
    #[error(
        "{devices} devices do not hold the right keys; the first is {first}, slots {}",
        slots.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    Wrong {
        /// How many.
        devices: usize,
        /// The first of them.
        first: DeviceId,
        /// Its slots.
        slots: Vec<u16>,
    },
    /// The device obeys another authority.
    #[error("device {device} obeys the authority {found}, not {expected}")]
    OtherAuthority {
        /// The device.
        device: DeviceId,
        /// Ours.
        expected: Fingerprint,
        /// That of its statement.
        found: Fingerprint,
    },
    /// The order would be too far ahead of the device.
    #[error(
        "the next order for device {device} would have counter {counter}, which is too far from the device's {own}"
    )]
    TooFar {
        /// The device.
        device: DeviceId,
        /// Its counter.
        own: u32,
        /// That of the order.
        counter: u32,
    },
    /// Random keys need a key that they are kept under.
    #[error("random keys need a key of the token that they are kept under until they are proved")]
    KeepUnder,
    /// More orders than a batch may have.
    #[error("a batch has at most {MAXIMUM_ORDERS} orders, not {0}")]
    TooMany(usize),
    /// The system's clock stands outside the years 1970 to 9999.
    #[error("the system's clock does not show a date")]
    Clock,
    /// A file is not the one that was signed for.
    #[error("'{name}' is not the file that was signed for (SHA-256 {found}, not {expected})")]
    OtherFile {
        /// Its name.
        name: String,
        /// The digest in the manifest.
        expected: Digest,
        /// That of the file.
        found: Digest,
    },
    /// An order that cannot be used.
    #[error("the order for device {device} cannot be used: {reason}")]
    BadOrder {
        /// The device.
        device: DeviceId,
        /// What is wrong.
        reason: &'static str,
    },
    /// An order that somebody else has signed.
    #[error("the order for device {device} is not signed by {authority}")]
    NotSigned {
        /// The device.
        device: DeviceId,
        /// The authority that should have signed it.
        authority: Fingerprint,
    },
    /// The statement beside an order is not the device's.
    #[error("the statement of device {device} beside its order does not verify: {source}")]
    BadStatement {
        /// The device.
        device: DeviceId,
        /// Why not.
        source: DeviceError,
    },
    /// A receipt that does not answer its order.
    #[error("{} does not answer the order for device {device}: {reason}", path.display())]
    BadReceipt {
        /// The device.
        device: DeviceId,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The batch has no order for this device.
    #[error("device {device} on '{port}' has no order in this batch")]
    UnknownDevice {
        /// The port.
        port: String,
        /// The device.
        device: DeviceId,
    },
    /// The device has other keys than the order is for.
    #[error("device {device} has other keys now than its order was made for")]
    OtherKeys {
        /// The device.
        device: DeviceId,
    },
    /// The receipt is there.
    #[error("the order for device {device} was delivered; its receipt is in the folder")]
    AlreadyDelivered {
        /// The device.
        device: DeviceId,
    },
    /// The device has carried out later orders.
    #[error(
        "the order for device {device} is out of date: the device's counter is {counter}, and the order was good below {below}"
    )]
    MovedOn {
        /// The device.
        device: DeviceId,
        /// Its counter.
        counter: u32,
        /// The order's bound.
        below: u32,
    },
    /// Not all ports were served.
    #[error("{failed} of {ports} ports failed; the first: {first}")]
    Several {
        /// How many failed.
        failed: usize,
        /// How many there were.
        ports: usize,
        /// What happened on the first of those.
        first: Box<Self>,
    },
}

impl From<RegistryError> for OfflineError {
    fn from(error: RegistryError) -> Self {
        Self::Job(error.into())
    }
}

impl From<HsmError> for OfflineError {
    fn from(error: HsmError) -> Self {
        Self::Job(error.into())
    }
}

impl From<DeviceError> for OfflineError {
    /// What a book forbids is said as what it is.
    fn from(error: DeviceError) -> Self {
        match JobError::from(error) {
            JobError::Device(error) => Self::Device(error),
            other => Self::Job(other),
        }
    }
}

impl OfflineError {
    /// Whether the device has refused the order, and signed that.
    #[must_use]
    pub const fn is_signed_refusal(&self) -> bool {
        matches!(
            self,
            Self::Device(DeviceError::Refused { signed: true, .. })
        )
    }

    /// Whether it is one device's alone: its receipt is none, or it has been released since, or has other keys. Others' receipts can be brought back
    /// all the same.
    #[must_use]
    pub const fn is_one_devices(&self) -> bool {
        matches!(
            self,
            Self::BadReceipt { .. }
                | Self::Job(JobError::Registry(
                    RegistryError::Released { .. }
                        | RegistryError::NotItsReceipt { .. }
                        | RegistryError::NotItsOrder { .. }
                ))
        )
    }

    /// The next move, for a person.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Document(error) => return error.hint(),
            Self::Job(error) => return error.hint(),
            Self::NoRegistry => "name it with --registry",
            Self::NoDevices => "see `keyferry registry list`; devices are enrolled first",
            Self::NeedsLog { .. } => "name it with --audit",
            Self::NotInLog { .. } => {
                "name the audit log that was kept when the orders were prepared, or none if there was none"
            }
            Self::NotKept { .. } => "name the registry that the orders were prepared with",
            Self::Wrong { .. } => {
                "do not ship these devices: prepare the keys again with a higher --version"
            }
            Self::OtherAuthority { .. } => {
                "use the key of that authority, or have the device state itself anew"
            }
            Self::TooFar { .. } => {
                "bring the receipts of earlier orders back first: `keyferry audit import`"
            }
            Self::KeepUnder => "name one with --keep-under: key create --type aes-256 --usage keep",
            Self::TooMany(_) => "make several batches",
            Self::Clock => "set the clock",
            Self::Device(DeviceError::Refused {
                refusal: Refusal::BadSignature,
                ..
            }) => "the device obeys another authority now: have it state itself and prepare anew",
            Self::Device(error) => return Some(error.hint().to_owned()),
            Self::OtherFile { .. }
            | Self::BadOrder { .. }
            | Self::NotSigned { .. }
            | Self::BadStatement { .. } => {
                "do not use the folder; ask for it again where the HSM is"
            }
            Self::BadReceipt { .. } => {
                "put the file aside, and `keyferry order deliver` asks the device for its receipt again"
            }
            Self::UnknownDevice { .. } => {
                "check the batch with `keyferry order show`, and that this is the right device"
            }
            Self::OtherKeys { .. } => {
                "take it off the line; if it was wiped and enrolled again, prepare a new order for it"
            }
            Self::AlreadyDelivered { .. } => {
                "bring the folder back to the HSM: `keyferry audit import`"
            }
            Self::MovedOn { .. } => "prepare a new order for it where the HSM is",
            Self::Several { first, .. } => return first.hint(),
        };
        Some(hint.into())
    }
}
