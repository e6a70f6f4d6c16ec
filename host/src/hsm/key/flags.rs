//! What a token permits a key to do, and to be done with it.

use super::{KeyClass, KeyUsage};

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
    pub(in crate::hsm) fn rights_beyond<'f>(
        &'f self,
        other: &'f Self,
    ) -> impl Iterator<Item = Flag> + 'f {
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
