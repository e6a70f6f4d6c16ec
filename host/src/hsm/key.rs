//! What a key on a token is and what it may do.

use keyferry_protocol::suite::Suite;

use super::error::HsmError;
use super::pkcs11::KeyHandle;
use super::public_key::PublicKey;

/// A key's algorithm and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// AES.
    Aes {
        /// 128, 192 or 256.
        bits: u16,
    },
    /// A generic secret (`CKK_GENERIC_SECRET`), used as an HMAC key.
    Secret {
        /// Its length in bits, a multiple of 8.
        bits: u16,
    },
    /// RSA.
    Rsa {
        /// Length of the modulus in bits.
        bits: u16,
    },
    /// Elliptic curve P-256 (`secp256r1`).
    P256,
    /// Elliptic curve P-384 (`secp384r1`).
    P384,
    /// Ed25519 (RFC 8032).
    Ed25519,
    /// Anything else; listed, but not usable here.
    Other,
}

impl KeyType {
    /// The types that a key can be created with. Beside these, an HMAC key can have any length that
    /// [`KeyType::is_creatable`] allows.
    pub const CREATABLE: [Self; 10] = [
        Self::Aes { bits: 128 },
        Self::Aes { bits: 192 },
        Self::Aes { bits: 256 },
        Self::Secret { bits: 256 },
        Self::Rsa { bits: 2048 },
        Self::Rsa { bits: 3072 },
        Self::Rsa { bits: 4096 },
        Self::P256,
        Self::P384,
        Self::Ed25519,
    ];

    /// Whether a key of this type can be created: one of [`KeyType::CREATABLE`], or an HMAC key of whole bytes from 128 to
    /// 512 bits.
    #[must_use]
    pub fn is_creatable(self) -> bool {
        match self {
            Self::Secret { bits } => (128..=512).contains(&bits) && bits.is_multiple_of(8),
            Self::Aes { .. }
            | Self::Rsa { .. }
            | Self::P256
            | Self::P384
            | Self::Ed25519
            | Self::Other => Self::CREATABLE.contains(&self),
        }
    }

    /// The type of this name, whether or not such a key can be created: any length of RSA and HMAC keys that fits.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let number = |prefix: &str| name.strip_prefix(prefix)?.parse().ok();
        let open_ended = [
            number("rsa-").map(|bits| Self::Rsa { bits }),
            number("hmac-")
                .filter(|bits: &u16| *bits > 0 && bits.is_multiple_of(8))
                .map(|bits| Self::Secret { bits }),
        ];
        Self::CREATABLE
            .into_iter()
            .chain(open_ended.into_iter().flatten())
            // Compared by name, so that "hmac-0256" is not one.
            .find(|key_type| key_type.to_string() == name)
    }

    /// Whether keys can be wrapped for a recipient key of this type under the suite.
    #[must_use]
    pub const fn fits(self, suite: Suite) -> bool {
        match suite {
            Suite::RsaOaepSha256 | Suite::RsaOaepSha1 => matches!(self, Self::Rsa { .. }),
            Suite::EcdhP256X963Sha256 | Suite::EcdhP256Null => matches!(self, Self::P256),
        }
    }

    /// Whether a key that the token calls this can be of the other type. SoftHSM 2.6.1 does not tell the length of a secret key
    /// that it unwrapped (`CKA_VALUE_LEN` is 0).
    #[must_use]
    pub const fn may_be(self, other: Self) -> bool {
        match (self, other) {
            (Self::Aes { bits }, Self::Aes { bits: wanted })
            | (Self::Secret { bits }, Self::Secret { bits: wanted })
            | (Self::Rsa { bits }, Self::Rsa { bits: wanted }) => bits == wanted || bits == 0,
            (Self::P256, Self::P256)
            | (Self::P384, Self::P384)
            | (Self::Ed25519, Self::Ed25519) => true,
            _ => false,
        }
    }

    /// Whether such a key is a pair of private and public key.
    #[must_use]
    pub const fn is_pair(self) -> bool {
        match self {
            Self::Rsa { .. } | Self::P256 | Self::P384 | Self::Ed25519 => true,
            Self::Aes { .. } | Self::Secret { .. } | Self::Other => false,
        }
    }
}

/// The name used on command lines and in output: `aes-256`, `hmac-256`, `rsa-2048`, `p-256`, `p-384`, `ed25519`, `other`; `aes` and
/// `hmac` where the token does not tell the length.
impl std::fmt::Display for KeyType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Aes { bits: 0 } => f.write_str("aes"),
            Self::Secret { bits: 0 } => f.write_str("hmac"),
            Self::Aes { bits } => write!(f, "aes-{bits}"),
            Self::Secret { bits } => write!(f, "hmac-{bits}"),
            Self::Rsa { bits } => write!(f, "rsa-{bits}"),
            Self::P256 => f.write_str("p-256"),
            Self::P384 => f.write_str("p-384"),
            Self::Ed25519 => f.write_str("ed25519"),
            Self::Other => f.write_str("other"),
        }
    }
}

impl std::str::FromStr for KeyType {
    type Err = keyferry_protocol::suite::UnknownName;

    /// Takes the name of a type that [can be created](KeyType::is_creatable).
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::from_name(name)
            .filter(|key_type| key_type.is_creatable())
            .ok_or(keyferry_protocol::suite::UnknownName)
    }
}

/// Which half of which kind of key an object on a token is (`CKA_CLASS`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyClass {
    /// A symmetric key.
    Secret,
    /// A private key.
    Private,
    /// A public key.
    Public,
}

impl KeyClass {
    /// All classes.
    pub const ALL: [Self; 3] = [Self::Secret, Self::Private, Self::Public];

    /// The name used in output: `secret`, `private`, `public`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Private => "private",
            Self::Public => "public",
        }
    }

    /// The boolean attributes an object of this class is created with, each one set explicitly. `CKA_TRUSTED` is not among
    /// them: only a security officer may set it, and everybody else's objects have it false (PKCS#11 v3.1 §4.9).
    #[must_use]
    pub const fn flags(self) -> &'static [Flag] {
        match self {
            Self::Secret => &[
                Flag::Token,
                Flag::Private,
                Flag::Modifiable,
                Flag::Copyable,
                Flag::Destroyable,
                Flag::Sensitive,
                Flag::Extractable,
                Flag::WrapWithTrusted,
                Flag::Encrypt,
                Flag::Decrypt,
                Flag::Sign,
                Flag::Verify,
                Flag::Wrap,
                Flag::Unwrap,
                Flag::Derive,
            ],
            Self::Private => &[
                Flag::Token,
                Flag::Private,
                Flag::Modifiable,
                Flag::Copyable,
                Flag::Destroyable,
                Flag::Sensitive,
                Flag::Extractable,
                Flag::WrapWithTrusted,
                Flag::AlwaysAuthenticate,
                Flag::Decrypt,
                Flag::Sign,
                Flag::SignRecover,
                Flag::Unwrap,
                Flag::Derive,
            ],
            Self::Public => &[
                Flag::Token,
                Flag::Private,
                Flag::Modifiable,
                Flag::Copyable,
                Flag::Destroyable,
                Flag::Encrypt,
                Flag::Verify,
                Flag::VerifyRecover,
                Flag::Wrap,
                Flag::Derive,
            ],
        }
    }
}

/// A boolean attribute of an object on a token (PKCS#11 v3.1 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Flag {
    /// `CKA_TOKEN`: survives the session.
    Token,
    /// `CKA_PRIVATE`: seen only after login.
    Private,
    /// `CKA_MODIFIABLE`: its attributes can be changed.
    Modifiable,
    /// `CKA_COPYABLE`.
    Copyable,
    /// `CKA_DESTROYABLE`.
    Destroyable,
    /// `CKA_SENSITIVE`: its value cannot be read.
    Sensitive,
    /// `CKA_EXTRACTABLE`: it can be wrapped.
    Extractable,
    /// `CKA_WRAP_WITH_TRUSTED`: only by a trusted wrapping key.
    WrapWithTrusted,
    /// `CKA_ALWAYS_AUTHENTICATE`: the PIN is asked for at each use.
    AlwaysAuthenticate,
    /// `CKA_TRUSTED`.
    Trusted,
    /// `CKA_ENCRYPT`.
    Encrypt,
    /// `CKA_DECRYPT`.
    Decrypt,
    /// `CKA_SIGN`, also for MACs.
    Sign,
    /// `CKA_VERIFY`, also for MACs.
    Verify,
    /// `CKA_SIGN_RECOVER`.
    SignRecover,
    /// `CKA_VERIFY_RECOVER`.
    VerifyRecover,
    /// `CKA_WRAP`.
    Wrap,
    /// `CKA_UNWRAP`.
    Unwrap,
    /// `CKA_DERIVE`.
    Derive,
}

impl Flag {
    /// All boolean attributes. `CKA_MODIFIABLE` is the last: `C_DeriveKey` of SoftHSM 2.6.1 takes a template in order, and refuses
    /// every attribute that follows this one if it is false.
    pub const ALL: [Self; 19] = [
        Self::Token,
        Self::Private,
        Self::Copyable,
        Self::Destroyable,
        Self::Sensitive,
        Self::Extractable,
        Self::WrapWithTrusted,
        Self::AlwaysAuthenticate,
        Self::Trusted,
        Self::Encrypt,
        Self::Decrypt,
        Self::Sign,
        Self::Verify,
        Self::SignRecover,
        Self::VerifyRecover,
        Self::Wrap,
        Self::Unwrap,
        Self::Derive,
        Self::Modifiable,
    ];

    /// The name used in output: the attribute's, in lower case with hyphens.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Private => "private",
            Self::Modifiable => "modifiable",
            Self::Copyable => "copyable",
            Self::Destroyable => "destroyable",
            Self::Sensitive => "sensitive",
            Self::Extractable => "extractable",
            Self::WrapWithTrusted => "wrap-with-trusted",
            Self::AlwaysAuthenticate => "always-authenticate",
            Self::Trusted => "trusted",
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
            Self::Sign => "sign",
            Self::Verify => "verify",
            Self::SignRecover => "sign-recover",
            Self::VerifyRecover => "verify-recover",
            Self::Wrap => "wrap",
            Self::Unwrap => "unwrap",
            Self::Derive => "derive",
        }
    }

    /// Whether the attribute says what a key may be used for.
    #[must_use]
    pub const fn is_usage(self) -> bool {
        match self {
            Self::Encrypt
            | Self::Decrypt
            | Self::Sign
            | Self::Verify
            | Self::SignRecover
            | Self::VerifyRecover
            | Self::Wrap
            | Self::Unwrap
            | Self::Derive => true,
            Self::Token
            | Self::Private
            | Self::Modifiable
            | Self::Copyable
            | Self::Destroyable
            | Self::Sensitive
            | Self::Extractable
            | Self::WrapWithTrusted
            | Self::AlwaysAuthenticate
            | Self::Trusted => false,
        }
    }

    /// Whether true means that more can be done with the key, or less.
    const fn kind(self) -> FlagKind {
        match self {
            Self::Extractable
            | Self::Encrypt
            | Self::Decrypt
            | Self::Sign
            | Self::Verify
            | Self::SignRecover
            | Self::VerifyRecover
            | Self::Wrap
            | Self::Unwrap
            | Self::Derive
            | Self::Trusted => FlagKind::Right,
            Self::Private | Self::Sensitive | Self::WrapWithTrusted | Self::AlwaysAuthenticate => {
                FlagKind::Protection
            }
            Self::Token | Self::Modifiable | Self::Copyable | Self::Destroyable => FlagKind::Other,
        }
    }

    /// The attribute's name in PKCS#11, for example `CKA_WRAP_WITH_TRUSTED`.
    #[must_use]
    pub fn attribute(self) -> String {
        format!("CKA_{}", self.name().to_uppercase().replace('-', "_"))
    }

    /// The `--usage` word that sets this attribute, if there is one.
    #[must_use]
    pub fn usage_name(self) -> Option<&'static str> {
        KeyUsage::ALL
            .into_iter()
            .map(KeyUsage::name)
            .find(|name| *name == self.name())
    }

    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// What it means that a boolean attribute is true.
enum FlagKind {
    /// More can be done with the key.
    Right,
    /// Less can be done with it.
    Protection,
    /// Neither.
    Other,
}

/// Boolean attributes of one object: each true, false, or unknown because the token does not have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    known: u32,
    set: u32,
}

impl Flags {
    /// The attributes of a new object of this class: those of `set` true, every other one false.
    #[must_use]
    pub fn of(class: KeyClass, set: &[Flag]) -> Self {
        let mut flags = Self::default();
        for flag in class.flags() {
            flags.put(*flag, set.contains(flag));
        }
        flags
    }

    /// Notes the value of one attribute.
    pub fn put(&mut self, flag: Flag, value: bool) {
        self.known |= flag.bit();
        if value {
            self.set |= flag.bit();
        } else {
            self.set &= !flag.bit();
        }
    }

    /// The value of one attribute; nothing if the token does not say.
    #[must_use]
    pub const fn get(&self, flag: Flag) -> Option<bool> {
        if self.known & flag.bit() == 0 {
            None
        } else {
            Some(self.set & flag.bit() != 0)
        }
    }

    /// Whether the token says that it is true.
    #[must_use]
    pub const fn has(&self, flag: Flag) -> bool {
        self.set & flag.bit() != 0
    }

    /// The first right that these attributes give and the others do not: a usage, leaving the token, or being free of a
    /// protection.
    #[must_use]
    pub fn widened_from(&self, other: &Self) -> Option<Flag> {
        let unprotected = |flag: &Flag| {
            matches!(flag.kind(), FlagKind::Protection)
                && self.get(*flag) == Some(false)
                && other.has(*flag)
        };
        self.rights_beyond(other)
            .next()
            .or_else(|| Flag::ALL.into_iter().find(unprotected))
    }

    /// The rights that these attributes give and the others do not.
    pub(super) fn rights_beyond<'f>(&'f self, other: &'f Self) -> impl Iterator<Item = Flag> + 'f {
        Flag::ALL.into_iter().filter(|flag| {
            matches!(flag.kind(), FlagKind::Right) && self.has(*flag) && !other.has(*flag)
        })
    }

    /// What the public half may do where the private half may do this: check what that signs, encrypt what that decrypts, wrap
    /// what that unwraps.
    pub fn public_usages(&self) -> impl Iterator<Item = Flag> + '_ {
        [
            (Flag::Sign, Flag::Verify),
            (Flag::Decrypt, Flag::Encrypt),
            (Flag::Unwrap, Flag::Wrap),
        ]
        .into_iter()
        .filter(|(private, _)| self.has(*private))
        .map(|(_, public)| public)
    }

    /// Those whose value is known, in the order of [`Flag::ALL`].
    pub fn known(&self) -> impl Iterator<Item = (Flag, bool)> + '_ {
        Flag::ALL
            .into_iter()
            .filter_map(|flag| self.get(flag).map(|value| (flag, value)))
    }
}

/// What a key on the token may be used for, beside leaving it. Wrapping is not among the choices: with a key that both wraps and
/// decrypts, a token gives its keys away in clear. Unwrapping is for key pairs that receive keys and do nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyUsage {
    /// Encrypt with the symmetric or public key.
    Encrypt,
    /// Decrypt with the symmetric or private key.
    Decrypt,
    /// Make MACs, or sign with the private key.
    Sign,
    /// Check MACs, or signatures with the public key.
    Verify,
    /// Derive further keys.
    Derive,
    /// Receive wrapped keys: an RSA or P-256 pair that does nothing else.
    Unwrap,
    /// Wrap and unwrap what is kept outside the token for a while: an AES key that does nothing else.
    Keep,
}

impl KeyUsage {
    /// All usages.
    pub const ALL: [Self; 7] = [
        Self::Encrypt,
        Self::Decrypt,
        Self::Sign,
        Self::Verify,
        Self::Derive,
        Self::Unwrap,
        Self::Keep,
    ];

    /// The name used on command lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unwrap => "unwrap",
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
            Self::Sign => "sign",
            Self::Verify => "verify",
            Self::Derive => "derive",
            Self::Keep => "keep",
        }
    }

    /// The attribute that allows it to the half of this class of a key of this type, if that half has a part in it. What a
    /// private key signs, anybody may check, and what it decrypts, anybody may have encrypted; NSS 3.87 tries both on a new pair,
    /// and gives none whose public half may not (`CKR_KEY_TYPE_INCONSISTENT`).
    #[must_use]
    pub const fn flag(self, class: KeyClass, key_type: KeyType) -> Option<Flag> {
        match (self, class) {
            (Self::Encrypt, _) | (Self::Decrypt, KeyClass::Public) => Some(Flag::Encrypt),
            (Self::Decrypt, _) => Some(Flag::Decrypt),
            (Self::Sign, KeyClass::Public) | (Self::Verify, _) => Some(Flag::Verify),
            (Self::Sign, _) => Some(Flag::Sign),
            (Self::Derive, KeyClass::Public) => None,
            (Self::Derive, _) => Some(Flag::Derive),
            (Self::Unwrap, _) => match (key_type, class) {
                (KeyType::P256, KeyClass::Private) => Some(Flag::Derive),
                (KeyType::Rsa { .. }, KeyClass::Private) => Some(Flag::Unwrap),
                (KeyType::Rsa { .. }, KeyClass::Public) => Some(Flag::Wrap),
                _ => None,
            },
            // Two attributes, see `NewKey::flags`.
            (Self::Keep, _) => None,
        }
    }
}

impl std::str::FromStr for KeyUsage {
    type Err = keyferry_protocol::suite::UnknownName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|usage| usage.name() == name)
            .ok_or(keyferry_protocol::suite::UnknownName)
    }
}

/// A key to be created on a token.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// Its label.
    pub label: String,
    /// Its type; one that [can be created](KeyType::is_creatable).
    pub key_type: KeyType,
    /// Whether it can leave the token wrapped.
    pub extractable: bool,
    /// What it may be used for on the token.
    pub usage: Vec<KeyUsage>,
    /// Whether a private key asks for its PIN at each use (`CKA_ALWAYS_AUTHENTICATE`).
    pub always_authenticate: bool,
}

impl NewKey {
    /// A key to be injected into devices: extractable, and on the token good for nothing but checking proofs.
    #[must_use]
    pub fn target(label: &str, key_type: KeyType) -> Self {
        Self {
            label: label.into(),
            key_type,
            extractable: true,
            usage: vec![KeyUsage::Verify],
            always_authenticate: false,
        }
    }

    /// A key that signs orders: P-256, sign only, never leaves the token.
    #[must_use]
    pub fn authority(label: &str) -> Self {
        Self {
            label: label.into(),
            key_type: KeyType::P256,
            extractable: false,
            usage: vec![KeyUsage::Sign],
            always_authenticate: false,
        }
    }

    /// Checks that a key that is to receive others is a pair that can, and is to do nothing else.
    ///
    /// # Errors
    /// [`HsmError::RecipientOnly`], [`HsmError::KeeperOnly`], [`HsmError::OnlyPairsAsk`].
    pub(super) fn check_usage(&self) -> Result<(), HsmError> {
        if self.always_authenticate && !self.key_type.is_pair() {
            return Err(HsmError::OnlyPairsAsk {
                label: self.label.clone(),
            });
        }
        let receives = self.usage.contains(&KeyUsage::Unwrap);
        let can = matches!(self.key_type, KeyType::Rsa { .. } | KeyType::P256);
        if receives && (self.usage.len() > 1 || !can || self.extractable) {
            return Err(HsmError::RecipientOnly {
                label: self.label.clone(),
            });
        }
        let aes = matches!(self.key_type, KeyType::Aes { .. });
        if self.keeps() && (self.usage.len() > 1 || !aes || self.extractable) {
            return Err(HsmError::KeeperOnly {
                label: self.label.clone(),
            });
        }
        Ok(())
    }

    /// Whether others are to be kept under the key.
    fn keeps(&self) -> bool {
        self.usage.contains(&KeyUsage::Keep)
    }

    /// The attributes of the object of this class that is part of the key.
    #[must_use]
    pub(super) fn flags(&self, class: KeyClass) -> Flags {
        let mut set = vec![Flag::Token, Flag::Destroyable];
        match class {
            KeyClass::Secret | KeyClass::Private => {
                set.extend([Flag::Private, Flag::Sensitive]);
                if self.extractable {
                    set.push(Flag::Extractable);
                }
            }
            KeyClass::Public => {}
        }
        if self.always_authenticate && class == KeyClass::Private {
            set.push(Flag::AlwaysAuthenticate);
        }
        set.extend(
            self.usage
                .iter()
                .filter_map(|usage| usage.flag(class, self.key_type)),
        );
        if self.keeps() {
            set.extend([Flag::Wrap, Flag::Unwrap]);
        }
        Flags::of(class, &set)
    }
}

/// A key on a token, as it is listed: never its value.
#[derive(Clone, Debug)]
pub struct KeyInfo {
    /// How the token's own functions name it, while it is open.
    pub(super) handle: KeyHandle,
    /// Secret, private, or a public key that stands alone.
    pub class: KeyClass,
    /// Algorithm and size.
    pub key_type: KeyType,
    /// `CKA_LABEL`.
    pub label: String,
    /// `CKA_ID`; the two halves of a pair share it.
    pub id: Vec<u8>,
    /// The boolean attributes.
    pub flags: Flags,
    /// `CKA_CHECK_VALUE` of a secret key: three bytes, where the token has it.
    pub check_value: Option<Vec<u8>>,
    /// The public key of a pair, if the token has it.
    pub public_key: Option<PublicKey>,
    /// The boolean attributes of the public half of a pair, if that is an object of its own on the token.
    pub public_flags: Option<Flags>,
}

impl KeyInfo {
    /// The name for messages: the label, or the id of a key without one.
    #[must_use]
    pub fn name(&self) -> String {
        if self.label.is_empty() {
            format!("id {}", hex::encode(&self.id))
        } else {
            self.label.clone()
        }
    }

    /// Checks that the token would be right to let this key leave under a wrapping key imported at run time. Asked before
    /// the token is, because not every token enforces its own attributes.
    ///
    /// # Errors
    /// [`HsmError::NotExtractable`] or [`HsmError::TrustedOnly`].
    pub fn check_may_leave(&self) -> Result<(), HsmError> {
        if !self.flags.has(Flag::Extractable) {
            return Err(HsmError::NotExtractable { label: self.name() });
        }
        if self.flags.has(Flag::WrapWithTrusted) {
            return Err(HsmError::TrustedOnly { label: self.name() });
        }
        Ok(())
    }

    /// What a key that should sign and do nothing else may do beside, if there is anything: another usage, or leave the token.
    #[must_use]
    pub fn beyond_signing(&self) -> Option<Flag> {
        Flag::ALL.into_iter().find(|flag| {
            (flag.is_usage() && *flag != Flag::Sign || *flag == Flag::Extractable)
                && self.flags.has(*flag)
        })
    }

    /// Checks that an attribute is true.
    pub(super) fn check_flag(&self, flag: Flag) -> Result<(), HsmError> {
        if self.flags.has(flag) {
            Ok(())
        } else {
            Err(HsmError::NotPermitted {
                label: self.name(),
                flag,
            })
        }
    }

    /// The public key of the pair.
    ///
    /// # Errors
    /// [`HsmError::NoPublicKey`] if the token does not have it, or the key is symmetric.
    pub fn public_key(&self) -> Result<&PublicKey, HsmError> {
        self.public_key
            .as_ref()
            .ok_or_else(|| HsmError::NoPublicKey { label: self.name() })
    }
}
