//! NSS's softokn: a folder with a database for each token.
//!
//! It takes its configuration only from the reserved argument of `C_Initialize`. With `tokens=<…>` there it opens several
//! databases, in slots that are numbered by the caller. All of them have the same serial number, sixteen zeros.

use std::path::PathBuf;
use std::process::Command;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Kind, Scratch, first_of, tool};

/// Where systems put its library.
const MODULES: [&str; 6] = [
    "/usr/lib/x86_64-linux-gnu/libsoftokn3.so",
    "/usr/lib/aarch64-linux-gnu/libsoftokn3.so",
    "/usr/lib/x86_64-linux-gnu/nss/libsoftokn3.so",
    "/usr/lib64/libsoftokn3.so",
    "/usr/local/opt/nss/lib/libsoftokn3.dylib",
    "/opt/homebrew/opt/nss/lib/libsoftokn3.dylib",
];

/// How often the password is hashed (PBKDF2) before a key on the token can be used, 10 000 times by default. It is several
/// milliseconds at each use, for nothing: the scratch password is no secret. Each key keeps the number it was made with.
pub(super) const ITERATIONS: (&str, &str) = ("NSS_MAX_MP_PBE_ITERATION_COUNT", "1");

/// The first slot number that softokn leaves to its callers.
const FIRST_SLOT: usize = 4;

/// Its library, where it is installed.
pub(super) fn module() -> Option<PathBuf> {
    first_of(&MODULES)
}

/// Makes a token.
pub(super) fn add(scratch: &Scratch, label: &str) {
    let folder = folder(scratch, label);
    std::fs::create_dir_all(&folder).expect("a folder for the database");
    tool(
        Command::new("certutil")
            .args(["-N", "-d", &format!("sql:{}", folder.display()), "-f"])
            .arg(scratch.pin_file())
            .env(ITERATIONS.0, ITERATIONS.1),
    );
}

/// The reserved argument of `C_Initialize` that opens every NSS token of the scratch folder, percent-encoded.
pub(super) fn reserved(scratch: &Scratch) -> String {
    let labels = scratch.labels(Kind::Nss);
    let tokens: Vec<_> = labels
        .iter()
        .zip(FIRST_SLOT..)
        .map(|(label, slot)| {
            let folder = folder(scratch, label);
            let folder = folder.display();
            format!("{slot:#x}=[configdir='sql:{folder}' tokenDescription='{label}']")
        })
        .collect();
    let main = labels.first().expect("an NSS token");
    let reserved = format!(
        "configdir='sql:{}' certPrefix='' keyPrefix='' secmod='secmod.db' flags= tokens=<{}>",
        folder(scratch, main).display(),
        tokens.join(" ")
    );
    utf8_percent_encode(&reserved, NON_ALPHANUMERIC).to_string()
}

fn folder(scratch: &Scratch, label: &str) -> PathBuf {
    scratch.path("nss").join(label)
}
