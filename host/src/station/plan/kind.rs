//! What sections and fields of a plan are made of: how often they stand there, what they hold, and the checks that need no other field.

use std::path::Path;
use std::str::FromStr as _;

use keyferry_protocol::MAX_SLOTS;
use keyferry_protocol::identity::Fingerprint;
use keyferry_protocol::order::MAX_LABEL;
use keyferry_protocol::proof::Level;
use keyferry_protocol::suite::{Suite, UnwrapAlgorithm};

use super::watch::WatchPlan;
use crate::device::port::Name;
use crate::hsm::{DeviceUse, KeyType, is_uri, parse};
use crate::station::policy::{Enrolment, Visiting};
use crate::station::registry::Location;

/// Longest text of a field in characters.
pub(super) const LONGEST: usize = 4096;

/// Most ports of a plan.
pub const MAXIMUM_PORTS: usize = 256;

/// Highest version of a plan's keys. What is above counts reworks of a device.
pub const MAXIMUM_VERSION: u32 = 0xffff;

/// Most patterns of ports that are watched.
pub(super) const MAXIMUM_PATTERNS: usize = 16;

/// Most files that a field may name.
pub(super) const MAXIMUM_FILES: usize = 32;

/// Most words of a field.
pub(super) const MAXIMUM_WORDS: usize = 64;

/// A table of the plan.
pub(super) struct Section {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) times: Times,
    pub(super) fields: &'static [Field],
}

/// How often a section stands in a plan.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Times {
    /// Exactly once: `[name]`.
    Once,
    /// At most once.
    Maybe,
    /// As `[[name]]`, from `least` to `most` times.
    Many { least: usize, most: usize },
}

/// A field of a section.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) kind: Kind,
    pub(super) needed: bool,
    /// With which values of another field it has a meaning; with others it is a mistake.
    pub(super) only: Option<Only>,
}

/// See [`Field::only`].
#[derive(Clone, Copy)]
pub(super) struct Only {
    pub(super) field: &'static str,
    pub(super) values: &'static [&'static str],
}

/// What a field holds.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Words, of at most this many characters.
    Text { most: usize },
    /// Words that have to mean something.
    Checked {
        check: fn(&str) -> Result<(), String>,
        example: &'static str,
    },
    /// A file or folder, seen from the plan's folder.
    Path,
    /// Several files.
    Paths,
    /// Several words, in this order; the same ones may stand there again.
    Words,
    /// One of these names.
    Choice(fn() -> Vec<&'static str>),
    /// Some of these names, each once.
    Choices(fn() -> Vec<&'static str>),
    /// A whole number.
    Number { least: u32, most: u32 },
    /// `true` or `false`.
    Flag,
}

impl Kind {
    /// What it is, for an error.
    pub(super) const fn words(&self) -> &'static str {
        match self {
            Self::Text { .. } | Self::Checked { .. } | Self::Path | Self::Choice(_) => "a string",
            Self::Paths | Self::Words | Self::Choices(_) => "a list of strings",
            Self::Number { .. } => "a whole number",
            Self::Flag => "true or false",
        }
    }
}

pub(super) const fn field(name: &'static str, kind: Kind, about: &'static str) -> Field {
    Field {
        name,
        about,
        kind,
        needed: false,
        only: None,
    }
}

pub(super) const fn needed(name: &'static str, kind: Kind, about: &'static str) -> Field {
    Field {
        needed: true,
        ..field(name, kind, about)
    }
}

pub(super) const fn with(
    field: Field,
    name: &'static str,
    values: &'static [&'static str],
) -> Field {
    Field {
        only: Some(Only {
            field: name,
            values,
        }),
        ..field
    }
}

pub(super) const LABEL: Kind = Kind::Text { most: 255 };

pub(super) fn uri(text: &str) -> Result<(), String> {
    if !is_uri(text) {
        return Err("it is no PKCS#11 URI".to_owned());
    }
    parse(text).map(|_| ()).map_err(|error| error.to_string())
}

pub(super) fn port(text: &str) -> Result<(), String> {
    Name::from_str(text)
        .map(|_| ())
        .map_err(|error| error.to_string())
}

pub(super) fn watched(text: &str) -> Result<(), String> {
    WatchPlan::read(text).map(|_| ())
}

pub(super) fn registry(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("it names nothing".to_owned());
    }
    match Location::parse(Path::new(text), Path::new("")) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("{error}: {}", error.hint())),
    }
}

pub(super) fn key_type(text: &str) -> Result<(), String> {
    let taken = |key_type| DeviceUse::ALL.iter().any(|it| it.fits(key_type));
    match KeyType::from_str(text) {
        Ok(key_type) if taken(key_type) => Ok(()),
        Ok(_) | Err(_) => Err(
            "devices take aes-128, -192, -256, hmac-128 to -512, p-256, rsa-2048, -3072, -4096"
                .to_owned(),
        ),
    }
}

pub(super) fn fingerprint(text: &str) -> Result<(), String> {
    let mut bytes = [0; Fingerprint::LENGTH];
    hex::decode_to_slice(text, &mut bytes)
        .map_err(|_| "a fingerprint has 64 hexadecimal digits".to_owned())
}

pub(super) fn slot_label(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > MAX_LABEL {
        return Err(format!("a slot's label has 1 to {MAX_LABEL} bytes"));
    }
    Ok(())
}

/// Longest name of a nest, in characters: what fits into a table.
const LONGEST_NEST: usize = 16;

/// Whether a scanner's line or a line in a file of labels would be cut within this name.
#[must_use]
pub fn is_cut(name: &str) -> bool {
    name.contains(|letter: char| letter.is_whitespace() || [',', ';', '#'].contains(&letter))
}

/// Whether a nest may have this name.
///
/// # Errors
/// The reason against it.
pub fn nest(text: &str) -> Result<(), String> {
    if text.is_empty() || text.chars().count() > LONGEST_NEST {
        return Err(format!("a nest's name has 1 to {LONGEST_NEST} characters"));
    }
    if is_cut(text) || text.contains(char::is_control) {
        return Err(
            "a nest's name has no blank, comma, semicolon or number sign: a line of labels is cut there"
                .to_owned(),
        );
    }
    Ok(())
}

pub(super) fn uses() -> Vec<&'static str> {
    DeviceUse::ALL.iter().map(|it| it.name()).collect()
}

pub(super) fn suites() -> Vec<&'static str> {
    Suite::ALL.iter().map(|it| it.name()).collect()
}

pub(super) fn unwraps() -> Vec<&'static str> {
    UnwrapAlgorithm::ALL.iter().map(|it| it.name()).collect()
}

pub(super) fn levels() -> Vec<&'static str> {
    // Whoever wants keys that nobody has proved does not want this program.
    let mut levels = Level::ALL.iter().filter(|level| **level != Level::None);
    levels.by_ref().map(|it| it.name()).collect()
}

pub(super) fn enrolments() -> Vec<&'static str> {
    Enrolment::NAMES.to_vec()
}

pub(super) fn visits() -> Vec<&'static str> {
    Visiting::NAMES.to_vec()
}

/// Where a key comes from: of the token, the same for every device; or made at random for each.
pub(super) const TOKEN: &str = "token";
/// See [`TOKEN`].
pub(super) const FRESH: &str = "fresh";
/// Or derived for each from a master key of the token.
pub(super) const MASTER: &str = "master";

/// What the failure of a hook means: that of its device.
pub(super) const FAIL: &str = "fail";
/// Or nothing but a warning.
pub(super) const WARN: &str = "warn";

pub(super) fn failures() -> Vec<&'static str> {
    vec![FAIL, WARN]
}

pub(super) fn sources() -> Vec<&'static str> {
    vec![TOKEN, FRESH, MASTER]
}

#[allow(clippy::cast_possible_truncation, reason = "16 slots")]
pub(super) const HIGHEST_SLOT: u32 = MAX_SLOTS as u32 - 1;
