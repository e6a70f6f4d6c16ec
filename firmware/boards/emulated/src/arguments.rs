//! What makes this device the one it is: the words of the emulator's command line.
//!
//! `id=<hex> fuse=<path> [vendor-certificate=<path> vendor-key=<path>] [seed=<64 hex digits>] [entropy=fail|stuck] [strap=off]
//! [early=<unwrap key>] [led=log]`, separated by spaces, unknown words ignored. A value that cannot be read counts as missing, and
//! what is missing leads to a refusal later, never to a default key. With the feature `flash-faults` there are more words: see `faults`.

use core::ffi::CStr;

use heapless::Vec;
use keyferry_firmware::protocol::identity::DeviceId;
use keyferry_firmware::protocol::suite::UnwrapAlgorithm;

/// Longest path of a file in bytes, with the zero that ends it.
const LONGEST_PATH: usize = 256;

/// A path, ended by a zero byte; empty if there is none.
#[derive(Default)]
pub struct Path(Vec<u8, LONGEST_PATH>);

impl Path {
    /// As C has it.
    #[must_use]
    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_with_nul(&self.0).unwrap_or_default()
    }

    /// A path too long is left out altogether: part of it would name another file.
    fn set(&mut self, path: &[u8]) {
        self.0.clear();
        if self.0.extend_from_slice(path).is_err() || self.0.push(0).is_err() {
            self.0.clear();
        }
    }

    fn get(&self) -> Option<&Self> {
        (!self.0.is_empty()).then_some(self)
    }
}

/// A flash that never stops.
#[cfg(feature = "flash-faults")]
const NOWHERE: crate::faults::Stop = crate::faults::Stop {
    at: u32::MAX,
    cut: crate::faults::Cut::Before,
    seed: 0,
};

/// Where entropy comes from.
#[derive(Clone, Copy)]
pub enum EntropySource {
    /// The host's random device.
    Host,
    /// A stream that this seed determines; the same at every start.
    Seed([u8; 32]),
    /// A source that always reports a failure.
    Failing,
    /// A source that gives nothing but zeros and says it is well.
    Stuck,
}

/// The command line, taken apart.
pub struct Arguments {
    /// The device's id; zeros if there is none.
    pub device_id: DeviceId,
    /// The file that stands for the fuses.
    fuse: Path,
    /// The vendor key's certificate.
    vendor_certificate: Path,
    /// The vendor key.
    vendor_key: Path,
    /// Where entropy comes from.
    pub entropy: EntropySource,
    /// The unwrap key to make before anybody asks for it.
    pub early: Option<UnwrapAlgorithm>,
    /// The flash's journal.
    #[cfg(feature = "flash-faults")]
    journal: Path,
    /// Where the flash stops; nowhere without `flash-stop`.
    #[cfg(feature = "flash-faults")]
    stop: crate::faults::Stop,
    /// Whether the provisioning strap is set.
    pub strap: bool,
    /// Whether the log tells when the LED is switched.
    pub log_led: bool,
}

impl Arguments {
    /// Takes the words in. Without any, every part is missing.
    #[must_use]
    pub fn of<'w>(words: impl IntoIterator<Item = &'w [u8]>) -> Self {
        let mut arguments = Self {
            device_id: DeviceId([0; 16]),
            fuse: Path::default(),
            vendor_certificate: Path::default(),
            vendor_key: Path::default(),
            entropy: EntropySource::Host,
            early: None,
            #[cfg(feature = "flash-faults")]
            journal: Path::default(),
            #[cfg(feature = "flash-faults")]
            stop: NOWHERE,
            strap: true,
            log_led: false,
        };
        for word in words {
            arguments.take(word);
        }
        arguments
    }

    /// Path of the fuse file, if there is one.
    #[must_use]
    pub fn fuse(&self) -> Option<&Path> {
        self.fuse.get()
    }

    /// Path of the vendor key's certificate, if there is one.
    #[must_use]
    pub fn vendor_certificate(&self) -> Option<&Path> {
        self.vendor_certificate.get()
    }

    /// Path of the vendor key, if there is one.
    #[must_use]
    pub fn vendor_key(&self) -> Option<&Path> {
        self.vendor_key.get()
    }

    /// Path of the flash's journal, if there is one.
    #[cfg(feature = "flash-faults")]
    #[must_use]
    pub fn journal(&self) -> Option<&Path> {
        self.journal.get()
    }

    /// Where the flash stops.
    #[cfg(feature = "flash-faults")]
    #[must_use]
    pub fn stop(&self) -> Option<crate::faults::Stop> {
        (self.stop.at != NOWHERE.at).then_some(self.stop)
    }

    /// Takes in a word about the flash's faults.
    #[cfg(feature = "flash-faults")]
    fn take_fault(&mut self, word: &[u8]) {
        use crate::faults::Cut;

        let number = |digits| hex(digits).map_or(NOWHERE.at, u32::from_be_bytes);
        if let Some(path) = word.strip_prefix(b"flash-journal=") {
            self.journal.set(path);
        } else if let Some(digits) = word.strip_prefix(b"flash-stop=") {
            self.stop.at = number(digits);
        } else if let Some(digits) = word.strip_prefix(b"flash-seed=") {
            self.stop.seed = number(digits);
        } else if word == b"flash-cut=torn" {
            self.stop.cut = Cut::Torn;
        } else if word == b"flash-cut=after" {
            self.stop.cut = Cut::After;
        }
    }

    /// Takes one word in.
    fn take(&mut self, word: &[u8]) {
        #[cfg(feature = "flash-faults")]
        self.take_fault(word);
        if let Some(id) = word.strip_prefix(b"id=") {
            if let Some(id) = hex(id) {
                self.device_id = DeviceId(id);
            }
        } else if let Some(path) = word.strip_prefix(b"fuse=") {
            self.fuse.set(path);
        } else if let Some(path) = word.strip_prefix(b"vendor-certificate=") {
            self.vendor_certificate.set(path);
        } else if let Some(path) = word.strip_prefix(b"vendor-key=") {
            self.vendor_key.set(path);
        } else if let Some(seed) = word.strip_prefix(b"seed=") {
            // A seed that cannot be read must not turn into randomness a test did not ask for.
            self.entropy = hex(seed).map_or(EntropySource::Failing, EntropySource::Seed);
        } else if word == b"strap=off" {
            self.strap = false;
        } else if word == b"led=log" {
            self.log_led = true;
        } else if word == b"entropy=stuck" {
            self.entropy = EntropySource::Stuck;
        } else if let Some(name) = word.strip_prefix(b"early=") {
            self.early = UnwrapAlgorithm::ALL
                .into_iter()
                .find(|key| key.name().as_bytes() == name);
        } else if word.starts_with(b"entropy=") {
            self.entropy = EntropySource::Failing;
        }
    }
}

/// Reads up to `2 * N` hexadecimal digits as a number of `N` bytes, big-endian and padded with zeros on the left.
/// Nothing if there is no digit, a digit too many, or something else between them.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    if digits.is_empty() || digits.len() > 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (place, digit) in digits.iter().rev().enumerate() {
        let value = (*digit as char).to_digit(16)? as u8;
        bytes[N - 1 - place / 2] |= value << (place % 2 * 4);
    }
    Some(bytes)
}
