//! The one way bytes become values and values bytes: postcard, with integers of signed layouts at fixed width.

use serde::{Deserialize, Serialize};

/// Why received bytes are not the thing they were expected to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The bytes end too early, go on too long, or hold a value outside its range.
    Malformed,
    /// The first sixteen bytes are not the tag of this kind of signed thing.
    WrongTag,
    /// The format version is not one this build knows.
    UnknownFormat(u8),
}

impl core::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Malformed => f.write_str("malformed bytes"),
            Self::WrongTag => f.write_str("not this kind of signed data (wrong tag)"),
            Self::UnknownFormat(version) => write!(f, "unknown format version {version}"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// The output buffer is too small for the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl core::fmt::Display for TooLong {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the value does not fit into a message")
    }
}

impl core::error::Error for TooLong {}

/// Decodes one value that must fill `bytes` exactly.
pub(crate) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    let (value, rest) = decode_front(bytes)?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(DecodeError::Malformed)
    }
}

/// Decodes one value from the front of `bytes` and gives back what follows it.
pub(crate) fn decode_front<'a, T: Deserialize<'a>>(
    bytes: &'a [u8],
) -> Result<(T, &'a [u8]), DecodeError> {
    postcard::take_from_bytes(bytes).map_err(|_| DecodeError::Malformed)
}

/// Encodes `value` at the front of `out` and gives back the bytes used.
pub(crate) fn encode<'a, T: Serialize + ?Sized>(
    value: &T,
    out: &'a mut [u8],
) -> Result<&'a [u8], TooLong> {
    postcard::to_slice(value, out)
        .map(|used| &*used)
        .map_err(|_| TooLong)
}

/// Encodes two values one after the other.
pub(crate) fn encode_pair<'a, A: Serialize, B: Serialize + ?Sized>(
    first: &A,
    second: &B,
    out: &'a mut [u8],
) -> Result<&'a [u8], TooLong> {
    let head = encode(first, out)?.len();
    let tail = encode(second, &mut out[head..])?.len();
    Ok(&out[..head + tail])
}

/// Checks the tag and the format version that every signed thing begins with.
pub(crate) fn check_front(bytes: &[u8], tag: &[u8; 16], format: u8) -> Result<(), DecodeError> {
    match bytes.split_first_chunk::<16>() {
        None => Err(DecodeError::Malformed),
        Some((found, _)) if found != tag => Err(DecodeError::WrongTag),
        Some((_, rest)) => match rest.first() {
            None => Err(DecodeError::Malformed),
            Some(&found) if found != format => Err(DecodeError::UnknownFormat(found)),
            Some(_) => Ok(()),
        },
    }
}

/// Defines a fixed-length byte string of its own type, so that a digest cannot be passed where a device id belongs.
macro_rules! byte_string {
    ($(#[$meta:meta])* $name:ident, $length:expr) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        pub struct $name(#[serde(with = "serde_big_array::BigArray")] pub [u8; $length]);

        impl $name {
            /// Length in bytes.
            pub const LENGTH: usize = $length;
            /// All bytes zero: "there is none" where the layout allows that.
            pub const ZERO: Self = Self([0; $length]);
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}
pub(crate) use byte_string;
