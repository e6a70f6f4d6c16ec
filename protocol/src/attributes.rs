//! Key attributes with the encodings of the Arm PSA Crypto API 1.1, so that device firmware can use them as they are.

use serde::{Deserialize, Serialize};

/// What a key is and what it may do. Every field has PSA's own encoding (PSA Crypto API 1.1, chapters 9 and 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attributes {
    /// `psa_key_type_t`.
    #[serde(with = "postcard::fixint::le")]
    pub key_type: u16,
    /// Key size in bits.
    #[serde(with = "postcard::fixint::le")]
    pub bits: u16,
    /// `psa_key_usage_t`: what the device's application may do with the key.
    #[serde(with = "postcard::fixint::le")]
    pub usage: u32,
    /// `psa_algorithm_t`: the one algorithm the key is for.
    #[serde(with = "postcard::fixint::le")]
    pub algorithm: u32,
    /// `psa_key_lifetime_t`.
    #[serde(with = "postcard::fixint::le")]
    pub lifetime: u32,
}

/// `psa_key_type_t` values that can be carried.
pub mod key_type {
    /// `PSA_KEY_TYPE_RAW_DATA`: a secret with no algorithm of its own.
    pub const RAW_DATA: u16 = 0x1001;
    /// `PSA_KEY_TYPE_HMAC`.
    pub const HMAC: u16 = 0x1100;
    /// `PSA_KEY_TYPE_AES`.
    pub const AES: u16 = 0x2400;
    /// `PSA_KEY_TYPE_RSA_KEY_PAIR`.
    pub const RSA_KEY_PAIR: u16 = 0x7001;
    /// `PSA_KEY_TYPE_ECC_KEY_PAIR(PSA_ECC_FAMILY_SECP_R1)`.
    pub const ECC_SECP_R1_KEY_PAIR: u16 = 0x7112;
}

/// `psa_key_usage_t` flags.
pub mod usage {
    /// `PSA_KEY_USAGE_EXPORT`: the application may read the key's bytes.
    pub const EXPORT: u32 = 0x0000_0001;
    /// `PSA_KEY_USAGE_ENCRYPT`.
    pub const ENCRYPT: u32 = 0x0000_0100;
    /// `PSA_KEY_USAGE_DECRYPT`.
    pub const DECRYPT: u32 = 0x0000_0200;
    /// `PSA_KEY_USAGE_SIGN_MESSAGE`.
    pub const SIGN_MESSAGE: u32 = 0x0000_0400;
    /// `PSA_KEY_USAGE_VERIFY_MESSAGE`.
    pub const VERIFY_MESSAGE: u32 = 0x0000_0800;
    /// `PSA_KEY_USAGE_SIGN_HASH`.
    pub const SIGN_HASH: u32 = 0x0000_1000;
    /// `PSA_KEY_USAGE_VERIFY_HASH`.
    pub const VERIFY_HASH: u32 = 0x0000_2000;
    /// `PSA_KEY_USAGE_DERIVE`.
    pub const DERIVE: u32 = 0x0000_4000;
    /// All flags above.
    pub const ALL: u32 = EXPORT
        | ENCRYPT
        | DECRYPT
        | SIGN_MESSAGE
        | VERIFY_MESSAGE
        | SIGN_HASH
        | VERIFY_HASH
        | DERIVE;
}

/// `psa_algorithm_t` values that have a meaning here.
pub mod algorithm {
    /// `PSA_ALG_NONE`: no algorithm is permitted.
    pub const NONE: u32 = 0;
    /// `PSA_ALG_HMAC(PSA_ALG_SHA_256)`.
    pub const HMAC_SHA256: u32 = 0x0380_0009;
    /// `PSA_ALG_CMAC`.
    pub const CMAC: u32 = 0x03c0_0200;
    /// `PSA_ALG_CTR`.
    pub const CTR: u32 = 0x04c0_1000;
    /// `PSA_ALG_CBC_NO_PADDING`.
    pub const CBC_NO_PADDING: u32 = 0x0440_4000;
    /// `PSA_ALG_CCM`.
    pub const CCM: u32 = 0x0550_0100;
    /// `PSA_ALG_GCM`.
    pub const GCM: u32 = 0x0550_0200;
    /// `PSA_ALG_RSA_PKCS1V15_SIGN(PSA_ALG_SHA_256)`.
    pub const RSA_PKCS1V15_SHA256: u32 = 0x0600_0209;
    /// `PSA_ALG_RSA_OAEP(PSA_ALG_SHA_256)`.
    pub const RSA_OAEP_SHA256: u32 = 0x0700_0309;
    /// `PSA_ALG_ECDSA(PSA_ALG_SHA_256)`.
    pub const ECDSA_SHA256: u32 = 0x0600_0609;
    /// `PSA_ALG_ECDH`.
    pub const ECDH: u32 = 0x0902_0000;
}

/// `psa_key_lifetime_t` of every injected key: persistent, in the device's primary local storage.
pub const LIFETIME_PERSISTENT: u32 = 0x0000_0001;

/// The key types that a device can hold, decided from [`Attributes::key_type`] and [`Attributes::bits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// An AES key; length in bytes (16, 24 or 32).
    Aes(usize),
    /// An HMAC key or other generic secret; length in bytes (1 to 256).
    Secret(usize),
    /// A P-256 private key, carried as PKCS#8 DER.
    P256,
    /// An RSA private key, carried as PKCS#8 DER; modulus length in bytes (256, 384 or 512).
    Rsa(usize),
}

/// Attributes that no key can have, or that this layout does not carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsupportedAttributes;

impl core::fmt::Display for UnsupportedAttributes {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("these key attributes are not supported")
    }
}

impl core::error::Error for UnsupportedAttributes {}

/// Longest generic secret in bytes.
pub const MAX_SECRET: usize = 256;

impl Attributes {
    /// Checks that type, size, usage and lifetime belong together, and says which kind of key they describe.
    ///
    /// # Errors
    /// [`UnsupportedAttributes`] for any value outside the tables of SPEC.md.
    pub fn kind(&self) -> Result<KeyKind, UnsupportedAttributes> {
        if self.usage & !usage::ALL != 0 || self.lifetime != LIFETIME_PERSISTENT {
            return Err(UnsupportedAttributes);
        }
        let bytes = usize::from(self.bits / 8);
        if !self.bits.is_multiple_of(8) {
            return Err(UnsupportedAttributes);
        }
        match (self.key_type, bytes) {
            (key_type::AES, 16 | 24 | 32) => Ok(KeyKind::Aes(bytes)),
            (key_type::HMAC | key_type::RAW_DATA, 1..=MAX_SECRET) => Ok(KeyKind::Secret(bytes)),
            (key_type::ECC_SECP_R1_KEY_PAIR, 32) => Ok(KeyKind::P256),
            (key_type::RSA_KEY_PAIR, 256 | 384 | 512) => Ok(KeyKind::Rsa(bytes)),
            _ => Err(UnsupportedAttributes),
        }
    }
}
