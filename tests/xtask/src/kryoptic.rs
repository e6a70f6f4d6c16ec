//! Builds kryoptic, a software token, as a PKCS#11 module for tests. It stands outside the workspace, because it takes
//! libclang and most of a minute to build; so it is built once, and again only when its own files change.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::{env, fs};

use anyhow::Context as _;

use crate::firmware::{cargo, target_folder};
use crate::process::{ask, command, root};

/// The package's folder in the repository.
const PACKAGE: &str = "tests/kryoptic";
/// All that the build depends on and that is ours.
const SOURCES: [&str; 3] = ["Cargo.toml", "Cargo.lock", "src/lib.rs"];
/// Where systems put libclang, beside what `LIBCLANG_PATH` names.
const LIBCLANG_FOLDERS: [&str; 10] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/lib/llvm/lib",
    "/usr/local/lib",
    "/usr/local/opt/llvm/lib",
    "/opt/homebrew/opt/llvm/lib",
    "/Library/Developer/CommandLineTools/usr/lib",
    "/Applications/Xcode.app/Contents/Developer/Toolchains/XcodeDefault.xctoolchain/usr/lib",
];

/// The module, if it is built from the sources as they are now.
pub(crate) fn built() -> Option<PathBuf> {
    let library = folder()?.join("release").join(format!(
        "{}keyferry_kryoptic{}",
        env::consts::DLL_PREFIX,
        env::consts::DLL_SUFFIX
    ));
    let remembered = fs::read(stamp()?).ok()?;
    (library.is_file() && remembered == sources().ok()?).then_some(library)
}

/// The command that builds the module.
///
/// # Errors
/// If cargo does not say where its target folder is.
pub(crate) fn build_command() -> anyhow::Result<Command> {
    let folder = folder().context("cargo does not name its target folder")?;
    let mut build = command(cargo(), ["build", "--release", "--locked"]);
    build
        .arg("--manifest-path")
        .arg(Path::new(PACKAGE).join("Cargo.toml"))
        .arg("--target-dir")
        .arg(folder);
    if let Some(folder) = libclang() {
        build.env("LIBCLANG_PATH", folder);
    }
    // libclang comes without the compiler's own headers, such as stddef.h. Any compiler's will do.
    let headers = ask(&mut command("cc", ["-print-file-name=include"]));
    if let (Some(headers), None) = (headers, env::var_os("BINDGEN_EXTRA_CLANG_ARGS")) {
        build.env("BINDGEN_EXTRA_CLANG_ARGS", format!("-I{}", headers.trim()));
    }
    Ok(build)
}

/// Notes what the module was built from.
///
/// # Errors
/// If the files cannot be read or written.
pub(crate) fn remember_sources() -> anyhow::Result<()> {
    let stamp = stamp().context("cargo does not name its target folder")?;
    fs::write(&stamp, sources()?).with_context(|| format!("cannot write {}", stamp.display()))
}

/// The folder with libclang in it.
pub(crate) fn libclang() -> Option<PathBuf> {
    let is_it = |name: &str| {
        let rest = name.strip_prefix("libclang");
        rest.is_some_and(|rest| {
            (rest.starts_with('.') || rest.starts_with('-'))
                && !rest.starts_with("-cpp")
                && (rest.contains(".so") || rest.ends_with(".dylib"))
        })
    };
    let known = LIBCLANG_FOLDERS.iter().map(PathBuf::from);
    env::var_os("LIBCLANG_PATH")
        .map(PathBuf::from)
        .into_iter()
        .chain(known)
        .find(|folder| {
            let files = folder.read_dir().into_iter().flatten().flatten();
            files
                .into_iter()
                .any(|file| file.file_name().to_str().is_some_and(is_it))
        })
}

/// Its own folder in cargo's target folder, so that it neither waits for other builds nor makes them wait.
fn folder() -> Option<PathBuf> {
    static TARGET: OnceLock<Option<PathBuf>> = OnceLock::new();
    let target = TARGET.get_or_init(target_folder);
    target.as_ref().map(|target| target.join("kryoptic"))
}

fn stamp() -> Option<PathBuf> {
    Some(folder()?.join("built-from"))
}

fn sources() -> anyhow::Result<Vec<u8>> {
    let read = |name: &&str| {
        let path = root().join(PACKAGE).join(name);
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    Ok(SOURCES
        .iter()
        .map(read)
        .collect::<Result<Vec<_>, _>>()?
        .concat())
}
