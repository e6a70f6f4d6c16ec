//! A SoftHSM token behind a module that fails on request (`tests/shim`).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::command::build;
use crate::tokens::{Kind, PIN, Scratch};

/// The module, built once from what is in the workspace now.
fn module() -> &'static Path {
    static MODULE: OnceLock<PathBuf> = OnceLock::new();
    MODULE.get_or_init(|| {
        build(&["-p", "keyferry-shim"], "keyferry_shim", |message| {
            &message["filenames"][0]
        })
    })
}

impl Scratch {
    /// The URI of the SoftHSM token with this label, through the module that fails.
    ///
    /// # Panics
    /// If there is none, or the module does not build.
    #[must_use]
    pub fn faulty_uri(&self, label: &str) -> String {
        let real = Kind::SoftHsm.module().display().to_string();
        let uri = self.uri_of(label);
        assert!(uri.contains(&real), "{label} is no SoftHSM token");
        uri.replace(&real, &module().display().to_string())
    }

    /// The command, with the first token as its default, and these faults; the words are those of `tests/shim/src/faults.rs`.
    ///
    /// # Panics
    /// If it does not build.
    #[must_use]
    pub fn faulty(&self, faults: &str, arguments: &[&str]) -> Command {
        let mut command = self.command();
        let label = self.first_label();
        command
            .env("KEYFERRY_TOKEN", self.faulty_uri(&label))
            .env("KEYFERRY_SHIM_MODULE", Kind::SoftHsm.module())
            .env("KEYFERRY_SHIM_FAULTS", faults)
            .env("KEYFERRY_SHIM_CALLS", self.path("calls"))
            .env("KEYFERRY_SHIM_PIN", PIN)
            .args(arguments);
        // What an earlier command has left.
        let _ = std::fs::remove_file(self.path("calls"));
        command
    }

    /// The functions that the last faulty command has called, in order; those that name no session are not counted.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        let calls = std::fs::read_to_string(self.path("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }
}
