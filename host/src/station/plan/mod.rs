//! Plans: what a station does with every device, in one TOML file that a person writes once and a line runs for years.
//!
//! A plan with a mistake is not used, not even the rest of it, and all its mistakes are told at once ([`PlanError`]). Nothing is trusted
//! by default, and there is no field that the station does not carry out. A plan names files, labels and policies; it must never
//! hold a secret: a PIN comes from where the token's URI says, or from a prompt.
//!
//! Reading a plan touches nothing but its text. What it names is looked at by whoever runs it. The guide is `host/STATION.md`.

mod check;
mod entry;
mod kind;
mod mistake;
mod read;
mod schema;
mod table;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use keyferry_protocol::identity::{Digest, Fingerprint};
use keyferry_protocol::proof::Level;
use keyferry_protocol::suite::{Suite, UnwrapAlgorithm};

pub use kind::{MAXIMUM_PORTS, MAXIMUM_VERSION, is_cut, nest as check_nest};
pub use mistake::{Mistake, Place, PlanError, What};
pub use schema::schema;
pub use watch::WatchPlan;

use crate::device::verify::digest;
use crate::hsm::{DeviceUse, KeyType};

/// Longest plan in bytes.
pub const MAXIMUM_PLAN: usize = 256 * 1024;

/// Most devices that are worked on at the same time, unless the plan says something else.
const AT_ONCE: usize = 64;

/// How long devices wait while the registry's server is away, in seconds, unless the plan says something else.
const REGISTRY_WAIT: u32 = 300;

/// How many seconds a hook may take, unless the plan says something else.
const HOOK_SECONDS: u32 = 10;

/// A plan.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What people call the job.
    pub name: String,
    /// SHA-256 of the file.
    pub digest: Digest,
    /// The station's journal.
    pub journal: PathBuf,
    /// The registry: a file, or the URL of a server ([`Location`](super::registry::Location)).
    pub registry: PathBuf,
    /// The file with the password for that server.
    pub registry_password: Option<PathBuf>,
    /// The audit log.
    pub audit: Option<File>,
    /// The token and the labels of the keys on it.
    pub hsm: TokenPlan,
    /// Certificates of devices.
    pub certificates: Option<CertificatePlan>,
    /// Devices of tests are allowed.
    pub allow_test_devices: bool,
    /// Firmware of a developer's desk is allowed.
    pub allow_development: bool,
    /// Every device needs the serial number of its label.
    pub serials: bool,
    /// Which blank devices may be enrolled.
    pub enrolment: Option<EnrolmentPlan>,
    /// Kind of unwrap key that a blank device makes.
    pub unwrap: UnwrapAlgorithm,
    /// Which enrolled devices are the right ones.
    pub visit: VisitPlan,
    /// The version of all keys.
    pub version: u32,
    /// The suites by which keys may travel.
    pub suites: Vec<Suite>,
    /// The weakest proof of a key that counts.
    pub minimum_proof: Level,
    /// The keys; no two for one slot.
    pub keys: Vec<KeyPlan>,
    /// Who gets devices' own keys as well.
    pub backend: Option<BackendPlan>,
    /// Devices are locked when they have their keys.
    pub lock: bool,
    /// A program that is called before and after each device.
    pub hook: Option<HookPlan>,
    /// When the station stops by itself.
    pub limits: Limits,
    /// Where devices are plugged in.
    pub ports: Vec<PortPlan>,
    /// Where else devices are looked for by a station that stays.
    pub watch: Vec<WatchPlan>,
}

/// A file that a plan names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// As it stands in the plan, seen from the plan's folder.
    pub path: PathBuf,
    /// Where it stands in the plan.
    pub place: Place,
}

/// The token and the keys that work for the station.
#[derive(Clone, Debug)]
pub struct TokenPlan {
    /// Its PKCS#11 URI.
    pub token: String,
    /// Label of the key that signs orders.
    pub authority: String,
    /// Label of the key that signs the audit log.
    pub audit_key: Option<String>,
    /// Label of the key that random keys of devices are kept under.
    pub keep_under: Option<String>,
}

/// How devices get certificates.
#[derive(Clone, Debug)]
pub struct CertificatePlan {
    /// Label of the CA's key.
    pub key: String,
    /// The CA's certificate.
    pub ca: File,
    /// Who makes the devices.
    pub organization: Option<String>,
}

/// Who gets devices' own keys as well.
#[derive(Clone, Debug)]
pub struct BackendPlan {
    /// Its public key file.
    pub key: File,
    /// SHA-256 of its key's `SubjectPublicKeyInfo`.
    pub fingerprint: Fingerprint,
    /// Where the folders are made.
    pub folder: PathBuf,
    /// Label of the key that signs the manifests.
    pub sign_with: String,
    /// Whether it takes keys with zeros behind them.
    pub allow_zero_tail: bool,
}

/// Which blank devices may be enrolled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnrolmentPlan {
    /// A vendor's key vouches for them, certified by one of these CAs.
    VendorCertificate(Vec<File>),
    /// Their ids are in this file.
    SerialList(File),
    /// The room is trusted.
    Open,
}

/// Which enrolled devices are the right ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VisitPlan {
    /// One of these CAs has certified them.
    Certificate(Vec<File>),
    /// They are in this file.
    Allowlist(File),
    /// The registry has pinned them.
    Registry,
    /// The room is trusted.
    Open,
}

/// A key for every device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPlan {
    /// The slot.
    pub slot: u16,
    /// Where it comes from.
    pub source: KeySource,
    /// Whether the backend gets it as well.
    pub export: bool,
    /// What the device uses it for, if it is said.
    pub device_use: Option<DeviceUse>,
    /// Where it stands in the plan.
    pub place: Place,
}

/// Where a key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// The token has it: the same for every device.
    Token {
        /// Its label.
        label: String,
    },
    /// It is made at random for each device.
    Fresh {
        /// The slot's label.
        label: String,
        /// Algorithm and size.
        key_type: KeyType,
    },
    /// It is derived for each device.
    Master {
        /// Label of the key that it is derived from.
        master: String,
        /// The slot's label.
        label: String,
        /// Algorithm and size.
        key_type: KeyType,
    },
}

impl KeySource {
    /// The label that the key has in its slot.
    #[must_use]
    pub fn label(&self) -> &str {
        match self {
            Self::Token { label } | Self::Fresh { label, .. } | Self::Master { label, .. } => label,
        }
    }
}

/// A program that is called before and after each device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookPlan {
    /// The program.
    pub program: File,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// How long it may take, in seconds.
    pub seconds: u32,
    /// What its failure before a device means; none if it is not called then.
    pub before: Option<OnFailure>,
    /// What its failure after a device means; none if it is not called then.
    pub after: Option<OnFailure>,
}

/// What the failure of a hook means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// The device has failed.
    Fail,
    /// It is told, and nothing else.
    Warn,
}

/// When the station stops by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most devices that are begun in a run.
    pub devices: Option<u32>,
    /// After so many failures one after the other no device is begun.
    pub failures_in_a_row: Option<u32>,
    /// Most devices that are worked on at the same time.
    pub at_once: usize,
    /// How long devices wait while the registry's server is away.
    pub registry_wait: Duration,
}

/// A place where a device is plugged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortPlan {
    /// The port's name. Whoever reads the plan from a file sees a relative path in it from the plan's folder.
    pub port: String,
    /// What stands on the fixture beside it.
    pub nest: String,
}

impl Plan {
    /// Reads a plan. `name` is what errors call it.
    ///
    /// # Errors
    /// [`PlanError`] with all mistakes that its text shows.
    pub fn read(name: &str, bytes: &[u8]) -> Result<Self, PlanError> {
        match Self::read_with_mistakes(bytes) {
            (Some(plan), mistakes) if mistakes.is_empty() => Ok(plan),
            (_, mistakes) => Err(PlanError::new(name, mistakes)),
        }
    }

    /// Reads a plan, and all mistakes that its text shows. With mistakes a plan is not to be followed: it is good for finding more of them, in
    /// the files that it names.
    #[must_use]
    pub fn read_with_mistakes(bytes: &[u8]) -> (Option<Self>, Vec<Mistake>) {
        let nowhere = |what| {
            let place = Place { line: 1, column: 1 };
            (None, vec![Mistake { place, what }])
        };
        if bytes.len() > MAXIMUM_PLAN {
            return nowhere(What::TooLong { most: MAXIMUM_PLAN });
        }
        let Ok(text) = std::str::from_utf8(bytes) else {
            return nowhere(What::NoText);
        };
        // Windows editors write one, and TOML knows none.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut mistakes = Vec::new();
        let entries = read::entries(text, &mut mistakes);
        let plan = check::plan(&entries, digest(bytes), &mut mistakes);
        (plan, mistakes)
    }
}

#[cfg(test)]
mod tests;
