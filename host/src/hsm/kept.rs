//! Random keys of single devices that outlive the session they were made in: wrapped under an AES key that stays on the token, so
//! that whoever holds the blob holds nothing, and the token can check the device's proof whenever it comes.

use super::check::CheckAlgorithm;
use super::error::HsmError;
use super::key::{Flag, Flags, KeyClass, KeyInfo, KeyType};
use super::ladder::Asked;
use super::pkcs11::Incoming;
use super::public_key::PublicKey;
use super::token::{Token, key_info};
use super::unwrap::{MAXIMUM_BLOB, SessionKey};
use super::wrap::SESSION_LABEL;
use keyferry_protocol::proof::Proof;
use keyferry_protocol::suite::Suite;

/// A key of one device, wrapped under a key of the token. Nothing in it helps anybody who has not that token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Algorithm and size.
    pub key_type: KeyType,
    /// AES key wrapping with padding (RFC 5649) of the key, or of its PKCS#8, under the token's key.
    pub blob: Vec<u8>,
    /// The public key of a private one.
    pub public_key: Option<PublicKey>,
}

impl KeyInfo {
    /// Checks that keys can be kept under this one: an AES key that wraps, unwraps, cannot be read and does not leave.
    ///
    /// # Errors
    /// [`HsmError::WrongKeyType`] for anything but an AES key; [`HsmError::NotAKeeper`], which names the attribute.
    pub fn check_keeps(&self) -> Result<(), HsmError> {
        if !matches!(
            (self.class, self.key_type),
            (KeyClass::Secret, KeyType::Aes { .. })
        ) {
            return Err(HsmError::WrongKeyType {
                label: self.name(),
                found: self.key_type,
                wanted: "an aes key",
            });
        }
        let demanded = [
            (Flag::Wrap, true),
            (Flag::Unwrap, true),
            (Flag::Sensitive, true),
            (Flag::Extractable, false),
        ];
        let wrong = demanded
            .into_iter()
            .find(|(flag, wanted)| self.flags.get(*flag) != Some(*wanted));
        match wrong {
            Some((flag, wanted)) => Err(HsmError::NotAKeeper {
                label: self.name(),
                flag,
                wanted,
            }),
            None => Ok(()),
        }
    }
}

impl Token {
    /// Makes a random key for one device inside the token and wraps it under `keeper`. The key itself is gone when this comes back.
    ///
    /// # Errors
    /// As [`KeyInfo::check_keeps`] and [`Token::fresh_device_key`]; [`HsmError::MechanismMissing`].
    pub fn fresh_kept(&self, key_type: KeyType, keeper: &KeyInfo) -> Result<Kept, HsmError> {
        keeper.check_keeps()?;
        self.alive(|| {
            let key = self.fresh_device_key(key_type)?;
            Ok(Kept {
                key_type,
                blob: self.wrap_under(keeper, key.info())?,
                public_key: key.info().public_key.clone(),
            })
        })
    }

    /// Takes a kept key into this session, for as long as what comes back is held: it may leave wrapped, and check the device's
    /// proof.
    ///
    /// # Errors
    /// As [`KeyInfo::check_keeps`]; [`HsmError::BlobRejected`] if it was not kept under this key; [`HsmError::BlobLength`],
    /// [`HsmError::WrongKeyType`], [`HsmError::Token`]. To be put into one [`Token::alive`] with what is done with the key.
    pub fn fetch_kept(&self, kept: &Kept, keeper: &KeyInfo) -> Result<SessionKey<'_>, HsmError> {
        keeper.check_keeps()?;
        if kept.blob.len() > MAXIMUM_BLOB {
            return Err(HsmError::BlobLength {
                what: "the kept key".into(),
                expected: format!("at most {MAXIMUM_BLOB}"),
                actual: kept.blob.len(),
            });
        }
        let (class, uses): (_, &[Flag]) = match kept.key_type {
            KeyType::Aes { .. } => (KeyClass::Secret, &[Flag::Sign, Flag::Verify, Flag::Encrypt]),
            KeyType::Secret { .. } => (KeyClass::Secret, &[Flag::Sign, Flag::Verify]),
            KeyType::P256 => (KeyClass::Private, &[Flag::Derive]),
            KeyType::Rsa { .. } | KeyType::P384 | KeyType::Ed25519 | KeyType::Other => {
                (KeyClass::Private, &[])
            }
        };
        let always = [
            Flag::Private,
            Flag::Destroyable,
            Flag::Sensitive,
            Flag::Extractable,
        ];
        let flags = Flags::of(class, &[&always, uses].concat());
        let incoming = Incoming {
            class,
            key_type: kept.key_type,
            label: SESSION_LABEL,
            id: &[],
            flags,
            public_key: kept.public_key.as_ref(),
        };
        let mechanism = self.key_wrap_mechanism()?;
        let object = self
            .connection
            .unwrap(mechanism, self.handle_of(keeper)?, &kept.blob, &incoming)
            .map(|handle| self.connection.guard(handle))
            .map_err(|error| self.opening(Suite::RsaOaepSha1, "a kept key", error))?;
        let read = self.connection.read(object.handle(), class)?;
        let mut info = key_info(class, read, None);
        if !info.key_type.may_be(kept.key_type) {
            return Err(HsmError::WrongKeyType {
                label: SESSION_LABEL.into(),
                found: info.key_type,
                wanted: "the type that was kept",
            });
        }
        info.key_type = kept.key_type;
        // The token may know it from the private key; otherwise it is the one that was kept beside it.
        info.public_key = info.public_key.or_else(|| kept.public_key.clone());
        Ok(SessionKey {
            _object: object,
            info,
        })
    }

    /// Whether a device's answer is the one that a kept key gives.
    ///
    /// # Errors
    /// As [`Token::fetch_kept`] and [`Token::verify_answer`].
    pub fn verify_kept(
        &self,
        kept: &Kept,
        keeper: &KeyInfo,
        proof: Proof,
        asked: &Asked,
        input: &[u8],
        value: &[u8],
    ) -> Result<bool, HsmError> {
        let algorithm = match proof {
            Proof::EcdsaP256Sha256 => CheckAlgorithm::EcdsaP256Sha256,
            Proof::RsaPkcs1Sha256 => CheckAlgorithm::RsaPkcs1Sha256,
            Proof::None
            | Proof::Cmac
            | Proof::HmacSha256
            | Proof::Agreement
            | Proof::Decryption
            | Proof::CheckValue => {
                return self.alive(|| {
                    let key = self.fetch_kept(kept, keeper)?;
                    self.verify_answer(key.info(), proof, asked, input, value)
                });
            }
        };
        let public = kept
            .public_key
            .as_ref()
            .ok_or_else(|| HsmError::NoPublicKey {
                label: SESSION_LABEL.into(),
            })?;
        self.alive(|| {
            let flags = Flags::of(KeyClass::Public, &[Flag::Destroyable, Flag::Verify]);
            let public = self.import_public(public, SESSION_LABEL, &[], &flags)?;
            let _guard = self.connection.guard(public.handle);
            self.verify_check(&public, algorithm, input, value)
        })
    }
}
