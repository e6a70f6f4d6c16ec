//! What a key on a token is and what it may do.

mod class;
mod flags;

pub use class::{KeyClass, KeyType};
pub use flags::{Flag, Flags};

use super::error::HsmError;
use super::pkcs11::KeyHandle;
use super::public_key::PublicKey;

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
