//! The layout of a line: one JSON object, the same bytes for the same content.
//!
//! What is hashed, signed and compared are always the bytes of the file. A line is read strictly: unknown or missing fields,
//! other spellings, or other white space than this module writes are refused, so that nothing can hide in a line.
//!
//! Fields and events are appended in later versions, never reused and never changed.

use der::DateTime;
use keyferry_protocol::identity::{DeviceId, Digest, Fingerprint, Signature};
use keyferry_protocol::order::Kind;
use keyferry_protocol::proof::Proof;
use keyferry_protocol::suite::Suite;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::fault::Fault;
use super::text;
use super::words::printable;
use crate::hsm::{HsmError, random};

/// Longest line in bytes, without its newline.
pub const MAXIMUM_LINE: usize = 64 * 1024;

/// What the hash of a line begins with.
const TAG: [u8; 16] = *b"keyferry audit 1";

/// Defines a random name of 16 bytes.
macro_rules! random_name {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            pub(super) const ZERO: Self = Self([0; 16]);

            /// A new one.
            ///
            /// # Errors
            /// [`HsmError::Random`] if the system has no randomness.
            pub fn random() -> Result<Self, HsmError> {
                Ok(Self(random()?))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    };
}
random_name! {
    /// The name of a log, made at random with it.
    LogId
}
random_name! {
    /// The name of one device's job: keys wrapped for one order.
    JobId
}

/// The head of the chain after this line: SHA-256 of the tag "keyferry audit 1" and the line's bytes without its newline.
#[must_use]
pub fn head_after(line: &[u8]) -> Digest {
    Digest(
        Sha256::new()
            .chain_update(TAG)
            .chain_update(line)
            .finalize()
            .into(),
    )
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Its place, from 0: as many lines come before it.
    pub n: u64,
    /// The head of the chain before it; zero for the first.
    #[serde(with = "text")]
    pub previous: Digest,
    /// When it was written, by the station's clock.
    #[serde(with = "text")]
    pub time: DateTime,
    /// What happened.
    pub event: Event,
}

impl Record {
    /// The line's bytes, without a newline.
    ///
    /// # Errors
    /// [`Fault::TooLong`].
    pub fn write(&self) -> Result<Vec<u8>, Fault> {
        // Strings, numbers and lists only: there is nothing that JSON could not hold.
        let line =
            serde_json::to_vec(self).map_err(|error| Fault::NotARecord(error.to_string()))?;
        if line.len() > MAXIMUM_LINE {
            return Err(Fault::TooLong);
        }
        Ok(line)
    }

    /// Reads a line's bytes, without the newline.
    ///
    /// # Errors
    /// [`Fault::TooLong`], [`Fault::NotARecord`], [`Fault::OtherSpelling`].
    pub fn read(line: &[u8]) -> Result<Self, Fault> {
        if line.len() > MAXIMUM_LINE {
            return Err(Fault::TooLong);
        }
        let record: Self = serde_json::from_slice(line)
            .map_err(|error| Fault::NotARecord(printable(&error.to_string())))?;
        if record.write()? != line {
            return Err(Fault::OtherSpelling);
        }
        Ok(record)
    }
}

/// What happened. A variant's name is the field's name in `event`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The log begins. First line, and only there.
    Opened(Opened),
    /// The station signs orders with one more authority key from here on.
    Authority(Authority),
    /// A device was taken for the right one for the first time, after it stated itself.
    Enrolled(Trust),
    /// A device was taken for the right one on a later visit, after it stated itself anew.
    Trusted(Trust),
    /// Keys are about to be wrapped for a device.
    Wrapped(Wrapped),
    /// An order was signed, and is about to leave.
    Ordered(Ordered),
    /// A device has answered an order.
    Received(Received),
    /// Something came as an answer to an order that is not to be believed.
    Disbelieved(Disbelieved),
    /// The HSM has verified proofs.
    Proved(Proved),
    /// Something is given up.
    Failed(Failed),
    /// A device's identity key was certified.
    Certified(Certified),
    /// The audit key has signed the chain so far.
    Checkpoint(CheckpointLine),
    /// A write had been interrupted; what was there of the line was cut off when the log was opened next.
    Torn(Torn),
    /// Words of a person or a program.
    Note(Note),
}

impl Event {
    /// The event's name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Opened(_) => "opened",
            Self::Authority(_) => "authority",
            Self::Enrolled(_) => "enrolled",
            Self::Trusted(_) => "trusted",
            Self::Wrapped(_) => "wrapped",
            Self::Ordered(_) => "ordered",
            Self::Received(_) => "received",
            Self::Disbelieved(_) => "disbelieved",
            Self::Proved(_) => "proved",
            Self::Failed(_) => "failed",
            Self::Certified(_) => "certified",
            Self::Checkpoint(_) => "checkpoint",
            Self::Torn(_) => "torn",
            Self::Note(_) => "note",
        }
    }
}

/// See [`Event::Opened`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opened {
    /// The log's name.
    #[serde(with = "text")]
    pub log: LogId,
    /// The station's name, as a person gave it.
    pub station: String,
    /// The keys that sign orders, P-256 `SubjectPublicKeyInfo` DER, 91 bytes each.
    #[serde(with = "text::list")]
    pub authorities: Vec<Vec<u8>>,
    /// The key that signs checkpoints, in the same form.
    #[serde(with = "text")]
    pub audit_key: Vec<u8>,
}

/// See [`Event::Authority`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    /// The key, P-256 `SubjectPublicKeyInfo` DER, 91 bytes.
    #[serde(with = "text")]
    pub key: Vec<u8>,
}

/// See [`Event::Enrolled`] and [`Event::Trusted`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// The device.
    #[serde(with = "text")]
    pub device: DeviceId,
    /// Its identity key.
    #[serde(with = "text")]
    pub identity: Fingerprint,
    /// Its unwrap key.
    #[serde(with = "text")]
    pub unwrap: Fingerprint,
    /// The `Enroll` order that its statement answers.
    #[serde(with = "text")]
    pub order: Digest,
    /// The policy's name, such as `registry`.
    pub policy: String,
    /// Why the policy was satisfied, for a person.
    pub reason: String,
    /// The statement itself, where it answered an order of another log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement: Option<Statement>,
}

/// The receipt of an `Enroll` that another station gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// The receipt's bytes.
    #[serde(with = "text")]
    pub receipt: Vec<u8>,
    /// The device's signature over them.
    #[serde(with = "text")]
    pub signature: Signature,
}

/// See [`Event::Wrapped`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wrapped {
    /// The job, so that order and failure can name it.
    #[serde(with = "text")]
    pub job: JobId,
    /// The device.
    #[serde(with = "text")]
    pub device: DeviceId,
    /// The unwrap key that the keys are wrapped for.
    #[serde(with = "text")]
    pub unwrap: Fingerprint,
    /// How the KEK travels.
    #[serde(with = "text")]
    pub suite: Suite,
    /// The token that the keys are on, for a person.
    pub token: String,
    /// The keys, in the order in which the order will name them.
    pub keys: Vec<WrappedKey>,
}

/// One key of a [`Wrapped`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrappedKey {
    /// The slot it goes to.
    pub slot: u16,
    /// Its version.
    pub version: u32,
    /// The slot's label.
    pub label: String,
    /// The key's type, such as `aes-128`, for a person.
    #[serde(rename = "type")]
    pub key_type: String,
    /// The proof that is demanded.
    #[serde(with = "text")]
    pub proof: Proof,
}

/// See [`Event::Ordered`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ordered {
    /// The job whose keys it carries: of an `Inject`, and of nothing else.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "text::option"
    )]
    pub job: Option<JobId>,
    /// The device, as the order says.
    #[serde(with = "text")]
    pub device: DeviceId,
    /// What it asks for, as the order says.
    #[serde(with = "text")]
    pub kind: Kind,
    /// SHA-256 of the order's bytes.
    #[serde(with = "text")]
    pub digest: Digest,
    /// The order's bytes.
    #[serde(with = "text")]
    pub order: Vec<u8>,
    /// The authority's signature over them.
    #[serde(with = "text")]
    pub signature: Signature,
    /// The new authority's, of a `Rotate`.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "text::option"
    )]
    pub second: Option<Signature>,
}

/// See [`Event::Received`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Received {
    /// The device, as the receipt says.
    #[serde(with = "text")]
    pub device: DeviceId,
    /// The order that it answers.
    #[serde(with = "text")]
    pub order: Digest,
    /// The device's identity key, P-256 `SubjectPublicKeyInfo` DER, 91 bytes. The order names its fingerprint.
    #[serde(with = "text")]
    pub identity_key: Vec<u8>,
    /// The receipt's bytes.
    #[serde(with = "text")]
    pub receipt: Vec<u8>,
    /// The identity key's signature over them.
    #[serde(with = "text")]
    pub signature: Signature,
}

/// See [`Event::Disbelieved`]. Nothing in it is verified, and nothing follows from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disbelieved {
    /// The order that it came as an answer to.
    #[serde(with = "text")]
    pub order: Digest,
    /// The bytes.
    #[serde(with = "text")]
    pub receipt: Vec<u8>,
    /// What came as the signature over them.
    #[serde(with = "text")]
    pub signature: Signature,
    /// What is wrong with it, for a person.
    pub reason: String,
}

/// See [`Event::Proved`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proved {
    /// The device.
    #[serde(with = "text")]
    pub device: DeviceId,
    /// The order whose receipt holds the proofs.
    #[serde(with = "text")]
    pub order: Digest,
    /// The slots that were proved.
    pub slots: Vec<ProvedSlot>,
}

/// One slot of a [`Proved`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProvedSlot {
    /// The slot.
    pub slot: u16,
    /// How.
    #[serde(with = "text")]
    pub proof: Proof,
}

/// See [`Event::Failed`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failed {
    /// What is given up.
    pub work: Work,
    /// The slots whose keys failed; none named means all that are open.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slots: Vec<u16>,
    /// Why, for a person.
    pub reason: String,
}

/// What a [`Failed`] gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// The keys of a job, whether an order was made for them or not.
    Job(#[serde(with = "text")] JobId),
    /// An order, by its digest; of an `Inject`, its job.
    Order(#[serde(with = "text")] Digest),
}

/// See [`Event::Certified`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certified {
    /// The device.
    #[serde(with = "text")]
    pub device: DeviceId,
    /// The certificate's serial number, big-endian as in the certificate.
    #[serde(with = "text")]
    pub serial: Vec<u8>,
    /// SHA-256 of the certificate.
    #[serde(with = "text")]
    pub digest: Digest,
    /// The certificate, X.509 DER.
    #[serde(with = "text")]
    pub certificate: Vec<u8>,
}

/// See [`Event::Checkpoint`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointLine {
    /// The log's name.
    #[serde(with = "text")]
    pub log: LogId,
    /// The audit key's signature, see [`super::Checkpoint`].
    #[serde(with = "text")]
    pub signature: Signature,
}

/// See [`Event::Torn`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Torn {
    /// How many bytes were cut off.
    pub bytes: u64,
    /// SHA-256 of them.
    #[serde(with = "text")]
    pub digest: Digest,
}

/// See [`Event::Note`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// The words.
    pub text: String,
}
