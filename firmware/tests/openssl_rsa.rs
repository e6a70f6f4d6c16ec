//! RSA against OpenSSL: generated keys, OAEP, PKCS#8 and signatures.
#![cfg(feature = "rsa")]

mod common;

use common::{OpenSsl, drbg, input, open, proof, unwrap_key};
use keyferry_firmware::keys::rsa::{Generation, SPKI_LENGTH_MAX, Step, private_key, public_spki};
use keyferry_firmware::keys::secret_length;
use keyferry_firmware::unwrap::{Kek, UnwrapFailed, open_kek};
use keyferry_protocol::attributes::KeyKind;
use keyferry_protocol::proof::Proof;
use keyferry_protocol::suite::{Suite, UnwrapAlgorithm};
use rsa::pkcs1::EncodeRsaPrivateKey as _;
use rsa::traits::{PrivateKeyParts, PublicKeyParts as _};
use rsa::{BoxedUint, RsaPrivateKey};

/// Each size with a seed with which generation ends early.
const SIZES: [(UnwrapAlgorithm, usize, u32); 3] = [
    (UnwrapAlgorithm::Rsa2048, 256, 8),
    (UnwrapAlgorithm::Rsa3072, 384, 2),
    (UnwrapAlgorithm::Rsa4096, 512, 18),
];

const KEK: [u8; 32] = *b"an AES-256 key-encryption key...";

fn generated(modulus: usize, seed: u32) -> Vec<u8> {
    let mut rng = drbg(seed);
    let mut generation = Generation::new(modulus).unwrap();
    while generation.step(&mut rng).unwrap() == Step::Searching {}
    let mut secret = vec![0; secret_length(KeyKind::Rsa(modulus))];
    generation.finish(&mut rng, &mut secret).unwrap();
    secret
}

/// The same key as the `rsa` crate makes it, which checks that it is one.
fn crates_own(secret: &[u8]) -> RsaPrivateKey {
    let (e, primes) = secret.split_first_chunk().unwrap();
    let (p, q) = primes.split_at(primes.len() / 2);
    let number = |bytes: &[u8]| BoxedUint::from_be_slice_vartime(bytes);
    RsaPrivateKey::from_p_q(number(p), number(q), u32::from_le_bytes(*e).into()).unwrap()
}

fn spki(secret: &[u8]) -> Vec<u8> {
    let mut spki = [0; SPKI_LENGTH_MAX];
    let length = public_spki(secret, &mut spki).unwrap();
    spki[..length].to_vec()
}

/// OpenSSL plays the HSM and wraps the KEK toward `device.pub`.
fn wrap_kek(openssl: &OpenSsl, kek: &[u8], hash: &str) -> Vec<u8> {
    openssl.write("kek", kek);
    openssl.run(&format!(
        "pkeyutl -encrypt -pubin -keyform DER -inkey device.pub -in kek -out kek.oaep \
         -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:{hash} -pkeyopt rsa_mgf1_md:{hash}"
    ));
    openssl.read("kek.oaep")
}

#[test]
fn generated_keys_are_sound_to_openssl() {
    for (_, modulus, seed) in SIZES {
        let secret = generated(modulus, seed);
        let openssl = OpenSsl::new();
        openssl.write("device.pub", &spki(&secret));
        openssl.run("pkey -pubin -inform DER -in device.pub -pubcheck -noout");

        // The whole key as it is used here, CRT values included: they are those that the crate's own key has.
        let ours = private_key(&secret).unwrap();
        let key = crates_own(&secret);
        assert!(ours.n() == key.n() && ours.e() == key.e());
        assert!(ours.dp() == key.dp() && ours.dq() == key.dq());
        let inverse = |key: &dyn PrivateKeyParts| key.qinv().unwrap().retrieve();
        assert!(inverse(&ours) == inverse(&key));
        let key = key.to_pkcs1_der().unwrap();
        openssl.write("device.key", key.as_bytes());
        openssl.run("rsa -inform DER -in device.key -check -noout");
        // The public key OpenSSL understands is ours: written again, it has the same bytes.
        openssl.run("pkey -pubin -inform DER -in device.pub -pubout -outform DER -out again.pub");
        assert_eq!(openssl.read("again.pub"), spki(&secret));
    }
}

#[test]
fn keks_wrapped_by_openssl_open_in_both_suites() {
    for (algorithm, modulus, seed) in SIZES {
        let secret = generated(modulus, seed);
        let openssl = OpenSsl::new();
        openssl.write("device.pub", &spki(&secret));
        let wrapped = openssl.kwp(&KEK, &[0xa5; 24]);
        let unwrap = |suite, blob: &[u8]| -> Result<Vec<u8>, UnwrapFailed> {
            let kek: Kek = open_kek(suite, unwrap_key(algorithm, &secret), blob, &mut drbg(3));
            open(&kek, KeyKind::Aes(24), &wrapped)
        };
        let sha256 = wrap_kek(&openssl, &KEK, "sha256");
        let sha1 = wrap_kek(&openssl, &KEK, "sha1");
        assert_eq!(sha256.len(), algorithm.kek_blob_length());
        assert_eq!(unwrap(Suite::RsaOaepSha256, &sha256).unwrap(), [0xa5; 24]);
        assert_eq!(unwrap(Suite::RsaOaepSha1, &sha1).unwrap(), [0xa5; 24]);

        // The other hash, a KEK of another length, an altered blob: the one error.
        assert_eq!(unwrap(Suite::RsaOaepSha1, &sha256), Err(UnwrapFailed));
        assert_eq!(unwrap(Suite::RsaOaepSha256, &sha1), Err(UnwrapFailed));
        for length in [16, 31] {
            let short = wrap_kek(&openssl, &KEK[..length], "sha256");
            assert_eq!(unwrap(Suite::RsaOaepSha256, &short), Err(UnwrapFailed));
        }
        let mut altered = sha256.clone();
        altered[modulus / 2] ^= 0x80;
        assert_eq!(unwrap(Suite::RsaOaepSha256, &altered), Err(UnwrapFailed));
    }
}

#[test]
fn rsa_keys_wrapped_by_openssl_open_and_sign() {
    let device = generated(256, 8);
    let openssl = OpenSsl::new();
    openssl.write("device.pub", &spki(&device));
    let kek_blob = wrap_kek(&openssl, &KEK, "sha256");
    let (suite, algorithm) = (Suite::RsaOaepSha256, UnwrapAlgorithm::Rsa2048);
    let kek = open_kek(
        suite,
        unwrap_key(algorithm, &device),
        &kek_blob,
        &mut drbg(3),
    );

    // The smallest, the usual and the largest exponent that fits.
    for exponent in [3_u32, 65_537, 4_294_967_291] {
        openssl.run(&format!(
            "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 \
             -pkeyopt rsa_keygen_pubexp:{exponent} -out target.pem"
        ));
        openssl.run("pkcs8 -topk8 -nocrypt -in target.pem -outform DER -out target.der");
        openssl.run("pkey -in target.pem -pubout -outform DER -out target.pub");
        let plain = openssl.read("target.der");

        let kind = KeyKind::Rsa(256);
        let secret = open(&kek, kind, &openssl.kwp(&KEK, &plain)).unwrap();
        assert_eq!(secret.len(), secret_length(kind));
        assert_eq!(spki(&secret), openssl.read("target.pub"), "{exponent}");

        openssl.write("message", &input());
        openssl.write("signature", &proof(Proof::RsaPkcs1Sha256, kind, &secret));
        openssl.run("dgst -sha256 -keyform DER -verify target.pub -signature signature message");

        for wrong in [
            KeyKind::Rsa(384),
            KeyKind::Rsa(512),
            KeyKind::P256,
            KeyKind::Secret(32),
        ] {
            let blob = openssl.kwp(&KEK, &plain);
            assert_eq!(open(&kek, wrong, &blob), Err(UnwrapFailed));
        }
    }
    // PKCS#1 alone is not what HSMs wrap; an exponent beyond 32 bits is not carried.
    openssl.run("rsa -in target.pem -traditional -outform DER -out target.pkcs1");
    let blob = openssl.kwp(&KEK, &openssl.read("target.pkcs1"));
    assert_eq!(open(&kek, KeyKind::Rsa(256), &blob), Err(UnwrapFailed));
    openssl.run(
        "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 \
         -pkeyopt rsa_keygen_pubexp:4294967311 -out target.pem",
    );
    openssl.run("pkcs8 -topk8 -nocrypt -in target.pem -outform DER -out target.der");
    let blob = openssl.kwp(&KEK, &openssl.read("target.der"));
    assert_eq!(open(&kek, KeyKind::Rsa(256), &blob), Err(UnwrapFailed));
}

#[test]
fn keys_of_other_forms_of_rsa_do_not_open() {
    let device = generated(256, 8);
    let openssl = OpenSsl::new();
    openssl.write("device.pub", &spki(&device));
    let kek_blob = wrap_kek(&openssl, &KEK, "sha1");
    let (suite, algorithm) = (Suite::RsaOaepSha1, UnwrapAlgorithm::Rsa2048);
    let kek = open_kek(
        suite,
        unwrap_key(algorithm, &device),
        &kek_blob,
        &mut drbg(3),
    );
    for options in [
        "RSA -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_keygen_primes:3",
        "RSA -pkeyopt rsa_keygen_bits:2047",
        "RSA -pkeyopt rsa_keygen_bits:1024",
        "RSA-PSS -pkeyopt rsa_keygen_bits:2048",
    ] {
        openssl.run(&format!("genpkey -algorithm {options} -out other.pem"));
        openssl.run("pkcs8 -topk8 -nocrypt -in other.pem -outform DER -out other.der");
        let blob = openssl.kwp(&KEK, &openssl.read("other.der"));
        assert_eq!(
            open(&kek, KeyKind::Rsa(256), &blob),
            Err(UnwrapFailed),
            "{options}"
        );
    }
}
