//! Labels that are scanned while a station stays: lines of standard input, as a scanner types them.
//!
//! A line is a nest and a serial number; or a nest, and the next line is the serial number. The newest scan of a nest is for the device that
//! is begun there next. It is used up by that, whatever comes of the device, so that no other device gets it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;

use crate::certificate::{CertificateError, Serial};
use crate::station::plan::MAXIMUM_PORTS;

/// Longest line in bytes, of which no more is read.
const LONGEST: usize = 256;

/// Most labels that wait for their devices: as many as there are ports.
const MOST: usize = MAXIMUM_PORTS;

/// Most lines that wait.
const WAITING: usize = 64;

/// Why a scan does not count.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScanError {
    /// Nobody knows for which nest it is.
    #[error("'{scan}' names no nest, and none was scanned before it")]
    NoNest {
        /// What was scanned.
        scan: String,
    },
    /// Another nest has it.
    #[error("the serial number '{serial}' was scanned for nest '{other}' already")]
    Twice {
        /// The serial number.
        serial: String,
        /// The other nest.
        other: String,
    },
    /// It is no serial number.
    #[error(transparent)]
    Serial(#[from] CertificateError),
    /// Too many labels wait for a device.
    #[error("{MOST} labels wait for their devices already")]
    TooMany,
    /// It is no text, or too long.
    #[error("a line is not one of text with at most {LONGEST} bytes")]
    Line,
}

impl ScanError {
    /// The next move, for a person.
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::NoNest { .. } => Some("scan the nest, then the label".to_owned()),
            Self::Twice { .. } => Some(
                "look for two labels with the same number, and scan both nests anew".to_owned(),
            ),
            Self::Serial(error) => error.hint(),
            Self::TooMany => {
                Some("plug in the devices of those, or start the station anew".to_owned())
            }
            Self::Line => Some("see how the scanner is set up".to_owned()),
        }
    }
}

/// What a scan means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// A nest, whose label comes next.
    Nest(String),
    /// A label.
    Label {
        /// The nest.
        nest: String,
        /// The serial number.
        serial: String,
    },
}

/// Which words are names of nests.
pub(super) trait Nests {
    /// Whether there is such a nest.
    fn is_nest(&self, name: &str) -> bool;
    /// Whether there may be one, when something is plugged in.
    fn may_be_nest(&self, name: &str) -> bool;
    /// The nest, where there is only one.
    fn only_nest(&self) -> Option<&str>;
}

/// What was scanned.
#[derive(Debug, Default)]
pub(super) struct Labels {
    /// The nest whose label comes next.
    chosen: Option<String>,
    /// By nest: the serial number of the device that is begun next.
    next: BTreeMap<String, String>,
    /// By nest: that of the device that is worked on.
    busy: BTreeMap<String, String>,
}

impl Labels {
    /// Understands a line; an empty one means nothing.
    pub(super) fn scan(
        &mut self,
        line: &str,
        nests: &dyn Nests,
    ) -> Result<Option<Scan>, ScanError> {
        let line = line.trim();
        if line.is_empty() {
            return Ok(None);
        }
        if nests.is_nest(line) {
            self.chosen = Some(line.to_owned());
            // If its new label cannot be read, the old one is not meant either.
            self.next.remove(line);
            return Ok(Some(Scan::Nest(line.to_owned())));
        }
        let chosen = self.chosen.take();
        let pair = line.split_once([' ', '\t', ',', ';']);
        let (nest, serial) = match (pair, chosen, nests.only_nest()) {
            // A label may have a blank in it: behind a nest it is a whole one, unless it begins with another nest.
            (Some((nest, serial)), Some(_), _) if nests.is_nest(nest) => {
                (nest.to_owned(), serial.trim())
            }
            (Some((nest, serial)), None, _) if nests.may_be_nest(nest) => {
                (nest.to_owned(), serial.trim())
            }
            (_, Some(nest), _) => (nest, line),
            (_, None, Some(nest)) => (nest.to_owned(), line),
            (_, None, None) => {
                let scan = line.replace(char::is_control, "?");
                return Err(ScanError::NoNest { scan });
            }
        };
        Serial::product(serial)?;
        let others = self.next.iter().chain(&self.busy);
        if let Some((other, _)) = others
            .filter(|(other, _)| **other != nest || self.busy.contains_key(*other))
            .find(|(_, known)| *known == serial)
        {
            return Err(ScanError::Twice {
                serial: serial.to_owned(),
                other: other.clone(),
            });
        }
        if self.next.len() >= MOST && !self.next.contains_key(&nest) {
            return Err(ScanError::TooMany);
        }
        let serial = serial.to_owned();
        self.next.insert(nest.clone(), serial.clone());
        Ok(Some(Scan::Label { nest, serial }))
    }

    /// The serial number of the device that is begun at a nest.
    pub(super) fn begin(&mut self, nest: &str) -> Option<String> {
        let serial = self.next.remove(nest)?;
        self.busy.insert(nest.to_owned(), serial.clone());
        Some(serial)
    }

    /// The device at a nest is over.
    pub(super) fn over(&mut self, nest: &str) {
        self.busy.remove(nest);
    }
}

/// Reads standard input, line by line, until it ends. What comes is a line, or none for what is not one.
pub(super) fn listen() -> Receiver<Option<String>> {
    let (sender, lines) = mpsc::sync_channel(WAITING);
    // It ends with the program: nobody can be woken who waits for a person.
    thread::spawn(move || read(BufReader::new(std::io::stdin()), &sender));
    lines
}

fn read(mut input: impl std::io::BufRead, lines: &SyncSender<Option<String>>) {
    loop {
        let mut line = Vec::new();
        let limit = LONGEST as u64 + 1;
        match input.by_ref().take(limit).read_until(b'\n', &mut line) {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
        let is_whole = line.ends_with(b"\n") || line.len() <= LONGEST;
        if !is_whole && input.skip_until(b'\n').is_err() {
            return;
        }
        let text = String::from_utf8(line).ok().filter(|_| is_whole);
        if lines.send(text).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Two;

    impl Nests for Two {
        fn is_nest(&self, name: &str) -> bool {
            ["A1", "A2"].contains(&name)
        }
        fn may_be_nest(&self, name: &str) -> bool {
            name.starts_with('A')
        }
        fn only_nest(&self) -> Option<&str> {
            None
        }
    }

    fn label(nest: &str, serial: &str) -> Option<Scan> {
        Some(Scan::Label {
            nest: nest.to_owned(),
            serial: serial.to_owned(),
        })
    }

    #[test]
    fn a_label_goes_to_its_nest() {
        let mut labels = Labels::default();
        let mut scan = |line| labels.scan(line, &Two);
        assert_eq!(scan(" A1 SN-1\r\n").unwrap(), label("A1", "SN-1"));
        assert_eq!(scan("A2\n").unwrap(), Some(Scan::Nest("A2".to_owned())));
        assert_eq!(scan("SN-2\n").unwrap(), label("A2", "SN-2"));
        // Nobody has scanned a nest for this one.
        assert!(matches!(scan("SN-3"), Err(ScanError::NoNest { .. })));
        assert_eq!(scan("A9,SN-9").unwrap(), label("A9", "SN-9"));
        assert_eq!(scan("\n").unwrap(), None);
        assert!(matches!(scan("A1 é"), Err(ScanError::Serial(_))));
        assert_eq!(labels.begin("A2").as_deref(), Some("SN-2"));
        assert_eq!(labels.begin("A2"), None);
        // A label with a blank, as of a nest that may come.
        let mut scan = |line| labels.scan(line, &Two);
        scan("A1").unwrap();
        assert_eq!(scan("A7 1042").unwrap(), label("A1", "A7 1042"));
        scan("A1").unwrap();
        assert_eq!(scan("A2 SN-8").unwrap(), label("A2", "SN-8"));
        // The old one was given up with the nest that was scanned.
        assert_eq!(labels.begin("A1"), None);
    }

    #[test]
    fn no_two_devices_have_one_label() {
        let mut labels = Labels::default();
        labels.scan("A1 SN-1", &Two).unwrap();
        let twice = |labels: &mut Labels, line| {
            let error = labels.scan(line, &Two).unwrap_err();
            assert!(matches!(error, ScanError::Twice { .. }), "{error}");
        };
        twice(&mut labels, "A2 SN-1");
        // Scanned anew, it is the same; and another one takes its place.
        labels.scan("A1 SN-1", &Two).unwrap();
        labels.scan("A1 SN-4", &Two).unwrap();
        labels.scan("A2 SN-1", &Two).unwrap();
        // What is worked on counts as well, at its own nest too.
        labels.begin("A2").unwrap();
        twice(&mut labels, "A1 SN-1");
        twice(&mut labels, "A2 SN-1");
        labels.over("A2");
        labels.scan("A1 SN-1", &Two).unwrap();
    }

    #[test]
    fn no_more_labels_wait_than_there_are_ports() {
        let mut labels = Labels::default();
        for number in 0..MOST {
            labels
                .scan(&format!("A{number} SN-{number}"), &Two)
                .unwrap();
        }
        let error = labels.scan("A999 SN-999", &Two).unwrap_err();
        assert!(matches!(error, ScanError::TooMany), "{error}");
        assert_eq!(
            labels.scan("A7 SN-999", &Two).unwrap(),
            label("A7", "SN-999")
        );
        labels.begin("A7").unwrap();
        labels.scan("A999 SN-1000", &Two).unwrap();
    }

    #[test]
    fn what_is_no_line_is_not_kept() {
        let (sender, lines) = mpsc::sync_channel(8);
        let mut input = vec![b'x'; LONGEST + 50];
        input.extend(b"\nA1\n\xff\nlast");
        read(&input[..], &sender);
        drop(sender);
        let found: Vec<_> = lines.iter().collect();
        assert_eq!(
            found,
            [None, Some("A1\n".to_owned()), None, Some("last".to_owned())]
        );
    }
}
