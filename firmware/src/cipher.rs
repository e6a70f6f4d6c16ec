//! Encryption and decryption under a stored key, by the one algorithm that its attributes permit: for the question of a proof by
//! decryption, and for the application. Says nothing about why something did not open.
//!
//! What is sealed has a form of its own for each algorithm: CTR and CBC, 16 bytes of initial counter or initialisation vector, then
//! the ciphertext (NIST SP 800-38A); GCM, a nonce of 12 bytes, the ciphertext, a tag of 16 bytes (SP 800-38D); RSAES-OAEP with SHA-256 and
//! an empty label, the ciphertext alone (RFC 8017 §7.1).

use keyferry_protocol::attributes::KeyKind;
#[cfg(feature = "rsa-keys")]
use keyferry_protocol::attributes::algorithm;
use rand_core::CryptoRng;

use crate::keys::{Key, UseFailed};
use crate::wipe::wipe;

#[cfg(feature = "aes-modes")]
mod modes;

/// Opens `sealed`, authenticated together with `additional` where the algorithm is one that authenticates (it must be empty otherwise),
/// into the front of `out`, which is wiped on failure. Gives the length in bytes. `rng` blinds an RSA operation.
pub(crate) fn decrypt<R: CryptoRng + ?Sized>(
    key: &Key<'_>,
    additional: &[u8],
    sealed: &[u8],
    rng: &mut R,
    out: &mut [u8],
) -> Result<usize, UseFailed> {
    let opened = match key.kind {
        #[cfg(feature = "aes-modes")]
        KeyKind::Aes(_) => modes::open(key, additional, sealed, out),
        #[cfg(feature = "rsa-keys")]
        KeyKind::Rsa(_) if key.algorithm == algorithm::RSA_OAEP_SHA256 && additional.is_empty() => {
            crate::keys::rsa::decrypt_oaep_sha256(key.secret, sealed, rng, out)
        }
        KeyKind::Rsa(_) | KeyKind::Secret(_) | KeyKind::P256 => {
            let _ = (additional, sealed, rng);
            Err(UseFailed::Unsupported)
        }
        #[cfg(not(feature = "aes-modes"))]
        KeyKind::Aes(_) => Err(UseFailed::Unsupported),
    };
    opened.inspect_err(|_| wipe(out))
}

/// Seals `clear` into the front of `out` with a random vector or nonce, and gives the length in bytes: the clear text's and 16, or for GCM
/// 28. `additional` as in [`decrypt`].
pub(crate) fn encrypt<R: CryptoRng + ?Sized>(
    key: &Key<'_>,
    additional: &[u8],
    clear: &[u8],
    rng: &mut R,
    out: &mut [u8],
) -> Result<usize, UseFailed> {
    match key.kind {
        #[cfg(feature = "aes-modes")]
        KeyKind::Aes(_) => modes::seal(key, additional, clear, rng, out),
        KeyKind::Rsa(_) | KeyKind::Secret(_) | KeyKind::P256 => {
            let _ = (additional, clear, rng, out);
            Err(UseFailed::Unsupported)
        }
        #[cfg(not(feature = "aes-modes"))]
        KeyKind::Aes(_) => Err(UseFailed::Unsupported),
    }
}
