//! What `station watch` looks at: the plan's ports and folders, and the scanner. And what has become of the devices so far.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError};

use super::opened::Station;
use super::scanner::{Labels, Nests, Scan, ScanError, listen};
use super::screen::Screen;
use crate::cli::{Context, fields};
use crate::device::port::{Look, Name};
use crate::error::Failure;
use crate::station::plan::{MAXIMUM_PORTS, Plan, WatchPlan, is_cut};
use crate::station::run::{Fixture, Outcome, Plugged, Verdict};

/// Longest name in a watched folder that is a nest's, in characters.
const LONGEST_NAME: usize = 64;

/// Most names of a folder that are looked at.
const MOST_NAMES: usize = 4096;

/// Most devices that failed, and were not done since, that are remembered by name.
const MOST_OPEN: usize = 1000;

/// A device that failed and was not done since.
pub(super) struct Open {
    pub(super) nest: String,
    pub(super) error: String,
    pub(super) hint: Option<String>,
}

/// What has become of the devices.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) done: u64,
    pub(super) before: u64,
    pub(super) failed: u64,
    pub(super) keys: usize,
    /// By device, or by nest where none has answered.
    pub(super) open: BTreeMap<String, Open>,
    /// How many more there are.
    pub(super) more: u64,
}

impl Tally {
    fn count(&mut self, outcome: &Outcome) {
        let nest = &outcome.nest.name;
        let at_nest = format!("nest {nest}");
        let device = outcome.device.map(|device| device.to_string());
        let (error, hint) = match &outcome.verdict {
            Verdict::Done(_) | Verdict::Before => {
                if matches!(outcome.verdict, Verdict::Before) {
                    self.before += 1;
                } else {
                    self.done += 1;
                }
                self.keys += outcome.verdict.keys_proved();
                self.open.remove(&at_nest);
                if let Some(device) = device {
                    self.open.remove(&device);
                }
                return;
            }
            Verdict::Failed(error) => (error.to_string(), error.hint()),
            Verdict::NotBegun(why) => ((*why).to_owned(), None),
        };
        self.failed += 1;
        let key = device.unwrap_or(at_nest);
        if self.open.len() < MOST_OPEN || self.open.contains_key(&key) {
            let nest = nest.clone();
            self.open.insert(key, Open { nest, error, hint });
        } else {
            self.more += 1;
        }
    }
}

/// The fixture of a station that stays.
pub(super) struct Bench<'a> {
    context: &'a Context,
    screen: &'a Screen,
    station: &'a Station,
    /// The plan's nests: name, port, and where to look for it.
    ports: Vec<(String, String, PathBuf)>,
    /// The scanner's lines, until it ends.
    lines: Option<Receiver<Option<String>>>,
    labels: Labels,
    /// Who was there at the last look.
    there: BTreeSet<String>,
    /// Who was there at any look of this run: a nest stays one when its device is pulled out.
    seen: BTreeSet<String>,
    /// What was told once.
    told: BTreeSet<String>,
    pub(super) tally: Tally,
}

/// Where the plan's nests are, if that can be watched.
///
/// # Errors
/// [`Failure::CannotWatch`], [`Failure::Missing`].
pub(super) fn watched(plan: &Plan) -> Result<Vec<(String, String, PathBuf)>, Failure> {
    let mut ports = Vec::new();
    for it in &plan.ports {
        match it.port.parse() {
            Ok(Name::Serial(path) | Name::Unix(path)) => {
                ports.push((it.nest.clone(), it.port.clone(), path));
            }
            Ok(Name::Tcp { .. }) | Err(_) => {
                let port = it.port.clone();
                return Err(Failure::CannotWatch { port });
            }
        }
    }
    if ports.is_empty() && plan.watch.is_empty() {
        return Err(Failure::Missing {
            name: "[[port]] or [[watch]]",
            because: "the plan does not say where devices are plugged in",
        });
    }
    Ok(ports)
}

impl<'a> Bench<'a> {
    pub(super) fn new(
        context: &'a Context,
        screen: &'a Screen,
        station: &'a Station,
        ports: Vec<(String, String, PathBuf)>,
        scans: bool,
    ) -> Self {
        Self {
            context,
            screen,
            station,
            ports,
            lines: scans.then(listen),
            labels: Labels::default(),
            there: BTreeSet::new(),
            seen: BTreeSet::new(),
            told: BTreeSet::new(),
            tally: Tally::default(),
        }
    }

    fn warn_once(&mut self, text: String) {
        if !self.told.contains(&text) && self.told.len() < MOST_OPEN {
            self.screen.warn(&text);
            self.told.insert(text);
        }
    }

    /// Takes what was scanned since.
    fn scan(&mut self) {
        while let Some(lines) = &self.lines {
            let line = match lines.try_recv() {
                Ok(line) => line,
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.lines = None;
                    self.screen.say("the scanner's input has ended");
                    self.context.event(fields! { "event" => "scanner-ended" });
                    return;
                }
            };
            let mut labels = std::mem::take(&mut self.labels);
            let scanned = match &line {
                Some(line) => labels.scan(line, self),
                None => Err(ScanError::Line),
            };
            self.labels = labels;
            match scanned {
                Ok(None) => {}
                Ok(Some(Scan::Nest(nest))) => {
                    self.screen.say(&format!("{nest}: scan the label"));
                    self.context
                        .event(fields! { "event" => "nest-scanned", "nest" => nest });
                }
                Ok(Some(Scan::Label { nest, serial })) => {
                    self.screen.say(&format!("{nest}: serial number {serial}"));
                    self.context.event(fields! {
                        "event" => "scanned", "nest" => nest, "serial" => serial,
                    });
                }
                Err(error) => {
                    let hint = error.hint();
                    if self.context.is_json() {
                        self.context.event(fields! {
                            "event" => "scan-refused", "error" => error.to_string(), "hint" => hint,
                        });
                    } else {
                        let hint = hint.map_or_else(String::new, |hint| format!("; {hint}"));
                        self.screen.warn(&format!("{error}{hint}"));
                    }
                }
            }
        }
    }

    /// The ports of a pattern: names and paths.
    fn names(&mut self, pattern: &WatchPlan, look: &Look) -> Vec<(String, PathBuf)> {
        let paths: Vec<PathBuf> = match &pattern.folder {
            None => look.listed().to_vec(),
            Some(folder) => match self.station.loaded.path(folder).read_dir() {
                Ok(entries) => {
                    let entries = entries.filter_map(Result::ok).filter(|entry| {
                        let name = entry.file_name();
                        name.to_str().is_some_and(|name| pattern.fits(name))
                    });
                    let paths = entries.map(|entry| entry.path());
                    paths.take(MOST_NAMES).collect()
                }
                // Linux has no /dev/serial as long as no adapter is there.
                Err(error) => {
                    self.warn_once(format!("nothing is seen of {}: {error}", pattern.text));
                    Vec::new()
                }
            },
        };
        let mut names = Vec::new();
        for path in paths {
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(name) = name.filter(|name| pattern.fits(name)) else {
                continue;
            };
            let is_fit = !name.contains(char::is_control) && name.chars().count() <= LONGEST_NAME;
            let can_be_scanned = !self.station.loaded.plan.serials || !is_cut(name);
            if is_fit && can_be_scanned {
                names.push((name.to_owned(), path));
            } else {
                let what = &pattern.text;
                self.warn_once(format!(
                    "a name of {what} is too long, none for a screen, or would be cut in a scanner's line"
                ));
            }
        }
        names.sort();
        names
    }
}

impl Nests for Bench<'_> {
    fn is_nest(&self, name: &str) -> bool {
        self.ports.iter().any(|(nest, ..)| nest == name)
            || self.there.contains(name)
            || self.seen.contains(name)
    }

    fn may_be_nest(&self, name: &str) -> bool {
        let mut watched = self.station.loaded.plan.watch.iter();
        self.is_nest(name) || watched.any(|pattern| pattern.fits(name))
    }

    fn only_nest(&self) -> Option<&str> {
        match &self.ports[..] {
            [(only, ..)] if self.station.loaded.plan.watch.is_empty() => Some(only),
            _ => None,
        }
    }
}

impl Fixture for Bench<'_> {
    fn look(&mut self) -> Vec<Plugged> {
        self.scan();
        let look = Look::default();
        let mut found: Vec<Plugged> = Vec::new();
        let mut add = |nest: &str, port: String, path: &Path, is_named: bool| {
            let Some(mark) = look.at(path).filter(|mark| is_named || mark.is_port) else {
                return;
            };
            // One device may have several names; the plan's comes first.
            if found
                .iter()
                .any(|it| it.nest == *nest || it.mark.real == mark.real)
            {
                return;
            }
            let port = match mark.is_socket && !is_named {
                true => format!("unix:{port}"),
                false => port,
            };
            let nest = nest.to_owned();
            found.push(Plugged { nest, port, mark });
        };
        for (nest, port, path) in &self.ports {
            add(nest, port.clone(), path, true);
        }
        let station = self.station;
        for pattern in &station.loaded.plan.watch {
            for (name, path) in self.names(pattern, &look) {
                add(&name, path.display().to_string(), &path, false);
            }
        }
        if found.len() > MAXIMUM_PORTS {
            found.truncate(MAXIMUM_PORTS);
            self.warn_once(format!(
                "more than {MAXIMUM_PORTS} ports are there, of which the others are left alone"
            ));
        }
        self.there = found.iter().map(|it| it.nest.clone()).collect();
        if self.seen.len() < MOST_NAMES {
            self.seen.extend(self.there.iter().cloned());
        }
        found
    }

    fn serial(&mut self, nest: &str) -> Option<String> {
        self.labels.begin(nest)
    }

    fn over(&mut self, outcome: &Outcome) {
        self.labels.over(&outcome.nest.name);
        self.tally.count(outcome);
    }

    fn waiting(&mut self) {
        self.screen
            .say("waiting for devices; Ctrl-C ends the station");
        self.context.event(fields! { "event" => "waiting" });
    }
}
