//! Why a device of a line was not done.

use keyferry_protocol::identity::DeviceId;
use keyferry_protocol::receipt::Refusal;

use super::hook::HookError;
use crate::device::DeviceError;
use crate::hsm::HsmError;
use crate::station::JobError;
use crate::station::policy::PolicyError;
use crate::station::registry::RegistryError;

/// Why a device was not done.
#[derive(Debug, thiserror::Error)]
pub enum UnitError {
    /// What any station might say.
    #[error(transparent)]
    Job(JobError),
    /// Somebody has stopped the line.
    #[error("the line was stopped before its keys were sent: it has none of them")]
    Stopped,
    /// The same device is plugged in twice.
    #[error("device {device} is at nest '{other}' as well")]
    Twice {
        /// The device, as it says.
        device: DeviceId,
        /// Where it was first.
        other: String,
    },
    /// The plan wants a serial number.
    #[error("no serial number was given for nest '{nest}'")]
    NoSerial {
        /// The nest.
        nest: String,
    },
    /// The device is known under another serial number.
    #[error(
        "device {device} has the serial number '{known}', and '{given}' was given for its nest"
    )]
    OtherSerial {
        /// The device, as it says.
        device: DeviceId,
        /// What the books say.
        known: String,
        /// What was given.
        given: String,
    },
    /// The registry knows the device, and it does not know itself.
    #[error(
        "device {device} is in the registry, and is blank now: its flash was erased, or it is another device with this id"
    )]
    Erased {
        /// The device, as it says.
        device: DeviceId,
    },
    /// The journal has the device as done, and the registry has never seen it.
    #[error(
        "device {device} was done at this station, and the registry does not know it: it is not the registry that it was"
    )]
    Forgotten {
        /// The device, as it says.
        device: DeviceId,
    },
    /// The plan asks for more than the one that the device was begun with.
    #[error(
        "device {device} has the keys that were asked for when it was begun, and the plan asks for others now"
    )]
    OtherPlan {
        /// The device.
        device: DeviceId,
    },
    /// The plan has asked for a certificate since the device was done.
    #[error("device {device} has its keys, and no certificate, which the plan asks for")]
    NotCertified {
        /// The device.
        device: DeviceId,
    },
    /// The device got another label since it was certified. A certificate that says its id, from before it had a label, is none of these.
    #[error(
        "device {device} has its keys, and its certificate says '{found}', which is neither its label nor its id"
    )]
    OtherCertificate {
        /// The device.
        device: DeviceId,
        /// The serial number in the certificate.
        found: String,
    },
    /// The plan has asked for a key to be exported since the device was done.
    #[error(
        "device {device} has its keys, and the backend has never got the one in slot {slot}, which the plan asks for"
    )]
    NotExported {
        /// The device.
        device: DeviceId,
        /// The slot.
        slot: u16,
    },
    /// A slot holds a key that is not the plan's.
    #[error("slot {slot} of device {device} holds {holds}, which is not the plan's key")]
    OtherKey {
        /// The device, as it says.
        device: DeviceId,
        /// The slot.
        slot: u16,
        /// What the registry says that it holds: label, type and proof.
        holds: String,
    },
    /// A locked device has not got the plan's keys, and takes no others.
    #[error(
        "device {device} is locked, and has not got the plan's keys in this version: it takes no others"
    )]
    Locked {
        /// The device.
        device: DeviceId,
    },
    /// Only devices that the registry knows are wanted.
    #[error(
        "device {device} is not in the registry, or was released from it: there is nothing to rework"
    )]
    NothingToRework {
        /// The device, as it says.
        device: DeviceId,
    },
    /// The hook before the device failed, and the plan says that this counts.
    #[error("{0}; the device was not touched")]
    HookBefore(#[source] HookError),
    /// The hook after the device failed, and the plan says that this counts.
    #[error("{0}; the device is done all the same, and has its keys")]
    HookAfter(#[source] HookError),
    /// A worker of the line ended in the midst of a device.
    #[error("the work on this device broke off by a fault of this program")]
    BrokeOff,
}

impl<E> From<E> for UnitError
where
    JobError: From<E>,
{
    fn from(error: E) -> Self {
        Self::Job(error.into())
    }
}

impl UnitError {
    /// The next move, for a person.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Job(error) => return for_a_line(error),
            Self::Stopped => "run the plan again",
            Self::Twice { .. } => "take both off the line: one of them is not what it claims to be",
            Self::NoSerial { .. } => "scan the label, and plug it in again or run the plan again",
            Self::OtherSerial { .. } => "check label and nest: they may have been mixed up",
            Self::Erased { device } => {
                return Some(format!(
                    "compare it with its label; if it is to begin anew, its old keys count no more: `keyferry registry release --registry REGISTRY --audit LOG --reason WHY {device}`, and try it again"
                ));
            }
            Self::Forgotten { .. } => {
                "put the registry back that the plan names, or its newest backup; where all devices are to begin anew, move the journal away, too"
            }
            Self::OtherPlan { .. } => "try it again: it gets what is missing",
            Self::NotCertified { .. }
            | Self::OtherCertificate { .. }
            | Self::NotExported { .. } => {
                "it was done before that was asked for: replace its keys with --rework, and it gets all that the plan asks for; or raise the version in the plan, and the keys of all devices are replaced; one that is locked has to be wiped first (`keyferry device wipe`)"
            }
            Self::OtherKey { .. } => {
                "look first whether this is the plan for this device (`keyferry registry show`); if it is, raise the version in the plan to replace the keys of all devices, or replace this one's with --rework"
            }
            Self::Locked { .. } => {
                "run the plan that it was done by, or destroy all its keys (`keyferry device wipe`) and begin anew"
            }
            Self::NothingToRework { .. } => "run it without --rework",
            Self::HookBefore(error) => error.hint(),
            Self::HookAfter(_) => {
                "mend the hook and run the plan again: the device passes as done before, and the hook is called again"
            }
            Self::BrokeOff => {
                "run the plan again: the journal knows how far the device has come; and report the fault"
            }
        };
        Some(hint.to_owned())
    }
}

impl UnitError {
    /// Whether the device has all that the plan asks for, all the same.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        matches!(self, Self::HookAfter(_))
    }
}

/// The same errors are met with single commands, of which some have other next moves.
fn for_a_line(error: &JobError) -> Option<String> {
    let hint = match error {
        JobError::Device(
            DeviceError::Disappeared { .. }
            | DeviceError::Restarted { .. }
            | DeviceError::NotDone { .. },
        ) => {
            "check power, cable and nest, plug it in again and run the plan again: what was under way is found out"
        }
        JobError::Device(DeviceError::Unwitnessed(_)) => {
            "check audit log, registry and journal, then run the plan again: what was under way is found out"
        }
        JobError::Device(DeviceError::Refused {
            refusal: Refusal::SlotEmpty,
            ..
        }) => {
            "it has lost keys that it had: find out how; then give it its keys anew with --rework"
        }
        JobError::Registry(RegistryError::NotItsOrder { .. }) => {
            "another station has ordered keys for it since: `keyferry registry show` tells which; give it its keys anew with --rework"
        }
        JobError::SlotRefused { .. } | JobError::Registry(RegistryError::SlotHeld { .. }) => {
            "look first what it holds and why (`keyferry registry show`); if this is the plan for it, give it its keys anew with --rework, or raise the version in the plan to replace those of all devices"
        }
        JobError::ProofWrong { .. } | JobError::OtherVersion { .. } => {
            "do not ship this device; give it its keys anew with --rework"
        }
        JobError::NoCertificate { .. } => "enrol it at the station whose plan has [certificates]",
        JobError::Policy(PolicyError::Unknown { .. }) => {
            "run it with a plan that has [enrolment], or take it off the line"
        }
        JobError::Policy(PolicyError::NoEnrolment { .. }) => {
            "run it with a plan that has [enrolment]"
        }
        JobError::Policy(PolicyError::TestDevice { .. } | PolicyError::Development { .. }) => {
            "not for real keys; a plan for tests says so under [devices]"
        }
        JobError::Hsm(HsmError::NoSession { .. }) => "lower at-once under [limits]",
        JobError::Hsm(_)
        | JobError::Device(_)
        | JobError::Policy(_)
        | JobError::Audit(_)
        | JobError::Registry(_)
        | JobError::Journal(_)
        | JobError::Export(_)
        | JobError::NotEnrolled { .. }
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
        | JobError::ProofTooWeak { .. } => return error.hint(),
    };
    Some(hint.to_owned())
}
