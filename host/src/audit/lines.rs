//! The lines of a file, one at a time: whatever its name stands for, no more than one line is held.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use super::record::MAXIMUM_LINE;

/// A line of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// A whole one, without its newline.
    Whole(&'a [u8]),
    /// The file ended before its newline.
    Unfinished(&'a [u8]),
    /// It is longer than any line may be; the rest of it was not read.
    TooLong,
}

/// Reads a file line by line.
#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: R,
    buffer: Vec<u8>,
}

impl Lines<BufReader<File>> {
    pub(super) fn of_file(file: File) -> Self {
        Self::new(BufReader::with_capacity(1 << 16, file))
    }
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader,
            buffer: Vec::new(),
        }
    }

    /// The next line; nothing at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.buffer.clear();
        // One byte for the newline, and one that tells that there is more.
        let limit = MAXIMUM_LINE as u64 + 2;
        let read = (&mut self.reader)
            .take(limit)
            .read_until(b'\n', &mut self.buffer)?;
        Ok(match self.buffer.strip_suffix(b"\n") {
            Some(line) if line.len() <= MAXIMUM_LINE => Some(Line::Whole(line)),
            Some(_) => Some(Line::TooLong),
            None if read == 0 => None,
            None if self.buffer.len() <= MAXIMUM_LINE => Some(Line::Unfinished(&self.buffer)),
            None => Some(Line::TooLong),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_newlines_is_not_read_into_memory() {
        let endless = BufReader::new(io::repeat(b'x'));
        let mut lines = Lines::new(endless);
        assert_eq!(lines.next().unwrap(), Some(Line::TooLong));
        assert!(lines.buffer.capacity() < 4 * MAXIMUM_LINE);
    }

    #[test]
    fn lines_have_a_newline_and_a_longest_length() {
        let longest = vec![b'x'; MAXIMUM_LINE];
        let mut file = b"a\n\n".to_vec();
        file.extend(&longest);
        file.extend(b"\nrest");
        let mut lines = Lines::new(&file[..]);
        assert_eq!(lines.next().unwrap(), Some(Line::Whole(b"a")));
        assert_eq!(lines.next().unwrap(), Some(Line::Whole(b"")));
        assert_eq!(lines.next().unwrap(), Some(Line::Whole(&longest)));
        assert_eq!(lines.next().unwrap(), Some(Line::Unfinished(b"rest")));
        assert_eq!(lines.next().unwrap(), None);
    }
}
