//! The questions that trials answer, and what an answer can be.

use std::borrow::Cow;

use crate::hsm::derive::Diversification;
use crate::hsm::key::KeyType;

/// Something to find out about a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fact {
    /// RSA-OAEP with SHA-256 carries a KEK to its recipient.
    OaepSha256,
    /// RSA-OAEP with SHA-1 does.
    OaepSha1,
    /// `CKM_RSA_AES_KEY_WRAP` with SHA-256.
    SingleStepSha256,
    /// `CKM_RSA_AES_KEY_WRAP` with SHA-1.
    SingleStepSha1,
    /// ECDH on P-256 with the X9.63 KDF and SHA-256 gives both sides the same KEK.
    EcdhX963Sha256,
    /// ECDH on P-256 without a KDF does.
    EcdhNull,
    /// `CKM_AES_KEY_WRAP_KWP` of an AES key is RFC 5649.
    KwpAes,
    /// The same of a secret whose length is no multiple of 8.
    KwpSecret,
    /// The same of a P-256 private key.
    KwpPrivate,
    /// `CKM_AES_KEY_WRAP_PAD` of an AES key is RFC 5649.
    PadAes,
    /// The same of a secret whose length is no multiple of 8.
    PadSecret,
    /// The same of a P-256 private key.
    PadPrivate,
    /// A private key that the token made and that begins with a zero byte is wrapped with it (RFC 5915 §3).
    LeadingZeros,
    /// The same of a private key that was unwrapped.
    LeadingZerosUnwrapped,
    /// The token opens a KEK under RSA-OAEP with SHA-256.
    OpenOaepSha256,
    /// The token opens a KEK under RSA-OAEP with SHA-1.
    OpenOaepSha1,
    /// The token unwraps an AES key.
    UnwrapAes,
    /// The token unwraps a secret whose length is no multiple of 8.
    UnwrapSecret,
    /// The token unwraps a P-256 private key.
    UnwrapPrivate,
    /// The token unwraps a P-256 private key that was wrapped with a zero tail.
    UnwrapZeroTail,
    /// The token unwraps an AES key with `CKA_VALUE_LEN` in the template.
    UnwrapWithLength,
    /// The token tells the length of an unwrapped key.
    UnwrappedLength,
    /// ECDSA on P-256 over a digest.
    Ecdsa,
    /// ECDSA on P-256 over a message, hashed with SHA-256 by the token.
    EcdsaSha256,
    /// ECDSA on P-384 over a digest.
    EcdsaP384,
    /// Ed25519.
    Ed25519,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RsaPkcs1,
    /// RSASSA-PSS with SHA-256.
    RsaPss,
    /// The token makes an AES-CMAC.
    Cmac,
    /// The token checks an AES-CMAC.
    CmacVerify,
    /// The token makes an HMAC-SHA-256 with a generic secret.
    Hmac,
    /// The token checks an HMAC-SHA-256.
    HmacVerify,
    /// HMAC-SHA-256 with an AES key.
    HmacAes,
    /// `CKA_CHECK_VALUE` of an AES key.
    CheckValue,
    /// A secret key with `CKA_EXTRACTABLE` false does not leave.
    KeepsSecret,
    /// A private key with `CKA_EXTRACTABLE` false does not leave.
    KeepsPrivate,
    /// A key with `CKA_WRAP_WITH_TRUSTED` does not leave under a wrapping key that is not trusted.
    KeepsTrusted,
    /// A key of this type, which may leave, is derived in this way from an AES key that may not.
    Derives(Diversification, KeyType),
    /// A key of this type is made, wrapped, and comes out as it should.
    Key(KeyType),
}

impl Fact {
    /// All facts, in the order in which they are told; of the types that can be derived, AES-256 stands for all.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut all = vec![
            Self::OaepSha256,
            Self::OaepSha1,
            Self::SingleStepSha256,
            Self::SingleStepSha1,
            Self::EcdhX963Sha256,
            Self::EcdhNull,
            Self::KwpAes,
            Self::KwpSecret,
            Self::KwpPrivate,
            Self::PadAes,
            Self::PadSecret,
            Self::PadPrivate,
            Self::LeadingZeros,
            Self::LeadingZerosUnwrapped,
            Self::OpenOaepSha256,
            Self::OpenOaepSha1,
            Self::UnwrapAes,
            Self::UnwrapSecret,
            Self::UnwrapPrivate,
            Self::UnwrapZeroTail,
            Self::UnwrapWithLength,
            Self::UnwrappedLength,
            Self::Ecdsa,
            Self::EcdsaSha256,
            Self::EcdsaP384,
            Self::Ed25519,
            Self::RsaPkcs1,
            Self::RsaPss,
            Self::Cmac,
            Self::CmacVerify,
            Self::Hmac,
            Self::HmacVerify,
            Self::HmacAes,
            Self::CheckValue,
            Self::KeepsSecret,
            Self::KeepsPrivate,
            Self::KeepsTrusted,
        ];
        all.extend(Diversification::ALL.map(|way| Self::Derives(way, KeyType::Aes { bits: 256 })));
        all.extend(KeyType::CREATABLE.map(Self::Key));
        all
    }

    /// The name used in output; it stays the same.
    #[must_use]
    pub fn name(self) -> Cow<'static, str> {
        match self {
            Self::Key(key_type) => format!("key-{key_type}").into(),
            Self::Derives(way, key_type) if key_type != (KeyType::Aes { bits: 256 }) => {
                format!("{}-{key_type}", way.name()).into()
            }
            other => other.words().0.into(),
        }
    }

    /// What was tried, for people.
    #[must_use]
    pub fn question(self) -> Cow<'static, str> {
        match self {
            Self::Key(key_type) => format!("makes and wraps a key of type {key_type}").into(),
            Self::Derives(way, key_type) if key_type != (KeyType::Aes { bits: 256 }) => {
                format!("{}, a key of type {key_type}", way.words()).into()
            }
            other => other.words().1.into(),
        }
    }

    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::OaepSha256 => ("oaep-sha256", "KEK by RSA-OAEP, SHA-256"),
            Self::OaepSha1 => ("oaep-sha1", "KEK by RSA-OAEP, SHA-1"),
            Self::SingleStepSha256 => ("single-step-sha256", "RSA_AES_KEY_WRAP, SHA-256"),
            Self::SingleStepSha1 => ("single-step-sha1", "RSA_AES_KEY_WRAP, SHA-1"),
            Self::EcdhX963Sha256 => ("ecdh-x963-sha256", "KEK by ECDH, X9.63 KDF, SHA-256"),
            Self::EcdhNull => ("ecdh-null", "KEK by ECDH, no KDF"),
            Self::KwpAes => ("kwp-aes", "AES_KEY_WRAP_KWP of an AES key"),
            Self::KwpSecret => ("kwp-secret", "AES_KEY_WRAP_KWP of a 20-byte secret"),
            Self::KwpPrivate => ("kwp-private", "AES_KEY_WRAP_KWP of a P-256 private key"),
            Self::PadAes => ("pad-aes", "AES_KEY_WRAP_PAD of an AES key"),
            Self::PadSecret => ("pad-secret", "AES_KEY_WRAP_PAD of a 20-byte secret"),
            Self::PadPrivate => ("pad-private", "AES_KEY_WRAP_PAD of a P-256 private key"),
            Self::LeadingZeros => ("leading-zeros", "own private keys keep leading zero bytes"),
            Self::LeadingZerosUnwrapped => (
                "leading-zeros-unwrapped",
                "unwrapped private keys keep leading zero bytes",
            ),
            Self::OpenOaepSha256 => ("open-oaep-sha256", "opens a KEK under RSA-OAEP, SHA-256"),
            Self::OpenOaepSha1 => ("open-oaep-sha1", "opens a KEK under RSA-OAEP, SHA-1"),
            Self::UnwrapAes => ("unwrap-aes", "unwraps an AES key"),
            Self::UnwrapSecret => ("unwrap-secret", "unwraps a 20-byte secret"),
            Self::UnwrapPrivate => ("unwrap-private", "unwraps a P-256 private key"),
            Self::UnwrapZeroTail => ("unwrap-zero-tail", "unwraps a private key with a zero tail"),
            Self::UnwrapWithLength => ("unwrap-with-length", "takes CKA_VALUE_LEN when it unwraps"),
            Self::UnwrappedLength => ("unwrapped-length", "tells the length of an unwrapped key"),
            Self::Ecdsa => ("ecdsa-p256", "ECDSA P-256 over a digest"),
            Self::EcdsaSha256 => ("ecdsa-p256-sha256", "ECDSA P-256 with SHA-256"),
            Self::EcdsaP384 => ("ecdsa-p384", "ECDSA P-384 over a digest"),
            Self::Ed25519 => ("ed25519", "Ed25519"),
            Self::RsaPkcs1 => ("rsa-pkcs1-sha256", "RSA PKCS#1 v1.5 with SHA-256"),
            Self::RsaPss => ("rsa-pss-sha256", "RSA PSS with SHA-256"),
            Self::Cmac => ("aes-cmac", "makes an AES-CMAC"),
            Self::CmacVerify => ("aes-cmac-verify", "checks an AES-CMAC"),
            Self::Hmac => ("hmac-sha256", "makes an HMAC-SHA-256"),
            Self::HmacVerify => ("hmac-sha256-verify", "checks an HMAC-SHA-256"),
            Self::HmacAes => ("hmac-sha256-aes", "makes an HMAC-SHA-256 with an AES key"),
            Self::CheckValue => ("check-value", "CKA_CHECK_VALUE of an AES key"),
            Self::KeepsSecret => ("keeps-secret", "keeps a secret key that is not extractable"),
            Self::KeepsPrivate => (
                "keeps-private",
                "keeps a private key that is not extractable",
            ),
            Self::KeepsTrusted => ("keeps-trusted", "obeys CKA_WRAP_WITH_TRUSTED"),
            Self::Derives(way, _) => (way.name(), way.words()),
            Self::Key(_) => ("key", "makes and wraps a key"),
        }
    }
}

/// What a trial showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The token does it, as the standard has it.
    Works,
    /// The token accepts it, and does something else.
    Differs(Difference),
    /// The token says that it does not do it.
    Refused {
        /// The function that said so.
        function: String,
        /// Its return value.
        code: String,
    },
    /// The token says that it does it; it was not tried, because that takes long.
    Claimed,
    /// The token failed, and it cannot be told whether it would do it another time.
    Failed {
        /// The function that failed.
        function: String,
        /// Its return value.
        code: String,
    },
    /// It could not be tried, because the token lacks what is needed to look at the result.
    NotTried {
        /// What is needed.
        needs: &'static str,
    },
}

/// How what a token did is not what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// OAEP with SHA-1 where SHA-256 was asked for.
    Sha1,
    /// OAEP with SHA-256 where SHA-1 was asked for.
    Sha256,
    /// The KEK is the one of the other derivation: with a KDF where none was asked for, or without.
    OtherDerivation,
    /// RFC 5649 over a key to which zero bytes were appended, up to a multiple of 8.
    ZeroTail,
    /// RFC 3394 over a key with PKCS#7 padding, not RFC 5649.
    Pkcs7,
    /// RFC 5915 wants leading zero bytes of a private key; they are missing.
    ShortScalar,
    /// What came out holds no key that could be found, or another one.
    DoesNotOpen,
    /// A signature, MAC, check value or derived key is not the right one.
    WrongResult,
    /// The token gave away what it should have kept.
    GaveItAway,
    /// The token does not say.
    NotTold,
    /// The token answers a wrong MAC with another return value than `CKR_SIGNATURE_INVALID`.
    OddRefusal,
}

impl Difference {
    /// The name used in output; it stays the same.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::OtherDerivation => "other-derivation",
            Self::ZeroTail => "zero-tail",
            Self::Pkcs7 => "pkcs7",
            Self::ShortScalar => "short-scalar",
            Self::DoesNotOpen => "does-not-open",
            Self::WrongResult => "wrong-result",
            Self::GaveItAway => "gave-it-away",
            Self::NotTold => "not-told",
            Self::OddRefusal => "odd-refusal",
        }
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sha1 => "what it makes is OAEP with SHA-1",
            Self::Sha256 => "what it makes is OAEP with SHA-256",
            Self::OtherDerivation => "the KEK comes from another derivation",
            Self::ZeroTail => "RFC 5649, but with a zero tail",
            Self::Pkcs7 => "PKCS#7 padding and RFC 3394, not RFC 5649",
            Self::ShortScalar => "leading zero bytes are dropped",
            Self::DoesNotOpen => "what it makes does not open",
            Self::WrongResult => "the result is wrong",
            Self::GaveItAway => "it gives the key away all the same",
            Self::NotTold => "it does not say",
            Self::OddRefusal => "yes, but it calls a wrong one by another return value",
        })
    }
}

impl Finding {
    /// The name used in output; it stays the same.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Works => "yes",
            Self::Differs(_) => "differs",
            Self::Refused { .. } => "no",
            Self::Claimed => "claimed",
            Self::Failed { .. } => "failed",
            Self::NotTried { .. } => "not-tried",
        }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Works => f.write_str("yes"),
            Self::Differs(difference) => difference.fmt(f),
            Self::Refused { function, code } => write!(f, "no ({function}: {code})"),
            Self::Claimed => f.write_str("the token says so; not tried"),
            Self::Failed { function, code } => {
                write!(f, "cannot be told ({function}: {code})")
            }
            Self::NotTried { needs } => write!(f, "cannot be told without {needs}"),
        }
    }
}
