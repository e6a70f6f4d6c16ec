//! Opens what a token wrapped, to see what it really is. **This folder is the only place in the host that ever holds a private
//! key or an opened key**, and all of them are worthless: the recipient's keys are generated here and never leave the process;
//! the keys that are opened were generated a moment ago for this purpose, by the token ([`ThrowAway`]) or here
//! ([`parcel`]). No function here takes a handle or a blob of anybody's key. What leaves this folder says how a key was
//! wrapped, never what it is.

mod padding;
pub(super) mod parcel;
mod pkcs8;
pub(super) mod results;

use std::sync::OnceLock;

use p256::elliptic_curve::ecdh::diffie_hellman;
use rsa::traits::PublicKeyParts;
use rsa::{Oaep, RsaPrivateKey};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use self::padding::{Clear, recognise};
use super::fact::Difference;
use super::throwaway::{TRIAL_LABEL, ThrowAway};
use crate::hsm::error::HsmError;
use crate::hsm::key::{Flag, Flags, KeyClass, KeyType};
use crate::hsm::pkcs11::{
    Connection, EcdhDerivation, KeyHandle, SessionObject, WrapMechanism, WrapOutcome,
};
use crate::hsm::public_key::{PublicKey, PublicNumbers};
use crate::hsm::token::generator;

/// Length in bits of the throw-away RSA key: the shortest that anything may be wrapped for.
const RSA_BITS: usize = 2048;

/// Room for whatever a token makes of a throw-away key, in bytes: a wrapped RSA-4096 key has about 2400.
const CAPACITY: usize = 8192;

/// Shared information of the X9.63 derivation in a trial.
const SHARED_INFO: &[u8] = b"keyferry trial x";

/// The AES key type of every KEK.
const KEK: KeyType = KeyType::Aes { bits: 256 };

/// What is around a key in its wrapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// RFC 5649 over exactly the key.
    Exact,
    /// RFC 5649 over the key and zero bytes up to a multiple of 8.
    ZeroTail,
    /// RFC 3394 over the key with PKCS#7 padding.
    Pkcs7,
}

/// What was seen in the wrapping of a throw-away key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) shape: Shape,
    pub(super) start: Start,
}

/// How a key begins. Only of an elliptic-curve private key it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// Not with a zero byte.
    Plain,
    /// With a zero byte, as it should.
    ZeroKept,
    /// It should begin with a zero byte, and that is missing (RFC 5915 §3 wants it).
    ZeroDropped,
}

impl Look {
    /// What is not as RFC 5649 has it. How a key begins is another question, for it matters to one key in 256 only.
    pub(super) const fn difference(self) -> Option<Difference> {
        match self.shape {
            Shape::Pkcs7 => Some(Difference::Pkcs7),
            Shape::ZeroTail => Some(Difference::ZeroTail),
            Shape::Exact => None,
        }
    }
}

/// A way for a KEK from the token to here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    EcdhNull,
    EcdhX963Sha256,
    OaepSha256,
    OaepSha1,
}

/// The value of a throw-away KEK.
type ClearKek = Zeroizing<[u8; 32]>;

/// A KEK made for a trial: the token has it, and so has this folder.
pub(super) struct SharedKek<'c> {
    object: SessionObject<'c>,
    clear: ClearKek,
}

/// What became of an attempt to share a KEK.
pub(super) enum Shared<'c> {
    /// It came, on this route, which may not be the one that was asked for.
    Kek(SharedKek<'c>, Route),
    /// What came is no KEK, or not the one that the token has.
    Lost,
    /// It cannot be told, because the token wraps nothing under it.
    Unseen,
}

impl<'c> Shared<'c> {
    /// The KEK, if it came.
    pub(super) fn kek(self) -> Option<SharedKek<'c>> {
        match self {
            Self::Kek(kek, _) => Some(kek),
            Self::Lost | Self::Unseen => None,
        }
    }
}

/// The throw-away RSA key of this process, made when it is first needed.
fn rsa_key() -> Result<&'static RsaPrivateKey, HsmError> {
    static KEY: OnceLock<RsaPrivateKey> = OnceLock::new();
    if let Some(key) = KEY.get() {
        return Ok(key);
    }
    let key = RsaPrivateKey::new(&mut generator()?, RSA_BITS)
        .map_err(|error| HsmError::Random(error.to_string()))?;
    Ok(KEY.get_or_init(|| key))
}

/// The throw-away P-256 key of this process.
fn ec_key() -> Result<&'static p256::SecretKey, HsmError> {
    static KEY: OnceLock<p256::SecretKey> = OnceLock::new();
    if let Some(key) = KEY.get() {
        return Ok(key);
    }
    let key = parcel::p256_key(false)?;
    Ok(KEY.get_or_init(|| key))
}

/// One wrapping of something that a trial made.
fn wrap(
    connection: &Connection,
    mechanism: WrapMechanism,
    with: KeyHandle,
    key: &ThrowAway<'_>,
) -> Result<Vec<u8>, HsmError> {
    match connection.wrap(mechanism, with, key.handle(), CAPACITY)? {
        WrapOutcome::Wrapped(blob) => Ok(blob),
        WrapOutcome::Refused { function, code } => Err(HsmError::Token { function, code }),
    }
}

/// Makes a KEK on the token that may wrap, and beside that what `usage` says, and brings it here.
pub(super) fn share<'c>(
    connection: &'c Connection,
    route: Route,
    usage: &[Flag],
) -> Result<Shared<'c>, HsmError> {
    let usage = [&[Flag::Wrap], usage].concat();
    match route {
        Route::OaepSha256 => share_by_oaep(connection, WrapMechanism::OaepSha256, &usage),
        Route::OaepSha1 => share_by_oaep(connection, WrapMechanism::OaepSha1, &usage),
        Route::EcdhX963Sha256 => {
            let derivation = EcdhDerivation::X963Sha256(SHARED_INFO);
            share_by_ecdh(connection, derivation, &usage)
        }
        Route::EcdhNull => share_by_ecdh(connection, EcdhDerivation::Null, &usage),
    }
}

fn share_by_oaep<'c>(
    connection: &'c Connection,
    mechanism: WrapMechanism,
    usage: &[Flag],
) -> Result<Shared<'c>, HsmError> {
    let recipient = import_rsa(connection)?;
    let kek = ThrowAway::generate(connection, KEK, &[usage, &[Flag::Extractable]].concat())?;
    let blob = wrap(connection, mechanism, recipient.handle(), &kek)?;
    Ok(match open_oaep(&blob)? {
        Some((clear, route)) => {
            let object = kek.into_object();
            Shared::Kek(SharedKek { object, clear }, route)
        }
        None => Shared::Lost,
    })
}

/// The throw-away RSA key's public half on the token, to wrap with.
fn import_rsa(connection: &Connection) -> Result<SessionObject<'_>, HsmError> {
    let key = rsa_key()?;
    let public = PublicKey::from_rsa(&key.n_bytes(), &key.e_bytes())?;
    let flags = Flags::of(KeyClass::Public, &[Flag::Destroyable, Flag::Wrap]);
    let handle = connection.import_public(&public, TRIAL_LABEL, &[], &flags)?;
    Ok(connection.guard(handle))
}

/// Opens a KEK with the throw-away RSA key, whichever hash it was wrapped with.
fn open_oaep(blob: &[u8]) -> Result<Option<(ClearKek, Route)>, HsmError> {
    let key = rsa_key()?;
    let attempts = [
        (key.decrypt(Oaep::<Sha256>::new(), blob), Route::OaepSha256),
        (key.decrypt(Oaep::<Sha1>::new(), blob), Route::OaepSha1),
    ];
    for (opened, route) in attempts {
        let Ok(opened) = opened.map(Zeroizing::new) else {
            continue;
        };
        if let Ok(kek) = opened.as_slice().try_into() {
            return Ok(Some((Zeroizing::new(kek), route)));
        }
    }
    Ok(None)
}

fn share_by_ecdh<'c>(
    connection: &'c Connection,
    derivation: EcdhDerivation<'_>,
    usage: &[Flag],
) -> Result<Shared<'c>, HsmError> {
    let ours = ec_key()?;
    let theirs = ThrowAway::generate(connection, KeyType::P256, &[Flag::Derive])?;
    let Some(PublicNumbers::P256(point)) = theirs.public_key().map(PublicKey::numbers) else {
        return Ok(Shared::Lost);
    };
    let Ok(public) = p256::PublicKey::from_sec1_bytes(point) else {
        return Ok(Shared::Lost);
    };
    let agreed = diffie_hellman(ours.to_nonzero_scalar(), public.as_affine());
    let plain: ClearKek = Zeroizing::new((*agreed.raw_secret_bytes()).into());
    let derived = Zeroizing::new(x963_sha256(&plain, SHARED_INFO));
    let always = [Flag::Private, Flag::Destroyable, Flag::Sensitive];
    let flags = Flags::of(KeyClass::Secret, &[&always, usage].concat());
    let point = ours.public_key().to_sec1_bytes();
    let object =
        connection.derive_ecdh(theirs.handle(), &point, derivation, TRIAL_LABEL, &flags)?;
    // Which KEK the token has shows in what it wraps.
    let key = ThrowAway::generate(connection, KEK, &[Flag::Extractable, Flag::Encrypt])?;
    for mechanism in [WrapMechanism::Kwp, WrapMechanism::Pad] {
        let blob = match wrap(connection, mechanism, object.handle(), &key) {
            Ok(blob) => blob,
            Err(error) if connection.is_lost() => return Err(error),
            Err(_) => continue,
        };
        for (clear, route) in [(&plain, Route::EcdhNull), (&derived, Route::EcdhX963Sha256)] {
            if recognise(connection, clear, &blob, &key).is_some() {
                let clear = clear.clone();
                return Ok(Shared::Kek(SharedKek { object, clear }, route));
            }
        }
        return Ok(Shared::Lost);
    }
    Ok(Shared::Unseen)
}

/// ANSI X9.63 with SHA-256 for 32 bytes, which is one block: SHA-256 of the secret, the counter 1 and the shared information
/// (SEC 1 §3.6.1).
fn x963_sha256(secret: &[u8; 32], shared_info: &[u8]) -> [u8; 32] {
    Sha256::new()
        .chain_update(secret)
        .chain_update(1u32.to_be_bytes())
        .chain_update(shared_info)
        .finalize()
        .into()
}

/// Wraps the throw-away key for the throw-away RSA key in a single step. Gives the hash that was really used, as the route, and how
/// the key was wrapped; nothing if it does not come out.
pub(super) fn look_at_single_step(
    connection: &Connection,
    mechanism: WrapMechanism,
    key: &ThrowAway<'_>,
) -> Result<Option<(Route, Look)>, HsmError> {
    let recipient = import_rsa(connection)?;
    let blob = wrap(connection, mechanism, recipient.handle(), key)?;
    let Some((kek, rest)) = blob.split_at_checked(RSA_BITS / 8) else {
        return Ok(None);
    };
    Ok(open_oaep(kek)?.and_then(|(kek, route)| {
        recognise(connection, &kek, rest, key).map(|(_, look)| (route, look))
    }))
}

/// Wraps the throw-away key under the KEK and says how it was wrapped; nothing if it does not come out.
pub(super) fn look(
    connection: &Connection,
    kek: &SharedKek<'_>,
    mechanism: WrapMechanism,
    key: &ThrowAway<'_>,
) -> Result<Option<Look>, HsmError> {
    Ok(open(connection, kek, mechanism, key)?.map(|(_, look)| look))
}

/// Wraps the throw-away key under the KEK and opens it.
fn open(
    connection: &Connection,
    kek: &SharedKek<'_>,
    mechanism: WrapMechanism,
    key: &ThrowAway<'_>,
) -> Result<Option<(Clear, Look)>, HsmError> {
    let blob = wrap(connection, mechanism, kek.object.handle(), key)?;
    Ok(recognise(connection, &kek.clear, &blob, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the parameters of a mechanism say does not matter: the hash is known by what opens.
    #[test]
    fn the_hash_is_told_by_opening() {
        let public = rsa_key().unwrap().to_public_key();
        let mut generator = generator().unwrap();
        let mut seal = |sha256: bool, kek: &[u8]| {
            if sha256 {
                public.encrypt(&mut generator, Oaep::<Sha256>::new(), kek)
            } else {
                public.encrypt(&mut generator, Oaep::<Sha1>::new(), kek)
            }
            .unwrap()
        };
        for (sha256, route) in [(true, Route::OaepSha256), (false, Route::OaepSha1)] {
            let (kek, found) = open_oaep(&seal(sha256, &[7; 32])).unwrap().unwrap();
            assert_eq!((*kek, found), ([7; 32], route));
            // A KEK of another length is none.
            assert!(open_oaep(&seal(sha256, &[7; 16])).unwrap().is_none());
        }
        assert!(open_oaep(&[1; 256]).unwrap().is_none());
        assert!(open_oaep(b"short").unwrap().is_none());
    }

    #[test]
    fn x963_of_a_published_vector() {
        // NIST CAVP, ANS X9.63-2001 KDF, SHA-256, first vector without shared information: the first 16 bytes of the key.
        let secret = hex::decode("96c05619d56c328ab95fe84b18264b08725b85e33fd34f08").unwrap();
        let hash = Sha256::new()
            .chain_update(&secret)
            .chain_update(1u32.to_be_bytes())
            .finalize();
        assert_eq!(hex::encode(&hash[..16]), "443024c3dae66b95e6f5670601558f71");
        // Ours takes secrets of 32 bytes, and adds the shared information at the end.
        let ours = x963_sha256(&[7; 32], b"info");
        let expected: [u8; 32] =
            Sha256::digest([&[7; 32][..], &[0, 0, 0, 1], b"info"].concat()).into();
        assert_eq!(ours, expected);
    }
}
