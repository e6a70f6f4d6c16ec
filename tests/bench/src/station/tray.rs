//! Blank devices, a plan for them, and one run of it.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use keyferry_native::{Device, LineKind, Settings};
use keyferry_tests::line::{self, Faults, Proxy};
use keyferry_tests::tokens::Scratch;
use rusqlite::Connection;
use tempfile::TempDir;

use super::child::{Ran, Spent, run_command};
use super::{AUDITOR, AUTHORITY, KEY};

/// Where no device is ever.
const NOWHERE: &str = "/dev/keyferry-no-such-port";

/// A station with new books, and devices that have never seen one.
pub(super) struct Tray {
    folder: TempDir,
}

impl Tray {
    pub(super) fn new(token: &Scratch) -> Result<Self> {
        let tray = Self {
            folder: TempDir::new()?,
        };
        let create = [
            "audit",
            "create",
            &tray.path("line.audit"),
            "--token",
            &token.uri(),
            "--station",
            "bench",
            "--authority",
            AUTHORITY,
            "--audit-key",
            AUDITOR,
        ];
        run_command(token, &[], &create)?.done()?;
        Ok(tray)
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// A run with one port, where nothing is.
    ///
    /// # Errors
    /// If it finds something.
    pub(super) fn without_devices(&self, token: &Scratch, uri: &str) -> Result<Spent> {
        let ran = self.run(token, uri, &[], 1, &[NOWHERE])?;
        let error = ran.last["error"].as_str().unwrap_or_default();
        ensure!(error.contains("1 of 1 devices"), "{}", ran.last);
        Ok(ran.spent)
    }

    /// A run with so many devices on lines without a rate.
    ///
    /// # Errors
    /// If one of them is not done.
    pub(super) fn fast(&self, token: &Scratch, uri: &str, count: u16) -> Result<Spent> {
        let devices = self.devices(count)?;
        let ports: Vec<_> = devices.iter().map(Device::port).collect();
        self.all_done(token, uri, &[], 64, &ports)
    }

    /// A run with so many devices on lines of `baud`, `ports` of them at a time.
    ///
    /// # Errors
    /// If one of them is not done.
    pub(super) fn paced(
        &self,
        token: &Scratch,
        uri: &str,
        variables: &[(&str, String)],
        baud: u32,
        [ports, count]: [u16; 2],
    ) -> Result<Spent> {
        let devices = self.devices(count)?;
        let settings = line::Settings::real_time(baud, Faults::default(), 0);
        let lay = |device: &Device| Ok(Proxy::start(device.port(), &settings)?);
        let lines: Vec<Proxy> = devices.iter().map(lay).collect::<Result<_>>()?;
        let ends: Vec<_> = lines.iter().map(Proxy::path).collect();
        self.all_done(token, uri, variables, ports, &ends)
    }

    /// Starts blank devices.
    fn devices(&self, count: u16) -> Result<Vec<Device>> {
        let start = |number| device(self.folder.path(), number);
        (1..=count).map(start).collect()
    }

    fn all_done(
        &self,
        token: &Scratch,
        uri: &str,
        variables: &[(&str, String)],
        at_once: u16,
        ports: &[&str],
    ) -> Result<Spent> {
        let ran = self.run(token, uri, variables, at_once, ports)?.done()?;
        let proved = ran.last["keys_proved"].as_u64();
        ensure!(proved == Some(ports.len() as u64), "{}", ran.last);
        // A run that does not wait for the disk would be quick for the wrong reason. `synchronous` is each connection's own: a station refuses
        // a file where it is not FULL.
        for name in ["station.journal", "plant.db"] {
            let path = self.path(name);
            let connection = Connection::open(&path)?;
            let mode = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0));
            let mode: String = mode.with_context(|| path.clone())?;
            ensure!(mode == "wal", "{path}: {mode}");
        }
        Ok(ran.spent)
    }

    fn run(
        &self,
        token: &Scratch,
        uri: &str,
        variables: &[(&str, String)],
        at_once: u16,
        ports: &[&str],
    ) -> Result<Ran> {
        let plan = self.path("plan.toml");
        fs::write(&plan, words(uri, at_once))?;
        let mut arguments = vec!["station", "run", &plan];
        for port in ports {
            arguments.extend(["--port", port]);
        }
        run_command(token, variables, &arguments)
    }
}

/// A blank device on a pseudo-terminal.
fn device(folder: &Path, number: u16) -> Result<Device> {
    let flash = folder.join(format!("flash-{number}"));
    fs::write(&flash, vec![0xff; 128 * 1024])?;
    let fuse = folder.join(format!("fuse-{number}"));
    let mut fuses = [0x5a; 32];
    fuses[..2].copy_from_slice(&number.to_be_bytes());
    fs::write(&fuse, fuses)?;
    let words = [format!("id={number:x}"), format!("fuse={}", fuse.display())];
    let settings = Settings::new(flash, LineKind::default()).with(&[&words[0], &words[1]]);
    Ok(Device::start(settings)?)
}

/// The plan: one key, the same for all, proved.
fn words(uri: &str, at_once: u16) -> String {
    format!(
        r#"
[station]
name = "bench"
journal = "station.journal"
registry = "plant.db"
audit = "line.audit"
[hsm]
token = "{uri}"
authority = "{AUTHORITY}"
audit-key = "{AUDITOR}"
[devices]
allow-test-devices = true
[enrolment]
policy = "open"
unwrap = "p-256"
[visit]
policy = "registry"
[order]
minimum-proof = "challenge"
[[key]]
slot = 0
from = "token"
key = "{KEY}"
[limits]
at-once = {at_once}
"#
    )
}
