//! Trials of what a token does with keys that stay: signatures, MACs, check values, derivation, and whether they do stay.

use p256::ecdsa::signature::hazmat::PrehashVerifier;
use rsa::signature::Verifier;
use rsa::{BoxedUint, RsaPublicKey, pkcs1v15, pss};
use sha2::{Digest, Sha256, Sha384};

use super::open::results::{MacAlgorithm, Way};
use super::open::{self};
use super::throwaway::ThrowAway;
use super::wrapping::whole;
use super::{Answer, Difference, Fact, Finding, answer};
use crate::hsm::derive::{BLOCK, Diversification};
use crate::hsm::error::HsmError;
use crate::hsm::key::{Flag, KeyType};
use crate::hsm::pkcs11::SignMechanism;
use crate::hsm::public_key::{PublicKey, PublicNumbers};
use crate::hsm::token::Token;

/// What is signed.
const MESSAGE: &[u8] = b"keyferry trial message";

/// What a key is derived with.
const INPUT: &[u8; 32] = b"keyferry trial of a derivation!!";

/// An ECDSA trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ecdsa {
    P256Digest,
    P256Message,
}

/// A MAC trial.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mac {
    key_type: KeyType,
    mechanism: SignMechanism,
    algorithm: MacAlgorithm,
}

/// AES-CMAC.
pub(super) const CMAC: Mac = Mac {
    key_type: KeyType::Aes { bits: 256 },
    mechanism: SignMechanism::Cmac,
    algorithm: MacAlgorithm::Cmac,
};

/// HMAC with a generic secret.
pub(super) const HMAC: Mac = Mac {
    key_type: KeyType::Secret { bits: 256 },
    mechanism: SignMechanism::HmacSha256,
    algorithm: MacAlgorithm::HmacSha256,
};

/// HMAC with an AES key.
pub(super) const HMAC_AES: Mac = Mac {
    key_type: KeyType::Aes { bits: 256 },
    mechanism: SignMechanism::HmacSha256,
    algorithm: MacAlgorithm::HmacSha256,
};

impl Token {
    /// Whether an ECDSA signature on P-256 is right.
    pub(super) fn try_ecdsa(&self, way: Ecdsa) -> Result<Finding, HsmError> {
        let key = ThrowAway::generate(&self.connection, KeyType::P256, &[Flag::Sign])?;
        let digest = Sha256::digest(MESSAGE);
        let (mechanism, input) = match way {
            Ecdsa::P256Digest => (SignMechanism::Ecdsa, digest.as_slice()),
            Ecdsa::P256Message => (SignMechanism::EcdsaSha256, MESSAGE),
        };
        let value = self.connection.sign(mechanism, key.handle(), input)?;
        let Some(PublicNumbers::P256(point)) = key.public_key().map(PublicKey::numbers) else {
            return Ok(Finding::Differs(Difference::WrongResult));
        };
        let right = p256::ecdsa::VerifyingKey::from_sec1_bytes(point)
            .ok()
            .zip(p256::ecdsa::Signature::from_slice(&value).ok())
            .is_some_and(|(key, signature)| key.verify_prehash(&digest, &signature).is_ok());
        Ok(right_or_wrong(right))
    }

    /// Whether a signature is right by the token's own verdict, and one over something else is wrong: there is no arithmetic
    /// for these curves here.
    pub(super) fn try_own_signature(&self, key_type: KeyType) -> Result<Finding, HsmError> {
        let key = ThrowAway::generate(&self.connection, key_type, &[Flag::Sign])?;
        let (mechanism, mut input) = if key_type == KeyType::Ed25519 {
            (SignMechanism::Ed25519, MESSAGE.to_vec())
        } else {
            (SignMechanism::Ecdsa, Sha384::digest(MESSAGE).to_vec())
        };
        let connection = &self.connection;
        let value = connection.sign(mechanism, key.handle(), &input)?;
        let right = connection.verify(mechanism, key.verifier(), &input, &value)?;
        input[0] ^= 1;
        let wrong = connection.verify(mechanism, key.verifier(), &input, &value)?;
        Ok(right_or_wrong(right && !wrong))
    }

    /// RSA-2048: whether the key comes out whole, and its signatures are right. One key for all, for it takes long to make.
    pub(super) fn try_rsa(&self) -> Result<Vec<(Fact, Finding)>, HsmError> {
        let rsa = KeyType::Rsa { bits: 2048 };
        let facts = [Fact::Key(rsa), Fact::RsaPkcs1, Fact::RsaPss];
        let key = match self.throw_away(rsa) {
            Ok(key) => key,
            Err(error) => {
                let finding = self.settle(Err(error))?;
                return Ok(facts.map(|fact| (fact, finding.clone())).to_vec());
            }
        };
        let comes_out = match self.looking_glass(&[])? {
            Ok((kek, mechanism)) => open::look(&self.connection, &kek, mechanism, &key).map(whole),
            Err(finding) => Ok(finding),
        };
        let [whole, pkcs1, pss] = facts;
        Ok(vec![
            (whole, self.settle(comes_out)?),
            (
                pkcs1,
                self.settle(self.try_rsa_signature(&key, SignMechanism::RsaPkcs1Sha256))?,
            ),
            (
                pss,
                self.settle(self.try_rsa_signature(&key, SignMechanism::RsaPssSha256))?,
            ),
        ])
    }

    fn try_rsa_signature(
        &self,
        key: &ThrowAway<'_>,
        mechanism: SignMechanism,
    ) -> Result<Finding, HsmError> {
        let value = self.connection.sign(mechanism, key.handle(), MESSAGE)?;
        let public = match key.public_key().map(PublicKey::numbers) {
            Some(PublicNumbers::Rsa { modulus, exponent }) => {
                let number = |bytes: &[u8]| BoxedUint::from_be_slice_vartime(bytes);
                RsaPublicKey::new(number(modulus), number(exponent)).ok()
            }
            _ => None,
        };
        let Some(public) = public else {
            return Ok(Finding::Differs(Difference::WrongResult));
        };
        let right = if mechanism == SignMechanism::RsaPssSha256 {
            pss::Signature::try_from(value.as_slice()).is_ok_and(|signature| {
                pss::VerifyingKey::<Sha256>::new(public)
                    .verify(MESSAGE, &signature)
                    .is_ok()
            })
        } else {
            pkcs1v15::Signature::try_from(value.as_slice()).is_ok_and(|signature| {
                pkcs1v15::VerifyingKey::<Sha256>::new(public)
                    .verify(MESSAGE, &signature)
                    .is_ok()
            })
        };
        Ok(right_or_wrong(right))
    }

    /// Whether a MAC is right.
    pub(super) fn try_mac(&self, mac: Mac) -> Result<Finding, HsmError> {
        let set = [Flag::Extractable, Flag::Sign];
        let key = ThrowAway::generate(&self.connection, mac.key_type, &set)?;
        let value = self.connection.sign(mac.mechanism, key.handle(), MESSAGE)?;
        self.judge_with(|way| way.is_mac(&key, mac.algorithm, MESSAGE, &value))
    }

    /// Whether the token tells a right MAC from a wrong one.
    pub(super) fn try_mac_check(&self, mac: Mac) -> Result<Finding, HsmError> {
        let set = [Flag::Sign, Flag::Verify];
        let key = ThrowAway::generate(&self.connection, mac.key_type, &set)?;
        let connection = &self.connection;
        let mut value = connection.sign(mac.mechanism, key.handle(), MESSAGE)?;
        let right = connection.verify(mac.mechanism, key.verifier(), MESSAGE, &value)?;
        if let Some(byte) = value.first_mut() {
            *byte ^= 1;
        }
        match connection.verify(mac.mechanism, key.verifier(), MESSAGE, &value) {
            Ok(wrong) => Ok(right_or_wrong(right && !wrong)),
            Err(HsmError::Token { code, .. })
                if right && !matches!(answer(&code), Answer::Gone) =>
            {
                Ok(Finding::Differs(Difference::OddRefusal))
            }
            Err(error) => Err(error),
        }
    }

    /// Whether an AES key has the right check value.
    pub(super) fn try_check_value(&self) -> Result<Finding, HsmError> {
        let key = self.throw_away(KeyType::Aes { bits: 256 })?;
        let Some(value) = key.check_value(&self.connection)? else {
            return Ok(Finding::Refused {
                function: "C_GetAttributeValue".into(),
                code: "there is none".into(),
            });
        };
        self.judge_with(|way| way.is_check_value(&key, &value))
    }

    /// Whether a derived key is right, and may leave although its master may not. NSS softokn 3.87 refuses that in counter mode.
    pub(super) fn try_derivation(
        &self,
        way: Diversification,
        key_type: KeyType,
    ) -> Result<Finding, HsmError> {
        let length = match key_type {
            KeyType::Aes { bits } | KeyType::Secret { bits } => usize::from(bits / 8),
            KeyType::Rsa { .. }
            | KeyType::P256
            | KeyType::P384
            | KeyType::Ed25519
            | KeyType::Other => 0,
        };
        let Some(input) = INPUT.get(..length.next_multiple_of(BLOCK)) else {
            return Ok(Finding::NotTried {
                needs: "a shorter key",
            });
        };
        let aes = KeyType::Aes { bits: 256 };
        let kept = ThrowAway::generate(&self.connection, aes, &[Flag::Derive])?;
        drop(ThrowAway::derive(
            &self.connection,
            way,
            &kept,
            input,
            key_type,
        )?);
        // The same arithmetic once more, with a master that can be looked at.
        let set = [Flag::Extractable, Flag::Derive];
        let master = ThrowAway::generate(&self.connection, aes, &set)?;
        let derived = ThrowAway::derive(&self.connection, way, &master, input, key_type)?;
        self.judge_with(|glass| glass.is_derived(&master, &derived, way, input, length))
    }

    /// Whether a key stays that is not extractable, or may only leave under a trusted key.
    pub(super) fn try_keeping(
        &self,
        key_type: KeyType,
        bound: Option<Flag>,
    ) -> Result<Finding, HsmError> {
        let set = match bound {
            Some(flag) => vec![Flag::Extractable, flag],
            None => Vec::new(),
        };
        let key = ThrowAway::generate(&self.connection, key_type, &set)?;
        let (kek, mechanism) = match self.looking_glass(&[])? {
            Ok(both) => both,
            Err(finding) => return Ok(finding),
        };
        match open::look(&self.connection, &kek, mechanism, &key) {
            Ok(Some(_)) => Ok(Finding::Differs(Difference::GaveItAway)),
            Ok(None) => Ok(Finding::Differs(Difference::DoesNotOpen)),
            Err(error) => Ok(match self.settle(Err(error))? {
                Finding::Refused { .. } => Finding::Works,
                other => other,
            }),
        }
    }

    /// Has a result compared with the opened key.
    fn judge_with(
        &self,
        question: impl FnOnce(Way<'_, '_>) -> Result<Option<bool>, HsmError>,
    ) -> Result<Finding, HsmError> {
        let (kek, mechanism) = match self.looking_glass(&[])? {
            Ok(both) => both,
            Err(finding) => return Ok(finding),
        };
        let way = Way {
            connection: &self.connection,
            kek: &kek,
            mechanism,
        };
        Ok(match question(way)? {
            Some(right) => right_or_wrong(right),
            None => Finding::NotTried {
                needs: "a wrapped key that opens",
            },
        })
    }
}

const fn right_or_wrong(right: bool) -> Finding {
    if right {
        Finding::Works
    } else {
        Finding::Differs(Difference::WrongResult)
    }
}
