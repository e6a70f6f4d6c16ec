//! The document beside one exported key, format `keyferry-export-1`.

use std::path::{Path, PathBuf};

use keyferry_protocol::identity::Fingerprint;
use keyferry_protocol::suite::Suite;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::ExportError;
use super::signature::Trust;
use super::wire::{Named, flags, flags_option, named, named_option};
use crate::hsm::{
    CheckAlgorithm, Flag, Flags, HsmError, KeyClass, KeyInfo, KeyType, MAXIMUM_BLOB, PublicKey,
    Token, random,
};

/// Longest document of one key that is read or written, in bytes.
pub const MAXIMUM_DOCUMENT: usize = 64 * 1024;

/// The format's name.
const FORMAT: &str = "keyferry-export-1";

/// What the input of a proof begins with: 16 bytes, so that no proof is a MAC or signature over anything else.
const PROOF_TAG: &[u8; 16] = b"keyferry export\0";

/// Length of the input of a proof in bytes: the tag and 32 random bytes.
const PROOF_INPUT: usize = 48;

/// Longest `CKA_LABEL` and `CKA_ID` in a document, in bytes.
const MAXIMUM_LABEL: usize = 256;
const MAXIMUM_ID: usize = 128;

/// The name of the format, which has one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Format;

impl Named for Format {
    const WHAT: &'static str = "the format that is read here";

    fn to_name(&self) -> String {
        FORMAT.into()
    }

    fn from_name(name: &str) -> Option<Self> {
        (name == FORMAT).then_some(Self)
    }
}

/// What an exported key is, what it may do, and for whom it was wrapped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sidecar {
    #[serde(with = "named")]
    format: Format,
    /// The key.
    pub key: KeyDescription,
    /// Every boolean attribute of the secret or private key that its token tells.
    #[serde(with = "flags")]
    pub attributes: Flags,
    /// The same of the public key of a pair, if that is an object on the token.
    #[serde(
        with = "flags_option",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub public_attributes: Option<Flags>,
    /// The blob.
    pub blob: BlobInfo,
    /// For whom it was wrapped.
    pub recipient: RecipientInfo,
    /// What the origin's copy of the key answered to a random question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<CopyProof>,
    /// The public key of the signer, if the document is signed.
    #[serde(
        with = "named_option",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub signer: Option<Fingerprint>,
}

/// Which key it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyDescription {
    /// `CKA_LABEL`, at most 256 bytes.
    pub label: String,
    /// `CKA_ID`, at most 128 bytes.
    #[serde(with = "named")]
    pub id: Vec<u8>,
    /// Algorithm and size.
    #[serde(rename = "type", with = "named")]
    pub key_type: KeyType,
    /// Secret or private.
    #[serde(with = "named")]
    pub class: KeyClass,
    /// The public key of a private one, in PEM.
    #[serde(
        with = "named_option",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub public_key: Option<PublicKey>,
}

/// What the wrapped bytes end with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// The key and nothing behind it.
    None,
    /// Up to seven zero bytes behind the key, up to a multiple of eight, which whoever opens it has to cut.
    Zeros,
}

impl Tail {
    /// What a key of this type ends with when this token wraps it. The token is tried out only where that makes a difference.
    ///
    /// # Errors
    /// [`ExportError::Hsm`].
    pub fn find_out(token: &Token, key_type: KeyType) -> Result<Self, ExportError> {
        match Self::of_filled(key_type) {
            Self::Zeros if token.fills_with_zeros()? => Ok(Self::Zeros),
            Self::Zeros | Self::None => Ok(Self::None),
        }
    }

    /// Checks that a strict importer takes a key of this type that ends like this. Cloud key services refuse a private key with
    /// something behind it, and take a secret key as longer than it is.
    ///
    /// # Errors
    /// [`ExportError::ZeroTail`].
    pub fn check(self, label: &str, key_type: KeyType) -> Result<(), ExportError> {
        match self {
            Self::Zeros => Err(ExportError::ZeroTail {
                label: label.into(),
                key_type,
            }),
            Self::None => Ok(()),
        }
    }

    /// What a token that fills up with zeros before wrapping does to a key of this type. A secret key's length is known; that
    /// of a private key's encoding is not, so it counts as having a tail.
    #[must_use]
    pub const fn of_filled(key_type: KeyType) -> Self {
        match key_type {
            KeyType::Aes { bits } | KeyType::Secret { bits } if bits.is_multiple_of(64) => {
                Self::None
            }
            KeyType::Aes { .. }
            | KeyType::Secret { .. }
            | KeyType::Rsa { .. }
            | KeyType::P256
            | KeyType::P384
            | KeyType::Ed25519
            | KeyType::Other => Self::Zeros,
        }
    }
}

impl Named for Tail {
    const WHAT: &'static str = "a tail ('none' or 'zeros')";

    fn to_name(&self) -> String {
        match self {
            Self::None => "none",
            Self::Zeros => "zeros",
        }
        .into()
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::None, Self::Zeros]
            .into_iter()
            .find(|tail| tail.to_name() == name)
    }
}

/// The wrapped key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlobInfo {
    /// Its length in bytes.
    pub bytes: usize,
    /// Its SHA-256.
    #[serde(with = "named")]
    pub sha256: [u8; 32],
    /// How it is wrapped.
    #[serde(with = "named")]
    pub suite: Suite,
    /// What the wrapped bytes end with.
    #[serde(with = "named")]
    pub tail: Tail,
}

impl BlobInfo {
    /// Describes a blob.
    #[must_use]
    pub fn of(blob: &[u8], suite: Suite, tail: Tail) -> Self {
        Self {
            bytes: blob.len(),
            sha256: Sha256::digest(blob).into(),
            suite,
            tail,
        }
    }

    /// Checks that this is the blob. `name` is what messages call it.
    ///
    /// # Errors
    /// [`ExportError::BlobLength`], [`ExportError::OtherBlob`].
    pub fn check(&self, name: &str, blob: &[u8]) -> Result<(), ExportError> {
        if blob.len() != self.bytes {
            return Err(ExportError::BlobLength {
                name: name.into(),
                expected: self.bytes,
                found: blob.len(),
            });
        }
        let found: [u8; 32] = Sha256::digest(blob).into();
        if found == self.sha256 {
            return Ok(());
        }
        Err(ExportError::OtherBlob {
            name: name.into(),
            expected: hex::encode(self.sha256),
            found: hex::encode(found),
        })
    }
}

/// The key that opens the blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipientInfo {
    /// Its type.
    #[serde(rename = "type", with = "named")]
    pub key_type: KeyType,
    /// SHA-256 of its `SubjectPublicKeyInfo`.
    #[serde(with = "named")]
    pub fingerprint: Fingerprint,
}

impl RecipientInfo {
    /// Describes a recipient's key.
    #[must_use]
    pub fn of(key: &PublicKey) -> Self {
        Self {
            key_type: key.key_type(),
            fingerprint: key.fingerprint(),
        }
    }

    /// Checks that this is the key that is to open the blob.
    ///
    /// # Errors
    /// [`ExportError::OtherRecipient`].
    pub fn check(&self, expected: Fingerprint) -> Result<(), ExportError> {
        if self.fingerprint == expected {
            return Ok(());
        }
        Err(ExportError::OtherRecipient {
            expected,
            found: self.fingerprint,
        })
    }
}

/// A MAC or signature that the origin's token made with the key, so that an importer can check its copy without the origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyProof {
    /// How it was made.
    #[serde(with = "named")]
    pub algorithm: CheckAlgorithm,
    /// Over what: `"keyferry export\0"` and 32 random bytes.
    #[serde(with = "named")]
    pub input: Vec<u8>,
    /// The MAC or signature.
    #[serde(with = "named")]
    pub value: Vec<u8>,
}

impl CopyProof {
    /// Lets the key answer a fresh question; nothing if its attributes do not let it sign.
    ///
    /// # Errors
    /// [`ExportError::Hsm`].
    pub fn make(token: &Token, key: &KeyInfo) -> Result<Option<Self>, ExportError> {
        let Some(algorithm) =
            CheckAlgorithm::of(key.key_type).filter(|_| key.flags.has(Flag::Sign))
        else {
            return Ok(None);
        };
        let question: [u8; 32] = random()?;
        let input = [&PROOF_TAG[..], &question].concat();
        match token.make_check(key, algorithm, &input) {
            Ok(value) => Ok(Some(Self {
                algorithm,
                input,
                value,
            })),
            // Some tokens want longer HMAC keys than others, or lack the mechanism.
            Err(HsmError::Token { code, .. })
                if matches!(
                    code.as_str(),
                    "CKR_KEY_SIZE_RANGE" | "CKR_MECHANISM_INVALID" | "CKR_KEY_TYPE_INCONSISTENT"
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Checks that a copy of the key gives the same answer.
    ///
    /// # Errors
    /// [`ExportError::ProofWrong`]; [`ExportError::Hsm`] as [`Token::verify_check`].
    pub fn check(&self, token: &Token, copy: &KeyInfo) -> Result<(), ExportError> {
        if token.verify_check(copy, self.algorithm, &self.input, &self.value)? {
            Ok(())
        } else {
            Err(ExportError::ProofWrong)
        }
    }
}

impl Sidecar {
    /// Describes an export.
    ///
    /// # Errors
    /// [`ExportError::UnsupportedType`], [`ExportError::Inconsistent`].
    pub fn new(
        key: &KeyInfo,
        blob: BlobInfo,
        recipient: &PublicKey,
        proof: Option<CopyProof>,
        signer: Option<Fingerprint>,
    ) -> Result<Self, ExportError> {
        if KeyType::from_name(&key.key_type.to_string()).is_none() {
            return Err(ExportError::UnsupportedType {
                label: key.name(),
                found: key.key_type,
            });
        }
        let sidecar = Self {
            format: Format,
            key: KeyDescription {
                label: key.label.clone(),
                id: key.id.clone(),
                key_type: key.key_type,
                class: key.class,
                public_key: key.public_key.clone(),
            },
            attributes: key.flags,
            public_attributes: key.public_flags,
            blob,
            recipient: RecipientInfo::of(recipient),
            proof,
            signer,
        };
        sidecar.check()?;
        Ok(sidecar)
    }

    /// The document: JSON with two spaces of indentation and a newline at the end.
    ///
    /// # Errors
    /// [`ExportError::TooLong`].
    pub fn to_json(&self) -> Result<Vec<u8>, ExportError> {
        to_json(self, MAXIMUM_DOCUMENT)
    }

    /// Reads a document, once it is believed.
    ///
    /// # Errors
    /// [`ExportError::TooLong`]; [`ExportError::Unsigned`], [`ExportError::SignatureMalformed`], [`ExportError::OtherSigner`],
    /// [`ExportError::Altered`]; [`ExportError::OtherFormat`], [`ExportError::Malformed`], [`ExportError::Inconsistent`].
    pub fn read(
        document: &[u8],
        signature: Option<&[u8]>,
        trust: Trust<'_>,
    ) -> Result<Self, ExportError> {
        let sidecar: Self = read(document, signature, trust, FORMAT, MAXIMUM_DOCUMENT)?;
        sidecar.check()?;
        Ok(sidecar)
    }

    /// Checks what the format alone does not rule out.
    fn check(&self) -> Result<(), ExportError> {
        let key = &self.key;
        let public = key.public_key.as_ref().map(PublicKey::key_type);
        let known = |flags: &Flags, class: KeyClass| {
            flags
                .known()
                .all(|(flag, _)| flag == Flag::Trusted || class.flags().contains(&flag))
        };
        let wrong = |wrong: bool, what| if wrong { Some(what) } else { None };
        let found = [
            wrong(
                key.label.len() > MAXIMUM_LABEL || key.id.len() > MAXIMUM_ID,
                "the label or id is too long",
            ),
            wrong(
                match key.class {
                    KeyClass::Secret => key.key_type.is_pair() || public.is_some(),
                    KeyClass::Private => !key.key_type.is_pair(),
                    KeyClass::Public => true,
                },
                "class and type of the key do not fit",
            ),
            wrong(
                public.is_some_and(|public| public != key.key_type),
                "the public key is of another type",
            ),
            wrong(
                key.class != KeyClass::Private && self.public_attributes.is_some(),
                "a secret key has no public attributes",
            ),
            wrong(
                !known(&self.attributes, key.class)
                    || self
                        .public_attributes
                        .is_some_and(|flags| !known(&flags, KeyClass::Public)),
                "keys of this class have no such attribute",
            ),
            wrong(
                self.blob.bytes == 0 || self.blob.bytes > MAXIMUM_BLOB,
                "no blob has this length",
            ),
            wrong(
                !self.recipient.key_type.fits(self.blob.suite),
                "suite and recipient do not fit",
            ),
            wrong(
                self.blob.tail == Tail::Zeros && Tail::of_filled(key.key_type) == Tail::None,
                "a key of this length has no tail",
            ),
            wrong(
                self.proof.as_ref().is_some_and(|proof| {
                    CheckAlgorithm::of(key.key_type) != Some(proof.algorithm)
                        || proof.input.len() != PROOF_INPUT
                        || !proof.input.starts_with(PROOF_TAG)
                }),
                "the proof is none of this key's",
            ),
        ];
        match found.into_iter().flatten().next() {
            Some(what) => Err(ExportError::Inconsistent(what)),
            None => Ok(()),
        }
    }
}

/// Where the document of a blob is: the blob's name and `.json`.
#[must_use]
pub fn sidecar_path(blob: &Path) -> PathBuf {
    with_suffix(blob, ".json")
}

/// Where the signature of a document is: the document's name and `.sig`.
#[must_use]
pub fn signature_path(document: &Path) -> PathBuf {
    with_suffix(document, ".sig")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Writes a document as JSON.
pub(crate) fn to_json(document: &impl Serialize, limit: usize) -> Result<Vec<u8>, ExportError> {
    let mut bytes = serde_json::to_vec_pretty(document)
        .map_err(|_| ExportError::Inconsistent("it cannot be written as JSON"))?;
    bytes.push(b'\n');
    if bytes.len() > limit {
        return Err(ExportError::TooLong { limit });
    }
    Ok(bytes)
}

/// Reads a document of this format, once it is believed.
pub(crate) fn read<T: serde::de::DeserializeOwned>(
    document: &[u8],
    signature: Option<&[u8]>,
    trust: Trust<'_>,
    format: &'static str,
    limit: usize,
) -> Result<T, ExportError> {
    if document.len() > limit {
        return Err(ExportError::TooLong { limit });
    }
    trust.check(document, signature, || {
        serde_json::from_slice::<Head>(document)
            .ok()?
            .signer
            .as_deref()
            .and_then(Fingerprint::from_name)
    })?;
    let malformed = |error: serde_json::Error| ExportError::Malformed {
        format,
        reason: error.to_string(),
    };
    let head: Head = serde_json::from_slice(document).map_err(malformed)?;
    if head.format != format {
        return Err(ExportError::OtherFormat {
            found: head.format,
            wanted: format,
        });
    }
    serde_json::from_slice(document).map_err(malformed)
}

/// What documents of all formats have.
#[derive(Deserialize)]
struct Head {
    format: String,
    #[serde(default)]
    signer: Option<String>,
}
