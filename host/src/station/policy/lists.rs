//! Lists that people write: ids that are expected, and devices that are allowed.
//!
//! Both are text files of bounded size, one device a line, in hexadecimal digits; `#` begins a comment. A list with a mistake is
//! not used, not even the rest of it, and all its mistakes are told at once, with the numbers of their lines.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use keyferry_protocol::identity::{DeviceId, Digest, Fingerprint};

use crate::device::verify::digest;

/// Longest list in bytes.
pub const MAXIMUM_LIST: usize = 16 * 1024 * 1024;

/// Most devices on a list.
pub const MAXIMUM_LISTED: usize = 100_000;

/// Most mistakes that are told one by one.
const MAXIMUM_MISTAKES: usize = 20;

/// Ids that are expected at enrolment.
#[derive(Clone, Debug)]
pub struct SerialList {
    name: String,
    digest: Digest,
    ids: Arc<BTreeSet<DeviceId>>,
}

impl SerialList {
    /// Reads a list: one id a line, 32 hexadecimal digits. `name` is what errors and records call it.
    ///
    /// # Errors
    /// [`ListError`].
    pub fn read(name: &str, bytes: &[u8]) -> Result<Self, ListError> {
        let mut reader = Reader::default();
        let mut first_lines = BTreeMap::new();
        for (line, text) in reader.lines(name, bytes)? {
            match device_id(text) {
                None => reader.mistake(line, What::NoId(shortened(text))),
                Some(id) => {
                    if let Some(first) = first_lines.get(&id) {
                        reader.mistake(line, What::Twice(id, *first));
                    } else {
                        first_lines.insert(id, line);
                    }
                }
            }
        }
        reader.end(name, first_lines.len())?;
        Ok(Self {
            name: name.to_owned(),
            digest: digest(bytes),
            ids: Arc::new(first_lines.into_keys().collect()),
        })
    }

    /// Whether the id is expected.
    #[must_use]
    pub fn contains(&self, device: DeviceId) -> bool {
        self.ids.contains(&device)
    }

    /// The ids, in their order.
    pub fn ids(&self) -> impl Iterator<Item = DeviceId> {
        self.ids.iter().copied()
    }

    /// What records call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SHA-256 of the file.
    #[must_use]
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }
}

/// Devices that are allowed: id and identity key.
#[derive(Clone, Debug)]
pub struct Allowlist {
    allowed: Allowed,
}

#[derive(Clone, Debug)]
enum Allowed {
    /// Those on a list.
    Listed {
        name: String,
        digest: Digest,
        identities: Arc<BTreeMap<DeviceId, Fingerprint>>,
    },
    /// The one with this identity key, whatever its id.
    One(Fingerprint),
}

impl Allowlist {
    /// Reads a list: a device a line, its id and the fingerprint of its identity key (32 and 64 hexadecimal digits), with a comma,
    /// a semicolon or blanks between. The first line may be the heading `device,identity`. `name` is what errors and records
    /// call the list.
    ///
    /// # Errors
    /// [`ListError`].
    pub fn read(name: &str, bytes: &[u8]) -> Result<Self, ListError> {
        let mut reader = Reader::default();
        let mut by_id: BTreeMap<DeviceId, (usize, Fingerprint)> = BTreeMap::new();
        let mut by_identity: BTreeMap<Fingerprint, usize> = BTreeMap::new();
        for (place, (line, text)) in reader.lines(name, bytes)?.into_iter().enumerate() {
            let fields: Vec<_> = text
                .split([',', ';', ' ', '\t'])
                .filter(|field| !field.is_empty())
                .collect();
            if place == 0 && fields == ["device", "identity"] {
                continue;
            }
            let &[id, identity] = fields.as_slice() else {
                reader.mistake(line, What::NotTwo(fields.len()));
                continue;
            };
            let Some(id) = device_id(id) else {
                reader.mistake(line, What::NoId(shortened(id)));
                continue;
            };
            let Some(identity) = fingerprint(identity) else {
                reader.mistake(line, What::NoFingerprint(shortened(identity)));
                continue;
            };
            if let Some((first, _)) = by_id.get(&id) {
                reader.mistake(line, What::Twice(id, *first));
            } else if let Some(first) = by_identity.get(&identity) {
                reader.mistake(line, What::KeyTwice(identity, *first));
            } else {
                by_id.insert(id, (line, identity));
                by_identity.insert(identity, line);
            }
        }
        reader.end(name, by_id.len())?;
        let identities = by_id
            .into_iter()
            .map(|(id, (_, identity))| (id, identity))
            .collect();
        Ok(Self {
            allowed: Allowed::Listed {
                name: name.to_owned(),
                digest: digest(bytes),
                identities: Arc::new(identities),
            },
        })
    }

    /// Allows the one device that has this identity key, whatever its id.
    #[must_use]
    pub const fn one(identity: Fingerprint) -> Self {
        Self {
            allowed: Allowed::One(identity),
        }
    }

    /// The identity key that a device with this id must have; nothing if it is not on the list.
    #[must_use]
    pub fn identity_of(&self, device: DeviceId) -> Option<Fingerprint> {
        match &self.allowed {
            Allowed::Listed { identities, .. } => identities.get(&device).copied(),
            Allowed::One(identity) => Some(*identity),
        }
    }

    /// Whether this very id stands on the list.
    #[must_use]
    pub fn names(&self, device: DeviceId) -> bool {
        match &self.allowed {
            Allowed::Listed { identities, .. } => identities.contains_key(&device),
            Allowed::One(_) => false,
        }
    }

    /// What errors call it.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.allowed {
            Allowed::Listed { name, .. } => name,
            Allowed::One(_) => "of the command line",
        }
    }

    pub(super) fn reason(&self, found: Fingerprint) -> String {
        match &self.allowed {
            Allowed::Listed { name, digest, .. } => format!(
                "its id is on the list {name} (SHA-256 {digest}) with its identity key {found}"
            ),
            Allowed::One(_) => format!("its identity key {found} is the one that was asked for"),
        }
    }
}

/// A list that is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListError {
    /// What the list was called.
    pub name: String,
    /// Its mistakes in the order of their lines, the first 20.
    pub mistakes: Vec<Mistake>,
    /// How many more there are.
    pub more: usize,
}

/// A mistake in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The number of the line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// What is wrong with it, for a person.
    pub what: String,
}

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the list {} is not used: ", self.name)?;
        for (place, mistake) in self.mistakes.iter().enumerate() {
            if place > 0 {
                f.write_str("; ")?;
            }
            if mistake.line > 0 {
                write!(f, "line {}: ", mistake.line)?;
            }
            f.write_str(&mistake.what)?;
        }
        if self.more > 0 {
            write!(f, "; and {} more", self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for ListError {}

/// What can be wrong with a line.
enum What {
    NoId(String),
    NoFingerprint(String),
    NotTwo(usize),
    Twice(DeviceId, usize),
    KeyTwice(Fingerprint, usize),
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoId(text) => write!(f, "'{text}' is no device id (32 hexadecimal digits)"),
            Self::NoFingerprint(text) => {
                write!(f, "'{text}' is no fingerprint (64 hexadecimal digits)")
            }
            Self::NotTwo(fields) => write!(f, "{fields} words, where id and fingerprint belong"),
            Self::Twice(id, first) => write!(f, "{id} is on line {first} already"),
            Self::KeyTwice(key, first) => {
                write!(f, "the identity key {key} is on line {first} already")
            }
        }
    }
}

/// Collects what is wrong.
#[derive(Default)]
struct Reader {
    mistakes: Vec<Mistake>,
    more: usize,
}

impl Reader {
    /// The lines with something on them, and their numbers.
    fn lines<'a>(&self, name: &str, bytes: &'a [u8]) -> Result<Vec<(usize, &'a str)>, ListError> {
        if bytes.len() > MAXIMUM_LIST {
            return Err(whole(
                name,
                format!("it is longer than {MAXIMUM_LIST} bytes"),
            ));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| whole(name, "it is no text".into()))?;
        // What some editors put in front of a text (a byte order mark) is no part of it.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = text.lines().enumerate().filter_map(|(place, line)| {
            let line = line.split('#').next().unwrap_or_default().trim();
            (!line.is_empty()).then_some((place + 1, line))
        });
        Ok(lines.collect())
    }

    fn mistake(&mut self, line: usize, what: What) {
        if self.mistakes.len() < MAXIMUM_MISTAKES {
            let what = what.to_string();
            self.mistakes.push(Mistake { line, what });
        } else {
            self.more += 1;
        }
    }

    fn end(self, name: &str, devices: usize) -> Result<(), ListError> {
        if !self.mistakes.is_empty() {
            return Err(ListError {
                name: name.to_owned(),
                mistakes: self.mistakes,
                more: self.more,
            });
        }
        match devices {
            0 => Err(whole(name, "no device is on it".into())),
            1..=MAXIMUM_LISTED => Ok(()),
            _ => Err(whole(
                name,
                format!("{devices} devices are on it, more than {MAXIMUM_LISTED}"),
            )),
        }
    }
}

fn whole(name: &str, what: String) -> ListError {
    ListError {
        name: name.to_owned(),
        mistakes: vec![Mistake { line: 0, what }],
        more: 0,
    }
}

fn device_id(text: &str) -> Option<DeviceId> {
    let mut id = DeviceId::ZERO;
    hex::decode_to_slice(text, &mut id.0).ok()?;
    Some(id)
}

fn fingerprint(text: &str) -> Option<Fingerprint> {
    let mut fingerprint = Fingerprint::ZERO;
    hex::decode_to_slice(text, &mut fingerprint.0).ok()?;
    Some(fingerprint)
}

/// The beginning of what stands on a line, without what would act on a terminal.
fn shortened(text: &str) -> String {
    const SHOWN: usize = 40;
    let mut shown: String = text
        .chars()
        .take(SHOWN)
        .map(|letter| if letter.is_control() { '?' } else { letter })
        .collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> DeviceId {
        DeviceId([number; 16])
    }

    #[test]
    fn a_serial_list_is_read() {
        let text = format!(
            "\u{feff}# the shift of Monday\r\n{}\r\n\r\n  {}  # a spare\n",
            id(1),
            id(0xab).to_string().to_uppercase()
        );
        let list = SerialList::read("serials.txt", text.as_bytes()).unwrap();
        assert_eq!(list.ids().collect::<Vec<_>>(), [id(1), id(0xab)]);
        assert!(list.contains(id(1)) && !list.contains(id(2)));
        assert_eq!(*list.digest(), digest(text.as_bytes()));
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let text = format!("{0}\nhello\n{1}\n# fine\n{0}\n{0}00\n", id(1), id(2));
        let error = SerialList::read("serials.txt", text.as_bytes()).unwrap_err();
        let lines: Vec<_> = error.mistakes.iter().map(|it| it.line).collect();
        assert_eq!(lines, [2, 5, 6]);
        let words = error.to_string();
        assert!(words.contains("line 2: 'hello' is no device id"), "{words}");
        assert!(words.contains("line 5: 010101"), "{words}");
        assert!(words.contains("is on line 1 already"), "{words}");
    }

    #[test]
    fn many_mistakes_are_counted() {
        let error = SerialList::read("x", "zz\n".repeat(33).as_bytes()).unwrap_err();
        assert_eq!((error.mistakes.len(), error.more), (MAXIMUM_MISTAKES, 13));
        assert!(error.to_string().ends_with("; and 13 more"));
    }

    #[test]
    fn what_is_no_list_is_told_as_a_whole() {
        for (bytes, said) in [
            (&b""[..], "no device"),
            (b"# nobody\n", "no device"),
            (b"\xff\xfe0", "no text"),
        ] {
            for error in [
                SerialList::read("x", bytes).unwrap_err(),
                Allowlist::read("x", bytes).unwrap_err(),
            ] {
                assert!(error.to_string().contains(said), "{error}");
            }
        }
        let long = vec![b' '; MAXIMUM_LIST + 1];
        assert!(SerialList::read("x", &long).is_err());
    }

    #[test]
    fn control_characters_of_a_list_reach_no_terminal() {
        let error = SerialList::read("x", b"\x1b[31mred").unwrap_err();
        assert!(!error.to_string().contains('\x1b'));
    }

    #[test]
    fn an_allowlist_is_read_with_commas_or_blanks() {
        let key = |number| Fingerprint([number; 32]);
        let text = format!(
            "device,identity\n{},{}\n{}\t{} # blank\n{};{}\n",
            id(1),
            key(1),
            id(2),
            key(2),
            id(3),
            key(3)
        );
        let list = Allowlist::read("x", text.as_bytes()).unwrap();
        for number in 1..=3 {
            assert_eq!(list.identity_of(id(number)), Some(key(number)));
        }
        assert_eq!(list.identity_of(id(4)), None);
    }

    #[test]
    fn an_allowlist_names_each_id_and_each_key_once() {
        let key = |number| Fingerprint([number; 32]);
        let text = format!(
            "{} {}\n{} {}\n{} {}\n{}\n{} 00\ndevice,identity\n",
            id(1),
            key(1),
            id(1),
            key(2),
            id(2),
            key(1),
            id(3),
            id(3)
        );
        let error = Allowlist::read("x", text.as_bytes()).unwrap_err();
        let lines: Vec<_> = error.mistakes.iter().map(|it| it.line).collect();
        assert_eq!(lines, [2, 3, 4, 5, 6], "{error}");
    }
}
