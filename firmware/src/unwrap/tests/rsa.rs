//! The same for RSA: OAEP failures, and RSA private keys as PKCS#8.

use ::rsa::hazmat::rsa_encrypt;
use ::rsa::traits::PublicKeyParts;
use ::rsa::{Oaep, RsaPublicKey};
use crypto_bigint::BoxedUint;

use super::*;
use crate::keys::rsa::{Generation, Step, private_key};

fn generated(modulus: usize, seed: u32) -> Vec<u8> {
    let mut rng = drbg(seed);
    let mut generation = Generation::new(modulus).unwrap();
    while generation.step(&mut rng).unwrap() == Step::Searching {}
    let mut secret = vec![0; secret_length(KeyKind::Rsa(modulus))];
    generation.finish(&mut rng, &mut secret).unwrap();
    secret
}

fn open_rsa(suite: Suite, secret: &[u8], blob: &[u8]) -> [u8; 32] {
    let kek = open_kek(
        suite,
        unwrap_key(UnwrapAlgorithm::Rsa2048, secret),
        blob,
        &mut drbg(5),
    );
    *kek.0.expose()
}

/// A raw RSA encryption of a padded message.
fn encrypt(key: &RsaPublicKey, padded: &[u8]) -> Vec<u8> {
    let message = BoxedUint::from_be_slice(padded, 2048).unwrap();
    rsa_encrypt(key, &message).unwrap().to_be_bytes().to_vec()
}

/// OAEP by hand, so that each field can be wrong on its own: EM = first ‖ maskedSeed ‖ maskedDB.
fn pad(first: u8, label_hash: [u8; 32], filler: &[u8], separator: u8, message: &[u8]) -> Vec<u8> {
    use sha2::{Digest as _, Sha256};
    let mask = |seed: &[u8], out: &mut [u8]| {
        for (counter, chunk) in (0_u32..).zip(out.chunks_mut(32)) {
            let digest = Sha256::new()
                .chain_update(seed)
                .chain_update(counter.to_be_bytes());
            for (byte, mask) in chunk.iter_mut().zip(digest.finalize()) {
                *byte ^= mask;
            }
        }
    };
    let mut data = [&label_hash[..], filler, &[separator], message].concat();
    assert_eq!(data.len(), 223);
    let mut seed = [0x5a; 32];
    mask(&seed, &mut data);
    mask(&data, &mut seed);
    [&[first][..], &seed, &data].concat()
}

#[test]
fn every_kind_of_oaep_failure_ends_the_same_way() {
    use sha2::{Digest as _, Sha256};
    let secret = generated(256, 8);
    let key = private_key(&secret).unwrap();
    let public = RsaPublicKey::new(key.n().as_ref().clone(), key.e().clone()).unwrap();
    let empty = <[u8; 32]>::from(Sha256::digest([]));
    let right_kek = [0x33; 32];

    let right = encrypt(&public, &pad(0, empty, &[0; 158], 1, &right_kek));
    assert_eq!(open_rsa(Suite::RsaOaepSha256, &secret, &right), right_kek);

    let mut other_label = empty;
    other_label[31] ^= 1;
    let mut broken_filler = [0; 158];
    broken_filler[80] = 2;
    let modulus = key.n().to_be_bytes();
    let sha1 = public
        .encrypt(&mut drbg(6), Oaep::<sha1::Sha1>::new(), &right_kek)
        .unwrap();
    let mut above = modulus.to_vec();
    *above.last_mut().unwrap() ^= 2;
    let bad = [
        (
            "first byte",
            encrypt(&public, &pad(1, empty, &[0; 158], 1, &right_kek)),
        ),
        (
            "label",
            encrypt(&public, &pad(0, other_label, &[0; 158], 1, &right_kek)),
        ),
        (
            "filler",
            encrypt(&public, &pad(0, empty, &broken_filler, 1, &right_kek)),
        ),
        (
            "no separator",
            encrypt(&public, &pad(0, empty, &[0; 158], 0, &[0; 32])),
        ),
        (
            "31 bytes",
            encrypt(&public, &pad(0, empty, &[0; 159], 1, &[0x33; 31])),
        ),
        (
            "33 bytes",
            encrypt(&public, &pad(0, empty, &[0; 157], 1, &[0x33; 33])),
        ),
        ("empty", encrypt(&public, &pad(0, empty, &[0; 190], 1, &[]))),
        ("SHA-1", sha1),
        ("zero", vec![0; 256]),
        ("n", modulus.to_vec()),
        ("near n", above),
        ("largest", vec![0xff; 256]),
        ("cut", right[..255].to_vec()),
        ("longer", [&right[..], &[0]].concat()),
        ("nothing", vec![]),
    ];
    let blob = wrap(&kek(0x33), &[9; 16]);
    let mut seen = vec![];
    for (what, kek_blob) in &bad {
        let found = open_rsa(Suite::RsaOaepSha256, &secret, kek_blob);
        assert_eq!(found, rejection(&secret, kek_blob), "{what}");
        assert!(!seen.contains(&found), "{what}");
        seen.push(found);
        // And then the key fails as it does for any wrong KEK.
        let mut wrong = Kek(Secret::zeroed());
        wrong.0.expose_mut().copy_from_slice(&found);
        assert_eq!(open(&wrong, KeyKind::Aes(16), blob.clone()), None, "{what}");
    }
    for at in (0..256).step_by(5) {
        let mut altered = right.clone();
        altered[at] ^= 1;
        let found = open_rsa(Suite::RsaOaepSha256, &secret, &altered);
        assert_eq!(found, rejection(&secret, &altered), "{at}");
    }
}

#[test]
fn rejection_depends_on_the_unwrap_key_and_not_on_the_blinding() {
    let (one, other) = (generated(256, 8), generated(256, 37));
    let blob = [7; 256];
    assert_ne!(
        open_rsa(Suite::RsaOaepSha1, &one, &blob),
        open_rsa(Suite::RsaOaepSha1, &other, &blob)
    );
    let blinded = |boot| {
        let (suite, algorithm) = (Suite::RsaOaepSha1, UnwrapAlgorithm::Rsa2048);
        *open_kek(suite, unwrap_key(algorithm, &one), &blob, &mut drbg(boot))
            .0
            .expose()
    };
    assert_eq!(blinded(1), blinded(2));
    let damaged = [&one[..4], &[0; 256]].concat();
    assert_eq!(
        open_rsa(Suite::RsaOaepSha1, &damaged, &blob),
        rejection(&damaged, &blob)
    );
}

/// INTEGER.
fn integer(number: &[u8]) -> Vec<u8> {
    let start = number.iter().take_while(|byte| **byte == 0).count();
    let number = &number[start.min(number.len() - 1)..];
    let sign = vec![0; usize::from(number[0] >> 7)];
    der(0x02, &[sign, number.to_vec()].concat())
}

/// A PKCS#8 structure of an RSA key. d and the CRT values are not used on import, and stand here as 5.
fn pkcs8_rsa(version: u8, n: &[u8], e: &[u8], p: &[u8], q: &[u8]) -> Vec<u8> {
    let five = integer(&[5]);
    let numbers = [integer(n), integer(e), five.clone(), integer(p), integer(q)];
    let key = [vec![2, 1, version], numbers.concat(), five.repeat(3)].concat();
    let info = [
        vec![2, 1, 0],
        keys::rsa::ALGORITHM.to_vec(),
        der(0x04, &der(0x30, &key)),
    ];
    der(0x30, &info.concat())
}

fn numbers(key: &impl PublicKeyParts) -> (Vec<u8>, Vec<u8>) {
    (key.n_bytes().to_vec(), key.e_bytes().to_vec())
}

#[test]
fn rsa_keys_open_to_their_secret_bytes() {
    for (modulus, seed) in [(256, 8), (384, 2), (512, 18)] {
        let secret = generated(modulus, seed);
        let (n, e) = numbers(&private_key(&secret).unwrap());
        let (p, q) = secret[4..].split_at(modulus / 2);
        let mut plain = pkcs8_rsa(0, &n, &e, p, q);
        let kind = KeyKind::Rsa(modulus);
        assert!(open(&kek(1), kind, wrap(&kek(1), &plain)).as_ref() == Some(&secret));
        plain.resize(plain.len().next_multiple_of(8), 0);
        assert!(open(&kek(1), kind, wrap(&kek(1), &plain)).as_ref() == Some(&secret));
        let kinds = [KeyKind::P256, KeyKind::Aes(16)];
        for wrong in kinds.into_iter().chain([256, 384, 512].map(KeyKind::Rsa)) {
            if wrong != kind {
                assert_eq!(open(&kek(1), wrong, wrap(&kek(1), &plain)), None);
            }
        }
    }
}

#[test]
fn rsa_keys_that_do_not_add_up_are_refused() {
    let secret = generated(256, 8);
    let (n, e) = numbers(&private_key(&secret).unwrap());
    let (p, q) = secret[4..].split_at(128);
    let mut other_n = n.clone();
    other_n[200] ^= 1;
    let mut even = q.to_vec();
    even[127] ^= 1;
    let zero = [0];
    let refused: [(&str, Vec<u8>); 10] = [
        ("more primes", pkcs8_rsa(1, &n, &e, p, q)),
        ("n is not p q", pkcs8_rsa(0, &other_n, &e, p, q)),
        ("p p", pkcs8_rsa(0, &n, &e, p, p)),
        ("even q", pkcs8_rsa(0, &n, &e, p, &even)),
        ("p of 1", pkcs8_rsa(0, &n, &e, &[1], &n)),
        ("no p", pkcs8_rsa(0, &n, &e, &zero, &zero)),
        ("e even", pkcs8_rsa(0, &n, &[2], p, q)),
        ("e of 1", pkcs8_rsa(0, &n, &[1], p, q)),
        ("e of 33 bits", pkcs8_rsa(0, &n, &[1, 0, 0, 0, 1], p, q)),
        ("no n", pkcs8_rsa(0, &zero, &e, p, q)),
    ];
    let open_2048 = |plain: &[u8]| open(&kek(1), KeyKind::Rsa(256), wrap(&kek(1), plain));
    for (what, plain) in refused {
        assert_eq!(open_2048(&plain), None, "{what}");
    }
    // q before p is the same key.
    assert!(open_2048(&pkcs8_rsa(0, &n, &e, q, p)).is_some());
}

#[test]
fn hostile_rsa_der_never_panics() {
    let secret = generated(256, 8);
    let (n, e) = numbers(&private_key(&secret).unwrap());
    let (p, q) = secret[4..].split_at(128);
    let good = pkcs8_rsa(0, &n, &e, p, q);
    let mut out = [0; 260];
    assert!(pkcs8::rsa(&good, &mut out).is_some());
    for length in 0..good.len() {
        assert!(pkcs8::rsa(&good[..length], &mut out).is_none());
    }
    let mut altered = good.clone();
    for at in 0..good.len() {
        for flip in [1, 2, 0x40, 0x80, 0xff] {
            altered[at] ^= flip;
            let _ = pkcs8::rsa(&altered, &mut out);
            altered[at] = good[at];
        }
    }
}
