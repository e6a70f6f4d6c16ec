//! What an emulated chip borrows from the machine that it runs on, in place of silicon.

use keyferry_firmware::platform::SourceFailed;

use crate::arguments::Path;

/// The machine that runs the emulated device.
pub trait Host {
    /// Reads a file into the front of `out`, and gives its length in bytes.
    ///
    /// # Errors
    /// [`SourceFailed`] if it cannot be read, or is longer than `out`.
    fn read_file(&mut self, path: &Path, out: &mut [u8]) -> Result<usize, SourceFailed>;

    /// Fills `out` from the machine's random device.
    ///
    /// # Errors
    /// [`SourceFailed`] if there is none, or it gives too little.
    fn random(&mut self, out: &mut [u8]) -> Result<(), SourceFailed>;

    /// Fills `out` from a file of just this length.
    ///
    /// # Errors
    /// As [`Self::read_file`], or if the file is shorter.
    fn read_whole(&mut self, path: &Path, out: &mut [u8]) -> Result<(), SourceFailed> {
        let length = self.read_file(path, out)?;
        (length == out.len()).then_some(()).ok_or(SourceFailed)
    }
}
