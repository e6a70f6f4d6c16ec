//! Verifying a log with public keys only.
//!
//! It reads the file once, line by line, and holds no more than one line, what is under way, and some hundred bytes a device.

use std::fs::File;
use std::io::{self, BufRead};
use std::path::Path;

use keyferry_protocol::identity::Digest;

use super::anchor::{Anchor, Seen};
use super::check::{Checker, Depth, GivenKeys, Notice, OpenKey, OpenOrder, Tally};
use super::error::{AnchorFault, AuditError, Difference};
use super::fault::Fault;
use super::lines::{Line, Lines};
use super::record::{Event, LogId, Record};
use crate::device::verify::fingerprint;

/// How many notices a report holds; more are only counted.
pub const MAXIMUM_NOTICES: usize = 100;

/// What a whole log says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The log's name.
    pub log: LogId,
    /// The station's name.
    pub station: String,
    /// How many lines it has.
    pub lines: u64,
    /// The head of the chain after them.
    pub head: Digest,
    /// How many lines from the first the anchors vouch for. What comes after may have been altered or cut off.
    pub anchored_lines: u64,
    /// How often things happened.
    pub tally: Tally,
    /// Keys of which nobody knows yet whether they arrived.
    pub open: Vec<OpenKey>,
    /// Other orders without an answer, or with proofs that were not verified.
    pub open_orders: Vec<OpenOrder>,
    /// How many devices it knows; those that were wiped are not counted.
    pub devices: usize,
    /// What is worth a look, with the line's number from 1; the first [`MAXIMUM_NOTICES`].
    pub notices: Vec<(u64, Notice)>,
    /// How much there was that is worth a look.
    pub noticed: u64,
    /// Whether the authorities were given, and not taken from the log.
    pub authorities_given: bool,
    /// Whether the audit key was given, and not taken from the log.
    pub audit_key_given: bool,
}

impl Report {
    /// Whether an anchor vouches for the last line.
    #[must_use]
    pub const fn is_anchored(&self) -> bool {
        self.anchored_lines == self.lines
    }

    /// Whether every wrapped key is accounted for: proved, failed or open (or without a demanded proof).
    #[must_use]
    pub fn reconciles(&self) -> bool {
        let tally = &self.tally;
        tally.wrapped == tally.proved + tally.unproved + tally.failed + self.open.len() as u64
    }
}

/// Verifies a log. `on_record` sees each line's number, from 1, and its record, after it was verified.
///
/// # Errors
/// [`AuditError::Broken`] with the first line that breaks the log; [`AuditError::Truncated`] and [`AuditError::Replaced`] against
/// an anchor; [`AuditError::NotAnAnchor`]; [`AuditError::Read`], [`AuditError::Empty`]; what `on_record` gives.
pub fn verify<E: From<AuditError>>(
    path: &Path,
    keys: GivenKeys,
    anchors: &[Anchor],
    on_record: impl FnMut(u64, &Record) -> Result<(), E>,
) -> Result<Report, E> {
    let file = File::open(path).map_err(|source| read_failed(path, source))?;
    verify_lines(path, Lines::of_file(file), keys, anchors, on_record)
}

fn verify_lines<R: BufRead, E: From<AuditError>>(
    path: &Path,
    mut lines: Lines<R>,
    keys: GivenKeys,
    anchors: &[Anchor],
    mut on_record: impl FnMut(u64, &Record) -> Result<(), E>,
) -> Result<Report, E> {
    let mut verifier = Verifier::new(path, keys, anchors);
    loop {
        let line = lines.next().map_err(|source| read_failed(path, source))?;
        let Some(line) = line else { break };
        let record = verifier.line(&line)?;
        on_record(verifier.checker.lines(), &record)?;
    }
    Ok(verifier.report()?)
}

fn read_failed(path: &Path, source: io::Error) -> AuditError {
    AuditError::Read {
        path: path.into(),
        source,
    }
}

/// A log that is being verified against anchors.
struct Verifier<'a> {
    path: &'a Path,
    checker: Checker,
    authorities_given: bool,
    audit_key_given: bool,
    /// The anchors that were not met yet.
    ahead: Vec<&'a Anchor>,
    anchored: u64,
    notices: Vec<(u64, Notice)>,
    noticed: u64,
}

impl<'a> Verifier<'a> {
    fn new(path: &'a Path, keys: GivenKeys, anchors: &'a [Anchor]) -> Self {
        Self {
            path,
            authorities_given: !keys.authorities.is_empty(),
            audit_key_given: keys.audit_key.is_some(),
            checker: Checker::new(Depth::Signatures, keys),
            ahead: anchors.iter().collect(),
            anchored: 0,
            notices: Vec::new(),
            noticed: 0,
        }
    }

    fn broken(&self, fault: Fault) -> AuditError {
        AuditError::Broken {
            path: self.path.into(),
            line: self.checker.lines() + 1,
            fault,
        }
    }

    fn line(&mut self, line: &Line<'_>) -> Result<Record, AuditError> {
        let bytes = match line {
            Line::Whole(bytes) => bytes,
            Line::Unfinished(_) => return Err(self.broken(Fault::Unfinished)),
            Line::TooLong => return Err(self.broken(Fault::TooLong)),
        };
        let record = self
            .checker
            .line(bytes)
            .map_err(|fault| self.broken(fault))?;
        if let Some(notice) = self.checker.take_notice() {
            self.noticed += 1;
            if self.notices.len() < MAXIMUM_NOTICES {
                self.notices.push((self.checker.lines(), notice));
            }
        }
        match &record.event {
            Event::Opened(opened) => self.meet_log(&opened.log, &opened.audit_key)?,
            Event::Checkpoint(line) => {
                // What an anchor says of the lines before, it says of the line that it was written into as well, for that
                // line holds nothing else, and is spelt in one way only.
                let met = self.ahead.iter().any(|anchor| match &anchor.seen {
                    Seen::Checkpoint(checkpoint) => {
                        checkpoint.lines == record.n && checkpoint.signature == line.signature
                    }
                    Seen::Witness(_) => false,
                });
                if met {
                    self.anchored = self.anchored.max(record.n + 1);
                }
            }
            Event::Ordered(ordered) => self.ahead.retain(|anchor| match &anchor.seen {
                Seen::Witness(witness) if witness.digest() == ordered.digest => {
                    // The order names the head before its line.
                    self.anchored = self.anchored.max(record.n);
                    false
                }
                Seen::Witness(_) | Seen::Checkpoint(_) => true,
            }),
            Event::Authority(_)
            | Event::Enrolled(_)
            | Event::Trusted(_)
            | Event::Wrapped(_)
            | Event::Received(_)
            | Event::Disbelieved(_)
            | Event::Proved(_)
            | Event::Failed(_)
            | Event::Certified(_)
            | Event::Torn(_)
            | Event::Note(_) => {}
        }
        self.meet_lines()?;
        Ok(record)
    }

    /// Whether the anchors are of this log at all.
    fn meet_log(&self, log: &LogId, audit_key: &[u8]) -> Result<(), AuditError> {
        for anchor in &self.ahead {
            let Seen::Checkpoint(checkpoint) = &anchor.seen else {
                continue;
            };
            let difference = if checkpoint.audit_key != audit_key {
                Difference::AuditKey {
                    anchor: fingerprint(&checkpoint.audit_key),
                    log: fingerprint(audit_key),
                }
            } else if checkpoint.log != *log {
                Difference::Log
            } else {
                continue;
            };
            return Err(AuditError::Replaced {
                anchor: anchor.path.clone(),
                difference,
            });
        }
        Ok(())
    }

    /// Compares the chain so far with the checkpoints that have seen it at this length. One is kept until the next line, which
    /// may be its own.
    fn meet_lines(&mut self) -> Result<(), AuditError> {
        let lines = self.checker.lines();
        for anchor in &self.ahead {
            let Seen::Checkpoint(checkpoint) = &anchor.seen else {
                continue;
            };
            if checkpoint.lines != lines {
                continue;
            }
            if checkpoint.head != self.checker.head() {
                return Err(AuditError::Replaced {
                    anchor: anchor.path.clone(),
                    difference: Difference::Lines {
                        lines,
                        time: checkpoint.time,
                    },
                });
            }
            self.anchored = self.anchored.max(lines);
        }
        self.ahead.retain(|anchor| match &anchor.seen {
            Seen::Checkpoint(checkpoint) => checkpoint.lines >= lines,
            Seen::Witness(_) => true,
        });
        Ok(())
    }

    fn report(self) -> Result<Report, AuditError> {
        let Some(opened) = self.checker.opened() else {
            return Err(AuditError::Empty(self.path.into()));
        };
        let lines = self.checker.lines();
        for anchor in &self.ahead {
            match &anchor.seen {
                Seen::Checkpoint(checkpoint) if checkpoint.lines > lines => {
                    return Err(AuditError::Truncated {
                        anchor: anchor.path.clone(),
                        lines,
                        seen: checkpoint.lines,
                    });
                }
                Seen::Checkpoint(_) => {}
                Seen::Witness(witness)
                    if !self
                        .checker
                        .is_authentic(&witness.order, &witness.signature) =>
                {
                    return Err(AuditError::NotAnAnchor {
                        path: anchor.path.clone(),
                        reason: AnchorFault::Authority,
                    });
                }
                Seen::Witness(_) => {
                    return Err(AuditError::Replaced {
                        anchor: anchor.path.clone(),
                        difference: Difference::Order,
                    });
                }
            }
        }
        Ok(Report {
            log: opened.log,
            station: opened.station.clone(),
            lines,
            head: self.checker.head(),
            anchored_lines: self.anchored,
            tally: self.checker.tally().clone(),
            open: self.checker.open_keys(),
            open_orders: self.checker.open_orders(),
            devices: self.checker.devices(),
            notices: self.notices,
            noticed: self.noticed,
            authorities_given: self.authorities_given,
            audit_key_given: self.audit_key_given,
        })
    }
}
