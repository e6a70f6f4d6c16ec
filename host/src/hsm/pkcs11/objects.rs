//! Objects on a token: finding them, reading their attributes, and the templates new ones are made from.

use cryptoki::context::Function;
use cryptoki::error::{Error, RvError};
use cryptoki::object::{Attribute, AttributeType, KeyType as CkKeyType, ObjectClass, ObjectHandle};
use cryptoki::types::Ulong;
use der::asn1::OctetStringRef;
use der::{Decode, Encode};

use super::failure;
use super::session::Connection;
use crate::hsm::error::HsmError;
use crate::hsm::key::{Flag, Flags, KeyClass, KeyType};
use crate::hsm::public_key::{PublicKey, PublicNumbers};

/// How the token's functions name an object, and the login for which that is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::hsm) struct KeyHandle(pub(super) ObjectHandle, pub(super) u64);

/// Which objects are looked for; what is not given matches all.
#[derive(Clone, Copy, Default)]
pub(in crate::hsm) struct Query<'a> {
    /// Of this class.
    pub(in crate::hsm) class: Option<KeyClass>,
    /// With this label.
    pub(in crate::hsm) label: Option<&'a str>,
    /// With this id.
    pub(in crate::hsm) id: Option<&'a [u8]>,
    /// On the token (true) or living in a session (false).
    pub(in crate::hsm) on_token: Option<bool>,
}

/// One key object with every attribute that is of interest. `CKA_VALUE` and the private numbers are never read.
pub(in crate::hsm) struct Object {
    pub(in crate::hsm) handle: KeyHandle,
    pub(in crate::hsm) key_type: KeyType,
    pub(in crate::hsm) label: String,
    pub(in crate::hsm) id: Vec<u8>,
    pub(in crate::hsm) flags: Flags,
    pub(in crate::hsm) check_value: Option<Vec<u8>>,
    /// From a public key object, or an RSA private key object, which holds the public numbers too.
    pub(in crate::hsm) public_key: Option<PublicKey>,
}

impl Connection {
    /// Finds objects.
    pub(in crate::hsm) fn find(&self, query: Query<'_>) -> Result<Vec<KeyHandle>, HsmError> {
        let mut template = Vec::new();
        if let Some(class) = query.class {
            template.push(Attribute::Class(object_class(class)));
        }
        if let Some(label) = query.label {
            template.push(Attribute::Label(label.into()));
        }
        if let Some(id) = query.id {
            template.push(Attribute::Id(id.into()));
        }
        if let Some(on_token) = query.on_token {
            template.push(Attribute::Token(on_token));
        }
        let found = self
            .session()
            .find_objects(&template)
            .map_err(|error| failure(&error))?;
        // A token that has logged the process out finds less, and says nothing.
        if self.is_logged_out() {
            let code = RvError::UserNotLoggedIn;
            return Err(failure(&Error::Pkcs11(code, Function::FindObjects)));
        }
        Ok(found.into_iter().map(|object| self.named(object)).collect())
    }

    /// Reads what is of interest about a key object of this class.
    pub(in crate::hsm) fn read(
        &self,
        handle: KeyHandle,
        class: KeyClass,
    ) -> Result<Object, HsmError> {
        let mut wanted = vec![
            AttributeType::KeyType,
            AttributeType::Label,
            AttributeType::Id,
            AttributeType::Trusted,
        ];
        wanted.extend(class.flags().iter().map(|flag| flag_type(*flag)));
        wanted.extend_from_slice(match class {
            KeyClass::Secret => &[AttributeType::ValueLen, AttributeType::CheckValue],
            KeyClass::Private => &[
                AttributeType::EcParams,
                AttributeType::Modulus,
                AttributeType::PublicExponent,
            ],
            KeyClass::Public => &[
                AttributeType::EcParams,
                AttributeType::EcPoint,
                AttributeType::Modulus,
                AttributeType::PublicExponent,
            ],
        });
        let attributes = Attributes(self.attributes(handle, &wanted)?);
        let mut flags = Flags::default();
        for flag in Flag::ALL {
            if let Some(value) = attributes.flag(flag) {
                flags.put(flag, value);
            }
        }
        let public_key = attributes.public_key();
        Ok(Object {
            handle,
            key_type: attributes.key_type(public_key.as_ref()),
            label: String::from_utf8_lossy(attributes.bytes(AttributeType::Label)).into_owned(),
            id: attributes.bytes(AttributeType::Id).to_vec(),
            flags,
            check_value: Some(attributes.bytes(AttributeType::CheckValue))
                .filter(|value| !value.is_empty())
                .map(<[u8]>::to_vec),
            public_key,
        })
    }

    /// Reads only the type and size of a secret key: what is asked between the steps of a wrapping must cost little.
    pub(in crate::hsm) fn secret_type(&self, handle: KeyHandle) -> Result<KeyType, HsmError> {
        let wanted = [AttributeType::KeyType, AttributeType::ValueLen];
        Ok(Attributes(self.attributes(handle, &wanted)?).key_type(None))
    }

    /// Reads only the point of a public EC key, as the token has it (`CKA_EC_POINT` without the DER around it).
    pub(in crate::hsm) fn point(&self, handle: KeyHandle) -> Result<Vec<u8>, HsmError> {
        let attributes = Attributes(self.attributes(handle, &[AttributeType::EcPoint])?);
        Ok(attributes.point().to_vec())
    }

    /// Takes rights away from an object that it should not have (`C_SetAttributeValue`).
    pub(in crate::hsm) fn take_away(
        &self,
        handle: KeyHandle,
        rights: impl Iterator<Item = Flag>,
    ) -> Result<(), HsmError> {
        let template: Vec<_> = rights.map(|flag| flag_attribute(flag, false)).collect();
        self.session()
            .update_attributes(handle.0, &template)
            .map_err(|error| failure(&error))
    }

    /// Reads attributes in one call; where that fails (one value that does not parse is enough), one by one.
    fn attributes(
        &self,
        handle: KeyHandle,
        wanted: &[AttributeType],
    ) -> Result<Vec<Attribute>, HsmError> {
        let error = match self.session().get_attributes(handle.0, wanted) {
            Ok(all) => return Ok(all),
            Err(error) => error,
        };
        let each: Vec<_> = wanted
            .iter()
            .filter_map(|one| self.session().get_attributes(handle.0, &[*one]).ok())
            .flatten()
            .collect();
        if each.is_empty() || self.is_lost() {
            return Err(failure(&error));
        }
        Ok(each)
    }
}

/// Attributes of one object.
struct Attributes(Vec<Attribute>);

impl Attributes {
    fn flag(&self, flag: Flag) -> Option<bool> {
        self.0.iter().find_map(|attribute| {
            (attribute.attribute_type() == flag_type(flag))
                .then(|| flag_value(attribute))
                .flatten()
        })
    }

    /// The value of an attribute that is a byte string; empty if there is none.
    fn bytes(&self, wanted: AttributeType) -> &[u8] {
        self.0
            .iter()
            .find(|attribute| attribute.attribute_type() == wanted)
            .map_or(&[], |attribute| match attribute {
                Attribute::Label(bytes)
                | Attribute::Id(bytes)
                | Attribute::CheckValue(bytes)
                | Attribute::EcParams(bytes)
                | Attribute::EcPoint(bytes)
                | Attribute::Modulus(bytes)
                | Attribute::PublicExponent(bytes) => bytes,
                _ => &[],
            })
    }

    fn ck_key_type(&self) -> Option<CkKeyType> {
        self.0.iter().find_map(|attribute| match attribute {
            Attribute::KeyType(key_type) => Some(*key_type),
            _ => None,
        })
    }

    /// Type and size; those of a private EC key come from its curve.
    fn key_type(&self, public_key: Option<&PublicKey>) -> KeyType {
        let length = self.0.iter().find_map(|attribute| match attribute {
            Attribute::ValueLen(length) => u16::try_from(usize::from(*length) * 8).ok(),
            _ => None,
        });
        match (self.ck_key_type(), length) {
            (Some(CkKeyType::AES), Some(bits)) => KeyType::Aes { bits },
            (Some(CkKeyType::GENERIC_SECRET | CkKeyType::SHA256_HMAC), Some(bits)) => {
                KeyType::Secret { bits }
            }
            (Some(CkKeyType::EC), _) => match self.bytes(AttributeType::EcParams) {
                P256_PARAMETERS => KeyType::P256,
                P384_PARAMETERS => KeyType::P384,
                _ => KeyType::Other,
            },
            (Some(CkKeyType::EC_EDWARDS), _)
                if ED25519_PARAMETERS.contains(&self.bytes(AttributeType::EcParams)) =>
            {
                KeyType::Ed25519
            }
            _ => public_key.map_or(KeyType::Other, PublicKey::key_type),
        }
    }

    fn public_key(&self) -> Option<PublicKey> {
        match self.ck_key_type()? {
            CkKeyType::RSA => PublicKey::from_rsa(
                self.bytes(AttributeType::Modulus),
                self.bytes(AttributeType::PublicExponent),
            )
            .ok(),
            CkKeyType::EC => {
                PublicKey::from_ec(self.bytes(AttributeType::EcParams), self.point()).ok()
            }
            CkKeyType::EC_EDWARDS
                if ED25519_PARAMETERS.contains(&self.bytes(AttributeType::EcParams)) =>
            {
                PublicKey::from_ed25519(self.point()).ok()
            }
            _ => None,
        }
    }

    /// The point of an elliptic curve: a DER OCTET STRING by the specification; some tokens give the bare point.
    fn point(&self) -> &[u8] {
        let value = self.bytes(AttributeType::EcPoint);
        <&OctetStringRef>::from_der(value).map_or(value, OctetStringRef::as_bytes)
    }
}

/// `namedCurve secp256r1` in DER (RFC 5480 §2.1.1).
pub(super) const P256_PARAMETERS: &[u8] =
    &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// `namedCurve secp384r1` in DER (RFC 5480 §2.1.1).
pub(super) const P384_PARAMETERS: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
/// Ed25519 in DER, both ways that PKCS#11 v3.1 §6.3.3 knows: the object identifier of RFC 8410, and the `curveName`
/// "edwards25519" as a `PrintableString`. Some tokens take only one of them.
pub(super) const ED25519_PARAMETERS: [&[u8]; 2] =
    [&[0x06, 0x03, 0x2b, 0x65, 0x70], b"\x13\x0cedwards25519"];

/// The values of `CKA_EC_PARAMS` that name the curve of this key type, best first; none if it has no curve.
pub(super) const fn curve_names(key_type: KeyType) -> &'static [&'static [u8]] {
    match key_type {
        KeyType::P256 => &[P256_PARAMETERS],
        KeyType::P384 => &[P384_PARAMETERS],
        KeyType::Ed25519 => &ED25519_PARAMETERS,
        KeyType::Aes { .. } | KeyType::Secret { .. } | KeyType::Rsa { .. } | KeyType::Other => &[],
    }
}

/// How much a template says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wording {
    /// Every boolean attribute.
    Full,
    /// Without `CKA_COPYABLE` and `CKA_DESTROYABLE`, which came with PKCS#11 v2.40 and older tokens do not know.
    Lean,
}

/// Makes an object from a full template, or from a lean one if the token takes offence at the full one. Which return value
/// says so differs: the database of NSS 3.87, for one, answers `CKR_GENERAL_ERROR` to attributes that it has no column for.
pub(super) fn create<T>(
    make: impl Fn(Wording) -> cryptoki::error::Result<T>,
) -> cryptoki::error::Result<T> {
    match make(Wording::Full) {
        Err(Error::Pkcs11(
            RvError::GeneralError
            | RvError::AttributeTypeInvalid
            | RvError::AttributeValueInvalid
            | RvError::TemplateInconsistent,
            _,
        )) => make(Wording::Lean),
        result => result,
    }
}

/// What a new object is made from: class, type, label, id, the attributes of its own type, and its boolean attributes.
pub(super) fn template(
    class: KeyClass,
    key_type: KeyType,
    label: &str,
    id: &[u8],
    own: Vec<Attribute>,
    flags: &Flags,
    wording: Wording,
) -> Vec<Attribute> {
    let mut template = vec![
        Attribute::Class(object_class(class)),
        Attribute::Label(label.into()),
    ];
    if let Some(key_type) = match key_type {
        KeyType::Aes { .. } => Some(CkKeyType::AES),
        KeyType::Secret { .. } => Some(CkKeyType::GENERIC_SECRET),
        KeyType::Rsa { .. } => Some(CkKeyType::RSA),
        KeyType::P256 | KeyType::P384 => Some(CkKeyType::EC),
        KeyType::Ed25519 => Some(CkKeyType::EC_EDWARDS),
        KeyType::Other => None,
    } {
        template.push(Attribute::KeyType(key_type));
    }
    if !id.is_empty() {
        template.push(Attribute::Id(id.into()));
    }
    template.extend(own);
    template.extend(
        flags
            .known()
            .filter(|(flag, _)| {
                wording == Wording::Full || !matches!(flag, Flag::Copyable | Flag::Destroyable)
            })
            .map(|(flag, value)| flag_attribute(flag, value)),
    );
    template
}

/// The attributes that hold the numbers of a public key, in each way that tokens know, best first.
pub(super) fn public_numbers(key: &PublicKey) -> Result<Vec<Vec<Attribute>>, HsmError> {
    let point: &[u8] = match key.numbers() {
        PublicNumbers::Rsa { modulus, exponent } => {
            return Ok(vec![vec![
                Attribute::Modulus(modulus.clone()),
                Attribute::PublicExponent(exponent.clone()),
            ]]);
        }
        PublicNumbers::P256(point) => point,
        PublicNumbers::P384(point) => point,
        PublicNumbers::Ed25519(point) => point,
    };
    let point = OctetStringRef::new(point)
        .and_then(|string| string.to_der())
        .map_err(|_| failure(&Error::InvalidValue))?;
    Ok(curve_names(key.key_type())
        .iter()
        .map(|name| {
            vec![
                Attribute::EcParams(name.to_vec()),
                Attribute::EcPoint(point.clone()),
            ]
        })
        .collect())
}

/// `CKA_VALUE_LEN` of a secret key of so many bits.
pub(super) fn value_length(bits: u16) -> Attribute {
    Attribute::ValueLen(Ulong::new((bits / 8).into()))
}

/// `CKA_MODULUS_BITS` of an RSA key to be generated.
pub(super) fn modulus_bits(bits: u16) -> Attribute {
    Attribute::ModulusBits(Ulong::new(bits.into()))
}

fn object_class(class: KeyClass) -> ObjectClass {
    match class {
        KeyClass::Secret => ObjectClass::SECRET_KEY,
        KeyClass::Private => ObjectClass::PRIVATE_KEY,
        KeyClass::Public => ObjectClass::PUBLIC_KEY,
    }
}

/// Ties each of our names for a boolean attribute to the library's.
macro_rules! flag_table {
    ($($name:ident),+ $(,)?) => {
        fn flag_type(flag: Flag) -> AttributeType {
            match flag {
                $(Flag::$name => AttributeType::$name,)+
            }
        }

        fn flag_attribute(flag: Flag, value: bool) -> Attribute {
            match flag {
                $(Flag::$name => Attribute::$name(value),)+
            }
        }

        fn flag_value(attribute: &Attribute) -> Option<bool> {
            match attribute {
                $(Attribute::$name(value) => Some(*value),)+
                _ => None,
            }
        }
    };
}

flag_table!(
    Token,
    Private,
    Modifiable,
    Copyable,
    Destroyable,
    Sensitive,
    Extractable,
    WrapWithTrusted,
    AlwaysAuthenticate,
    Trusted,
    Encrypt,
    Decrypt,
    Sign,
    Verify,
    SignRecover,
    VerifyRecover,
    Wrap,
    Unwrap,
    Derive,
);
