//! Why a device is not trusted.

use keyferry_protocol::identity::{DeviceId, Fingerprint};
use keyferry_protocol::proof::Level;
use keyferry_protocol::suite::Suite;

use super::ListError;
use crate::certificate::CertificateError;
use crate::error::Exit;
use crate::station::registry::RegistryError;

/// Why a device is not trusted, or a key not injected. In each of them nothing was wrapped.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// There is no enrolment policy, so nothing may be enrolled.
    #[error("device {device} may not be enrolled: no enrolment policy is given")]
    NoEnrolment {
        /// The device.
        device: DeviceId,
    },
    /// There is no visit policy, so no device is the right one.
    #[error("device {device} gets no keys: no visit policy is given")]
    NoVisiting {
        /// The device.
        device: DeviceId,
    },
    /// The firmware was built with a deliberate defect.
    #[error("device {device} runs firmware with a deliberate defect, built for tests of the tests")]
    Sabotaged {
        /// The device.
        device: DeviceId,
    },
    /// The firmware was built for a developer's desk.
    #[error(
        "device {device} runs development firmware, which obeys whichever authority comes first"
    )]
    Development {
        /// The device.
        device: DeviceId,
    },
    /// Its secrets are only a test's.
    #[error("device {device} is a test device: its {part} is of class test")]
    TestDevice {
        /// The device.
        device: DeviceId,
        /// Which of its sources: `rng` or `root key`.
        part: &'static str,
    },
    /// None of the suites that the device offers may be used.
    #[error(
        "device {device} offers no suite that is allowed here (it offers {}; allowed: {})",
        names(offered),
        names(allowed)
    )]
    NoSuite {
        /// The device.
        device: DeviceId,
        /// What its statement offers.
        offered: Vec<Suite>,
        /// What the rules allow.
        allowed: Vec<Suite>,
    },
    /// The key cannot prove itself well enough.
    #[error("key '{label}' can be proved at level '{found}' only, and '{wanted}' is demanded")]
    ProofTooWeak {
        /// The key.
        label: String,
        /// The level it can reach.
        found: Level,
        /// The level that is demanded.
        wanted: Level,
    },
    /// No vendor key speaks for the device.
    #[error(
        "device {device} brings no voucher of a vendor key, and policy vendor-certificate wants one"
    )]
    NoVoucher {
        /// The device.
        device: DeviceId,
    },
    /// The vendor key is not certified for this device.
    #[error("the vendor certificate of device {device} is refused: {source}")]
    VendorCertificate {
        /// The device.
        device: DeviceId,
        /// What is wrong with it.
        source: CertificateError,
    },
    /// The vendor key has not signed these keys and this nonce.
    #[error(
        "the voucher of device {device} is not signed by its vendor key for these keys and this enrolment"
    )]
    VoucherForged {
        /// The device.
        device: DeviceId,
    },
    /// Nobody expects this id.
    #[error("device {device} is not expected: it is not on the list {list}")]
    NotExpected {
        /// The device.
        device: DeviceId,
        /// The list.
        list: String,
    },
    /// The device has no certificate to show.
    #[error("device {device} has no certificate, and policy certificate wants one")]
    NoCertificate {
        /// The device.
        device: DeviceId,
    },
    /// The certificate of its identity key is not believed.
    #[error("the certificate of device {device} is refused: {source}")]
    Certificate {
        /// The device.
        device: DeviceId,
        /// What is wrong with it.
        source: CertificateError,
    },
    /// The allowlist does not know the id.
    #[error("device {device} (identity key {identity}) is not on the allowlist {list}")]
    NotAllowed {
        /// The device.
        device: DeviceId,
        /// The identity key that it showed.
        identity: Fingerprint,
        /// The list.
        list: String,
    },
    /// The allowlist has another key for the id.
    #[error("the identity key of device {device} is {found}, not {expected}")]
    NotTheOne {
        /// The device.
        device: DeviceId,
        /// As the list has it.
        expected: Fingerprint,
        /// That of the device's statement.
        found: Fingerprint,
    },
    /// The registry has never heard of the id.
    #[error("device {device} is not in the registry")]
    Unknown {
        /// The device.
        device: DeviceId,
    },
    /// The registry has let go of the device.
    #[error("device {device} was released from the registry: its old keys count no more")]
    Released {
        /// The device.
        device: DeviceId,
    },
    /// The registry has pinned another identity key.
    #[error("device {device} was enrolled with identity key {expected}, and now shows {found}")]
    OtherIdentity {
        /// The device.
        device: DeviceId,
        /// As pinned.
        expected: Fingerprint,
        /// That of the device's statement.
        found: Fingerprint,
    },
    /// The registry has pinned another unwrap key.
    #[error("device {device} was enrolled with unwrap key {expected}, and now shows {found}")]
    OtherUnwrapKey {
        /// The device.
        device: DeviceId,
        /// As pinned.
        expected: Fingerprint,
        /// That of the device's statement.
        found: Fingerprint,
    },
    /// Another device was enrolled with this identity key.
    #[error("device {device} shows identity key {identity}, which is device {holder}'s")]
    IdentityElsewhere {
        /// The device.
        device: DeviceId,
        /// The identity key.
        identity: Fingerprint,
        /// Whose it is by the registry.
        holder: DeviceId,
    },
    /// The counter is lower than a receipt has shown.
    #[error(
        "the counter of device {device} has gone back from {known} to {found}: its flash holds an older state"
    )]
    CounterWentBack {
        /// The device.
        device: DeviceId,
        /// The highest that a receipt has shown.
        known: u32,
        /// That of the device's statement.
        found: u32,
    },
    /// The epoch is lower than a statement has shown.
    #[error("the authority epoch of device {device} has gone back from {known} to {found}")]
    EpochWentBack {
        /// The device.
        device: DeviceId,
        /// The highest that a statement has shown.
        known: u32,
        /// That of the device's statement.
        found: u32,
    },
    /// The policy rests on a registry, and there is none.
    #[error("policy {policy} needs a registry, and none is given")]
    NeedsRegistry {
        /// The policy's name.
        policy: &'static str,
    },
    /// The registry cannot say.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A list has mistakes.
    #[error(transparent)]
    List(#[from] ListError),
}

impl PolicyError {
    /// The exit code for it.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::List(_) | Self::NeedsRegistry { .. } => Exit::Usage,
            Self::Registry(error) => error.exit(),
            Self::NoEnrolment { .. }
            | Self::NoVisiting { .. }
            | Self::Sabotaged { .. }
            | Self::Development { .. }
            | Self::TestDevice { .. }
            | Self::NoSuite { .. }
            | Self::ProofTooWeak { .. }
            | Self::NoVoucher { .. }
            | Self::VendorCertificate { .. }
            | Self::VoucherForged { .. }
            | Self::NotExpected { .. }
            | Self::NoCertificate { .. }
            | Self::Certificate { .. }
            | Self::NotAllowed { .. }
            | Self::NotTheOne { .. }
            | Self::Unknown { .. }
            | Self::Released { .. }
            | Self::OtherIdentity { .. }
            | Self::OtherUnwrapKey { .. }
            | Self::IdentityElsewhere { .. }
            | Self::CounterWentBack { .. }
            | Self::EpochWentBack { .. } => Exit::Policy,
        }
    }

    /// The next move, for a person.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoEnrolment { .. } => "choose vendor-certificate, serial-list or open",
            Self::NoVisiting { .. } => "choose certificate, allowlist, registry or open",
            Self::Sabotaged { .. } => "flash the real firmware",
            Self::Development { .. } => {
                "flash the production image; on a developer's desk, --allow-development"
            }
            Self::TestDevice { .. } => {
                "put no real keys into it; for test keys, --allow-test-devices"
            }
            Self::NoSuite { .. } => {
                "enrol the device with another kind of unwrap key, or allow one of its suites"
            }
            Self::ProofTooWeak { .. } => {
                "use a key that may sign or make MACs, or demand less with --minimum-proof"
            }
            Self::NoVoucher { .. } => {
                "take the device off the line: the vendor's devices bring a voucher; others need another policy"
            }
            Self::VendorCertificate { source, .. } | Self::Certificate { source, .. } => {
                return source.hint();
            }
            Self::VoucherForged { .. }
            | Self::NotTheOne { .. }
            | Self::IdentityElsewhere { .. }
            | Self::OtherUnwrapKey { .. }
            | Self::EpochWentBack { .. } => {
                "take the device off the line: it is not what it claims to be"
            }
            Self::NotExpected { .. } => {
                "take the device off the line, or have whoever keeps the list put it on"
            }
            Self::NoCertificate { .. } => {
                "have it issued where the device was enrolled, with the next injection"
            }
            Self::NotAllowed { .. } => {
                "compare the fingerprint with the one of its enrolment before you put it on the list"
            }
            Self::Unknown { .. } => "enrol it first, or name the registry it was enrolled in",
            Self::Released { .. } => "enrol it again first",
            Self::OtherIdentity { device, .. } => {
                return Some(format!(
                    "take the device off the line; if it is the same one and was wiped on purpose, run `keyferry registry release --registry REGISTRY --audit LOG --reason WHY {device}` first"
                ));
            }
            Self::CounterWentBack { .. } => {
                "take the device off the line: its flash was put back to an older state, or copied"
            }
            Self::NeedsRegistry { .. } => "name it with --registry or KEYFERRY_REGISTRY",
            Self::Registry(error) => return error.hint(),
            Self::List(_) => "mend the lines and run the command again",
        };
        Some(hint.to_owned())
    }
}

fn names(suites: &[Suite]) -> String {
    if suites.is_empty() {
        return "none".into();
    }
    let names: Vec<_> = suites.iter().map(|suite| suite.name()).collect();
    names.join(", ")
}
