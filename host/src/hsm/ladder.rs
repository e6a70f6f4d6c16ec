//! How a device will show that it holds a key, seen from the token: which use the key gets on the device, which proof that
//! use permits and the token can check, the question that some proofs need, and the check itself.

use hmac::{Hmac, KeyInit, Mac};
use keyferry_protocol::attributes::{Attributes, LIFETIME_PERSISTENT, algorithm, key_type, usage};
use keyferry_protocol::identity::Digest;
use keyferry_protocol::proof::{DECRYPTED, Level, Proof};
use rsa::{BoxedUint, Oaep, RsaPublicKey};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::check::CheckAlgorithm;
use super::error::HsmError;
use super::key::{Flag, Flags, KeyClass, KeyInfo, KeyType};
use super::pkcs11::{CipherMechanism, EcdhDerivation, SignMechanism};
use super::public_key::PublicNumbers;
use super::token::{Token, generator, random};
use super::wrap::SESSION_LABEL;

/// What a device is to use a key for: one algorithm, and the usage flags that go with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceUse {
    /// AES-CMAC, made and verified.
    Cmac,
    /// AES-GCM.
    Gcm,
    /// AES-CCM.
    Ccm,
    /// AES-CTR.
    Ctr,
    /// AES-CBC without padding.
    Cbc,
    /// HMAC-SHA-256, made and verified.
    HmacSha256,
    /// Bytes for the application, which may read them.
    Data,
    /// ECDSA P-256 signatures over SHA-256.
    Ecdsa,
    /// ECDH on P-256.
    Ecdh,
    /// RSASSA-PKCS1-v1_5 signatures over SHA-256.
    RsaPkcs1,
    /// RSAES-OAEP decryption with SHA-256.
    RsaOaep,
}

impl DeviceUse {
    /// All uses.
    pub const ALL: [Self; 11] = [
        Self::Cmac,
        Self::Gcm,
        Self::Ccm,
        Self::Ctr,
        Self::Cbc,
        Self::HmacSha256,
        Self::Data,
        Self::Ecdsa,
        Self::Ecdh,
        Self::RsaPkcs1,
        Self::RsaOaep,
    ];

    /// The name used on command lines and in plans.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cmac => "cmac",
            Self::Gcm => "gcm",
            Self::Ccm => "ccm",
            Self::Ctr => "ctr",
            Self::Cbc => "cbc",
            Self::HmacSha256 => "hmac-sha256",
            Self::Data => "data",
            Self::Ecdsa => "ecdsa",
            Self::Ecdh => "ecdh",
            Self::RsaPkcs1 => "rsa-pkcs1",
            Self::RsaOaep => "rsa-oaep",
        }
    }

    /// Whether devices use keys of this type so.
    #[must_use]
    pub fn fits(self, key_type: KeyType) -> bool {
        self.psa(key_type).is_some()
    }

    /// What a device uses a key of this type for unless it is told: what the key may do on the token.
    fn of(key: &KeyInfo) -> Option<Self> {
        let may = |flag| key.flags.has(flag);
        let signs = may(Flag::Sign) || may(Flag::Verify);
        match key.key_type {
            KeyType::Aes { .. } if !signs && (may(Flag::Encrypt) || may(Flag::Decrypt)) => {
                Some(Self::Gcm)
            }
            KeyType::Aes { .. } => Some(Self::Cmac),
            KeyType::Secret { .. } => Some(Self::HmacSha256),
            KeyType::P256 if !signs && may(Flag::Derive) => Some(Self::Ecdh),
            KeyType::P256 => Some(Self::Ecdsa),
            KeyType::Rsa { .. } if !signs && may(Flag::Decrypt) => Some(Self::RsaOaep),
            KeyType::Rsa { .. } => Some(Self::RsaPkcs1),
            KeyType::P384 | KeyType::Ed25519 | KeyType::Other => None,
        }
    }

    /// The highest level at which a key of this type that is used so can prove itself on a device, whatever the token can check.
    #[must_use]
    pub fn highest_level(self, key_type: KeyType) -> Level {
        let permits = |(psa_type, usage, algorithm)| {
            let attributes = Attributes {
                key_type: psa_type,
                bits: key_type.bits()?,
                usage,
                algorithm,
                lifetime: LIFETIME_PERSISTENT,
            };
            let kind = attributes.kind().ok()?;
            let permitted = Proof::ALL
                .iter()
                .filter(|proof| proof.permitted(kind, &attributes));
            permitted.map(|proof| proof.level()).max()
        };
        self.psa(key_type).and_then(permits).unwrap_or(Level::None)
    }

    /// Key type, usage flags and algorithm in PSA's encodings, if a key of this type can be used so.
    fn psa(self, key_type: KeyType) -> Option<(u16, u32, u32)> {
        let sign = usage::SIGN_MESSAGE | usage::VERIFY_MESSAGE;
        let cipher = usage::ENCRYPT | usage::DECRYPT;
        let (psa_type, flags, algorithm) = match self {
            Self::Cmac => (key_type::AES, sign, algorithm::CMAC),
            Self::Gcm => (key_type::AES, cipher, algorithm::GCM),
            Self::Ccm => (key_type::AES, cipher, algorithm::CCM),
            Self::Ctr => (key_type::AES, cipher, algorithm::CTR),
            Self::Cbc => (key_type::AES, cipher, algorithm::CBC_NO_PADDING),
            Self::HmacSha256 => (key_type::HMAC, sign, algorithm::HMAC_SHA256),
            Self::Data => (key_type::RAW_DATA, usage::EXPORT, algorithm::NONE),
            Self::Ecdsa => (
                key_type::ECC_SECP_R1_KEY_PAIR,
                sign,
                algorithm::ECDSA_SHA256,
            ),
            Self::Ecdh => (
                key_type::ECC_SECP_R1_KEY_PAIR,
                usage::DERIVE,
                algorithm::ECDH,
            ),
            Self::RsaPkcs1 => (key_type::RSA_KEY_PAIR, sign, algorithm::RSA_PKCS1V15_SHA256),
            Self::RsaOaep => (key_type::RSA_KEY_PAIR, cipher, algorithm::RSA_OAEP_SHA256),
        };
        let fits = match key_type {
            KeyType::Aes { .. } => psa_type == key_type::AES,
            KeyType::Secret { .. } => matches!(psa_type, key_type::HMAC | key_type::RAW_DATA),
            KeyType::P256 => psa_type == key_type::ECC_SECP_R1_KEY_PAIR,
            KeyType::Rsa { .. } => psa_type == key_type::RSA_KEY_PAIR,
            KeyType::P384 | KeyType::Ed25519 | KeyType::Other => false,
        };
        fits.then_some((psa_type, flags, algorithm))
    }
}

impl std::fmt::Display for DeviceUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for DeviceUse {
    type Err = keyferry_protocol::suite::UnknownName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|one| one.name() == name)
            .ok_or(keyferry_protocol::suite::UnknownName)
    }
}

impl KeyInfo {
    /// The attributes the key gets on a device unless a plan says otherwise, and the proof of it: what the key may do on the
    /// token, it does on the device.
    ///
    /// # Errors
    /// [`HsmError::WrongKeyType`] for keys that no device takes.
    pub fn device_attributes(&self) -> Result<(Attributes, Proof), HsmError> {
        self.attributes_for(None)
    }

    /// The attributes for a use, or for the natural one, and the strongest proof that they permit and the token can check.
    ///
    /// # Errors
    /// [`HsmError::WrongKeyType`] for keys that no device takes, or not for this use.
    pub fn attributes_for(
        &self,
        device_use: Option<DeviceUse>,
    ) -> Result<(Attributes, Proof), HsmError> {
        let unsupported = || HsmError::WrongKeyType {
            label: self.name(),
            found: self.key_type,
            wanted: match device_use {
                None => "aes, hmac, p-256 or rsa-2048/3072/4096",
                Some(_) => "a type that has this use on a device",
            },
        };
        let (key_type, usage, algorithm) = device_use
            .or_else(|| DeviceUse::of(self))
            .and_then(|wanted| wanted.psa(self.key_type))
            .ok_or_else(unsupported)?;
        let bits = self.key_type.bits().ok_or_else(unsupported)?;
        let attributes = Attributes {
            key_type,
            bits,
            usage,
            algorithm,
            lifetime: LIFETIME_PERSISTENT,
        };
        if self.class == KeyClass::Public || attributes.kind().is_err() {
            return Err(unsupported());
        }
        Ok((attributes, self.strongest_proof(&attributes)))
    }

    /// The strongest proof that a key with these attributes permits on the device and the token can check.
    #[must_use]
    pub fn strongest_proof(&self, attributes: &Attributes) -> Proof {
        let Ok(kind) = attributes.kind() else {
            return Proof::None;
        };
        let mut strongest = Proof::None;
        for proof in Proof::ALL {
            if proof.level() > strongest.level()
                && proof.permitted(kind, attributes)
                && self.can_check(proof, attributes)
            {
                strongest = proof;
            }
        }
        strongest
    }

    /// Whether the key's attributes on the token let the proof be checked.
    fn can_check(&self, proof: Proof, attributes: &Attributes) -> bool {
        let may = |flag| self.flags.has(flag);
        match proof {
            Proof::None => true,
            Proof::Cmac | Proof::HmacSha256 => may(Flag::Verify) || may(Flag::Sign),
            Proof::EcdsaP256Sha256 | Proof::RsaPkcs1Sha256 => self.public_key.is_some(),
            Proof::Agreement => may(Flag::Derive),
            Proof::Decryption => match self.key_type {
                KeyType::Rsa { .. } => self.public_key.is_some(),
                KeyType::Aes { .. }
                | KeyType::Secret { .. }
                | KeyType::P256
                | KeyType::P384
                | KeyType::Ed25519
                | KeyType::Other => {
                    may(Flag::Encrypt) && CipherMechanism::of(attributes.algorithm).is_some()
                }
            },
            Proof::CheckValue => may(Flag::Sign),
        }
    }
}

/// What a key on a device is asked, before the order is made.
#[derive(Debug, Default)]
pub struct Question {
    /// The bytes that go into the order; none for proofs that need no question.
    pub bytes: Vec<u8>,
    /// What the bytes decrypt to. No key: it is random, serves one proof, and is forgotten in [`Question::sealed`].
    secret: Option<Zeroizing<[u8; DECRYPTED]>>,
}

impl Question {
    /// A question that was made elsewhere, with what its bytes decrypt to.
    #[must_use]
    pub fn made(bytes: Vec<u8>, secret: Option<[u8; DECRYPTED]>) -> Self {
        Self {
            bytes,
            secret: secret.map(Zeroizing::new),
        }
    }

    /// What the bytes decrypt to, for whoever is to seal the question.
    #[must_use]
    pub fn secret(&self) -> Option<&[u8; DECRYPTED]> {
        self.secret.as_deref()
    }

    /// What is remembered of the question once the order is made, and so the proof input known.
    #[must_use]
    pub fn sealed(self, proof_input: &[u8]) -> Asked {
        let answer = self.secret.and_then(|secret| {
            let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&*secret).ok()?;
            mac.update(proof_input);
            let answer: Zeroizing<[u8; 32]> = Zeroizing::new(mac.finalize().into_bytes().into());
            Some(Digest(Sha256::digest(*answer).into()))
        });
        Asked {
            bytes: self.bytes,
            answer,
        }
    }
}

/// A question that stands in an order, and what its answer is checked against. Nothing in it helps to answer it, so it may be
/// kept in a file until the answer comes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// As in [`Question::bytes`].
    pub bytes: Vec<u8>,
    /// SHA-256 of the one right answer, where the token does not check the answer itself.
    pub answer: Option<Digest>,
}

impl Token {
    /// Makes the question for a proof of a key with these attributes.
    ///
    /// # Errors
    /// [`HsmError::NotPermitted`] if the key may not do its part, [`HsmError::NoPublicKey`], [`HsmError::Token`].
    pub fn ask(
        &self,
        key: &KeyInfo,
        attributes: &Attributes,
        proof: Proof,
    ) -> Result<Question, HsmError> {
        match proof {
            Proof::None
            | Proof::Cmac
            | Proof::HmacSha256
            | Proof::EcdsaP256Sha256
            | Proof::RsaPkcs1Sha256
            | Proof::CheckValue => Ok(Question::default()),
            // The private half of the question is forgotten at once: the token's own copy of the key checks the answer.
            Proof::Agreement => self.alive(|| {
                let (_, point) =
                    self.ephemeral_pair(keyferry_protocol::suite::Suite::EcdhP256Null)?;
                Ok(Question {
                    bytes: point,
                    secret: None,
                })
            }),
            Proof::Decryption => {
                let secret = Zeroizing::new(random::<DECRYPTED>()?);
                Ok(Question {
                    bytes: self.encrypted_for(key, attributes, &secret)?,
                    secret: Some(secret),
                })
            }
        }
    }

    fn encrypted_for(
        &self,
        key: &KeyInfo,
        attributes: &Attributes,
        secret: &[u8; DECRYPTED],
    ) -> Result<Vec<u8>, HsmError> {
        if let KeyType::Rsa { .. } = key.key_type {
            let PublicNumbers::Rsa { modulus, exponent } = key.public_key()?.numbers() else {
                return Err(HsmError::NoPublicKey { label: key.name() });
            };
            let number = |bytes: &[u8]| BoxedUint::from_be_slice_vartime(bytes);
            let failed = |error: rsa::Error| HsmError::Random(error.to_string());
            let public = RsaPublicKey::new(number(modulus), number(exponent)).map_err(failed)?;
            return public
                .encrypt(&mut generator()?, Oaep::<Sha256>::new(), secret)
                .map_err(failed);
        }
        let cipher =
            CipherMechanism::of(attributes.algorithm).ok_or_else(|| HsmError::WrongKeyType {
                label: key.name(),
                found: key.key_type,
                wanted: "a key for gcm or cbc",
            })?;
        key.check_flag(Flag::Encrypt)?;
        self.alive(|| {
            let start: [u8; 16] = random()?;
            let start = &start[..cipher.start_length()];
            let ciphertext =
                self.connection
                    .encrypt(cipher, self.handle_of(key)?, start, secret)?;
            Ok([start, &ciphertext].concat())
        })
    }

    /// Whether a device's answer is the one that this key gives.
    ///
    /// # Errors
    /// As [`Token::verify_check`].
    pub fn verify_answer(
        &self,
        key: &KeyInfo,
        proof: Proof,
        asked: &Asked,
        input: &[u8],
        value: &[u8],
    ) -> Result<bool, HsmError> {
        let algorithm = match proof {
            Proof::None => return Ok(false),
            Proof::Cmac => CheckAlgorithm::Cmac,
            Proof::HmacSha256 => CheckAlgorithm::HmacSha256,
            Proof::EcdsaP256Sha256 => CheckAlgorithm::EcdsaP256Sha256,
            Proof::RsaPkcs1Sha256 => CheckAlgorithm::RsaPkcs1Sha256,
            Proof::Agreement => return self.verify_agreement(key, &asked.bytes, input, value),
            Proof::Decryption => {
                return Ok(asked.answer == Some(Digest(Sha256::digest(value).into())));
            }
            Proof::CheckValue => {
                let whole = self.make_check(key, CheckAlgorithm::Cmac, input)?;
                return Ok(value.len() == 5 && whole.get(..5) == Some(value));
            }
        };
        self.verify_check(key, algorithm, input, value)
    }

    /// The token's own copy agrees with the point too, and the key that comes of it makes the MAC again.
    fn verify_agreement(
        &self,
        key: &KeyInfo,
        point: &[u8],
        input: &[u8],
        value: &[u8],
    ) -> Result<bool, HsmError> {
        key.check_flag(Flag::Derive)?;
        self.alive(|| {
            let set = [
                Flag::Private,
                Flag::Destroyable,
                Flag::Sensitive,
                Flag::Sign,
            ];
            let shared = self.connection.derive_ecdh(
                self.handle_of(key)?,
                point,
                EcdhDerivation::Null,
                SESSION_LABEL,
                &Flags::of(KeyClass::Secret, &set),
            )?;
            let again = self
                .connection
                .sign(SignMechanism::Cmac, shared.handle(), input)?;
            Ok(again == value)
        })
    }
}
