//! What can be wrong with a registry, and with what is to be written into it.

use keyferry_protocol::identity::{DeviceId, Digest, Fingerprint};

use crate::error::Exit;
use crate::station::database::{Fault, Location, LocationError, PasswordError};

/// Why the registry did not do what was asked. Whatever it was, nothing of it was written.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// What is named as a registry is none, or should not be.
    #[error(transparent)]
    Location(#[from] LocationError),
    /// The password file for a server.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The server cannot be reached, or has gone in the midst of something.
    #[error("the registry {registry} is away: {reason}{}", if *unsure { "; whether the last change was written is not known yet" } else { "" })]
    Away {
        /// Where it is.
        registry: Location,
        /// What was found.
        reason: String,
        /// Whether it went in the midst of a commit, so that the change may have been written.
        unsure: bool,
    },
    /// The server does not let the station in, or is not the one that it should be.
    #[error("the registry {registry} does not let this station in: {reason}")]
    Refused {
        /// Where it is.
        registry: Location,
        /// What was found.
        reason: String,
    },
    /// What was written might be lost, or not be what was given.
    #[error("the registry {registry} cannot be relied on: {setting} is {found}")]
    Setting {
        /// Where it is.
        registry: Location,
        /// The setting of the server or the file.
        setting: &'static str,
        /// Its value.
        found: String,
    },
    /// There is no such file.
    #[error("there is no registry {registry}")]
    Missing {
        /// Where it is.
        registry: Location,
    },
    /// The file is something else.
    #[error("{registry} is no keyferry registry")]
    NotARegistry {
        /// Where it is.
        registry: Location,
    },
    /// A newer program has written it.
    #[error(
        "the registry {registry} has schema version {found}; this program knows versions up to {known}"
    )]
    Newer {
        /// Where it is.
        registry: Location,
        /// Its version.
        found: i64,
        /// The newest that is known here.
        known: i64,
    },
    /// The database is damaged.
    #[error("the registry {registry} is damaged: {reason}")]
    Damaged {
        /// Where it is.
        registry: Location,
        /// What was found.
        reason: String,
    },
    /// Others have kept it busy for too long.
    #[error("the registry {registry} was busy for {seconds} s")]
    Busy {
        /// Where it is.
        registry: Location,
        /// How long was waited, in seconds.
        seconds: u64,
    },
    /// The database failed in another way.
    #[error("the registry {registry} failed: {source}")]
    Database {
        /// Where it is.
        registry: Location,
        /// What it said.
        source: Fault,
    },
    /// A record does not hold together: what was signed says something else than what stands beside it.
    #[error("the registry's record of device {device} cannot be believed: {reason}")]
    Inconsistent {
        /// The device.
        device: DeviceId,
        /// What is wrong.
        reason: &'static str,
    },
    /// No such device.
    #[error("device {device} is not in the registry")]
    UnknownDevice {
        /// The device.
        device: DeviceId,
    },
    /// The device was released: nothing may be made for its old keys.
    #[error("device {device} was released from the registry")]
    Released {
        /// The device.
        device: DeviceId,
    },
    /// The id was enrolled with other keys.
    #[error("device {device} is in the registry with identity key {expected}, not {found}")]
    OtherKeys {
        /// The device.
        device: DeviceId,
        /// As pinned.
        expected: Fingerprint,
        /// What was to be written.
        found: Fingerprint,
    },
    /// The identity key was enrolled under another id, or once before.
    #[error("device {device} shows a key that the registry has of device {holder}")]
    KeyTaken {
        /// The device.
        device: DeviceId,
        /// Whose key it is.
        holder: DeviceId,
    },
    /// The device has another serial number on its label.
    #[error("device {device} has the serial number '{known}', and '{given}' was given")]
    OtherSerial {
        /// The device.
        device: DeviceId,
        /// What the registry has.
        known: String,
        /// What was given.
        given: String,
    },
    /// Another device has that serial number.
    #[error("serial number '{serial}' is device {holder}'s already, and this is device {device}")]
    SerialTaken {
        /// The device that it was given for.
        device: DeviceId,
        /// The serial number.
        serial: String,
        /// Whose it is.
        holder: DeviceId,
    },
    /// A receipt that is not this device's.
    #[error("the receipt is not one of device {device}: {reason}")]
    NotItsReceipt {
        /// The device.
        device: DeviceId,
        /// What is wrong.
        reason: &'static str,
    },
    /// A statement older than one that is known.
    #[error(
        "the statement of device {device} is older than what the registry knows (counter {found}, known {known})"
    )]
    Older {
        /// The device.
        device: DeviceId,
        /// The highest counter that a receipt has shown.
        known: u32,
        /// That of the statement.
        found: u32,
    },
    /// An order that is not for this device.
    #[error("the order cannot be kept: {reason}")]
    NotItsOrder {
        /// What is wrong.
        reason: &'static str,
    },
    /// No such order.
    #[error("order {order} is not in the registry")]
    UnknownOrder {
        /// Its digest.
        order: Digest,
    },
    /// A random key of an order cannot be kept, or was not.
    #[error("the key for slot {slot} of order {order} cannot be kept: {reason}")]
    NotKept {
        /// The order.
        order: Digest,
        /// The slot.
        slot: u16,
        /// What is wrong.
        reason: &'static str,
    },
    /// Another detached order with this counter may still be applied.
    #[error("another order with counter {counter} is on its way to device {device}")]
    CounterTaken {
        /// The device.
        device: DeviceId,
        /// The counter.
        counter: u32,
    },
    /// The numbers that orders have are used up.
    #[error("the counter of device {device} leaves no number for another order")]
    CounterSpent {
        /// The device.
        device: DeviceId,
    },
    /// A key of this version is in the slot.
    #[error("slot {slot} of device {device} holds a key of version {version} or higher")]
    SlotHeld {
        /// The device.
        device: DeviceId,
        /// The slot.
        slot: u16,
        /// The version.
        version: u32,
    },
    /// Nothing of that version was ever ordered for the slot.
    #[error("slot {slot} of device {device} has no key of version {version} in the registry")]
    UnknownSlot {
        /// The device.
        device: DeviceId,
        /// The slot.
        slot: u16,
        /// The version.
        version: u32,
    },
    /// The system's clock is before 1970 or after 9999.
    #[error("the system's clock shows no time that can be written down")]
    Clock,
}

impl RegistryError {
    /// Whether it is only that the server is away: then it may be tried again.
    #[must_use]
    pub const fn is_away(&self) -> bool {
        matches!(self, Self::Away { .. })
    }

    /// The exit code for it.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Location(_)
            | Self::Password(_)
            | Self::Refused { .. }
            | Self::Setting { .. }
            | Self::Missing { .. }
            | Self::NotARegistry { .. }
            | Self::Newer { .. }
            | Self::UnknownDevice { .. }
            | Self::UnknownOrder { .. }
            | Self::UnknownSlot { .. }
            | Self::OtherSerial { .. }
            | Self::SerialTaken { .. } => Exit::Usage,
            Self::Away { .. }
            | Self::Damaged { .. }
            | Self::Busy { .. }
            | Self::Database { .. }
            | Self::CounterTaken { .. }
            | Self::CounterSpent { .. }
            | Self::SlotHeld { .. }
            | Self::NotKept { .. }
            | Self::Clock => Exit::JobFailed,
            Self::Inconsistent { .. }
            | Self::Released { .. }
            | Self::OtherKeys { .. }
            | Self::KeyTaken { .. }
            | Self::NotItsReceipt { .. }
            | Self::NotItsOrder { .. }
            | Self::Older { .. } => Exit::Policy,
        }
    }

    /// The next move, for a person.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Location(error) => error.hint(),
            Self::Password(error) => return Some(error.hint()),
            Self::Away { unsure: false, .. } => {
                "see that the server runs and that its host and port are the right ones, then run the command again"
            }
            Self::Away { unsure: true, .. } => {
                "when the server is back, look with `keyferry registry show`; what was written is not written twice"
            }
            Self::Refused { .. } => {
                "check user, database, password file and the CA in sslrootcert; the server's log says more"
            }
            Self::Setting {
                registry: Location::File(_),
                ..
            } => "keep the file on a disk of this computer",
            Self::Setting { .. } => {
                "have the server's administrator set fsync = on, and make the database with the encoding UTF8"
            }
            Self::Missing { .. } => {
                "check the name; `keyferry device enroll --registry FILE` begins one"
            }
            Self::NotARegistry { .. } => "check the name after --registry",
            Self::Newer { .. } => "update this program",
            Self::Damaged { .. } => {
                "put the file aside and take the last backup; receipts in the audit log tell what is newer"
            }
            Self::Busy { .. } => "see which other program has it open, then run the command again",
            Self::Database { .. } => {
                "check the disk, and the rights to the file and its folder, or of the role on the server"
            }
            Self::Inconsistent { .. } => {
                "somebody has changed the registry by other means: take the last backup"
            }
            Self::UnknownDevice { .. } => {
                "see `keyferry registry list`; the id has 32 hexadecimal digits"
            }
            Self::Released { .. } => "enrol it again first",
            Self::OtherKeys { device, .. } => {
                return Some(format!(
                    "take the device off the line; if it is the same one and was wiped on purpose, run `keyferry registry release --registry REGISTRY --audit LOG --reason WHY {device}` first"
                ));
            }
            Self::KeyTaken { .. } | Self::NotItsReceipt { .. } | Self::Older { .. } => {
                "take the device off the line: it is not what it claims to be"
            }
            Self::OtherSerial { device, .. } => {
                return Some(format!(
                    "check label and device; if it has a new label: `keyferry registry release --registry REGISTRY --audit LOG --reason WHY {device}`, then enrol it again with that label (`keyferry device enroll --serial`)"
                ));
            }
            Self::SerialTaken { .. } => {
                "check the labels of both: `keyferry registry show DEVICE-ID` tells which number each has; they may have been mixed up"
            }
            Self::NotKept { .. } => "make a new order for the device",
            Self::NotItsOrder { .. } => "make a new order for the device",
            Self::UnknownOrder { .. } => "name the registry that the order was made with",
            Self::CounterTaken { .. } => "run the command again",
            Self::CounterSpent { .. } => {
                "take the device out of service: it takes no order any more"
            }
            Self::SlotHeld { .. } => "give a higher --version to replace the key",
            Self::UnknownSlot { .. } => "see `keyferry registry show`",
            Self::Clock => "set the clock",
        };
        Some(hint.to_owned())
    }
}
