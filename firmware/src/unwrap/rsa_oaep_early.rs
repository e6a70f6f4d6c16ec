//! A deliberate defect, feature `sabotage-early-reject`: the padding is taken off by the `rsa` crate, which returns early
//! where it is wrong. `cargo xtask bench leakage` must notice the few instructions that this spares.

use rand_core::CryptoRng;
use rsa::Oaep;
use sha2::Digest;
use sha2::digest::FixedOutputReset;
use subtle::{Choice, ConstantTimeEq as _};

use crate::keys::rsa::private_key;
use crate::wipe::{Secret, wipe};

/// Decrypts `blob`, blinded by `rng` and checked against faults, into `kek`. Valid if the padding is right and exactly
/// 32 bytes are inside.
pub(super) fn open<D: Digest + FixedOutputReset, R: CryptoRng + ?Sized>(
    secret: &[u8],
    blob: &[u8],
    rng: &mut R,
    kek: &mut Secret<32>,
) -> Choice {
    let Ok(key) = private_key(secret) else {
        return Choice::from(0);
    };
    match key.decrypt_blinded(rng, Oaep::<D>::new(), blob) {
        Ok(mut message) => {
            let valid = message.len().ct_eq(&kek.expose().len());
            for (byte, inside) in kek.expose_mut().iter_mut().zip(&message) {
                *byte = *inside;
            }
            wipe(&mut message);
            valid
        }
        Err(_) => Choice::from(0),
    }
}
