//! Scratch tokens of three kinds, and the real `keyferry` command beside them. One seam: what works on one kind is asked of
//! the others in the same words.
//!
//! `C_Initialize` is once per process, and a token's library reads its configuration then. So each test has a folder of its
//! own, and names it through the environment of the processes it starts; a test that calls the library itself runs in a
//! process of its own ([`in_own_process`]).

mod kryoptic;
mod nss;
mod process;
mod softhsm;

pub use softhsm::Kept;

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::command::{self, Answer};
pub use process::{LOSE, in_own_process, in_own_process_with, in_own_process_with_faults};

/// The PIN of every scratch token. No output of any command may ever contain it.
pub const PIN: &str = "scratch-pin-4711";

/// The security officer's PIN of every scratch token that has one.
const SO_PIN: &str = "scratch-so-pin";

/// A token's software.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// SoftHSM 2: SHA-1 OAEP only, and a zero tail under key wrap.
    SoftHsm,
    /// NSS's softokn: everything, but it does not keep its word.
    Nss,
    /// kryoptic: everything, and strict.
    Kryoptic,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::SoftHsm, Self::Nss, Self::Kryoptic];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SoftHsm => "SoftHSM",
            Self::Nss => "NSS",
            Self::Kryoptic => "kryoptic",
        }
    }

    /// Its PKCS#11 library.
    ///
    /// # Panics
    /// If it is not on this machine; the message says how to get it.
    #[must_use]
    pub fn module(self) -> PathBuf {
        let (module, package) = match self {
            Self::SoftHsm => (softhsm::module(), "softhsm2 (apt), softhsm (dnf, brew)"),
            Self::Nss => (
                nss::module(),
                "libnss3 (apt), nss-softokn (dnf), nss (brew)",
            ),
            Self::Kryoptic => (kryoptic::module(), "built from source"),
        };
        module.unwrap_or_else(|| {
            panic!(
                "{} is not there ({package}): run cargo xtask setup",
                self.name()
            )
        })
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A folder with tokens in it, gone when the test is over.
pub struct Scratch {
    folder: PathBuf,
    _owner: Option<TempDir>,
}

impl Scratch {
    /// Makes one SoftHSM token with this label.
    ///
    /// # Panics
    /// If SoftHSM is not installed or does not work.
    #[must_use]
    pub fn new(label: &str) -> Self {
        Self::of(Kind::SoftHsm, label)
    }

    /// Makes one token of this kind with this label.
    ///
    /// # Panics
    /// If the token's software is not installed or does not work.
    #[must_use]
    pub fn of(kind: Kind, label: &str) -> Self {
        Self::with(&[(kind, label)])
    }

    /// Makes these tokens; the first is the command's default. All can be used in one process, several of one kind too.
    ///
    /// # Panics
    /// If a token's software is not installed or does not work.
    #[must_use]
    pub fn with(tokens: &[(Kind, &str)]) -> Self {
        let owner = tempfile::tempdir().expect("a scratch folder");
        let scratch = Self {
            folder: owner.path().to_path_buf(),
            _owner: Some(owner),
        };
        write_private(&scratch.pin_file(), &format!("{PIN}\n"));
        softhsm::prepare(&scratch);
        for (kind, label) in tokens {
            scratch.add(*kind, label);
        }
        scratch
    }

    /// For tests that kill processes which use its SoftHSM tokens.
    ///
    /// # Panics
    /// If the tokens' files cannot be read.
    #[must_use]
    pub fn keep_tokens(&self) -> Kept {
        Kept::of(self)
    }

    /// Puts an AES key that somebody else has made into the first token, a SoftHSM one.
    ///
    /// # Panics
    /// If it does not take it.
    pub fn import_aes(&self, label: &str, key: &[u8]) {
        softhsm::import_aes(self, &self.first_label(), label, key);
    }

    /// The folder that another process has made, and keeps.
    fn borrowed(folder: PathBuf) -> Self {
        Self {
            folder,
            _owner: None,
        }
    }

    /// Makes a further token. Processes that are started later see it. Names made before this by [`Scratch::uri_of`] for
    /// tokens of the same kind are outdated.
    ///
    /// # Panics
    /// If the token's software is not installed or does not work.
    pub fn add(&self, kind: Kind, label: &str) {
        match kind {
            Kind::SoftHsm => softhsm::add(self, label),
            Kind::Nss => nss::add(self, label),
            Kind::Kryoptic => kryoptic::add(self, label),
        }
        let mut list = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.list())
            .expect("the list of tokens");
        writeln!(list, "{kind}\t{label}").expect("the list of tokens");
    }

    /// The tokens in the order in which they were made.
    ///
    /// They are kept in a file, because a test may be two processes, and both may make tokens.
    fn tokens(&self) -> Vec<(Kind, String)> {
        let list = std::fs::read_to_string(self.list()).unwrap_or_default();
        list.lines()
            .filter_map(|line| {
                let (name, label) = line.split_once('\t')?;
                let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name)?;
                Some((kind, label.to_owned()))
            })
            .collect()
    }

    /// The labels of the tokens of one kind.
    fn labels(&self, kind: Kind) -> Vec<String> {
        let of_kind = self.tokens().into_iter().filter(|(of, _)| *of == kind);
        of_kind.map(|(_, label)| label).collect()
    }

    fn list(&self) -> PathBuf {
        self.folder.join("tokens.list")
    }

    /// A file with the PIN that only its owner can read.
    #[must_use]
    pub fn pin_file(&self) -> PathBuf {
        self.folder.join("pin")
    }

    /// The path of a file of this name in the scratch folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The URI of the first token, with module and PIN file.
    ///
    /// # Panics
    /// If there is no token.
    #[must_use]
    pub fn uri(&self) -> String {
        self.uri_of(&self.first_label())
    }

    /// The label of the first token.
    pub(crate) fn first_label(&self) -> String {
        self.tokens().into_iter().next().expect("a token").1
    }

    /// The URI of the token with this label, with module and PIN file.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn uri_of(&self, label: &str) -> String {
        let tokens = self.tokens();
        let (kind, _) = tokens
            .iter()
            .find(|(_, found)| found == label)
            .unwrap_or_else(|| panic!("there is no token '{label}': {tokens:?}"));
        let reserved = match kind {
            Kind::Nss => format!("&init-reserved={}", nss::reserved(self)),
            Kind::SoftHsm | Kind::Kryoptic => String::new(),
        };
        format!(
            "pkcs11:token={label}?module-path={}{reserved}&pin-source=file:{}",
            kind.module().display(),
            self.pin_file().display()
        )
    }

    /// What must stand in the environment of a process that uses the tokens.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, PathBuf); 3] {
        let (iterations, count) = nss::ITERATIONS;
        [
            (iterations, count.into()),
            ("SOFTHSM2_CONF", softhsm::configuration(self)),
            ("KRYOPTIC_CONF", kryoptic::configuration(self)),
        ]
    }

    /// The command, with the first token as its default and nothing else in its environment that it would look at.
    ///
    /// # Panics
    /// If it does not build.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = command::keyferry();
        command
            .envs(self.environment())
            .env("KEYFERRY_TOKEN", self.uri())
            .current_dir(&self.folder);
        command
    }

    /// Runs the command.
    ///
    /// # Panics
    /// If it cannot be started, or if the PIN is anywhere in what it says.
    #[must_use]
    pub fn run<I, A>(&self, arguments: I) -> Answer
    where
        I: IntoIterator<Item = A>,
        A: AsRef<OsStr>,
    {
        Answer::of(self.command().args(arguments))
    }

    /// Runs the command with `--json`, and expects it to do its job; gives its last line.
    ///
    /// # Panics
    /// If it fails.
    pub fn done<I, A>(&self, arguments: I) -> Value
    where
        I: IntoIterator<Item = A>,
        A: AsRef<OsStr>,
    {
        command::done(self.command().args(arguments))
    }

    /// Runs the command twice, for people and for scripts, and expects it to refuse both times with this exit code, an
    /// error that contains `error`, and a hint that contains `hint` (or none if that is empty).
    ///
    /// # Panics
    /// If it does anything else.
    pub fn refused(&self, arguments: &[&str], code: i32, error: &str, hint: &str) {
        self.refused_with(arguments, &[], code, error, hint);
    }

    /// As [`Scratch::refused`], with these variables in the environment.
    ///
    /// # Panics
    /// If it does anything else.
    pub fn refused_with(
        &self,
        arguments: &[&str],
        variables: &[(&str, &str)],
        code: i32,
        error: &str,
        hint: &str,
    ) {
        let start = || {
            let mut command = self.command();
            command.args(arguments).envs(variables.iter().copied());
            command
        };
        command::refused(start, code, error, hint);
    }
}

/// The first of these files that exists.
fn first_of(places: &[&str]) -> Option<PathBuf> {
    places
        .iter()
        .map(PathBuf::from)
        .find(|place| place.is_file())
}

/// Runs a tool of a token.
fn tool(command: &mut Command) {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{name} does not start ({error}): run cargo xtask setup"));
    assert!(
        output.status.success(),
        "{name} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Writes a file that only its owner can read.
fn write_private(path: &Path, text: &str) {
    std::fs::write(path, text).expect("a file in the scratch folder");
    set_mode(path, 0o600);
}

/// Sets a file's permission bits, where there are such.
///
/// # Panics
/// If the system refuses.
#[cfg(unix)]
pub fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("permissions");
}

/// Sets a file's permission bits, where there are such.
#[cfg(not(unix))]
pub fn set_mode(_path: &Path, _mode: u32) {}
