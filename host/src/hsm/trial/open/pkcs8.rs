//! Private keys as they are wrapped: PKCS#8 in DER (RFC 5958).

use der::asn1::{AnyRef, BitStringRef, OctetStringRef};
use der::{Decode, Reader, Sequence, SliceReader};
use p256::pkcs8::PrivateKeyInfoRef;
use rsa::pkcs8::DecodePrivateKey;
use rsa::traits::PublicKeyParts;
use rsa::{BoxedUint, RsaPrivateKey};
use zeroize::Zeroizing;

use super::Start;
use crate::hsm::public_key::{PublicKey, PublicNumbers};

/// `ECPrivateKey` (RFC 5915 §3).
#[derive(Sequence)]
struct EcPrivateKey<'a> {
    version: u8,
    private_key: &'a OctetStringRef,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    parameters: Option<AnyRef<'a>>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    public_key: Option<BitStringRef<'a>>,
}

/// Length in bytes of the DER at the beginning of `opened`.
pub(super) fn length(opened: &[u8]) -> Option<usize> {
    let mut reader = SliceReader::new(opened).ok()?;
    AnyRef::decode(&mut reader).ok()?;
    let rest = usize::try_from(reader.remaining_len()).ok()?;
    opened.len().checked_sub(rest)
}

/// Compares a private key with the public key that should belong to it, and says how it begins; nothing if it is another one, or no
/// private key. Of P-384 only the public key inside is compared, of Ed25519 nothing but the form: there is no arithmetic for
/// these curves here.
pub(super) fn compare(der: &[u8], public: &PublicKey) -> Option<Start> {
    match public.numbers() {
        PublicNumbers::Rsa { modulus, .. } => {
            let key = RsaPrivateKey::from_pkcs8_der(der).ok()?;
            let modulus = BoxedUint::from_be_slice_vartime(modulus);
            (**key.n() == modulus).then_some(Start::Plain)
        }
        PublicNumbers::P256(point) => {
            let scalar = ec_scalar(der, point)?;
            let mut padded = Zeroizing::new([0; 32]);
            let missing = padded.len().checked_sub(scalar.len())?;
            padded[missing..].copy_from_slice(&scalar);
            let key = p256::SecretKey::from_slice(&*padded).ok()?;
            let same = *key.public_key().to_sec1_bytes() == *point;
            same.then(|| start(&scalar, 32))
        }
        PublicNumbers::P384(point) => {
            let scalar = ec_scalar(der, point)?;
            (scalar.len() <= 48).then(|| start(&scalar, 48))
        }
        PublicNumbers::Ed25519(_) => {
            let info = PrivateKeyInfoRef::from_der(der).ok()?;
            let seed = <&OctetStringRef>::from_der(info.private_key.as_bytes()).ok()?;
            (seed.as_bytes().len() == 32).then_some(Start::Plain)
        }
    }
}

fn start(scalar: &[u8], length: usize) -> Start {
    match scalar.first() {
        _ if scalar.len() < length => Start::ZeroDropped,
        Some(0) => Start::ZeroKept,
        Some(_) | None => Start::Plain,
    }
}

/// The private number of an elliptic-curve key; nothing if another public key is with it.
fn ec_scalar(der: &[u8], point: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let info = PrivateKeyInfoRef::from_der(der).ok()?;
    let key = EcPrivateKey::from_der(info.private_key.as_bytes()).ok()?;
    let other = |with: BitStringRef<'_>| with.as_bytes() != Some(point);
    let right = key.version == 1 && !key.public_key.is_some_and(other);
    right.then(|| Zeroizing::new(key.private_key.as_bytes().to_vec()))
}
