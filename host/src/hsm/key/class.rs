//! Types and classes of keys.

use keyferry_protocol::suite::Suite;

use super::Flag;

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
    /// Its length in bits, of a key that devices take.
    #[must_use]
    pub const fn bits(self) -> Option<u16> {
        match self {
            Self::Aes { bits } | Self::Secret { bits } | Self::Rsa { bits } => Some(bits),
            Self::P256 => Some(256),
            Self::P384 | Self::Ed25519 | Self::Other => None,
        }
    }

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
