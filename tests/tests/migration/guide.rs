//! The commands of `host/HSM.md`, run as they stand there. They are for a shell, so this is for systems that have one.

use std::path::Path;
use std::process::Command;

use keyferry_tests::command::binary;
use keyferry_tests::tokens::{Kind, Scratch};

/// The blocks of shell commands of the guide, in their order.
fn blocks() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/HSM.md");
    let text = std::fs::read_to_string(path).unwrap();
    text.split("\n```sh\n")
        .skip(1)
        .map(|rest| rest.split_once("\n```").unwrap().0.to_owned())
        .collect()
}

#[test]
fn the_guide_works_as_it_stands() {
    let blocks = blocks();
    assert!(blocks.len() >= 4, "{blocks:?}");
    let scratch = Scratch::with(&[(Kind::SoftHsm, "origin"), (Kind::Kryoptic, "target")]);
    let folder = binary().parent().unwrap();
    let search = std::env::var("PATH").unwrap();
    for block in blocks {
        let output = Command::new("sh")
            .args(["-e", "-u", "-c", &block])
            .current_dir(scratch.path(""))
            .envs(scratch.environment())
            .env("ORIGIN", scratch.uri_of("origin"))
            .env("TARGET", scratch.uri_of("target"))
            .env("PATH", format!("{}:{search}", folder.display()))
            .env_remove("KEYFERRY_TOKEN")
            .env_remove("KEYFERRY_PIN")
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{block}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
