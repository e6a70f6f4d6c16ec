//! Receipts: what a device did, signed by its identity key. Anyone can verify one later.

use heapless::Vec;
use serde::{Deserialize, Serialize};
use serde_big_array::BigArray;

use crate::MAX_ENTRIES;
use crate::attributes::Attributes;
use crate::codec::{self, DecodeError, TooLong};
use crate::identity::{Challenge, DeviceId, Digest, Fingerprint, Signature};
use crate::order::Kind;
use crate::proof::Proof;
use crate::suite::Suite;

/// First 16 bytes of every receipt.
pub const TAG: [u8; 16] = *b"keyferry receipt";

/// First 16 bytes of every signed status.
pub const STATUS_TAG: [u8; 16] = *b"keyferry status ";

/// The format version that follows either tag.
pub const FORMAT: u8 = 1;

/// Where a device is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State {
    /// No keys, no authority.
    Blank,
    /// It has unwrap and identity key and knows its authority.
    Enrolled,
    /// At least one key was injected.
    Provisioned,
    /// Slots can no longer be changed.
    Locked,
    /// The flash holds something this firmware cannot vouch for; every order is refused but a `Wipe` that names its authority.
    Quarantined,
}

impl State {
    /// The name used in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blank => "blank",
            Self::Enrolled => "enrolled",
            Self::Provisioned => "provisioned",
            Self::Locked => "locked",
            Self::Quarantined => "quarantined",
        }
    }
}

/// Why a device did not do what was asked. Numbers are appended, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Refusal {
    /// The bytes do not decode.
    Malformed,
    /// The order's format version, or every protocol version offered, is unknown.
    UnknownVersion,
    /// The signature is not the authority's.
    BadSignature,
    /// The order is for another device, or for keys this device no longer has.
    WrongAddress,
    /// The challenge was used up, or the counter has reached the bound of a detached order.
    Stale,
    /// The counter does not move forward, or too far.
    Counter,
    /// This kind of order is not allowed in the device's state.
    State,
    /// This build does not allow the suite, or it does not fit the unwrap key.
    Suite,
    /// This build does not support a key with these attributes, or this proof of it.
    Attributes,
    /// The slot holds a key of this version already.
    SlotTaken,
    /// The slot has held a key of a higher version.
    VersionRollback,
    /// The keys do not fit into the key store.
    StoreFull,
    /// A blob did not unwrap to the key that the order describes. Nothing more is ever said.
    Unwrap,
    /// The slot to be proved or removed is empty.
    SlotEmpty,
    /// The entropy source failed, so nothing was done.
    Entropy,
    /// The flash failed, or holds something the firmware cannot vouch for.
    Storage,
    /// The receipt would not fit into a message.
    TooLong,
    /// The message makes no sense at this point of the session.
    Sequence,
    /// This build does not implement what was asked for.
    Unsupported,
}

impl Refusal {
    /// The words for it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Malformed => "the order does not decode",
            Self::UnknownVersion => "unknown version",
            Self::BadSignature => "the signature is not its authority's",
            Self::WrongAddress => "the order is for another device or for other keys",
            Self::Stale => "the order was used before or is too old",
            Self::Counter => "the order's counter does not follow the device's",
            Self::State => "not allowed in the device's state",
            Self::Suite => "the device does not allow this suite",
            Self::Attributes => "the device does not support these key attributes",
            Self::SlotTaken => "the slot is taken",
            Self::VersionRollback => "the slot has held a higher key version",
            Self::StoreFull => "the key store is full",
            Self::Unwrap => "a key did not unwrap",
            Self::SlotEmpty => "the slot is empty",
            Self::Entropy => "the device's entropy source failed",
            Self::Storage => "the device's flash failed",
            Self::TooLong => "the answer would not fit into a message",
            Self::Sequence => "the message came at the wrong time",
            Self::Unsupported => "this firmware does not implement it",
        }
    }
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.text())
    }
}

/// What became of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// All of it was done and is durable.
    Applied,
    /// None of it was done; the device is as before.
    Refused(Refusal),
}

/// The part that all receipts share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`TAG`].
    #[serde(with = "BigArray")]
    pub tag: [u8; 16],
    /// [`FORMAT`].
    pub format: u8,
    /// Kind of the order, and so which body follows an [`Outcome::Applied`]. A refusal has no body.
    pub kind: Kind,
    /// The device.
    pub device: DeviceId,
    /// The identity key that signs this.
    pub identity: Fingerprint,
    /// SHA-256 of the order's bytes, without signatures.
    pub order: Digest,
    /// What became of it.
    pub outcome: Outcome,
    /// The device's state now.
    pub state: State,
    /// The device's counter now.
    #[serde(with = "postcard::fixint::le")]
    pub counter: u32,
    /// The challenge for the next order.
    pub challenge: Challenge,
}

/// How the firmware was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Flavour {
    /// For products.
    Production,
    /// For a developer's desk: pins whichever authority enrols it first.
    Development,
    /// With a deliberate defect, for tests of the tests.
    Sabotaged,
}

impl Flavour {
    /// The name used in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Production => "production",
            Self::Development => "development",
            Self::Sabotaged => "sabotaged",
        }
    }
}

/// Where a device's randomness or root key comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SourceClass {
    /// Silicon made for it: a health-tested entropy source, fuses.
    Hardware,
    /// Ordinary memory or software of the device: protected only as far as the part's read-out protection.
    Software,
    /// A fixed or emulated value. Never for real keys.
    Test,
}

impl SourceClass {
    /// The name used in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hardware => "hardware",
            Self::Software => "software",
            Self::Test => "test",
        }
    }
}

/// Body of an `Enroll`'s receipt: who the device is. The station wraps only to the unwrap key it reads here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement<'a> {
    /// The nonce of the order.
    pub nonce: Challenge,
    /// The identity key, P-256 `SubjectPublicKeyInfo` DER. It signs this receipt.
    pub identity_key: &'a [u8],
    /// The unwrap key, `SubjectPublicKeyInfo` DER.
    pub unwrap_key: &'a [u8],
    /// The suites this build allows with that key, strongest first.
    pub suites: Vec<Suite, 4>,
    /// The board's name.
    pub board: &'a str,
    /// The firmware's version.
    pub firmware: &'a str,
    /// How it was built.
    pub flavour: Flavour,
    /// Where its randomness comes from.
    pub rng: SourceClass,
    /// Where its root key comes from.
    pub root_key: SourceClass,
    /// The authority it obeys.
    pub authority: Fingerprint,
    /// How many times the authority was handed over since the device left its factory.
    #[serde(with = "postcard::fixint::le")]
    pub epoch: u32,
    /// What a key says for it that was in the device before its enrolment.
    pub voucher: Option<Voucher<'a>>,
}

/// First 16 bytes of what a vendor key signs.
pub const VOUCHER_TAG: [u8; 16] = *b"keyferry voucher";

/// Length of a voucher's signed bytes.
pub const VOUCHER_LENGTH: usize = 16 + 16 + 32 + 32 + 32;

/// A vendor key's word that the keys of a statement are this device's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voucher<'a> {
    /// The vendor key's certificate, X.509 in DER, at most [`crate::MAX_VENDOR_CERTIFICATE`] bytes.
    pub certificate: &'a [u8],
    /// The vendor key's signature (ECDSA P-256, SHA-256) over the [`voucher_input`].
    pub signature: Signature,
}

/// The bytes that a vendor key signs: tag ‖ device id ‖ nonce of the enrolment ‖ fingerprint of the identity key ‖ fingerprint of the
/// unwrap key.
#[must_use]
pub fn voucher_input(
    device: &DeviceId,
    nonce: &Challenge,
    identity: &Fingerprint,
    unwrap: &Fingerprint,
) -> [u8; VOUCHER_LENGTH] {
    let mut input = [0; VOUCHER_LENGTH];
    input[..16].copy_from_slice(&VOUCHER_TAG);
    input[16..32].copy_from_slice(&device.0);
    input[32..64].copy_from_slice(&nonce.0);
    input[64..96].copy_from_slice(&identity.0);
    input[96..].copy_from_slice(&unwrap.0);
    input
}

/// Body of the receipt of a `Wipe` of a quarantined device. The keys that anybody knows it by are gone, so the key that signs this was
/// made for it alone: it shows that the bytes are whole, and not whose they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered<'a> {
    /// The key that signs this receipt and nothing else, P-256 `SubjectPublicKeyInfo` DER. Its fingerprint stands in the header.
    pub key: &'a [u8],
}

/// One slot in the receipt of an `Inject` or a `Prove`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotReport<'a> {
    /// Slot number.
    #[serde(with = "postcard::fixint::le")]
    pub slot: u16,
    /// Key version.
    #[serde(with = "postcard::fixint::le")]
    pub version: u32,
    /// Attributes, as stored.
    pub attributes: Attributes,
    /// The kind of proof.
    pub proof: Proof,
    /// The proof; its length follows from kind and attributes.
    pub value: &'a [u8],
}

/// What follows the header.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "no allocation here; receipts are decoded one at a time"
)]
pub enum Body<'a> {
    /// Of an applied `Enroll`.
    Statement(Statement<'a>),
    /// Of an applied `Inject` or `Prove`.
    Slots(Vec<SlotReport<'a>, MAX_ENTRIES>),
    /// Of an applied `Wipe` of a quarantined device.
    Recovered(Recovered<'a>),
    /// Of every other applied order, and of every refused one.
    Empty,
}

/// Decodes a receipt.
///
/// # Errors
/// [`DecodeError`].
pub fn decode(bytes: &[u8]) -> Result<(Header, Body<'_>), DecodeError> {
    codec::check_front(bytes, &TAG, FORMAT)?;
    let (header, body): (Header, _) = codec::decode_front(bytes)?;
    let body = match (header.outcome, header.kind) {
        (Outcome::Applied, Kind::Enroll) => Body::Statement(codec::decode(body)?),
        (Outcome::Applied, Kind::Inject | Kind::Prove) => Body::Slots(codec::decode(body)?),
        (Outcome::Applied, Kind::Wipe) if !body.is_empty() => Body::Recovered(codec::decode(body)?),
        (Outcome::Applied, Kind::Remove | Kind::Rotate | Kind::Lock | Kind::Wipe)
        | (Outcome::Refused(_), _) => {
            if !body.is_empty() {
                return Err(DecodeError::Malformed);
            }
            Body::Empty
        }
    };
    Ok((header, body))
}

/// Writes a receipt piece by piece, so that a device never holds two proofs at once. The buffer is lent to each call, so
/// that a receipt can grow over several steps of work.
#[derive(Clone, Copy, Debug)]
pub struct Writer {
    used: usize,
}

impl Writer {
    /// Begins a receipt in `out`.
    ///
    /// # Errors
    /// [`TooLong`] if `out` is too small; so in all further calls.
    pub fn new(header: &Header, out: &mut [u8]) -> Result<Self, TooLong> {
        let mut writer = Self { used: 0 };
        writer.push(header, out)?;
        Ok(writer)
    }

    fn push<T: Serialize + ?Sized>(&mut self, value: &T, out: &mut [u8]) -> Result<(), TooLong> {
        let free = out.get_mut(self.used..).ok_or(TooLong)?;
        self.used += codec::encode(value, free)?.len();
        Ok(())
    }

    /// Adds the statement of an `Enroll`.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn statement(&mut self, statement: &Statement<'_>, out: &mut [u8]) -> Result<(), TooLong> {
        self.push(statement, out)
    }

    /// Adds the key of a recovered device's receipt.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn recovered(&mut self, recovered: &Recovered<'_>, out: &mut [u8]) -> Result<(), TooLong> {
        self.push(recovered, out)
    }

    /// Says how many slot reports follow.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn slot_count(&mut self, count: usize, out: &mut [u8]) -> Result<(), TooLong> {
        self.push(&count, out)
    }

    /// Adds one slot report.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn slot(&mut self, report: &SlotReport<'_>, out: &mut [u8]) -> Result<(), TooLong> {
        self.push(report, out)
    }

    /// Length so far in bytes.
    #[must_use]
    pub const fn length(&self) -> usize {
        self.used
    }
}

/// Longest receipt header in bytes.
pub const MAX_HEADER: usize = 16 + 1 + 1 + 16 + 32 + 32 + 2 + 1 + 4 + 32;

/// Length of one slot report in bytes, with a proof of `proof` bytes.
#[must_use]
pub const fn slot_report_length(proof: usize) -> usize {
    2 + 4 + 16 + 1 + 2 + proof
}

/// Longest receipt in bytes: what fits into a message beside its signature.
pub const MAX_RECEIPT: usize = crate::MAX_MESSAGE - 1 - 64 - 2;

/// A signed answer to "was this order applied?".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// [`STATUS_TAG`].
    #[serde(with = "BigArray")]
    pub tag: [u8; 16],
    /// [`FORMAT`].
    pub format: u8,
    /// The device.
    pub device: DeviceId,
    /// The identity key that signs this.
    pub identity: Fingerprint,
    /// The order asked about.
    pub order: Digest,
    /// The nonce of the question.
    pub nonce: Challenge,
    /// Whether it is the last order that was applied.
    pub applied: bool,
    /// The device's state.
    pub state: State,
    /// The device's counter.
    #[serde(with = "postcard::fixint::le")]
    pub counter: u32,
}

impl Status {
    /// Encodes into `out`.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn encode<'a>(&self, out: &'a mut [u8]) -> Result<&'a [u8], TooLong> {
        codec::encode(self, out)
    }

    /// Decodes.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::check_front(bytes, &STATUS_TAG, FORMAT)?;
        codec::decode(bytes)
    }
}
