//! SoftHSM 2: any number of tokens in one folder.

use std::path::PathBuf;
use std::process::Command;

use super::{PIN, SO_PIN, Scratch, first_of, tool};

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
