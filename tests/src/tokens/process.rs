//! Tests that call a token's library themselves, each in a process of its own.

use std::path::PathBuf;
use std::process::Command;

use super::{Kind, Scratch};

/// Set in a process that a test started for itself: the scratch folder.
const FOLDER: &str = "KEYFERRY_TEST_INSIDE";
/// Set there too: the tokens it was started for.
const TOKENS: &str = "KEYFERRY_TEST_TOKENS";
/// Name of a file in the scratch folder: see [`in_own_process_with_faults`].
pub const LOSE: &str = "lose";
/// The file by which that process says that it did something.
const RAN: &str = "ran";

/// Runs `body` in a process of its own whose SoftHSM has one scratch token with this label; see [`in_own_process_with`].
///
/// # Panics
/// If that process fails.
pub fn in_own_process(test: &str, label: &str, body: impl FnOnce(&Scratch)) {
    in_own_process_with(test, &[(Kind::SoftHsm, label)], body);
}

/// Runs `body` in a process of its own that sees these scratch tokens. Call it first thing in the test named `test`: the first
/// time it starts this test executable again for that test alone, there it runs `body`. A test may call it several times, for
/// other tokens each time; each call has its process.
///
/// # Panics
/// If that process fails, or does not come to run `body`.
pub fn in_own_process_with(test: &str, tokens: &[(Kind, &str)], body: impl FnOnce(&Scratch)) {
    own_process(test, tokens, |_| Vec::new(), body);
}

/// As [`in_own_process`], for a test that opens the token by [`Scratch::faulty_uri`], with these faults. All sessions are lost as well each time
/// that the test has made the file [`LOSE`].
///
/// # Panics
/// As [`in_own_process`].
pub fn in_own_process_with_faults(
    test: &str,
    label: &str,
    faults: &str,
    body: impl FnOnce(&Scratch),
) {
    let variables = |scratch: &Scratch| {
        vec![
            ("KEYFERRY_SHIM_MODULE", Kind::SoftHsm.module()),
            ("KEYFERRY_SHIM_FAULTS", faults.into()),
            ("KEYFERRY_SHIM_LOSE", scratch.path(LOSE)),
        ]
    };
    own_process(test, &[(Kind::SoftHsm, label)], variables, body);
}

fn own_process(
    test: &str,
    tokens: &[(Kind, &str)],
    variables: impl FnOnce(&Scratch) -> Vec<(&'static str, PathBuf)>,
    body: impl FnOnce(&Scratch),
) {
    let wanted = format!("{tokens:?}");
    if let Some(folder) = std::env::var_os(FOLDER) {
        if std::env::var(TOKENS).is_ok_and(|tokens| tokens == wanted) {
            // The outer process owns the folder and removes it.
            let scratch = Scratch::borrowed(folder.into());
            body(&scratch);
            std::fs::write(scratch.path(RAN), "").expect("a file in the scratch folder");
        }
        return;
    }
    let scratch = Scratch::with(tokens);
    let executable = std::env::current_exe().expect("the test executable");
    let output = Command::new(executable)
        .args(["--exact", test, "--nocapture"])
        .envs(scratch.environment())
        .envs(variables(&scratch))
        .env(FOLDER, &scratch.folder)
        .env(TOKENS, wanted)
        .env_remove("KEYFERRY_TOKEN")
        .env_remove("KEYFERRY_PIN")
        .output()
        .expect("the test executable starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed") && scratch.path(RAN).exists(),
        "{tokens:?}: {said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
