//! Who has a port that is busy, for the message. On Linux `/proc` tells (proc(5)); elsewhere nobody is asked.
//!
//! This is help, never a decision: whoever had the port may have let go of it since.

use std::fmt;

/// A process that has a port open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its id.
    pub process: u32,
    /// Its name, without control characters; empty if it is not known.
    pub program: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.process == std::process::id() {
            return f.write_str("this program itself");
        }
        match self.program.as_str() {
            "" => write!(f, "process {}", self.process),
            program => write!(f, "{program} (process {})", self.process),
        }
    }
}

/// Looks for the process that has the device at `path` open. Whoever locked it comes first: others may only keep it alive.
#[cfg(target_os = "linux")]
pub(super) fn find(path: &std::path::Path) -> Option<Holder> {
    let process = locker(path).or_else(|| opener(path))?;
    Some(Holder {
        process,
        program: program(process),
    })
}

/// Nobody can be asked.
#[cfg(not(target_os = "linux"))]
pub(super) fn find(_path: &std::path::Path) -> Option<Holder> {
    None
}

/// The process with a lock on the whole device. A line of `/proc/locks`: number, FLOCK, ADVISORY, WRITE, process,
/// major:minor:inode (the first two in hexadecimal), range.
#[cfg(target_os = "linux")]
fn locker(path: &std::path::Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;

    use nix::sys::stat::{major, minor};

    let device = std::fs::metadata(path).ok()?;
    let (major, minor) = (major(device.dev()), minor(device.dev()));
    let inode = format!("{major:02x}:{minor:02x}:{}", device.ino());
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find_map(|words| match words[..] {
            [_, "FLOCK", _, _, process, locked, ..] if locked == inode => process.parse().ok(),
            _ => None,
        })
        // Of a process that is out of sight, in another container, the kernel tells 0.
        .filter(|process| *process != 0)
}

/// A process that has the device open. Those of other users cannot be looked into, except by root.
#[cfg(target_os = "linux")]
fn opener(path: &std::path::Path) -> Option<u32> {
    let path = path.canonicalize().ok()?;
    let processes = std::fs::read_dir("/proc").ok()?;
    processes
        .filter_map(Result::ok)
        .filter_map(|process| process.file_name().to_str()?.parse().ok())
        .find(|process: &u32| {
            std::fs::read_dir(format!("/proc/{process}/fd")).is_ok_and(|files| {
                files
                    .filter_map(Result::ok)
                    .any(|file| std::fs::read_link(file.path()).is_ok_and(|open| open == path))
            })
        })
}

/// The name of a process's program.
#[cfg(target_os = "linux")]
fn program(process: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    name.trim_end().replace(char::is_control, "?")
}
