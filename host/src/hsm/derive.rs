//! Keys of single devices: made fresh inside the token, or diversified inside it from a master key.

use keyferry_protocol::attributes::key_type as psa;
use keyferry_protocol::identity::DeviceId;
use sha2::{Digest, Sha256};

use super::error::HsmError;
use super::key::{Flag, Flags, KeyClass, KeyInfo, KeyType};
use super::pkcs11::SessionObject;
use super::token::{Token, key_info};
use super::trial::{Difference, Fact, Finding};
use super::unwrap::SessionKey;
use super::wrap::SESSION_LABEL;

/// Length of an AES block in bytes.
pub(super) const BLOCK: usize = 16;

/// The label of the counter mode, and the zero byte that ends it.
const COUNTER_TAG: &[u8; 16] = b"keyferry devkey\0";

/// What each digest of the ECB mode begins with.
const ECB_TAG: &[u8; 16] = b"keyferry devblk\0";

/// Length of a context in bytes.
const CONTEXT: usize = 28;

/// Which key of which device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceContext {
    /// The device.
    pub device: DeviceId,
    /// The slot on the device.
    pub slot: u16,
    /// The version of the key in the slot.
    pub version: u32,
}

/// A way to derive a device's key from a master key inside the token.
///
/// A backend that holds the same master key can compute the key of any device again. All numbers are big-endian.
///
/// ```text
/// context = device id       16 bytes
///         ‖ slot             2 bytes
///         ‖ version          4 bytes
///         ‖ PSA key type     2 bytes   2400 for AES, 1100 for HMAC (PSA Crypto API 1.1 §9.2)
///         ‖ key length       4 bytes   in bits
/// ```
///
/// Type and length are in it, so that no key is the beginning of another.
///
/// [`Self::CounterKdf`], `sp800-108-counter`: the KDF in counter mode of NIST SP 800-108r1 §4.1, with AES-CMAC under
/// the master key. Its label is `"keyferry devkey"`, its context are the first three fields above, followed by the type, and
/// its `[L]` is the last field:
///
/// ```text
/// key = the leading bytes of block(1) ‖ block(2) ‖ …
/// block(i) = AES-CMAC(master, i as 4 bytes ‖ "keyferry devkey" ‖ 00 ‖ context)
/// ```
///
/// [`Self::EcbEncryptData`], `aes-ecb-encrypt-data`: AES in ECB mode under the master key (`CKM_AES_ECB_ENCRYPT_DATA`,
/// "key derivation by data encryption" of PKCS#11) over digests, one block for each 16 bytes of the key:
///
/// ```text
/// key = the leading bytes of AES-ECB(master, data(1) ‖ data(2) ‖ …)
/// data(i) = the leading 16 bytes of SHA-256("keyferry devblk" ‖ 00 ‖ context ‖ i as 4 bytes)
/// ```
///
/// Both are `C_DeriveKey`. A MAC made with `C_Sign` would do the same arithmetic, but its result would be the clear key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Diversification {
    /// NIST SP 800-108 in counter mode with AES-CMAC: a 32-bit big-endian counter, then the input
    /// (`CKM_SP800_108_COUNTER_KDF`).
    CounterKdf,
    /// AES in ECB mode over the input (`CKM_AES_ECB_ENCRYPT_DATA`).
    EcbEncryptData,
}

impl Diversification {
    /// All ways, the preferred first.
    pub const ALL: [Self; 2] = [Self::CounterKdf, Self::EcbEncryptData];

    /// The name used on command lines, in documents and in output: `sp800-108-counter`, `aes-ecb-encrypt-data`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CounterKdf => "sp800-108-counter",
            Self::EcbEncryptData => "aes-ecb-encrypt-data",
        }
    }

    /// What it does, for people.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::CounterKdf => "derives by SP 800-108, counter, CMAC",
            Self::EcbEncryptData => "derives by AES-ECB of data",
        }
    }

    /// What the mechanism is given.
    fn input(self, context: &[u8; CONTEXT], length: usize) -> Vec<u8> {
        match self {
            Self::CounterKdf => [&COUNTER_TAG[..], context].concat(),
            Self::EcbEncryptData => {
                let mut data = Vec::new();
                let mut index: u32 = 1;
                while data.len() < length {
                    let digest = Sha256::new()
                        .chain_update(ECB_TAG)
                        .chain_update(context)
                        .chain_update(index.to_be_bytes())
                        .finalize();
                    data.extend(digest.iter().take(BLOCK));
                    index = index.wrapping_add(1);
                }
                data
            }
        }
    }
}

impl std::fmt::Display for Diversification {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Diversification {
    type Err = keyferry_protocol::suite::UnknownName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|way| way.name() == name)
            .ok_or(keyferry_protocol::suite::UnknownName)
    }
}

/// A key that was derived from a master key.
pub struct Diversified<'t> {
    /// The key; it ends with this value.
    pub key: SessionKey<'t>,
    /// How it was derived: whoever computes it again has to know.
    pub by: Diversification,
}

impl DeviceContext {
    /// What both ways of deriving take in; see [`Diversification`].
    fn bytes(&self, psa_type: u16, bits: u16) -> [u8; CONTEXT] {
        let mut context = [0; CONTEXT];
        context[..16].copy_from_slice(&self.device.0);
        context[16..18].copy_from_slice(&self.slot.to_be_bytes());
        context[18..22].copy_from_slice(&self.version.to_be_bytes());
        context[22..24].copy_from_slice(&psa_type.to_be_bytes());
        context[24..].copy_from_slice(&u32::from(bits).to_be_bytes());
        context
    }
}

impl KeyInfo {
    /// Checks that a key can be a diversification master: it derives and does nothing else, cannot be read, and does not
    /// leave. A token that does not tell an attribute is not trusted with it.
    ///
    /// # Errors
    /// [`HsmError::WrongKeyType`] for anything but an AES key; [`HsmError::NotDeriveOnly`], which names the attribute.
    pub fn check_derive_only(&self) -> Result<(), HsmError> {
        if !matches!(
            (self.class, self.key_type),
            (KeyClass::Secret, KeyType::Aes { .. })
        ) {
            return Err(HsmError::WrongKeyType {
                label: self.name(),
                found: self.key_type,
                wanted: "an aes key",
            });
        }
        let wrong = KeyClass::Secret.flags().iter().find_map(|flag| {
            let wanted = match flag {
                Flag::Derive | Flag::Sensitive => true,
                Flag::Extractable => false,
                flag if flag.is_usage() => false,
                _ => return None,
            };
            (self.flags.get(*flag) != Some(wanted)).then_some((*flag, wanted))
        });
        match wrong {
            Some((flag, wanted)) => Err(HsmError::NotDeriveOnly {
                label: self.name(),
                flag,
                wanted,
            }),
            None => Ok(()),
        }
    }
}

impl Token {
    /// Makes a random key for one device. It lives in this session only, leaves it wrapped, and on this token is good for
    /// nothing but checking the device's proof.
    ///
    /// # Errors
    /// [`HsmError::WrongKeyType`] unless the type [can be created](KeyType::is_creatable); [`HsmError::Widened`] if the token gives the
    /// key more rights than these; [`HsmError::Token`].
    pub fn fresh_device_key(&self, key_type: KeyType) -> Result<SessionKey<'_>, HsmError> {
        self.alive(|| {
            if !key_type.is_creatable() {
                return Err(HsmError::WrongKeyType {
                    label: SESSION_LABEL.into(),
                    found: key_type,
                    wanted: "a type that can be created",
                });
            }
            if !key_type.is_pair() {
                let flags = self.device_key_flags(key_type)?;
                let secret =
                    self.connection
                        .generate_secret(key_type, SESSION_LABEL, &[], &flags)?;
                return self.device_key(self.connection.guard(secret), key_type, &flags);
            }
            let always = [
                Flag::Private,
                Flag::Destroyable,
                Flag::Sensitive,
                Flag::Extractable,
            ];
            let flags = Flags::of(KeyClass::Private, &always);
            let public_flags = Flags::of(KeyClass::Public, &[Flag::Destroyable, Flag::Verify]);
            let (public, private) = self.connection.generate_pair(
                key_type,
                SESSION_LABEL,
                &[],
                &public_flags,
                &flags,
            )?;
            let public = self.connection.guard(public);
            let object = self.connection.guard(private);
            let public = self.connection.read(public.handle(), KeyClass::Public)?;
            let private = self.connection.read(private, KeyClass::Private)?;
            let info = key_info(KeyClass::Private, private, Some(public));
            finished(object, info, key_type, &flags)
        })
    }

    /// Derives the key of one device from a master key, in the first of [`Diversification::ALL`] that the token does as it
    /// should, or in the one that is demanded. The key is an AES key or an HMAC key of 256 bits; like
    /// [`Token::fresh_device_key`]'s, it lives in this session only. [`Diversification`] says how it is derived.
    ///
    /// # Errors
    /// [`HsmError::NotDeriveOnly`] if the master key may do something else; [`HsmError::WrongKeyType`] if it is no AES key, or is
    /// shorter than the key it should make, or no such key is derived; [`HsmError::CannotDerive`]; [`HsmError::Widened`],
    /// [`HsmError::Token`].
    pub fn diversified_key(
        &self,
        master: &KeyInfo,
        context: &DeviceContext,
        key_type: KeyType,
        demanded: Option<Diversification>,
    ) -> Result<Diversified<'_>, HsmError> {
        self.alive(|| {
            let way = self.diversification(master, key_type, demanded)?;
            let (psa_type, bits) = derivable(key_type)?;
            let input = way.input(&context.bytes(psa_type, bits), usize::from(bits / 8));
            let flags = self.device_key_flags(key_type)?;
            let object = self.connection.diversify(
                way,
                self.handle_of(master)?,
                &input,
                key_type,
                SESSION_LABEL,
                &flags,
            )?;
            Ok(Diversified {
                key: self.device_key(object, key_type, &flags)?,
                by: way,
            })
        })
    }

    /// The way in which the token derives keys of this type from the master key, which is checked; found out with throw-away
    /// keys.
    ///
    /// # Errors
    /// As [`Token::diversified_key`].
    pub fn diversification(
        &self,
        master: &KeyInfo,
        key_type: KeyType,
        demanded: Option<Diversification>,
    ) -> Result<Diversification, HsmError> {
        let (_, bits) = derivable(key_type)?;
        master.check_derive_only()?;
        // A length of 0 is one that the token does not tell (SoftHSM 2.6.1, of keys that it unwrapped).
        if matches!(master.key_type, KeyType::Aes { bits: found } if found != 0 && found < bits) {
            return Err(HsmError::WrongKeyType {
                label: master.name(),
                found: master.key_type,
                wanted: "an aes key as long as the keys it makes",
            });
        }
        let mut tried = Vec::new();
        for way in Diversification::ALL {
            if demanded.is_some_and(|demanded| demanded != way) {
                continue;
            }
            match self.find_out(Fact::Derives(way, key_type))? {
                Finding::Works => return Ok(way),
                Finding::Failed { function, code } => {
                    return Err(HsmError::Token { function, code });
                }
                other @ (Finding::Differs(_)
                | Finding::Refused { .. }
                | Finding::Claimed
                | Finding::NotTried { .. }) => tried.push(format!("{way}: {other}")),
            }
        }
        Err(HsmError::CannotDerive {
            token: self.label().into(),
            key_type,
            tried,
        })
    }

    /// The attributes of a secret key of one device: it checks the device's MAC, or makes it again where the token checks none (NSS
    /// softokn 3.87 with CMAC).
    fn device_key_flags(&self, key_type: KeyType) -> Result<Flags, HsmError> {
        let checks = match key_type {
            KeyType::Aes { .. } => Fact::CmacVerify,
            KeyType::Secret { .. }
            | KeyType::Rsa { .. }
            | KeyType::P256
            | KeyType::P384
            | KeyType::Ed25519
            | KeyType::Other => Fact::HmacVerify,
        };
        let mut set = vec![
            Flag::Private,
            Flag::Destroyable,
            Flag::Sensitive,
            Flag::Extractable,
            Flag::Verify,
        ];
        match self.find_out(checks)? {
            Finding::Works | Finding::Differs(Difference::OddRefusal) => {}
            Finding::Differs(_)
            | Finding::Refused { .. }
            | Finding::Claimed
            | Finding::Failed { .. }
            | Finding::NotTried { .. } => set.push(Flag::Sign),
        }
        Ok(Flags::of(KeyClass::Secret, &set))
    }

    fn device_key<'t>(
        &'t self,
        object: SessionObject<'t>,
        key_type: KeyType,
        flags: &Flags,
    ) -> Result<SessionKey<'t>, HsmError> {
        let read = self.connection.read(object.handle(), KeyClass::Secret)?;
        let info = key_info(KeyClass::Secret, read, None);
        finished(object, info, key_type, flags)
    }
}

/// Checks that a new key is what it should be and may do no more than it should.
fn finished<'t>(
    object: SessionObject<'t>,
    mut info: KeyInfo,
    key_type: KeyType,
    flags: &Flags,
) -> Result<SessionKey<'t>, HsmError> {
    if !info.key_type.may_be(key_type) {
        return Err(HsmError::WrongKeyType {
            label: info.name(),
            found: info.key_type,
            wanted: "the type that was asked for",
        });
    }
    if let Some(flag) = info.flags.widened_from(flags) {
        return Err(HsmError::Widened {
            label: info.name(),
            flag,
        });
    }
    info.key_type = key_type;
    Ok(SessionKey {
        _object: object,
        info,
    })
}

/// The PSA type and the length in bits of a key that can be derived.
fn derivable(key_type: KeyType) -> Result<(u16, u16), HsmError> {
    match key_type {
        KeyType::Aes {
            bits: bits @ (128 | 192 | 256),
        } => Ok((psa::AES, bits)),
        KeyType::Secret { bits: 256 } => Ok((psa::HMAC, 256)),
        KeyType::Aes { .. }
        | KeyType::Secret { .. }
        | KeyType::Rsa { .. }
        | KeyType::P256
        | KeyType::P384
        | KeyType::Ed25519
        | KeyType::Other => Err(HsmError::WrongKeyType {
            label: SESSION_LABEL.into(),
            found: key_type,
            wanted: "aes or hmac-256",
        }),
    }
}
