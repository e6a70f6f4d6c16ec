//! Making the keys of many devices: each inside the token, wrapped there for the backend, and for the device where its unwrap
//! key is at hand. Nothing of a key stays on the token.

use keyferry_protocol::identity::DeviceId;
use keyferry_protocol::suite::Suite;

use super::backend::{DeviceBlob, DeviceKey, Made, MasterInfo};
use super::error::ExportError;
use super::sidecar::{BlobInfo, RecipientInfo, Tail};
use crate::hsm::{
    DeviceContext, Diversification, HsmError, KeyInfo, KeyType, PublicKey, SessionKey, Token,
};

/// Where the keys come from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// Each is made at random.
    Fresh,
    /// Each is derived from a master key.
    Master {
        /// The master key: it derives and does nothing else.
        key: &'a KeyInfo,
        /// How, if that is demanded.
        by: Option<Diversification>,
    },
}

/// What is the same for all keys of a batch.
#[derive(Clone, Copy, Debug)]
pub struct BatchOf<'a> {
    /// The backend's key-encryption key.
    pub recipient: &'a PublicKey,
    /// How it travels to the backend: one of the RSA suites.
    pub suite: Suite,
    /// Where the keys come from.
    pub source: Source<'a>,
    /// Algorithm and size.
    pub key_type: KeyType,
    /// The slot's label.
    pub label: &'a str,
    /// The slot.
    pub slot: u16,
    /// The version of the keys in their slots.
    pub version: u32,
    /// Whether the backend takes keys with zeros behind them.
    pub allow_zero_tail: bool,
}

/// Checks that a public key can be a backend's key-encryption key: RSA, for that is what `RSA_AES_KEY_WRAP` takes, and not weak.
///
/// # Errors
/// [`ExportError::BackendKey`]; [`ExportError::Hsm`] with [`HsmError::Recipient`].
pub fn check_backend(key: &PublicKey) -> Result<(), ExportError> {
    match key.key_type() {
        KeyType::Rsa { .. } => Ok(key.check_recipient().map_err(HsmError::from)?),
        other => Err(ExportError::BackendKey(other)),
    }
}

/// Makes the keys of many devices.
pub struct Batch<'a> {
    token: &'a Token,
    of: BatchOf<'a>,
    made: Made,
    tail: Tail,
}

/// A key of one device, and its files.
pub struct BatchKey {
    /// What the manifest says about it.
    pub entry: DeviceKey,
    /// The key wrapped for the backend.
    pub blob: Vec<u8>,
    /// The key wrapped for the device.
    pub device_blob: Option<Vec<u8>>,
}

impl<'a> Batch<'a> {
    /// Checks what can be checked before the first key is made.
    ///
    /// # Errors
    /// [`ExportError::BackendKey`], [`ExportError::ZeroTail`]; [`ExportError::Hsm`] as [`Token::diversification`], and
    /// [`HsmError::SuiteMismatch`].
    pub fn new(token: &'a Token, of: BatchOf<'a>) -> Result<Self, ExportError> {
        check_backend(of.recipient)?;
        let backend = of.recipient.key_type();
        if !backend.fits(of.suite) {
            return Err(ExportError::Hsm(HsmError::SuiteMismatch {
                suite: of.suite,
                recipient: backend,
            }));
        }
        let made = match of.source {
            Source::Fresh => Made::Fresh,
            Source::Master { key, by } => {
                Made::Diversified(token.diversification(key, of.key_type, by)?)
            }
        };
        let tail = Tail::find_out(token, of.key_type)?;
        if !of.allow_zero_tail {
            tail.check(of.label, of.key_type)?;
        }
        Ok(Self {
            token,
            of,
            made,
            tail,
        })
    }

    /// How the keys of the batch are made.
    #[must_use]
    pub const fn made(&self) -> Made {
        self.made
    }

    /// Makes the key of one device and wraps it for the backend, and with this suite for the device's unwrap key. The device
    /// takes a zero tail: it knows how long its key is.
    ///
    /// # Errors
    /// [`ExportError::Hsm`] as [`Token::fresh_device_key`], [`Token::diversified_key`], [`Token::wrap_for`], and if devices take no
    /// keys of this type.
    pub fn make(
        &self,
        device: DeviceId,
        unwrap_key: Option<(&PublicKey, Suite)>,
    ) -> Result<BatchKey, ExportError> {
        self.token.alive(|| self.make_once(device, unwrap_key))
    }

    fn make_once(
        &self,
        device: DeviceId,
        unwrap_key: Option<(&PublicKey, Suite)>,
    ) -> Result<BatchKey, ExportError> {
        let of = &self.of;
        let key = self.key(device)?;
        let info = key.info();
        let (attributes, _) = info.device_attributes()?;
        let wrapped = |recipient, suite| -> Result<_, HsmError> {
            let blob = self.token.wrap_for(recipient, suite, &[info])?.joined();
            let described = BlobInfo::of(&blob, suite, self.tail);
            Ok((blob, described))
        };
        let (blob, described) = wrapped(of.recipient, of.suite)?;
        let (device_blob, for_device) = match unwrap_key {
            None => (None, None),
            Some((recipient, suite)) => {
                let (blob, described) = wrapped(recipient, suite)?;
                let for_device = DeviceBlob {
                    file: DeviceKey::device_file_name(device, of.slot),
                    blob: described,
                    recipient: RecipientInfo::of(recipient),
                };
                (Some(blob), Some(for_device))
            }
        };
        let master = match of.source {
            Source::Fresh => None,
            Source::Master { key, .. } => Some(MasterInfo {
                label: key.label.clone(),
                id: key.id.clone(),
            }),
        };
        Ok(BatchKey {
            entry: DeviceKey {
                device,
                slot: of.slot,
                version: of.version,
                label: of.label.into(),
                key_type: of.key_type,
                attributes: attributes.into(),
                made: self.made,
                master,
                public_key: info.public_key.clone(),
                file: DeviceKey::file_name(device, of.slot),
                blob: described,
                for_device,
            },
            blob,
            device_blob,
        })
    }

    fn key(&self, device: DeviceId) -> Result<SessionKey<'_>, HsmError> {
        let of = &self.of;
        match (of.source, self.made) {
            (Source::Master { key, .. }, Made::Diversified(way)) => {
                let context = DeviceContext {
                    device,
                    slot: of.slot,
                    version: of.version,
                };
                let derived = self
                    .token
                    .diversified_key(key, &context, of.key_type, Some(way))?;
                Ok(derived.key)
            }
            (Source::Fresh, _) | (Source::Master { .. }, Made::Fresh) => {
                self.token.fresh_device_key(of.key_type)
            }
        }
    }
}
