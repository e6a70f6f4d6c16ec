//! Shipments that must not open, each for a reason of its own. Whoever has the device's public key can make them, so
//! a device that answers them differently, or in another time, answers questions about its unwrap key.

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use heapless::String as Fixed;
use keyferry::device::flow::{Parcel, Shipment};
use keyferry::device::verify::Statement;
use keyferry_protocol::proof::Proof;
use keyferry_protocol::suite::{Suite, UnwrapAlgorithm};
use p256::elliptic_curve::sec1::ToSec1Point;
use rsa::pkcs8::DecodePublicKey;
use rsa::traits::PublicKeyParts;
use rsa::{BoxedUint, RsaPublicKey};
use sha2::{Digest, Sha256};

use crate::software::{SoftKey, aes_key};

/// Length of the key inside, AES-256, in bytes.
const KEY: usize = 32;
/// Length of the KEK in bytes.
const KEK: usize = 32;
/// Length of a SHA-256 digest in bytes.
const HASH: usize = 32;
/// What an AES-KWP wrapping begins with inside (RFC 5649 §3).
const KWP_PREFIX: [u8; 4] = [0xa6, 0x59, 0x59, 0xa6];

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The encoded message does not begin with zero: what Manger's attack asks about.
    FirstByte,
    /// The label's hash is another one.
    Label,
    /// A byte that should be zero is not.
    Filler,
    /// The one before the message is missing.
    Separator,
    /// The KEK's blob is a random number.
    RandomNumber,
    /// The KEK's blob is a number above the modulus.
    AboveModulus,
    /// Right padding, but a KEK of 16 bytes.
    ShortKek,
    /// Right padding, but a KEK of 33 bytes.
    LongKek,
    /// The KEK's blob is a point that belongs to another KEK.
    OtherPoint,
    /// The KEK's blob is no point of the curve.
    OffCurve,
    /// The right KEK; the key's blob is random.
    RandomKey,
    /// The right KEK; one bit of the key's integrity check value is wrong.
    CheckValue,
    /// The right KEK and check value; the length field says 24 bytes, in the blob of 32.
    LengthField,
    /// The right KEK and check value; the byte that fills the key up is not zero.
    KeyFiller,
    /// All right, but the key inside has 31 bytes where the order says 32.
    ShortKey,
    /// All right, but the key inside has 25 bytes where the order says 32.
    ShortestKey,
}

/// What a fault is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// The blob of the KEK; for RSA, its padding.
    BadKek,
    /// The wrapping of the key, under a KEK that opens.
    BadWrapping,
    /// A length inside what opens.
    WrongLength,
}

impl Group {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::BadKek, Self::BadWrapping, Self::WrongLength];

    /// Its name in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadKek => "bad-kek",
            Self::BadWrapping => "bad-wrapping",
            Self::WrongLength => "wrong-length",
        }
    }
}

impl Fault {
    /// Those of a KEK under RSA.
    const RSA: [Self; 8] = [
        Self::FirstByte,
        Self::Label,
        Self::Filler,
        Self::Separator,
        Self::RandomNumber,
        Self::AboveModulus,
        Self::ShortKek,
        Self::LongKek,
    ];

    /// Those of a KEK by ECDH.
    const P256: [Self; 2] = [Self::OtherPoint, Self::OffCurve];

    /// Those of a key under a KEK that opens.
    const KEY: [Self; 6] = [
        Self::RandomKey,
        Self::CheckValue,
        Self::LengthField,
        Self::KeyFiller,
        Self::ShortKey,
        Self::ShortestKey,
    ];

    /// All that can be wrong toward an unwrap key of this kind.
    #[must_use]
    pub fn toward(algorithm: UnwrapAlgorithm) -> Vec<Self> {
        let kek: &[Self] = match algorithm {
            UnwrapAlgorithm::P256 => &Self::P256,
            UnwrapAlgorithm::Rsa2048 | UnwrapAlgorithm::Rsa3072 | UnwrapAlgorithm::Rsa4096 => {
                &Self::RSA
            }
        };
        [kek, &Self::KEY].concat()
    }

    /// Whether anyone who sees the blob sees the fault: then it may cost what it costs.
    #[must_use]
    pub fn shows(self) -> bool {
        self == Self::OffCurve
    }

    /// Its name in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FirstByte => "oaep-first-byte",
            Self::Label => "oaep-label",
            Self::Filler => "oaep-filler",
            Self::Separator => "oaep-no-separator",
            Self::RandomNumber => "oaep-random-number",
            Self::AboveModulus => "oaep-above-modulus",
            Self::ShortKek => "oaep-16-bytes",
            Self::LongKek => "oaep-33-bytes",
            Self::OtherPoint => "ecdh-other-point",
            Self::OffCurve => "ecdh-off-curve",
            Self::RandomKey => "kwp-random",
            Self::CheckValue => "kwp-check-value",
            Self::LengthField => "kwp-length-field",
            Self::KeyFiller => "kwp-filler",
            Self::ShortKey => "key-31-of-32-bytes",
            Self::ShortestKey => "key-25-of-32-bytes",
        }
    }

    /// What it is about.
    #[must_use]
    pub const fn group(self) -> Group {
        match self {
            Self::FirstByte
            | Self::Label
            | Self::Filler
            | Self::Separator
            | Self::RandomNumber
            | Self::AboveModulus
            | Self::OtherPoint
            | Self::OffCurve => Group::BadKek,
            Self::RandomKey | Self::CheckValue | Self::KeyFiller => Group::BadWrapping,
            Self::ShortKek
            | Self::LongKek
            | Self::LengthField
            | Self::ShortKey
            | Self::ShortestKey => Group::WrongLength,
        }
    }

    /// The bytes of the encoded message (RFC 8017 §7.1.1 step 2), before they are encrypted with the public key.
    fn encoded(self, length: usize, kek: &[u8], seed: &[u8; HASH]) -> Vec<u8> {
        let mut message = kek.to_vec();
        if self == Self::ShortKek {
            message.truncate(16);
        }
        if self == Self::LongKek {
            message.push(0x77);
        }
        let mut data = vec![0; length - 1 - HASH];
        data[..HASH].copy_from_slice(&Sha256::digest([]));
        let separator = data.len() - message.len() - 1;
        data[separator] = 1;
        data[separator + 1..].copy_from_slice(&message);
        if self == Self::Label {
            data[HASH - 1] ^= 1;
        }
        if self == Self::Filler {
            data[HASH + (separator - HASH) / 2] = 2;
        }
        if self == Self::Separator {
            // Zeros to the end, or the first one in the message would take its place.
            data[separator..].fill(0);
        }
        let first = u8::from(self == Self::FirstByte);
        let mut masked_seed = *seed;
        mask(seed, &mut data);
        mask(&data, &mut masked_seed);
        [&[first][..], &masked_seed, &data].concat()
    }

    /// The KEK's blob toward an RSA key.
    fn rsa_blob(self, recipient: &RsaPublicKey, kek: &[u8; KEK], number: u64) -> Vec<u8> {
        let length = recipient.size();
        let bits = recipient.n_bits_precision();
        if self == Self::RandomNumber {
            let mut blob = stream(b"random number", number, length);
            // Below every modulus of this length.
            blob[0] &= 0x7f;
            return blob;
        }
        if self == Self::AboveModulus {
            let mut blob = stream(b"above modulus", number, length);
            blob[..8].fill(0xff);
            return blob;
        }
        let encoded = self.encoded(length, kek, &hash(b"oaep seed", number));
        let message = BoxedUint::from_be_slice(&encoded, bits).expect("as long as the modulus");
        let encrypted = rsa::hazmat::rsa_encrypt(recipient, &message).expect("below the modulus");
        encrypted.to_be_bytes().to_vec()
    }

    /// The key's blob: AES-256-KWP by hand.
    fn key_blob(self, kek: &[u8; KEK], number: u64) -> Vec<u8> {
        if self == Self::RandomKey {
            return stream(b"random key", number, KEY + 8);
        }
        let mut key = hash(b"key", number);
        let mut prefix = KWP_PREFIX;
        let mut length = 32_u32;
        if self == Self::CheckValue {
            prefix[3] ^= 1;
        }
        if self == Self::LengthField {
            length = 24;
        }
        if self == Self::KeyFiller || self == Self::ShortKey {
            length = 31;
            key[31] = u8::from(self == Self::KeyFiller);
        }
        if self == Self::ShortestKey {
            length = 25;
            key[25..].fill(0);
        }
        let mut front = [0; 8];
        front[..4].copy_from_slice(&prefix);
        front[4..].copy_from_slice(&length.to_be_bytes());
        wrap_raw(kek, front, &key)
    }

    /// The KEK's blob toward a P-256 key, an uncompressed point, and the KEK: the shared x coordinate.
    fn p256_blob(self, recipient: &p256::PublicKey, number: u64) -> (Vec<u8>, [u8; KEK]) {
        let ephemeral = |what: &[u8]| {
            let scalar = hash(what, number);
            p256::SecretKey::from_bytes(&scalar.into()).expect("a scalar in range")
        };
        let right = ephemeral(b"kek");
        let shared = p256::ecdh::diffie_hellman(right.to_nonzero_scalar(), recipient.as_affine());
        let sent = if self == Self::OtherPoint {
            ephemeral(b"other kek")
        } else {
            right
        };
        let mut point = sent.public_key().to_sec1_point(false).as_bytes().to_vec();
        if self == Self::OffCurve {
            // No other y but −y goes with this x.
            point[64] ^= 1;
        }
        (point, (*shared.raw_secret_bytes()).into())
    }

    /// The suite, the KEK's blob and the KEK toward this unwrap key.
    fn kek(self, unwrap_key: &[u8], number: u64) -> (Suite, Vec<u8>, [u8; KEK]) {
        if let Ok(recipient) = p256::PublicKey::from_public_key_der(unwrap_key) {
            let (point, kek) = self.p256_blob(&recipient, number);
            return (Suite::EcdhP256Null, point, kek);
        }
        let recipient = RsaPublicKey::from_public_key_der(unwrap_key).expect("an RSA key");
        let kek = hash(b"kek", number);
        let blob = self.rsa_blob(&recipient, &kek, number);
        (Suite::RsaOaepSha256, blob, kek)
    }

    /// A shipment of one AES-256 key with this fault, which must be one [toward](Self::toward) the device's unwrap key. Each
    /// number has its own KEK, key and padding.
    ///
    /// # Panics
    /// If the device's unwrap key is neither on P-256 nor an RSA key.
    #[must_use]
    pub fn shipment(self, device: &Statement, number: u64) -> Shipment {
        let (suite, wrapped, kek) = self.kek(&device.unwrap_key, number);
        let SoftKey { attributes, .. } = aes_key(KEY as u16, 0);
        Shipment {
            certificate: None,
            suite,
            kek: wrapped,
            parcels: vec![Parcel {
                slot: 0,
                version: 1,
                attributes,
                label: Fixed::try_from("spoiled").expect("short"),
                proof: Proof::strongest(&attributes),
                question: Vec::new(),
                blob: self.key_blob(&kek, number),
            }],
        }
    }
}

/// A digest that stands for a random value.
fn hash(what: &[u8], number: u64) -> [u8; 32] {
    Sha256::new()
        .chain_update(what)
        .chain_update(number.to_le_bytes())
        .finalize()
        .into()
}

/// `length` bytes that stand for random ones.
fn stream(what: &[u8], number: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    mask(&hash(what, number), &mut bytes);
    bytes
}

/// MGF1 with SHA-256 (RFC 8017 B.2.1), added to `data`.
fn mask(seed: &[u8], data: &mut [u8]) {
    for (counter, chunk) in (0_u32..).zip(data.chunks_mut(HASH)) {
        let digest = Sha256::new()
            .chain_update(seed)
            .chain_update(counter.to_be_bytes());
        for (byte, mask) in chunk.iter_mut().zip(digest.finalize()) {
            *byte ^= mask;
        }
    }
}

/// The wrapping function W of NIST SP 800-38F §6.1, with whatever stands in front: libraries only make good blobs.
fn wrap_raw(kek: &[u8; KEK], front: [u8; 8], key: &[u8]) -> Vec<u8> {
    let cipher = aes::Aes256::new(kek.into());
    let mut front = front;
    let mut rest = key.to_vec();
    let mut step = 0_u64;
    for _ in 0..6 {
        for semiblock in rest.chunks_mut(8) {
            step += 1;
            let mut block = [0; 16];
            block[..8].copy_from_slice(&front);
            block[8..].copy_from_slice(semiblock);
            cipher.encrypt_block((&mut block).into());
            let (left, right) = block.split_at(8);
            for ((out, byte), count) in front.iter_mut().zip(left).zip(step.to_be_bytes()) {
                *out = byte ^ count;
            }
            semiblock.copy_from_slice(right);
        }
    }
    [&front[..], &rest].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_fault_the_wrapping_by_hand_is_the_librarys() {
        let (kek, key) = (hash(b"a kek", 0), hash(b"a key", 0));
        let mut expected = [0; KEY + 8];
        aes_kw::KwpAes256::new(&kek.into())
            .wrap_key(&key, &mut expected)
            .unwrap();
        let front = [0xa6, 0x59, 0x59, 0xa6, 0, 0, 0, 32];
        assert_eq!(wrap_raw(&kek, front, &key), expected);
    }
}
