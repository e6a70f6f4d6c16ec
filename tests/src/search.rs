//! A search for secrets everywhere they must not be: memory, files, lines.
//!
//! Every eight bytes in a row of every secret are searched, as they are, reversed, and with the bytes of each word and the words of
//! the whole turned around, for words of 4 and of 8 bytes: the forms that big integers, hardware and cipher code give a key. If
//! asked for, also as text: hexadecimal in small and capital letters, Base64 in both alphabets and at every alignment.

use std::collections::HashMap;

use base64ct::{Base64Unpadded, Base64UrlUnpadded, Encoding as _};
use p256::pkcs8::DecodePrivateKey;
use rsa::traits::{PrivateKeyParts as _, PublicKeyParts as _};

use crate::software::SoftKey;

/// Bytes in a window. Eight random ones do not come about by chance in any amount of memory searched here.
pub const WINDOW: usize = 8;
/// Bytes in a word of a device, and of a station.
const WORDS: [usize; 2] = [4, 8];
/// Bytes of a secret that a window of text stands for: nine, so that Base64 comes out even.
const TEXT: usize = 9;
/// How much is looked at in one piece for being empty.
const PAGE: usize = 4096;

/// A window that was found, in words: which secret, in which form, where.
pub type Finding = String;

/// What is searched, and its name.
type Needle = (Vec<u8>, String);

/// Looks for secrets.
#[derive(Default)]
pub struct Search {
    /// By their first bytes.
    needles: HashMap<[u8; WINDOW], Vec<Needle>>,
    /// For each possible first two bytes, whether a needle begins with them.
    begins: Vec<bool>,
    searched: usize,
}

impl Search {
    fn put(&mut self, needle: &[u8], name: String) {
        self.begins.resize(1 << 16, false);
        let Some((first, _)) = needle.split_first_chunk::<WINDOW>() else {
            panic!("{name} is too short");
        };
        // Zeros and the like are everywhere.
        if first.iter().all(|byte| *byte == first[0]) {
            return;
        }
        self.begins[first_two(first)] = true;
        let same = self.needles.entry(*first).or_default();
        if !same.iter().any(|(known, _)| known == needle) {
            same.push((needle.to_vec(), name));
        }
    }

    /// Adds every window of a secret, in every form of bytes.
    ///
    /// # Panics
    /// If it is shorter than a window.
    pub fn add(&mut self, name: &str, secret: &[u8]) {
        assert!(secret.len() >= WINDOW, "{name} is too short");
        for (form, bytes) in forms(secret) {
            for (offset, window) in bytes.array_windows::<WINDOW>().enumerate() {
                self.put(window, format!("{name} {form} at {offset}"));
            }
        }
    }

    /// Adds every window of a secret as text.
    ///
    /// # Panics
    /// If it is shorter than a window of text.
    pub fn add_text(&mut self, name: &str, secret: &[u8]) {
        assert!(secret.len() >= TEXT, "{name} is too short");
        for (offset, window) in secret.array_windows::<TEXT>().enumerate() {
            let small = hex::encode(window);
            let names = [
                ("in hex", small.clone()),
                ("in capital hex", small.to_uppercase()),
                ("in Base64", Base64Unpadded::encode_string(window)),
                (
                    "in URL-safe Base64",
                    Base64UrlUnpadded::encode_string(window),
                ),
            ];
            for (form, text) in names {
                self.put(text.as_bytes(), format!("{name} {form} at {offset}"));
            }
        }
    }

    /// Adds something that is searched as a whole.
    ///
    /// # Panics
    /// If it is shorter than a window.
    pub fn add_whole(&mut self, name: &str, secret: &[u8]) {
        self.put(secret, name.to_owned());
    }

    /// What is found in `bytes`, which are `place`.
    #[must_use]
    pub fn look(&mut self, place: &str, bytes: &[u8]) -> Vec<Finding> {
        self.searched += bytes.len();
        let mut found = Vec::new();
        let empty = [0; PAGE + WINDOW];
        for start in (0..bytes.len()).step_by(PAGE) {
            let piece = &bytes[start..bytes.len().min(start + PAGE + WINDOW)];
            // Most of a memory is empty, and comparing is fast.
            if piece == &empty[..piece.len()] {
                continue;
            }
            let end = PAGE.min((bytes.len() - start).saturating_sub(WINDOW - 1));
            for at in 0..end {
                let pair = usize::from(piece[at]) | usize::from(piece[at + 1]) << 8;
                if !self.begins[pair] {
                    continue;
                }
                let offset = start + at;
                let rest = &bytes[offset..];
                let Some((first, _)) = rest.split_first_chunk::<WINDOW>() else {
                    continue;
                };
                let Some(needles) = self.needles.get(first) else {
                    continue;
                };
                for (needle, name) in needles {
                    if rest.starts_with(needle) {
                        found.push(format!("{place} at {offset:#x}: {name}"));
                    }
                }
            }
        }
        found
    }

    /// How many windows are searched.
    #[must_use]
    pub fn windows(&self) -> usize {
        self.needles.values().map(Vec::len).sum()
    }

    /// How many bytes were looked at.
    #[must_use]
    pub const fn searched(&self) -> usize {
        self.searched
    }
}

fn first_two(window: &[u8; WINDOW]) -> usize {
    usize::from(u16::from_le_bytes([window[0], window[1]]))
}

fn reversed(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().rev().copied().collect()
}

/// The forms of a secret that are searched, with their names. Backward is also the form of little-endian limbs, least significant
/// first.
#[must_use]
pub fn forms(secret: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut forms = Vec::new();
    for word in WORDS {
        // Numbers may have lost leading zeros; words count from their end.
        let mut forward = vec![0; secret.len().next_multiple_of(word) - secret.len()];
        forward.extend_from_slice(secret);
        let swapped: Vec<u8> = forward.chunks(word).flat_map(reversed).collect();
        if word == WORDS[0] {
            forms.push(("as it is".to_owned(), forward.clone()));
            forms.push(("backward".to_owned(), reversed(&forward)));
        }
        forms.push((format!("words of {word} backward"), reversed(&swapped)));
        forms.push((format!("bytes of words of {word} swapped"), swapped));
    }
    forms
}

/// What is secret inside keys: each by a name.
///
/// # Panics
/// If a private key is neither on P-256 nor an RSA key.
#[must_use]
pub fn secrets_of(keys: &[SoftKey]) -> Vec<(String, Vec<u8>)> {
    let mut secrets = Vec::new();
    for key in keys {
        let bits = key.attributes.bits;
        if let Ok(p256) = p256::SecretKey::from_pkcs8_der(&key.clear) {
            secrets.push(("P-256 scalar".to_owned(), p256.to_bytes().to_vec()));
        } else if let Ok(rsa) = rsa::RsaPrivateKey::from_pkcs8_der(&key.clear) {
            assert_eq!(rsa.n().bits(), u32::from(bits));
            let (p, q) = (&rsa.primes()[0], &rsa.primes()[1]);
            let parts = [
                ("d", rsa.d().to_be_bytes()),
                ("p", p.to_be_bytes()),
                ("q", q.to_be_bytes()),
                ("dP", rsa.dp().expect("precomputed").to_be_bytes()),
                ("dQ", rsa.dq().expect("precomputed").to_be_bytes()),
                (
                    "qInv",
                    rsa.crt_coefficient().expect("precomputed").to_be_bytes(),
                ),
            ];
            for (name, bytes) in parts {
                secrets.push((format!("RSA {name}"), bytes.to_vec()));
            }
        } else {
            let name = match key.attributes.key_type {
                keyferry_protocol::attributes::key_type::HMAC => "HMAC".to_owned(),
                _ => format!("AES-{bits}"),
            };
            secrets.push((name, key.clear.clone()));
        }
    }
    secrets
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a search that finds nothing is worth: it finds each secret in each form wherever it stands.
    #[test]
    fn the_search_finds_what_is_planted() {
        let secret: Vec<u8> = (100..132).collect();
        let mut search = Search::default();
        search.add("canary", &secret);
        search.add_text("canary", &secret);
        let part = &secret[11..20];
        let mut planted: Vec<Vec<u8>> = forms(&secret)
            .into_iter()
            .map(|(_, bytes)| bytes[5..13].to_vec())
            .collect();
        planted.push(hex::encode(part).into_bytes());
        planted.push(hex::encode_upper(part).into_bytes());
        planted.push(Base64Unpadded::encode_string(part).into_bytes());
        planted.push(Base64UrlUnpadded::encode_string(part).into_bytes());
        for planted in planted {
            for offset in [0, 1, 1019, PAGE - 3, 2 * PAGE - planted.len()] {
                let mut memory = vec![0; 2 * PAGE];
                assert!(search.look("memory", &memory).is_empty());
                memory[offset..][..planted.len()].copy_from_slice(&planted);
                assert_eq!(search.look("memory", &memory).len(), 1, "{planted:?}");
                memory[offset] ^= 1;
                assert!(search.look("memory", &memory).is_empty());
            }
        }
    }
}
