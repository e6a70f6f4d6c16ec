//! What a station asks of an HSM, and all that it asks: describe a key, wrap keys for a device, sign an order, check a proof. A
//! token in this process answers ([`LocalHsm`]), or a broker that holds the token's login in a process of its own.

use std::cell::RefCell;
use std::time::SystemTime;

use keyferry_protocol::attributes::Attributes;
use keyferry_protocol::identity::{DeviceId, Fingerprint};
use keyferry_protocol::proof::Proof;
use keyferry_protocol::suite::Suite;
use serde::{Deserialize, Serialize};

use super::JobError;
use crate::certificate::{CaCertificate, CertificateError, Identity, Issuer, Serial};
use crate::device::flow::Authority;
use crate::device::verify::Statement;
use crate::export::{BlobInfo, DeviceKey, ExportError, Made, MasterInfo, Tail};
use crate::hsm::{
    Asked, DeviceContext, DeviceUse, Diversification, HsmError, Kept, KeyClass, KeyInfo, KeySpec,
    KeyType, PublicKey, Question, SessionKey, Token, WrappedKeys,
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

    /// The same key in a further session.
    fn another(&self) -> Result<Self, HsmError> {
        Ok(Self {
            token: self.token.another_session()?,
            key: self.key.clone(),
            public: self.public.clone(),
        })
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

/// The factory's CA: its key on a token, and its certificate.
pub struct Ca {
    signer: TokenSigner,
    certificate: CaCertificate,
    organization: Option<String>,
}

impl Ca {
    /// Brings key and certificate together. `organization` goes into the subject of every device certificate.
    ///
    /// # Errors
    /// [`CertificateError::OtherCaKey`] if they do not belong together.
    pub fn new(
        signer: TokenSigner,
        certificate: CaCertificate,
        organization: Option<String>,
    ) -> Result<Self, CertificateError> {
        Issuer::new(&signer, certificate.clone())?;
        Ok(Self {
            signer,
            certificate,
            organization,
        })
    }

    /// The same in a further session.
    fn another(&self) -> Result<Self, HsmError> {
        Ok(Self {
            signer: self.signer.another()?,
            certificate: self.certificate.clone(),
            organization: self.organization.clone(),
        })
    }

    /// The certificate of a device's identity key, in DER.
    ///
    /// # Errors
    /// As [`Issuer::issue`].
    pub fn certify(
        &self,
        device: &Statement,
        serial: Option<&str>,
    ) -> Result<Vec<u8>, CertificateError> {
        let serial = match serial {
            Some(text) => Serial::product(text)?,
            None => Serial::from(device.device),
        };
        let identity = Identity {
            serial,
            organization: self.organization.as_deref(),
            common_name: Some(&device.board),
            key: &device.identity_key,
        };
        Issuer::new(&self.signer, self.certificate.clone())?.issue(&identity, SystemTime::now())
    }
}

/// The keys that sign, each where it lives.
pub struct Signers {
    /// Signs orders.
    pub authority: TokenSigner,
    /// Signs checkpoints of the audit log.
    pub auditor: Option<TokenSigner>,
    /// Signs certificates of devices.
    pub ca: Option<Ca>,
}

/// A token in this process.
pub struct LocalHsm {
    token: Token,
    signers: Signers,
    /// Keys that were looked up before.
    keys: RefCell<Vec<KeyInfo>>,
}

impl LocalHsm {
    /// The token with the target keys, and the keys that sign, which may be on other tokens.
    #[must_use]
    pub fn new(token: Token, signers: Signers) -> Self {
        Self {
            token,
            signers,
            keys: RefCell::default(),
        }
    }

    /// The same token and keys in sessions of their own, for another thread.
    ///
    /// # Errors
    /// [`HsmError::NoSession`] if the token has none left.
    pub fn another(&self) -> Result<Self, HsmError> {
        let Signers {
            authority,
            auditor,
            ca,
        } = &self.signers;
        let signers = Signers {
            authority: authority.another()?,
            auditor: auditor.as_ref().map(TokenSigner::another).transpose()?,
            ca: ca.as_ref().map(Ca::another).transpose()?,
        };
        Ok(Self::new(self.token.another_session()?, signers))
    }

    /// Whether it has a CA's key.
    #[must_use]
    pub const fn certifies(&self) -> bool {
        self.signers.ca.is_some()
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
        let mut keys = self.keys.borrow_mut();
        keys.retain(|known| (&known.label, &known.id) != (&key.label, &key.id));
        keys.push(key.clone());
        Ok(key)
    }

    /// The key that random keys of devices are kept under.
    fn keeper(&self, label: &str) -> Result<KeyInfo, HsmError> {
        let keeper = self.token.key(&KeySpec::label(label))?;
        keeper.check_keeps()?;
        Ok(keeper)
    }

    fn kept(&self, key: &KeyCard, card: &KeptCard) -> Result<(Kept, KeyInfo), JobError> {
        let key_type = type_of(key)?;
        let public_key = card.public_key.as_deref();
        let kept = Kept {
            key_type,
            blob: card.blob.clone(),
            public_key: public_key.map(PublicKey::from_spki_der).transpose()?,
        };
        Ok((kept, self.keeper(&card.under)?))
    }

    /// The key of a card, as an object of the token or, while this is held, of the session.
    fn held(&self, card: &KeyCard) -> Result<Held<'_>, JobError> {
        if let Some(from) = &card.derived {
            return Ok(Held::Session(self.derived(card, from)?));
        }
        match &card.kept {
            None => Ok(Held::Token(self.info(card)?)),
            Some(kept) => {
                let (kept, keeper) = self.kept(card, kept)?;
                Ok(Held::Session(self.token.fetch_kept(&kept, &keeper)?))
            }
        }
    }

    fn master(&self, label: &str) -> Result<KeyInfo, HsmError> {
        self.token.key(&KeySpec {
            class: Some(KeyClass::Secret),
            ..KeySpec::label(label)
        })
    }

    /// Derives the key of a card anew.
    fn derived(&self, card: &KeyCard, from: &DerivedCard) -> Result<SessionKey<'_>, JobError> {
        let key_type = type_of(card)?;
        let by = from.by.parse::<Diversification>();
        let by = by.map_err(|_| HsmError::CannotDerive {
            token: self.token.label().to_owned(),
            key_type,
            tried: vec![from.by.clone()],
        })?;
        let context = DeviceContext {
            device: DeviceId(from.device),
            slot: from.slot,
            version: from.version,
        };
        // The very key of then: another one that has got its label since derives other keys.
        let master = self.token.key(&KeySpec {
            class: Some(KeyClass::Secret),
            id: Some(from.master_id.clone()).filter(|id| !id.is_empty()),
            ..KeySpec::label(&from.master)
        })?;
        let derived = self
            .token
            .diversified_key(&master, &context, key_type, Some(by))?;
        Ok(derived.key)
    }

    /// The key of one device, derived from a master key that derives and does nothing else. The device's slot gets this label. The
    /// card can be used like that of any other key; the key is derived anew each time.
    ///
    /// # Errors
    /// As [`Token::diversified_key`]; [`HsmError::WrongKeyType`] for a use that such a key has not.
    pub fn diversified(
        &self,
        label: &str,
        key_type: KeyType,
        device_use: Option<DeviceUse>,
        master: &str,
        context: &DeviceContext,
    ) -> Result<KeyCard, JobError> {
        let key = self.master(master)?;
        let device_use = device_use.or(natural_use(key_type));
        let (by, (attributes, proof)) = self.token.alive(|| {
            let derived = self.token.diversified_key(&key, context, key_type, None)?;
            let attributes = derived.key.info().attributes_for(device_use)?;
            Ok::<_, HsmError>((derived.by, attributes))
        })?;
        Ok(KeyCard {
            label: label.to_owned(),
            id: Vec::new(),
            key_type: key_type.to_string(),
            attributes,
            proof,
            kept: None,
            derived: Some(DerivedCard {
                master: key.label.clone(),
                master_id: key.id.clone(),
                by: by.name().to_owned(),
                device: context.device.0,
                slot: context.slot,
                version: context.version,
            }),
        })
    }

    /// A device's own key, wrapped for a backend, and what the manifest says of it. Keys of the token are not exported so.
    ///
    /// # Errors
    /// [`JobError::Export`], and those of the HSM.
    pub fn export(
        &self,
        card: &KeyCard,
        context: &DeviceContext,
        backend: &Backend,
    ) -> Result<Exported, JobError> {
        let key_type = type_of(card)?;
        let made = match &card.derived {
            None => Made::Fresh,
            Some(derived) => Made::Diversified(derived.by.parse().map_err(|_| {
                JobError::from(ExportError::Inconsistent("nobody derives keys so"))
            })?),
        };
        let tail = Tail::find_out(&self.token, key_type)?;
        if !backend.allow_zero_tail {
            tail.check(&card.label, key_type)?;
        }
        let (blob, public_key) = self.token.alive(|| {
            let held = self.held(card)?;
            let wrapped = self
                .token
                .wrap_for(&backend.key, backend.suite, &[held.info()])?;
            Ok::<_, JobError>((wrapped.joined(), held.info().public_key.clone()))
        })?;
        let entry = DeviceKey {
            device: context.device,
            slot: context.slot,
            version: context.version,
            label: card.label.clone(),
            key_type,
            attributes: card.attributes.into(),
            made,
            master: card.derived.as_ref().map(|derived| MasterInfo {
                label: derived.master.clone(),
                id: derived.master_id.clone(),
            }),
            public_key: public_key.filter(|_| key_type.is_pair()),
            file: DeviceKey::file_name(context.device, context.slot),
            blob: BlobInfo::of(&blob, backend.suite, tail),
            for_device: None,
        };
        Ok(Exported {
            entry,
            blob,
            recipient: backend.key.fingerprint(),
        })
    }
}

fn type_of(card: &KeyCard) -> Result<KeyType, HsmError> {
    KeyType::from_name(&card.key_type).ok_or_else(|| HsmError::WrongKeyType {
        label: card.name(),
        found: KeyType::Other,
        wanted: "a type that can be created",
    })
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

/// Where the key of a card is.
enum Held<'t> {
    Token(KeyInfo),
    Session(SessionKey<'t>),
}

impl Held<'_> {
    fn info(&self) -> &KeyInfo {
        match self {
            Self::Token(info) => info,
            Self::Session(key) => key.info(),
        }
    }
}

/// What a device uses a random key of this type for unless it is told.
const fn natural_use(key_type: KeyType) -> Option<DeviceUse> {
    match key_type {
        KeyType::Aes { .. } => Some(DeviceUse::Cmac),
        KeyType::Secret { .. } => Some(DeviceUse::HmacSha256),
        KeyType::P256 => Some(DeviceUse::Ecdsa),
        KeyType::Rsa { .. } => Some(DeviceUse::RsaPkcs1),
        KeyType::P384 | KeyType::Ed25519 | KeyType::Other => None,
    }
}

impl Hsm for LocalHsm {
    fn name(&self) -> String {
        format!("token '{}'", self.token.label())
    }

    fn authority(&self) -> &dyn Authority {
        &self.signers.authority
    }

    fn auditor(&self) -> Option<&dyn Authority> {
        let auditor = self.signers.auditor.as_ref();
        auditor.map(|signer| signer as &dyn Authority)
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
            kept: None,
            derived: None,
        })
    }

    fn fresh(
        &self,
        label: &str,
        key_type: KeyType,
        device_use: Option<DeviceUse>,
        keep_under: &str,
    ) -> Result<KeyCard, JobError> {
        let keeper = self.keeper(keep_under)?;
        let kept = self.token.fresh_kept(key_type, &keeper)?;
        let device_use = device_use.or(natural_use(key_type));
        let (attributes, proof) = self.token.alive(|| {
            let key = self.token.fetch_kept(&kept, &keeper)?;
            key.info().attributes_for(device_use)
        })?;
        Ok(KeyCard {
            label: label.to_owned(),
            id: Vec::new(),
            key_type: key_type.to_string(),
            attributes,
            proof,
            kept: Some(KeptCard {
                under: keep_under.to_owned(),
                blob: kept.blob,
                public_key: kept.public_key.map(|key| key.spki_der().to_vec()),
            }),
            derived: None,
        })
    }

    fn suites(&self) -> Result<Vec<Suite>, JobError> {
        Ok(self.token.supported_suites()?)
    }

    fn supports(&self, suite: Suite) -> Result<bool, JobError> {
        Ok(self.token.supports(suite)?)
    }

    fn wrap(
        &self,
        recipient: Recipient<'_>,
        suite: Suite,
        keys: &[&KeyCard],
    ) -> Result<WrappedKeys, JobError> {
        let recipient = PublicKey::from_spki_der(&recipient.statement.unwrap_key)?;
        self.token.alive(|| {
            let held = keys
                .iter()
                .map(|card| self.held(card))
                .collect::<Result<Vec<_>, _>>()?;
            let infos: Vec<_> = held.iter().map(Held::info).collect();
            Ok(self.token.wrap_for(&recipient, suite, &infos)?)
        })
    }

    fn enrolled(&self, _recipient: Recipient<'_>) -> Result<(), JobError> {
        Ok(())
    }

    fn certifies(&self) -> bool {
        self.signers.ca.is_some()
    }

    fn certify(
        &self,
        recipient: Recipient<'_>,
        serial: Option<&str>,
    ) -> Result<Option<Vec<u8>>, JobError> {
        let ca = self.signers.ca.as_ref();
        Ok(ca
            .map(|ca| ca.certify(recipient.statement, serial))
            .transpose()?)
    }

    fn ask(&self, key: &KeyCard) -> Result<Question, JobError> {
        self.token.alive(|| {
            let held = self.held(key)?;
            Ok(self.token.ask(held.info(), &key.attributes, key.proof)?)
        })
    }

    fn verify(
        &self,
        key: &KeyCard,
        asked: &Asked,
        input: &[u8],
        value: &[u8],
    ) -> Result<bool, JobError> {
        if let Some(card) = &key.kept {
            let (kept, keeper) = self.kept(key, card)?;
            return Ok(self
                .token
                .verify_kept(&kept, &keeper, key.proof, asked, input, value)?);
        }
        if key.derived.is_some() {
            return self.token.alive(|| {
                let held = self.held(key)?;
                Ok(self
                    .token
                    .verify_answer(held.info(), key.proof, asked, input, value)?)
            });
        }
        let info = self.info(key)?;
        Ok(self
            .token
            .verify_answer(&info, key.proof, asked, input, value)?)
    }
}
