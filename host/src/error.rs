//! Every way a command can fail, and the exit code that tells a script which way it was.

use std::path::PathBuf;

use keyferry_protocol::identity::Fingerprint;
use keyferry_protocol::suite::Suite;

use crate::audit::AuditError;
use crate::broker::BrokerError;
use crate::certificate::CertificateError;
use crate::device::DeviceError;
use crate::device::capture::CaptureError;
use crate::emulate::EmulateError;
use crate::export::ExportError;
use crate::hsm::{HsmError, KeyType, PinError, PublicKeyError, SpecError};
use crate::migration::MigrationError;
use crate::station::JobError;
use crate::station::journal::JournalError;
use crate::station::offline::OfflineError;
use crate::station::plan::PlanError;
use crate::station::policy::PolicyError;
use crate::station::registry::RegistryError;

/// The exit codes of the command. Others script against them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// The job was understood and begun, and failed.
    JobFailed = 1,
    /// The command line, a file or the configuration is wrong; nothing was begun.
    Usage = 2,
    /// The HSM: module, token, login, key, mechanism.
    Hsm = 3,
    /// The device or the link to it.
    Device = 4,
    /// A policy forbids it.
    Policy = 5,
}

impl Exit {
    /// The number given to the system.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The code with this number; what is none of them is a job that failed.
    #[must_use]
    pub const fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Done,
            2 => Self::Usage,
            3 => Self::Hsm,
            4 => Self::Device,
            5 => Self::Policy,
            _ => Self::JobFailed,
        }
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The HSM.
    #[error(transparent)]
    Hsm(#[from] HsmError),
    /// The device or the line.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A recording of a line.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// A job between HSM and device.
    #[error(transparent)]
    Job(#[from] JobError),
    /// A device that is not trusted, or a list that says whom to trust.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// An argument that the chosen policy does not look at.
    #[error("{argument} has no meaning with policy {policy}")]
    NotForPolicy {
        /// The argument.
        argument: &'static str,
        /// The policy's name.
        policy: &'static str,
    },
    /// An emulated device.
    #[error(transparent)]
    Emulate(EmulateError),
    /// An emulated device ended by itself.
    #[error("the emulated device on {0} ended")]
    DeviceEnded(String),
    /// A migration.
    #[error(transparent)]
    Migration(#[from] MigrationError),
    /// A certificate, or making one.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A certificate in a file.
    #[error("{}: {reason}", path.display())]
    CertificateFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: CertificateError,
    },
    /// The CA's key is not there.
    #[error("there is no key '{label}' on token '{token}'")]
    NoCaKey {
        /// Its label.
        label: String,
        /// The token's label.
        token: String,
    },
    /// An export without its document.
    #[error("{} is not there, which says what the blob is", .0.display())]
    NoSidecar(PathBuf),
    /// An export that nobody vouches for.
    #[error("{} is not to be believed without its signature", .0.display())]
    NoSigner(PathBuf),
    /// Something that a document says already.
    #[error("{0} is for a blob without a document")]
    SaidTwice(&'static str),
    /// All keys are asked for, and one.
    #[error("--all is for every key, and --from names one (object= or id=)")]
    AllOrOne,
    /// A key cannot be imported for this use.
    #[error("a key of type {key_type} is not imported for '{usage}'")]
    NotImportedFor {
        /// The type.
        key_type: KeyType,
        /// The use.
        usage: &'static str,
    },
    /// An export has no room for so many devices.
    #[error("{found} devices are named, and an export takes {most}")]
    TooManyDevices {
        /// How many.
        found: usize,
        /// How many it takes.
        most: usize,
    },
    /// Something that nothing else says.
    #[error("{name} is missing: {because}")]
    Missing {
        /// The argument.
        name: &'static str,
        /// Why it is needed.
        because: &'static str,
    },
    /// A public key of another type than was announced.
    #[error("{} is a key of type {found}, not {wanted}", path.display())]
    OtherType {
        /// The file.
        path: PathBuf,
        /// What is in it.
        found: KeyType,
        /// What should be.
        wanted: KeyType,
    },
    /// Some of several keys were not migrated.
    #[error("{failed} of {keys} keys were not migrated; the first because: {first}")]
    SomeNotMigrated {
        /// How many were not.
        failed: usize,
        /// How many there were.
        keys: usize,
        /// What happened to the first of those.
        first: Box<Failure>,
    },
    /// A `--key` that names no slot, or one twice.
    #[error("'{0}' names no free slot")]
    BadSlot(String),
    /// What names a device does not.
    #[error("'{0}' names no device, or one that is named already")]
    BadDevice(String),
    /// A document of an export.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// An audit log.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// A list of devices has a mistake.
    #[error("{}, line {line}: {reason}", path.display())]
    DeviceList {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// An argument that is for another kind of order.
    #[error("{argument} is not for this kind of order")]
    NotForKind {
        /// The argument.
        argument: &'static str,
    },
    /// A detached order, or its receipt.
    #[error(transparent)]
    Offline(OfflineError),
    /// Some devices of a line were not done.
    #[error("{failed} of {devices} devices were not done")]
    SomeDevices {
        /// How many were not.
        failed: usize,
        /// How many nests there were.
        devices: usize,
    },
    /// Some of the devices that came were not done.
    #[error("{failed} of the devices that came were not done")]
    NotDone {
        /// How many.
        failed: u64,
    },
    /// A port that is always there, as far as one can see.
    #[error("it cannot be seen whether a device is plugged in at port '{port}'")]
    CannotWatch {
        /// The port.
        port: String,
    },
    /// A nest or a port that is named twice.
    #[error("nest '{nest}' or its port {port} is named twice")]
    NestTwice {
        /// The nest.
        nest: String,
        /// Its port.
        port: String,
    },
    /// More ports than a station has.
    #[error("there are more than {0} ports")]
    TooManyPorts(usize),
    /// Signals cannot be waited for.
    #[error("the station cannot be told to stop: {0}")]
    Signals(std::io::Error),
    /// A station's journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A station's plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// There is no PIN.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// A token or key is named wrongly.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A public key file is not one.
    #[error("{}: {reason}", path.display())]
    PublicKeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: PublicKeyError,
    },
    /// The recipient is neither a file nor a key on the token.
    #[error("the recipient '{recipient}' is neither a file nor a key on token '{token}'")]
    NoSuchRecipient {
        /// As it was given.
        recipient: String,
        /// The token's label.
        token: String,
    },
    /// The recipient's key is not the one that was expected.
    #[error("the recipient's fingerprint is {found}, not {expected}")]
    FingerprintMismatch {
        /// As it was given.
        expected: Fingerprint,
        /// That of the recipient's key.
        found: Fingerprint,
    },
    /// The token has none of the suites that the recipient's key allows.
    #[error(
        "token '{token}' has no suite for a recipient key of type {recipient}; it has: {}",
        suite_names(supported)
    )]
    NoCommonSuite {
        /// The token's label.
        token: String,
        /// The recipient key's type.
        recipient: String,
        /// What the token can do.
        supported: Vec<Suite>,
    },
    /// There is a file where one is to be written.
    #[error("{} exists already", .0.display())]
    OutputExists(PathBuf),
    /// A file cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is longer than any of its kind.
    #[error("{} is longer than {limit} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The most that is read, in bytes.
        limit: usize,
    },
    /// A file cannot be written.
    #[error("{} cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Failure {
    /// The exit code for it.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Hsm(error) | Self::Job(JobError::Hsm(error)) => hsm_exit(error),
            Self::PublicKeyFile { reason, .. } => public_key_exit(reason),
            Self::Export(error) => export_exit(error),
            Self::Offline(error) => offline_exit(error),
            Self::DeviceList { .. }
            | Self::NotForKind { .. }
            | Self::CannotWatch { .. }
            | Self::NestTwice { .. }
            | Self::TooManyPorts(_)
            | Self::Plan(_) => Exit::Usage,
            Self::Signals(_) => Exit::JobFailed,
            Self::Certificate(error) | Self::CertificateFile { reason: error, .. } => {
                certificate_exit(error)
            }
            Self::NoCaKey { .. } => Exit::Hsm,
            Self::Policy(error) => error.exit(),
            Self::Registry(error) => error.exit(),
            Self::NotForPolicy { .. } => Exit::Usage,
            Self::Audit(error) => error.exit(),
            Self::NoCommonSuite { .. }
            | Self::Job(JobError::NoCommonSuite { .. } | JobError::NoSuite { .. }) => Exit::Hsm,
            Self::Job(JobError::Policy(error)) => error.exit(),
            Self::Job(JobError::Registry(error)) => error.exit(),
            Self::Job(JobError::Audit(error)) => error.exit(),
            Self::Job(JobError::Journal(error)) | Self::Journal(error) => error.exit(),
            Self::Job(JobError::Export(error)) => export_exit(error),
            Self::Job(JobError::Certificate(error)) => certificate_exit(error),
            Self::Job(JobError::NoCertificate { .. } | JobError::OtherCertificate { .. }) => {
                Exit::Policy
            }
            Self::Job(JobError::Broker(error)) => error.exit(),
            Self::Job(JobError::Device(error)) | Self::Device(error) => device_exit(error),
            Self::Emulate(
                EmulateError::FirmwareMissing { .. } | EmulateError::NotFirmware { .. },
            ) => Exit::Usage,
            Self::Job(
                JobError::NotEnrolled { .. }
                | JobError::Quarantined { .. }
                | JobError::NotQuarantined { .. }
                | JobError::SlotRefused { .. },
            )
            | Self::Emulate(_)
            | Self::DeviceEnded(_) => Exit::Device,
            Self::Job(JobError::UnwrapKey(_)) => Exit::Policy,
            Self::Job(
                JobError::LabelTooLong(_)
                | JobError::ProofTooWeak { .. }
                | JobError::CounterUnknown { .. },
            )
            | Self::BadSlot(_) => Exit::Usage,
            Self::Job(JobError::ProofWrong { .. } | JobError::OtherVersion { .. }) => {
                Exit::JobFailed
            }
            Self::Migration(error) => migration_exit(error),
            Self::SomeNotMigrated { .. } | Self::SomeDevices { .. } | Self::NotDone { .. } => {
                Exit::JobFailed
            }
            Self::BadDevice(_)
            | Self::NoSidecar(_)
            | Self::NoSigner(_)
            | Self::SaidTwice(_)
            | Self::AllOrOne
            | Self::NotImportedFor { .. }
            | Self::TooManyDevices { .. }
            | Self::Missing { .. }
            | Self::OtherType { .. } => Exit::Usage,
            Self::Pin(_)
            | Self::Spec(_)
            | Self::NoSuchRecipient { .. }
            | Self::OutputExists(_)
            | Self::Read { .. }
            | Self::TooLong { .. } => Exit::Usage,
            Self::FingerprintMismatch { .. } => Exit::Policy,
            Self::Capture(CaptureError::Write { .. } | CaptureError::Line { .. })
            | Self::Write { .. } => Exit::JobFailed,
            Self::Capture(
                CaptureError::Exists { .. }
                | CaptureError::Create { .. }
                | CaptureError::Read { .. }
                | CaptureError::NotOne { .. }
                | CaptureError::Format { .. },
            ) => Exit::Usage,
        }
    }

    /// The next move for a person, where there is one to name.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Hsm(error) => error.hint(),
            Self::Job(JobError::Device(error)) | Self::Device(error) => device_hint(error),
            Self::Capture(error) => Some(error.hint().into()),
            Self::Job(error) => error.hint(),
            Self::Policy(error) => error.hint(),
            Self::Registry(error) => error.hint(),
            Self::NotForPolicy { .. } => Some("leave it out, or choose the policy that it is for".into()),
            Self::Migration(error) => error.hint(),
            Self::Certificate(error) | Self::CertificateFile { reason: error, .. } => error.hint(),
            Self::NoCaKey { .. } => Some("--create makes it; `keyferry key list` shows the keys of the token".into()),
            Self::SomeNotMigrated { first, .. } => first.hint(),
            Self::SomeDevices { .. } => Some(
                "each reason stands with its nest; mend it and run the plan again: what is done is not done twice".into(),
            ),
            Self::NoSidecar(_) => Some(
                "put it beside the blob; or describe the key yourself, with --unauthenticated"
                    .into(),
            ),
            Self::NoSigner(_) => Some(
                "give the public key of whoever signed it with --signer; --unauthenticated takes it on trust"
                    .into(),
            ),
            Self::SaidTwice(_) => Some("leave it out: the document says it".into()),
            Self::AllOrOne => Some("leave one of the two out".into()),
            Self::NotImportedFor { .. } => {
                Some("make such a key on the token itself: `keyferry key create --usage`".into())
            }
            Self::TooManyDevices { .. } => Some("make several exports, each with its own --out".into()),
            Self::Missing { name, .. } => Some(format!("give {name}")),
            Self::OtherType { .. } => None,
            Self::Emulate(error) => error.hint().map(Into::into),
            Self::DeviceEnded(_) => Some("see the log in its folder".into()),
            Self::BadSlot(_) => Some(format!(
                "write LABEL@SLOT with a slot from 0 to {}, each slot once",
                keyferry_protocol::MAX_SLOTS - 1
            )),
            Self::BadDevice(_) => Some(
                "write ID or ID=FILE, the id as 32 hexadecimal digits (see `keyferry device info`), each device once".into(),
            ),
            Self::Export(error) => error.hint(),
            Self::Audit(error) => error.hint(),
            Self::Offline(error) => error.hint(),
            Self::DeviceList { .. } => {
                Some("nothing was made; see `keyferry registry list` for the devices".into())
            }
            Self::NotForKind { .. } => Some("leave it out, or choose another --kind".into()),
            Self::Plan(error) => Some(error.hint().into()),
            Self::NotDone { .. } => Some(
                "each reason stands with its nest; mend it and plug the device in again: what is done is not done twice".into(),
            ),
            Self::CannotWatch { .. } => {
                Some("name a serial device or unix:PATH, or use `keyferry station run`".into())
            }
            Self::NestTwice { .. } => Some("give each nest and each port once".into()),
            Self::TooManyPorts(_) => Some("use two stations, each with a journal of its own".into()),
            Self::Signals(_) => None,
            Self::Journal(error) => Some(error.hint().into()),
            Self::Pin(error) => error.hint(),
            Self::Spec(error) => error.hint(),
            Self::PublicKeyFile { reason, .. } => reason.hint(),
            Self::NoSuchRecipient { .. } => Some(
                "give a public key file (PEM or DER), or the label of a public key on the token"
                    .into(),
            ),
            Self::FingerprintMismatch { .. } => Some(
                "ask the recipient, by another way than the file came, for the right fingerprint"
                    .into(),
            ),
            Self::NoCommonSuite { .. } => {
                Some("use another kind of recipient key, or another token".into())
            }
            Self::OutputExists(_) => Some("--force replaces it".into()),
            Self::Read { .. } | Self::TooLong { .. } | Self::Write { .. } => None,
        }
    }
}

const fn migration_exit(error: &MigrationError) -> Exit {
    match error {
        MigrationError::Hsm(error) => hsm_exit(error),
        MigrationError::Attributes(error) => export_exit(error),
        MigrationError::PublicKey(_) | MigrationError::UnsupportedType { .. } => Exit::Usage,
        MigrationError::NoCommonSuite { .. } | MigrationError::NotTaken { .. } => Exit::Hsm,
        MigrationError::NotOpened { .. } | MigrationError::Lengthened { .. } => Exit::Hsm,
        MigrationError::OtherKey { .. }
        | MigrationError::Occupied { .. }
        | MigrationError::IdTaken { .. }
        | MigrationError::CopyWrong { .. }
        | MigrationError::Unprovable { .. }
        | MigrationError::CannotKnow { .. } => Exit::JobFailed,
    }
}

const fn certificate_exit(error: &CertificateError) -> Exit {
    match error {
        CertificateError::Hsm(error) => hsm_exit(error),
        CertificateError::Signer(_) | CertificateError::SignerWrong => Exit::Hsm,
        CertificateError::TooLong { .. }
        | CertificateError::Malformed
        | CertificateError::NoCertificate
        | CertificateError::Several { .. }
        | CertificateError::Private
        | CertificateError::OtherCaKey { .. }
        | CertificateError::Subject(_)
        | CertificateError::Serial(_)
        | CertificateError::Time
        | CertificateError::TooLongForDevice { .. } => Exit::Usage,
        CertificateError::Encoding => Exit::JobFailed,
        CertificateError::Profile(_)
        | CertificateError::Algorithm(_)
        | CertificateError::KeyType(_)
        | CertificateError::UnknownExtension(_)
        | CertificateError::NotCa { .. }
        | CertificateError::NotDevice
        | CertificateError::MayNotSign
        | CertificateError::UnknownIssuer { .. }
        | CertificateError::Signature { .. }
        | CertificateError::PathTooLong { .. }
        | CertificateError::NotYetValid { .. }
        | CertificateError::Expired { .. }
        | CertificateError::OtherKey { .. }
        | CertificateError::NoSerial
        | CertificateError::OtherSerial { .. }
        | CertificateError::NotSignOnly { .. }
        | CertificateError::NotSensitive { .. } => Exit::Policy,
    }
}

const fn export_exit(error: &ExportError) -> Exit {
    match error {
        ExportError::Hsm(error) => hsm_exit(error),
        ExportError::TooLong { .. }
        | ExportError::Malformed { .. }
        | ExportError::OtherFormat { .. }
        | ExportError::SignatureMalformed
        | ExportError::BackendKey(_)
        | ExportError::FolderExists(_)
        | ExportError::Read { .. }
        | ExportError::SignerType(_) => Exit::Usage,
        ExportError::UnsupportedType { .. } => Exit::Hsm,
        ExportError::ProofWrong | ExportError::Write { .. } => Exit::JobFailed,
        ExportError::Inconsistent(_)
        | ExportError::Unsigned
        | ExportError::OtherSigner { .. }
        | ExportError::Altered
        | ExportError::NotSignOnly { .. }
        | ExportError::OtherBlob { .. }
        | ExportError::BlobLength { .. }
        | ExportError::OtherRecipient { .. }
        | ExportError::ZeroTail { .. }
        | ExportError::Incomplete(_)
        | ExportError::Stray(_)
        | ExportError::Widened { .. } => Exit::Policy,
    }
}

/// What is not peculiar to detached orders fails as it does elsewhere.
impl From<OfflineError> for Failure {
    fn from(error: OfflineError) -> Self {
        match error {
            OfflineError::Document(error) => error.into(),
            OfflineError::Device(error) => error.into(),
            OfflineError::Job(error) => error.into(),
            error => Self::Offline(error),
        }
    }
}

fn offline_exit(error: &OfflineError) -> Exit {
    match error {
        OfflineError::Document(error) => export_exit(error),
        OfflineError::Device(_)
        | OfflineError::Job(JobError::SlotRefused { .. })
        | OfflineError::UnknownDevice { .. }
        | OfflineError::MovedOn { .. } => Exit::Device,
        OfflineError::Job(_) => Exit::Hsm,
        OfflineError::TooFar { .. } | OfflineError::Clock | OfflineError::Wrong { .. } => {
            Exit::JobFailed
        }
        OfflineError::KeepUnder
        | OfflineError::NoRegistry
        | OfflineError::NoDevices
        | OfflineError::NeedsLog { .. }
        | OfflineError::NotInLog { .. }
        | OfflineError::NotKept { .. }
        | OfflineError::TooMany(_) => Exit::Usage,
        OfflineError::OtherFile { .. }
        | OfflineError::BadOrder { .. }
        | OfflineError::NotSigned { .. }
        | OfflineError::BadStatement { .. }
        | OfflineError::BadReceipt { .. }
        | OfflineError::OtherAuthority { .. }
        | OfflineError::OtherKeys { .. }
        | OfflineError::AlreadyDelivered { .. } => Exit::Policy,
        OfflineError::Several { first, .. } => offline_exit(first),
    }
}

const fn public_key_exit(reason: &PublicKeyError) -> Exit {
    match reason {
        PublicKeyError::Malformed
        | PublicKeyError::Several
        | PublicKeyError::Private
        | PublicKeyError::Unsupported(_) => Exit::Usage,
        PublicKeyError::WeakModulus { .. }
        | PublicKeyError::Unsound
        | PublicKeyError::SmallExponent { .. } => Exit::Policy,
    }
}

/// What kept the authority from signing, where that is known.
enum Unsigned<'a> {
    Hsm(&'a HsmError),
    Broker(&'a BrokerError),
}

fn unsigned(error: &DeviceError) -> Option<Unsigned<'_>> {
    let DeviceError::Authority(source) = error else {
        return None;
    };
    let hsm = source.downcast_ref().map(Unsigned::Hsm);
    hsm.or_else(|| source.downcast_ref().map(Unsigned::Broker))
}

/// An order that was not signed is no fault of the device.
fn device_exit(error: &DeviceError) -> Exit {
    match unsigned(error) {
        Some(Unsigned::Hsm(error)) => hsm_exit(error),
        Some(Unsigned::Broker(error)) => error.exit(),
        None => Exit::Device,
    }
}

fn device_hint(error: &DeviceError) -> Option<String> {
    match unsigned(error) {
        Some(Unsigned::Hsm(error)) => error.hint(),
        Some(Unsigned::Broker(error)) => error.hint(),
        None => Some(error.hint().to_owned()),
    }
}

const fn hsm_exit(error: &HsmError) -> Exit {
    match error {
        HsmError::NoModule
        | HsmError::NoSuchModule { .. }
        | HsmError::Registry { .. }
        | HsmError::ModuleInitialized { .. }
        | HsmError::RecipientOnly { .. }
        | HsmError::KeeperOnly { .. }
        | HsmError::OnlyPairsAsk { .. }
        | HsmError::SuiteMismatch { .. } => Exit::Usage,
        HsmError::LastTry { .. } => Exit::Policy,
        HsmError::Recipient(reason) => public_key_exit(reason),
        HsmError::ModuleNotFound { .. }
        | HsmError::ModuleNotLoadable { .. }
        | HsmError::NoSuchToken { .. }
        | HsmError::SeveralTokens { .. }
        | HsmError::PinIncorrect { .. }
        | HsmError::PinLocked { .. }
        | HsmError::PinNotSet { .. }
        | HsmError::TokenGone { .. }
        | HsmError::TokenReplaced { .. }
        | HsmError::LostTwice { .. }
        | HsmError::NoSession { .. }
        | HsmError::ReadOnly { .. }
        | HsmError::NoSuchKey { .. }
        | HsmError::SeveralKeys { .. }
        | HsmError::LabelTaken { .. }
        | HsmError::NotExtractable { .. }
        | HsmError::TrustedOnly { .. }
        | HsmError::NotPermitted { .. }
        | HsmError::NotDeriveOnly { .. }
        | HsmError::NotAKeeper { .. }
        | HsmError::CannotDerive { .. }
        | HsmError::WrongKeyType { .. }
        | HsmError::BlobRejected { .. }
        | HsmError::BlobLength { .. }
        | HsmError::KeyPinIncorrect { .. }
        | HsmError::AsksEachUse { .. }
        | HsmError::Widened { .. }
        | HsmError::PairMismatch { .. }
        | HsmError::NoPublicKey { .. }
        | HsmError::SuiteRefused { .. }
        | HsmError::SuiteWrong { .. }
        | HsmError::MechanismMissing { .. }
        | HsmError::UnexpectedLength { .. }
        | HsmError::Token { .. }
        | HsmError::Random(_) => Exit::Hsm,
    }
}

fn suite_names(suites: &[Suite]) -> String {
    if suites.is_empty() {
        return "none".into();
    }
    let names: Vec<_> = suites.iter().map(|suite| suite.name()).collect();
    names.join(", ")
}
