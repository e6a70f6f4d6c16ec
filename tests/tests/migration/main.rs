//! Keys from one token to another, through the real command: every type, from every kind of token to every kind; one step at a
//! time, and by way of files.

mod cases;
mod files;
#[cfg(unix)]
mod guide;
mod matrix;

use std::process::Command;

use keyferry_tests::tokens::{Kind, PIN, Scratch};

/// Changes a token with a tool that is not ours.
fn tool(scratch: &Scratch, kind: Kind, token: &str, arguments: &[&str]) {
    let output = Command::new("pkcs11-tool")
        .arg("--module")
        .arg(kind.module())
        .args(["--token-label", token, "--login", "--pin", PIN])
        .args(arguments)
        .envs(scratch.environment())
        .output()
        .expect("pkcs11-tool is not installed: run cargo xtask setup");
    assert!(output.status.success(), "{output:?}");
}
