//! Private keys as PKCS#8 DER (RFC 5208, RFC 5958), the form in which HSMs wrap them, to their secret bytes.
//!
//! The reader is strict where strictness costs no token: one algorithm identifier, shortest lengths, nothing left over.
//! It allows what tokens are known to do: parameters and public key inside the EC key or not (RFC 5915), and scalars
//! without their leading zeros (kryoptic up to 1.5).

use keyferry_protocol::identity::p256_spki;

use super::cut;
use super::der::{
    BIT_STRING, CONTEXT_0, CONTEXT_1, CONTEXT_1_PRIMITIVE, INTEGER, OCTET_STRING, Reader, SEQUENCE,
};
use crate::keys;

/// Contents of the algorithm identifier of a P-256 key (RFC 5480 §2.1.1): `id-ecPublicKey`, `secp256r1`.
const P256_ALGORITHM: &[u8] = p256_spki::PREFIX.split_at(4).1.split_at(19).0;

/// The curve alone, as an EC private key names it.
const P256_CURVE: &[u8] = P256_ALGORITHM.split_at(9).1;

/// A P-256 key: writes its scalar, left-padded, into `out`, which has 32 bytes.
pub(super) fn p256(plain: &[u8], out: &mut [u8]) -> Option<()> {
    let mut outer = Reader::new(private_key(plain, P256_ALGORITHM)?);
    let mut key = Reader::new(outer.element(SEQUENCE)?);
    outer.end()?;

    if key.element(INTEGER)? != [1] {
        return None;
    }
    let scalar = key.element(OCTET_STRING)?;
    if let Some(parameters) = key.optional(CONTEXT_0)?
        && parameters != P256_CURVE
    {
        return None;
    }
    // The public key is not used: which one belongs to the scalar shows in the proof.
    if let Some(public) = key.optional(CONTEXT_1)? {
        let mut public = Reader::new(public);
        public.element(BIT_STRING)?;
        public.end()?;
    }
    key.end()?;

    let (padding, rest) = out.split_at_mut(out.len().checked_sub(scalar.len())?);
    padding.fill(0);
    rest.copy_from_slice(scalar);
    let scalar: &[u8; keys::p256::SECRET_LENGTH] = (&*out).try_into().ok()?;
    keys::p256::is_valid(scalar).then_some(())
}

/// An RSA key with two primes (RFC 8017 A.1.2): writes e ‖ p ‖ q into `out`, whose length says how long the modulus must
/// be, and checks that they are a usable key with that modulus. d and the CRT values are computed anew when needed.
#[cfg(feature = "rsa-keys")]
pub(super) fn rsa(plain: &[u8], out: &mut [u8]) -> Option<()> {
    let mut outer = Reader::new(private_key(plain, RSA_ALGORITHM)?);
    let mut key = Reader::new(outer.element(SEQUENCE)?);
    outer.end()?;

    // Version 0: no further primes.
    if key.element(INTEGER)? != [0] {
        return None;
    }
    let (n, e, _d) = (key.unsigned()?, key.unsigned()?, key.unsigned()?);
    let (p, q) = (key.unsigned()?, key.unsigned()?);
    let (_dp, _dq, _qinv) = (key.unsigned()?, key.unsigned()?, key.unsigned()?);
    key.end()?;
    keys::rsa::import(n, e, p, q, out).ok()
}

/// Contents of the algorithm identifier of an RSA key (RFC 8017 A.1): `rsaEncryption`, NULL.
#[cfg(feature = "rsa-keys")]
const RSA_ALGORITHM: &[u8] = keys::rsa::ALGORITHM.split_at(2).1;

/// The contents of the private-key field of a `PrivateKeyInfo` with this algorithm.
fn private_key<'a>(plain: &'a [u8], algorithm: &[u8]) -> Option<&'a [u8]> {
    let mut whole = Reader::new(plain);
    let mut info = Reader::new(whole.element(SEQUENCE)?);
    cut(plain, plain.len() - whole.remaining())?;

    let version = info.element(INTEGER)?;
    if info.element(SEQUENCE)? != algorithm {
        return None;
    }
    let key = info.element(OCTET_STRING)?;
    // Attributes say nothing that the signed attributes of the order do not say.
    info.optional(CONTEXT_0)?;
    // RFC 5958 §2: version 1 means that the public key follows, and it follows only then.
    let public = info.optional(CONTEXT_1_PRIMITIVE)?;
    info.end()?;
    match (version, public) {
        ([0], None) | ([1], Some(_)) => Some(key),
        (_, None | Some(_)) => None,
    }
}
