//! SoftHSM 2: any number of tokens in one folder.

use std::path::PathBuf;
use std::process::Command;

use super::{Kind, PIN, SO_PIN, Scratch, first_of, tool};

/// Where systems put its library.
const MODULES: [&str; 8] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
];

/// Its library, where it is installed.
pub(super) fn module() -> Option<PathBuf> {
    first_of(&MODULES)
}

/// Its configuration file, the value of `SOFTHSM2_CONF`.
pub(super) fn configuration(scratch: &Scratch) -> PathBuf {
    scratch.path("softhsm2.conf")
}

/// Writes the configuration, also for a scratch without a SoftHSM token: nobody's own tokens may come into sight.
pub(super) fn prepare(scratch: &Scratch) {
    let tokens = scratch.path("softhsm");
    std::fs::create_dir(&tokens).expect("a folder for tokens");
    let text = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
        tokens.display()
    );
    std::fs::write(configuration(scratch), text).expect("SoftHSM's configuration");
}

/// Makes a token.
pub(super) fn add(scratch: &Scratch, label: &str) {
    tool(
        Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--label", label])
            .args(["--so-pin", SO_PIN, "--pin", PIN])
            .env("SOFTHSM2_CONF", configuration(scratch)),
    );
}

/// Puts an AES key that somebody else has made into a token.
pub(super) fn import_aes(scratch: &Scratch, token: &str, label: &str, key: &[u8]) {
    let path = scratch.path("import.key");
    std::fs::write(&path, key).expect("a key file");
    let kind = format!("AES:{}", key.len());
    tool(
        Command::new("pkcs11-tool")
            .arg("--module")
            .arg(Kind::SoftHsm.module())
            .args(["--token-label", token, "--login", "--pin", PIN])
            .arg("--write-object")
            .arg(&path)
            .args(["--type", "secrkey", "--key-type", &kind, "--label", label])
            .args(["--sensitive", "--extractable", "--usage-sign"])
            .envs(scratch.environment()),
    );
}

/// What SoftHSM writes of its tokens at each login, their state and a count of changes. It does not do that in one go: a process that is killed there
/// leaves half a file, and with it the token is lost. No hardware forgets its keys because a client goes.
pub struct Kept(Vec<(PathBuf, Vec<u8>)>);

impl Kept {
    pub(super) fn of(scratch: &Scratch) -> Self {
        let tokens = std::fs::read_dir(scratch.path("softhsm")).expect("a folder of tokens");
        let tokens = tokens.map(|token| token.expect("a token").path());
        let files =
            tokens.flat_map(|token| ["token.object", "generation"].map(|it| token.join(it)));
        let kept = files.map(|path| {
            let bytes = std::fs::read(&path).expect("a token's file");
            (path, bytes)
        });
        Self(kept.collect())
    }

    /// Puts it back after a process was killed.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn put_back(&self) {
        for (path, bytes) in &self.0 {
            std::fs::write(path, bytes).expect("a token's file");
        }
    }
}
