//! `C_UnwrapKey`, called directly: the safe wrapper does not know `CKM_AES_KEY_WRAP_KWP`.

use cryptoki::context::Function;
use cryptoki::error::{Error, Rv, RvError};
use cryptoki::object::{Attribute, AttributeType, ObjectHandle};
use cryptoki_sys::{CK_ATTRIBUTE, CK_ATTRIBUTE_TYPE, CK_ULONG};

use super::failure;
use super::objects::{KeyHandle, create, template};
use super::operations::{WrapMechanism, WrapParameters, ulong};
use super::session::Connection;
use crate::hsm::error::HsmError;
use crate::hsm::key::{Flags, KeyClass, KeyType};
use crate::hsm::public_key::{PublicKey, PublicNumbers};

/// `CKA_NSS_DB`. NSS softokn takes an elliptic-curve private key only together with the public point, and has an attribute of
/// its own for it (its header `pkcs11n.h`).
const CKA_NSS_DB: CK_ATTRIBUTE_TYPE = 0xd5a0_db00;

/// The key object that comes out of a blob.
pub(in crate::hsm) struct Incoming<'a> {
    pub(in crate::hsm) class: KeyClass,
    pub(in crate::hsm) key_type: KeyType,
    pub(in crate::hsm) label: &'a str,
    pub(in crate::hsm) id: &'a [u8],
    pub(in crate::hsm) flags: Flags,
    /// The public half of a private key, for tokens that want to know it.
    pub(in crate::hsm) public_key: Option<&'a PublicKey>,
}

impl Connection {
    /// Unwraps a key with one `C_UnwrapKey` call; the key appears as an object on the token or in the session.
    pub(in crate::hsm) fn unwrap(
        &self,
        mechanism: WrapMechanism,
        unwrapping_key: KeyHandle,
        blob: &[u8],
        incoming: &Incoming<'_>,
    ) -> Result<KeyHandle, HsmError> {
        let attempt = |own: Vec<Attribute>| {
            create(|wording| {
                let attributes = template(
                    incoming.class,
                    incoming.key_type,
                    incoming.label,
                    incoming.id,
                    own.clone(),
                    &incoming.flags,
                    wording,
                );
                self.call_unwrap(mechanism, unwrapping_key, blob, &attributes)
            })
        };
        match (
            attempt(Vec::new()),
            incoming.public_key.map(PublicKey::numbers),
        ) {
            (
                Err(Error::Pkcs11(RvError::TemplateIncomplete, _)),
                Some(PublicNumbers::P256(point)),
            ) => attempt(vec![nss_point(point)]),
            (
                Err(Error::Pkcs11(RvError::TemplateIncomplete, _)),
                Some(PublicNumbers::P384(point)),
            ) => attempt(vec![nss_point(point)]),
            (result, _) => result,
        }
        .map_err(|error| failure(&error))
    }

    pub(super) fn call_unwrap(
        &self,
        mechanism: WrapMechanism,
        unwrapping_key: KeyHandle,
        blob: &[u8],
        attributes: &[Attribute],
    ) -> cryptoki::error::Result<KeyHandle> {
        let unwrap_key =
            { self.module().functions().C_UnwrapKey }.ok_or(Error::NullFunctionPointer)?;
        let mut parameters = WrapParameters::of(mechanism);
        let mut ck_mechanism = parameters.mechanism()?;
        let mut blob = blob.to_vec();
        let mut template: Vec<CK_ATTRIBUTE> = attributes.iter().map(Into::into).collect();
        let (blob_length, attribute_count) = (ulong(blob.len())?, ulong(template.len())?);
        let mut handle: CK_ULONG = 0;
        // SAFETY: the function comes from the initialised module the session belongs to; the mechanism with its parameters, the
        // blob and the template (which points into `attributes`) live until the call returns, with the lengths given.
        let value = unsafe {
            unwrap_key(
                self.session().handle(),
                &raw mut ck_mechanism,
                unwrapping_key.0.handle(),
                blob.as_mut_ptr(),
                blob_length,
                template.as_mut_ptr(),
                attribute_count,
                &raw mut handle,
            )
        };
        Rv::from(value).into_result(Function::UnwrapKey)?;
        // SAFETY: the module has just made this handle in this session.
        Ok(self.named(unsafe { ObjectHandle::new_from_raw(handle) }))
    }
}

/// The public point as NSS wants it: `04 ‖ x ‖ y`.
fn nss_point(point: &[u8]) -> Attribute {
    Attribute::VendorDefined((AttributeType::VendorDefined(CKA_NSS_DB), point.to_vec()))
}
