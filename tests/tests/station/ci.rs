//! The commands of `host/CI.md`, run as they stand there, and the workflow that has the same ones.

use std::fs;
use std::path::Path;

use keyferry_tests::board::{Board, Image};
use keyferry_tests::command::binary;
use keyferry_tests::guide;
use keyferry_tests::tokens::Scratch;

/// The repository's folder.
fn repository() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn devices_are_provisioned_in_a_pipeline_as_its_guide_says() {
    let scratch = Scratch::new("unused");
    // As in the archive, of what is built already.
    let unpacked = scratch.path("unpacked");
    fs::create_dir_all(unpacked.join("firmware")).expect("a folder");
    fs::create_dir_all(unpacked.join("plans")).expect("a folder");
    let plan = repository().join("host/plans/ci.toml");
    fs::copy(plan, unpacked.join("plans/ci.toml")).expect("the plan");
    let image = Image::Default.elf(Board::Native);
    let links = [(binary(), "keyferry"), (image.as_path(), "firmware/native")];
    for (from, to) in links {
        std::os::unix::fs::symlink(from, unpacked.join(to)).expect("a link");
    }
    let variables = [("KEYFERRY", unpacked.display().to_string())];
    guide::run("host/CI.md", &scratch, &variables);
    let listed = fs::read_to_string(scratch.path("devices.json")).expect("the list");
    let provisioned = listed.matches("\"provisioned\"").count();
    assert_eq!(provisioned, 4, "{listed}");
}

/// Commands of a block in YAML, without the depth that they stand at.
fn commands(step: &str) -> String {
    let lines = step
        .lines()
        .take_while(|line| line.starts_with("          "));
    lines
        .map(|line| line.trim_start_matches("          "))
        .fold(String::new(), |all, line| {
            if all.is_empty() {
                line.to_owned()
            } else {
                format!("{all}\n{line}")
            }
        })
}

#[test]
fn the_workflow_has_the_commands_of_the_guide() {
    let read = |path: &str| fs::read_to_string(repository().join(path)).expect("a document");
    let guide = read("host/CI.md");
    let guided: Vec<_> = guide
        .split("\n```sh\n")
        .skip(1)
        .map(|rest| rest.split_once("\n```").expect("the block ends").0)
        .collect();
    let workflow = read("host/ci/provision.yml");
    let steps: Vec<_> = workflow.split("run: |\n").skip(1).map(commands).collect();
    // Before them: installing, and unpacking.
    assert_eq!(steps[2..], guided);
}
