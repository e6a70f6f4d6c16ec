//! What can be done to a running emulated device from outside.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ChildStdin;

use serde_json::json;

use super::folder::on;
use super::monitor::Monitor;
use super::{EmulateError, MonitorError};

/// The way to the emulator.
pub(crate) enum Control {
    /// QEMU's monitor.
    Machine(Machine),
    /// The standard input of the board `native`.
    Native(ChildStdin),
}

impl Control {
    /// Resets the device.
    pub(crate) fn reset(&mut self) -> Result<(), EmulateError> {
        match self {
            Self::Machine(machine) => {
                machine.monitor.execute("system_reset", json!({}))?;
            }
            Self::Native(input) => {
                let connection = |source| MonitorError::Connection {
                    command: "reset",
                    source,
                };
                input.write_all(b"reset\n").map_err(connection)?;
            }
        }
        Ok(())
    }
}

/// A machine that QEMU emulates: it can be frozen, and looked into.
pub struct Machine {
    monitor: Monitor,
}

impl Machine {
    pub(crate) const fn new(monitor: Monitor) -> Self {
        Self { monitor }
    }

    /// Freezes the device, its clock included.
    ///
    /// # Errors
    /// [`EmulateError::Monitor`].
    pub fn stop(&mut self) -> Result<(), EmulateError> {
        self.monitor.execute("stop", json!({}))?;
        Ok(())
    }

    /// Lets a frozen device go on.
    ///
    /// # Errors
    /// [`EmulateError::Monitor`].
    pub fn cont(&mut self) -> Result<(), EmulateError> {
        self.monitor.execute("cont", json!({}))?;
        Ok(())
    }

    /// Writes `length` bytes of the device's memory from `address` on to the file `path`. The device is frozen meanwhile, so
    /// that the copy is of one moment. [`super::QemuBoard::ram`] says where its RAM is.
    ///
    /// # Errors
    /// [`EmulateError::Monitor`] if QEMU cannot write the file or there is no such memory, [`EmulateError::File`] if the path
    /// is not UTF-8.
    pub fn dump_memory(
        &mut self,
        address: u32,
        length: u32,
        path: &Path,
    ) -> Result<(), EmulateError> {
        // QEMU works in the device's folder.
        let path = std::path::absolute(path).map_err(on(path))?;
        let name = path
            .to_str()
            .ok_or_else(|| on(&path)(io::ErrorKind::InvalidFilename.into()))?;
        let was_running = self.monitor.execute("query-status", json!({}))?["running"] == true;
        self.stop()?;
        let saved = self.monitor.execute(
            "pmemsave",
            json!({ "val": address, "size": length, "filename": name }),
        );
        if was_running {
            self.cont()?;
        }
        saved?;
        Ok(())
    }
}
