//! The calls that the token's work takes, and nothing else: no checks of keys, no memory taken from the heap, every template
//! made beforehand. This is what keyferry is measured against.
//!
//! The objects have the attributes that keyferry gives them, from keyferry's own tables, because a token works longer on a
//! longer template.

#![allow(
    unsafe_code,
    reason = "a comparison with the module's own functions has to call them"
)]

mod module;
mod template;

use std::ptr::null_mut;

use anyhow::{Context as _, Result, ensure};
use cryptoki_sys::{
    CK_ATTRIBUTE, CK_BYTE, CK_ECDH1_DERIVE_PARAMS, CK_MECHANISM, CK_MECHANISM_TYPE,
    CK_OBJECT_HANDLE, CK_RSA_PKCS_OAEP_PARAMS, CK_ULONG, CKA_EC_POINT, CKD_NULL, CKD_SHA256_KDF,
    CKG_MGF1_SHA1, CKG_MGF1_SHA256, CKM_AES_CMAC, CKM_AES_KEY_GEN, CKM_AES_KEY_WRAP_KWP,
    CKM_AES_KEY_WRAP_PAD, CKM_EC_KEY_PAIR_GEN, CKM_ECDH1_DERIVE, CKM_ECDSA, CKM_RSA_PKCS_OAEP,
    CKM_SHA_1, CKM_SHA256, CKO_PRIVATE_KEY, CKO_SECRET_KEY, CKZ_DATA_SPECIFIED,
};
use keyferry::hsm::{PublicKey, PublicNumbers};
use keyferry_protocol::suite::Suite;

use module::Module;
use template::{Template, Templates, Wording};

/// Room for the longest output: a KEK under a 4096-bit RSA key.
const ROOM: usize = 512;
/// Length of an AES-256 key under AES key wrap with padding (RFC 5649 §4.1), in bytes.
const WRAPPED_AES_256: usize = 40;

/// What all calls need: the session, and the keys that stay.
pub(crate) struct Bare {
    module: Module,
    /// `CKM_AES_KEY_WRAP_KWP`, or `CKM_AES_KEY_WRAP_PAD` where that is the same.
    key_wrap: CK_MECHANISM_TYPE,
    target: CK_OBJECT_HANDLE,
    authority: CK_OBJECT_HANDLE,
    templates: Templates,
}

/// What is prepared for one device.
pub(crate) struct Device {
    suite: Suite,
    /// The device's public key as an object; for the RSA suites.
    recipient: Template,
    /// Its point; for the ECDH suites.
    point: Vec<CK_BYTE>,
    /// What the key derivation is told beside the point.
    shared_info: Vec<CK_BYTE>,
}

/// The lengths of what came out, in bytes: of the KEK's blob (a point, for ECDH), of the key's, and of the signature.
pub(crate) type Lengths = [usize; 3];

impl Bare {
    /// Opens a session of its own with the token that this process is logged in to.
    ///
    /// # Errors
    /// If the module or the token does not do as it should.
    pub(crate) fn open(
        module: &std::path::Path,
        token: &str,
        target: &str,
        authority: &str,
    ) -> Result<Self> {
        let module = Module::open(module, token)?;
        let target = module.find(CKO_SECRET_KEY, target)?;
        let authority = module.find(CKO_PRIVATE_KEY, authority)?;
        let mut bare = Self {
            key_wrap: CKM_AES_KEY_WRAP_KWP,
            target,
            authority,
            templates: Templates::new(Wording::Full),
            module,
        };
        // What the token takes is found out beforehand, as a program that is written for this one token would know it.
        if bare.try_templates().is_err() {
            bare.templates = Templates::new(Wording::Lean);
            bare.try_templates()?;
        }
        let kek = bare.generate_kek()?;
        if !matches!(bare.wrap_target(kek), Ok(WRAPPED_AES_256)) {
            bare.key_wrap = CKM_AES_KEY_WRAP_PAD;
            ensure!(
                bare.wrap_target(kek)? == WRAPPED_AES_256,
                "the token does not wrap as in RFC 5649"
            );
        }
        bare.destroy(kek)?;
        Ok(bare)
    }

    fn try_templates(&self) -> Result<()> {
        self.destroy(self.generate_kek()?)?;
        for half in self.generate_pair()? {
            self.destroy(half)?;
        }
        Ok(())
    }

    /// Prepares what is the same each time keys are wrapped for this device, and does it once.
    ///
    /// # Errors
    /// If the token does not wrap for this key under this suite.
    pub(crate) fn prepare(&self, key: &PublicKey, suite: Suite) -> Result<Device> {
        let (recipient, point) = match key.numbers() {
            PublicNumbers::Rsa { modulus, exponent } => {
                (self.templates.recipient(modulus, exponent), Vec::new())
            }
            PublicNumbers::P256(point) => (Template::default(), point.to_vec()),
            PublicNumbers::P384(_) | PublicNumbers::Ed25519(_) => {
                anyhow::bail!("devices have RSA or P-256 keys")
            }
        };
        let device = Device {
            suite,
            recipient,
            point,
            // As long as suite, device id and fingerprint are.
            shared_info: vec![0; 1 + 16 + 32],
        };
        self.wrap(&device)?;
        Ok(device)
    }

    /// Wraps the target key for a device, and signs a digest.
    ///
    /// # Errors
    /// If any of the calls fails.
    pub(crate) fn serve(&self, device: &Device, digest: &[u8; 32]) -> Result<Lengths> {
        let [kek, key] = self.wrap(device)?;
        Ok([kek, key, self.sign(digest)?])
    }

    fn wrap(&self, device: &Device) -> Result<[usize; 2]> {
        match device.suite {
            Suite::RsaOaepSha1 => self.wrap_oaep(device, CKM_SHA_1, CKG_MGF1_SHA1),
            Suite::RsaOaepSha256 => self.wrap_oaep(device, CKM_SHA256, CKG_MGF1_SHA256),
            Suite::EcdhP256Null => self.wrap_ecdh(device, CKD_NULL, &[]),
            Suite::EcdhP256X963Sha256 => {
                self.wrap_ecdh(device, CKD_SHA256_KDF, &device.shared_info)
            }
        }
    }

    fn wrap_oaep(
        &self,
        device: &Device,
        hash: CK_MECHANISM_TYPE,
        mgf: CK_ULONG,
    ) -> Result<[usize; 2]> {
        let mut parameters = CK_RSA_PKCS_OAEP_PARAMS {
            hashAlg: hash,
            mgf,
            source: CKZ_DATA_SPECIFIED,
            pSourceData: null_mut(),
            ulSourceDataLen: 0,
        };
        let mut recipient = 0;
        let create = self.module.functions.C_CreateObject;
        let template = device.recipient.attributes();
        // SAFETY: the template points to values that live as long as it does; the handle is one CK_ULONG.
        self.module.done("C_CreateObject", unsafe {
            create.context("C_CreateObject")?(
                self.module.session,
                template.as_ptr().cast_mut(),
                length(template),
                &raw mut recipient,
            )
        })?;
        let kek = self.generate_kek()?;
        let mut oaep = mechanism(CKM_RSA_PKCS_OAEP, &mut parameters);
        let kek_blob = self.wrap_key(&mut oaep, recipient, kek)?;
        self.destroy(recipient)?;
        let key_blob = self.wrap_target(kek)?;
        self.destroy(kek)?;
        Ok([kek_blob, key_blob])
    }

    fn wrap_ecdh(
        &self,
        device: &Device,
        kdf: CK_ULONG,
        shared_info: &[CK_BYTE],
    ) -> Result<[usize; 2]> {
        let [public, private] = self.generate_pair()?;
        let mut point = [0; 128];
        let mut wanted = [CK_ATTRIBUTE {
            type_: CKA_EC_POINT,
            pValue: point.as_mut_ptr().cast(),
            ulValueLen: length(&point),
        }];
        let get = self.module.functions.C_GetAttributeValue;
        // SAFETY: the template is one attribute with room for `ulValueLen` bytes.
        self.module.done("C_GetAttributeValue", unsafe {
            get.context("C_GetAttributeValue")?(
                self.module.session,
                public,
                wanted.as_mut_ptr(),
                length(&wanted),
            )
        })?;
        self.destroy(public)?;
        let mut parameters = CK_ECDH1_DERIVE_PARAMS {
            kdf,
            ulSharedDataLen: length(shared_info),
            pSharedData: match shared_info {
                [] => null_mut(),
                info => info.as_ptr().cast_mut(),
            },
            ulPublicDataLen: length(&device.point),
            pPublicData: device.point.as_ptr().cast_mut(),
        };
        let mut derivation = mechanism(CKM_ECDH1_DERIVE, &mut parameters);
        let template = self.templates.derived_kek.attributes();
        let mut kek = 0;
        let derive = self.module.functions.C_DeriveKey;
        // SAFETY: the mechanism's parameters, the point, the shared information and the template live until the call returns.
        let derived = self.module.done("C_DeriveKey", unsafe {
            derive.context("C_DeriveKey")?(
                self.module.session,
                &raw mut derivation,
                private,
                template.as_ptr().cast_mut(),
                length(template),
                &raw mut kek,
            )
        });
        self.destroy(private)?;
        derived?;
        let key_blob = self.wrap_target(kek)?;
        self.destroy(kek)?;
        Ok([device.point.len(), key_blob])
    }

    fn generate_kek(&self) -> Result<CK_OBJECT_HANDLE> {
        let mut generation = mechanism(CKM_AES_KEY_GEN, &mut ());
        let template = self.templates.kek.attributes();
        let mut kek = 0;
        let generate = self.module.functions.C_GenerateKey;
        // SAFETY: mechanism and template live until the call returns; the handle is one CK_ULONG.
        self.module.done("C_GenerateKey", unsafe {
            generate.context("C_GenerateKey")?(
                self.module.session,
                &raw mut generation,
                template.as_ptr().cast_mut(),
                length(template),
                &raw mut kek,
            )
        })?;
        Ok(kek)
    }

    /// A P-256 key pair, the public half first.
    fn generate_pair(&self) -> Result<[CK_OBJECT_HANDLE; 2]> {
        let mut generation = mechanism(CKM_EC_KEY_PAIR_GEN, &mut ());
        let public = self.templates.ephemeral_public.attributes();
        let private = self.templates.ephemeral_private.attributes();
        let mut pair = [0; 2];
        let [public_handle, private_handle] = &mut pair;
        let generate = self.module.functions.C_GenerateKeyPair;
        // SAFETY: mechanism and templates live until the call returns; each handle is one CK_ULONG.
        self.module.done("C_GenerateKeyPair", unsafe {
            generate.context("C_GenerateKeyPair")?(
                self.module.session,
                &raw mut generation,
                public.as_ptr().cast_mut(),
                length(public),
                private.as_ptr().cast_mut(),
                length(private),
                public_handle,
                private_handle,
            )
        })?;
        Ok(pair)
    }

    fn wrap_target(&self, kek: CK_OBJECT_HANDLE) -> Result<usize> {
        let mut key_wrap = mechanism(self.key_wrap, &mut ());
        self.wrap_key(&mut key_wrap, kek, self.target)
    }

    fn wrap_key(
        &self,
        mechanism: &mut CK_MECHANISM,
        wrapping: CK_OBJECT_HANDLE,
        key: CK_OBJECT_HANDLE,
    ) -> Result<usize> {
        let mut blob = [0; ROOM];
        let mut written = length(&blob);
        let wrap = self.module.functions.C_WrapKey;
        // SAFETY: the mechanism's parameters live until the call returns; `blob` has as many bytes as `written` says.
        self.module.done("C_WrapKey", unsafe {
            wrap.context("C_WrapKey")?(
                self.module.session,
                mechanism,
                wrapping,
                key,
                blob.as_mut_ptr(),
                &raw mut written,
            )
        })?;
        Ok(usize::try_from(written)?)
    }

    /// Signs a digest.
    ///
    /// # Errors
    /// If any of the calls fails.
    pub(crate) fn sign(&self, digest: &[u8; 32]) -> Result<usize> {
        self.sign_with(CKM_ECDSA, self.authority, digest)
    }

    /// Makes a MAC with the target key.
    ///
    /// # Errors
    /// If any of the calls fails.
    pub(crate) fn mac(&self, digest: &[u8; 32]) -> Result<usize> {
        self.sign_with(CKM_AES_CMAC, self.target, digest)
    }

    fn sign_with(
        &self,
        kind: CK_MECHANISM_TYPE,
        key: CK_OBJECT_HANDLE,
        digest: &[u8; 32],
    ) -> Result<usize> {
        let mut with = mechanism(kind, &mut ());
        let init = self.module.functions.C_SignInit;
        // SAFETY: the mechanism lives until the call returns.
        self.module.done("C_SignInit", unsafe {
            init.context("C_SignInit")?(self.module.session, &raw mut with, key)
        })?;
        let mut signature = [0; ROOM];
        let mut written = length(&signature);
        let sign = self.module.functions.C_Sign;
        // SAFETY: `signature` has as many bytes as `written` says, and the digest is only read.
        self.module.done("C_Sign", unsafe {
            sign.context("C_Sign")?(
                self.module.session,
                digest.as_ptr().cast_mut(),
                length(digest),
                signature.as_mut_ptr(),
                &raw mut written,
            )
        })?;
        Ok(usize::try_from(written)?)
    }

    fn destroy(&self, object: CK_OBJECT_HANDLE) -> Result<()> {
        let destroy = self.module.functions.C_DestroyObject;
        // SAFETY: the handle came from this session.
        self.module.done("C_DestroyObject", unsafe {
            destroy.context("C_DestroyObject")?(self.module.session, object)
        })
    }
}

/// A mechanism that points to its parameters; `()` is none.
fn mechanism<P>(kind: CK_MECHANISM_TYPE, parameters: &mut P) -> CK_MECHANISM {
    CK_MECHANISM {
        mechanism: kind,
        pParameter: match size_of::<P>() {
            0 => null_mut(),
            _ => std::ptr::from_mut(parameters).cast(),
        },
        ulParameterLen: ulong(size_of::<P>()),
    }
}

/// How many elements there are, in the module's own integer type.
fn length<T>(elements: &[T]) -> CK_ULONG {
    ulong(elements.len())
}

fn ulong(number: usize) -> CK_ULONG {
    // All lengths here are below 65536, which fits everywhere.
    CK_ULONG::try_from(number).unwrap_or(0)
}
