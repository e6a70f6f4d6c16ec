//! Encryption and decryption under a stored key, by the one algorithm that its attributes permit: for the question of a proof by
//! decryption, and for the application. Says nothing about why something did not open.
//!
//! What is sealed has a form of its own for each algorithm: CTR and CBC, 16 bytes of initial counter or initialisation vector, then
//! the ciphertext (NIST SP 800-38A); GCM, a nonce of 12 bytes, the ciphertext, a tag of 16 bytes (SP 800-38D); RSAES-OAEP with SHA-256 and
//! an empty label, the ciphertext alone (RFC 8017 §7.1).

use aes::{Aes128, Aes192, Aes256};
use aes_gcm::AesGcm;
use aes_gcm::aead::AeadInOut;
use aes_gcm::aead::consts::U12;
use cbc::cipher::block_padding::NoPadding;
use cbc::cipher::{
    BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, BlockSizeUser,
    KeyInit, KeyIvInit, StreamCipher, consts::U16,
};
use keyferry_protocol::attributes::{KeyKind, algorithm};
use rand_core::CryptoRng;

use crate::keys::{Key, UseFailed};
use crate::wipe::wipe;

/// Bytes of a counter or an initialisation vector.
const VECTOR: usize = 16;
/// Bytes of a GCM nonce.
const NONCE: usize = 12;
/// Bytes of a GCM tag.
const TAG: usize = 16;

/// A block cipher with everything that its modes ask of it.
trait Aes: KeyInit + BlockCipherEncrypt + BlockCipherDecrypt + BlockSizeUser<BlockSize = U16> {}

impl Aes for Aes128 {}
impl Aes for Aes192 {}
impl Aes for Aes256 {}

/// Opens `sealed`, authenticated together with `additional` where the algorithm is one that authenticates (it must be empty otherwise),
/// into the front of `out`, which is wiped on failure. Gives the length in bytes. `rng` blinds an RSA operation.
pub(crate) fn decrypt<R: CryptoRng + ?Sized>(
    key: &Key<'_>,
    additional: &[u8],
    sealed: &[u8],
    rng: &mut R,
    out: &mut [u8],
) -> Result<usize, UseFailed> {
    let opened = match key.kind {
        KeyKind::Aes(16) => open::<Aes128>(key, additional, sealed, out),
        KeyKind::Aes(24) => open::<Aes192>(key, additional, sealed, out),
        KeyKind::Aes(32) => open::<Aes256>(key, additional, sealed, out),
        #[cfg(feature = "rsa-keys")]
        KeyKind::Rsa(_) if key.algorithm == algorithm::RSA_OAEP_SHA256 && additional.is_empty() => {
            crate::keys::rsa::decrypt_oaep_sha256(key.secret, sealed, rng, out)
        }
        KeyKind::Aes(_) | KeyKind::Rsa(_) | KeyKind::Secret(_) | KeyKind::P256 => {
            let _ = rng;
            Err(UseFailed::Unsupported)
        }
    };
    opened.inspect_err(|_| wipe(out))
}

/// Seals `clear` into the front of `out` with a random vector or nonce, and gives the length in bytes: the clear text's and 16, or for GCM
/// 28. `additional` as in [`decrypt`].
pub(crate) fn encrypt<R: CryptoRng + ?Sized>(
    key: &Key<'_>,
    additional: &[u8],
    clear: &[u8],
    rng: &mut R,
    out: &mut [u8],
) -> Result<usize, UseFailed> {
    match key.kind {
        KeyKind::Aes(16) => seal::<Aes128, R>(key, additional, clear, rng, out),
        KeyKind::Aes(24) => seal::<Aes192, R>(key, additional, clear, rng, out),
        KeyKind::Aes(32) => seal::<Aes256, R>(key, additional, clear, rng, out),
        KeyKind::Aes(_) | KeyKind::Rsa(_) | KeyKind::Secret(_) | KeyKind::P256 => {
            Err(UseFailed::Unsupported)
        }
    }
}

fn open<C: Aes>(
    key: &Key<'_>,
    additional: &[u8],
    sealed: &[u8],
    out: &mut [u8],
) -> Result<usize, UseFailed> {
    match key.algorithm {
        algorithm::CTR if additional.is_empty() => {
            let (counter, ciphertext) = vector(sealed)?;
            let out = front(out, ciphertext.len())?;
            out.copy_from_slice(ciphertext);
            counter_mode::<C>(key, counter, out)
        }
        algorithm::CBC_NO_PADDING if additional.is_empty() => {
            let (vector, ciphertext) = vector(sealed)?;
            let out = front(out, ciphertext.len())?;
            let mode = cbc::Decryptor::<C>::new_from_slices(key.secret, vector)
                .map_err(|_| UseFailed::Failed)?;
            mode.decrypt_padded_b2b::<NoPadding>(ciphertext, out)
                .map(<[u8]>::len)
                .map_err(|_| UseFailed::Failed)
        }
        algorithm::GCM => {
            let (sealed, tag) = sealed.split_last_chunk::<TAG>().ok_or(UseFailed::Failed)?;
            let (nonce, ciphertext) = sealed
                .split_first_chunk::<NONCE>()
                .ok_or(UseFailed::Failed)?;
            let out = front(out, ciphertext.len())?;
            let mode = <AesGcm<C, U12> as KeyInit>::new_from_slice(key.secret)
                .map_err(|_| UseFailed::Failed)?;
            out.copy_from_slice(ciphertext);
            let length = out.len();
            mode.decrypt_inout_detached(nonce.into(), additional, out.into(), tag.into())
                .map(|()| length)
                .map_err(|_| UseFailed::Failed)
        }
        _ => Err(UseFailed::Unsupported),
    }
}

fn seal<C: Aes, R: CryptoRng + ?Sized>(
    key: &Key<'_>,
    additional: &[u8],
    clear: &[u8],
    rng: &mut R,
    out: &mut [u8],
) -> Result<usize, UseFailed> {
    match key.algorithm {
        algorithm::CTR if additional.is_empty() => {
            let (counter, text) = fresh::<VECTOR, R>(rng, out)?;
            let text = front(text, clear.len())?;
            text.copy_from_slice(clear);
            Ok(VECTOR + counter_mode::<C>(key, counter, text)?)
        }
        algorithm::CBC_NO_PADDING if additional.is_empty() => {
            let (vector, text) = fresh::<VECTOR, R>(rng, out)?;
            let text = front(text, clear.len())?;
            let mode = cbc::Encryptor::<C>::new_from_slices(key.secret, vector)
                .map_err(|_| UseFailed::Failed)?;
            let sealed = mode
                .encrypt_padded_b2b::<NoPadding>(clear, text)
                .map_err(|_| UseFailed::Failed)?;
            Ok(VECTOR + sealed.len())
        }
        algorithm::GCM => {
            let (nonce, rest) = fresh::<NONCE, R>(rng, out)?;
            let (text, tag) = front(rest, clear.len() + TAG)?.split_at_mut(clear.len());
            let mode = <AesGcm<C, U12> as KeyInit>::new_from_slice(key.secret)
                .map_err(|_| UseFailed::Failed)?;
            text.copy_from_slice(clear);
            let made = mode
                .encrypt_inout_detached((&*nonce).into(), additional, text.into())
                .map_err(|_| UseFailed::Failed)?;
            tag.copy_from_slice(&made);
            Ok(NONCE + clear.len() + TAG)
        }
        _ => Err(UseFailed::Unsupported),
    }
}

fn counter_mode<C: Aes>(
    key: &Key<'_>,
    counter: &[u8; VECTOR],
    text: &mut [u8],
) -> Result<usize, UseFailed> {
    let mut mode =
        ctr::Ctr128BE::<C>::new_from_slices(key.secret, counter).map_err(|_| UseFailed::Failed)?;
    mode.apply_keystream(text);
    Ok(text.len())
}

fn vector(sealed: &[u8]) -> Result<(&[u8; VECTOR], &[u8]), UseFailed> {
    sealed.split_first_chunk().ok_or(UseFailed::Failed)
}

fn front(out: &mut [u8], length: usize) -> Result<&mut [u8], UseFailed> {
    out.get_mut(..length).ok_or(UseFailed::Failed)
}

/// Random bytes at the front of `out`, and what is behind them.
fn fresh<'o, const N: usize, R: CryptoRng + ?Sized>(
    rng: &mut R,
    out: &'o mut [u8],
) -> Result<(&'o mut [u8; N], &'o mut [u8]), UseFailed> {
    let (random, rest) = out.split_first_chunk_mut().ok_or(UseFailed::Failed)?;
    rng.fill_bytes(random);
    Ok((random, rest))
}
