//! What stands for silicon: the host's files and its random device.

use std::fs::File;
use std::io::{ErrorKind, Read};

use keyferry_emulated::Host;
use keyferry_emulated::arguments::Path;
use keyferry_firmware::platform::SourceFailed;

/// The machine that this process runs on.
pub(crate) struct Machine;

impl Host for Machine {
    fn read_file(&mut self, path: &Path, out: &mut [u8]) -> Result<usize, SourceFailed> {
        // The arguments were text, see `Settings::read`.
        let path = path.as_c_str().to_str().map_err(|_| SourceFailed)?;
        let mut file = File::open(path).map_err(|_| SourceFailed)?;
        let length = fill(&mut file, out)?;
        // All of the room is taken: there may be more, and a part of a file is none.
        let more = length == out.len() && fill(&mut file, &mut [0])? > 0;
        (!more).then_some(length).ok_or(SourceFailed)
    }

    fn random(&mut self, out: &mut [u8]) -> Result<(), SourceFailed> {
        getrandom::fill(out).map_err(|_| SourceFailed)
    }
}

/// Reads until `out` is full or the file ends, straight into `out`: it may be a key.
fn fill(file: &mut File, out: &mut [u8]) -> Result<usize, SourceFailed> {
    let mut length = 0;
    while length < out.len() {
        match file.read(&mut out[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Err(SourceFailed),
        }
    }
    Ok(length)
}
