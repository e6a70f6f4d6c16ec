//! Wrapping keys for a recipient: a fresh key-encryption key (KEK) travels under the recipient's public key, the keys under
//! the KEK. For one key the two blobs together are what `CKM_RSA_AES_KEY_WRAP` gives (PKCS#11 v3.1 §6.1.23).

use std::ops::RangeInclusive;

use keyferry_protocol::identity::Fingerprint;
use keyferry_protocol::suite::{Suite, kwp_length, x963_shared_info};

use super::error::HsmError;
use super::key::{Flag, Flags, KeyClass, KeyInfo, KeyType};
use super::pkcs11::{
    Connection, EcdhDerivation, KeyHandle, SessionObject, WrapMechanism, WrapOutcome,
};
use super::public_key::{PublicKey, PublicNumbers};
use super::token::Token;

/// Size of the KEK of every suite, in bits.
pub(super) const KEK_BITS: u16 = 256;

/// Room beyond a right answer, so that a wrong one is seen by its length and not as a full buffer.
const SLACK: usize = 64;

/// Longest secret key whose length the token does not tell, in bytes.
const MAXIMUM_SECRET: usize = 512;

/// Length of an uncompressed P-256 point (SEC 1 §2.3.3), in bytes.
const P256_POINT: usize = 65;

/// Label of everything that lives in a session only.
pub(super) const SESSION_LABEL: &str = "keyferry session object";

/// Keys wrapped under one KEK for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedKeys {
    /// How the KEK travels.
    pub suite: Suite,
    /// For whom.
    pub recipient: Fingerprint,
    /// The KEK under RSA-OAEP, as long as the modulus; or the ephemeral P-256 point `04 ‖ x ‖ y`, 65 bytes.
    pub kek_blob: Vec<u8>,
    /// Each key under AES-256-KWP (RFC 5649), in the order they were given. Private keys are PKCS#8 DER; some tokens append
    /// up to seven zero bytes before wrapping, which the recipient cuts at the DER length.
    pub blobs: Vec<Vec<u8>>,
}

/// How the KEK of a suite is made.
enum Transport {
    Oaep(WrapMechanism),
    Ecdh,
}

impl Token {
    /// Wraps keys for a recipient, all under one KEK. Each wrapping is one call to the token; nothing is left behind on it.
    ///
    /// # Errors
    /// Before the key is touched: [`HsmError::Recipient`], [`HsmError::SuiteMismatch`], [`HsmError::SuiteWrong`],
    /// [`HsmError::NotExtractable`], [`HsmError::TrustedOnly`], [`HsmError::WrongKeyType`]. Then:
    /// [`HsmError::SuiteRefused`], [`HsmError::MechanismMissing`], [`HsmError::UnexpectedLength`], [`HsmError::Token`].
    pub fn wrap_for(
        &self,
        recipient: &PublicKey,
        suite: Suite,
        keys: &[&KeyInfo],
    ) -> Result<WrappedKeys, HsmError> {
        self.alive(|| {
            recipient.check_recipient()?;
            if !recipient.key_type().fits(suite) {
                return Err(HsmError::SuiteMismatch {
                    suite,
                    recipient: recipient.key_type(),
                });
            }
            for key in keys {
                key.check_may_leave()?;
            }
            let lengths: Vec<_> = keys
                .iter()
                .map(|key| clear_length(key))
                .collect::<Result<_, _>>()?;
            self.check_suite(suite)?;
            let mechanism = self.key_wrap_mechanism()?;
            let (kek, kek_blob) = self.make_kek(recipient, suite)?;
            let blobs = keys
                .iter()
                .zip(lengths)
                .map(|(key, length)| self.wrap_key(mechanism, kek.handle(), key, length))
                .collect::<Result<_, _>>()?;
            Ok(WrappedKeys {
                suite,
                recipient: recipient.fingerprint(),
                kek_blob,
                blobs,
            })
        })
    }

    /// The suites under which this token wraps, strongest first; each found out as in [`Token::supports`].
    ///
    /// # Errors
    /// As [`Token::supports`].
    pub fn supported_suites(&self) -> Result<Vec<Suite>, HsmError> {
        self.alive(|| {
            let mut supported = Vec::new();
            for suite in Suite::ALL {
                if self.supports(suite)? {
                    supported.push(suite);
                }
            }
            Ok(supported)
        })
    }

    /// Whether this token really wraps under the suite, found out with throw-away keys ([`Token::find_out`]).
    ///
    /// # Errors
    /// [`HsmError::MechanismMissing`] if it cannot wrap keys under any suite; [`HsmError::Token`] if it fails for another reason than
    /// not knowing the suite.
    pub fn supports(&self, suite: Suite) -> Result<bool, HsmError> {
        self.alive(|| match self.check_suite(suite) {
            Ok(()) => self.key_wrap_mechanism().map(|_| true),
            Err(HsmError::SuiteRefused { .. } | HsmError::SuiteWrong { .. }) => Ok(false),
            Err(error) => Err(error),
        })
    }

    /// Makes a KEK that exists in this session only, and the blob that carries it.
    fn make_kek(
        &self,
        recipient: &PublicKey,
        suite: Suite,
    ) -> Result<(SessionObject<'_>, Vec<u8>), HsmError> {
        let transport = match suite {
            Suite::RsaOaepSha256 => Transport::Oaep(WrapMechanism::OaepSha256),
            Suite::RsaOaepSha1 => Transport::Oaep(WrapMechanism::OaepSha1),
            Suite::EcdhP256X963Sha256 | Suite::EcdhP256Null => Transport::Ecdh,
        };
        match (transport, recipient.numbers()) {
            (Transport::Oaep(mechanism), PublicNumbers::Rsa { modulus, .. }) => {
                self.make_kek_oaep(recipient, suite, mechanism, modulus.len())
            }
            (Transport::Ecdh, PublicNumbers::P256(point)) => {
                self.make_kek_ecdh(suite, &recipient.fingerprint(), point)
            }
            (Transport::Oaep(_) | Transport::Ecdh, _) => Err(HsmError::SuiteMismatch {
                suite,
                recipient: recipient.key_type(),
            }),
        }
    }

    fn make_kek_oaep(
        &self,
        recipient: &PublicKey,
        suite: Suite,
        mechanism: WrapMechanism,
        modulus_length: usize,
    ) -> Result<(SessionObject<'_>, Vec<u8>), HsmError> {
        let flags = Flags::of(KeyClass::Public, &[Flag::Destroyable, Flag::Wrap]);
        let recipient = self.connection.guard(self.connection.import_public(
            recipient,
            SESSION_LABEL,
            &[],
            &flags,
        )?);
        let kek = session_aes_key(
            &self.connection,
            &[
                Flag::Private,
                Flag::Destroyable,
                Flag::Sensitive,
                Flag::Extractable,
                Flag::Wrap,
            ],
        )?;
        let outcome = self.connection.wrap(
            mechanism,
            recipient.handle(),
            kek.handle(),
            modulus_length + SLACK,
        )?;
        let blob = match outcome {
            WrapOutcome::Wrapped(blob) => blob,
            WrapOutcome::Refused { function, code } => {
                return Err(self.suite_refused(suite, function, code));
            }
        };
        check_length("the KEK", modulus_length..=modulus_length, blob.len())?;
        Ok((kek, blob))
    }

    fn make_kek_ecdh(
        &self,
        suite: Suite,
        recipient: &Fingerprint,
        point: &[u8; 65],
    ) -> Result<(SessionObject<'_>, Vec<u8>), HsmError> {
        let (private, ephemeral) = self.ephemeral_pair(suite)?;
        let flags = Flags::of(
            KeyClass::Secret,
            &[
                Flag::Private,
                Flag::Destroyable,
                Flag::Sensitive,
                Flag::Wrap,
            ],
        );
        let shared_info = x963_shared_info(recipient);
        let derivation = derivation(suite, &shared_info);
        let kek = self
            .connection
            .derive_ecdh(private.handle(), point, derivation, SESSION_LABEL, &flags)
            .map_err(|error| self.refusal(suite, error))?;
        Ok((kek, ephemeral))
    }

    /// An ephemeral P-256 key that may only derive, and its point. The public object is destroyed at once.
    pub(super) fn ephemeral_pair(
        &self,
        suite: Suite,
    ) -> Result<(SessionObject<'_>, Vec<u8>), HsmError> {
        let private_flags = Flags::of(
            KeyClass::Private,
            &[
                Flag::Private,
                Flag::Destroyable,
                Flag::Sensitive,
                Flag::Derive,
            ],
        );
        let public_flags = Flags::of(KeyClass::Public, &[Flag::Destroyable]);
        let (public, private) = self
            .connection
            .generate_pair(
                KeyType::P256,
                SESSION_LABEL,
                &[],
                &public_flags,
                &private_flags,
            )
            .map_err(|error| self.refusal(suite, error))?;
        let private = self.connection.guard(private);
        let public = self.connection.guard(public);
        let point = self.connection.point(public.handle())?;
        check_length(
            "an ephemeral P-256 key",
            P256_POINT..=P256_POINT,
            point.len(),
        )?;
        Ok((private, point))
    }

    /// Turns "mechanism unknown" into a statement about the suite; leaves every other error as it is.
    fn refusal(&self, suite: Suite, error: HsmError) -> HsmError {
        match error {
            HsmError::Token { function, code }
                if matches!(
                    code.as_str(),
                    "CKR_MECHANISM_INVALID" | "CKR_MECHANISM_PARAM_INVALID"
                ) =>
            {
                self.suite_refused(suite, function, code)
            }
            other => other,
        }
    }

    pub(super) fn suite_refused(&self, suite: Suite, function: String, code: String) -> HsmError {
        HsmError::SuiteRefused {
            token: self.label().into(),
            suite,
            function,
            code,
        }
    }

    fn wrap_key(
        &self,
        mechanism: WrapMechanism,
        kek: KeyHandle,
        key: &KeyInfo,
        clear: RangeInclusive<usize>,
    ) -> Result<Vec<u8>, HsmError> {
        let expected = kwp_length(*clear.start())..=kwp_length(*clear.end());
        let capacity = expected.end() + SLACK;
        match self
            .connection
            .wrap(mechanism, kek, self.handle_of(key)?, capacity)?
        {
            WrapOutcome::Wrapped(blob) => {
                check_length(&format!("key '{}'", key.name()), expected, blob.len())?;
                Ok(blob)
            }
            WrapOutcome::Refused { .. } => Err(self.no_key_wrap()),
        }
    }

    /// Finds out the length of a secret key whose length the token does not tell, by wrapping it under a throw-away key. A key that
    /// may not leave stays as it is.
    pub(super) fn measured(&self, mut key: KeyInfo) -> Result<KeyInfo, HsmError> {
        let unknown = matches!(
            key.key_type,
            KeyType::Aes { bits: 0 } | KeyType::Secret { bits: 0 }
        );
        if !unknown || key.check_may_leave().is_err() {
            return Ok(key);
        }
        let set = [
            Flag::Private,
            Flag::Destroyable,
            Flag::Sensitive,
            Flag::Wrap,
        ];
        let kek = session_aes_key(&self.connection, &set)?;
        let mechanism = self.key_wrap_mechanism()?;
        let blob = self.wrap_key(mechanism, kek.handle(), &key, clear_length(&key)?)?;
        // Eight bytes of a wrapping are its own (RFC 5649 §3).
        let bits = u16::try_from(blob.len().saturating_sub(8) * 8).unwrap_or(0);
        key.key_type = match key.key_type {
            KeyType::Aes { .. } => KeyType::Aes { bits },
            _ => KeyType::Secret { bits },
        };
        Ok(key)
    }

    /// Wraps a secret key under an AES key of the token (RFC 5649).
    pub(super) fn wrap_under(
        &self,
        wrapping: &KeyInfo,
        key: &KeyInfo,
    ) -> Result<Vec<u8>, HsmError> {
        let mechanism = self.key_wrap_mechanism()?;
        self.wrap_key(
            mechanism,
            self.handle_of(wrapping)?,
            key,
            clear_length(key)?,
        )
    }

    pub(super) fn no_key_wrap(&self) -> HsmError {
        HsmError::MechanismMissing {
            token: self.label().into(),
            purpose: "AES key wrapping with padding as in RFC 5649",
            mechanism: "CKM_AES_KEY_WRAP_KWP or CKM_AES_KEY_WRAP_PAD",
        }
    }
}

/// What becomes of the shared x coordinate under an ECDH suite.
pub(super) fn derivation(suite: Suite, shared_info: &[u8]) -> EcdhDerivation<'_> {
    match suite {
        Suite::EcdhP256X963Sha256 => EcdhDerivation::X963Sha256(shared_info),
        Suite::RsaOaepSha256 | Suite::RsaOaepSha1 | Suite::EcdhP256Null => EcdhDerivation::Null,
    }
}

/// Generates an AES-256 key that lives in this session only.
pub(super) fn session_aes_key<'c>(
    connection: &'c Connection,
    set: &[Flag],
) -> Result<SessionObject<'c>, HsmError> {
    let handle: KeyHandle = connection.generate_secret(
        KeyType::Aes { bits: KEK_BITS },
        SESSION_LABEL,
        &[],
        &Flags::of(KeyClass::Secret, set),
    )?;
    Ok(connection.guard(handle))
}

/// Length in bytes of what is wrapped: exact for symmetric keys; for private keys, the shortest and the longest PKCS#8 DER, with
/// or without the public key, with or without a zero tail.
fn clear_length(key: &KeyInfo) -> Result<RangeInclusive<usize>, HsmError> {
    let exact = |bits: u16| {
        let length = usize::from(bits / 8);
        length..=length
    };
    match (key.class, key.key_type) {
        (KeyClass::Secret, KeyType::Aes { bits: 0 }) => Ok(16..=32),
        (KeyClass::Secret, KeyType::Secret { bits: 0 }) => Ok(1..=MAXIMUM_SECRET),
        (KeyClass::Secret, KeyType::Aes { bits } | KeyType::Secret { bits }) => Ok(exact(bits)),
        (KeyClass::Private, KeyType::P256) => Ok(60..=160),
        (KeyClass::Private, KeyType::P384) => Ok(76..=208),
        // RFC 8410 §7: 48 bytes, or 83 and more with the public key.
        (KeyClass::Private, KeyType::Ed25519) => Ok(48..=96),
        // Modulus, private exponent and five numbers of half the length, and at most 80 bytes around them.
        (KeyClass::Private, KeyType::Rsa { bits }) => {
            let modulus = usize::from(bits / 8);
            Ok(4 * modulus..=4 * modulus + modulus / 2 + 80)
        }
        (KeyClass::Secret | KeyClass::Private | KeyClass::Public, _) => {
            Err(HsmError::WrongKeyType {
                label: key.name(),
                found: key.key_type,
                wanted: "a secret or private key of a supported type",
            })
        }
    }
}

fn check_length(
    what: &str,
    expected: RangeInclusive<usize>,
    actual: usize,
) -> Result<(), HsmError> {
    if expected.contains(&actual) {
        return Ok(());
    }
    Err(HsmError::UnexpectedLength {
        what: what.into(),
        expected: if expected.start() == expected.end() {
            expected.start().to_string()
        } else {
            format!("{} to {}", expected.start(), expected.end())
        },
        actual,
    })
}
