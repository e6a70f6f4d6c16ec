//! How the types of this crate look in JSON: names and hexadecimal digits, never numbers whose meaning could shift.

use std::fmt;

use der::DateTime;
use keyferry_protocol::identity::{DeviceId, Digest, Fingerprint, Signature};
use keyferry_protocol::order::Kind;
use keyferry_protocol::proof::Proof;
use keyferry_protocol::suite::Suite;
use serde::de::{Error, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serializer};

use crate::hsm::{CheckAlgorithm, Flag, Flags, KeyClass, KeyType, PublicKey};

/// A value that stands as a string in JSON, in exactly one way.
pub(crate) trait Named: Sized {
    /// What a wrong string is not.
    const WHAT: &'static str;

    fn to_name(&self) -> String;

    fn from_name(name: &str) -> Option<Self>;
}

impl Named for KeyType {
    const WHAT: &'static str = "a key type";

    fn to_name(&self) -> String {
        self.to_string()
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::from_name(name)
    }
}

impl Named for KeyClass {
    const WHAT: &'static str = "a key class";

    fn to_name(&self) -> String {
        self.name().into()
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }
}

impl Named for Suite {
    const WHAT: &'static str = "a suite";

    fn to_name(&self) -> String {
        self.name().into()
    }

    fn from_name(name: &str) -> Option<Self> {
        name.parse().ok()
    }
}

impl Named for CheckAlgorithm {
    const WHAT: &'static str = "an algorithm";

    fn to_name(&self) -> String {
        self.name().into()
    }

    fn from_name(name: &str) -> Option<Self> {
        name.parse().ok()
    }
}

impl Named for Fingerprint {
    const WHAT: &'static str = "a fingerprint (64 lower-case hexadecimal digits)";

    fn to_name(&self) -> String {
        hex::encode(self.0)
    }

    fn from_name(name: &str) -> Option<Self> {
        <[u8; Self::LENGTH]>::from_name(name).map(Self)
    }
}

impl Named for DeviceId {
    const WHAT: &'static str = "a device id (32 lower-case hexadecimal digits)";

    fn to_name(&self) -> String {
        self.to_string()
    }

    fn from_name(name: &str) -> Option<Self> {
        Vec::from_name(name)?.try_into().ok().map(Self)
    }
}

/// A number of the PSA Crypto API.
impl Named for u16 {
    const WHAT: &'static str = "4 lower-case hexadecimal digits";

    fn to_name(&self) -> String {
        format!("{self:04x}")
    }

    fn from_name(name: &str) -> Option<Self> {
        Vec::from_name(name)?
            .try_into()
            .ok()
            .map(Self::from_be_bytes)
    }
}

/// A number of the PSA Crypto API.
impl Named for u32 {
    const WHAT: &'static str = "8 lower-case hexadecimal digits";

    fn to_name(&self) -> String {
        format!("{self:08x}")
    }

    fn from_name(name: &str) -> Option<Self> {
        Vec::from_name(name)?
            .try_into()
            .ok()
            .map(Self::from_be_bytes)
    }
}

/// 32 bytes, such as a digest.
impl Named for [u8; 32] {
    const WHAT: &'static str = "64 lower-case hexadecimal digits";

    fn to_name(&self) -> String {
        hex::encode(self)
    }

    fn from_name(name: &str) -> Option<Self> {
        Vec::from_name(name)?.try_into().ok()
    }
}

/// 16 bytes, such as a random name.
impl Named for [u8; 16] {
    const WHAT: &'static str = "32 lower-case hexadecimal digits";

    fn to_name(&self) -> String {
        hex::encode(self)
    }

    fn from_name(name: &str) -> Option<Self> {
        Vec::from_name(name)?.try_into().ok()
    }
}

impl Named for Digest {
    const WHAT: &'static str = "a SHA-256 (64 lower-case hexadecimal digits)";

    fn to_name(&self) -> String {
        hex::encode(self.0)
    }

    fn from_name(name: &str) -> Option<Self> {
        <[u8; 32]>::from_name(name).map(Self)
    }
}

impl Named for Signature {
    const WHAT: &'static str = "a signature (128 lower-case hexadecimal digits)";

    fn to_name(&self) -> String {
        hex::encode(self.to_bytes())
    }

    fn from_name(name: &str) -> Option<Self> {
        let bytes: [u8; Self::LENGTH] = Vec::from_name(name)?.try_into().ok()?;
        Some(Self::from_bytes(&bytes))
    }
}

impl Named for Proof {
    const WHAT: &'static str = "a kind of proof";

    fn to_name(&self) -> String {
        self.name().into()
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|proof| proof.name() == name)
    }
}

impl Named for Kind {
    const WHAT: &'static str = "a kind of order";

    fn to_name(&self) -> String {
        self.name().into()
    }

    fn from_name(name: &str) -> Option<Self> {
        let all = [
            Self::Enroll,
            Self::Inject,
            Self::Prove,
            Self::Remove,
            Self::Rotate,
            Self::Lock,
            Self::Wipe,
        ];
        all.into_iter().find(|kind| kind.name() == name)
    }
}

impl Named for DateTime {
    const WHAT: &'static str = "a time in UTC (RFC 3339), to the second";

    fn to_name(&self) -> String {
        self.to_string()
    }

    fn from_name(name: &str) -> Option<Self> {
        let time: Self = name.parse().ok()?;
        Some(time).filter(|time| time.to_string() == name)
    }
}

/// Bytes of any length.
impl Named for Vec<u8> {
    const WHAT: &'static str = "lower-case hexadecimal digits";

    fn to_name(&self) -> String {
        hex::encode(self)
    }

    fn from_name(name: &str) -> Option<Self> {
        hex::decode(name)
            .ok()
            .filter(|bytes| hex::encode(bytes) == name)
    }
}

/// A public key in PEM.
impl Named for PublicKey {
    const WHAT: &'static str = "a public key in PEM";

    fn to_name(&self) -> String {
        self.to_pem()
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::from_file_content(name.as_bytes())
            .ok()
            .filter(|key| key.to_pem() == name)
    }
}

/// For `#[serde(with = "named")]`.
pub(crate) mod named {
    use super::{Deserialize, Deserializer, Error, Named, Serializer};

    pub(crate) fn serialize<T: Named, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&value.to_name())
    }

    pub(crate) fn deserialize<'de, T: Named, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        let name = String::deserialize(from)?;
        T::from_name(&name).ok_or_else(|| D::Error::custom(format!("'{name}' is not {}", T::WHAT)))
    }
}

/// For `#[serde(with = "named_option")]`, together with `default` and `skip_serializing_if`.
pub(crate) mod named_option {
    use super::{Deserializer, Named, Serializer, named};

    pub(crate) fn serialize<T: Named, S: Serializer>(
        value: &Option<T>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => named::serialize(value, to),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, T: Named, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<T>, D::Error> {
        named::deserialize(from).map(Some)
    }
}

/// Boolean attributes as an object with one member each.
pub(super) mod flags {
    use super::{Deserializer, Flags, FlagsVisitor, SerializeMap, Serializer};

    pub(crate) fn serialize<S: Serializer>(flags: &Flags, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        for (flag, value) in flags.known() {
            map.serialize_entry(flag.name(), &value)?;
        }
        map.end()
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Flags, D::Error> {
        from.deserialize_map(FlagsVisitor)
    }
}

/// For `#[serde(with = "flags_option")]`, together with `default` and `skip_serializing_if`.
pub(super) mod flags_option {
    use super::{Deserializer, Flags, Serializer, flags};

    pub(crate) fn serialize<S: Serializer>(
        value: &Option<Flags>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => flags::serialize(value, to),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Flags>, D::Error> {
        flags::deserialize(from).map(Some)
    }
}

pub(super) struct FlagsVisitor;

impl<'de> Visitor<'de> for FlagsVisitor {
    type Value = Flags;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("attributes by name, each true or false")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Flags, M::Error> {
        let mut flags = Flags::default();
        while let Some((name, value)) = map.next_entry::<String, bool>()? {
            let flag = Flag::ALL
                .into_iter()
                .find(|flag| flag.name() == name)
                .ok_or_else(|| M::Error::custom(format!("'{name}' is not an attribute")))?;
            // Two values of one attribute: one reader would take the first, another the last.
            if flags.get(flag).is_some() {
                return Err(M::Error::custom(format!("'{name}' is there twice")));
            }
            flags.put(flag, value);
        }
        Ok(flags)
    }
}
