//! The station as an operator has it: plans, trays of devices, what is left when it is stopped.

#[cfg(unix)]
mod guide;
mod plans;
#[cfg(unix)]
mod stops;
mod tray;

use std::fs;
use std::path::{Path, PathBuf};

use keyferry_native::{Device, LineKind, Settings};
use keyferry_tests::command::Answer;
use keyferry_tests::tokens::Scratch;
use serde_json::Value;

/// A token with all that a plan needs, and books.
pub(crate) struct Plant {
    pub(crate) scratch: Scratch,
}

/// The keys of the plan: their number.
pub(crate) const KEYS: usize = 5;

impl Plant {
    pub(crate) fn new() -> Self {
        let scratch = Scratch::new("line");
        let create = |words: &[&str]| {
            scratch.done(["key", "create"].iter().chain(words));
        };
        create(&["--label", "authority", "--type", "p-256", "--usage", "sign"]);
        create(&["--label", "audit", "--type", "p-256", "--usage", "sign"]);
        create(&["--label", "keeper", "--type", "aes-256", "--usage", "keep"]);
        create(&[
            "--label",
            "fleet",
            "--type",
            "aes-128",
            "--usage",
            "sign,verify",
            "--extractable",
        ]);
        create(&[
            "--label",
            "telemetry",
            "--type",
            "hmac-256",
            "--usage",
            "sign,verify",
            "--extractable",
        ]);
        create(&[
            "--label",
            "tls",
            "--type",
            "p-256",
            "--usage",
            "sign",
            "--extractable",
        ]);
        scratch.done([
            "audit",
            "create",
            "line.audit",
            "--station",
            "line 7",
            "--authority",
            "authority",
            "--audit-key",
            "audit",
        ]);
        Self { scratch }
    }

    /// Writes a plan with five keys, and with these words behind it.
    pub(crate) fn plan(&self, more: &str) -> PathBuf {
        let path = self.scratch.path("plan.toml");
        let uri = self.scratch.uri();
        let text = format!(
            r#"
[station]
name = "five keys"
journal = "station.journal"
registry = "plant.db"
audit = "line.audit"
[hsm]
token = "{uri}"
authority = "authority"
audit-key = "audit"
keep-under = "keeper"
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
key = "fleet"
[[key]]
slot = 1
from = "token"
key = "telemetry"
[[key]]
slot = 2
from = "token"
key = "tls"
[[key]]
slot = 3
from = "fresh"
label = "own aes"
type = "aes-256"
use = "cmac"
[[key]]
slot = 4
from = "fresh"
label = "own identity"
type = "p-256"
use = "ecdsa"
{more}
"#
        );
        fs::write(&path, text).expect("a plan");
        path
    }

    /// Runs a plan on these ports, the nests being numbered.
    pub(crate) fn run(&self, plan: &Path, ports: &[&str], more: &[&str]) -> Answer {
        let mut command = self.scratch.command();
        command.args(["station", "run"]).arg(plan).args(more);
        for port in ports {
            command.args(["--port", port]);
        }
        Answer::of(command.arg("--json"))
    }

    /// The registry as it is exported.
    pub(crate) fn registry(&self) -> Vec<Value> {
        let out = self.scratch.path("registry.json");
        let _ = fs::remove_file(&out);
        let out = out.display().to_string();
        self.scratch.done([
            "registry",
            "export",
            "--registry",
            "plant.db",
            "--format",
            "json",
            "--out",
            &out,
        ]);
        let text = fs::read_to_string(out).expect("an export");
        serde_json::from_str(&text).expect("a JSON list")
    }

    /// What the audit log holds, once it is verified.
    pub(crate) fn audit(&self) -> Value {
        self.scratch.done(["audit", "verify", "line.audit"])
    }

    /// Whether registry and audit log say that each of so many devices has all keys, proved, once.
    pub(crate) fn assert_all_done(&self, devices: usize) {
        let registry = self.registry();
        assert_eq!(registry.len(), devices);
        for device in &registry {
            let slots = device["slots"].as_array().expect("slots");
            assert_eq!(slots.len(), KEYS, "{device}");
            for slot in slots {
                assert_eq!(slot["state"], "proved", "{device}");
                assert_eq!(slot["version"], 1, "{device}");
            }
        }
        let audit = self.audit();
        assert_eq!(audit["keys"]["open"], 0, "{audit}");
        assert_eq!(audit["open_orders"], 0, "{audit}");
        assert_eq!(audit["devices"], devices, "{audit}");
        assert_eq!(audit["keys"]["proved"], devices * KEYS, "{audit}");
    }
}

/// Devices of the board `native` in this process.
pub(crate) struct Fleet {
    folder: tempfile::TempDir,
}

impl Fleet {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { folder }
    }

    /// Starts the device with this number, on the flash that it had before.
    pub(crate) fn start(&self, number: u16) -> Device {
        let flash = self.folder.path().join(format!("flash-{number}"));
        if !flash.exists() {
            fs::write(&flash, vec![0xff; 128 * 1024]).expect("a flash file");
        }
        let fuse = self.folder.path().join(format!("fuse-{number}"));
        let mut fuses = [0x5a; 32];
        fuses[..2].copy_from_slice(&number.to_be_bytes());
        fs::write(&fuse, fuses).expect("a fuse file");
        let words = [format!("id={number:x}"), format!("fuse={}", fuse.display())];
        let settings = Settings::new(flash, LineKind::Tcp(0)).with(&[&words[0], &words[1]]);
        Device::start(settings).expect("the device starts")
    }

    /// Starts those with the numbers from 1 to `count`.
    pub(crate) fn start_all(&self, count: u16) -> Vec<Device> {
        (1..=count).map(|number| self.start(number)).collect()
    }
}

/// The outcome of each nest, from the events of a run.
pub(crate) fn ended(answer: &Answer) -> Vec<Value> {
    let lines = answer.json().into_iter();
    lines.filter(|line| line["event"] == "ended").collect()
}
