//! Seals: how secrets are encrypted and how a snapshot is authenticated, all under the root key.
//!
//! A secret is wrapped with AES-256-KWP (RFC 5649, deterministic, no nonce) under a KEK of its own,
//! HKDF-SHA256(root key, info = tag ‖ item id ‖ SHA-256(public part)). So a sealed secret opens only as the same item
//! with the same public part, and can be copied from snapshot to snapshot as it is.

use aes_kw::{KeyInit, KwpAes256};
use crc::{CRC_32_ISO_HDLC, Crc, Digest, NoTable};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::layout::{Commit, ItemId, sealed_length};
use crate::platform::RootKey;
use crate::wipe::{Secret, wipe};

const MAC_TAG: &[u8] = b"keyferry store 1 snapshot mac";
const KEK_TAG: &[u8] = b"keyferry store 1 item kek";

/// CRC-32 as in ISO-HDLC (zip, Ethernet).
pub(super) static CRC: Crc<u32, NoTable> = Crc::<u32, NoTable>::new(&CRC_32_ISO_HDLC);

/// A secret failed to seal or to open.
pub(super) struct SealBroken;

/// Derives 32 bytes from the root key for one purpose.
fn derive(root: &RootKey, info: &[&[u8]]) -> Secret<32> {
    let mut key = Secret::zeroed();
    Hkdf::<Sha256>::new(None, root.expose())
        .expand_multi_info(info, key.expose_mut())
        .expect("32 bytes are one of the 255 blocks that HKDF-SHA256 can give");
    key
}

fn item_kek(root: &RootKey, id: ItemId, public_digest: &[u8; 32]) -> Secret<32> {
    derive(root, &[KEK_TAG, &[id.number()], public_digest])
}

/// Seals `secret` into `out` and gives back the sealed bytes.
///
/// `out` must have at least `sealed_length(secret.len())` bytes.
pub(super) fn seal<'a>(
    root: &RootKey,
    id: ItemId,
    public_digest: &[u8; 32],
    secret: &[u8],
    out: &'a mut [u8],
) -> Result<&'a [u8], SealBroken> {
    let out = out
        .get_mut(..sealed_length(secret.len()))
        .ok_or(SealBroken)?;
    if out.is_empty() {
        return Ok(out);
    }
    out.fill(0);
    if cfg!(feature = "sabotage-plain-storage") {
        // The defect this feature is for: length and secret in clear, in the same number of bytes.
        let length = u64::try_from(secret.len()).map_err(|_| SealBroken)?;
        out[..8].copy_from_slice(&length.to_be_bytes());
        out[8..8 + secret.len()].copy_from_slice(secret);
        return Ok(out);
    }
    let kek = item_kek(root, id, public_digest);
    let sealed = KwpAes256::new(kek.expose().into()).wrap_key(secret, out);
    sealed.map_err(|_| SealBroken)
}

/// Opens `sealed` into `out` and gives back the secret. `out` is wiped if that fails.
///
/// `out` must have at least `sealed.len() - 8` bytes.
pub(super) fn open<'a>(
    root: &RootKey,
    id: ItemId,
    public_digest: &[u8; 32],
    sealed: &[u8],
    out: &'a mut [u8],
) -> Result<&'a mut [u8], SealBroken> {
    let length = if cfg!(feature = "sabotage-plain-storage") {
        open_plain(sealed, out)
    } else {
        let kek = item_kek(root, id, public_digest);
        let opened = KwpAes256::new(kek.expose().into()).unwrap_key(sealed, out);
        opened.map(<[u8]>::len).map_err(|_| SealBroken)
    };
    match length {
        Ok(length) => out.get_mut(..length).ok_or(SealBroken),
        Err(broken) => {
            wipe(out);
            Err(broken)
        }
    }
}

fn open_plain(sealed: &[u8], out: &mut [u8]) -> Result<usize, SealBroken> {
    let (length, padded) = sealed.split_first_chunk().ok_or(SealBroken)?;
    let length = usize::try_from(u64::from_be_bytes(*length)).map_err(|_| SealBroken)?;
    let secret = padded.get(..length).ok_or(SealBroken)?;
    out.get_mut(..length)
        .ok_or(SealBroken)?
        .copy_from_slice(secret);
    Ok(length)
}

/// Checksum and MAC over a snapshot, fed line by line.
#[derive(Clone)]
pub(super) struct Checks {
    crc: Digest<'static, u32, NoTable>,
    mac: Hmac<Sha256>,
}

/// What stands in a commit block after the fields.
pub(super) struct Seal {
    /// CRC-32 over body, fields and MAC.
    pub(super) crc: [u8; 4],
    /// HMAC-SHA-256 over body and fields.
    pub(super) mac: [u8; 32],
}

impl Checks {
    /// Starts with nothing fed.
    pub(super) fn new(root: &RootKey) -> Self {
        let key = derive(root, &[MAC_TAG]);
        let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key.expose())
            .expect("HMAC takes keys of any length");
        Self {
            crc: CRC.digest(),
            mac,
        }
    }

    /// Takes the next bytes of the body.
    pub(super) fn body(&mut self, bytes: &[u8]) {
        self.crc.update(bytes);
        self.mac.update(bytes);
    }

    /// The seal of a snapshot whose body has been fed.
    pub(super) fn seal(self, fields: &[u8; Commit::FIELDS]) -> Seal {
        let mut mac = [0; 32];
        mac.copy_from_slice(&self.mac.chain_update(fields).finalize().into_bytes());
        let crc = Self::finish_crc(self.crc, fields, &mac);
        Seal { crc, mac }
    }

    /// Whether checksum and MAC are those of a snapshot whose body has been fed: `(checksum fits, MAC fits)`.
    pub(super) fn fits(
        self,
        fields: &[u8; Commit::FIELDS],
        crc: &[u8; 4],
        mac: &[u8; 32],
    ) -> (bool, bool) {
        let crc_fits = Self::finish_crc(self.crc, fields, mac) == *crc;
        let computed = self.mac.chain_update(fields).finalize().into_bytes();
        (crc_fits, computed.as_slice().ct_eq(mac).into())
    }

    fn finish_crc(
        mut crc: Digest<'static, u32, NoTable>,
        fields: &[u8; Commit::FIELDS],
        mac: &[u8; 32],
    ) -> [u8; 4] {
        crc.update(fields);
        crc.update(mac);
        crc.finalize().to_le_bytes()
    }
}
