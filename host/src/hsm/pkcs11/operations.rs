//! What is done with keys: generate, import, derive, wrap, sign, verify, destroy.

use cryptoki::context::Function;
use cryptoki::error::{Error, Rv, RvError};
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::elliptic_curve::{EcKdf, Ecdh1DeriveParams};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsOaepParams, PkcsOaepSource, PkcsPssParams};
use cryptoki::mechanism::{Mechanism as CkMechanism, MechanismType};
use cryptoki::object::Attribute;
use cryptoki::types::Ulong;
use cryptoki_sys::{
    CK_BYTE, CK_MECHANISM, CK_MECHANISM_TYPE, CK_RSA_AES_KEY_WRAP_PARAMS, CK_RSA_PKCS_OAEP_PARAMS,
    CK_ULONG, CKG_MGF1_SHA1, CKG_MGF1_SHA256, CKM_AES_KEY_WRAP_KWP, CKM_AES_KEY_WRAP_PAD,
    CKM_RSA_AES_KEY_WRAP, CKM_RSA_PKCS_OAEP, CKM_SHA_1, CKM_SHA256, CKZ_DATA_SPECIFIED,
};
use keyferry_protocol::attributes::algorithm as psa;

use super::failure;
use super::objects::{
    KeyHandle, create, curve_names, modulus_bits, public_numbers, template, value_length,
};
use super::session::Connection;
use crate::hsm::error::HsmError;
use crate::hsm::key::{Flags, KeyClass, KeyType};
use crate::hsm::public_key::PublicKey;

/// The public exponent of every RSA key that is generated: 65537.
const RSA_EXPONENT: [u8; 3] = [0x01, 0x00, 0x01];

/// Length of a SHA-256 digest in bytes.
const SHA256_LENGTH: CK_ULONG = 32;

/// Length of a GCM tag in bits.
const GCM_TAG_BITS: CK_ULONG = 128;

/// Size in bits of the AES key that `CKM_RSA_AES_KEY_WRAP` makes for itself.
const SINGLE_STEP_KEK_BITS: CK_ULONG = 256;

/// A way to wrap a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::hsm) enum WrapMechanism {
    /// AES, RFC 5649 (`CKM_AES_KEY_WRAP_KWP`).
    Kwp,
    /// AES and some padding (`CKM_AES_KEY_WRAP_PAD`): RFC 5649 or not, depending on the token.
    Pad,
    /// RSA-OAEP, SHA-1 and MGF1 with SHA-1, no label.
    OaepSha1,
    /// RSA-OAEP, SHA-256 and MGF1 with SHA-256, no label.
    OaepSha256,
    /// A fresh AES-256 key under RSA-OAEP with SHA-1, and the key under that one, in a single step (`CKM_RSA_AES_KEY_WRAP`).
    SingleStepSha1,
    /// The same with SHA-256.
    SingleStepSha256,
}

/// A way to sign and verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::hsm) enum SignMechanism {
    /// ECDSA over a digest that is already made.
    Ecdsa,
    /// ECDSA over a message, of which the token makes the SHA-256 digest.
    EcdsaSha256,
    /// RSASSA-PKCS1-v1_5 with SHA-256 over a message.
    RsaPkcs1Sha256,
    /// RSASSA-PSS with SHA-256 over a message; the salt is as long as the digest.
    RsaPssSha256,
    /// Ed25519 over a message.
    Ed25519,
    /// AES-CMAC.
    Cmac,
    /// HMAC with SHA-256.
    HmacSha256,
}

/// A way to encrypt what a device must decrypt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::hsm) enum CipherMechanism {
    /// AES-GCM with a tag of 128 bits and no additional data (`CKM_AES_GCM`).
    Gcm,
    /// AES-CBC without padding (`CKM_AES_CBC`).
    Cbc,
}

impl CipherMechanism {
    /// The one for a PSA algorithm, where there is one.
    pub(in crate::hsm) const fn of(algorithm: u32) -> Option<Self> {
        match algorithm {
            psa::GCM => Some(Self::Gcm),
            psa::CBC_NO_PADDING => Some(Self::Cbc),
            _ => None,
        }
    }

    /// Length in bytes of nonce or initialisation vector.
    pub(in crate::hsm) const fn start_length(self) -> usize {
        match self {
            Self::Gcm => 12,
            Self::Cbc => 16,
        }
    }
}

/// How an attempt to wrap ended.
pub(in crate::hsm) enum WrapOutcome {
    /// The wrapped key.
    Wrapped(Vec<u8>),
    /// The token does not know the mechanism, or not with these parameters.
    Refused {
        /// The function that said so.
        function: String,
        /// Its return value.
        code: String,
    },
}

/// An object that is destroyed when the guard goes out of scope, whichever way that happens: one that lives in this session
/// only, or one that is not yet known to be as it should be.
pub(in crate::hsm) struct SessionObject<'c> {
    connection: &'c Connection,
    handle: KeyHandle,
}

impl SessionObject<'_> {
    pub(in crate::hsm) fn handle(&self) -> KeyHandle {
        self.handle
    }

    /// The session may be lost now without this object being lost.
    fn let_go(&self) {
        let held = self.connection.objects();
        held.set(held.get().saturating_sub(1));
    }

    /// Lets the object be, for it lives on the token and is as it should be.
    pub(in crate::hsm) fn keep(self) {
        self.let_go();
        std::mem::forget(self);
    }
}

impl Drop for SessionObject<'_> {
    fn drop(&mut self) {
        // There is nobody to tell; should the token refuse, a session's object still ends with the session. After a new login
        // the number may be that of another object.
        if self.connection.knows(self.handle) {
            let _ = self.connection.session().destroy_object(self.handle.0);
        }
        self.let_go();
    }
}

impl Connection {
    /// Generates a secret key.
    pub(in crate::hsm) fn generate_secret(
        &self,
        key_type: KeyType,
        label: &str,
        id: &[u8],
        flags: &Flags,
    ) -> Result<KeyHandle, HsmError> {
        let (mechanism, bits) = match key_type {
            KeyType::Aes { bits } => (CkMechanism::AesKeyGen, bits),
            KeyType::Secret { bits } => (CkMechanism::GenericSecretKeyGen, bits),
            KeyType::Rsa { .. }
            | KeyType::P256
            | KeyType::P384
            | KeyType::Ed25519
            | KeyType::Other => {
                return Err(failure(&Error::NotSupported));
            }
        };
        let own = vec![value_length(bits)];
        create(|wording| {
            let own = own.clone();
            let attributes = template(KeyClass::Secret, key_type, label, id, own, flags, wording);
            self.session().generate_key(&mechanism, &attributes)
        })
        .map(|object| self.named(object))
        .map_err(|error| failure(&error))
    }

    /// Generates a key pair; gives its public and its private half.
    pub(in crate::hsm) fn generate_pair(
        &self,
        key_type: KeyType,
        label: &str,
        id: &[u8],
        public_flags: &Flags,
        private_flags: &Flags,
    ) -> Result<(KeyHandle, KeyHandle), HsmError> {
        let mechanism = match key_type {
            KeyType::Rsa { .. } => CkMechanism::RsaPkcsKeyPairGen,
            KeyType::P256 | KeyType::P384 => CkMechanism::EccKeyPairGen,
            KeyType::Ed25519 => CkMechanism::EccEdwardsKeyPairGen,
            KeyType::Aes { .. } | KeyType::Secret { .. } | KeyType::Other => {
                return Err(failure(&Error::NotSupported));
            }
        };
        let own = match key_type {
            KeyType::Rsa { bits } => vec![vec![
                modulus_bits(bits),
                Attribute::PublicExponent(RSA_EXPONENT.into()),
            ]],
            KeyType::P256
            | KeyType::P384
            | KeyType::Ed25519
            | KeyType::Aes { .. }
            | KeyType::Secret { .. }
            | KeyType::Other => curve_names(key_type)
                .iter()
                .map(|name| vec![Attribute::EcParams(name.to_vec())])
                .collect(),
        };
        first_understood(own, |own| {
            create(|wording| {
                let half =
                    |class, own, flags| template(class, key_type, label, id, own, flags, wording);
                let public = half(KeyClass::Public, own.clone(), public_flags);
                let private = half(KeyClass::Private, Vec::new(), private_flags);
                self.session()
                    .generate_key_pair(&mechanism, &public, &private)
            })
        })
        .map(|(public, private)| (self.named(public), self.named(private)))
    }

    /// Makes an object of a public key.
    pub(in crate::hsm) fn import_public(
        &self,
        key: &PublicKey,
        label: &str,
        id: &[u8],
        flags: &Flags,
    ) -> Result<KeyHandle, HsmError> {
        let key_type = key.key_type();
        first_understood(public_numbers(key)?, |own| {
            create(|wording| {
                let own = own.clone();
                let attributes =
                    template(KeyClass::Public, key_type, label, id, own, flags, wording);
                self.session().create_object(&attributes)
            })
        })
        .map(|object| self.named(object))
    }

    /// Derives an AES-256 key from a private EC key and a peer's uncompressed point (`CKM_ECDH1_DERIVE`).
    pub(in crate::hsm) fn derive_ecdh(
        &self,
        private: KeyHandle,
        point: &[u8],
        derivation: EcdhDerivation<'_>,
        label: &str,
        flags: &Flags,
    ) -> Result<SessionObject<'_>, HsmError> {
        let bits = 256;
        let derivation = match derivation {
            EcdhDerivation::Null => EcKdf::null(),
            EcdhDerivation::X963Sha256(shared_info) => EcKdf::sha256(shared_info),
        };
        let mechanism = CkMechanism::Ecdh1Derive(Ecdh1DeriveParams::new(derivation, point));
        let key_type = KeyType::Aes { bits };
        let own = vec![value_length(bits)];
        let handle = create(|wording| {
            let own = own.clone();
            let attributes = template(KeyClass::Secret, key_type, label, &[], own, flags, wording);
            self.session()
                .derive_key(&mechanism, private.0, &attributes)
        })
        .map(|object| self.named(object))
        .map_err(|error| failure(&error))?;
        let guard = self.guard(handle);
        let found = self.secret_type(handle)?;
        // The length comes from the shared secret, and a shorter key would be a weaker one.
        if found != key_type {
            return Err(HsmError::WrongKeyType {
                label: label.into(),
                found,
                wanted: "aes-256",
            });
        }
        Ok(guard)
    }

    /// Ties a session object to the life of a guard.
    pub(in crate::hsm) fn guard(&self, handle: KeyHandle) -> SessionObject<'_> {
        self.objects().set(self.objects().get() + 1);
        SessionObject {
            connection: self,
            handle,
        }
    }

    /// Wraps a key with one `C_WrapKey` call into a buffer of `capacity` bytes.
    ///
    /// `capacity` must be more than a right answer takes, so that a wrong one shows in its length.
    pub(in crate::hsm) fn wrap(
        &self,
        mechanism: WrapMechanism,
        wrapping_key: KeyHandle,
        key: KeyHandle,
        capacity: usize,
    ) -> Result<WrapOutcome, HsmError> {
        let missing = || failure(&Error::NullFunctionPointer);
        let wrap_key = { self.module().functions().C_WrapKey }.ok_or_else(missing)?;
        let mut parameters = WrapParameters::of(mechanism);
        let mut ck_mechanism = parameters.mechanism().map_err(|error| failure(&error))?;
        let mut blob: Vec<CK_BYTE> = vec![0; capacity];
        let mut length = ulong(capacity).map_err(|error| failure(&error))?;
        // SAFETY: the function comes from the initialised module the session belongs to; the mechanism and its parameters
        // live until the call returns; `blob` has `length` bytes, and the module writes at most that many
        // (PKCS#11 v3.1 §5.2).
        let value = unsafe {
            wrap_key(
                self.session().handle(),
                &raw mut ck_mechanism,
                wrapping_key.0.handle(),
                key.0.handle(),
                blob.as_mut_ptr(),
                &raw mut length,
            )
        };
        let error = match Rv::from(value) {
            Rv::Ok => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                if length > capacity {
                    return Err(failure(&Error::InvalidValue));
                }
                blob.truncate(length);
                return Ok(WrapOutcome::Wrapped(blob));
            }
            Rv::Error(error) => error,
        };
        let refused = matches!(
            error,
            RvError::MechanismInvalid
                | RvError::MechanismParamInvalid
                | RvError::ArgumentsBad
                | RvError::FunctionNotSupported
        );
        match failure(&Error::Pkcs11(error, Function::WrapKey)) {
            HsmError::Token { function, code } if refused => {
                Ok(WrapOutcome::Refused { function, code })
            }
            other => Err(other),
        }
    }

    /// Checks a signature or MAC.
    pub(in crate::hsm) fn verify(
        &self,
        mechanism: SignMechanism,
        key: KeyHandle,
        data: &[u8],
        signature: &[u8],
    ) -> Result<bool, HsmError> {
        let mechanism = sign_mechanism(mechanism);
        match self.session().verify(&mechanism, key.0, data, signature) {
            Ok(()) => Ok(true),
            Err(Error::Pkcs11(RvError::SignatureInvalid | RvError::SignatureLenRange, _)) => {
                Ok(false)
            }
            Err(error) => Err(failure(&error)),
        }
    }
}

impl Connection {
    /// Encrypts or decrypts one block with AES in ECB mode (`CKM_AES_ECB`): good for comparing two copies of a key, and used for
    /// nothing else.
    pub(in crate::hsm) fn aes_block(
        &self,
        key: KeyHandle,
        direction: Direction,
        block: &[u8; 16],
    ) -> Result<Vec<u8>, HsmError> {
        let mechanism = CkMechanism::AesEcb;
        match direction {
            Direction::Encrypt => self.session().encrypt(&mechanism, key.0, block),
            Direction::Decrypt => self.session().decrypt(&mechanism, key.0, block),
        }
        .map_err(|error| failure(&error))
    }

    /// Encrypts with an AES key. `start` is the nonce or initialisation vector; a tag stands behind the ciphertext.
    pub(in crate::hsm) fn encrypt(
        &self,
        cipher: CipherMechanism,
        key: KeyHandle,
        start: &[u8],
        clear: &[u8],
    ) -> Result<Vec<u8>, HsmError> {
        let too_long = || failure(&Error::InvalidValue);
        let mut nonce = start.to_vec();
        let mechanism = match cipher {
            CipherMechanism::Gcm => CkMechanism::AesGcm(
                GcmParams::new(&mut nonce, &[], Ulong::new(GCM_TAG_BITS))
                    .map_err(|error| failure(&error))?,
            ),
            CipherMechanism::Cbc => CkMechanism::AesCbc(start.try_into().map_err(|_| too_long())?),
        };
        self.session()
            .encrypt(&mechanism, key.0, clear)
            .map_err(|error| failure(&error))
    }

    /// Decrypts what was encrypted with the public half of an RSA key (`CKM_RSA_PKCS_OAEP` with SHA-1, which every token
    /// has).
    pub(in crate::hsm) fn rsa_decrypt(
        &self,
        key: KeyHandle,
        ciphertext: &[u8],
    ) -> Result<Vec<u8>, HsmError> {
        self.session()
            .decrypt(&oaep_sha1(), key.0, ciphertext)
            .map_err(|error| failure(&error))
    }

    /// Encrypts with an RSA public key (`CKM_RSA_PKCS_OAEP` with SHA-1).
    pub(in crate::hsm) fn rsa_encrypt(
        &self,
        key: KeyHandle,
        clear: &[u8],
    ) -> Result<Vec<u8>, HsmError> {
        self.session()
            .encrypt(&oaep_sha1(), key.0, clear)
            .map_err(|error| failure(&error))
    }

    /// Destroys an object.
    pub(in crate::hsm) fn destroy(&self, key: KeyHandle) -> Result<(), HsmError> {
        self.session()
            .destroy_object(key.0)
            .map_err(|error| failure(&error))
    }
}

/// What becomes of the shared x coordinate.
#[derive(Clone, Copy, Debug)]
pub(in crate::hsm) enum EcdhDerivation<'a> {
    /// It is the key (`CKD_NULL`).
    Null,
    /// The key is derived from it and this shared information (ANSI X9.63 with SHA-256, `CKD_SHA256_KDF`).
    X963Sha256(&'a [u8]),
}

/// One of the two ways through a cipher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::hsm) enum Direction {
    Encrypt,
    Decrypt,
}

fn oaep_sha1() -> CkMechanism<'static> {
    CkMechanism::RsaPkcsOaep(PkcsOaepParams::new(
        MechanismType::SHA1,
        PkcsMgfType::MGF1_SHA1,
        PkcsOaepSource::empty(),
    ))
}

/// Tries one spelling of the same attributes after another, until the token takes one or fails for another reason than not
/// knowing the spelling.
fn first_understood<T>(
    spellings: Vec<Vec<Attribute>>,
    mut attempt: impl FnMut(Vec<Attribute>) -> cryptoki::error::Result<T>,
) -> Result<T, HsmError> {
    let mut last = Error::NotSupported;
    for spelling in spellings {
        match attempt(spelling) {
            Ok(value) => return Ok(value),
            Err(error) => last = error,
        }
        if !matches!(
            last,
            Error::Pkcs11(
                RvError::AttributeValueInvalid
                    | RvError::CurveNotSupported
                    | RvError::DomainParamsInvalid
                    | RvError::TemplateInconsistent
                    | RvError::GeneralError
                    | RvError::FunctionFailed,
                _
            )
        ) {
            break;
        }
    }
    Err(failure(&last))
}

/// The id of a wrapping mechanism.
fn wrap_mechanism(mechanism: WrapMechanism) -> CK_MECHANISM_TYPE {
    match mechanism {
        WrapMechanism::Kwp => CKM_AES_KEY_WRAP_KWP,
        WrapMechanism::Pad => CKM_AES_KEY_WRAP_PAD,
        WrapMechanism::OaepSha1 | WrapMechanism::OaepSha256 => CKM_RSA_PKCS_OAEP,
        WrapMechanism::SingleStepSha1 | WrapMechanism::SingleStepSha256 => CKM_RSA_AES_KEY_WRAP,
    }
}

/// What a call with a wrapping mechanism points to.
pub(super) struct WrapParameters {
    mechanism: WrapMechanism,
    oaep: CK_RSA_PKCS_OAEP_PARAMS,
    single_step: CK_RSA_AES_KEY_WRAP_PARAMS,
}

impl WrapParameters {
    pub(super) fn of(mechanism: WrapMechanism) -> Self {
        let (hash, mgf) = match mechanism {
            WrapMechanism::OaepSha256 | WrapMechanism::SingleStepSha256 => {
                (CKM_SHA256, CKG_MGF1_SHA256)
            }
            WrapMechanism::OaepSha1
            | WrapMechanism::SingleStepSha1
            | WrapMechanism::Kwp
            | WrapMechanism::Pad => (CKM_SHA_1, CKG_MGF1_SHA1),
        };
        Self {
            mechanism,
            oaep: CK_RSA_PKCS_OAEP_PARAMS {
                hashAlg: hash,
                mgf,
                source: CKZ_DATA_SPECIFIED,
                pSourceData: std::ptr::null_mut(),
                ulSourceDataLen: 0,
            },
            single_step: CK_RSA_AES_KEY_WRAP_PARAMS {
                ulAESKeyBits: SINGLE_STEP_KEK_BITS,
                pOAEPParams: std::ptr::null_mut(),
            },
        }
    }

    /// The mechanism; it points into `self`.
    pub(super) fn mechanism(&mut self) -> cryptoki::error::Result<CK_MECHANISM> {
        let (parameter, length) = match self.mechanism {
            WrapMechanism::Kwp | WrapMechanism::Pad => (std::ptr::null_mut(), 0),
            WrapMechanism::OaepSha1 | WrapMechanism::OaepSha256 => (
                (&raw mut self.oaep).cast(),
                size_of::<CK_RSA_PKCS_OAEP_PARAMS>(),
            ),
            WrapMechanism::SingleStepSha1 | WrapMechanism::SingleStepSha256 => {
                self.single_step.pOAEPParams = &raw mut self.oaep;
                (
                    (&raw mut self.single_step).cast(),
                    size_of::<CK_RSA_AES_KEY_WRAP_PARAMS>(),
                )
            }
        };
        Ok(CK_MECHANISM {
            mechanism: wrap_mechanism(self.mechanism),
            pParameter: parameter,
            ulParameterLen: ulong(length)?,
        })
    }
}

pub(super) fn sign_mechanism(mechanism: SignMechanism) -> CkMechanism<'static> {
    match mechanism {
        SignMechanism::Ecdsa => CkMechanism::Ecdsa,
        SignMechanism::EcdsaSha256 => CkMechanism::EcdsaSha256,
        SignMechanism::RsaPkcs1Sha256 => CkMechanism::Sha256RsaPkcs,
        SignMechanism::RsaPssSha256 => CkMechanism::Sha256RsaPkcsPss(PkcsPssParams {
            hash_alg: MechanismType::SHA256,
            mgf: PkcsMgfType::MGF1_SHA256,
            s_len: Ulong::new(SHA256_LENGTH),
        }),
        SignMechanism::Ed25519 => {
            CkMechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519))
        }
        SignMechanism::Cmac => CkMechanism::AesCMac,
        SignMechanism::HmacSha256 => CkMechanism::Sha256Hmac,
    }
}

/// A length in the module's own integer type.
pub(super) fn ulong(length: usize) -> cryptoki::error::Result<CK_ULONG> {
    Ok(CK_ULONG::try_from(length)?)
}
