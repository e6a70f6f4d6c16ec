//! A token in this process.

use std::cell::RefCell;

use keyferry_protocol::identity::DeviceId;
use keyferry_protocol::suite::Suite;

use super::{Backend, DerivedCard, Exported, Hsm, KeptCard, KeyCard, Recipient, Signers};
use crate::device::flow::Authority;
use crate::export::{BlobInfo, DeviceKey, ExportError, Made, MasterInfo, Tail};
use crate::hsm::{
    Asked, DeviceContext, DeviceUse, Diversification, HsmError, Kept, KeyClass, KeyInfo, KeySpec,
    KeyType, PublicKey, Question, SessionKey, Token, WrappedKeys,
};
use crate::station::JobError;

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
        Ok(Self::new(
            self.token.another_session()?,
            self.signers.another()?,
        ))
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
