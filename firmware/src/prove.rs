//! Proofs: shows that a slot holds the key the HSM wrapped.
//!
//! The caller has read the key back from its slot, checked with [`Proof::permitted`] that its attributes allow this use,
//! and taken challenge and question from a signed order, so that nobody but the authority can ask.

use keyferry_protocol::attributes::KeyKind;
use keyferry_protocol::proof::{DECRYPTED, INPUT_LENGTH, Proof};
use rand_core::CryptoRng;

use crate::cipher;
use crate::keys::{self, Key, UseFailed};
use crate::mac;
use crate::unwrap;
use crate::wipe::Secret;

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
/// See [`UseFailed`].
pub fn prove<R: CryptoRng + ?Sized>(
    asked: Asked<'_>,
    key: Key<'_>,
    rng: &mut R,
    out: &mut [u8],
) -> Result<usize, UseFailed> {
    let Asked {
        proof,
        input,
        question,
    } = asked;
    let Key { kind, secret, .. } = key;
    let out = out.get_mut(..proof.length(kind)).ok_or(UseFailed::Failed)?;
    match (proof, kind) {
        (Proof::None, KeyKind::Aes(_) | KeyKind::Secret(_) | KeyKind::P256 | KeyKind::Rsa(_)) => {}
        (Proof::Cmac | Proof::CheckValue, KeyKind::Aes(bytes)) => {
            if secret.len() != bytes {
                return Err(UseFailed::Failed);
            }
            front(&mac::cmac(secret, input)?, out)?;
        }
        (Proof::HmacSha256, KeyKind::Secret(bytes)) => {
            // HMAC itself takes a key of any length.
            if secret.len() != bytes {
                return Err(UseFailed::Failed);
            }
            front(&mac::hmac_sha256(secret, input)?, out)?;
        }
        (Proof::EcdsaP256Sha256, KeyKind::P256) => {
            let secret = secret.try_into().map_err(|_| UseFailed::Failed)?;
            let signature = keys::p256::sign(secret, input, rng).map_err(|_| UseFailed::Failed)?;
            out.copy_from_slice(&signature.to_bytes());
        }
        #[cfg(feature = "rsa-keys")]
        (Proof::RsaPkcs1Sha256, KeyKind::Rsa(_)) => {
            if keys::rsa::sign_pkcs1_sha256(secret, input, rng, out)? != out.len() {
                return Err(UseFailed::Failed);
            }
        }
        (Proof::Agreement, KeyKind::P256) => {
            let mut shared = Secret::<32>::zeroed();
            unwrap::agree(secret, question, &mut shared).ok_or(UseFailed::Failed)?;
            front(&mac::cmac(shared.expose(), input)?, out)?;
        }
        (Proof::Decryption, KeyKind::Aes(_) | KeyKind::Rsa(_)) => {
            let mut opened = Secret::<DECRYPTED>::zeroed();
            let length = cipher::decrypt(&key, &[], question, rng, opened.expose_mut())?;
            if length != DECRYPTED {
                return Err(UseFailed::Failed);
            }
            front(&mac::hmac_sha256(opened.expose(), input)?, out)?;
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
        ) => return Err(UseFailed::Unsupported),
    }
    Ok(out.len())
}

/// The front of a MAC, as much as `out` takes.
fn front(mac: &[u8], out: &mut [u8]) -> Result<(), UseFailed> {
    let front = mac.get(..out.len()).ok_or(UseFailed::Failed)?;
    out.copy_from_slice(front);
    Ok(())
}
