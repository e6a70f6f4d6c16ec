//! Keys that are generated here and sent to a token, to see whether it unwraps them. They never leave the session.

use der::Encode;
use p256::pkcs8::EncodePrivateKey;
use rsa::{BoxedUint, Oaep, RsaPublicKey};
use sha1::Sha1;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{CAPACITY, Look, Route, Shape, SharedKek, Start, padding, pkcs8};
use crate::hsm::error::HsmError;
use crate::hsm::key::{Flag, Flags, KeyClass, KeyType};
use crate::hsm::pkcs11::{Connection, Incoming, Query, SessionObject, WrapMechanism, WrapOutcome};
use crate::hsm::public_key::{PublicKey, PublicNumbers};
use crate::hsm::token::{generator, random};
use crate::hsm::trial::throwaway::{TRIAL_LABEL, ThrowAway};

/// What is in a parcel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::hsm::trial) enum Content {
    /// An AES-256 key.
    Aes,
    /// A generic secret of 20 bytes.
    Secret,
    /// A P-256 private key.
    Private,
    /// A P-256 private key that begins with a zero byte.
    LeadingZero,
}

/// A throw-away key, wrapped under a shared KEK.
pub(in crate::hsm::trial) struct Parcel {
    key_type: KeyType,
    clear: Zeroizing<Vec<u8>>,
    public: Option<PublicKey>,
    /// `CKA_ID` of what comes out of it.
    id: [u8; 16],
    blob: Vec<u8>,
}

/// A parcel that the token has unwrapped.
pub(in crate::hsm::trial) struct Unpacked<'c> {
    object: SessionObject<'c>,
    parcel: Parcel,
}

/// A fresh P-256 key, with a leading zero byte if that is wanted.
pub(super) fn p256_key(leading_zero: bool) -> Result<p256::SecretKey, HsmError> {
    loop {
        let mut scalar: Zeroizing<[u8; 32]> = Zeroizing::new(random()?);
        if leading_zero {
            scalar[0] = 0;
        }
        // All but one in four thousand million are below the order of the curve.
        if let Ok(key) = p256::SecretKey::from_slice(&*scalar) {
            return Ok(key);
        }
    }
}

impl Parcel {
    /// Makes a key and wraps it.
    pub(in crate::hsm::trial) fn new(
        kek: &SharedKek<'_>,
        content: Content,
        shape: Shape,
    ) -> Result<Self, HsmError> {
        let malformed = || HsmError::Random("a throw-away key cannot be encoded".into());
        let (key_type, clear, public) = match content {
            Content::Aes => {
                let key: Zeroizing<[u8; 32]> = Zeroizing::new(random()?);
                (super::KEK, Zeroizing::new(key.to_vec()), None)
            }
            Content::Secret => {
                let key: Zeroizing<[u8; 20]> = Zeroizing::new(random()?);
                let key_type = KeyType::Secret { bits: 160 };
                (key_type, Zeroizing::new(key.to_vec()), None)
            }
            Content::Private | Content::LeadingZero => {
                let key = p256_key(content == Content::LeadingZero)?;
                let der = key.to_pkcs8_der().map_err(|_| malformed())?;
                let point = key.public_key().to_sec1_bytes();
                let curve = der::asn1::ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7")
                    .to_der()
                    .map_err(|_| malformed())?;
                let public = PublicKey::from_ec(&curve, &point)?;
                let clear = Zeroizing::new(der.as_bytes().to_vec());
                (KeyType::P256, clear, Some(public))
            }
        };
        let blob = padding::close(&kek.clear, &clear, shape).ok_or_else(malformed)?;
        Ok(Self {
            key_type,
            clear,
            public,
            id: random()?,
            blob,
        })
    }

    fn incoming(&self) -> Incoming<'_> {
        let class = match self.public {
            Some(_) => KeyClass::Private,
            None => KeyClass::Secret,
        };
        let set = [
            Flag::Private,
            Flag::Destroyable,
            Flag::Sensitive,
            Flag::Extractable,
        ];
        Incoming {
            class,
            key_type: self.key_type,
            label: TRIAL_LABEL,
            id: &self.id,
            flags: Flags::of(class, &set),
            public_key: self.public.as_ref(),
        }
    }

    /// Has the token unwrap it.
    pub(in crate::hsm::trial) fn unpack<'c>(
        self,
        connection: &'c Connection,
        kek: &SharedKek<'_>,
        mechanism: WrapMechanism,
    ) -> Result<Unpacked<'c>, HsmError> {
        let with = kek.object.handle();
        let object = connection
            .unwrap(mechanism, with, &self.blob, &self.incoming())
            .map(|handle| connection.guard(handle));
        self.unpacked(connection, object)
    }

    /// Has the token unwrap it with `CKA_VALUE_LEN` in the template. It must be an AES key.
    pub(in crate::hsm::trial) fn unpack_with_length<'c>(
        self,
        connection: &'c Connection,
        kek: &SharedKek<'_>,
        mechanism: WrapMechanism,
    ) -> Result<Unpacked<'c>, HsmError> {
        let with = kek.object.handle();
        let object = connection.unwrap_with_length(mechanism, with, &self.blob, &self.incoming());
        self.unpacked(connection, object)
    }

    fn unpacked<'c>(
        self,
        connection: &'c Connection,
        object: Result<SessionObject<'c>, HsmError>,
    ) -> Result<Unpacked<'c>, HsmError> {
        match object {
            Ok(object) => Ok(Unpacked {
                object,
                parcel: self,
            }),
            Err(error) => {
                // SoftHSM 2.6.1 leaves an unfinished object behind if it takes offence at an attribute.
                let query = Query {
                    id: Some(&self.id),
                    on_token: Some(false),
                    ..Query::default()
                };
                // What went wrong first is what must be known.
                for left in connection.find(query).unwrap_or_default() {
                    drop(connection.guard(left));
                }
                Err(error)
            }
        }
    }
}

impl Unpacked<'_> {
    /// What the token calls the key.
    pub(in crate::hsm::trial) fn key_type(
        &self,
        connection: &Connection,
    ) -> Result<KeyType, HsmError> {
        let class = self.parcel.incoming().class;
        Ok(connection.read(self.object.handle(), class)?.key_type)
    }

    /// Has the token wrap it again; nothing if it is no longer the same key.
    pub(in crate::hsm::trial) fn look(
        &self,
        connection: &Connection,
        kek: &SharedKek<'_>,
        mechanism: WrapMechanism,
    ) -> Result<Option<Look>, HsmError> {
        let wrapped = connection.wrap(
            mechanism,
            kek.object.handle(),
            self.object.handle(),
            CAPACITY,
        )?;
        let blob = match wrapped {
            WrapOutcome::Wrapped(blob) => blob,
            WrapOutcome::Refused { function, code } => {
                return Err(HsmError::Token { function, code });
            }
        };
        let Some((clear, shape)) = padding::open(&kek.clear, &blob, self.parcel.key_type) else {
            return Ok(None);
        };
        let start = match &self.parcel.public {
            Some(public) => pkcs8::compare(&clear, public),
            None => (clear == self.parcel.clear).then_some(Start::Plain),
        };
        Ok(start.map(|start| Look { shape, start }))
    }
}

/// Makes a KEK here and has the token open it with a throw-away RSA key. The KEK may wrap.
pub(in crate::hsm::trial) fn give_kek<'c>(
    connection: &'c Connection,
    pair: &ThrowAway<'_>,
    route: Route,
) -> Result<Option<SharedKek<'c>>, HsmError> {
    let Some(PublicNumbers::Rsa { modulus, exponent }) = pair.public_key().map(PublicKey::numbers)
    else {
        return Ok(None);
    };
    let number = |bytes: &[u8]| BoxedUint::from_be_slice_vartime(bytes);
    let unsound = |error: rsa::Error| HsmError::Random(error.to_string());
    let public = RsaPublicKey::new(number(modulus), number(exponent)).map_err(unsound)?;
    let clear: Zeroizing<[u8; 32]> = Zeroizing::new(random()?);
    let mut generator = generator()?;
    let (blob, mechanism) = match route {
        Route::OaepSha256 => (
            public.encrypt(&mut generator, Oaep::<Sha256>::new(), &*clear),
            WrapMechanism::OaepSha256,
        ),
        Route::OaepSha1 => (
            public.encrypt(&mut generator, Oaep::<Sha1>::new(), &*clear),
            WrapMechanism::OaepSha1,
        ),
        Route::EcdhNull | Route::EcdhX963Sha256 => return Ok(None),
    };
    let set = [
        Flag::Private,
        Flag::Destroyable,
        Flag::Sensitive,
        Flag::Wrap,
    ];
    let incoming = Incoming {
        class: KeyClass::Secret,
        key_type: super::KEK,
        label: TRIAL_LABEL,
        id: &[],
        flags: Flags::of(KeyClass::Secret, &set),
        public_key: None,
    };
    let handle = connection.unwrap(mechanism, pair.handle(), &blob.map_err(unsound)?, &incoming)?;
    Ok(Some(SharedKek {
        object: connection.guard(handle),
        clear,
    }))
}
