//! What a device is told on the command line: words of the form `name=value`.

use std::ffi::OsString;
use std::path::PathBuf;

use keyferry_emulated::arguments::Arguments;

/// What a device's serial port is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineKind {
    /// A pseudo-terminal.
    #[cfg(unix)]
    PseudoTerminal,
    /// A Unix socket at this path.
    #[cfg(unix)]
    UnixSocket(PathBuf),
    /// A TCP port of the loopback address; 0 lets the system choose.
    Tcp(u16),
}

/// What makes a device the one it is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The key store's flash.
    pub flash: PathBuf,
    /// The serial port.
    pub line: LineKind,
    /// A file that gets all that the device sends.
    pub capture: Option<PathBuf>,
    /// Standard input controls the device: a line `reset` resets it, and the process ends when there is no more input.
    pub control: bool,
    /// The words that the board itself reads: see [`Arguments`].
    words: Vec<String>,
}

/// Why there is no device.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// A word is none of ours. Its value is not repeated.
    #[error("argument {place} is not understood")]
    Unknown {
        /// Its place, from 1.
        place: usize,
    },
    /// The serial port is none that there is.
    #[error("`{0}` is no serial port that can be made here")]
    Line(String),
    /// The flash file is not named.
    #[error("no flash file is named")]
    NoFlash,
    /// A device of a fleet is to be controlled.
    #[error("standard input starts devices, and controls none")]
    OthersInput,
}

impl SettingsError {
    /// What to do about it, for people.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => {
                "there are flash=FILE, line=KIND, capture=FILE, id=HEX, fuse=FILE, vendor-certificate=FILE, vendor-key=FILE, seed=HEX, \
                 entropy=fail, entropy=stuck, early=UNWRAP-KEY, strap=off and control=stdin, or fleet=stdin alone; or let `keyferry emulate --board native` start it"
            }
            Self::Line(_) => {
                "there are pty, unix:PATH and tcp:127.0.0.1:NUMBER; Windows has the last one only"
            }
            Self::NoFlash => {
                "name an existing one with flash=FILE; `keyferry emulate --board native` makes it"
            }
            Self::OthersInput => {
                "leave control=stdin away, or start the device as a process of its own"
            }
        }
    }
}

/// The words that the board itself reads.
const BOARD_WORDS: [&str; 8] = [
    "id=",
    "fuse=",
    "vendor-certificate=",
    "vendor-key=",
    "seed=",
    "entropy=",
    "early=",
    "strap=",
];

impl Settings {
    /// A device on this flash file, with nothing that makes it anyone.
    #[must_use]
    pub fn new(flash: PathBuf, line: LineKind) -> Self {
        Self {
            flash,
            line,
            capture: None,
            control: false,
            words: Vec::new(),
        }
    }

    /// Adds words that the board itself reads.
    #[must_use]
    pub fn with(mut self, words: &[&str]) -> Self {
        self.words.extend(words.iter().map(|word| (*word).into()));
        self
    }

    /// Reads a command line, without the program's name.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn read(words: impl IntoIterator<Item = OsString>) -> Result<Self, SettingsError> {
        let (mut flash, mut line, mut capture) = (None, None, None);
        let mut control = false;
        let mut rest = Vec::new();
        for (place, word) in (1..).zip(words) {
            let unknown = SettingsError::Unknown { place };
            let Some(word) = word.to_str() else {
                return Err(unknown);
            };
            if let Some(path) = word.strip_prefix("flash=") {
                flash = Some(path.into());
            } else if let Some(kind) = word.strip_prefix("line=") {
                line = Some(LineKind::read(kind)?);
            } else if let Some(path) = word.strip_prefix("capture=") {
                capture = Some(path.into());
            } else if word == "control=stdin" {
                control = true;
            } else if BOARD_WORDS.iter().any(|known| word.starts_with(known)) {
                rest.push(word.to_owned());
            } else {
                return Err(unknown);
            }
        }
        Ok(Self {
            flash: flash.ok_or(SettingsError::NoFlash)?,
            line: line.unwrap_or_default(),
            capture,
            control,
            words: rest,
        })
    }

    /// What the board itself reads.
    pub(crate) fn arguments(&self) -> Arguments {
        Arguments::of(self.words.iter().map(String::as_bytes))
    }
}

impl Default for LineKind {
    #[cfg(unix)]
    fn default() -> Self {
        Self::PseudoTerminal
    }

    #[cfg(not(unix))]
    fn default() -> Self {
        Self::Tcp(0)
    }
}

impl LineKind {
    fn read(kind: &str) -> Result<Self, SettingsError> {
        #[cfg(unix)]
        if kind == "pty" {
            return Ok(Self::PseudoTerminal);
        }
        #[cfg(unix)]
        if let Some(path) = kind.strip_prefix("unix:") {
            return Ok(Self::UnixSocket(path.into()));
        }
        kind.strip_prefix("tcp:127.0.0.1:")
            .and_then(|number| number.parse().ok())
            .map(Self::Tcp)
            .ok_or_else(|| SettingsError::Line(kind.escape_default().to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Settings, SettingsError> {
        Settings::read(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn words_are_taken_apart() {
        let settings =
            read("id=7 flash=a/flash.bin line=tcp:127.0.0.1:4711 capture=c entropy=stuck").unwrap();
        assert_eq!(settings.flash, PathBuf::from("a/flash.bin"));
        assert_eq!(settings.line, LineKind::Tcp(4711));
        assert_eq!(settings.capture, Some("c".into()));
        assert_eq!(settings.arguments().device_id.0[15], 7);
        assert_eq!(read("flash=f").unwrap().line, LineKind::default());
    }

    #[cfg(unix)]
    #[test]
    fn terminals_and_unix_sockets_are_lines() {
        let line = |word| read(&format!("flash=f line={word}")).unwrap().line;
        assert_eq!(line("pty"), LineKind::PseudoTerminal);
        assert_eq!(line("unix:s"), LineKind::UnixSocket("s".into()));
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(read("").err(), Some(SettingsError::NoFlash));
        let unknown = |place| Some(SettingsError::Unknown { place });
        assert_eq!(read("flash=f frobnicate").err(), unknown(2));
        assert_eq!(read("--help").err(), unknown(1));
        for line in [
            "",
            "tcp:0.0.0.0:1",
            "tcp:127.0.0.1:x",
            "tcp:127.0.0.1:70000",
            "p\x1by",
        ] {
            let error = read(&format!("flash=f line={line}")).unwrap_err();
            assert!(matches!(error, SettingsError::Line(_)), "{error}");
            assert!(!error.to_string().contains('\x1b'));
            assert!(!error.hint().is_empty());
        }
    }
}
