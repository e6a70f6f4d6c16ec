//! A deliberate defect, feature `sabotage-early-reject`: the padding is looked at no further than to the first thing that is wrong.
//! `cargo xtask bench leakage` must notice the few instructions that this spares.

use rand_core::CryptoRng;
use sha2::Digest;
use subtle::Choice;

use crate::keys::rsa::{apply, oaep, private_key};
use crate::wipe::{Secret, wipe};

/// Decrypts `blob`, blinded by `rng` and checked against faults, into `kek`. Valid if the padding is right and exactly
/// 32 bytes are inside.
pub(super) fn open<D: Digest, R: CryptoRng + ?Sized>(
    secret: &[u8],
    blob: &[u8],
    rng: &mut R,
    kek: &mut Secret<32>,
) -> Choice {
    let Ok(key) = private_key(secret) else {
        return Choice::from(0);
    };
    let Some((mut encoded, in_range)) = apply(&key, blob, rng) else {
        return Choice::from(0);
    };
    let opened = decode::<D>(&mut encoded, kek).is_some();
    wipe(&mut encoded);
    Choice::from(u8::from(opened)) & in_range
}

fn decode<D: Digest>(encoded: &mut [u8], kek: &mut Secret<32>) -> Option<()> {
    let unmasked = oaep::unmask::<D>(encoded)?;
    if !bool::from(unmasked.begins_right::<D>()) {
        return None;
    }
    let (padding, message) = unmasked.padded.split_last_chunk::<32>()?;
    let (separator, filler) = padding.split_last()?;
    if *separator != 1 || filler.iter().any(|byte| *byte != 0) {
        return None;
    }
    kek.expose_mut().copy_from_slice(message);
    Some(())
}
