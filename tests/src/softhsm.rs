//! A scratch SoftHSM token, and the real `keyferry` command beside it.
//!
//! `C_Initialize` is once per process, and SoftHSM reads its configuration then. So each test gets a token folder of its own
//! through the environment of the processes it starts; a test that calls the library itself runs in a process of its own
//! ([`in_own_process`]).

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

/// The PIN of every scratch token. No output of any command may ever contain it.
pub const PIN: &str = "scratch-pin-4711";

/// Where systems put SoftHSM's PKCS#11 library.
const MODULES: [&str; 6] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
    "/usr/local/opt/softhsm/lib/softhsm/libsofthsm2.so",
];

/// Set in a process that a test started for itself.
const INSIDE: &str = "KEYFERRY_TEST_INSIDE";

/// The PKCS#11 library of SoftHSM.
///
/// # Panics
/// If it is not installed; the message names the package.
#[must_use]
pub fn module() -> &'static Path {
    MODULES
        .iter()
        .map(Path::new)
        .find(|path| path.exists())
        .expect("SoftHSM is not installed: the package is softhsm2 (apt), softhsm (dnf, brew)")
}

/// A folder with one SoftHSM token in it, gone when the test is over.
pub struct Scratch {
    folder: PathBuf,
    label: String,
    _owner: Option<TempDir>,
}

impl Scratch {
    /// Makes a token with this label.
    ///
    /// # Panics
    /// If SoftHSM is not installed or does not work.
    #[must_use]
    pub fn new(label: &str) -> Self {
        let owner = tempfile::tempdir().expect("a scratch folder");
        let scratch = Self {
            folder: owner.path().to_path_buf(),
            label: label.into(),
            _owner: Some(owner),
        };
        let tokens = scratch.path("tokens");
        std::fs::create_dir(&tokens).expect("a folder for tokens");
        let configuration = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            tokens.display()
        );
        std::fs::write(scratch.configuration(), configuration).expect("SoftHSM's configuration");
        write_private(&scratch.pin_file(), &format!("{PIN}\n"));
        scratch.add_token(label);
        scratch
    }

    /// Makes a further token in the same folder. SoftHSM sees it in processes that are started later.
    ///
    /// # Panics
    /// If SoftHSM is not installed or does not work.
    pub fn add_token(&self, label: &str) {
        let _ = module();
        let output = Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--label", label])
            .args(["--so-pin", "scratch-so-pin", "--pin", PIN])
            .env("SOFTHSM2_CONF", self.configuration())
            .output()
            .expect("softhsm2-util is not installed: the package is softhsm2 (apt), softhsm (dnf, brew)");
        assert!(
            output.status.success(),
            "softhsm2-util failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// SoftHSM's configuration file, the value of `SOFTHSM2_CONF`.
    #[must_use]
    pub fn configuration(&self) -> PathBuf {
        self.folder.join("softhsm2.conf")
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

    /// The token's URI, with module and PIN file.
    #[must_use]
    pub fn uri(&self) -> String {
        self.uri_of(&self.label)
    }

    /// The URI of another token of the same folder and PIN.
    #[must_use]
    pub fn uri_of(&self, label: &str) -> String {
        format!(
            "pkcs11:token={label}?module-path={}&pin-source=file:{}",
            module().display(),
            self.pin_file().display()
        )
    }

    /// The command, with this token as its default and nothing else in its environment that it would look at.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(keyferry());
        command
            .env("SOFTHSM2_CONF", self.configuration())
            .env("KEYFERRY_TOKEN", self.uri())
            .env_remove("KEYFERRY_PIN")
            .stdin(std::process::Stdio::null())
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
        A: AsRef<std::ffi::OsStr>,
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
        A: AsRef<std::ffi::OsStr>,
    {
        let answer = Answer::of(self.command().arg("--json").args(arguments));
        assert_eq!(answer.code, 0, "{answer:?}");
        let last = answer.json().pop().expect("a last line");
        assert_eq!(last["ok"], true, "{answer:?}");
        last
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
        let text = Answer::of(&mut start());
        assert_eq!(text.code, code, "{arguments:?}: {text:?}");
        assert_eq!(text.stdout, "", "{arguments:?}: {text:?}");
        let lines: Vec<_> = text
            .stderr
            .lines()
            .skip_while(|line| !line.starts_with("error: "))
            .collect();
        assert!(
            lines.first().is_some_and(|line| line.contains(error)),
            "{arguments:?}: {text:?}"
        );
        let given = lines.iter().any(|line| line.starts_with("hint: "));
        let fits = lines
            .iter()
            .any(|line| line.starts_with("hint: ") && line.contains(hint));
        assert!(
            if hint.is_empty() { !given } else { fits },
            "{arguments:?}: {text:?}"
        );

        let json = Answer::of(start().arg("--json"));
        assert_eq!(json.code, code, "{arguments:?}: {json:?}");
        assert_eq!(json.stderr, "", "{arguments:?}: {json:?}");
        let last = json.json().pop().expect("a last line");
        assert_eq!(last["ok"], false, "{json:?}");
        assert_eq!(last["exit"], code, "{json:?}");
        let said = |field: &str| last[field].as_str().unwrap_or_default().to_owned();
        assert!(said("error").contains(error), "{arguments:?}: {json:?}");
        assert!(
            said("hint").contains(hint) && said("hint").is_empty() == hint.is_empty(),
            "{arguments:?}: {json:?}"
        );
    }
}

/// How the command ended and what it said.
#[derive(Debug)]
pub struct Answer {
    /// The exit code.
    pub code: i32,
    /// What it printed for scripts, or the result for people.
    pub stdout: String,
    /// What it told people.
    pub stderr: String,
}

impl Answer {
    /// Runs a command to its end.
    ///
    /// # Panics
    /// If it cannot be started, is killed, does not print UTF-8, or prints the PIN.
    #[must_use]
    pub fn of(command: &mut Command) -> Self {
        let Output {
            status,
            stdout,
            stderr,
        } = command.output().expect("the command starts");
        let answer = Self {
            code: status.code().expect("the command is not killed"),
            stdout: String::from_utf8(stdout).expect("text on stdout"),
            stderr: String::from_utf8(stderr).expect("text on stderr"),
        };
        for said in [&answer.stdout, &answer.stderr] {
            assert!(!said.contains(PIN), "the PIN is in the output: {answer:?}");
        }
        answer
    }

    /// The JSON objects on stdout.
    ///
    /// # Panics
    /// If a line is not one, or any but the last has `"ok"`.
    #[must_use]
    pub fn json(&self) -> Vec<Value> {
        let lines: Vec<Value> = self
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).expect("a JSON object on each line"))
            .collect();
        for line in lines.iter().rev().skip(1) {
            assert!(line.get("ok").is_none(), "{self:?}");
        }
        lines
    }
}

/// The `keyferry` command, built once from what is in the workspace now.
///
/// # Panics
/// If it does not build.
#[must_use]
pub fn keyferry() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        // Together with this package, so that the same features of the dependencies are chosen and nothing is built twice.
        let output = Command::new(env!("CARGO"))
            .args([
                "build",
                "--quiet",
                "--message-format=json-render-diagnostics",
            ])
            .args([
                "-p",
                "keyferry",
                "-p",
                env!("CARGO_PKG_NAME"),
                "--bin",
                "keyferry",
            ])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo starts");
        assert!(
            output.status.success(),
            "keyferry does not build: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|message| message["target"]["name"] == "keyferry")
            .find_map(|message| message["executable"].as_str().map(PathBuf::from))
            .expect("cargo names the executable")
    })
}

/// Runs `body` in a process of its own whose SoftHSM has one scratch token with this label. Call it first thing in the test named
/// `test`: the first time it starts this test executable again for that test alone, there it runs `body`.
///
/// # Panics
/// If that process fails.
pub fn in_own_process(test: &str, label: &str, body: impl FnOnce(&Scratch)) {
    if let Some(folder) = std::env::var_os(INSIDE) {
        // The outer process owns the folder and removes it.
        body(&Scratch {
            folder: folder.into(),
            label: label.into(),
            _owner: None,
        });
        return;
    }
    let scratch = Scratch::new(label);
    let executable = std::env::current_exe().expect("the test executable");
    let output = Command::new(executable)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, &scratch.folder)
        .env("SOFTHSM2_CONF", scratch.configuration())
        .env_remove("KEYFERRY_TOKEN")
        .env_remove("KEYFERRY_PIN")
        .output()
        .expect("the test executable starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}\n{}",
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
