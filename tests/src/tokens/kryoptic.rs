//! kryoptic: a database file for each token, listed in one configuration file. `cargo xtask setup` builds its library.

use std::path::PathBuf;
use std::process::Command;

use super::{Kind, PIN, SO_PIN, Scratch, tool};

/// Names the library where it is not in Cargo's target folder.
const LIBRARY: &str = "KEYFERRY_KRYOPTIC";

/// Its library, where it is built.
pub(super) fn module() -> Option<PathBuf> {
    let library = std::env::var_os(LIBRARY).map(PathBuf::from).or_else(|| {
        let test = std::env::current_exe().ok()?;
        // Tests lie in target/debug/deps.
        let folder = test.ancestors().nth(3)?.join("kryoptic/release");
        let (prefix, suffix) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
        Some(folder.join(format!("{prefix}keyferry_kryoptic{suffix}")))
    })?;
    library.is_file().then_some(library)
}

/// Its configuration file, the value of `KRYOPTIC_CONF`.
pub(super) fn configuration(scratch: &Scratch) -> PathBuf {
    scratch.path("kryoptic.toml")
}

/// Makes a token.
pub(super) fn add(scratch: &Scratch, label: &str) {
    let folder = scratch.path("kryoptic");
    std::fs::create_dir_all(&folder).expect("a folder for tokens");
    let slot = scratch.labels(Kind::Kryoptic).len();
    let mut text = std::fs::read_to_string(configuration(scratch)).unwrap_or_default();
    text += &format!(
        "[[slots]]\nslot = {slot}\ndbtype = \"sqlite\"\ndbargs = '{}'\n",
        folder.join(format!("{slot}.sql")).display()
    );
    std::fs::write(configuration(scratch), text).expect("kryoptic's configuration");

    // It comes without a tool of its own; OpenSC's takes any module.
    let pkcs11_tool = |arguments: &[&str]| {
        tool(
            Command::new("pkcs11-tool")
                .arg("--module")
                .arg(Kind::Kryoptic.module())
                .args(["--slot", &slot.to_string(), "--so-pin", SO_PIN])
                .args(arguments)
                .env("KRYOPTIC_CONF", configuration(scratch)),
        );
    };
    pkcs11_tool(&["--init-token", "--label", label]);
    pkcs11_tool(&["--login", "--login-type", "so", "--init-pin", "--pin", PIN]);
}
