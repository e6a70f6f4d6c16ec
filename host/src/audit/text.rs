//! How values stand in a line: bytes as lower-case hexadecimal digits, names as everywhere else, times as RFC 3339.
//!
//! What is read must be written in the one way that this module writes it; [`super::record::Record::read`] sees to that.

use der::DateTime;
use keyferry_protocol::identity::{DeviceId, Digest, Fingerprint, Signature};
use keyferry_protocol::order::Kind;
use keyferry_protocol::proof::Proof;
use keyferry_protocol::suite::Suite;
use serde::{Deserialize, Deserializer, Serializer, de};

use super::record::{JobId, LogId};

/// A value that stands in a line as a string.
pub(super) trait Text: Sized {
    /// What was expected, for the message about something else.
    const WHAT: &'static str;
    /// The string.
    fn to_text(&self) -> String;
    /// The value, if the string stands for one.
    fn from_text(text: &str) -> Option<Self>;
}

/// Fixed-length byte strings.
macro_rules! hexadecimal {
    ($($name:ident, $what:literal);* $(;)?) => {$(
        impl Text for $name {
            const WHAT: &'static str = $what;
            fn to_text(&self) -> String {
                hex::encode(self.0)
            }
            fn from_text(text: &str) -> Option<Self> {
                let mut bytes = Self::ZERO;
                hex::decode_to_slice(text, &mut bytes.0).ok()?;
                Some(bytes)
            }
        }
    )*};
}
hexadecimal! {
    Digest, "a SHA-256 in 64 hexadecimal digits";
    Fingerprint, "a fingerprint in 64 hexadecimal digits";
    DeviceId, "a device id in 32 hexadecimal digits";
    LogId, "a log id in 32 hexadecimal digits";
    JobId, "a job id in 32 hexadecimal digits";
}

impl Text for Signature {
    const WHAT: &'static str = "a signature in 128 hexadecimal digits";
    fn to_text(&self) -> String {
        hex::encode(self.to_bytes())
    }
    fn from_text(text: &str) -> Option<Self> {
        let mut bytes = [0; Self::LENGTH];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self::from_bytes(&bytes))
    }
}

impl Text for Vec<u8> {
    const WHAT: &'static str = "bytes in hexadecimal digits";
    fn to_text(&self) -> String {
        hex::encode(self)
    }
    fn from_text(text: &str) -> Option<Self> {
        hex::decode(text).ok()
    }
}

/// Names: found in the list of all.
macro_rules! named {
    ($($name:ident, $what:literal, $all:expr);* $(;)?) => {$(
        impl Text for $name {
            const WHAT: &'static str = $what;
            fn to_text(&self) -> String {
                self.name().to_owned()
            }
            fn from_text(text: &str) -> Option<Self> {
                $all.into_iter().find(|value: &Self| value.name() == text)
            }
        }
    )*};
}
named! {
    Kind, "the name of a kind of order", [
        Self::Enroll, Self::Inject, Self::Prove, Self::Remove, Self::Rotate, Self::Lock, Self::Wipe,
    ];
    Proof, "the name of a proof", Self::ALL;
    Suite, "the name of a suite", Self::ALL;
}

impl Text for DateTime {
    const WHAT: &'static str = "a time in UTC (RFC 3339), to the second";
    fn to_text(&self) -> String {
        self.to_string()
    }
    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// For serde's `with`.
pub(super) fn serialize<T: Text, S: Serializer>(
    value: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.to_text())
}

/// For serde's `with`.
pub(super) fn deserialize<'de, T: Text, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    T::from_text(&text).ok_or_else(|| de::Error::custom(format_args!("expected {}", T::WHAT)))
}

/// For serde's `with`: a value that may be left out.
pub(super) mod option {
    use serde::{Deserializer, Serializer};

    use super::Text;

    #[allow(clippy::ref_option, reason = "serde's signature")]
    pub(in crate::audit) fn serialize<T: Text, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => super::serialize(value, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(in crate::audit) fn deserialize<'de, T: Text, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        super::deserialize(deserializer).map(Some)
    }
}

/// For serde's `with`: a list.
pub(super) mod list {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use super::Text;

    pub(in crate::audit) fn serialize<T: Text, S: Serializer>(
        values: &[T],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(Text::to_text))
    }

    pub(in crate::audit) fn deserialize<'de, T: Text, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<T>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts
            .iter()
            .map(|text| T::from_text(text))
            .collect::<Option<_>>()
            .ok_or_else(|| de::Error::custom(format_args!("expected a list of {}", T::WHAT)))
    }
}
