//! The modes of AES.

use aes::{Aes128, Aes256};
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

/// Bytes of a counter or an initialisation vector.
const VECTOR: usize = 16;
/// Bytes of a GCM nonce.
const NONCE: usize = 12;
/// Bytes of a GCM tag.
const TAG: usize = 16;

/// A block cipher with everything that its modes ask of it.
trait Aes: KeyInit + BlockCipherEncrypt + BlockCipherDecrypt + BlockSizeUser<BlockSize = U16> {}

impl Aes for Aes128 {}
#[cfg(feature = "aes-192")]
impl Aes for aes::Aes192 {}
impl Aes for Aes256 {}

/// See [`super::decrypt`].
pub(super) fn open(
    key: &Key<'_>,
    additional: &[u8],
    sealed: &[u8],
    out: &mut [u8],
) -> Result<usize, UseFailed> {
    match key.kind {
        KeyKind::Aes(16) => open_with::<Aes128>(key, additional, sealed, out),
        #[cfg(feature = "aes-192")]
        KeyKind::Aes(24) => open_with::<aes::Aes192>(key, additional, sealed, out),
        KeyKind::Aes(32) => open_with::<Aes256>(key, additional, sealed, out),
        KeyKind::Aes(_) | KeyKind::Rsa(_) | KeyKind::Secret(_) | KeyKind::P256 => {
            Err(UseFailed::Unsupported)
        }
    }
}

/// See [`super::encrypt`].
pub(super) fn seal<R: CryptoRng + ?Sized>(
    key: &Key<'_>,
    additional: &[u8],
    clear: &[u8],
    rng: &mut R,
    out: &mut [u8],
) -> Result<usize, UseFailed> {
    match key.kind {
        KeyKind::Aes(16) => seal_with::<Aes128, R>(key, additional, clear, rng, out),
        #[cfg(feature = "aes-192")]
        KeyKind::Aes(24) => seal_with::<aes::Aes192, R>(key, additional, clear, rng, out),
        KeyKind::Aes(32) => seal_with::<Aes256, R>(key, additional, clear, rng, out),
        KeyKind::Aes(_) | KeyKind::Rsa(_) | KeyKind::Secret(_) | KeyKind::P256 => {
            Err(UseFailed::Unsupported)
        }
    }
}

fn open_with<C: Aes>(
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

fn seal_with<C: Aes, R: CryptoRng + ?Sized>(
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
