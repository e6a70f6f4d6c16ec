//! The keys, for the product's own firmware once the line is behind it: find a slot, see what it holds, and use the key in it.
//!
//! Whatever the attributes do not allow is refused, so that a key injected to verify cannot be made to sign, and only a key that may be
//! exported is ever seen by the application. A key is in RAM for the one call that uses it; then its copy is wiped, and the stack
//! that the ciphers used is overwritten. There is no heap, but for RSA keys.
//!
//! ```
//! use keyferry_firmware::application::{KeyError, Keys};
//! # use embedded_storage::nor_flash::NorFlash;
//! # use keyferry_firmware::platform::RootKey;
//! # fn telemetry<F: NorFlash>(flash: F, root_key: RootKey) -> Result<[u8; 32], KeyError> {
//! // The flash area and the root key that the board gives to `Device`.
//! let mut keys = Keys::open(flash, root_key)?;
//! let telemetry = keys.find("telemetry")?.slot;
//! let mut tag = [0; 32];
//! keys.mac(telemetry, b"21.5 degrees", &mut tag)?;
//! # Ok(tag)
//! # }
//! ```

use embedded_storage::nor_flash::NorFlash;
use keyferry_protocol::MAX_SLOTS;
use keyferry_protocol::attributes::{Attributes, KeyKind, algorithm, usage};
use keyferry_protocol::message::SlotInfo;
use rand_core::CryptoRng;
use subtle::ConstantTimeEq as _;

use crate::cipher;
use crate::device::SCRUBBED_STACK;
use crate::keys::{self, Key, MAX_SECRET_BYTES, UseFailed};
use crate::mac;
use crate::platform::RootKey;
use crate::store::{Condition, ItemId, Reason, Store, StoreError};
use crate::unwrap;
use crate::wipe::{Secret, scrub_stack};

#[cfg(test)]
mod tests;

/// Longest key in bytes as the store gives it out, filled up to a multiple of eight.
const MAX_STORED: usize = MAX_SECRET_BYTES.next_multiple_of(8);

/// Why a key was not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// The key store is quarantined: nothing in it can be trusted or used until it is repaired, or wiped on the line.
    Quarantined(Reason),
    /// There is no such slot, no key in it, or none with that label.
    NoSuchKey,
    /// The key's attributes do not permit this use: other usage flags, another algorithm, another kind of key.
    NotPermitted,
    /// This build cannot do this with such a key.
    Unsupported,
    /// It did not work with this input: not authentic, of a wrong length, no point on the curve, or `out` is too short.
    Failed,
    /// The store could not be read.
    Store(StoreError),
}

impl core::fmt::Display for KeyError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Quarantined(reason) => write!(f, "key store quarantined: {reason}"),
            Self::NoSuchKey => f.write_str("no such key"),
            Self::NotPermitted => f.write_str("the key is not for this use"),
            Self::Unsupported => f.write_str("this use of this key is not supported"),
            Self::Failed => f.write_str("the key could not be used on this"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for KeyError {}

impl From<UseFailed> for KeyError {
    fn from(failed: UseFailed) -> Self {
        match failed {
            UseFailed::Unsupported => Self::Unsupported,
            UseFailed::Failed => Self::Failed,
        }
    }
}

/// The keys in a device's store.
pub struct Keys<F: NorFlash> {
    store: Store<F>,
}

impl<F: NorFlash> Keys<F> {
    /// Opens the store in `flash`: the area that [`crate::device::Device`] keeps it in, with the same root key.
    ///
    /// # Errors
    /// [`KeyError::Quarantined`]; the flash is not touched then.
    pub fn open(flash: F, root_key: RootKey) -> Result<Self, KeyError> {
        let store = Store::open(flash, root_key);
        match store.condition() {
            Condition::Ready => Ok(Self { store }),
            Condition::Quarantined(reason) => Err(KeyError::Quarantined(reason)),
        }
    }

    /// Counts a start and gives its number, which is on flash before this returns. None is ever given twice, also not to a
    /// [`crate::device::Device`] on the same flash; there may be gaps. For what must not be repeated: a message's number, or the seed of a
    /// [`Drbg`](crate::rng::Drbg).
    ///
    /// # Errors
    /// [`KeyError::Store`].
    pub fn next_start(&mut self) -> Result<u32, KeyError> {
        self.store.next_boot().map_err(KeyError::Store)
    }

    /// Gives the flash back, for instance to a [`crate::device::Device`].
    #[must_use]
    pub fn into_flash(self) -> F {
        self.store.into_flash()
    }

    /// What a slot holds.
    ///
    /// # Errors
    /// [`KeyError::NoSuchKey`], [`KeyError::Store`]; so in all functions here.
    pub fn slot(&mut self, slot: u16) -> Result<SlotInfo, KeyError> {
        self.store
            .slot(slot)
            .map_err(KeyError::Store)?
            .ok_or(KeyError::NoSuchKey)
    }

    /// What the occupied slots hold, by number.
    pub fn slots(&mut self) -> impl Iterator<Item = Result<SlotInfo, KeyError>> {
        (0..MAX_SLOTS as u16)
            .filter_map(|slot| self.store.slot(slot).map_err(KeyError::Store).transpose())
    }

    /// The first slot with this label.
    ///
    /// # Errors
    /// As [`Self::slot`].
    pub fn find(&mut self, label: &str) -> Result<SlotInfo, KeyError> {
        self.slots()
            .find(|slot| match slot {
                Ok(slot) => slot.label.as_str() == label,
                Err(_) => true,
            })
            .ok_or(KeyError::NoSuchKey)?
    }

    /// The certificate of the device's identity key, X.509 in DER, in the front of `out`, for which [`keyferry_protocol::MAX_CERTIFICATE`]
    /// bytes are enough.
    ///
    /// # Errors
    /// [`KeyError::NoSuchKey`] without one; [`KeyError::Store`].
    pub fn certificate<'o>(&mut self, out: &'o mut [u8]) -> Result<&'o [u8], KeyError> {
        self.store
            .public(ItemId::CERTIFICATE, out)
            .map_err(KeyError::Store)?
            .ok_or(KeyError::NoSuchKey)
    }

    /// Makes a message authentication code to the front of `tag`, and gives its length: AES-CMAC (NIST SP 800-38B) 16 bytes, HMAC-SHA-256
    /// (RFC 2104) 32. Needs `SIGN_MESSAGE`.
    ///
    /// # Errors
    /// As [`Self::slot`]; [`KeyError::NotPermitted`]; [`KeyError::Failed`] if `tag` is too short.
    pub fn mac(&mut self, slot: u16, message: &[u8], tag: &mut [u8]) -> Result<usize, KeyError> {
        self.with(slot, usage::SIGN_MESSAGE, |key| {
            authenticate(&key, message, &mut |made| {
                let tag = tag.get_mut(..made.len()).ok_or(KeyError::Failed)?;
                tag.copy_from_slice(made);
                Ok(made.len())
            })
        })
    }

    /// Verifies a whole code as [`Self::mac`] makes it, in constant time. Needs `VERIFY_MESSAGE`.
    ///
    /// # Errors
    /// As [`Self::slot`]; [`KeyError::NotPermitted`]; [`KeyError::Failed`] if it is wrong.
    pub fn verify_mac(&mut self, slot: u16, message: &[u8], tag: &[u8]) -> Result<(), KeyError> {
        self.with(slot, usage::VERIFY_MESSAGE, |key| {
            authenticate(&key, message, &mut |made| {
                if bool::from(made.ct_eq(tag)) {
                    Ok(())
                } else {
                    Err(KeyError::Failed)
                }
            })
        })
    }

    /// Signs a message to the front of `signature`, and gives the signature's length: ECDSA on P-256 with SHA-256 (FIPS 186-5), `r ‖ s` of 64
    /// bytes, hedged with `rng`; or RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017 §8.2), blinded with `rng`. Needs `SIGN_MESSAGE`.
    ///
    /// # Errors
    /// As [`Self::slot`]; [`KeyError::NotPermitted`]; [`KeyError::Unsupported`] of RSA in a build without; [`KeyError::Failed`] if
    /// `signature` is too short.
    pub fn sign<R: CryptoRng + ?Sized>(
        &mut self,
        slot: u16,
        message: &[u8],
        rng: &mut R,
        signature: &mut [u8],
    ) -> Result<usize, KeyError> {
        self.with(slot, usage::SIGN_MESSAGE, |key| {
            match (key.kind, key.algorithm) {
                (KeyKind::P256, algorithm::ECDSA_SHA256) => {
                    let secret = key.secret.try_into().map_err(|_| KeyError::Failed)?;
                    let made = keys::p256::sign(secret, message, rng)
                        .map_err(|_| KeyError::Failed)?
                        .to_bytes();
                    let out = signature.get_mut(..made.len()).ok_or(KeyError::Failed)?;
                    out.copy_from_slice(&made);
                    Ok(made.len())
                }
                #[cfg(feature = "rsa-keys")]
                (KeyKind::Rsa(_), algorithm::RSA_PKCS1V15_SHA256) => Ok(
                    keys::rsa::sign_pkcs1_sha256(key.secret, message, rng, signature)?,
                ),
                _ => Err(KeyError::NotPermitted),
            }
        })
    }

    /// Encrypts into the front of `out`, and gives the length. What comes out begins with a random vector or nonce: AES-CTR and AES-CBC
    /// (whole blocks only) take 16 bytes more than `clear`, AES-GCM 28. `additional` is authenticated by GCM, and must be empty for the
    /// others. Needs `ENCRYPT`.
    ///
    /// # Errors
    /// As [`Self::slot`]; [`KeyError::NotPermitted`]; [`KeyError::Unsupported`] for an algorithm that this build has not;
    /// [`KeyError::Failed`] for a wrong length.
    pub fn encrypt<R: CryptoRng + ?Sized>(
        &mut self,
        slot: u16,
        additional: &[u8],
        clear: &[u8],
        rng: &mut R,
        out: &mut [u8],
    ) -> Result<usize, KeyError> {
        self.with(slot, usage::ENCRYPT, |key| {
            Ok(cipher::encrypt(&key, additional, clear, rng, out)?)
        })
    }

    /// Decrypts what [`Self::encrypt`] makes, or RSAES-OAEP with SHA-256 and an empty label (RFC 8017 §7.1), into the front of `out`, and
    /// gives the length. `rng` blinds RSA. Needs `DECRYPT`.
    ///
    /// # Errors
    /// As [`Self::encrypt`]; [`KeyError::Failed`] also if it is not authentic; `out` is wiped then.
    pub fn decrypt<R: CryptoRng + ?Sized>(
        &mut self,
        slot: u16,
        additional: &[u8],
        sealed: &[u8],
        rng: &mut R,
        out: &mut [u8],
    ) -> Result<usize, KeyError> {
        self.with(slot, usage::DECRYPT, |key| {
            Ok(cipher::decrypt(&key, additional, sealed, rng, out)?)
        })
    }

    /// Agrees on a secret with the owner of `peer`, an uncompressed point of P-256 (65 bytes, SEC 1 §2.3.3), and lends it to `work`: the
    /// shared x coordinate (NIST SP 800-56A §5.7.1.2), which is a key only after a key derivation. Needs `DERIVE`.
    ///
    /// # Errors
    /// As [`Self::slot`]; [`KeyError::NotPermitted`]; [`KeyError::Failed`] if `peer` is no point on the curve.
    pub fn agree<T>(
        &mut self,
        slot: u16,
        peer: &[u8],
        work: impl FnOnce(&[u8; 32]) -> T,
    ) -> Result<T, KeyError> {
        self.with(slot, usage::DERIVE, |key| {
            if (key.kind, key.algorithm) != (KeyKind::P256, algorithm::ECDH) {
                return Err(KeyError::NotPermitted);
            }
            let mut shared = Secret::zeroed();
            unwrap::agree(key.secret, peer, &mut shared).ok_or(KeyError::Failed)?;
            Ok(work(shared.expose()))
        })
    }

    /// Lends the key's bytes to `work`, in the form that [`crate::keys`] describes. Needs `EXPORT`.
    ///
    /// # Errors
    /// As [`Self::slot`]; [`KeyError::NotPermitted`].
    pub fn with_bytes<T>(
        &mut self,
        slot: u16,
        work: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, KeyError> {
        self.with(slot, usage::EXPORT, |key| Ok(work(key.secret)))
    }

    /// Reads a key that may be used so, and lends it to `work`.
    fn with<T>(
        &mut self,
        slot: u16,
        needed: u32,
        work: impl FnOnce(Key<'_>) -> Result<T, KeyError>,
    ) -> Result<T, KeyError> {
        let attributes = self.slot(slot)?.attributes;
        if attributes.usage & needed == 0 {
            return Err(KeyError::NotPermitted);
        }
        let done = self.lend(slot, &attributes, work);
        scrub_stack::<SCRUBBED_STACK>();
        done
    }

    /// Never part of its caller's frame, which the scrubbing does not reach.
    #[inline(never)]
    fn lend<T>(
        &mut self,
        slot: u16,
        attributes: &Attributes,
        work: impl FnOnce(Key<'_>) -> Result<T, KeyError>,
    ) -> Result<T, KeyError> {
        let kind = attributes
            .kind()
            .map_err(|_| KeyError::Store(StoreError::Damaged))?;
        let item = ItemId::slot(slot).ok_or(KeyError::NoSuchKey)?;
        let mut secret = Secret::<MAX_STORED>::zeroed();
        let secret = self
            .store
            .secret(item, secret.expose_mut())
            .map_err(KeyError::Store)?
            .ok_or(KeyError::NoSuchKey)?;
        work(Key {
            kind,
            algorithm: attributes.algorithm,
            secret,
        })
    }
}

/// Makes the code that the key is for, and hands it over.
fn authenticate<T>(
    key: &Key<'_>,
    message: &[u8],
    take: &mut dyn FnMut(&[u8]) -> Result<T, KeyError>,
) -> Result<T, KeyError> {
    match (key.kind, key.algorithm) {
        (KeyKind::Aes(_), algorithm::CMAC) => take(&mac::cmac(key.secret, message)?),
        (KeyKind::Secret(_), algorithm::HMAC_SHA256) => {
            take(&mac::hmac_sha256(key.secret, message)?)
        }
        _ => Err(KeyError::NotPermitted),
    }
}
