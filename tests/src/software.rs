//! A token in software, for speed. It holds clear keys, which is why it lives in the tests and nowhere else.

use aes_kw::KeyInit;
use chacha20::ChaCha20Rng;
use chacha20::rand_core::SeedableRng;
use heapless::String as Fixed;
use keyferry::device::flow::{Authority, Parcel, Shipment};
use keyferry::device::verify::{SlotReport, Statement};
use keyferry_protocol::attributes::{Attributes, LIFETIME_PERSISTENT, algorithm, key_type, usage};
use keyferry_protocol::identity::{Challenge, Digest, Fingerprint, p256_spki};
use keyferry_protocol::proof::{Proof, proof_input};
use keyferry_protocol::suite::{Suite, x963_shared_info};
use p256::ecdsa::signature::{Signer, Verifier};
use p256::elliptic_curve::sec1::ToSec1Point;
use p256::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey};
use sha2::Digest as _;

/// An authority whose key is known.
pub struct SoftAuthority {
    key: p256::ecdsa::SigningKey,
    public: Vec<u8>,
}

impl SoftAuthority {
    /// The authority with this number; each has its own key.
    #[must_use]
    pub fn new(number: u8) -> Self {
        Self::with_scalar(sha2::Sha256::digest([b'a', number]).into())
    }

    /// The authority with this private key.
    ///
    /// # Panics
    /// If the scalar is out of range.
    #[must_use]
    pub fn with_scalar(scalar: [u8; 32]) -> Self {
        let key = p256::ecdsa::SigningKey::from_bytes(&scalar.into()).expect("a scalar in range");
        let public = key
            .verifying_key()
            .to_public_key_der()
            .expect("a public key encodes")
            .into_vec();
        assert_eq!(public.len(), p256_spki::LENGTH);
        Self { key, public }
    }
}

impl Authority for SoftAuthority {
    fn public_key(&self) -> &[u8] {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], Box<dyn std::error::Error + Send + Sync>> {
        let signature: p256::ecdsa::Signature = self.key.sign(message);
        Ok(signature.to_bytes().into())
    }
}

/// A key whose bytes are known, and what the order says of it.
#[derive(Clone)]
pub struct SoftKey {
    /// The clear key: raw, or PKCS#8 DER.
    pub clear: Vec<u8>,
    /// What it is and may do.
    pub attributes: Attributes,
}

/// The AES key of `length` bytes with this number.
#[must_use]
pub fn aes_key(length: u16, number: u8) -> SoftKey {
    let digest = sha2::Sha256::digest([b'k', number]);
    SoftKey {
        clear: digest[..usize::from(length)].to_vec(),
        attributes: Attributes {
            key_type: key_type::AES,
            bits: length * 8,
            usage: usage::SIGN_MESSAGE | usage::VERIFY_MESSAGE,
            algorithm: algorithm::CMAC,
            lifetime: LIFETIME_PERSISTENT,
        },
    }
}

/// The HMAC key of 32 bytes with this number.
#[must_use]
pub fn hmac_key(number: u8) -> SoftKey {
    let key = aes_key(32, number);
    SoftKey {
        attributes: Attributes {
            key_type: key_type::HMAC,
            algorithm: algorithm::HMAC_SHA256,
            ..key.attributes
        },
        ..key
    }
}

/// The P-256 key with this number, as PKCS#8.
#[must_use]
pub fn p256_key(number: u8) -> SoftKey {
    let scalar: [u8; 32] = sha2::Sha256::digest([b'e', number]).into();
    let key = p256::SecretKey::from_bytes(&scalar.into()).expect("a scalar in range");
    SoftKey {
        clear: key.to_pkcs8_der().expect("encodes").as_bytes().to_vec(),
        attributes: Attributes {
            key_type: key_type::ECC_SECP_R1_KEY_PAIR,
            bits: 256,
            algorithm: algorithm::ECDSA_SHA256,
            ..aes_key(16, 0).attributes
        },
    }
}

/// The RSA-2048 key with this number, as PKCS#8. Making it takes a second.
#[must_use]
pub fn rsa_key(number: u8) -> SoftKey {
    let key = rsa::RsaPrivateKey::new(&mut ChaCha20Rng::from_seed([number; 32]), 2048)
        .expect("a generator that does not repeat itself finds primes");
    SoftKey {
        clear: key.to_pkcs8_der().expect("encodes").as_bytes().to_vec(),
        attributes: Attributes {
            key_type: key_type::RSA_KEY_PAIR,
            bits: 2048,
            algorithm: algorithm::RSA_PKCS1V15_SHA256,
            ..aes_key(16, 0).attributes
        },
    }
}

/// Wraps keys toward a device's unwrap key, into slots 0, 1, 2 …
///
/// # Panics
/// If the device's key is neither on P-256 nor an RSA key.
#[must_use]
pub fn wrap(device: &Statement, keys: &[SoftKey], version: u32) -> Shipment {
    wrap_and_tell(device, keys, version).0
}

/// As [`wrap`]; also gives the key-encryption key.
///
/// # Panics
/// As [`wrap`].
#[must_use]
pub fn wrap_and_tell(device: &Statement, keys: &[SoftKey], version: u32) -> (Shipment, [u8; 32]) {
    wrap_under(device, keys, version, 0)
}

/// As [`wrap_and_tell`], under the key-encryption key with this number: another one for each.
///
/// # Panics
/// As [`wrap`].
#[must_use]
pub fn wrap_under(
    device: &Statement,
    keys: &[SoftKey],
    version: u32,
    number: u8,
) -> (Shipment, [u8; 32]) {
    let (suite, wrapped, clear) = kek(device, number);
    let kek = aes_kw::KwpAes256::new(&clear.into());
    let parcels = keys
        .iter()
        .zip(0..)
        .map(|(key, slot)| {
            let mut blob = vec![0; key.clear.len().next_multiple_of(8) + 8];
            kek.wrap_key(&key.clear, &mut blob).expect("wraps");
            Parcel {
                slot,
                version,
                attributes: key.attributes,
                label: Fixed::try_from(format!("key {slot}").as_str()).expect("short"),
                proof: Proof::strongest(&key.attributes),
                question: Vec::new(),
                blob,
            }
        })
        .collect();
    let shipment = Shipment {
        certificate: None,
        suite,
        kek: wrapped,
        parcels,
    };
    (shipment, clear)
}

/// The key-encryption key with this number toward this device's unwrap key: the suite, its blob, its bytes. The suite is the strongest
/// ECDH suite of the device, or RSA-OAEP with SHA-256.
fn kek(device: &Statement, number: u8) -> (Suite, Vec<u8>, [u8; 32]) {
    let unwrap_key = &device.unwrap_key;
    let secret: [u8; 32] = sha2::Sha256::new_with_prefix(b"ephemeral")
        .chain_update([number])
        .finalize()
        .into();
    if let Ok(recipient) = p256::PublicKey::from_public_key_der(unwrap_key) {
        let ephemeral = p256::SecretKey::from_bytes(&secret.into()).expect("a scalar in range");
        let scalar = ephemeral.to_nonzero_scalar();
        let shared = p256::ecdh::diffie_hellman(scalar, recipient.as_affine());
        let point = ephemeral.public_key().to_sec1_point(false);
        let shared: [u8; 32] = (*shared.raw_secret_bytes()).into();
        let point = point.as_bytes().to_vec();
        if !device.suites.contains(&Suite::EcdhP256X963Sha256) {
            return (Suite::EcdhP256Null, point, shared);
        }
        // ANSI X9.63 for one block of SHA-256 (SEC 1 version 2.0 §3.6.1).
        let recipient = Fingerprint(sha2::Sha256::digest(unwrap_key).into());
        let clear = sha2::Sha256::new_with_prefix(shared)
            .chain_update(1_u32.to_be_bytes())
            .chain_update(x963_shared_info(&recipient))
            .finalize();
        return (Suite::EcdhP256X963Sha256, point, clear.into());
    }
    let recipient = rsa::RsaPublicKey::from_public_key_der(unwrap_key).expect("an RSA key");
    let padding = rsa::Oaep::<sha2::Sha256>::new();
    let wrapped = recipient
        .encrypt(&mut ChaCha20Rng::from_seed(secret), padding, &secret)
        .expect("32 bytes fit");
    (Suite::RsaOaepSha256, wrapped, secret)
}

/// Checks a key's proof, of the kinds that are a signature or a code.
///
/// # Panics
/// If a private key does not parse.
#[must_use]
pub fn proof_is_right(
    key: &SoftKey,
    report: &SlotReport,
    order: &Digest,
    challenge: &Challenge,
) -> bool {
    use hmac::Mac;
    let input = proof_input(order, report.slot, challenge);
    match report.proof {
        Proof::HmacSha256 => {
            <hmac::Hmac<sha2::Sha256> as hmac::KeyInit>::new_from_slice(&key.clear)
                .expect("any length")
                .chain_update(input)
                .verify_slice(&report.value)
                .is_ok()
        }
        Proof::Cmac if key.clear.len() == 16 => cmac(&key.clear, &input, &report.value, false),
        Proof::Cmac => cmac(&key.clear, &input, &report.value, true),
        Proof::EcdsaP256Sha256 => {
            let key = p256::ecdsa::SigningKey::from_pkcs8_der(&key.clear).expect("a P-256 key");
            p256::ecdsa::Signature::from_slice(&report.value)
                .is_ok_and(|signature| key.verifying_key().verify(&input, &signature).is_ok())
        }
        Proof::RsaPkcs1Sha256 => {
            let key = rsa::RsaPrivateKey::from_pkcs8_der(&key.clear).expect("an RSA key");
            let padding = rsa::Pkcs1v15Sign::new::<sha2::Sha256>();
            let hash = sha2::Sha256::digest(input);
            key.to_public_key()
                .verify(padding, &hash, &report.value)
                .is_ok()
        }
        Proof::None | Proof::Agreement | Proof::Decryption | Proof::CheckValue => false,
    }
}

fn cmac(key: &[u8], input: &[u8], value: &[u8], long: bool) -> bool {
    use cmac::{KeyInit, Mac};
    if long {
        cmac::Cmac::<aes::Aes256>::new_from_slice(key)
            .expect("32 bytes")
            .chain_update(input)
            .verify_slice(value)
            .is_ok()
    } else {
        cmac::Cmac::<aes::Aes128>::new_from_slice(key)
            .expect("16 bytes")
            .chain_update(input)
            .verify_slice(value)
            .is_ok()
    }
}
