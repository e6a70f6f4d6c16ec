//! Templates that are made once: keyferry's attributes, as the module takes them.

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_ATTRIBUTE_TYPE, CK_KEY_TYPE, CK_OBJECT_CLASS, CK_ULONG,
    CKA_ALWAYS_AUTHENTICATE, CKA_CLASS, CKA_COPYABLE, CKA_DECRYPT, CKA_DERIVE, CKA_DESTROYABLE,
    CKA_EC_PARAMS, CKA_ENCRYPT, CKA_EXTRACTABLE, CKA_KEY_TYPE, CKA_LABEL, CKA_MODIFIABLE,
    CKA_MODULUS, CKA_PRIVATE, CKA_PUBLIC_EXPONENT, CKA_SENSITIVE, CKA_SIGN, CKA_SIGN_RECOVER,
    CKA_TOKEN, CKA_TRUSTED, CKA_UNWRAP, CKA_VALUE_LEN, CKA_VERIFY, CKA_VERIFY_RECOVER, CKA_WRAP,
    CKA_WRAP_WITH_TRUSTED, CKK_AES, CKK_EC, CKK_RSA, CKO_PRIVATE_KEY, CKO_PUBLIC_KEY,
    CKO_SECRET_KEY,
};
use keyferry::hsm::{Flag, Flags, KeyClass};

use super::length;

/// The label of what lives in a session only.
const LABEL: &[u8] = b"keyferry session object";
/// `namedCurve secp256r1` in DER (RFC 5480 §2.1.1).
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// Length of a KEK in bytes.
const KEK_LENGTH: CK_ULONG = 32;

/// How much a template says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wording {
    /// Every boolean attribute.
    Full,
    /// Without those that old tokens do not know.
    Lean,
}

/// The templates that are the same for every device.
pub(super) struct Templates {
    wording: Wording,
    /// The KEK that travels under an RSA key.
    pub(super) kek: Template,
    /// The KEK that both sides derive.
    pub(super) derived_kek: Template,
    /// The public half of the ephemeral key.
    pub(super) ephemeral_public: Template,
    /// Its private half.
    pub(super) ephemeral_private: Template,
}

impl Templates {
    pub(super) fn new(wording: Wording) -> Self {
        let guarded = [Flag::Private, Flag::Destroyable, Flag::Sensitive];
        let with = |more: &[Flag]| [&guarded, more].concat();
        let aes = || {
            let length = KEK_LENGTH.to_ne_bytes();
            Template::new(CKO_SECRET_KEY, CKK_AES).with(CKA_VALUE_LEN, &length)
        };
        let public = Template::new(CKO_PUBLIC_KEY, CKK_EC).with(CKA_EC_PARAMS, P256);
        let private = Template::new(CKO_PRIVATE_KEY, CKK_EC);
        let (travelling, derived) = (with(&[Flag::Extractable, Flag::Wrap]), with(&[Flag::Wrap]));
        Self {
            wording,
            kek: aes().flags(KeyClass::Secret, &travelling, wording),
            derived_kek: aes().flags(KeyClass::Secret, &derived, wording),
            ephemeral_public: public.flags(KeyClass::Public, &[Flag::Destroyable], wording),
            ephemeral_private: private.flags(KeyClass::Private, &with(&[Flag::Derive]), wording),
        }
    }

    /// A device's RSA public key.
    pub(super) fn recipient(&self, modulus: &[u8], exponent: &[u8]) -> Template {
        let set = [Flag::Destroyable, Flag::Wrap];
        Template::new(CKO_PUBLIC_KEY, CKK_RSA)
            .with(CKA_MODULUS, modulus)
            .with(CKA_PUBLIC_EXPONENT, exponent)
            .flags(KeyClass::Public, &set, self.wording)
    }
}

/// A template that owns what it points to.
#[derive(Default)]
pub(super) struct Template {
    attributes: Vec<CK_ATTRIBUTE>,
    /// In words, because a module may read numbers where they lie. Their memory stays where it is when this list grows.
    values: Vec<Vec<CK_ULONG>>,
}

impl Template {
    /// The attributes. A module only reads them where it makes an object (PKCS#11 v3.1 §5.7.1).
    pub(super) fn attributes(&self) -> &[CK_ATTRIBUTE] {
        &self.attributes
    }

    fn new(class: CK_OBJECT_CLASS, key_type: CK_KEY_TYPE) -> Self {
        Self::default()
            .with(CKA_CLASS, &class.to_ne_bytes())
            .with(CKA_LABEL, LABEL)
            .with(CKA_KEY_TYPE, &key_type.to_ne_bytes())
    }

    fn with(mut self, kind: CK_ATTRIBUTE_TYPE, value: &[u8]) -> Self {
        let words: Vec<_> = value.chunks(size_of::<CK_ULONG>()).map(word).collect();
        self.attributes.push(CK_ATTRIBUTE {
            type_: kind,
            pValue: words.as_ptr().cast_mut().cast(),
            ulValueLen: length(value),
        });
        self.values.push(words);
        self
    }

    fn flags(mut self, class: KeyClass, set: &[Flag], wording: Wording) -> Self {
        for (flag, value) in Flags::of(class, set).known() {
            if wording == Wording::Full || !matches!(flag, Flag::Copyable | Flag::Destroyable) {
                self = self.with(attribute(flag), &[value.into()]);
            }
        }
        self
    }
}

/// The word that begins with these bytes.
fn word(begin: &[u8]) -> CK_ULONG {
    let mut bytes = [0; size_of::<CK_ULONG>()];
    bytes[..begin.len()].copy_from_slice(begin);
    CK_ULONG::from_ne_bytes(bytes)
}

fn attribute(flag: Flag) -> CK_ATTRIBUTE_TYPE {
    match flag {
        Flag::Token => CKA_TOKEN,
        Flag::Private => CKA_PRIVATE,
        Flag::Modifiable => CKA_MODIFIABLE,
        Flag::Copyable => CKA_COPYABLE,
        Flag::Destroyable => CKA_DESTROYABLE,
        Flag::Sensitive => CKA_SENSITIVE,
        Flag::Extractable => CKA_EXTRACTABLE,
        Flag::WrapWithTrusted => CKA_WRAP_WITH_TRUSTED,
        Flag::AlwaysAuthenticate => CKA_ALWAYS_AUTHENTICATE,
        Flag::Trusted => CKA_TRUSTED,
        Flag::Encrypt => CKA_ENCRYPT,
        Flag::Decrypt => CKA_DECRYPT,
        Flag::Sign => CKA_SIGN,
        Flag::Verify => CKA_VERIFY,
        Flag::SignRecover => CKA_SIGN_RECOVER,
        Flag::VerifyRecover => CKA_VERIFY_RECOVER,
        Flag::Wrap => CKA_WRAP,
        Flag::Unwrap => CKA_UNWRAP,
        Flag::Derive => CKA_DERIVE,
    }
}
