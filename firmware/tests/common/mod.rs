//! What the tests against OpenSSL share: running it, scratch files, and a generator with a fixed seed.
#![allow(dead_code, reason = "each test file uses its part")]

use std::path::PathBuf;
use std::process::Command;

use keyferry_firmware::keys::p256;
use keyferry_firmware::keys::{Key, UseFailed};
use keyferry_firmware::prove::{Asked, prove};
use keyferry_firmware::rng::Drbg;
use keyferry_firmware::unwrap::{Kek, UnwrapFailed, UnwrapKey, open_kek, open_key, suites};
use keyferry_firmware::wipe::Secret;
use keyferry_protocol::attributes::KeyKind;
use keyferry_protocol::identity::{Challenge, Digest, Fingerprint, Signature, p256_spki};
use keyferry_protocol::proof::{INPUT_LENGTH, Proof, proof_input};
use keyferry_protocol::suite::{Suite, UnwrapAlgorithm};

/// A generator with a fixed seed for each `boot`.
pub(crate) fn drbg(boot: u32) -> Drbg {
    Drbg::new(&Secret::zeroed(), boot, &[0; 32])
}

/// A scratch folder in which OpenSSL runs; removed on drop.
pub(crate) struct OpenSsl(tempfile::TempDir);

impl OpenSsl {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a scratch folder"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file for OpenSSL to read.
    pub(crate) fn write(&self, name: &str, contents: &[u8]) {
        std::fs::write(self.path(name), contents).expect("a scratch file");
    }

    /// Reads a file that OpenSSL wrote.
    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).expect("OpenSSL should have written this file")
    }

    /// Runs `openssl` with these words, which must succeed, and gives its output.
    pub(crate) fn run(&self, words: &str) -> Vec<u8> {
        let output = Command::new("openssl")
            .args(words.split_whitespace())
            .current_dir(self.0.path())
            .output()
            .unwrap_or_else(|error| {
                panic!("these tests need the `openssl` command (3.0 or later) on PATH: {error}")
            });
        assert!(
            output.status.success(),
            "openssl {words}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    }

    /// Wraps a key with AES-256-KWP, as an independent sender would.
    pub(crate) fn kwp(&self, kek: &[u8], key: &[u8]) -> Vec<u8> {
        self.write("kwp.in", key);
        self.run(&format!(
            "enc -e -id-aes256-wrap-pad -K {} -iv A65959A6 -in kwp.in -out kwp.out",
            hex::encode(kek)
        ));
        self.read("kwp.out")
    }

    /// Checks an ECDSA signature over SHA-256 with a public key in DER.
    pub(crate) fn verify_ecdsa(&self, spki: &[u8], message: &[u8], signature: &Signature) {
        self.write("verify.pub", spki);
        self.write("verify.msg", message);
        self.write("verify.sig", &signature_der(signature));
        self.run("dgst -sha256 -keyform DER -verify verify.pub -signature verify.sig verify.msg");
    }
}

/// `ECDSA-Sig-Value` (RFC 3279 §2.2.3).
fn signature_der(signature: &Signature) -> Vec<u8> {
    let mut numbers = vec![];
    for number in [signature.r, signature.s] {
        let start = number.iter().take_while(|byte| **byte == 0).count();
        let digits = &number[start..];
        let sign = usize::from(digits[0] >> 7);
        numbers.extend([2, (digits.len() + sign) as u8]);
        numbers.extend(&[0][..sign]);
        numbers.extend(digits);
    }
    [vec![0x30, numbers.len() as u8], numbers].concat()
}

/// Opens a wrapped key.
pub(crate) fn open(kek: &Kek, kind: KeyKind, blob: &[u8]) -> Result<Vec<u8>, UnwrapFailed> {
    let mut blob = blob.to_vec();
    let length = open_key(kek, kind, &mut blob)?;
    blob.truncate(length);
    Ok(blob)
}

/// A proof input with something in every field.
pub(crate) fn input() -> [u8; INPUT_LENGTH] {
    proof_input(&Digest([0x11; 32]), 0x0203, &Challenge([0x44; 32]))
}

/// A key and what its attributes permit.
pub(crate) const fn key(kind: KeyKind, algorithm: u32, secret: &[u8]) -> Key<'_> {
    Key {
        kind,
        algorithm,
        secret,
    }
}

/// Asks a key over [`input`].
pub(crate) fn answer(proof: Proof, key: Key<'_>, question: &[u8]) -> Result<Vec<u8>, UseFailed> {
    let mut out = [0; 512];
    let asked = Asked {
        proof,
        input: &input(),
        question,
    };
    let length = prove(asked, key, &mut drbg(9), &mut out)?;
    assert_eq!(length, proof.length(key.kind));
    Ok(out[..length].to_vec())
}

/// A proof over [`input`], of a kind that needs no question.
pub(crate) fn proof(proof: Proof, kind: KeyKind, secret: &[u8]) -> Vec<u8> {
    answer(proof, key(kind, 0, secret), &[]).expect("a proof")
}

/// An unwrap key whose fingerprint does not matter.
pub(crate) const fn unwrap_key(algorithm: UnwrapAlgorithm, secret: &[u8]) -> UnwrapKey<'_> {
    UnwrapKey {
        algorithm,
        secret,
        fingerprint: Fingerprint::ZERO,
    }
}

/// What becomes of the shared x coordinate under an ECDH suite, by OpenSSL (`man EVP_KDF-X963`).
pub(crate) fn derive(
    openssl: &OpenSsl,
    suite: Suite,
    shared: Vec<u8>,
    recipient: &Fingerprint,
) -> Vec<u8> {
    match suite {
        Suite::EcdhP256X963Sha256 => openssl.run(&format!(
            "kdf -binary -keylen 32 -kdfopt digest:SHA2-256 -kdfopt hexsecret:{} -kdfopt hexinfo:{}02{} X963KDF",
            hex::encode(shared),
            hex::encode("keyferry ecdhkek"),
            hex::encode(recipient.0)
        )),
        Suite::EcdhP256Null => shared,
        Suite::RsaOaepSha256 | Suite::RsaOaepSha1 => panic!("{suite} shares no coordinate"),
    }
}

/// Some KEK, as the device opened it, and its bytes.
pub(crate) fn any_kek() -> (Kek, Vec<u8>) {
    let (device, station) = (pair(11), pair(12));
    let openssl = OpenSsl::new();
    openssl.write("device.pub", &device.1);
    let point = p256_spki::to_point(&station.1).expect("a point").to_vec();
    let suite = suites(UnwrapAlgorithm::P256)[0];
    let key = unwrap_key(UnwrapAlgorithm::P256, device.0.expose());
    let kek = open_kek(suite, key, &point, &mut drbg(2));
    // Private key of the station as OpenSSL reads it: SEC1 with the named curve (RFC 5915).
    let prefix = [0x30, 0x31, 0x02, 0x01, 0x01, 0x04, 0x20];
    let curve = [
        0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07,
    ];
    openssl.write(
        "station.der",
        &[&prefix[..], station.0.expose(), &curve].concat(),
    );
    openssl.run(
        "pkeyutl -derive -inkey station.der -keyform DER -peerkey device.pub -peerform DER -out shared",
    );
    let shared = openssl.read("shared");
    (kek, derive(&openssl, suite, shared, &key.fingerprint))
}

/// A P-256 key: scalar and public key.
fn pair(seed: u32) -> (Secret<32>, [u8; p256_spki::LENGTH]) {
    let mut secret = Secret::zeroed();
    p256::generate(&mut drbg(seed), &mut secret);
    let spki = p256::public_spki(secret.expose()).expect("a valid scalar");
    (secret, spki)
}
