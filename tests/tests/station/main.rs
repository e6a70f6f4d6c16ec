//! The station as an operator has it: plans, trays of devices, what is left when it is stopped.

#[cfg(unix)]
mod big_line;
#[cfg(unix)]
mod changed;
#[cfg(unix)]
mod ci;
#[cfg(unix)]
mod doubts;
#[cfg(unix)]
mod exports;
#[cfg(unix)]
mod guide;
#[cfg(unix)]
mod hook;
mod output;
mod plans;
#[cfg(unix)]
mod plant;
mod report;
mod rework;
#[cfg(unix)]
mod stops;
mod tray;
#[cfg(unix)]
mod visits;
#[cfg(unix)]
mod watch;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use keyferry_native::{Device, LineKind, Settings};
use keyferry_protocol::suite::Suite;
use keyferry_tests::command::Answer;
use keyferry_tests::openssl::{make_rsa, open_blob, openssl};
use keyferry_tests::tokens::Scratch;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// A token with all that a plan needs, and books.
pub(crate) struct Plant {
    pub(crate) scratch: Scratch,
    /// The backend's private key file.
    backend: String,
}

/// The keys of the plan: their number.
pub(crate) const KEYS: usize = 5;

/// Those of them that each device has of its own, and the backend gets.
pub(crate) const OWN: usize = 3;

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
            "--label", "master", "--type", "aes-256", "--usage", "derive",
        ]);
        create(&["--label", "manifests", "--type", "p-256", "--usage", "sign"]);
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
        let (backend, _) = make_rsa(&scratch, "backend", 2048);
        scratch.done([
            "key",
            "public",
            "--label",
            "manifests",
            "--out",
            "manifests.pem",
        ]);
        Self { scratch, backend }
    }

    /// The fingerprint of a public key file.
    fn fingerprint(&self, name: &str) -> String {
        let path = self.scratch.path(name).display().to_string();
        let der = openssl(&["pkey", "-pubin", "-in", &path, "-outform", "DER"], &[]);
        hex::encode(Sha256::digest(der))
    }

    /// The keys that the backend has, as whoever holds its private key reads them: device, slot and key of each.
    pub(crate) fn exported(&self) -> Vec<(String, u64, Vec<u8>)> {
        self.exported_in("exports")
    }

    /// As [`Plant::exported`], in this folder.
    pub(crate) fn exported_in(&self, folder: &str) -> Vec<(String, u64, Vec<u8>)> {
        let mut keys = Vec::new();
        let Ok(folders) = fs::read_dir(self.scratch.path(folder)) else {
            return keys;
        };
        for folder in folders {
            let folder = folder.expect("a folder").path();
            let verify = [
                "key",
                "verify-export",
                &folder.display().to_string(),
                "--signer",
                "manifests.pem",
                "--json",
            ]
            .map(str::to_owned);
            let answer = self.scratch.run(verify);
            assert_eq!(answer.code, 0, "{answer:?}");
            for key in answer.json().iter().filter(|line| line["file"].is_string()) {
                let blob =
                    fs::read(folder.join(key["file"].as_str().expect("a name"))).expect("a blob");
                let clear = open_blob(&self.scratch, Suite::RsaOaepSha1, &self.backend, &blob);
                let device = key["device"].as_str().expect("a device").to_owned();
                keys.push((device, key["slot"].as_u64().expect("a slot"), clear));
            }
        }
        keys
    }

    /// Writes a plan with five keys, and with these words behind it.
    pub(crate) fn plan(&self, more: &str) -> PathBuf {
        let path = self.scratch.path("plan.toml");
        let uri = self.scratch.uri();
        let fingerprint = self.fingerprint("backend.pem");
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
from = "master"
master = "master"
label = "own derived"
type = "aes-128"
use = "cmac"
export = true
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
export = true
[[key]]
slot = 4
from = "fresh"
label = "own identity"
type = "p-256"
use = "ecdsa"
export = true
[backend]
key = "backend.pem"
fingerprint = "{fingerprint}"
folder = "exports"
sign-with = "manifests"
allow-zero-tail = true
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
        self.registry_at("plant.db")
    }

    /// As [`Plant::registry`], wherever it is.
    pub(crate) fn registry_at(&self, name: &str) -> Vec<Value> {
        let out = self.scratch.path("registry.json");
        let _ = fs::remove_file(&out);
        let out = out.display().to_string();
        self.scratch.done([
            "registry",
            "export",
            "--registry",
            name,
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
        // The backend has each device's own keys, each once, and no two are the same.
        let exported = self.exported();
        assert_eq!(exported.len(), devices * OWN, "each key is exported once");
        let places: BTreeSet<_> = exported
            .iter()
            .map(|(device, slot, _)| (device, slot))
            .collect();
        let keys: BTreeSet<_> = exported.iter().map(|(.., key)| key).collect();
        assert_eq!((places.len(), keys.len()), (exported.len(), exported.len()));
        for device in &registry {
            let id = device["device"].as_str().expect("an id").to_owned();
            assert!(
                [1, 3, 4].iter().all(|slot| places.contains(&(&id, slot))),
                "{id}"
            );
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
        self.start_on(number, LineKind::Tcp(0))
    }

    /// As [`Self::start`], on such a line.
    pub(crate) fn start_on(&self, number: u16, line: LineKind) -> Device {
        let flash = self.flash(number);
        if !flash.exists() {
            fs::write(&flash, vec![0xff; 128 * 1024]).expect("a flash file");
        }
        let fuse = self.folder.path().join(format!("fuse-{number}"));
        let mut fuses = [0x5a; 32];
        fuses[..2].copy_from_slice(&number.to_be_bytes());
        fs::write(&fuse, fuses).expect("a fuse file");
        let words = [format!("id={number:x}"), format!("fuse={}", fuse.display())];
        let settings = Settings::new(flash, line).with(&[&words[0], &words[1]]);
        Device::start(settings).expect("the device starts")
    }

    /// The flash file of the device with this number.
    pub(crate) fn flash(&self, number: u16) -> PathBuf {
        self.folder.path().join(format!("flash-{number}"))
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
