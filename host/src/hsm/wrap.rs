//! Wrapping keys for a recipient: a fresh key-encryption key (KEK) travels under the recipient's public key, the keys under
//! the KEK. For one key the two blobs together are what `CKM_RSA_AES_KEY_WRAP` gives (PKCS#11 v3.1 §6.1.23).

use std::ops::RangeInclusive;

use keyferry_protocol::identity::Fingerprint;
use keyferry_protocol::suite::{Suite, kwp_length};
use sha2::{Digest, Sha256};

use super::error::HsmError;
use super::key::{Flag, Flags, KeyClass, KeyInfo, KeyType};
use super::pkcs11::{Connection, KeyHandle, SessionObject, WrapMechanism, WrapOutcome};
use super::public_key::{PublicKey, PublicNumbers};
use super::token::Token;

/// Size of the KEK of every suite, in bits.
pub(super) const KEK_BITS: u16 = 256;

/// Room beyond a right answer, so that a wrong one is seen by its length and not as a full buffer.
const SLACK: usize = 64;

/// Longest secret key whose length the token does not tell, in bytes.
const MAXIMUM_SECRET: usize = 512;

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
    EcdhNull,
}

impl Token {
    /// Wraps keys for a recipient, all under one KEK. Each wrapping is one call to the token; nothing is left behind on it.
    ///
    /// # Errors
    /// Before the token is asked: [`HsmError::Recipient`], [`HsmError::SuiteMismatch`], [`HsmError::SuiteUnavailable`],
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
            let (kek, kek_blob) = self.make_kek(recipient, suite)?;
            let mechanism = self.key_wrap_mechanism()?;
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

    /// Whether this token wraps under the suite, found out by making a throw-away KEK for a throw-away recipient. That the
    /// token accepts the suite is not yet a proof that it does it right: the blob is not opened.
    ///
    /// # Errors
    /// [`HsmError::Token`] if the token fails for another reason than not knowing the suite.
    pub fn supports(&self, suite: Suite) -> Result<bool, HsmError> {
        self.alive(|| {
            let attempt = self
                .trial_recipient(suite)
                .and_then(|recipient| self.make_kek(&recipient, suite));
            match attempt {
                Ok(_) => Ok(true),
                Err(
                    HsmError::SuiteRefused { .. }
                    | HsmError::SuiteUnavailable { .. }
                    | HsmError::UnexpectedLength { .. },
                ) => Ok(false),
                Err(error) => Err(error),
            }
        })
    }

    /// A recipient that nobody is: a modulus whose factors nobody knows, or the generator of the curve.
    fn trial_recipient(&self, suite: Suite) -> Result<PublicKey, HsmError> {
        Ok(match suite {
            Suite::RsaOaepSha256 | Suite::RsaOaepSha1 => {
                let mut modulus = [0; 256];
                for (index, chunk) in (0u8..).zip(modulus.chunks_exact_mut(32)) {
                    let mut hash = Sha256::new();
                    hash.update(b"keyferry trial modulus");
                    hash.update([index]);
                    chunk.copy_from_slice(&hash.finalize());
                }
                modulus[0] |= 0x80;
                modulus[255] |= 0x01;
                PublicKey::from_rsa(&modulus, &[0x01, 0x00, 0x01])?
            }
            Suite::EcdhP256X963Sha256 | Suite::EcdhP256Null => {
                let (_private, public) = self.ephemeral_pair(suite)?;
                public
            }
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
            Suite::EcdhP256Null => Transport::EcdhNull,
            Suite::EcdhP256X963Sha256 => return Err(HsmError::SuiteUnavailable { suite }),
        };
        match (transport, recipient.numbers()) {
            (Transport::Oaep(mechanism), PublicNumbers::Rsa { modulus, .. }) => {
                self.make_kek_oaep(recipient, suite, mechanism, modulus.len())
            }
            (Transport::EcdhNull, PublicNumbers::P256(point)) => self.make_kek_ecdh(suite, point),
            (Transport::Oaep(_) | Transport::EcdhNull, _) => Err(HsmError::SuiteMismatch {
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
        point: &[u8; 65],
    ) -> Result<(SessionObject<'_>, Vec<u8>), HsmError> {
        let (private, public) = self.ephemeral_pair(suite)?;
        let flags = Flags::of(
            KeyClass::Secret,
            &[
                Flag::Private,
                Flag::Destroyable,
                Flag::Sensitive,
                Flag::Wrap,
            ],
        );
        let kek = self
            .connection
            .derive_ecdh_null(private.handle(), point, SESSION_LABEL, &flags)
            .map_err(|error| self.refusal(suite, error))?;
        match public.numbers() {
            PublicNumbers::P256(point) => Ok((kek, point.to_vec())),
            PublicNumbers::Rsa { .. } | PublicNumbers::P384(_) | PublicNumbers::Ed25519(_) => {
                Err(HsmError::UnexpectedLength {
                    what: "an ephemeral P-256 key".into(),
                    expected: "65".into(),
                    actual: public.spki_der().len(),
                })
            }
        }
    }

    /// An ephemeral P-256 key that may only derive, and its public key. The public object is destroyed at once.
    fn ephemeral_pair(&self, suite: Suite) -> Result<(SessionObject<'_>, PublicKey), HsmError> {
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
        let object = self.connection.read(public.handle(), KeyClass::Public)?;
        let public = object.public_key.ok_or_else(|| HsmError::NoPublicKey {
            label: SESSION_LABEL.into(),
        })?;
        Ok((private, public))
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

    /// How this token wraps with AES as RFC 5649 has it, tried out once: `CKM_AES_KEY_WRAP_PAD` is RFC 5649 on some tokens and
    /// PKCS#7 padding on others, which shows in the length of a wrapped AES-256 key (40 or 48 bytes).
    pub(super) fn key_wrap_mechanism(&self) -> Result<WrapMechanism, HsmError> {
        if let Some(mechanism) = self.key_wrap.get() {
            return Ok(*mechanism);
        }
        let flags = [
            Flag::Private,
            Flag::Destroyable,
            Flag::Sensitive,
            Flag::Extractable,
        ];
        let key = session_aes_key(&self.connection, &flags)?;
        let kek = session_aes_key(&self.connection, &[&flags[..], &[Flag::Wrap]].concat())?;
        let right = kwp_length(usize::from(KEK_BITS / 8));
        for mechanism in [WrapMechanism::Kwp, WrapMechanism::Pad] {
            if !self.connection.offers_wrapping(mechanism) {
                continue;
            }
            let outcome =
                self.connection
                    .wrap(mechanism, kek.handle(), key.handle(), right + SLACK)?;
            if matches!(outcome, WrapOutcome::Wrapped(blob) if blob.len() == right) {
                return Ok(*self.key_wrap.get_or_init(|| mechanism));
            }
        }
        Err(self.no_key_wrap())
    }

    pub(super) fn no_key_wrap(&self) -> HsmError {
        HsmError::MechanismMissing {
            token: self.label().into(),
            purpose: "AES key wrapping with padding as in RFC 5649",
            mechanism: "CKM_AES_KEY_WRAP_KWP or CKM_AES_KEY_WRAP_PAD",
        }
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
