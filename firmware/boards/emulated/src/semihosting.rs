//! The emulator's host, reached through semihosting: files, the random device, and the command line.

use core::mem::MaybeUninit;

use keyferry_firmware::platform::SourceFailed;
use semihosting::fs::File;
use semihosting::io::Read as _;
use semihosting::sys::arm_compat::sys_get_cmdline_uninit;

use crate::Host;
use crate::arguments::{Arguments, Path};

/// Longest command line in bytes, with the zero that ends it.
const LONGEST: usize = 512;

/// The emulator's host.
pub(crate) struct Semihosting;

impl Host for Semihosting {
    fn read_file(&mut self, path: &Path, out: &mut [u8]) -> Result<usize, SourceFailed> {
        let mut file = File::open(path.as_c_str()).map_err(|_| SourceFailed)?;
        let mut length = 0;
        while let Some(room) = out.get_mut(length..).filter(|room| !room.is_empty()) {
            match file.read(room).map_err(|_| SourceFailed)? {
                0 => return Ok(length),
                count => length += count,
            }
        }
        // All of the room is taken: there may be more, and a part of a file is none.
        match file.read(&mut [0]) {
            Ok(0) => Ok(length),
            Ok(_) | Err(_) => Err(SourceFailed),
        }
    }

    fn random(&mut self, out: &mut [u8]) -> Result<(), SourceFailed> {
        File::open(c"/dev/urandom")
            .and_then(|mut device| device.read_exact(out))
            .map_err(|_| SourceFailed)
    }
}

/// The emulator's command line. Where there is none, every part is missing.
pub(crate) fn arguments() -> Arguments {
    let mut buffer = [const { MaybeUninit::uninit() }; LONGEST];
    let line: &[u8] = match sys_get_cmdline_uninit(&mut buffer) {
        Ok(line) => line,
        Err(_) => &[],
    };
    Arguments::of(line.split(|byte| byte.is_ascii_whitespace() || *byte == 0))
}

/// The journal of the flash's operations, a file of the host. Where there is none, nothing is written down.
#[cfg(feature = "flash-faults")]
pub struct JournalFile(Option<File>);

#[cfg(feature = "flash-faults")]
impl JournalFile {
    /// Opens it, empty.
    pub fn open(path: Option<&Path>) -> Self {
        Self(path.and_then(|path| File::create(path.as_c_str()).ok()))
    }
}

#[cfg(feature = "flash-faults")]
impl crate::faults::Journal for JournalFile {
    fn note(&mut self, entry: [u8; crate::faults::ENTRY_LENGTH]) {
        use semihosting::io::Write as _;

        if let Some(file) = &mut self.0 {
            // What is missing in the file the test misses.
            let _ = file.write_all(&entry);
        }
    }

    fn halt(&mut self) {
        // Whoever reads the journal ends this.
        critical_section::with(|_| {
            loop {
                core::hint::spin_loop();
            }
        })
    }
}
