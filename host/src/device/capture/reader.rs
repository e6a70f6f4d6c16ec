//! Reads a recording, one line at a time: however long the file is, there is one line of it in memory.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::{CaptureError, FORMAT, Heading, LONGEST_LINE, PIECE, Record, What, Written};

/// A recording that is read.
pub struct Recording {
    path: PathBuf,
    file: BufReader<File>,
    heading: Heading,
    /// The line that was read last, counted from 1.
    line: u64,
    cut: bool,
    ended: bool,
}

/// One line of the file.
enum Line {
    /// All of it.
    Whole(Vec<u8>),
    /// The file ends in the middle of it.
    Cut,
    /// It is longer than any line of a recording.
    TooLong,
    /// The file has ended.
    End,
}

impl Recording {
    /// Opens a recording and reads its first line.
    ///
    /// # Errors
    /// [`CaptureError::Read`], [`CaptureError::NotOne`], [`CaptureError::Format`].
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let failed = |source| CaptureError::Read {
            path: path.into(),
            source,
        };
        let mut file = BufReader::new(File::open(path).map_err(failed)?);
        let not_one = || CaptureError::NotOne { path: path.into() };
        let heading: Heading = match read_line(&mut file).map_err(failed)? {
            Line::Whole(line) => serde_json::from_slice(&line).map_err(|_| not_one())?,
            Line::Cut | Line::TooLong | Line::End => return Err(not_one()),
        };
        if heading.format != FORMAT {
            return Err(CaptureError::Format {
                path: path.into(),
                found: heading.format,
                known: FORMAT,
            });
        }
        Ok(Self {
            path: path.into(),
            file,
            heading,
            line: 1,
            cut: false,
            ended: false,
        })
    }

    /// The first line.
    #[must_use]
    pub const fn heading(&self) -> &Heading {
        &self.heading
    }

    /// Whether the file ends in the middle of a line, as one does whose program died. Known once all has been read.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        self.cut
    }

    fn step(&mut self) -> Result<Option<Record>, CaptureError> {
        self.line += 1;
        let damaged = || CaptureError::Line {
            path: self.path.clone(),
            line: self.line,
        };
        let line = read_line(&mut self.file).map_err(|source| CaptureError::Read {
            path: self.path.clone(),
            source,
        })?;
        match line {
            Line::Whole(line) => record(&line).map(Some).ok_or_else(damaged),
            Line::TooLong => Err(damaged()),
            Line::Cut => {
                self.cut = true;
                Ok(None)
            }
            Line::End => Ok(None),
        }
    }
}

impl Iterator for Recording {
    type Item = Result<Record, CaptureError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.step().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

fn read_line(file: &mut BufReader<File>) -> std::io::Result<Line> {
    let mut line = Vec::new();
    let limit = u64::try_from(LONGEST_LINE).unwrap_or(u64::MAX);
    file.by_ref().take(limit).read_until(b'\n', &mut line)?;
    Ok(match line.last() {
        None => Line::End,
        Some(b'\n') => Line::Whole(line),
        Some(_) if line.len() == LONGEST_LINE => Line::TooLong,
        Some(_) => Line::Cut,
    })
}

fn record(line: &[u8]) -> Option<Record> {
    let written: Written = serde_json::from_slice(line).ok()?;
    let what = match (written.to, written.hex, written.baud, written.gone) {
        (Some(to), Some(hex), None, None) => {
            let bytes = hex::decode(hex).ok()?;
            if bytes.len() > PIECE {
                return None;
            }
            What::Bytes { to, bytes }
        }
        (None, None, Some(baud), None) => What::Baud(baud),
        (None, None, None, Some(gone)) => What::Gone(gone),
        _ => return None,
    };
    Some(Record {
        ms: written.ms,
        what,
    })
}
