//! What a station asks of an HSM, and all that it asks: describe a key, wrap keys for a device, sign an order, check a proof. A
//! token in this process answers ([`LocalHsm`]), or a broker that holds the token's login in a process of its own.

use std::cell::RefCell;

use keyferry_protocol::attributes::Attributes;
use keyferry_protocol::proof::Proof;
use keyferry_protocol::suite::Suite;
use serde::{Deserialize, Serialize};

use super::JobError;
use crate::device::flow::Authority;
use crate::device::verify::Statement;
use crate::hsm::{
    Asked, DeviceUse, HsmError, KeyInfo, KeySpec, PublicKey, Question, Token, WrappedKeys,
};

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

    /// The suites under which keys can be wrapped, strongest first.
    ///
    /// # Errors
    /// [`JobError`].
    fn suites(&self) -> Result<Vec<Suite>, JobError>;

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

/// A key on a token that signs, with a session of its own.
pub struct TokenSigner {
    token: Token,
    key: KeyInfo,
    public: Vec<u8>,
}

impl TokenSigner {
    /// The key's pair must be on the token.
    ///
    /// # Errors
    /// [`HsmError::NoPublicKey`].
    pub fn new(token: Token, key: KeyInfo) -> Result<Self, HsmError> {
        let public = key.public_key()?.spki_der().to_vec();
        Ok(Self { token, key, public })
    }

    /// The key of this name on the token, in a session of its own.
    ///
    /// # Errors
    /// Those of [`Token::key`] and [`Token::another_session`], [`HsmError::NoPublicKey`].
    pub fn named(token: &Token, spec: &KeySpec) -> Result<Self, HsmError> {
        let key = token.key(spec)?;
        Self::new(token.another_session()?, key)
    }
}

impl Authority for TokenSigner {
    fn public_key(&self) -> &[u8] {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], Box<dyn std::error::Error + Send + Sync>> {
        self.token
            .sign_p256(&self.key, message)
            .map_err(|error| Box::new(error).into())
    }
}

/// A token in this process.
pub struct LocalHsm {
    token: Token,
    authority: TokenSigner,
    auditor: Option<TokenSigner>,
    /// Keys that were looked up before.
    keys: RefCell<Vec<KeyInfo>>,
}

impl LocalHsm {
    /// The token with the target keys, and the keys that sign, which may be on other tokens.
    #[must_use]
    pub fn new(token: Token, authority: TokenSigner, auditor: Option<TokenSigner>) -> Self {
        Self {
            token,
            authority,
            auditor,
            keys: RefCell::default(),
        }
    }

    /// The token with the target keys.
    #[must_use]
    pub fn token(&self) -> &Token {
        &self.token
    }

    fn info(&self, card: &KeyCard) -> Result<KeyInfo, HsmError> {
        let known = self
            .keys
            .borrow()
            .iter()
            .find(|key| key.label == card.label && key.id == card.id)
            .cloned();
        match known {
            Some(key) => Ok(key),
            None => self.look_up(&card.spec()),
        }
    }

    fn look_up(&self, spec: &KeySpec) -> Result<KeyInfo, HsmError> {
        let key = self.token.key(spec)?;
        self.keys.borrow_mut().push(key.clone());
        Ok(key)
    }
}

impl Hsm for LocalHsm {
    fn name(&self) -> String {
        format!("token '{}'", self.token.label())
    }

    fn authority(&self) -> &dyn Authority {
        &self.authority
    }

    fn auditor(&self) -> Option<&dyn Authority> {
        self.auditor.as_ref().map(|signer| signer as &dyn Authority)
    }

    fn key(&self, spec: &KeySpec, device_use: Option<DeviceUse>) -> Result<KeyCard, JobError> {
        let key = self.look_up(spec)?;
        key.check_may_leave()?;
        let (attributes, proof) = key.attributes_for(device_use)?;
        Ok(KeyCard {
            label: key.label.clone(),
            id: key.id.clone(),
            key_type: key.key_type.to_string(),
            attributes,
            proof,
        })
    }

    fn suites(&self) -> Result<Vec<Suite>, JobError> {
        Ok(self.token.supported_suites()?)
    }

    fn wrap(
        &self,
        recipient: Recipient<'_>,
        suite: Suite,
        keys: &[&KeyCard],
    ) -> Result<WrappedKeys, JobError> {
        let recipient = PublicKey::from_spki_der(&recipient.statement.unwrap_key)?;
        let infos = keys
            .iter()
            .map(|card| self.info(card))
            .collect::<Result<Vec<_>, _>>()?;
        let infos: Vec<_> = infos.iter().collect();
        Ok(self.token.wrap_for(&recipient, suite, &infos)?)
    }

    fn ask(&self, key: &KeyCard) -> Result<Question, JobError> {
        let info = self.info(key)?;
        Ok(self.token.ask(&info, &key.attributes, key.proof)?)
    }

    fn verify(
        &self,
        key: &KeyCard,
        asked: &Asked,
        input: &[u8],
        value: &[u8],
    ) -> Result<bool, JobError> {
        let info = self.info(key)?;
        Ok(self
            .token
            .verify_answer(&info, key.proof, asked, input, value)?)
    }
}
