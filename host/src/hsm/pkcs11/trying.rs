//! What trials ask of a token: versions, key sizes, derivations from a master key, odd templates.

use std::num::NonZeroUsize;

use cryptoki::context::Function;
use cryptoki::error::{Error, Rv};
use cryptoki::mechanism::kbkdf::{
    Endianness, KbkdfCounterFormat, KbkdfParams, PrfDataParam, PrfDataParamType,
};
use cryptoki::mechanism::{Mechanism as CkMechanism, MechanismType};
use cryptoki::object::{Attribute, ObjectHandle};
use cryptoki_sys::{
    CK_ATTRIBUTE, CK_INFO, CK_KEY_DERIVATION_STRING_DATA, CK_MECHANISM, CK_TOKEN_INFO, CK_ULONG,
    CK_VERSION, CKM_AES_ECB_ENCRYPT_DATA, CKM_RSA_PKCS_KEY_PAIR_GEN,
};

use super::failure;
use super::objects::{KeyHandle, Wording, create, template, value_length};
use super::operations::{SessionObject, WrapMechanism, ulong};
use super::session::Connection;
use super::unwrapping::Incoming;
use crate::hsm::derive::Diversification;
use crate::hsm::error::HsmError;
use crate::hsm::key::{Flags, KeyClass, KeyType};

/// Width in bits of the counter of the SP 800-108 counter mode.
const COUNTER_BITS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(31);

/// Who made module and token, and which versions they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The module's own description of itself (`CK_INFO`).
    pub library: String,
    /// The module's version, `major.minor`.
    pub library_version: String,
    /// The version of PKCS#11 that it follows, `major.minor`.
    pub cryptoki_version: String,
    /// The token's hardware version, `major.minor` (`CK_TOKEN_INFO`).
    pub hardware_version: String,
    /// The token's firmware version, `major.minor`.
    pub firmware_version: String,
}

impl Connection {
    /// Asks module and token for their versions.
    pub(in crate::hsm) fn versions(&self) -> Result<Versions, HsmError> {
        let missing = || failure(&Error::NullFunctionPointer);
        let functions = self.module().functions();
        let mut library = CK_INFO::default();
        let get_info = { functions.C_GetInfo }.ok_or_else(missing)?;
        // SAFETY: the function comes from the initialised module, and writes one CK_INFO.
        let value = unsafe { get_info(&raw mut library) };
        Rv::from(value)
            .into_result(Function::GetInfo)
            .map_err(|error| failure(&error))?;
        let mut token = CK_TOKEN_INFO::default();
        let get_token_info = { functions.C_GetTokenInfo }.ok_or_else(missing)?;
        // SAFETY: the function comes from the initialised module, and writes one CK_TOKEN_INFO.
        let value = unsafe { get_token_info(self.slot().into(), &raw mut token) };
        Rv::from(value)
            .into_result(Function::GetTokenInfo)
            .map_err(|error| failure(&error))?;
        let text = |bytes: &[u8]| {
            String::from_utf8_lossy(bytes)
                .trim_end_matches([' ', '\0'])
                .to_owned()
        };
        let version = |version: CK_VERSION| format!("{}.{}", version.major, version.minor);
        Ok(Versions {
            library: text(&library.libraryDescription),
            library_version: version(library.libraryVersion),
            cryptoki_version: version(library.cryptokiVersion),
            hardware_version: version(token.hardwareVersion),
            firmware_version: version(token.firmwareVersion),
        })
    }

    /// Whether the token says that it makes RSA keys of this length.
    pub(in crate::hsm) fn offers_rsa(&self, bits: u16) -> bool {
        self.module()
            .mechanism(self.slot(), CKM_RSA_PKCS_KEY_PAIR_GEN)
            .is_some_and(|info| {
                (info.ulMinKeySize..=info.ulMaxKeySize).contains(&CK_ULONG::from(bits))
            })
    }

    /// Derives an AES key or a generic secret from an AES master key. The input of [`Diversification::EcbEncryptData`] has as
    /// many blocks of 16 bytes as the key takes.
    pub(in crate::hsm) fn diversify(
        &self,
        way: Diversification,
        master: KeyHandle,
        input: &[u8],
        key_type: KeyType,
        label: &str,
        flags: &Flags,
    ) -> Result<SessionObject<'_>, HsmError> {
        let bits = match key_type {
            KeyType::Aes { bits } | KeyType::Secret { bits } => bits,
            KeyType::Rsa { .. }
            | KeyType::P256
            | KeyType::P384
            | KeyType::Ed25519
            | KeyType::Other => return Err(failure(&Error::NotSupported)),
        };
        create(|wording| {
            let attributes = template(
                KeyClass::Secret,
                key_type,
                label,
                &[],
                vec![value_length(bits)],
                flags,
                wording,
            );
            match way {
                Diversification::CounterKdf => {
                    let counter = KbkdfCounterFormat::new(Endianness::Big, COUNTER_BITS);
                    let parts = [
                        PrfDataParam::new(PrfDataParamType::IterationVariable(Some(&counter))),
                        PrfDataParam::new(PrfDataParamType::ByteArray(input)),
                    ];
                    let parameters = KbkdfParams::new(MechanismType::AES_CMAC, &parts, None);
                    let mechanism = CkMechanism::KbkdfCounter(parameters);
                    self.session()
                        .derive_key(&mechanism, master.0, &attributes)
                        .map(|handle| self.named(handle))
                }
                Diversification::EcbEncryptData => self.derive_by_ecb(master, input, &attributes),
            }
        })
        .map(|handle| self.guard(handle))
        .map_err(|error| failure(&error))
    }

    /// `CKM_AES_ECB_ENCRYPT_DATA`, which the safe wrapper does not know.
    fn derive_by_ecb(
        &self,
        master: KeyHandle,
        input: &[u8],
        attributes: &[Attribute],
    ) -> cryptoki::error::Result<KeyHandle> {
        let derive_key =
            { self.module().functions().C_DeriveKey }.ok_or(Error::NullFunctionPointer)?;
        let mut input = input.to_vec();
        let mut parameter = CK_KEY_DERIVATION_STRING_DATA {
            pData: input.as_mut_ptr(),
            ulLen: ulong(input.len())?,
        };
        let mut mechanism = CK_MECHANISM {
            mechanism: CKM_AES_ECB_ENCRYPT_DATA,
            pParameter: (&raw mut parameter).cast(),
            ulParameterLen: ulong(size_of::<CK_KEY_DERIVATION_STRING_DATA>())?,
        };
        let mut template: Vec<CK_ATTRIBUTE> = attributes.iter().map(Into::into).collect();
        let count = ulong(template.len())?;
        let mut handle: CK_ULONG = 0;
        // SAFETY: the function comes from the initialised module the session belongs to; the mechanism with its parameter, the
        // input and the template (which points into `attributes`) live until the call returns, with the lengths given.
        let value = unsafe {
            derive_key(
                self.session().handle(),
                &raw mut mechanism,
                master.0.handle(),
                template.as_mut_ptr(),
                count,
                &raw mut handle,
            )
        };
        Rv::from(value).into_result(Function::DeriveKey)?;
        // SAFETY: the module has just made this handle in this session.
        Ok(self.named(unsafe { ObjectHandle::new_from_raw(handle) }))
    }

    /// Unwraps an AES-256 key with `CKA_VALUE_LEN` in the template, which some tokens want and others refuse.
    pub(in crate::hsm) fn unwrap_with_length(
        &self,
        mechanism: WrapMechanism,
        unwrapping_key: KeyHandle,
        blob: &[u8],
        incoming: &Incoming<'_>,
    ) -> Result<SessionObject<'_>, HsmError> {
        let attempt = |wording: Wording| {
            let attributes = template(
                incoming.class,
                incoming.key_type,
                incoming.label,
                incoming.id,
                vec![value_length(256)],
                &incoming.flags,
                wording,
            );
            self.call_unwrap(mechanism, unwrapping_key, blob, &attributes)
        };
        create(attempt)
            .map(|handle| self.guard(handle))
            .map_err(|error| failure(&error))
    }
}
