//! What drivers of flash say when they fail. The key store asks no more than whether it worked.

use embedded_storage::nor_flash::{NorFlashError, NorFlashErrorKind};

/// Why a flash operation did not happen, or stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlashError {
    /// Offset or length is not a multiple of what the operation works in.
    NotAligned,
    /// The range reaches beyond the area.
    OutOfBounds,
    /// A word was to get a bit set that is clear already: it has not been erased. Words before it are programmed.
    NotErased,
    /// The part reports a failure, does not come to an end, does not read as it was programmed or erased, or is not the one that the
    /// driver knows. Words before that are programmed or erased.
    Failed,
}

impl NorFlashError for FlashError {
    fn kind(&self) -> NorFlashErrorKind {
        match self {
            Self::NotAligned => NorFlashErrorKind::NotAligned,
            Self::OutOfBounds => NorFlashErrorKind::OutOfBounds,
            Self::NotErased | Self::Failed => NorFlashErrorKind::Other,
        }
    }
}

impl From<NorFlashErrorKind> for FlashError {
    fn from(kind: NorFlashErrorKind) -> Self {
        // What embedded-storage's checks of a range give is one of these two; the enum is not ours and may grow.
        if kind == NorFlashErrorKind::NotAligned {
            Self::NotAligned
        } else {
            Self::OutOfBounds
        }
    }
}
