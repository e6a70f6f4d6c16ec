//! A device's folder: what makes it the same device at its next start.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use super::{Board, EmulateError};

/// The flash. What the device writes is here at once: the emulator maps it into the device's memory or writes through to it.
pub(crate) const FLASH: &str = "flash.bin";
/// The fuses: the emulated device's root key, 32 bytes.
pub(crate) const FUSE: &str = "fuse.bin";
/// The certificate of the vendor key, X.509 in DER. A device whose folder has one puts vouchers into its statements.
pub(crate) const VENDOR_CERTIFICATE: &str = "vendor.der";
/// The vendor key: a P-256 scalar, 32 bytes, big-endian.
pub(crate) const VENDOR_KEY: &str = "vendor.key";
/// The device's log, defmt frames as the firmware wrote them.
pub(crate) const LOG: &str = "defmt.bin";
/// What QEMU, or the board `native`, itself says in one start.
pub(crate) const OUTPUT: &str = "emulator.log";
/// What the device sent, where that is recorded.
pub(crate) const CAPTURE: &str = "uart.bin";
/// The serial port, where it is a Unix socket.
pub(crate) const SOCKET: &str = "uart.socket";

/// Length of the emulated fuses in bytes.
const FUSE_LENGTH: usize = 32;
/// How long the folder may still be locked after a device on it has ended.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// A device's logs, open for a start.
pub(crate) struct Logs {
    /// [`LOG`].
    pub(crate) device: File,
    /// [`OUTPUT`], locked. The emulator inherits the lock with the file, and so holds the folder exactly as long as it lives, even
    /// if the process that started it is gone.
    pub(crate) output: File,
}

/// Makes what is missing in the folder `dir` (an absolute path), and locks it.
pub(crate) fn prepare(dir: &Path, board: Board) -> Result<Logs, EmulateError> {
    fs::create_dir_all(dir).map_err(on(dir))?;
    let output = lock(dir)?;
    // Only what this start makes it say is of use.
    let path = dir.join(OUTPUT);
    output.set_len(0).map_err(on(&path))?;
    flash(dir, board)?;
    fuse(dir)?;
    let device = open_log(&dir.join(LOG))?;
    Ok(Logs { device, output })
}

/// Makes the folder of a fleet (an absolute path), and locks it by the log of the process that its devices are.
pub(crate) fn prepare_fleet(dir: &Path) -> Result<File, EmulateError> {
    fs::create_dir_all(dir).map_err(on(dir))?;
    let output = lock(dir)?;
    output.set_len(0).map_err(on(&dir.join(OUTPUT)))?;
    Ok(output)
}

/// Says which file an error belongs to.
pub(crate) fn on(path: &Path) -> impl FnOnce(io::Error) -> EmulateError {
    let path = path.to_owned();
    |source| EmulateError::File { path, source }
}

/// Opens a log to write at its end.
fn open_log(path: &Path) -> Result<File, EmulateError> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(on(path))
}

/// Opens the emulator's own log, and locks it.
fn lock(dir: &Path) -> Result<File, EmulateError> {
    let path = dir.join(OUTPUT);
    let log = open_log(&path)?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match log.try_lock() {
            Ok(()) => return Ok(log),
            // A child that some other thread is just starting may hold a copy of the lock until it runs its program.
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(EmulateError::InUse {
                    dir: dir.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(EmulateError::File { path, source }),
        }
    }
}

/// Makes the flash as it leaves the factory, unless there is one: what is flash erased, the rest a hole in the file.
fn flash(dir: &Path, board: Board) -> Result<(), EmulateError> {
    let path = dir.join(FLASH);
    match fs::metadata(&path) {
        Ok(found) if found.len() == board.flash_length() => Ok(()),
        Ok(found) => Err(EmulateError::FlashLength {
            path,
            found: found.len(),
            expected: board.flash_length(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let erased = vec![0xff; board.erased_length()];
            make(dir, &path, &erased, board.flash_length())
        }
        Err(source) => Err(EmulateError::File { path, source }),
    }
}

/// Burns the fuses, unless they are. What is in them protects nothing but an emulated device, which says so in its statement.
fn fuse(dir: &Path) -> Result<(), EmulateError> {
    let path = dir.join(FUSE);
    if path.try_exists().map_err(on(&path))? {
        // A fuse file of a wrong length is the device's to refuse.
        return Ok(());
    }
    let mut random = Zeroizing::new([0; FUSE_LENGTH]);
    getrandom::fill(random.as_mut_slice()).map_err(|error| EmulateError::File {
        path: path.clone(),
        source: error.into(),
    })?;
    make(dir, &path, random.as_slice(), FUSE_LENGTH as u64)
}

/// Makes a file of `length` bytes that begins with `content`, readable by its owner alone. It appears complete or not at all.
fn make(dir: &Path, path: &Path, content: &[u8], length: u64) -> Result<(), EmulateError> {
    let write = || {
        let mut file = NamedTempFile::new_in(dir)?;
        file.write_all(content)?;
        file.as_file().set_len(length)?;
        file.persist_noclobber(path)?;
        Ok(())
    };
    write().map_err(on(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_folder_gets_an_erased_flash_and_fuses_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (dir.path().join("one"), dir.path().join("other, with comma"));
        prepare(&one, Board::Mps2An386).unwrap();
        prepare(&other, Board::Mps2An386).unwrap();

        let flash = fs::read(one.join(FLASH)).unwrap();
        assert_eq!(flash.len(), 16 * 1024 * 1024);
        assert!(flash[..128 * 1024].iter().all(|byte| *byte == 0xff));

        let fuse = fs::read(one.join(FUSE)).unwrap();
        assert_eq!(fuse.len(), 32);
        assert_ne!(fuse, fs::read(other.join(FUSE)).unwrap());
    }

    #[test]
    fn a_native_flash_is_just_the_key_stores_area() {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path(), Board::Native).unwrap();
        let flash = fs::read(dir.path().join(FLASH)).unwrap();
        assert_eq!(flash, vec![0xff; 128 * 1024]);
    }

    #[test]
    fn all_of_a_cfi_flash_is_erased() {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path(), Board::RiscvVirt).unwrap();
        let flash = fs::read(dir.path().join(FLASH)).unwrap();
        assert_eq!(flash.len(), 32 * 1024 * 1024);
        assert!(flash.iter().all(|byte| *byte == 0xff));
    }

    #[test]
    fn a_folder_keeps_what_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        drop(prepare(dir.path(), Board::Mps2An386).unwrap());
        let fuse = fs::read(dir.path().join(FUSE)).unwrap();
        let mut flash = fs::read(dir.path().join(FLASH)).unwrap();
        flash[7] = 0x5a;
        fs::write(dir.path().join(FLASH), &flash).unwrap();

        drop(prepare(dir.path(), Board::Mps2An386).unwrap());
        assert_eq!(fs::read(dir.path().join(FUSE)).unwrap(), fuse);
        assert_eq!(fs::read(dir.path().join(FLASH)).unwrap(), flash);
    }

    #[test]
    fn a_folder_is_for_one_device_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = prepare(dir.path(), Board::Mps2An386).unwrap();
        assert!(matches!(
            prepare(dir.path(), Board::Mps2An386),
            Err(EmulateError::InUse { .. })
        ));
        drop(first);
        prepare(dir.path(), Board::Mps2An386).unwrap();
    }

    #[test]
    fn a_flash_of_a_wrong_length_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FLASH), b"something else").unwrap();
        assert!(matches!(
            prepare(dir.path(), Board::Mps2An386),
            Err(EmulateError::FlashLength { found: 14, .. })
        ));
        assert_eq!(fs::read(dir.path().join(FLASH)).unwrap(), b"something else");
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_may_read_the_fuses() {
        use std::os::unix::fs::PermissionsExt;

        let dir = tempfile::tempdir().unwrap();
        drop(prepare(dir.path(), Board::Mps2An386).unwrap());
        let mode = fs::metadata(dir.path().join(FUSE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o077, 0);
    }
}
