//! Guides: documents whose shell commands are run as they stand there. For systems that have a shell.

use std::path::Path;
use std::process::Command;

use crate::command::binary;
use crate::tokens::Scratch;

/// Runs every block of shell commands of a document in its order, in the scratch folder, with these variables.
///
/// # Panics
/// If the document has no such blocks, or one of them fails.
pub fn run(document: &str, scratch: &Scratch, variables: &[(&str, String)]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(document);
    let text = std::fs::read_to_string(path).expect("the document is there");
    let blocks: Vec<_> = text
        .split("\n```sh\n")
        .skip(1)
        .map(|rest| rest.split_once("\n```").expect("the block ends").0)
        .collect();
    assert!(blocks.len() >= 4, "{blocks:?}");
    let folder = binary().parent().expect("a file has a folder");
    let search = std::env::var("PATH").expect("a search path");
    for block in blocks {
        let output = Command::new("sh")
            .args(["-e", "-u", "-c", block])
            .current_dir(scratch.path(""))
            .envs(scratch.environment())
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .env("PATH", format!("{}:{search}", folder.display()))
            .env_remove("KEYFERRY_TOKEN")
            .env_remove("KEYFERRY_PIN")
            .output()
            .expect("a shell");
        assert!(
            output.status.success(),
            "{block}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
