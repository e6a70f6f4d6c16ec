//! Guides: documents whose shell commands are run as they stand there, and print what is shown there. For systems that have a shell.

use std::path::Path;
use std::process::Command;

use crate::command::binary;
use crate::tokens::Scratch;

/// A line as it is compared: how long something took differs from run to run, and so does the width of a table.
fn normal(line: &str) -> String {
    let words = line.split_whitespace().map(|word| {
        let is_time = word.contains('.') && word.parse::<f64>().is_ok();
        if is_time { "a while" } else { word }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Runs every block of shell commands of a document in its order, in the scratch folder, with these variables. Each line of a block of output is
/// among those that the commands before it have printed, whatever time something took. Gives
/// how many lines were compared.
///
/// # Panics
/// If the document has no such blocks, one of them fails, or prints something else.
pub fn run(document: &str, scratch: &Scratch, variables: &[(&str, String)]) -> usize {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(document);
    let text = std::fs::read_to_string(path).expect("the document is there");
    let blocks: Vec<_> = text
        .split("\n```")
        .filter_map(|block| {
            let commands = block.strip_prefix("sh\n").map(|block| (true, block));
            commands.or_else(|| Some((false, block.strip_prefix("output\n")?)))
        })
        .collect();
    let commands = blocks.iter().filter(|(is_commands, _)| *is_commands);
    assert!(commands.count() >= 4, "{blocks:?}");
    let folder = binary().parent().expect("a file has a folder");
    let search = std::env::var("PATH").expect("a search path");
    let (mut printed, mut compared) = (Vec::new(), 0);
    for (is_commands, block) in blocks {
        if !is_commands {
            for line in block.lines() {
                assert!(
                    printed.contains(&normal(line)),
                    "{line}\nis not among {printed:#?}"
                );
                compared += 1;
            }
            continue;
        }
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
        let [out, err] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
        assert!(output.status.success(), "{block}\n{err}");
        printed = out.lines().chain(err.lines()).map(normal).collect();
    }
    compared
}
