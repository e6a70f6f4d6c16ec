//! The receiving side of a wrapping: a token opens the KEK with its own private key, and unwraps keys under it. Nothing is
//! opened outside the token.

use keyferry_protocol::suite::{Suite, kwp_length, x963_shared_info};

use super::error::HsmError;
use super::key::{Flag, Flags, KeyClass, KeyInfo, KeyType};
use super::pkcs11::{Incoming, KeyHandle, SessionObject, WrapMechanism};
use super::public_key::PublicKey;
use super::token::{Token, key_info};
use super::wrap::{KEK_BITS, SESSION_LABEL, WrappedKeys, derivation, session_aes_key};

/// Longest blob of one key that is handed to a token, in bytes: a wrapped RSA-4096 key has about 2400.
pub const MAXIMUM_BLOB: usize = 8192;

/// A key that is to come out of a blob, as it is to be afterwards.
#[derive(Clone, Debug)]
pub struct KeyDraft {
    /// Secret or private.
    pub class: KeyClass,
    /// Algorithm and size.
    pub key_type: KeyType,
    /// `CKA_LABEL`.
    pub label: String,
    /// `CKA_ID`; may be empty.
    pub id: Vec<u8>,
    /// Every boolean attribute of the class.
    pub flags: Flags,
    /// The public key of a private key.
    pub public_key: Option<PublicKey>,
}

/// A key that lives in a session only, and is destroyed when this goes out of scope.
pub struct SessionKey<'t> {
    pub(super) _object: SessionObject<'t>,
    pub(super) info: KeyInfo,
}

impl SessionKey<'_> {
    /// What it is and what it may do.
    #[must_use]
    pub fn info(&self) -> &KeyInfo {
        &self.info
    }
}

/// A KEK that was opened inside the token; it can unwrap and nothing else.
pub struct OpenKek<'t> {
    token: &'t Token,
    kek: SessionObject<'t>,
    mechanism: WrapMechanism,
}

impl Token {
    /// Makes a key pair that lives in this session only and can do nothing but open KEKs: RSA, or P-256 for ECDH.
    ///
    /// # Errors
    /// [`HsmError::WrongKeyType`] for another type; [`HsmError::Token`].
    pub fn recipient_pair(&self, key_type: KeyType) -> Result<SessionKey<'_>, HsmError> {
        self.alive(|| {
            let purpose = opening_flag(key_type).ok_or_else(|| HsmError::WrongKeyType {
                label: SESSION_LABEL.into(),
                found: key_type,
                wanted: "rsa or p-256",
            })?;
            let private_flags = Flags::of(
                KeyClass::Private,
                &[Flag::Private, Flag::Destroyable, Flag::Sensitive, purpose],
            );
            let public_flags = Flags::of(KeyClass::Public, &[Flag::Destroyable]);
            let (public, private) = self.connection.generate_pair(
                key_type,
                SESSION_LABEL,
                &[],
                &public_flags,
                &private_flags,
            )?;
            let public = self.connection.guard(public);
            let object = self.connection.guard(private);
            let private = self.connection.read(private, KeyClass::Private)?;
            let public = self.connection.read(public.handle(), KeyClass::Public)?;
            Ok(SessionKey {
                _object: object,
                info: key_info(KeyClass::Private, private, Some(public)),
            })
        })
    }

    /// Opens a KEK with a private key of this token.
    ///
    /// # Errors
    /// Before the token is asked: [`HsmError::SuiteMismatch`], [`HsmError::NotPermitted`], [`HsmError::BlobLength`],
    /// [`HsmError::NoPublicKey`]. Then:
    /// [`HsmError::SuiteRefused`] if the token does not know the suite, [`HsmError::BlobRejected`] if the KEK does not open,
    /// [`HsmError::MechanismMissing`], [`HsmError::Token`].
    pub fn open_kek(
        &self,
        with: &KeyInfo,
        suite: Suite,
        kek_blob: &[u8],
    ) -> Result<OpenKek<'_>, HsmError> {
        self.alive(|| {
            let refused = || HsmError::SuiteMismatch {
                suite,
                recipient: with.key_type,
            };
            if !with.key_type.fits(suite) {
                return Err(refused());
            }
            with.check_flag(opening_flag(with.key_type).ok_or_else(refused)?)?;
            if with.flags.has(Flag::AlwaysAuthenticate) {
                return Err(HsmError::AsksEachUse { label: with.name() });
            }
            let mechanism = self.key_wrap_mechanism()?;
            let flags = Flags::of(
                KeyClass::Secret,
                &[
                    Flag::Private,
                    Flag::Destroyable,
                    Flag::Sensitive,
                    Flag::Unwrap,
                ],
            );
            let expected = kek_length(with.key_type);
            if expected != Some(kek_blob.len()) {
                return Err(HsmError::BlobLength {
                    what: "the wrapped KEK".into(),
                    expected: expected.unwrap_or_default().to_string(),
                    actual: kek_blob.len(),
                });
            }
            let oaep = match suite {
                Suite::RsaOaepSha256 => WrapMechanism::OaepSha256,
                Suite::RsaOaepSha1 => WrapMechanism::OaepSha1,
                Suite::EcdhP256X963Sha256 | Suite::EcdhP256Null => {
                    let shared_info = x963_shared_info(&with.public_key()?.fingerprint());
                    let derivation = derivation(suite, &shared_info);
                    let with = self.handle_of(with)?;
                    let kek = self
                        .connection
                        .derive_ecdh(with, kek_blob, derivation, SESSION_LABEL, &flags)
                        .map_err(|error| self.opening(suite, "the KEK", error))?;
                    return Ok(OpenKek {
                        token: self,
                        kek,
                        mechanism,
                    });
                }
            };
            let incoming = Incoming {
                class: KeyClass::Secret,
                key_type: KeyType::Aes { bits: KEK_BITS },
                label: SESSION_LABEL,
                id: &[],
                flags,
                public_key: None,
            };
            let kek = self
                .connection
                .unwrap(oaep, self.handle_of(with)?, kek_blob, &incoming)
                .map(|handle| self.connection.guard(handle))
                .map_err(|error| self.opening(suite, "the KEK", error))?;
            Ok(OpenKek {
                token: self,
                kek,
                mechanism,
            })
        })
    }

    /// Opens the KEK of a blob that holds one key, as [`WrappedKeys::joined`] gives it; gives the rest of the blob too.
    ///
    /// # Errors
    /// As [`Token::open_kek`].
    pub fn open_blob<'t, 'b>(
        &'t self,
        with: &KeyInfo,
        suite: Suite,
        blob: &'b [u8],
    ) -> Result<(OpenKek<'t>, &'b [u8]), HsmError> {
        let expected = kek_length(with.key_type).unwrap_or_default();
        match blob.split_at_checked(expected) {
            Some((kek, rest)) if expected > 0 => Ok((self.open_kek(with, suite, kek)?, rest)),
            Some(_) | None => Err(HsmError::BlobLength {
                what: "the blob".into(),
                expected: format!("more than {expected}"),
                actual: blob.len(),
            }),
        }
    }

    /// Puts a public key on the token.
    ///
    /// # Errors
    /// [`HsmError::Token`].
    pub fn import_public(
        &self,
        key: &PublicKey,
        label: &str,
        id: &[u8],
        flags: &Flags,
    ) -> Result<KeyInfo, HsmError> {
        self.alive(|| {
            if flags.has(Flag::Token) {
                self.check_writable()?;
            }
            let handle = self.changing(self.connection.import_public(key, label, id, flags))?;
            let object = self.connection.read(handle, KeyClass::Public)?;
            Ok(key_info(KeyClass::Public, object, None))
        })
    }

    /// Takes a key off the token for good. For a pair, this is its private half.
    ///
    /// # Errors
    /// [`HsmError::Token`].
    pub fn destroy(&self, key: &KeyInfo) -> Result<(), HsmError> {
        self.check_writable()?;
        self.alive(|| self.changing(self.connection.destroy(self.handle_of(key)?)))
    }

    /// Says about a failed opening whether the suite, the blob or something else is to blame.
    pub(super) fn opening(&self, suite: Suite, what: &'static str, error: HsmError) -> HsmError {
        let HsmError::Token { function, code } = error else {
            return error;
        };
        match code.as_str() {
            "CKR_MECHANISM_INVALID"
            | "CKR_MECHANISM_PARAM_INVALID"
            | "CKR_ARGUMENTS_BAD"
            | "CKR_FUNCTION_NOT_SUPPORTED" => self.suite_refused(suite, function, code),
            // Each token has its own word for it: SoftHSM CKR_GENERAL_ERROR, kryoptic CKR_DEVICE_ERROR.
            "CKR_WRAPPED_KEY_INVALID"
            | "CKR_WRAPPED_KEY_LEN_RANGE"
            | "CKR_ENCRYPTED_DATA_INVALID"
            | "CKR_ENCRYPTED_DATA_LEN_RANGE"
            | "CKR_GENERAL_ERROR"
            | "CKR_DEVICE_ERROR"
            | "CKR_FUNCTION_FAILED"
            | "CKR_DATA_INVALID"
            | "CKR_ATTRIBUTE_VALUE_INVALID"
            | "CKR_KEY_SIZE_RANGE" => HsmError::BlobRejected {
                token: self.label().into(),
                what,
                function,
                code,
            },
            _ => HsmError::Token { function, code },
        }
    }
}

impl<'t> OpenKek<'t> {
    /// Unwraps a key onto the token.
    ///
    /// # Errors
    /// [`HsmError::BlobRejected`]; [`HsmError::WrongKeyType`] if the blob holds a key of another type or size; [`HsmError::Widened`]
    /// if the token insists on giving the key more rights than it was told to: then the key is destroyed again.
    /// [`HsmError::Token`].
    pub fn unwrap_to_token(&self, blob: &[u8], draft: &KeyDraft) -> Result<KeyInfo, HsmError> {
        self.token.check_writable()?;
        let mut flags = draft.flags;
        flags.put(Flag::Token, true);
        let (object, info) = self
            .token
            .changing(self.unwrap_narrowly(blob, draft, flags))?;
        object.keep();
        Ok(info)
    }

    /// Unwraps a key into the session, with these usages and no others.
    ///
    /// # Errors
    /// As [`OpenKek::unwrap_to_token`].
    pub fn unwrap_to_session(
        &self,
        blob: &[u8],
        draft: &KeyDraft,
        usages: &[Flag],
    ) -> Result<SessionKey<'t>, HsmError> {
        let always = [Flag::Private, Flag::Destroyable, Flag::Sensitive];
        let flags = Flags::of(draft.class, &[&always, usages].concat());
        let (object, info) = self.unwrap_narrowly(blob, draft, flags)?;
        Ok(SessionKey {
            _object: object,
            info,
        })
    }

    /// Unwraps a key and sees to it that it has no more rights than it should have. Some tokens give an unwrapped private key every
    /// usage of its type, whatever the template says (NSS softokn 3.87 does): from such a key they are taken away.
    fn unwrap_narrowly(
        &self,
        blob: &[u8],
        draft: &KeyDraft,
        mut flags: Flags,
    ) -> Result<(SessionObject<'t>, KeyInfo), HsmError> {
        let connection = &self.token.connection;
        let object = connection.guard(self.unwrap(blob, draft, flags)?);
        let info = self.read_back(object.handle(), draft)?;
        if info.flags.widened_from(&flags).is_none() {
            return Ok((object, info));
        }
        drop(object);
        flags.put(Flag::Modifiable, true);
        let object = connection.guard(self.unwrap(blob, draft, flags)?);
        let info = self.read_back(object.handle(), draft)?;
        let refused = |flag| HsmError::Widened {
            label: draft.label.clone(),
            flag,
        };
        if let Some(flag) = info.flags.widened_from(&flags) {
            connection
                .take_away(object.handle(), info.flags.rights_beyond(&flags))
                .map_err(|_| refused(flag))?;
        }
        let info = self.read_back(object.handle(), draft)?;
        match info.flags.widened_from(&flags) {
            Some(flag) => Err(refused(flag)),
            None => Ok((object, info)),
        }
    }

    fn unwrap(&self, blob: &[u8], draft: &KeyDraft, flags: Flags) -> Result<KeyHandle, HsmError> {
        if blob.len() > MAXIMUM_BLOB || !blob.len().is_multiple_of(8) || blob.len() < 16 {
            return Err(HsmError::BlobLength {
                what: "the wrapped key".into(),
                expected: format!("a multiple of 8 from 16 to {MAXIMUM_BLOB}"),
                actual: blob.len(),
            });
        }
        // Nothing in a wrapped secret key says how long it is meant to be.
        if let (KeyClass::Secret, KeyType::Aes { bits } | KeyType::Secret { bits }) =
            (draft.class, draft.key_type)
        {
            let expected = kwp_length(usize::from(bits.div_ceil(8)));
            if blob.len() != expected {
                return Err(HsmError::BlobLength {
                    what: "the wrapped key".into(),
                    expected: expected.to_string(),
                    actual: blob.len(),
                });
            }
        }
        let incoming = Incoming {
            class: draft.class,
            key_type: draft.key_type,
            label: &draft.label,
            id: &draft.id,
            flags,
            public_key: draft.public_key.as_ref(),
        };
        self.token
            .connection
            .unwrap(self.mechanism, self.kek.handle(), blob, &incoming)
            .map_err(|error| match error {
                HsmError::Token { code, .. } if code == "CKR_MECHANISM_INVALID" => {
                    self.token.no_key_wrap()
                }
                // The suite has opened the KEK by now; it is not to blame.
                other => match self.token.opening(Suite::RsaOaepSha1, "the key", other) {
                    HsmError::SuiteRefused { function, code, .. } => HsmError::BlobRejected {
                        token: self.token.label().into(),
                        what: "the key",
                        function,
                        code,
                    },
                    error => error,
                },
            })
    }

    /// Reads a new key back; type and size must be the draft's.
    fn read_back(&self, handle: KeyHandle, draft: &KeyDraft) -> Result<KeyInfo, HsmError> {
        let object = self.token.connection.read(handle, draft.class)?;
        let mut info = key_info(draft.class, object, None);
        if !info.key_type.may_be(draft.key_type) {
            return Err(HsmError::WrongKeyType {
                label: draft.label.clone(),
                found: info.key_type,
                wanted: "the type that was announced",
            });
        }
        info.key_type = draft.key_type;
        info.public_key = info.public_key.or_else(|| draft.public_key.clone());
        Ok(info)
    }
}

/// A throw-away AES-256 key and what it is under a key of the token.
pub(super) struct Carried<'t> {
    pub(super) key: SessionKey<'t>,
    pub(super) blob: Vec<u8>,
}

impl Token {
    /// Makes a throw-away key that can make MACs, and wraps it under an AES key of the token.
    pub(super) fn carry_with(&self, wrapping: &KeyInfo) -> Result<Carried<'_>, HsmError> {
        let set = [
            Flag::Private,
            Flag::Destroyable,
            Flag::Sensitive,
            Flag::Extractable,
            Flag::Sign,
        ];
        let object = session_aes_key(&self.connection, &set)?;
        let read = self.connection.read(object.handle(), KeyClass::Secret)?;
        let info = key_info(KeyClass::Secret, read, None);
        let blob = self.wrap_under(wrapping, &info)?;
        Ok(Carried {
            key: SessionKey {
                _object: object,
                info,
            },
            blob,
        })
    }

    /// Unwraps a throw-away key under an AES key of the token.
    pub(super) fn fetch_with(
        &self,
        unwrapping: &KeyInfo,
        blob: &[u8],
    ) -> Result<SessionKey<'_>, HsmError> {
        let set = [
            Flag::Private,
            Flag::Destroyable,
            Flag::Sensitive,
            Flag::Sign,
        ];
        let incoming = Incoming {
            class: KeyClass::Secret,
            key_type: KeyType::Aes { bits: KEK_BITS },
            label: SESSION_LABEL,
            id: &[],
            flags: Flags::of(KeyClass::Secret, &set),
            public_key: None,
        };
        let mechanism = self.key_wrap_mechanism()?;
        let object = self
            .connection
            .unwrap(mechanism, self.handle_of(unwrapping)?, blob, &incoming)
            .map(|handle| self.connection.guard(handle))
            .map_err(|error| self.opening(Suite::RsaOaepSha1, "a throw-away key", error))?;
        let read = self.connection.read(object.handle(), KeyClass::Secret)?;
        Ok(SessionKey {
            info: key_info(KeyClass::Secret, read, None),
            _object: object,
        })
    }
}

/// The attribute that lets a private key of this type open a KEK.
const fn opening_flag(key_type: KeyType) -> Option<Flag> {
    match key_type {
        KeyType::Rsa { .. } => Some(Flag::Unwrap),
        KeyType::P256 => Some(Flag::Derive),
        KeyType::Aes { .. }
        | KeyType::Secret { .. }
        | KeyType::P384
        | KeyType::Ed25519
        | KeyType::Other => None,
    }
}

/// Length in bytes of a KEK that was wrapped for a key of this type.
fn kek_length(key_type: KeyType) -> Option<usize> {
    match key_type {
        KeyType::Rsa { bits } => Some(usize::from(bits).div_ceil(8)),
        KeyType::P256 => Some(65),
        KeyType::Aes { .. }
        | KeyType::Secret { .. }
        | KeyType::P384
        | KeyType::Ed25519
        | KeyType::Other => None,
    }
}

impl WrappedKeys {
    /// The bytes of an export of one key: the KEK's blob and the key's, as `CKM_RSA_AES_KEY_WRAP` has them.
    #[must_use]
    pub fn joined(&self) -> Vec<u8> {
        let mut all = self.kek_blob.clone();
        for blob in &self.blobs {
            all.extend_from_slice(blob);
        }
        all
    }
}
