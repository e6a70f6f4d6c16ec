//! What is around a key in its wrapping.

use aes::Aes256;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes192};
use aes_kw::{KwAes256, KwpAes256};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{Look, Shape, Start, pkcs8};
use crate::hsm::key::KeyType;
use crate::hsm::pkcs11::{Connection, Direction, SignMechanism};
use crate::hsm::trial::throwaway::ThrowAway;

/// Length in bytes of a semiblock of RFC 3394.
const SEMIBLOCK: usize = 8;

/// Shortest wrapping in bytes: one semiblock under one AES block.
const SHORTEST: usize = 16;

/// What a secret is asked to encrypt or to make a MAC of, to compare it with the opened key.
const QUESTION: [u8; 16] = *b"keyferry trial ?";

/// The value of a throw-away key.
pub(super) struct Clear(pub(super) Zeroizing<Vec<u8>>);

/// Opens a wrapping and compares what is in it with the throw-away key; nothing if it does not open or is another key.
pub(super) fn recognise(
    connection: &Connection,
    kek: &[u8; 32],
    blob: &[u8],
    key: &ThrowAway<'_>,
) -> Option<(Clear, Look)> {
    let (clear, shape) = open(kek, blob, key.key_type())?;
    let start = match key.public_key() {
        Some(public) => pkcs8::compare(&clear, public)?,
        None if same_secret(connection, key, &clear) => Start::Plain,
        None => return None,
    };
    Some((Clear(clear), Look { shape, start }))
}

/// Opens a wrapping of a key of this type, in whichever shape it is.
pub(super) fn open(
    kek: &[u8; 32],
    blob: &[u8],
    key_type: KeyType,
) -> Option<(Zeroizing<Vec<u8>>, Shape)> {
    if blob.len() < SHORTEST || !blob.len().is_multiple_of(SEMIBLOCK) {
        return None;
    }
    let mut room = Zeroizing::new(vec![0; blob.len()]);
    if let Ok(opened) = KwpAes256::new(kek.into()).unwrap_key(blob, &mut room) {
        let length = key_length(opened, key_type)?;
        let (key, tail) = opened.split_at_checked(length)?;
        let shape = match tail.len() {
            0 => Shape::Exact,
            _ if length.next_multiple_of(SEMIBLOCK) == opened.len()
                && tail.iter().all(|byte| *byte == 0) =>
            {
                Shape::ZeroTail
            }
            _ => return None,
        };
        return Some((Zeroizing::new(key.to_vec()), shape));
    }
    let opened = KwAes256::new(kek.into()).unwrap_key(blob, &mut room).ok()?;
    let padding = *opened.last()?;
    let (key, tail) = opened.split_at_checked(opened.len().checked_sub(padding.into())?)?;
    let right = (1..=SEMIBLOCK).contains(&tail.len())
        && tail.iter().all(|byte| *byte == padding)
        && key_length(key, key_type)? == key.len();
    right.then(|| (Zeroizing::new(key.to_vec()), Shape::Pkcs7))
}

/// Wraps a key in one of the shapes.
pub(super) fn close(kek: &[u8; 32], key: &[u8], shape: Shape) -> Option<Vec<u8>> {
    let mut clear = Zeroizing::new(key.to_vec());
    let mut room = vec![0; key.len() + 2 * SEMIBLOCK + SEMIBLOCK];
    let wrapped = match shape {
        Shape::Exact | Shape::ZeroTail => {
            if shape == Shape::ZeroTail {
                clear.resize(key.len().next_multiple_of(SEMIBLOCK), 0);
            }
            KwpAes256::new(kek.into()).wrap_key(&clear, &mut room)
        }
        Shape::Pkcs7 => {
            let padding = SEMIBLOCK - key.len() % SEMIBLOCK;
            clear.resize(key.len() + padding, u8::try_from(padding).ok()?);
            KwAes256::new(kek.into()).wrap_key(&clear, &mut room)
        }
    };
    wrapped.map(<[u8]>::to_vec).ok()
}

/// Length in bytes of a key of this type at the beginning of `opened`.
fn key_length(opened: &[u8], key_type: KeyType) -> Option<usize> {
    match key_type {
        KeyType::Aes { bits } | KeyType::Secret { bits } => Some(usize::from(bits / 8)),
        KeyType::Rsa { .. } | KeyType::P256 | KeyType::P384 | KeyType::Ed25519 => {
            pkcs8::length(opened)
        }
        KeyType::Other => None,
    }
}

/// Whether the token's key does the same as the opened one, as far as the token lets it do anything. What opened under an integrity
/// check and has the right length is hardly another key; this is for a token that wraps something else on purpose.
fn same_secret(connection: &Connection, key: &ThrowAway<'_>, clear: &[u8]) -> bool {
    match key.key_type() {
        KeyType::Aes { .. } => {
            let found = connection.aes_block(key.handle(), Direction::Encrypt, &QUESTION);
            found.map_or(true, |found| {
                encrypt(clear, &QUESTION).is_some_and(|expected| found == expected)
            })
        }
        KeyType::Secret { .. } => {
            let found = connection.sign(SignMechanism::HmacSha256, key.handle(), &QUESTION);
            found.map_or(true, |found| {
                hmac(clear, &QUESTION).is_some_and(|expected| found == expected)
            })
        }
        KeyType::Rsa { .. } | KeyType::P256 | KeyType::P384 | KeyType::Ed25519 | KeyType::Other => {
            false
        }
    }
}

/// One block under an AES key of any length.
pub(super) fn encrypt(key: &[u8], block: &[u8; 16]) -> Option<[u8; 16]> {
    let mut block = Array::from(*block);
    match key.len() {
        16 => Aes128::new_from_slice(key).ok()?.encrypt_block(&mut block),
        24 => Aes192::new_from_slice(key).ok()?.encrypt_block(&mut block),
        32 => Aes256::new_from_slice(key).ok()?.encrypt_block(&mut block),
        _ => return None,
    }
    Some(block.into())
}

/// HMAC-SHA-256.
pub(super) fn hmac(key: &[u8], input: &[u8]) -> Option<Vec<u8>> {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).ok()?;
    mac.update(input);
    Some(mac.finalize().into_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_told_from_the_others() {
        let kek = [0x4b; 32];
        for bits in [128, 160, 256] {
            let key: Vec<u8> = (1..=u8::try_from(bits / 8).unwrap()).collect();
            for shape in [Shape::Exact, Shape::ZeroTail, Shape::Pkcs7] {
                let blob = close(&kek, &key, shape).unwrap();
                let (opened, seen) = open(&kek, &blob, KeyType::Secret { bits }).unwrap();
                assert_eq!(*opened, key);
                // Where nothing is missing to a multiple of 8, there is no tail to see.
                let visible = shape != Shape::ZeroTail || bits == 160;
                assert_eq!(seen, if visible { shape } else { Shape::Exact });
                // Neither under another KEK, nor altered, nor as a key of another length.
                assert!(open(&[0x4c; 32], &blob, KeyType::Secret { bits }).is_none());
                let mut altered = blob.clone();
                altered[3] ^= 1;
                assert!(open(&kek, &altered, KeyType::Secret { bits }).is_none());
                let other = KeyType::Secret { bits: bits + 64 };
                assert!(open(&kek, &blob, other).is_none());
            }
        }
    }
}
