//! Which enrolled devices are the right ones.

use std::time::SystemTime;

use keyferry_protocol::identity::{DeviceId, Fingerprint};

use super::{Allowlist, History, OPEN, PolicyError};
use crate::certificate::{DeviceCa, Serial};
use crate::device::verify::{Statement, fingerprint};

/// Why a device that was enrolled before is taken for the right one.
#[derive(Clone, Debug)]
pub enum Visiting {
    /// A CA has certified its identity key for its id.
    Certificate(DeviceCa),
    /// Its id and identity key are on a list.
    Allowlist(Allowlist),
    /// Its keys are those that the registry has pinned when it was enrolled.
    Registry,
    /// The room is trusted.
    Open,
}

impl Visiting {
    /// The names of all of them.
    pub const NAMES: [&str; 4] = ["certificate", "allowlist", "registry", OPEN];

    /// The name used on command lines, in plans and in records.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Certificate(_) => "certificate",
            Self::Allowlist(_) => "allowlist",
            Self::Registry => "registry",
            Self::Open => OPEN,
        }
    }

    /// Why the device is trusted. What is pinned of it has been compared before.
    pub(super) fn check(
        &self,
        statement: &Statement,
        certificate: Option<&[u8]>,
        history: &History,
        now: SystemTime,
    ) -> Result<String, PolicyError> {
        match self {
            Self::Certificate(ca) => certified(
                ca,
                statement.device,
                &statement.identity_key,
                certificate,
                now,
            ),
            Self::Allowlist(list) => {
                let identity = fingerprint(&statement.identity_key);
                listed(list, statement.device, identity)?;
                Ok(list.reason(identity))
            }
            Self::Registry => registered(statement, history),
            Self::Open => Ok(
                "nothing vouches for the device: whatever is on the port is trusted because the room is"
                    .to_owned(),
            ),
        }
    }
}

/// Why a CA's certificate makes this identity key the device's.
pub(in crate::station) fn certified(
    ca: &DeviceCa,
    device: DeviceId,
    identity_key: &[u8],
    certificate: Option<&[u8]>,
    now: SystemTime,
) -> Result<String, PolicyError> {
    let Some(certificate) = certificate else {
        return Err(PolicyError::NoCertificate { device });
    };
    let wrong = |source| PolicyError::Certificate { device, source };
    let issued = ca.check_issued(certificate, now).map_err(wrong)?;
    // A product's serial number says nothing of the id, and cannot look like one; what does must be this one. The key binds the
    // certificate to the device in either case.
    let serial = Serial::product(&issued.serial).unwrap_or_else(|_| Serial::from(device));
    let accepted = ca
        .check(certificate, identity_key, &serial, now)
        .map_err(wrong)?;
    Ok(format!(
        "'{}' has certified its identity key (serial number {}, certificate {}, trusted CA {})",
        accepted.issuer, accepted.serial, accepted.fingerprint, accepted.trusted
    ))
}

pub(super) fn listed(
    list: &Allowlist,
    device: DeviceId,
    found: Fingerprint,
) -> Result<(), PolicyError> {
    match list.identity_of(device) {
        None => Err(PolicyError::NotAllowed {
            device,
            identity: found,
            list: list.name().to_owned(),
        }),
        Some(expected) if expected != found => Err(PolicyError::NotTheOne {
            device,
            expected,
            found,
        }),
        Some(_) => Ok(()),
    }
}

fn registered(statement: &Statement, history: &History) -> Result<String, PolicyError> {
    let device = statement.device;
    match history {
        History::NoRegistry => Err(PolicyError::NeedsRegistry { policy: "registry" }),
        History::New => Err(PolicyError::Unknown { device }),
        History::Released => Err(PolicyError::Released { device }),
        History::Enrolled(pin) => Ok(format!(
            "its identity key {} and its unwrap key are those that were pinned when it was enrolled",
            pin.identity
        )),
    }
}
