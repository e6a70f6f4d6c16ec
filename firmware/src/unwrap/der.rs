//! A strict reader for the few DER forms a private key is made of (ITU-T X.690 §10). It borrows, never allocates, and
//! cannot panic on any input.

/// SEQUENCE.
pub(super) const SEQUENCE: u8 = 0x30;
/// INTEGER.
pub(super) const INTEGER: u8 = 0x02;
/// BIT STRING.
pub(super) const BIT_STRING: u8 = 0x03;
/// OCTET STRING.
pub(super) const OCTET_STRING: u8 = 0x04;
/// `[0]`, constructed.
pub(super) const CONTEXT_0: u8 = 0xa0;
/// `[1]`, constructed.
pub(super) const CONTEXT_1: u8 = 0xa1;
/// `[1]`, primitive.
pub(super) const CONTEXT_1_PRIMITIVE: u8 = 0x81;

/// Reads elements one after the other.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The contents of the next element, which must have this tag, and the shortest form of its length.
    pub(super) fn element(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (&found, rest) = self.0.split_first()?;
        if found != tag {
            return None;
        }
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81 => {
                let (&low, rest) = rest.split_first()?;
                if low < 0x80 {
                    return None;
                }
                (usize::from(low), rest)
            }
            0x82 => {
                let (length, rest) = rest.split_first_chunk::<2>()?;
                if length[0] == 0 {
                    return None;
                }
                (usize::from(u16::from_be_bytes(*length)), rest)
            }
            // Indefinite, reserved, or longer than any key.
            0x80 | 0x83..=0xff => return None,
        };
        let (contents, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(contents)
    }

    /// Like [`Self::element`], for an element that may be absent.
    pub(super) fn optional(&mut self, tag: u8) -> Option<Option<&'a [u8]>> {
        if self.0.first() == Some(&tag) {
            self.element(tag).map(Some)
        } else {
            Some(None)
        }
    }

    /// The next INTEGER, not negative, in its shortest form; big-endian without the sign byte.
    #[cfg(feature = "rsa-keys")]
    pub(super) fn unsigned(&mut self) -> Option<&'a [u8]> {
        match self.element(INTEGER)? {
            [] | [0x80..=0xff, ..] | [0, 0..=0x7f, ..] => None,
            [0, rest @ ..] if !rest.is_empty() => Some(rest),
            number => Some(number),
        }
    }

    /// How many bytes are still to be read.
    pub(super) const fn remaining(&self) -> usize {
        self.0.len()
    }

    /// Something only if everything has been read.
    pub(super) fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}
