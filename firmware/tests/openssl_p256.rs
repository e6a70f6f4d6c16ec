//! P-256, symmetric keys and proofs against OpenSSL, which shares no code with this crate. These run in a build without
//! a heap, too.

mod common;

use common::{OpenSsl, derive, drbg, input, key, open, proof};
use keyferry_firmware::keys::UseFailed;
use keyferry_firmware::keys::{fingerprint, p256};
use keyferry_firmware::prove::{Asked, prove};
use keyferry_firmware::unwrap::{Kek, UnwrapFailed, UnwrapKey, open_kek, suites};
use keyferry_firmware::wipe::Secret;
use keyferry_protocol::attributes::KeyKind;
use keyferry_protocol::identity::{Signature, p256_spki};
use keyferry_protocol::proof::Proof;
use keyferry_protocol::suite::{Suite, UnwrapAlgorithm};

/// A device with a P-256 unwrap key, and an OpenSSL that plays the HSM.
struct Pair {
    openssl: OpenSsl,
    secret: Secret<32>,
    spki: [u8; p256_spki::LENGTH],
}

impl Pair {
    fn new() -> Self {
        let mut secret = Secret::zeroed();
        p256::generate(&mut drbg(1), &mut secret);
        let spki = p256::public_spki(secret.expose()).unwrap();
        let openssl = OpenSsl::new();
        openssl.write("device.pub", &spki);
        Self {
            openssl,
            secret,
            spki,
        }
    }

    /// Makes a P-256 key with OpenSSL and gives its PKCS#8 form and its `SubjectPublicKeyInfo`.
    fn openssl_key(&self, name: &str) -> (Vec<u8>, Vec<u8>) {
        self.openssl.run(&format!(
            "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {name}.pem"
        ));
        self.openssl.run(&format!(
            "pkcs8 -topk8 -nocrypt -in {name}.pem -outform DER -out {name}.der"
        ));
        self.openssl.run(&format!(
            "pkey -in {name}.pem -pubout -outform DER -out {name}.pub"
        ));
        let (private, public) = (format!("{name}.der"), format!("{name}.pub"));
        (self.openssl.read(&private), self.openssl.read(&public))
    }

    /// The sender's side of ECDH: the KEK blob, the sender's KEK and what the device makes of the blob.
    fn agree(&self, suite: Suite) -> (Vec<u8>, Vec<u8>, Kek) {
        let (_, ephemeral) = self.openssl_key("ephemeral");
        self.openssl.run(
            "pkeyutl -derive -inkey ephemeral.pem -peerkey device.pub -peerform DER -out shared",
        );
        let blob = p256_spki::to_point(&ephemeral).unwrap().to_vec();
        let kek = open_kek(suite, self.unwrap_key(), &blob, &mut drbg(2));
        let shared = self.openssl.read("shared");
        let sent = derive(&self.openssl, suite, shared, &fingerprint(&self.spki));
        (blob, sent, kek)
    }

    fn unwrap_key(&self) -> UnwrapKey<'_> {
        UnwrapKey {
            algorithm: UnwrapAlgorithm::P256,
            secret: self.secret.expose(),
            fingerprint: fingerprint(&self.spki),
        }
    }
}

#[test]
fn our_public_key_and_signature_are_valid_to_openssl() {
    let pair = Pair::new();
    pair.openssl
        .run("pkey -pubin -inform DER -in device.pub -pubcheck -noout");
    let message = b"a message of any length";
    let signature = p256::sign(pair.secret.expose(), message, &mut drbg(3)).unwrap();
    pair.openssl.verify_ecdsa(&pair.spki, message, &signature);

    let digest = pair.openssl.run("dgst -sha256 -binary device.pub");
    assert_eq!(fingerprint(&pair.spki).0, digest[..]);
}

#[test]
fn openssl_signatures_verify_here() {
    let pair = Pair::new();
    let (_, spki) = pair.openssl_key("signer");
    pair.openssl.write("message", b"signed by OpenSSL");
    let der = pair.openssl.run("dgst -sha256 -sign signer.pem message");

    // SEQUENCE { INTEGER r, INTEGER s } to r ‖ s.
    let mut bytes = [0; 64];
    let mut rest = &der[2..];
    for half in bytes.chunks_mut(32) {
        let (number, after) = rest[2..].split_at(usize::from(rest[1]));
        let digits = &number[number.len().saturating_sub(32)..];
        half[32 - digits.len()..].copy_from_slice(digits);
        rest = after;
    }
    let signature = Signature::from_bytes(&bytes);
    assert!(p256::verify(&spki, b"signed by OpenSSL", &signature));
    assert!(!p256::verify(&spki, b"signed by nobody", &signature));
    assert!(!p256::verify(&pair.spki, b"signed by OpenSSL", &signature));
}

#[test]
fn keys_wrapped_by_openssl_over_ecdh_open() {
    for suite in suites(UnwrapAlgorithm::P256) {
        keys_open(suite);
    }
}

fn keys_open(suite: Suite) {
    let pair = Pair::new();
    let (private, public) = pair.openssl_key("target");
    let (_, sent, kek) = pair.agree(suite);

    let opened = open(&kek, KeyKind::P256, &pair.openssl.kwp(&sent, &private)).unwrap();
    let scalar: [u8; 32] = opened.try_into().unwrap();
    assert_eq!(p256::public_spki(&scalar).unwrap(), public[..]);

    let key: Vec<u8> = (0..=255).collect();
    for length in [1, 7, 8, 9, 16, 24, 31, 32, 45, 64, 255, 256] {
        let blob = pair.openssl.kwp(&sent, &key[..length]);
        let kind = KeyKind::Secret(length);
        assert_eq!(open(&kek, kind, &blob).unwrap(), key[..length]);
    }
    for length in [16, 24, 32] {
        let blob = pair.openssl.kwp(&sent, &key[..length]);
        assert_eq!(
            open(&kek, KeyKind::Aes(length), &blob).unwrap(),
            key[..length]
        );
    }
    // SEC 1 alone is not what HSMs wrap.
    pair.openssl
        .run("ec -in target.pem -outform DER -out target.sec1");
    let blob = pair.openssl.kwp(&sent, &pair.openssl.read("target.sec1"));
    assert_eq!(open(&kek, KeyKind::P256, &blob), Err(UnwrapFailed));
}

#[test]
fn other_forms_of_a_p256_key_open_too() {
    let pair = Pair::new();
    let (_, public) = pair.openssl_key("target");
    let (_, sent, kek) = pair.agree(suites(UnwrapAlgorithm::P256)[0]);
    // Without the public key inside, and with the point compressed.
    for options in ["-conv_form compressed", "-no_public"] {
        pair.openssl
            .run(&format!("ec -in target.pem {options} -out form.pem"));
        pair.openssl
            .run("pkcs8 -topk8 -nocrypt -in form.pem -outform DER -out form.der");
        let plain = pair.openssl.read("form.der");
        let opened = open(&kek, KeyKind::P256, &pair.openssl.kwp(&sent, &plain));
        let scalar = opened.unwrap().try_into().unwrap();
        assert_eq!(p256::public_spki(&scalar).unwrap(), public[..], "{options}");
    }
}

#[test]
fn keys_of_another_curve_or_family_do_not_open() {
    let pair = Pair::new();
    let (_, sent, kek) = pair.agree(suites(UnwrapAlgorithm::P256)[0]);
    for algorithm in [
        "EC -pkeyopt ec_paramgen_curve:P-384",
        "EC -pkeyopt ec_paramgen_curve:secp256k1",
        "EC -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:explicit",
        "ED25519",
        "X25519",
    ] {
        pair.openssl
            .run(&format!("genpkey -algorithm {algorithm} -out other.pem"));
        pair.openssl
            .run("pkcs8 -topk8 -nocrypt -in other.pem -outform DER -out other.der");
        let plain = pair.openssl.read("other.der");
        if plain.len() > 256 {
            continue; // Explicit parameters: longer than any blob of a build without RSA.
        }
        let blob = pair.openssl.kwp(&sent, &plain);
        assert_eq!(
            open(&kek, KeyKind::P256, &blob),
            Err(UnwrapFailed),
            "{algorithm}"
        );
    }
}

#[test]
fn a_bad_point_opens_nothing() {
    for suite in suites(UnwrapAlgorithm::P256) {
        bad_points_open_nothing(suite);
    }
}

fn bad_points_open_nothing(suite: Suite) {
    let pair = Pair::new();
    let (blob, sent, _) = pair.agree(suite);
    let wrapped = pair.openssl.kwp(&sent, &[5; 16]);
    for at in 0..blob.len() {
        let mut altered = blob.clone();
        altered[at] ^= 1;
        let kek = open_kek(suite, pair.unwrap_key(), &altered, &mut drbg(2));
        assert_eq!(open(&kek, KeyKind::Aes(16), &wrapped), Err(UnwrapFailed));
    }
}

#[test]
fn macs_are_what_openssl_computes() {
    let openssl = OpenSsl::new();
    openssl.write("input", &input());
    let key: Vec<u8> = (100..=255).cycle().take(256).collect();
    for length in [16, 24, 32] {
        let expected = openssl.run(&format!(
            "mac -cipher AES-{}-CBC -macopt hexkey:{} -binary -in input CMAC",
            length * 8,
            hex::encode(&key[..length])
        ));
        let made = proof(Proof::Cmac, KeyKind::Aes(length), &key[..length]);
        assert_eq!(made, expected);
        let value = proof(Proof::CheckValue, KeyKind::Aes(length), &key[..length]);
        assert_eq!(value, expected[..5]);
    }
    for length in [1, 16, 32, 63, 64, 65, 256] {
        let expected = openssl.run(&format!(
            "mac -digest SHA256 -macopt hexkey:{} -binary -in input HMAC",
            hex::encode(&key[..length])
        ));
        let made = proof(Proof::HmacSha256, KeyKind::Secret(length), &key[..length]);
        assert_eq!(made, expected);
    }
}

#[test]
fn an_ecdsa_proof_verifies_with_the_public_key() {
    let pair = Pair::new();
    let made = proof(Proof::EcdsaP256Sha256, KeyKind::P256, pair.secret.expose());
    let signature = Signature::from_bytes(made[..].try_into().unwrap());
    pair.openssl.verify_ecdsa(&pair.spki, &input(), &signature);
}

#[test]
fn proofs_that_do_not_go_with_the_key_are_refused() {
    const KINDS: [KeyKind; 4] = [
        KeyKind::Aes(16),
        KeyKind::Secret(16),
        KeyKind::P256,
        KeyKind::Rsa(256),
    ];
    let mut out = [0; 512];
    let mut attempt = |proof, kind, secret: &[u8], room: usize| {
        let asked = Asked {
            proof,
            input: &input(),
            question: &[],
        };
        prove(asked, key(kind, 0, secret), &mut drbg(4), &mut out[..room])
    };
    for (proof, fitting) in [
        (Proof::Cmac, KINDS[0]),
        (Proof::HmacSha256, KINDS[1]),
        (Proof::EcdsaP256Sha256, KINDS[2]),
        (Proof::RsaPkcs1Sha256, KINDS[3]),
    ] {
        for kind in KINDS {
            if kind != fitting {
                let refused = attempt(proof, kind, &[1; 16], 512);
                assert_eq!(refused, Err(UseFailed::Unsupported), "{proof:?} {kind:?}");
            }
        }
        let expected = match (proof, cfg!(feature = "rsa-keys")) {
            (Proof::RsaPkcs1Sha256, false) => UseFailed::Unsupported,
            (_, true | false) => UseFailed::Failed,
        };
        // Not a key of this kind; and no room.
        assert_eq!(attempt(proof, fitting, &[1; 15], 512), Err(expected));
        let room = proof.length(fitting) - 1;
        assert_eq!(
            attempt(proof, fitting, &[1; 16], room),
            Err(UseFailed::Failed)
        );
    }
    for kind in KINDS {
        assert_eq!(attempt(Proof::None, kind, &[], 0), Ok(0));
    }
    assert_eq!(
        attempt(Proof::Cmac, KeyKind::Aes(17), &[1; 17], 512),
        Err(UseFailed::Unsupported)
    );
    let zero = attempt(Proof::EcdsaP256Sha256, KeyKind::P256, &[0; 32], 512);
    assert_eq!(zero, Err(UseFailed::Failed));
}
