//! The device's one large buffer. Blobs come into it one after the other; once the last is opened, the receipt grows in it.

use keyferry_protocol::identity::Signature;
use keyferry_protocol::receipt::MAX_RECEIPT;
use keyferry_protocol::{MAX_BLOB, MAX_CERTIFICATE};

use crate::wipe::wipe;

/// Longest blob that this build takes, in bytes: without RSA keys it is a certificate, since every other key's blob is shorter.
pub(super) const LONGEST_BLOB: usize = if cfg!(feature = "rsa-keys") {
    MAX_BLOB
} else {
    MAX_CERTIFICATE
};

const SIGNED: usize = Signature::LENGTH + MAX_RECEIPT;
const LENGTH: usize = if LONGEST_BLOB > SIGNED {
    LONGEST_BLOB
} else {
    SIGNED
};

/// Room for a blob, or for a receipt with its signature before it, as it is stored.
pub(super) struct Buffer([u8; LENGTH]);

impl Buffer {
    #[inline(always)]
    pub(super) const fn new() -> Self {
        Self([0; LENGTH])
    }

    pub(super) const fn blob(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// Room for a receipt, or for something else that is to be signed.
    pub(super) fn receipt(&mut self) -> &mut [u8] {
        &mut self.0[Signature::LENGTH..SIGNED]
    }

    /// The signature's place and the receipt of this length after it.
    pub(super) fn signed(&mut self, length: usize) -> &mut [u8] {
        &mut self.0[..Signature::LENGTH + length]
    }

    pub(super) fn wipe(&mut self) {
        wipe(&mut self.0);
    }
}
