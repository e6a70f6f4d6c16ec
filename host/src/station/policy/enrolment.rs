//! Which blank devices may be enrolled.

use std::time::SystemTime;

use keyferry_protocol::identity::{DeviceId, Fingerprint};
use keyferry_protocol::receipt::voucher_input;

use super::{History, OPEN, PolicyError, SerialList};
use crate::certificate::{DeviceCa, Document, MAXIMUM_DEVICE_CERTIFICATE, Serial};
use crate::device::verify::{Statement, Voucher, fingerprint, signature_is_valid};

/// Why a blank device may be enrolled.
#[derive(Clone, Debug)]
pub enum Enrolment {
    /// A key that was in the device before vouches for it, and a CA of the vendor for that key.
    VendorCertificate(DeviceCa),
    /// Its id is expected. Each is enrolled once.
    SerialList(SerialList),
    /// The room is trusted.
    Open,
}

impl Enrolment {
    /// The names of all of them.
    pub const NAMES: [&str; 3] = ["vendor-certificate", "serial-list", OPEN];

    /// The name used on command lines, in plans and in records.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::VendorCertificate(_) => "vendor-certificate",
            Self::SerialList(_) => "serial-list",
            Self::Open => OPEN,
        }
    }

    /// Why the device is trusted. What is pinned of it has been compared before.
    pub(super) fn check(
        &self,
        statement: &Statement,
        history: &History,
        now: SystemTime,
    ) -> Result<String, PolicyError> {
        match self {
            Self::VendorCertificate(ca) => vouched(ca, statement, now),
            Self::SerialList(list) => listed(list, statement, history),
            Self::Open => Ok(
                "nothing vouches for the device: whatever is on the port is trusted because the room is"
                    .to_owned(),
            ),
        }
    }
}

fn vouched(ca: &DeviceCa, statement: &Statement, now: SystemTime) -> Result<String, PolicyError> {
    let device = statement.device;
    let Some(Voucher {
        certificate,
        signature,
    }) = &statement.voucher
    else {
        return Err(PolicyError::NoVoucher { device });
    };
    let wrong = |source| PolicyError::VendorCertificate { device, source };
    // The certificate is for the vendor's key, which nothing else names: whoever holds the key shows it by the signature.
    let key = Document::read(certificate, MAXIMUM_DEVICE_CERTIFICATE)
        .and_then(|document| document.key())
        .map_err(wrong)?;
    let accepted = ca
        .check(certificate, key.spki_der(), &Serial::from(device), now)
        .map_err(wrong)?;
    let input = voucher_input(
        &device,
        &statement.nonce,
        &fingerprint(&statement.identity_key),
        &fingerprint(&statement.unwrap_key),
    );
    if !signature_is_valid(key.spki_der(), &input, signature) {
        return Err(PolicyError::VoucherForged { device });
    }
    let vendor: Fingerprint = key.fingerprint();
    Ok(format!(
        "the vendor key {vendor} vouches for its keys; '{}' has certified that key for this id (certificate {}, trusted CA {})",
        accepted.issuer, accepted.fingerprint, accepted.trusted
    ))
}

pub(super) fn expected(list: &SerialList, device: DeviceId) -> Result<(), PolicyError> {
    if list.contains(device) {
        return Ok(());
    }
    Err(PolicyError::NotExpected {
        device,
        list: list.name().to_owned(),
    })
}

fn listed(
    list: &SerialList,
    statement: &Statement,
    history: &History,
) -> Result<String, PolicyError> {
    expected(list, statement.device)?;
    let again = match history {
        // "Once" cannot be known without a memory.
        History::NoRegistry => {
            return Err(PolicyError::NeedsRegistry {
                policy: "serial-list",
            });
        }
        History::New => "for the first time",
        History::Enrolled(_) => "again, with the same keys",
        History::Released => "again, after its release",
    };
    Ok(format!(
        "its id is on the list {} (SHA-256 {}), and it is enrolled {again}",
        list.name(),
        list.digest()
    ))
}
