//! What lies beside the keys of devices that go to a backend, format `keyferry-backend-1`: which blob holds which key of which
//! device. A blob itself does not say, so nothing but the signed manifest does.

use std::collections::HashSet;

use keyferry_protocol::MAX_SLOTS;
use keyferry_protocol::attributes::{Attributes, KeyKind};
use keyferry_protocol::identity::{DeviceId, Fingerprint};
use keyferry_protocol::order::MAX_LABEL;
use keyferry_protocol::suite::Suite;
use serde::{Deserialize, Serialize};

use super::error::ExportError;
use super::sidecar::{BlobInfo, RecipientInfo, Tail, read, to_json};
use super::signature::Trust;
use super::wire::{Named, named, named_option};
use crate::hsm::{Diversification, KeyType, MAXIMUM_BLOB, PublicKey};

/// Longest manifest that is read or written, in bytes.
pub const MAXIMUM_MANIFEST: usize = 32 * 1024 * 1024;

/// The most keys in one manifest.
pub const MAXIMUM_KEYS: usize = 10_000;

/// The format's name.
const FORMAT: &str = "keyferry-backend-1";

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

/// Keys of devices, wrapped for a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    #[serde(with = "named")]
    format: Format,
    /// The backend's key-encryption key.
    pub recipient: RecipientInfo,
    /// The keys, at most [`MAXIMUM_KEYS`]; no two for the same slot of one device.
    pub keys: Vec<DeviceKey>,
    /// The public key of the signer.
    #[serde(with = "named")]
    pub signer: Fingerprint,
}

/// One key of one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceKey {
    /// The device.
    #[serde(with = "named")]
    pub device: DeviceId,
    /// The slot on the device.
    pub slot: u16,
    /// The version of the key in the slot.
    pub version: u32,
    /// The slot's label, at most 32 bytes.
    pub label: String,
    /// Algorithm and size.
    #[serde(rename = "type", with = "named")]
    pub key_type: KeyType,
    /// What the key may do on the device.
    pub attributes: DeviceAttributes,
    /// How it was made.
    #[serde(with = "named")]
    pub made: Made,
    /// The master key it was derived from, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<MasterInfo>,
    /// The public key of a private one, in PEM.
    #[serde(
        with = "named_option",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub public_key: Option<PublicKey>,
    /// The file with the key wrapped for the backend: [`DeviceKey::file_name`].
    pub file: String,
    /// What is in it.
    pub blob: BlobInfo,
    /// The same key wrapped for the device itself, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_device: Option<DeviceBlob>,
}

/// A key wrapped for the device it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceBlob {
    /// The file with the wrapped key: [`DeviceKey::device_file_name`].
    pub file: String,
    /// What is in it.
    pub blob: BlobInfo,
    /// The device's unwrap key.
    pub recipient: RecipientInfo,
}

/// What a key is and may do on the device, in the PSA Crypto API's own encodings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceAttributes {
    /// `psa_key_type_t`.
    #[serde(rename = "type", with = "named")]
    pub key_type: u16,
    /// Key size in bits.
    pub bits: u16,
    /// `psa_key_usage_t`.
    #[serde(with = "named")]
    pub usage: u32,
    /// `psa_algorithm_t`.
    #[serde(with = "named")]
    pub algorithm: u32,
    /// `psa_key_lifetime_t`.
    #[serde(with = "named")]
    pub lifetime: u32,
}

impl DeviceAttributes {
    /// Whether these are attributes of a key of this type.
    fn fit(self, key_type: KeyType) -> bool {
        let bytes = |bits: u16| usize::from(bits / 8);
        match (Attributes::from(self).kind(), key_type) {
            (Ok(KeyKind::Aes(length)), KeyType::Aes { bits })
            | (Ok(KeyKind::Secret(length)), KeyType::Secret { bits })
            | (Ok(KeyKind::Rsa(length)), KeyType::Rsa { bits }) => length == bytes(bits),
            (Ok(KeyKind::P256), KeyType::P256) => true,
            _ => false,
        }
    }
}

impl From<Attributes> for DeviceAttributes {
    fn from(attributes: Attributes) -> Self {
        Self {
            key_type: attributes.key_type,
            bits: attributes.bits,
            usage: attributes.usage,
            algorithm: attributes.algorithm,
            lifetime: attributes.lifetime,
        }
    }
}

impl From<DeviceAttributes> for Attributes {
    fn from(attributes: DeviceAttributes) -> Self {
        Self {
            key_type: attributes.key_type,
            bits: attributes.bits,
            usage: attributes.usage,
            algorithm: attributes.algorithm,
            lifetime: attributes.lifetime,
        }
    }
}

/// A diversification master, as its token names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MasterInfo {
    /// `CKA_LABEL`.
    pub label: String,
    /// `CKA_ID`.
    #[serde(with = "named")]
    pub id: Vec<u8>,
}

/// How a key was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// At random.
    Fresh,
    /// Derived from a master key.
    Diversified(Diversification),
}

/// The name used in documents: `fresh`, or that of the derivation.
impl Named for Made {
    const WHAT: &'static str = "a way to make a key";

    fn to_name(&self) -> String {
        match self {
            Self::Fresh => "fresh",
            Self::Diversified(way) => way.name(),
        }
        .into()
    }

    fn from_name(name: &str) -> Option<Self> {
        if name == "fresh" {
            return Some(Self::Fresh);
        }
        name.parse().ok().map(Self::Diversified)
    }
}

impl std::fmt::Display for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.to_name())
    }
}

impl DeviceKey {
    /// The name of the file for the backend: device id, slot, `.backend`. It follows from what the key is for, so that no
    /// manifest can name a file elsewhere.
    #[must_use]
    pub fn file_name(device: DeviceId, slot: u16) -> String {
        format!("{device}-{slot}.backend")
    }

    /// The name of the file for the device: device id, slot, `.device`.
    #[must_use]
    pub fn device_file_name(device: DeviceId, slot: u16) -> String {
        format!("{device}-{slot}.device")
    }

    /// The files that belong to the key, and what is in them.
    pub fn files(&self) -> impl Iterator<Item = (&str, &BlobInfo)> {
        let for_device = self.for_device.iter();
        std::iter::once((self.file.as_str(), &self.blob))
            .chain(for_device.map(|other| (other.file.as_str(), &other.blob)))
    }

    /// The first thing about the entry that cannot be.
    fn contradiction(&self) -> Option<&'static str> {
        let public = self.public_key.as_ref().map(PublicKey::key_type);
        let blobs: Vec<_> = self.files().map(|(_, blob)| blob).collect();
        let cases = [
            (
                usize::from(self.slot) >= MAX_SLOTS,
                "devices have no such slot",
            ),
            (
                self.label.is_empty() || self.label.len() > MAX_LABEL,
                "a label has 1 to 32 bytes",
            ),
            (
                !self.attributes.fit(self.key_type),
                "attributes and type of a key do not fit",
            ),
            (
                matches!(self.made, Made::Diversified(_)) != self.master.is_some(),
                "a derived key, and no other, has a master",
            ),
            (
                self.master.is_some() && self.key_type.is_pair(),
                "no such key is derived",
            ),
            (
                public != Some(self.key_type).filter(|found| found.is_pair()),
                "the public key of a key does not fit",
            ),
            (
                self.file != Self::file_name(self.device, self.slot)
                    || self.for_device.as_ref().is_some_and(|other| {
                        other.file != Self::device_file_name(self.device, self.slot)
                    }),
                "a file has another name than its key gives it",
            ),
            (
                blobs
                    .iter()
                    .any(|blob| blob.bytes == 0 || blob.bytes > MAXIMUM_BLOB),
                "no blob has this length",
            ),
            (
                blobs.iter().any(|blob| {
                    blob.tail == Tail::Zeros && Tail::of_filled(self.key_type) == Tail::None
                }),
                "a key of this length has no tail",
            ),
            (
                !matches!(self.blob.suite, Suite::RsaOaepSha256 | Suite::RsaOaepSha1)
                    || self
                        .for_device
                        .as_ref()
                        .is_some_and(|other| !other.recipient.key_type.fits(other.blob.suite)),
                "suite and recipient do not fit",
            ),
        ];
        let mut wrong = cases.into_iter().filter(|(wrong, _)| *wrong);
        wrong.next().map(|(_, what)| what)
    }
}

impl Manifest {
    /// Describes keys that were wrapped for a backend.
    ///
    /// # Errors
    /// [`ExportError::BackendKey`], [`ExportError::Inconsistent`].
    pub fn new(
        recipient: &PublicKey,
        keys: Vec<DeviceKey>,
        signer: Fingerprint,
    ) -> Result<Self, ExportError> {
        let manifest = Self {
            format: Format,
            recipient: RecipientInfo::of(recipient),
            keys,
            signer,
        };
        manifest.check()?;
        Ok(manifest)
    }

    /// The document: JSON with two spaces of indentation and a newline at the end.
    ///
    /// # Errors
    /// [`ExportError::TooLong`].
    pub fn to_json(&self) -> Result<Vec<u8>, ExportError> {
        to_json(self, MAXIMUM_MANIFEST)
    }

    /// Reads a manifest, once it is believed.
    ///
    /// # Errors
    /// [`ExportError::TooLong`]; [`ExportError::Unsigned`], [`ExportError::SignatureMalformed`], [`ExportError::OtherSigner`],
    /// [`ExportError::Altered`]; [`ExportError::OtherFormat`], [`ExportError::Malformed`], [`ExportError::BackendKey`],
    /// [`ExportError::Inconsistent`].
    pub fn read(
        document: &[u8],
        signature: Option<&[u8]>,
        trust: Trust<'_>,
    ) -> Result<Self, ExportError> {
        let manifest: Self = read(document, signature, trust, FORMAT, MAXIMUM_MANIFEST)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Checks what the format alone does not rule out.
    fn check(&self) -> Result<(), ExportError> {
        if !matches!(self.recipient.key_type, KeyType::Rsa { .. }) {
            return Err(ExportError::BackendKey(self.recipient.key_type));
        }
        if self.keys.is_empty() || self.keys.len() > MAXIMUM_KEYS {
            return Err(ExportError::Inconsistent("it has 1 to 10000 keys"));
        }
        let mut places = HashSet::new();
        for key in &self.keys {
            if let Some(what) = key.contradiction() {
                return Err(ExportError::Inconsistent(what));
            }
            if !places.insert((key.device, key.slot)) {
                return Err(ExportError::Inconsistent(
                    "two keys are for the same slot of one device",
                ));
            }
        }
        Ok(())
    }
}
