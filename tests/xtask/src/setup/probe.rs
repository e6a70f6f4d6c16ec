//! How to find out that something is there.

use std::path::PathBuf;

use crate::kryoptic;
use crate::process::{ask, command, root};

/// The Python of the interop test, from the root of the repository.
pub(super) const PYTHON: &str = "target/interop/bin/python";
/// What it must say of its pyserial; the version stands in `tests/interop/requirements.txt` too.
const PYSERIAL: &str = "pyserial 3.5";

/// A question put to the thing itself: a package database may be wrong, or not know it.
pub(crate) enum Probe {
    /// The program runs, exits with 0 and prints a line with `text` in it.
    Says {
        program: &'static str,
        arguments: &'static [&'static str],
        text: &'static str,
    },
    /// rustc has a `core` library for this target.
    RustTarget(&'static str),
    /// A file is at one of the known places.
    File(&'static [&'static str]),
    /// A program that says nothing sensible of itself is on the path.
    Program(&'static str),
    /// There is a folder with libclang in it.
    Libclang,
    /// The environment of the interop test has the right pyserial.
    Pyserial,
    /// kryoptic is built, from the sources as they are.
    Kryoptic,
}

impl Probe {
    /// What it says of itself, or `None` where it is missing.
    pub(crate) fn answer(&self) -> Option<String> {
        match self {
            Self::Says {
                program,
                arguments,
                text,
            } => {
                let said = ask(&mut command(program, *arguments))?;
                let line = said.lines().find(|line| line.contains(text))?;
                Some(line.trim().to_owned())
            }
            Self::RustTarget(target) => {
                let said = ask(&mut command(
                    "rustc",
                    ["--print", "target-libdir", "--target", target],
                ))?;
                let folder = PathBuf::from(said.trim());
                let is_core = |name: &str| name.starts_with("libcore-") && name.ends_with(".rlib");
                let mut files = folder.read_dir().ok()?.flatten();
                files
                    .any(|file| file.file_name().to_str().is_some_and(is_core))
                    .then(|| "Rust target".to_owned())
            }
            Self::File(places) => {
                let place = places.iter().find(|place| PathBuf::from(place).is_file())?;
                Some((*place).to_owned())
            }
            Self::Program(name) => {
                let path = std::env::var_os("PATH")?;
                let mut places = std::env::split_paths(&path).map(|folder| folder.join(name));
                let place = places.find(|place| place.is_file())?;
                Some(place.display().to_string())
            }
            Self::Libclang => Some(kryoptic::libclang()?.display().to_string()),
            Self::Pyserial => {
                let script = "import serial; print('pyserial', serial.__version__)";
                let said = ask(&mut command(root().join(PYTHON), ["-I", "-c", script]))?;
                (said.trim() == PYSERIAL).then(|| PYSERIAL.to_owned())
            }
            Self::Kryoptic => Some(kryoptic::built()?.display().to_string()),
        }
    }
}
