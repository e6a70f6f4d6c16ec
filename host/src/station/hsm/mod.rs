//! What a station asks of an HSM, and all that it asks: describe a key, wrap keys for a device, sign an order, check a proof. A
//! token in this process answers ([`LocalHsm`]), or a broker that holds the token's login in a process of its own.

mod local;
mod signers;

use keyferry_protocol::attributes::Attributes;
use keyferry_protocol::identity::{DeviceId, Fingerprint};
use keyferry_protocol::proof::Proof;
use keyferry_protocol::suite::Suite;
use serde::{Deserialize, Serialize};

pub use local::LocalHsm;
pub use signers::{Ca, Signers, TokenSigner};

use super::JobError;
use crate::device::flow::Authority;
use crate::device::verify::Statement;
use crate::export::DeviceKey;
use crate::hsm::{Asked, DeviceUse, KeySpec, KeyType, PublicKey, Question, WrappedKeys};

/// A key as a station knows it: what it is called, what it becomes on a device, and how it will be proved. Never its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyCard {
    /// `CKA_LABEL`.
    pub label: String,
    /// `CKA_ID`.
    pub id: Vec<u8>,
    /// Algorithm and size, in words.
    pub key_type: String,
    /// What it is and may do on the device.
    pub attributes: Attributes,
    /// The strongest proof that the device can give of it and the HSM can check.
    pub proof: Proof,
    /// Where it is kept, if it is no object of the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<KeptCard>,
    /// What it is derived from, if it is no object of the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derived: Option<DerivedCard>,
}

/// A key of one device that the token derives from a master key whenever it is needed. See [`LocalHsm::diversified`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DerivedCard {
    /// `CKA_LABEL` of the master key.
    pub master: String,
    /// `CKA_ID` of the master key.
    pub master_id: Vec<u8>,
    /// How it is derived, by its name.
    pub by: String,
    /// For which device.
    pub device: [u8; DeviceId::LENGTH],
    /// For which slot.
    pub slot: u16,
    /// For which version.
    pub version: u32,
}

/// A random key of one device, kept under a key of the token until its proof has come. See [`Hsm::fresh`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptCard {
    /// Label of the token's key that it is wrapped under.
    pub under: String,
    /// AES key wrapping with padding (RFC 5649) of the key.
    pub blob: Vec<u8>,
    /// Of a private key, the `SubjectPublicKeyInfo` DER of its public key.
    pub public_key: Option<Vec<u8>>,
}

impl KeyCard {
    /// The name for messages: the label, or the id of a key without one.
    #[must_use]
    pub fn name(&self) -> String {
        if self.label.is_empty() {
            format!("id {}", hex::encode(&self.id))
        } else {
            self.label.clone()
        }
    }

    fn spec(&self) -> KeySpec {
        KeySpec {
            label: Some(self.label.clone()).filter(|label| !label.is_empty()),
            id: Some(self.id.clone()).filter(|id| !id.is_empty()),
            class: None,
        }
    }
}

/// A device that keys are to be wrapped for: its verified statement, and what else speaks for it.
#[derive(Clone, Copy, Debug)]
pub struct Recipient<'a> {
    /// Its statement, which holds the receipt it was read from.
    pub statement: &'a Statement,
    /// The certificate of its identity key, where the device has shown one.
    pub certificate: Option<&'a [u8]>,
}

/// What a station asks of an HSM.
pub trait Hsm {
    /// What is asked, in words: a token, or a broker.
    fn name(&self) -> String;

    /// The key that signs orders.
    fn authority(&self) -> &dyn Authority;

    /// The key that signs checkpoints of the audit log, if one was named.
    fn auditor(&self) -> Option<&dyn Authority>;

    /// Finds a key that is to go to devices, and checks that it may leave.
    ///
    /// # Errors
    /// [`JobError`]; so in all functions here.
    fn key(&self, spec: &KeySpec, device_use: Option<DeviceUse>) -> Result<KeyCard, JobError>;

    /// Makes a random key for one device, which gets this label there. It is no object of the token afterwards: the card holds it
    /// wrapped under the token's AES key `keep_under`, and can be used like the card of any other key.
    ///
    /// # Errors
    /// [`JobError`].
    fn fresh(
        &self,
        label: &str,
        key_type: KeyType,
        device_use: Option<DeviceUse>,
        keep_under: &str,
    ) -> Result<KeyCard, JobError>;

    /// The suites under which keys can be wrapped, strongest first.
    ///
    /// # Errors
    /// [`JobError`].
    fn suites(&self) -> Result<Vec<Suite>, JobError>;

    /// Whether keys can be wrapped under one suite. A token that is asked for no other is tried for no other, which may take long.
    ///
    /// # Errors
    /// [`JobError`].
    fn supports(&self, suite: Suite) -> Result<bool, JobError> {
        Ok(self.suites()?.contains(&suite))
    }

    /// Wraps keys for a device, all under one KEK.
    ///
    /// # Errors
    /// [`JobError`].
    fn wrap(
        &self,
        recipient: Recipient<'_>,
        suite: Suite,
        keys: &[&KeyCard],
    ) -> Result<WrappedKeys, JobError>;

    /// Tells whoever guards the token that a device has been enrolled. A guard accepts it by rules of its own; a token in this
    /// process guards nothing.
    ///
    /// # Errors
    /// [`JobError`].
    fn enrolled(&self, recipient: Recipient<'_>) -> Result<(), JobError>;

    /// Whether a CA was named, so that [`Hsm::certify`] issues certificates.
    fn certifies(&self) -> bool;

    /// Issues the certificate of a device's identity key; `None` where no CA was named. `serial` is the product's serial number,
    /// where it has another than the device id.
    ///
    /// # Errors
    /// [`JobError`].
    fn certify(
        &self,
        recipient: Recipient<'_>,
        serial: Option<&str>,
    ) -> Result<Option<Vec<u8>>, JobError>;

    /// Makes the question that the key's proof needs, if it needs one.
    ///
    /// # Errors
    /// [`JobError`].
    fn ask(&self, key: &KeyCard) -> Result<Question, JobError>;

    /// Whether a device's answer is the one that the key gives.
    ///
    /// # Errors
    /// [`JobError`].
    fn verify(
        &self,
        key: &KeyCard,
        asked: &Asked,
        input: &[u8],
        value: &[u8],
    ) -> Result<bool, JobError>;
}

/// Whom devices' own keys are wrapped for besides the devices.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Its key-encryption key, RSA.
    pub key: PublicKey,
    /// How keys travel to it.
    pub suite: Suite,
    /// Whether it takes keys that a token has filled up with zeros.
    pub allow_zero_tail: bool,
}

/// A key of a device, wrapped for a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// What the manifest says of it.
    pub entry: DeviceKey,
    /// The wrapped key.
    pub blob: Vec<u8>,
    /// The backend's key: nobody else can open it.
    pub recipient: Fingerprint,
}
