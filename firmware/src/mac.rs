//! Message authentication codes under a stored key, for proofs and for the application.

use aes::{Aes128, Aes256};
use cmac::Cmac;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::keys::UseFailed;

/// AES-CMAC (NIST SP 800-38B), 16 bytes. The key has 16, 24 or 32 bytes.
pub(crate) fn cmac(secret: &[u8], message: &[u8]) -> Result<[u8; 16], UseFailed> {
    match secret.len() {
        16 => tag::<Cmac<Aes128>, 16>(secret, message),
        #[cfg(feature = "aes-192")]
        24 => tag::<Cmac<aes::Aes192>, 16>(secret, message),
        32 => tag::<Cmac<Aes256>, 16>(secret, message),
        _ => Err(UseFailed::Unsupported),
    }
}

/// HMAC-SHA-256 (RFC 2104), 32 bytes, with a key of any length.
pub(crate) fn hmac_sha256(secret: &[u8], message: &[u8]) -> Result<[u8; 32], UseFailed> {
    tag::<Hmac<Sha256>, 32>(secret, message)
}

fn tag<M: KeyInit + Mac, const N: usize>(
    secret: &[u8],
    message: &[u8],
) -> Result<[u8; N], UseFailed> {
    let mut mac = <M as KeyInit>::new_from_slice(secret).map_err(|_| UseFailed::Failed)?;
    mac.update(message);
    let bytes = mac.finalize().into_bytes();
    bytes.as_slice().try_into().map_err(|_| UseFailed::Failed)
}
