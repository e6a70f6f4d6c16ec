//! The keys of devices, computed again with Python (pyca/cryptography) by whoever knows the master key: only a test does.

use std::io::Write as _;
use std::process::{Command, Stdio};

use keyferry::hsm::{DeviceContext, Diversification, KeyType};
use serde_json::json;

/// Computes the key of one device.
///
/// # Panics
/// If there is no such key, or Python or its library is missing.
#[must_use]
pub fn derive(
    way: Diversification,
    master: &[u8],
    context: &DeviceContext,
    key_type: KeyType,
) -> Vec<u8> {
    let (psa_type, bits) = match key_type {
        KeyType::Aes { bits } => (0x2400, bits),
        KeyType::Secret { bits } => (0x1100, bits),
        other => panic!("no key of type {other} is derived"),
    };
    let request = json!({
        "way": way.name(),
        "master": hex::encode(master),
        "device": context.device.to_string(),
        "slot": context.slot,
        "version": context.version,
        "psa_type": psa_type,
        "bits": bits,
    });
    let mut child = Command::new("/usr/bin/python3")
        // Nothing of the user's own Python.
        .args(["-I", concat!(env!("CARGO_MANIFEST_DIR"), "/src/derive.py")])
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
        "derive.py failed (is python3-cryptography there? run cargo xtask setup): {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).expect("text");
    hex::decode(text.trim()).expect("hexadecimal digits")
}
