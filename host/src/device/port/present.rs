//! Who is plugged in: which ports there are, and what tells one plugging from the next.
//!
//! A serial adapter's name comes and goes with it, and so does a Unix socket's with a careful server. Whether anybody listens at a TCP port
//! is not to be seen without a call.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use serial2::SerialPort;

/// What is behind a port's name. It is another when something else was plugged in since, as far as the system tells.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mark {
    /// The device itself, where the name is a link to it.
    pub real: PathBuf,
    /// Whether it is something that a port may be: a character device or a socket.
    pub is_port: bool,
    /// Whether it is a socket.
    pub is_socket: bool,
    /// Inodes of the name and of the device: a new node has another one, mostly.
    nodes: [u64; 2],
}

/// A look at the system's ports.
#[derive(Debug, Default)]
pub struct Look {
    listed: OnceCell<Vec<PathBuf>>,
}

impl Look {
    /// The serial ports that the system lists, as they were when this was first asked for. One that lists none has none.
    #[must_use]
    pub fn listed(&self) -> &[PathBuf] {
        self.listed
            .get_or_init(|| SerialPort::available_ports().unwrap_or_default())
    }

    /// What is at this path; none if there is nothing.
    #[cfg(unix)]
    #[must_use]
    pub fn at(&self, path: &Path) -> Option<Mark> {
        use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

        let name = path.symlink_metadata().ok()?;
        let real = path.canonicalize().ok()?;
        let device = real.metadata().ok()?;
        let is_socket = device.file_type().is_socket();
        Some(Mark {
            real,
            is_port: is_socket || device.file_type().is_char_device(),
            is_socket,
            nodes: [name.ino(), device.ino()],
        })
    }

    /// What is at this path; none if there is nothing.
    #[cfg(not(unix))]
    #[must_use]
    pub fn at(&self, path: &Path) -> Option<Mark> {
        let wanted = path.as_os_str();
        let mut listed = self.listed().iter();
        let found = listed.find(|it| it.as_os_str().eq_ignore_ascii_case(wanted))?;
        Some(Mark {
            real: found.clone(),
            is_port: true,
            is_socket: false,
            nodes: [0; 2],
        })
    }
}
