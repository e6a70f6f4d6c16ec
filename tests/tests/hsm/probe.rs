//! `keyferry hsm probe` tells what each kind of token really does, and leaves it as it was.

use std::collections::BTreeMap;

use keyferry::hsm::{Fact, HsmError, KeySpec};
use keyferry_protocol::suite::Suite;
use keyferry_tests::command::Answer;
use keyferry_tests::openssl::{make_p256, make_rsa};
use keyferry_tests::tokens::{Kind, Scratch, in_own_process_with};
use serde_json::Value;

use crate::{key, open, public_key};

/// What is found with each kind of token, in the order SoftHSM 2.6.1, NSS 3.87, kryoptic 1.5.4: `yes`, or the code of the refusal,
/// or the name of the difference. Key types stand at the end.
const EXPECTED: [(&str, [&str; 3]); 50] = [
    ("oaep-sha256", ["CKR_ARGUMENTS_BAD", "yes", "yes"]),
    ("oaep-sha1", ["yes", "yes", "yes"]),
    ("single-step-sha256", [MECHANISM; 3]),
    ("single-step-sha1", [MECHANISM; 3]),
    ("ecdh-x963-sha256", [PARAMETER, "yes", "yes"]),
    ("ecdh-null", ["yes", "yes", "yes"]),
    ("kwp-aes", [MECHANISM, "yes", "yes"]),
    ("kwp-secret", [MECHANISM, "yes", "yes"]),
    ("kwp-private", [MECHANISM, "yes", "yes"]),
    ("pad-aes", ["yes", "pkcs7", MECHANISM]),
    ("pad-secret", ["zero-tail", "pkcs7", MECHANISM]),
    ("pad-private", ["zero-tail", "pkcs7", MECHANISM]),
    ("leading-zeros", ["yes", "yes", "short-scalar"]),
    ("leading-zeros-unwrapped", ["yes", "yes", "yes"]),
    ("open-oaep-sha256", ["CKR_ARGUMENTS_BAD", "yes", "yes"]),
    ("open-oaep-sha1", ["yes", "yes", "yes"]),
    ("unwrap-aes", ["yes", "yes", "yes"]),
    ("unwrap-secret", ["yes", "yes", "yes"]),
    ("unwrap-private", ["yes", "yes", "yes"]),
    ("unwrap-zero-tail", ["yes", "yes", "yes"]),
    (
        "unwrap-with-length",
        ["CKR_ATTRIBUTE_READ_ONLY", "yes", "yes"],
    ),
    ("unwrapped-length", ["not-told", "yes", "yes"]),
    ("ecdsa-p256", ["yes", "yes", "yes"]),
    ("ecdsa-p256-sha256", [MECHANISM, "yes", "yes"]),
    ("ecdsa-p384", ["yes", "yes", "yes"]),
    ("ed25519", ["yes", MECHANISM, MECHANISM]),
    ("rsa-pkcs1-sha256", ["yes", "yes", "yes"]),
    ("rsa-pss-sha256", ["yes", "yes", "yes"]),
    ("aes-cmac", ["yes", "yes", "yes"]),
    ("aes-cmac-verify", ["yes", MECHANISM, "yes"]),
    ("hmac-sha256", ["yes", "yes", "yes"]),
    ("hmac-sha256-verify", ["yes", "odd-refusal", "yes"]),
    ("hmac-sha256-aes", [KEY_TYPE, "yes", KEY_TYPE]),
    ("check-value", ["yes", "there is none", "there is none"]),
    ("keeps-secret", ["yes", "gave-it-away", "yes"]),
    ("keeps-private", ["yes", "gave-it-away", "yes"]),
    ("keeps-trusted", ["yes", "gave-it-away", "yes"]),
    ("sp800-108-counter", [MECHANISM, "yes", "yes"]),
    ("aes-ecb-encrypt-data", ["yes", "yes", "yes"]),
    ("key-aes-128", ["yes", "yes", "yes"]),
    ("key-aes-192", ["yes", "yes", "yes"]),
    ("key-aes-256", ["yes", "yes", "yes"]),
    ("key-hmac-256", ["yes", "yes", "yes"]),
    ("key-rsa-2048", ["zero-tail", "yes", "yes"]),
    ("key-rsa-3072", ["claimed", "claimed", "claimed"]),
    ("key-rsa-4096", ["claimed", "claimed", "claimed"]),
    ("key-p-256", ["zero-tail", "yes", "yes"]),
    ("key-p-384", ["yes", "yes", "yes"]),
    (
        "key-ed25519",
        ["CKR_KEY_NOT_WRAPPABLE", MECHANISM, MECHANISM],
    ),
    // Filled in by a row of its own so that the table's length is checked by the compiler and the loop below.
    ("", ["", "", ""]),
];

const MECHANISM: &str = "CKR_MECHANISM_INVALID";
const PARAMETER: &str = "CKR_MECHANISM_PARAM_INVALID";
const KEY_TYPE: &str = "CKR_KEY_TYPE_INCONSISTENT";
