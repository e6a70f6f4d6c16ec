//! What users get who build nothing: an archive with the command, the firmware of the emulated boards, plans and guides.
//!
//! It is made the same way every time: the files' order, times and owners are fixed, so that two archives of the same build are the same bytes.

use std::env::consts::EXE_SUFFIX;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use flate2::{Compression, GzBuilder};
use keyferry::emulate::Board;
use serde_json::{Map, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use crate::Outcome;
use crate::firmware::{self, Variant};
use crate::process;
use crate::screen::{GOOD, Screen};

/// The command, and its package.
const COMMAND: &str = "keyferry";

/// What is copied from the repository as it is, and where it stands in the archive.
const DOCUMENTS: &[(&str, &str)] = &[
    ("README.md", "README.md"),
    ("CHANGELOG.md", "CHANGELOG.md"),
    ("SECURITY.md", "SECURITY.md"),
    ("LICENSE-APACHE", "LICENSE-APACHE"),
    ("LICENSE-MIT", "LICENSE-MIT"),
    ("host/AUDIT.md", "guides/AUDIT.md"),
    ("host/BROKER.md", "guides/BROKER.md"),
    ("host/CA.md", "guides/CA.md"),
    ("host/CI.md", "guides/CI.md"),
    ("host/HSM.md", "guides/HSM.md"),
    ("host/LINE.md", "guides/LINE.md"),
    ("host/OFFLINE.md", "guides/OFFLINE.md"),
    ("host/OPERATOR.md", "guides/OPERATOR.md"),
    ("host/POLICIES.md", "guides/POLICIES.md"),
    ("host/STATION.md", "guides/STATION.md"),
    ("host/plans/ci.toml", "plans/ci.toml"),
    ("host/plans/developer.toml", "plans/developer.toml"),
    ("host/plans/factory.toml", "plans/factory.toml"),
    ("host/ci/provision.yml", "ci/provision.yml"),
];

/// A file of the archive.
struct Item {
    /// Where it stands, below the archive's folder.
    path: String,
    bytes: Vec<u8>,
    executable: bool,
}

/// Builds everything, and packs it.
///
/// # Errors
/// If something does not build, or the archive cannot be written.
pub(crate) fn run(screen: &Screen) -> Result<Outcome> {
    let built = command().context("the command does not build")?;
    let mut items = vec![item(format!("{COMMAND}{EXE_SUFFIX}"), &built)?];
    for board in Board::ALL {
        let image = firmware::build(board, Variant::Default)?;
        let ending = match board.qemu() {
            Some(_) => ".elf",
            None => EXE_SUFFIX,
        };
        let path = format!("firmware/{}{ending}", board.name());
        items.push(item(path, &image)?);
    }
    for &(from, to) in DOCUMENTS {
        let bytes = fs::read(firmware::workspace().join(from)).context(from)?;
        items.push(Item {
            path: to.to_owned(),
            bytes,
            executable: false,
        });
    }
    items.push(sums(&items));

    let folder = firmware::target_folder()
        .context("cargo does not name its target folder")?
        .join("dist");
    fs::create_dir_all(&folder)?;
    let name = format!("{COMMAND}-{}-{}", env!("CARGO_PKG_VERSION"), host()?);
    let archive = folder.join(format!("{name}.tar.gz"));
    let bytes = pack(&name, &items)?;
    // Beside its place first, so that nobody finds half an archive.
    let part = folder.join(format!("{name}.part"));
    let mut file = File::create(&part)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&part, &archive)?;

    let digest = hex::encode(Sha256::digest(&bytes));
    screen.mark(
        GOOD,
        "packed",
        format!(
            "{} ({} bytes, SHA-256 {digest})",
            archive.display(),
            bytes.len()
        ),
    );
    let summary = Map::from_iter([
        ("path".to_owned(), json!(archive)),
        ("bytes".to_owned(), json!(bytes.len())),
        ("sha256".to_owned(), json!(digest)),
    ]);
    Ok(Outcome { ok: true, summary })
}

/// A program that was built, at this place.
fn item(path: String, built: &Path) -> Result<Item> {
    let bytes = fs::read(built).with_context(|| built.display().to_string())?;
    Ok(Item {
        path,
        bytes,
        executable: true,
    })
}

/// The digests of all files, as `sha256sum --check` reads them.
fn sums(items: &[Item]) -> Item {
    let lines = items.iter().map(|item| {
        let digest = hex::encode(Sha256::digest(&item.bytes));
        format!("{digest}  {}\n", item.path)
    });
    Item {
        path: "SHA256SUMS".to_owned(),
        bytes: lines.collect::<String>().into_bytes(),
        executable: false,
    }
}

/// Builds the command as users run it.
fn command() -> Result<PathBuf> {
    let mut cargo = process::command(
        firmware::cargo(),
        [
            "build",
            "--release",
            "--package",
            COMMAND,
            "--message-format=json-render-diagnostics",
        ],
    );
    let output = cargo.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "cargo fails");
    firmware::executable(&output.stdout, COMMAND).context("cargo names no program")
}

/// The system that the command is for, as Rust calls it.
fn host() -> Result<String> {
    let output = process::command("rustc", ["-vV"]).output()?;
    let text = String::from_utf8(output.stdout)?;
    text.lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .context("rustc does not name its host")
}

/// The archive, with everything in a folder of this name.
fn pack(name: &str, items: &[Item]) -> Result<Vec<u8>> {
    let zipped = GzBuilder::new()
        .mtime(0)
        .write(Vec::new(), Compression::best());
    let mut archive = Builder::new(zipped);
    for item in items {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_size(item.bytes.len() as u64);
        header.set_mode(if item.executable { 0o755 } else { 0o644 });
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        let path = format!("{name}/{}", item.path);
        archive.append_data(&mut header, path, item.bytes.as_slice())?;
    }
    Ok(archive.into_inner()?.finish()?)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;

    fn items() -> Vec<Item> {
        let mut items = vec![
            Item {
                path: "keyferry".to_owned(),
                bytes: vec![1, 2, 3],
                executable: true,
            },
            Item {
                path: "guides/X.md".to_owned(),
                bytes: b"text".to_vec(),
                executable: false,
            },
        ];
        items.push(sums(&items));
        items
    }

    #[test]
    fn an_archive_is_the_same_every_time_and_has_everything() {
        let bytes = pack("keyferry-1", &items()).unwrap();
        assert_eq!(bytes, pack("keyferry-1", &items()).unwrap());
        let mut archive = tar::Archive::new(GzDecoder::new(bytes.as_slice()));
        let mut found = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mode = entry.header().mode().unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            found.push((path, mode, content));
        }
        assert_eq!(
            found[0],
            ("keyferry-1/keyferry".to_owned(), 0o755, vec![1, 2, 3])
        );
        assert_eq!(found[1].1, 0o644);
        assert_eq!(found[2].0, "keyferry-1/SHA256SUMS");
        let sums = String::from_utf8(found[2].2.clone()).unwrap();
        let digest = hex::encode(Sha256::digest([1, 2, 3]));
        assert!(sums.starts_with(&format!("{digest}  keyferry\n")), "{sums}");
    }

    #[test]
    fn every_document_is_there() {
        for &(from, _) in DOCUMENTS {
            assert!(firmware::workspace().join(from).is_file(), "{from}");
        }
    }
}
