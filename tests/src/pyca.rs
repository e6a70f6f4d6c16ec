//! pyca/cryptography, in the system's own Python: another reading of the formats than OpenSSL's commands.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// The system's own Python, which has the system's package of the library.
const PYTHON: &str = "/usr/bin/python3";

/// Asks a script of this folder, with one JSON object on stdin, and gives the one it answers with.
///
/// # Errors
/// Its field `error`.
///
/// # Panics
/// If Python or its library is missing.
pub(crate) fn ask(script: &str, request: &Value) -> Result<Value, String> {
    let script = format!("{}/src/{script}", env!("CARGO_MANIFEST_DIR"));
    let mut child = Command::new(PYTHON)
        // Nothing of the user's own Python.
        .args(["-I", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("/usr/bin/python3 is not there: run cargo xtask setup");
    // If it is gone already, it has said why.
    let _ = child
        .stdin
        .take()
        .map(|mut stdin| stdin.write_all(request.to_string().as_bytes()));
    let output = child.wait_with_output().expect("Python ends");
    assert!(
        output.status.success(),
        "{script} failed (is python3-cryptography there? run cargo xtask setup): {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let answer: Value = serde_json::from_slice(&output.stdout).expect("a JSON object");
    match answer["error"].as_str() {
        Some(error) => Err(error.to_owned()),
        None => Ok(answer),
    }
}

/// Reads a certificate in DER, and verifies it with the key of its CA's certificate; gives what is in it.
///
/// # Errors
/// The name of the exception.
///
/// # Panics
/// If Python or its library is missing.
pub fn read_certificate(certificate: &[u8], ca: &[u8]) -> Result<Value, String> {
    let request = json!({ "certificate": hex::encode(certificate), "ca": hex::encode(ca) });
    ask("certificate.py", &request)
}
