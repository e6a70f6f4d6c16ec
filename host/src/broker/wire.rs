//! What passes through the broker's socket. Every request names an intent; none carries bytes to be signed, wrapped or unwrapped
//! as they are.
//!
//! A frame is its length (4 bytes, little-endian, at most [`MAXIMUM_FRAME`]), then a version byte ([`VERSION`]), then one
//! [`Request`] or [`Reply`] in postcard, and nothing after it. One request, one reply; a connection may carry several.

use std::io::{self, Read, Write};

use keyferry_protocol::attributes::Attributes;
use keyferry_protocol::identity::{DeviceId, Digest, Fingerprint, Signature};
use keyferry_protocol::proof::Proof;
use keyferry_protocol::suite::Suite;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::hsm::KeyClass;
use crate::station::{KeptCard, KeyCard};

/// The version of requests and replies.
pub const VERSION: u8 = 1;

/// Longest frame in bytes, without its length.
pub const MAXIMUM_FRAME: usize = 1024 * 1024;

/// What a station asks. Numbers are appended, never reused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Who answers here, and with which public keys.
    Describe,
    /// What was done so far.
    Status,
    /// [`crate::station::Hsm::key`].
    Key(Wanted),
    /// [`crate::station::Hsm::fresh`].
    Fresh {
        /// What the key is called on the device.
        label: String,
        /// Its type, by its name.
        key_type: String,
        /// What the device is to use it for, by its name.
        device_use: Option<String>,
        /// Label of the token's key that it is kept under.
        keep_under: String,
    },
    /// [`crate::station::Hsm::suites`].
    Suites,
    /// [`crate::station::Hsm::enrolled`].
    Enrolled(Claim),
    /// [`crate::station::Hsm::wrap`].
    Wrap {
        /// For whom.
        claim: Claim,
        /// How the KEK travels.
        suite: Suite,
        /// The keys, as the broker has described them.
        keys: Vec<Card>,
    },
    /// [`crate::station::Hsm::certify`].
    Certify {
        /// For whom.
        claim: Claim,
        /// The product's serial number.
        serial: Option<String>,
    },
    /// [`crate::station::Hsm::ask`].
    Ask(Card),
    /// [`crate::station::Hsm::verify`].
    Verify {
        /// The key.
        key: Card,
        /// What the device was asked.
        question: Vec<u8>,
        /// SHA-256 of the one right answer, where the token does not check it.
        answer: Option<Digest>,
        /// The proof input.
        input: Vec<u8>,
        /// The device's answer.
        value: Vec<u8>,
    },
    /// Sign an order with the authority key.
    SignOrder(Vec<u8>),
    /// Sign a checkpoint of an audit log with the audit key. The broker puts the signed bytes together.
    SignCheckpoint {
        /// The log's id.
        log: [u8; 16],
        /// How many lines it has.
        lines: u64,
        /// The head of the chain after them.
        head: Digest,
        /// When, in seconds since 1970 (UTC); the broker's clock must agree.
        time: u64,
    },
    /// Sign the manifest of a batch of detached orders with the authority key: all of them were signed here.
    SignBatch(Vec<u8>),
}

impl Request {
    /// The name in logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Describe => "describe",
            Self::Status => "status",
            Self::Key(_) => "key",
            Self::Fresh { .. } => "fresh",
            Self::Suites => "suites",
            Self::Enrolled(_) => "enrolled",
            Self::Wrap { .. } => "wrap",
            Self::Certify { .. } => "certify",
            Self::Ask(_) => "ask",
            Self::Verify { .. } => "verify",
            Self::SignOrder(_) => "sign-order",
            Self::SignCheckpoint { .. } => "sign-checkpoint",
            Self::SignBatch(_) => "sign-batch",
        }
    }
}

/// A key that is looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// `CKA_LABEL`.
    pub label: Option<String>,
    /// `CKA_ID`.
    pub id: Option<Vec<u8>>,
    /// `CKA_CLASS`.
    pub class: Option<Class>,
    /// What the device is to use it for, by its name.
    pub device_use: Option<String>,
}

/// [`KeyCard`], in the order in which it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// `CKA_LABEL`.
    pub label: String,
    /// `CKA_ID`.
    pub id: Vec<u8>,
    /// Algorithm and size, in words.
    pub key_type: String,
    /// What it is and may do on the device.
    pub attributes: Attributes,
    /// Its proof.
    pub proof: Proof,
    /// Where it is kept, if it is no object of the token.
    pub kept: Option<KeptKey>,
}

/// [`KeptCard`], in the order in which it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptKey {
    /// Label of the token's key that it is wrapped under.
    pub under: String,
    /// The wrapped key.
    pub blob: Vec<u8>,
    /// The public key of a private one, `SubjectPublicKeyInfo` DER.
    pub public_key: Option<Vec<u8>>,
}

impl From<KeyCard> for Card {
    fn from(card: KeyCard) -> Self {
        Self {
            label: card.label,
            id: card.id,
            key_type: card.key_type,
            attributes: card.attributes,
            proof: card.proof,
            kept: card.kept.map(|kept| KeptKey {
                under: kept.under,
                blob: kept.blob,
                public_key: kept.public_key,
            }),
            // Derived keys are made by a token in the station's own process, and asked of no broker.
        }
    }
}

impl From<Card> for KeyCard {
    fn from(card: Card) -> Self {
        Self {
            label: card.label,
            id: card.id,
            key_type: card.key_type,
            attributes: card.attributes,
            proof: card.proof,
            kept: card.kept.map(|kept| KeptCard {
                under: kept.under,
                blob: kept.blob,
                public_key: kept.public_key,
            }),
            derived: None,
        }
    }
}

/// [`KeyClass`], with numbers that stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Class {
    /// A secret key.
    Secret,
    /// The private key of a pair.
    Private,
    /// A public key.
    Public,
}

impl From<KeyClass> for Class {
    fn from(class: KeyClass) -> Self {
        match class {
            KeyClass::Secret => Self::Secret,
            KeyClass::Private => Self::Private,
            KeyClass::Public => Self::Public,
        }
    }
}

impl From<Class> for KeyClass {
    fn from(class: Class) -> Self {
        match class {
            Class::Secret => Self::Secret,
            Class::Private => Self::Private,
            Class::Public => Self::Public,
        }
    }
}

/// What a station says of a device: the device's own signed statement, and the certificate it has shown. Nothing in it is
/// believed before it verifies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The statement's receipt, as it came.
    pub receipt: Vec<u8>,
    /// The identity key's signature over it.
    pub signature: Signature,
    /// X.509 in DER.
    pub certificate: Option<Vec<u8>>,
}

/// What a broker answers. Numbers are appended, never reused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To [`Request::Describe`].
    Described(Described),
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Key`] and [`Request::Fresh`].
    Key(Card),
    /// To [`Request::Suites`].
    Suites(Vec<Suite>),
    /// To [`Request::Enrolled`].
    Noted,
    /// To [`Request::Wrap`].
    Wrapped {
        /// How the KEK travels.
        suite: Suite,
        /// For whom.
        recipient: Fingerprint,
        /// The wrapped KEK.
        kek: Vec<u8>,
        /// The wrapped keys.
        blobs: Vec<Vec<u8>>,
    },
    /// To [`Request::Certify`]: X.509 in DER; nothing where the broker has no CA.
    Certificate(Option<Vec<u8>>),
    /// To [`Request::Ask`].
    Question {
        /// The bytes that go into the order.
        bytes: Vec<u8>,
        /// What they decrypt to: random, and of use for one proof.
        secret: Option<[u8; 32]>,
    },
    /// To [`Request::Verify`].
    Verdict(bool),
    /// To [`Request::SignOrder`] and [`Request::SignCheckpoint`].
    Signature(Signature),
    /// To anything.
    Failed(Failed),
}

/// Who answers on a socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Described {
    /// The token, in words.
    pub token: String,
    /// The authority key, P-256 `SubjectPublicKeyInfo` DER.
    pub authority: Vec<u8>,
    /// The audit key, likewise.
    pub auditor: Option<Vec<u8>>,
    /// Whether it issues certificates of devices.
    pub certifies: bool,
}

/// Why a request was not granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// The exit code that the station's command ends with.
    pub exit: u8,
    /// What went wrong.
    pub error: String,
    /// The next move.
    pub hint: Option<String>,
}

/// What a broker did since it was started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The token, in words.
    pub token: String,
    /// Its process.
    pub process: u32,
    /// Seconds since it was started.
    pub seconds: u64,
    /// What it counted.
    pub counts: Counts,
    /// The most keys that it wraps.
    pub maximum_keys: Option<u64>,
    /// The most devices that it wraps keys for.
    pub maximum_devices: Option<u64>,
}

/// What a broker counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Requests that were read.
    pub requests: u64,
    /// Requests that its rules refused.
    pub refused: u64,
    /// Requests that failed otherwise.
    pub failed: u64,
    /// Keys that were wrapped.
    pub keys_wrapped: u64,
    /// Identity keys of devices that keys were wrapped for.
    pub devices: u64,
    /// Orders that were signed.
    pub orders: u64,
    /// Certificates that were issued.
    pub certificates: u64,
    /// Checkpoints that were signed.
    pub checkpoints: u64,
    /// Proofs that were checked.
    pub proofs: u64,
}

/// Why a frame cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The other end is gone, slow, or the system failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The frame is longer than any.
    #[error("a frame of {0} bytes; at most {MAXIMUM_FRAME} are taken")]
    TooLong(usize),
    /// The frame is of another version.
    #[error("version {0} is spoken there, and {VERSION} here")]
    Version(u8),
    /// The frame makes no sense.
    #[error("the frame makes no sense")]
    Malformed,
}

/// Decodes what a frame holds.
///
/// # Errors
/// [`FrameError::Version`], [`FrameError::Malformed`].
pub fn decode<T: DeserializeOwned>(frame: &[u8]) -> Result<T, FrameError> {
    let (version, rest) = frame.split_first().ok_or(FrameError::Malformed)?;
    if *version != VERSION {
        return Err(FrameError::Version(*version));
    }
    match postcard::take_from_bytes(rest) {
        Ok((value, [])) => Ok(value),
        Ok(_) | Err(_) => Err(FrameError::Malformed),
    }
}

/// Encodes what a frame holds.
///
/// # Errors
/// [`FrameError::TooLong`], [`FrameError::Malformed`].
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, FrameError> {
    let bytes = postcard::to_extend(value, vec![VERSION]).map_err(|_| FrameError::Malformed)?;
    if bytes.len() > MAXIMUM_FRAME {
        return Err(FrameError::TooLong(bytes.len()));
    }
    Ok(bytes)
}

/// Reads a frame; `None` if the other end has nothing more to say.
///
/// # Errors
/// [`FrameError::TooLong`] before any of it is read; [`FrameError::Io`].
pub fn read_frame(from: &mut impl Read) -> Result<Option<Vec<u8>>, FrameError> {
    let mut length = [0; 4];
    let mut filled = 0;
    while filled < length.len() {
        match from.read(&mut length[filled..]) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(count) => filled += count,
            // A process that was stopped and goes on: reads with a timeout are not taken up again (signal(7)).
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > MAXIMUM_FRAME {
        return Err(FrameError::TooLong(length));
    }
    let mut frame = vec![0; length];
    from.read_exact(&mut frame)?;
    Ok(Some(frame))
}

/// Writes a frame.
///
/// # Errors
/// [`FrameError::TooLong`], [`FrameError::Io`].
pub fn write_frame(to: &mut impl Write, frame: &[u8]) -> Result<(), FrameError> {
    let length = u32::try_from(frame.len())
        .ok()
        .filter(|_| frame.len() <= MAXIMUM_FRAME)
        .ok_or(FrameError::TooLong(frame.len()))?;
    // In one piece: a frame is short, and the other end waits for all of it.
    to.write_all(&[&length.to_le_bytes(), frame].concat())?;
    to.flush()?;
    Ok(())
}

/// The device that a claim is about, on its own word.
pub(super) fn claimed_device(claim: &Claim) -> Option<DeviceId> {
    let (header, _) = keyferry_protocol::receipt::decode(&claim.receipt).ok()?;
    Some(header.device)
}
