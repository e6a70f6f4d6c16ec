//! Decryption for a proof: what the question of a `decryption` holds, opened with the key and the algorithm that its attributes
//! permit. Gives the 32 bytes and nothing about why there are none.

use aes::{Aes128, Aes192, Aes256};
use aes_gcm::AesGcm;
use aes_gcm::aead::AeadInOut;
use aes_gcm::aead::consts::U12;
use cbc::cipher::block_padding::NoPadding;
use cbc::cipher::{
    BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, KeyIvInit, StreamCipher,
};
use cbc::cipher::{BlockSizeUser, KeyInit, consts::U16};
use keyferry_protocol::attributes::{KeyKind, algorithm};
use keyferry_protocol::proof::DECRYPTED;
use rand_core::CryptoRng;

use super::{Key, ProveFailed};
use crate::wipe::Secret;

/// A block cipher with everything that its modes ask of it.
trait Aes: KeyInit + BlockCipherEncrypt + BlockCipherDecrypt + BlockSizeUser<BlockSize = U16> {}

impl Aes for Aes128 {}
impl Aes for Aes192 {}
impl Aes for Aes256 {}

/// Decrypts `question` with `key` into `out`. `rng` blinds the RSA operation.
pub(super) fn decrypt<R: CryptoRng + ?Sized>(
    key: &Key<'_>,
    question: &[u8],
    rng: &mut R,
    out: &mut Secret<DECRYPTED>,
) -> Result<(), ProveFailed> {
    match key.kind {
        KeyKind::Aes(16) => aes::<Aes128>(key, question, out),
        KeyKind::Aes(24) => aes::<Aes192>(key, question, out),
        KeyKind::Aes(32) => aes::<Aes256>(key, question, out),
        KeyKind::Rsa(_) if key.algorithm == algorithm::RSA_OAEP_SHA256 => {
            rsa_oaep_sha256(key.secret, question, rng, out)
        }
        KeyKind::Aes(_) | KeyKind::Rsa(_) | KeyKind::Secret(_) | KeyKind::P256 => {
            Err(ProveFailed::Unsupported)
        }
    }
}

fn aes<C: Aes>(
    key: &Key<'_>,
    question: &[u8],
    out: &mut Secret<DECRYPTED>,
) -> Result<(), ProveFailed> {
    match key.algorithm {
        algorithm::CTR => {
            let (counter, ciphertext) = split::<16>(question)?;
            let mut mode = ctr::Ctr128BE::<C>::new_from_slices(key.secret, counter)
                .map_err(|_| ProveFailed::Failed)?;
            out.expose_mut().copy_from_slice(ciphertext);
            mode.apply_keystream(out.expose_mut());
            Ok(())
        }
        algorithm::CBC_NO_PADDING => {
            let (iv, ciphertext) = split::<16>(question)?;
            let mode = cbc::Decryptor::<C>::new_from_slices(key.secret, iv)
                .map_err(|_| ProveFailed::Failed)?;
            mode.decrypt_padded_b2b::<NoPadding>(ciphertext, out.expose_mut())
                .map_err(|_| ProveFailed::Failed)?;
            Ok(())
        }
        // NIST SP 800-38D with a nonce of 96 bits, a tag of 128 and nothing besides.
        algorithm::GCM => {
            let (sealed, tag) = question
                .split_last_chunk::<16>()
                .ok_or(ProveFailed::Failed)?;
            let (nonce, ciphertext) = split::<12>(sealed)?;
            let mode = <AesGcm<C, U12> as KeyInit>::new_from_slice(key.secret)
                .map_err(|_| ProveFailed::Failed)?;
            out.expose_mut().copy_from_slice(ciphertext);
            mode.decrypt_inout_detached(
                nonce.into(),
                &[],
                out.expose_mut().as_mut_slice().into(),
                tag.into(),
            )
            .map_err(|_| ProveFailed::Failed)
        }
        _ => Err(ProveFailed::Unsupported),
    }
}

/// The `N` bytes in front, and the 32 bytes of ciphertext behind.
fn split<const N: usize>(question: &[u8]) -> Result<(&[u8; N], &[u8; DECRYPTED]), ProveFailed> {
    let (front, ciphertext) = question.split_first_chunk().ok_or(ProveFailed::Failed)?;
    let ciphertext = ciphertext.try_into().map_err(|_| ProveFailed::Failed)?;
    Ok((front, ciphertext))
}

/// RSAES-OAEP (RFC 8017 §7.1) with SHA-256 and an empty label, blinded and checked against faults. That a question does not
/// open is told: only the authority can ask, and the key is its own.
#[cfg(feature = "rsa")]
fn rsa_oaep_sha256<R: CryptoRng + ?Sized>(
    secret: &[u8],
    question: &[u8],
    rng: &mut R,
    out: &mut Secret<DECRYPTED>,
) -> Result<(), ProveFailed> {
    let key = crate::keys::rsa::private_key(secret).map_err(|_| ProveFailed::Failed)?;
    let mut message = key
        .decrypt_blinded(rng, rsa::Oaep::<sha2::Sha256>::new(), question)
        .map_err(|_| ProveFailed::Failed)?;
    let fits = message.len() == DECRYPTED;
    if fits {
        out.expose_mut().copy_from_slice(&message);
    }
    crate::wipe::wipe(&mut message);
    fits.then_some(()).ok_or(ProveFailed::Failed)
}

#[cfg(not(feature = "rsa"))]
fn rsa_oaep_sha256<R: CryptoRng + ?Sized>(
    _: &[u8],
    _: &[u8],
    _: &mut R,
    _: &mut Secret<DECRYPTED>,
) -> Result<(), ProveFailed> {
    Err(ProveFailed::Unsupported)
}
