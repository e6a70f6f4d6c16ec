//! Builds the firmware of the emulated boards.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use keyferry::emulate::Board;
use serde_json::Value;

/// The build profile, from the workspace manifest.
pub(crate) const PROFILE: &str = "firmware";
/// That of the board `native`: one of its devices that panics must not end the process, as it would with [`PROFILE`].
const NATIVE_PROFILE: &str = "release";

/// Which firmware to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Variant {
    /// The real one.
    Default,
    /// Keys rest unencrypted in flash: a defect that the leak tests must find.
    SabotagePlainStorage,
    /// Nothing is wiped: a defect that the leak tests must find.
    SabotageNoWipe,
    /// An application that uses its key, without a heap.
    Telemetry,
    /// It judges test vectors.
    Vectors,
    /// The real one, whose flash stops where a test says.
    FlashFaults,
    /// Its stack overflows once: a defect that the boards must survive.
    Overflow,
    /// The real one, which also counts what unwrapping costs.
    Measure,
    /// It counts, and bad padding costs less: a defect that `bench leakage` must find.
    MeasureEarlyReject,
}

impl Variant {
    /// Those that the tests run on this board.
    pub(crate) const fn tested(board: Board) -> &'static [Self] {
        match board {
            Board::Mps2An386 | Board::RiscvVirt => &Self::TESTED,
            // Its machine code is the host's, which judges test vectors in the library's own tests; nobody looks into its memory.
            Board::Native => &[Self::Default, Self::Telemetry],
        }
    }

    /// Those that the tests run on the boards in QEMU.
    const TESTED: [Self; 7] = [
        Self::Default,
        Self::SabotagePlainStorage,
        Self::SabotageNoWipe,
        Self::Telemetry,
        Self::Vectors,
        Self::FlashFaults,
        Self::Overflow,
    ];

    /// Those that `bench leakage` runs.
    pub(crate) const MEASURED: [Self; 2] = [Self::Measure, Self::MeasureEarlyReject];

    /// The name in output and in the file's name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::SabotagePlainStorage => "sabotage-plain-storage",
            Self::SabotageNoWipe => "sabotage-no-wipe",
            Self::Telemetry => "telemetry",
            Self::Vectors => "vectors",
            Self::FlashFaults => "flash-faults",
            Self::Overflow => "overflow",
            Self::Measure => "measure",
            Self::MeasureEarlyReject => "measure-early-reject",
        }
    }

    /// What makes it: the name of its binary, and cargo's arguments.
    const fn made(self, board: Board) -> (&'static str, &'static [&'static str]) {
        match (self, board) {
            (Self::Telemetry, Board::Native) => ("keyferry-native-telemetry", &[]),
            (variant, Board::Mps2An386 | Board::RiscvVirt | Board::Native) => {
                variant.made_alike(board)
            }
        }
    }

    const fn made_alike(self, board: Board) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Default => (board.package(), &[]),
            Self::SabotagePlainStorage => {
                (board.package(), &["--features", "sabotage-plain-storage"])
            }
            Self::SabotageNoWipe => (board.package(), &["--features", "sabotage-no-wipe"]),
            Self::Telemetry => ("telemetry", &["--no-default-features"]),
            Self::Vectors => ("vectors", &[]),
            Self::FlashFaults => (board.package(), &["--features", "flash-faults"]),
            Self::Overflow => ("overflow", &["--no-default-features"]),
            Self::Measure => (board.package(), &["--features", "measure"]),
            Self::MeasureEarlyReject => (
                board.package(),
                &["--features", "measure,sabotage-early-reject"],
            ),
        }
    }
}

/// Why there is no firmware.
#[derive(Debug)]
pub(crate) enum BuildError {
    /// Cargo could not be started, or a file not be copied.
    Io(io::Error),
    /// Cargo failed; it has said why on standard error.
    Cargo {
        /// For which board it was.
        board: Board,
        /// Which firmware it was to build.
        variant: String,
    },
    /// Cargo said nothing about an executable or its target folder.
    NoExecutable {
        /// For which board.
        board: Board,
        /// Which firmware it built.
        variant: String,
    },
}

impl std::fmt::Display for BuildError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(_) => write!(f, "cannot build the firmware"),
            Self::Cargo { board, variant } => {
                write!(
                    f,
                    "the `{variant}` firmware of {} does not build",
                    board.name()
                )
            }
            Self::NoExecutable { board, variant } => {
                write!(f, "cargo built no `{variant}` firmware of {}", board.name())
            }
        }
    }
}

impl std::error::Error for BuildError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(source) => Some(source),
            Self::Cargo { .. } | Self::NoExecutable { .. } => None,
        }
    }
}

impl From<io::Error> for BuildError {
    fn from(source: io::Error) -> Self {
        Self::Io(source)
    }
}

/// What cargo is to make.
struct Recipe<'a> {
    /// The board.
    board: Board,
    /// Name of the firmware, and of its file.
    name: &'a str,
    /// Name of the binary.
    binary: &'a str,
    /// The profile.
    profile: &'a str,
    /// Further arguments.
    arguments: &'a [&'a str],
    /// Flags for the compiler.
    flags: Option<&'a str>,
    /// What is logged if the environment does not say.
    log: &'a str,
}

/// Builds a firmware and gives the path of its ELF file, `firmware/<board>/<variant>.elf` in cargo's target folder. Cargo's
/// warnings and errors go to standard error.
///
/// # Errors
/// [`BuildError`].
pub(crate) fn build(board: Board, variant: Variant) -> Result<PathBuf, BuildError> {
    let (binary, arguments) = variant.made(board);
    make(&Recipe {
        board,
        name: variant.name(),
        binary,
        profile: match board {
            Board::Mps2An386 | Board::RiscvVirt => PROFILE,
            Board::Native => NATIVE_PROFILE,
        },
        arguments,
        flags: None,
        // Without it defmt builds errors in and nothing else.
        log: "info",
    })
}

/// What `bench firmware` compares: its name, and the features it is made with.
pub(crate) const BUILDS: [(&str, &str); 3] = [
    ("full", "rsa,aes,ecdh-p256-x963-sha256"),
    ("rsa", "rsa-suites"),
    ("ecdh", ""),
];

/// In what profiles: its name, which is also the end of the profile's, and flags that choose among what the libraries offer (their
/// documents: aes 0.9 and sha2 0.11, "configuration flags").
pub(crate) const PROFILES: [(&str, Option<&str>); 2] = [
    (
        "size",
        Some(
            "--cfg aes_backend=\"soft\" --cfg aes_backend_soft=\"compact\" \
             --cfg sha2_backend=\"soft\" --cfg sha2_backend_soft=\"compact\"",
        ),
    ),
    ("speed", None),
];

/// Builds an image for `bench firmware`, as it would be shipped, and beside it one that measures: `<build>-<profile>.elf` and
/// `<build>-<profile>-measure.elf`. Gives the folder they are in.
///
/// # Errors
/// [`BuildError`].
pub(crate) fn build_compared(
    (build, features): (&str, &str),
    (profile, flags): (&str, Option<&str>),
) -> Result<PathBuf, BuildError> {
    let board = Board::Mps2An386;
    let mut folder = PathBuf::new();
    for (end, feature) in [("", ""), ("-measure", ",measure")] {
        let features = format!("{features}{feature}");
        let image = make(&Recipe {
            board,
            name: &format!("{build}-{profile}{end}"),
            binary: board.package(),
            profile: &format!("{PROFILE}-{profile}"),
            arguments: &["--no-default-features", "--features", &features],
            flags,
            log: "error",
        })?;
        folder = image.parent().map(Path::to_owned).unwrap_or_default();
    }
    Ok(folder)
}

fn make(recipe: &Recipe<'_>) -> Result<PathBuf, BuildError> {
    let board = recipe.board;
    let failed = |error: fn(Board, String) -> BuildError| error(board, recipe.name.to_owned());
    let nothing = || failed(|board, variant| BuildError::NoExecutable { board, variant });
    let mut cargo = Command::new(cargo());
    cargo
        .current_dir(workspace())
        .args(["build", "--package", board.package()])
        .args(["--profile", recipe.profile, "--bin", recipe.binary])
        .arg("--message-format=json-render-diagnostics")
        .args(recipe.arguments)
        .stderr(Stdio::inherit());
    if let Some(board) = board.qemu() {
        cargo.args(["--target", board.target()]);
    }
    if let Some(flags) = recipe.flags {
        cargo.env("CARGO_TARGET_THUMBV7EM_NONE_EABI_RUSTFLAGS", flags);
    }
    if env::var_os("DEFMT_LOG").is_none() {
        cargo.env("DEFMT_LOG", recipe.log);
    }
    let folder = target_folder()
        .ok_or_else(nothing)?
        .join("firmware")
        .join(board.name());
    fs::create_dir_all(&folder)?;
    // Every variant has the same name in cargo's own folder: until it is copied, nobody else may build there.
    let alone = fs::File::create(folder.join(".lock"))?;
    alone.lock()?;
    let output = cargo.output()?;
    if !output.status.success() {
        return Err(failed(|board, variant| BuildError::Cargo {
            board,
            variant,
        }));
    }
    let executable = executable(&output.stdout, recipe.binary).ok_or_else(nothing)?;

    let destination = folder.join(format!("{}.elf", recipe.name));
    // A device that starts while this runs must find one or the other file, not half of one.
    let unfinished = tempfile::NamedTempFile::new_in(&folder)?;
    fs::copy(&executable, unfinished.path())?;
    unfinished
        .persist(&destination)
        .map_err(|error| error.error)?;
    Ok(destination)
}

/// Cargo, the one that runs this if there is one.
pub(crate) fn cargo() -> std::ffi::OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The workspace's folder.
pub(crate) fn workspace() -> PathBuf {
    // This package lies two folders below it.
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Cargo's target folder, wherever environment and configuration put it.
pub(crate) fn target_folder() -> Option<PathBuf> {
    let output = Command::new(cargo())
        .current_dir(workspace())
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .stderr(Stdio::inherit())
        .output()
        .ok()?;
    let metadata: Value = serde_json::from_slice(&output.stdout).ok()?;
    metadata["target_directory"].as_str().map(PathBuf::from)
}

/// The executable of this name, from cargo's messages.
pub(crate) fn executable(messages: &[u8], binary: &str) -> Option<PathBuf> {
    messages
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok())
        .filter(|message| {
            message["reason"] == "compiler-artifact" && message["target"]["name"] == binary
        })
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_the_boards_own() {
        let messages = concat!(
            "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"serde\"},\"executable\":null}\n",
            "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"build-script-build\"},\"executable\":\"/t/build\"}\n",
            "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"keyferry-mps2-an386\"},\"executable\":\"/t/fw\"}\n",
            "{\"reason\":\"build-finished\",\"success\":true}\n",
        );
        assert_eq!(
            executable(messages.as_bytes(), Board::Mps2An386.package()),
            Some("/t/fw".into())
        );
        assert_eq!(executable(b"not json\n", Board::Mps2An386.package()), None);
    }

    #[test]
    fn variants_have_names_of_their_own() {
        let all = Variant::TESTED.into_iter().chain(Variant::MEASURED);
        let mut names: Vec<_> = all.map(Variant::name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
