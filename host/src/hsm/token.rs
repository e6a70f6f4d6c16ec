//! A token the station is logged in to: its keys, its signatures, its verdicts on proofs.

use std::sync::Arc;

use chacha20::ChaCha20Rng;
use chacha20::rand_core::SeedableRng;
use secrecy::SecretString;
use sha2::{Digest, Sha256};

use super::error::HsmError;
use super::key::{Flag, KeyClass, KeyInfo, KeyType, NewKey};
use super::pin::Credentials;
use super::pkcs11::{
    Connection, KeyHandle, KeyPin, Module, Object, Query, SignMechanism, TokenInfo, Versions,
};
use super::public_key::PublicKey;
use super::registry;
use super::trial::Profile;
use super::uri::{KeySpec, TokenSpec};

/// Length in bytes of the random `CKA_ID` of a new key.
const ID_LENGTH: usize = 16;

/// The tokens of the module that is named, initialised or not. No login is needed.
///
/// # Errors
/// [`HsmError`] if no module is named or registered, or it cannot be loaded or does not answer.
pub fn tokens(spec: &TokenSpec) -> Result<Vec<TokenInfo>, HsmError> {
    module(spec)?.tokens()
}

/// The module that is named, loaded and initialised.
fn module(spec: &TokenSpec) -> Result<Arc<Module>, HsmError> {
    let reserved = spec.init_reserved.as_deref();
    match (&spec.module, &spec.module_name) {
        (Some(path), _) => Module::load(path, reserved),
        (None, Some(name)) => {
            let registered = registry::find(name)?;
            Module::load(
                &registered.path,
                reserved.or(registered.init_reserved.as_deref()),
            )
        }
        (None, None) => Err(HsmError::NoModule),
    }
}

/// Random bytes of the operating system, for ids and nonces.
///
/// # Errors
/// [`HsmError::Random`].
pub fn random<const N: usize>() -> Result<[u8; N], HsmError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| HsmError::Random(error.to_string()))?;
    Ok(bytes)
}

/// A random generator seeded by the operating system. Unlike the system's own it cannot fail in the middle of something.
pub(super) fn generator() -> Result<ChaCha20Rng, HsmError> {
    Ok(ChaCha20Rng::from_seed(random()?))
}

/// A token, logged in, with a session of its own. It can move to another thread but not be shared: each thread takes its own
/// with [`Token::another_session`]. The process stays logged in until the last one is dropped.
pub struct Token {
    pub(super) connection: Connection,
    info: TokenInfo,
    /// What was found out about the token by trial.
    pub(super) profile: Arc<Profile>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

impl Token {
    /// Finds the one token that is named, without logging in.
    ///
    /// # Errors
    /// [`HsmError::NoModule`], [`HsmError::NoSuchModule`], [`HsmError::Registry`]; [`HsmError::ModuleNotFound`], [`HsmError::ModuleNotLoadable`]; [`HsmError::NoSuchToken`],
    /// [`HsmError::SeveralTokens`].
    pub fn find(spec: &TokenSpec) -> Result<TokenInfo, HsmError> {
        let mut present: Vec<_> = tokens(spec)?
            .into_iter()
            .filter(|token| token.initialized)
            .collect();
        let labels = present.iter().map(|token| token.label.clone()).collect();
        present.retain(|token| spec.matches(token));
        let serials = present.iter().map(|token| token.serial.clone()).collect();
        match present.pop() {
            None => Err(HsmError::NoSuchToken {
                wanted: spec.to_string(),
                present: labels,
            }),
            Some(token) if present.is_empty() => Ok(token),
            Some(_) => Err(HsmError::SeveralTokens {
                wanted: spec.to_string(),
                serials,
            }),
        }
    }

    /// Logs in to the one token that is named. If the process is logged in to it already, the PIN is not asked again.
    ///
    /// # Errors
    /// As [`Token::find`], and [`HsmError::PinIncorrect`], [`HsmError::PinLocked`], [`HsmError::PinNotSet`];
    /// [`HsmError::LastTry`] before the PIN is sent; [`HsmError::NoSession`].
    pub fn open(spec: &TokenSpec, pin: &SecretString) -> Result<Self, HsmError> {
        Self::log_in(spec, &Credentials::pin(pin.clone()))
    }

    /// As [`Token::open`], with all that there is to say about the PIN.
    ///
    /// # Errors
    /// As [`Token::open`].
    pub fn log_in(spec: &TokenSpec, credentials: &Credentials) -> Result<Self, HsmError> {
        let info = Self::find(spec)?;
        let module = module(spec)?;
        Ok(Self {
            connection: Connection::open(&module, &info, credentials)?,
            info,
            profile: Arc::default(),
        })
    }

    /// A further session with the same token under the same login, for another thread: one that is free, or a new one.
    ///
    /// # Errors
    /// [`HsmError::NoSession`] if the token has none left.
    pub fn another_session(&self) -> Result<Self, HsmError> {
        Ok(Self {
            connection: self.connection.another()?,
            info: self.info.clone(),
            profile: Arc::clone(&self.profile),
        })
    }

    /// What the module says about the token.
    #[must_use]
    pub fn info(&self) -> &TokenInfo {
        &self.info
    }

    /// The versions of module and token.
    ///
    /// # Errors
    /// [`HsmError::Token`].
    pub fn versions(&self) -> Result<Versions, HsmError> {
        self.connection.versions()
    }

    /// The token's label.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.info.label
    }

    /// The keys on the token: secret keys, private keys each with its public half, and public keys that stand alone.
    ///
    /// # Errors
    /// [`HsmError::Token`].
    pub fn keys(&self) -> Result<Vec<KeyInfo>, HsmError> {
        self.alive(|| {
            let mut keys = Vec::new();
            let mut publics = self.objects(KeyClass::Public, &KeySpec::default())?;
            for class in [KeyClass::Secret, KeyClass::Private] {
                for object in self.objects(class, &KeySpec::default())? {
                    let half = (class == KeyClass::Private)
                        .then(|| publics.iter().position(|public| are_pair(&object, public)))
                        .flatten()
                        .map(|index| publics.swap_remove(index));
                    keys.push(key_info(class, object, half));
                }
            }
            keys.extend(
                publics
                    .into_iter()
                    .map(|object| key_info(KeyClass::Public, object, None)),
            );
            keys.sort_by(|a, b| (&a.label, &a.id).cmp(&(&b.label, &b.id)));
            Ok(keys)
        })
    }

    /// The one key that is named: a secret or private key, unless a public one is asked for.
    ///
    /// # Errors
    /// [`HsmError::NoSuchKey`], [`HsmError::SeveralKeys`].
    pub fn key(&self, spec: &KeySpec) -> Result<KeyInfo, HsmError> {
        self.alive(|| {
            let classes: &[KeyClass] = match &spec.class {
                Some(class) => std::slice::from_ref(class),
                None => &[KeyClass::Secret, KeyClass::Private],
            };
            let mut found = Vec::new();
            for class in classes {
                for object in self.objects(*class, spec)? {
                    found.push((*class, object));
                }
            }
            let ids = found
                .iter()
                .map(|(_, object)| hex::encode(&object.id))
                .collect();
            match found.pop() {
                None => Err(HsmError::NoSuchKey {
                    token: self.label().into(),
                    wanted: spec.to_string(),
                    present: self.labels()?,
                }),
                Some((class, object)) if found.is_empty() => {
                    let half = match class {
                        KeyClass::Private => self.public_half(&object)?,
                        KeyClass::Secret | KeyClass::Public => None,
                    };
                    self.measured(key_info(class, object, half))
                }
                Some(_) => Err(HsmError::SeveralKeys {
                    token: self.label().into(),
                    wanted: spec.to_string(),
                    ids,
                }),
            }
        })
    }

    /// The public key that is named: of a pair, or one that stands alone.
    ///
    /// # Errors
    /// [`HsmError::NoSuchKey`], [`HsmError::SeveralKeys`], [`HsmError::NoPublicKey`].
    pub fn public_key(&self, spec: &KeySpec) -> Result<PublicKey, HsmError> {
        self.alive(|| {
            let key = match self.key(spec) {
                Err(HsmError::NoSuchKey { .. }) if spec.class.is_none() => self.key(&KeySpec {
                    class: Some(KeyClass::Public),
                    ..spec.clone()
                }),
                result => result,
            }?;
            // Anybody may put a public key beside a private one; whoever wraps for it wants the private key's own.
            self.with_pair(key)?.public_key().cloned()
        })
    }

    /// Creates a key on the token, with every boolean attribute set explicitly.
    ///
    /// # Errors
    /// [`HsmError::LabelTaken`]; [`HsmError::WrongKeyType`] unless the type [can be created](KeyType::is_creatable);
    /// [`HsmError::Token`].
    pub fn create_key(&self, key: &NewKey) -> Result<KeyInfo, HsmError> {
        self.alive(|| {
            if !key.key_type.is_creatable() {
                return Err(HsmError::WrongKeyType {
                    label: key.label.clone(),
                    found: key.key_type,
                    wanted: "a type that can be created",
                });
            }
            key.check_usage()?;
            self.check_writable()?;
            let spec = KeySpec::label(&key.label);
            for class in KeyClass::ALL {
                if !self.handles(class, &spec)?.is_empty() {
                    return Err(HsmError::LabelTaken {
                        token: self.label().into(),
                        label: key.label.clone(),
                    });
                }
            }
            let id: [u8; ID_LENGTH] = random()?;
            if key.key_type.is_pair() {
                let (public, private) = self.changing(self.connection.generate_pair(
                    key.key_type,
                    &key.label,
                    &id,
                    &key.flags(KeyClass::Public),
                    &key.flags(KeyClass::Private),
                ))?;
                let public = self.connection.read(public, KeyClass::Public)?;
                let private = self.connection.read(private, KeyClass::Private)?;
                Ok(key_info(KeyClass::Private, private, Some(public)))
            } else {
                let secret = self.changing(self.connection.generate_secret(
                    key.key_type,
                    &key.label,
                    &id,
                    &key.flags(KeyClass::Secret),
                ))?;
                let secret = self.connection.read(secret, KeyClass::Secret)?;
                Ok(key_info(KeyClass::Secret, secret, None))
            }
        })
    }

    /// Signs a message: ECDSA P-256 over SHA-256, `r ‖ s`. The digest is made here, the signature in the token.
    ///
    /// # Errors
    /// [`HsmError::WrongKeyType`] or [`HsmError::NotPermitted`] before the token is asked;
    /// [`HsmError::UnexpectedLength`]; [`HsmError::Token`].
    pub fn sign_p256(&self, key: &KeyInfo, message: &[u8]) -> Result<[u8; 64], HsmError> {
        self.alive(|| {
            if (key.key_type, key.class) != (KeyType::P256, KeyClass::Private) {
                return Err(HsmError::WrongKeyType {
                    label: key.name(),
                    found: key.key_type,
                    wanted: "a p-256 private key",
                });
            }
            key.check_flag(Flag::Sign)?;
            let digest = Sha256::digest(message);
            let signature = self.sign_with(key, SignMechanism::Ecdsa, &digest)?;
            signature
                .as_slice()
                .try_into()
                .map_err(|_| HsmError::UnexpectedLength {
                    what: "a P-256 signature".into(),
                    expected: "64".into(),
                    actual: signature.len(),
                })
        })
    }

    /// Signs, or makes a MAC, with whatever PIN the key asks for.
    pub(super) fn sign_with(
        &self,
        key: &KeyInfo,
        mechanism: SignMechanism,
        data: &[u8],
    ) -> Result<Vec<u8>, HsmError> {
        let pin = if key.flags.has(Flag::AlwaysAuthenticate) {
            KeyPin::EachUse(key.name())
        } else {
            KeyPin::NotAsked
        };
        self.connection
            .sign_with_pin(mechanism, self.handle_of(key)?, data, &pin)
    }

    /// The public object of a pair, if it may verify.
    pub(super) fn verifying_half(&self, key: &KeyInfo) -> Result<KeyHandle, HsmError> {
        let private = self
            .connection
            .read(self.handle_of(key)?, KeyClass::Private)?;
        let half = self
            .public_half(&private)?
            .ok_or_else(|| HsmError::NoPublicKey { label: key.name() })?;
        let handle = half.handle;
        key_info(KeyClass::Public, half, None).check_flag(Flag::Verify)?;
        Ok(handle)
    }

    /// How many key objects live in sessions of this process rather than on the token. After every operation of this
    /// interface it is what it was before.
    ///
    /// # Errors
    /// [`HsmError::Token`].
    pub fn session_objects(&self) -> Result<usize, HsmError> {
        self.alive(|| {
            let query = Query {
                on_token: Some(false),
                ..Query::default()
            };
            Ok(self.connection.find(query)?.len())
        })
    }

    /// The labels of all keys, for an error about one that does not exist.
    pub(super) fn labels(&self) -> Result<Vec<String>, HsmError> {
        let mut labels: Vec<_> = self.keys()?.iter().map(KeyInfo::name).collect();
        labels.dedup();
        Ok(labels)
    }

    /// The handles of the objects on the token of this class and name.
    fn handles(&self, class: KeyClass, spec: &KeySpec) -> Result<Vec<KeyHandle>, HsmError> {
        self.connection.find(Query {
            class: Some(class),
            label: spec.label.as_deref(),
            id: spec.id.as_deref(),
            on_token: Some(true),
        })
    }

    pub(super) fn objects(&self, class: KeyClass, spec: &KeySpec) -> Result<Vec<Object>, HsmError> {
        self.handles(class, spec)?
            .into_iter()
            .map(|handle| self.connection.read(handle, class))
            .collect()
    }

    /// The public object that belongs to a private one.
    fn public_half(&self, private: &Object) -> Result<Option<Object>, HsmError> {
        let spec = if private.id.is_empty() {
            KeySpec::label(&private.label)
        } else {
            KeySpec {
                id: Some(private.id.clone()),
                ..KeySpec::default()
            }
        };
        let publics = self.objects(KeyClass::Public, &spec)?;
        Ok(publics.into_iter().find(|public| are_pair(private, public)))
    }
}

/// Whether two objects are the halves of one pair: same type, and the same id, or the same label where there is no id.
fn are_pair(private: &Object, public: &Object) -> bool {
    private.key_type == public.key_type
        && private.id == public.id
        && (!private.id.is_empty() || private.label == public.label)
}

pub(super) fn key_info(class: KeyClass, object: Object, public_half: Option<Object>) -> KeyInfo {
    let (half, public_flags) = match public_half {
        Some(half) => (half.public_key, Some(half.flags)),
        None => (None, None),
    };
    // What a private RSA key says of itself counts for more than the object beside it, which anybody may have put there.
    let public_key = object.public_key.or_else(|| half.clone());
    KeyInfo {
        handle: object.handle,
        class,
        key_type: object.key_type,
        label: object.label,
        id: object.id,
        flags: object.flags,
        check_value: object.check_value,
        public_flags: public_flags.filter(|_| half == public_key),
        public_key,
    }
}
