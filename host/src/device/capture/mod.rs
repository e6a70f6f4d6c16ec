//! Recorded sessions: what went over a line, and when, in a file. [`Recorder`] writes it, [`Recording`] reads it, [`Decoder`] finds the
//! frames and messages in it.
//!
//! A recording holds the bytes of the line and nothing else: what is wrapped stays wrapped, and no PIN ever goes over a line. It
//! names devices, labels and public keys, so it is made for its owner alone.
//!
//! The file is text, one JSON object a line. The first line is `{"keyferry-capture":1,"port":…,"started":…}`; each other has `ms`,
//! milliseconds since the port was opened, and one of
//!
//! | what | says |
//! | --- | --- |
//! | `"to":"device","hex":…` | the station wrote these bytes |
//! | `"to":"station","hex":…` | these bytes arrived at the station |
//! | `"baud":…` | the station changed its rate, in bits per second |
//! | `"gone":…` | the port failed, with the reason |
//!
//! Each line is written at once, so that a program that dies leaves all but the last one.

mod decoder;
mod describe;
mod error;
mod reader;
mod recorder;

use std::fmt;

use keyferry_protocol::link::Millis;
use serde::{Deserialize, Serialize};

pub use decoder::{Decoder, Item};
pub use describe::{Description, describe};
pub use error::CaptureError;
pub use reader::Recording;
pub use recorder::{NewFile, OnFailure, Recorder};

/// The version of the file's form.
pub const FORMAT: u32 = 1;

/// Most bytes of the line that one line of the file holds.
const PIECE: usize = 4096;

/// Longest line of the file, in bytes.
const LONGEST_LINE: usize = 2 * PIECE + 512;

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heading {
    /// [`FORMAT`].
    #[serde(rename = "keyferry-capture")]
    pub format: u32,
    /// The port's name.
    pub port: String,
    /// When it was opened, in UTC as RFC 3339 has it.
    pub started: String,
}

/// Where bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum To {
    /// From the station to the device.
    Device,
    /// From the device to the station.
    Station,
}

impl To {
    /// The name used in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Station => "station",
        }
    }
}

impl fmt::Display for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What one line after the first says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Bytes of the line.
    Bytes {
        /// Where they went.
        to: To,
        /// At most 4096 of them.
        bytes: Vec<u8>,
    },
    /// The station changed its rate, in bits per second.
    Baud(u32),
    /// The port failed.
    Gone(String),
}

/// One line after the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Milliseconds since the port was opened.
    pub ms: Millis,
    /// What happened.
    pub what: What,
}

/// A record as it stands in the file.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    ms: Millis,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to: Option<To>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    baud: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gone: Option<String>,
}
