//! Proofs: shows that a slot holds the key the HSM wrapped.
//!
//! The caller has read the key back from its slot, checked with [`Proof::permitted`] that its attributes allow this use,
//! and taken challenge and question from a signed order, so that nobody but the authority can ask.

mod decryption;

use aes::{Aes128, Aes192, Aes256};
use cmac::Cmac;
use hmac::{Hmac, KeyInit, Mac};
use keyferry_protocol::attributes::KeyKind;
use keyferry_protocol::proof::{DECRYPTED, INPUT_LENGTH, Proof};
use rand_core::CryptoRng;
use sha2::Sha256;

use crate::keys;
use crate::unwrap;
use crate::wipe::Secret;

/// Why there is no proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProveFailed {
    /// This build cannot make this proof, or not with this kind of key.
    Unsupported,
    /// The secret is not a key of this kind, the question is none for it, or `out` is too short.
    Failed,
}

impl core::fmt::Display for ProveFailed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Unsupported => "this proof is not supported for this key",
            Self::Failed => "the key could not be proved",
        })
    }
}

impl core::error::Error for ProveFailed {}

/// The key that is asked, as its slot has it.
#[derive(Clone, Copy)]
pub struct Key<'a> {
    /// What it is.
    pub kind: KeyKind,
    /// `psa_algorithm_t`: the one algorithm that its attributes permit.
    pub algorithm: u32,
    /// Its secret bytes, see [`crate::keys`].
    pub secret: &'a [u8],
}

/// What a key is asked.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The kind of proof.
    pub proof: Proof,
    /// What the proof is made over, see [`keyferry_protocol::proof::proof_input`].
    pub input: &'a [u8; INPUT_LENGTH],
    /// The question, as long as [`Proof::question_length`] says.
    pub question: &'a [u8],
}

/// Makes a proof, writes it to the front of `out`, and gives its length, which is [`Proof::length`]. `rng` hedges signatures and
/// blinds RSA operations.
///
/// # Errors
/// See [`ProveFailed`].
pub fn prove<R: CryptoRng + ?Sized>(
    asked: Asked<'_>,
    key: Key<'_>,
    rng: &mut R,
    out: &mut [u8],
) -> Result<usize, ProveFailed> {
    let Asked {
        proof,
        input,
        question,
    } = asked;
    let Key { kind, secret, .. } = key;
    let out = out
        .get_mut(..proof.length(kind))
        .ok_or(ProveFailed::Failed)?;
    match (proof, kind) {
        (Proof::None, KeyKind::Aes(_) | KeyKind::Secret(_) | KeyKind::P256 | KeyKind::Rsa(_)) => {}
        (Proof::Cmac | Proof::CheckValue, KeyKind::Aes(16)) => {
            mac::<Cmac<Aes128>>(secret, input, out)?;
        }
        (Proof::Cmac | Proof::CheckValue, KeyKind::Aes(24)) => {
            mac::<Cmac<Aes192>>(secret, input, out)?;
        }
        (Proof::Cmac | Proof::CheckValue, KeyKind::Aes(32)) => {
            mac::<Cmac<Aes256>>(secret, input, out)?;
        }
        (Proof::HmacSha256, KeyKind::Secret(bytes)) => {
            // HMAC itself takes a key of any length.
            if secret.len() != bytes {
                return Err(ProveFailed::Failed);
            }
            mac::<Hmac<Sha256>>(secret, input, out)?;
        }
        (Proof::EcdsaP256Sha256, KeyKind::P256) => {
            let secret = secret.try_into().map_err(|_| ProveFailed::Failed)?;
            let signature =
                keys::p256::sign(secret, input, rng).map_err(|_| ProveFailed::Failed)?;
            out.copy_from_slice(&signature.to_bytes());
        }
        #[cfg(feature = "rsa")]
        (Proof::RsaPkcs1Sha256, KeyKind::Rsa(_)) => rsa_pkcs1_sha256(secret, input, rng, out)?,
        (Proof::Agreement, KeyKind::P256) => {
            let mut shared = Secret::<32>::zeroed();
            unwrap::agree(secret, question, &mut shared).ok_or(ProveFailed::Failed)?;
            mac::<Cmac<Aes256>>(shared.expose(), input, out)?;
        }
        (Proof::Decryption, KeyKind::Aes(_) | KeyKind::Rsa(_)) => {
            let mut opened = Secret::<DECRYPTED>::zeroed();
            decryption::decrypt(&key, question, rng, &mut opened)?;
            mac::<Hmac<Sha256>>(opened.expose(), input, out)?;
        }
        (
            Proof::Cmac
            | Proof::HmacSha256
            | Proof::EcdsaP256Sha256
            | Proof::RsaPkcs1Sha256
            | Proof::Agreement
            | Proof::Decryption
            | Proof::CheckValue,
            KeyKind::Aes(_) | KeyKind::Secret(_) | KeyKind::P256 | KeyKind::Rsa(_),
        ) => return Err(ProveFailed::Unsupported),
    }
    Ok(out.len())
}

/// A MAC over `input`, or as much of its front as `out` takes. For CMAC the type fixes the key's length.
fn mac<M: KeyInit + Mac>(secret: &[u8], input: &[u8], out: &mut [u8]) -> Result<(), ProveFailed> {
    let mut mac = <M as KeyInit>::new_from_slice(secret).map_err(|_| ProveFailed::Failed)?;
    mac.update(input);
    let bytes = mac.finalize().into_bytes();
    let front = bytes.get(..out.len()).ok_or(ProveFailed::Failed)?;
    out.copy_from_slice(front);
    Ok(())
}

/// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017 §8.2), blinded and checked against faults.
#[cfg(feature = "rsa")]
fn rsa_pkcs1_sha256<R: CryptoRng + ?Sized>(
    secret: &[u8],
    input: &[u8],
    rng: &mut R,
    out: &mut [u8],
) -> Result<(), ProveFailed> {
    use rsa::Pkcs1v15Sign;
    use sha2::Digest as _;

    let key = keys::rsa::private_key(secret).map_err(|_| ProveFailed::Failed)?;
    let signature = key
        .sign_with_rng(rng, Pkcs1v15Sign::new::<Sha256>(), &Sha256::digest(input))
        .map_err(|_| ProveFailed::Failed)?;
    if signature.len() != out.len() {
        return Err(ProveFailed::Failed);
    }
    out.copy_from_slice(&signature);
    Ok(())
}
