//! The modules that p11-kit knows of on this machine: where `module-name` of a PKCS#11 URI (RFC 7512 §2.4) is looked up.
//! p11-kit need not be installed. The files are read as its manual page pkcs11.conf(5) says, so that a module means here
//! what it means to the other programs of the machine.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::error::HsmError;

/// The name under which `enable-in` and `disable-in` mean this program.
const PROGRAM: &str = "keyferry";

/// What p11-kit may have been installed under. The folders of its configuration are fixed when it is built.
const PREFIXES: [&str; 3] = ["/usr", "/usr/local", "/opt/homebrew"];

/// The settings of one file, or of several files of one name.
type Settings = BTreeMap<String, String>;

/// A module that is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Registered {
    /// The library.
    pub(super) path: PathBuf,
    /// What `C_Initialize` is given (`x-init-reserved`).
    pub(super) init_reserved: Option<String>,
}

/// Finds the module that is registered under this name: that of its file without `.module`, or the library's without
/// `lib` and extension. Case does not matter.
///
/// # Errors
/// [`HsmError::NoSuchModule`] if there is none, or several libraries have this name; [`HsmError::Registry`] if a file cannot
/// be read or understood.
pub(super) fn find(name: &str) -> Result<Registered, HsmError> {
    Places::of_this_machine().find(name)
}

/// Where p11-kit's files are.
struct Places {
    /// `pkcs11.conf` and folder of the modules of this user.
    user: Option<(PathBuf, PathBuf)>,
    /// The administrator's `pkcs11.conf`; the first that exists counts.
    system: Vec<PathBuf>,
    /// The administrator's modules, then those that came with packages.
    modules: Vec<PathBuf>,
    /// Where libraries are that are named by a relative path.
    libraries: Vec<PathBuf>,
}

/// What `user-config` says of the user's own files.
#[derive(Clone, Copy, PartialEq, Eq)]
enum UserFiles {
    Ignored,
    Merged,
    Alone,
}

impl Places {
    fn of_this_machine() -> Self {
        let configuration = std::env::var_os("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .filter(|folder| folder.is_absolute())
            .or_else(|| std::env::home_dir().map(|home| home.join(".config")));
        // What belongs to /usr is configured in /etc.
        let etc: Vec<_> = PREFIXES
            .iter()
            .map(|prefix| match *prefix {
                "/usr" => PathBuf::from("/etc/pkcs11"),
                other => Path::new(other).join("etc/pkcs11"),
            })
            .collect();
        let prefixes = || PREFIXES.iter().map(Path::new);
        let multiarch = format!("lib/{}-linux-gnu/pkcs11", std::env::consts::ARCH);
        Self {
            user: configuration.map(|folder| {
                let folder = folder.join("pkcs11");
                (folder.join("pkcs11.conf"), folder.join("modules"))
            }),
            system: etc.iter().map(|etc| etc.join("pkcs11.conf")).collect(),
            modules: etc
                .iter()
                .map(|etc| etc.join("modules"))
                .chain(prefixes().map(|prefix| prefix.join("share/p11-kit/modules")))
                .collect(),
            libraries: prefixes()
                .flat_map(|prefix| {
                    [multiarch.as_str(), "lib64/pkcs11", "lib/pkcs11"].map(|lib| prefix.join(lib))
                })
                .collect(),
        }
    }

    fn find(&self, name: &str) -> Result<Registered, HsmError> {
        let modules = self.modules()?;
        let by_file = modules
            .iter()
            .find(|(registered, _)| registered.eq_ignore_ascii_case(name));
        let found = by_file.or_else(|| {
            let mut by_library = modules
                .iter()
                .filter(|(_, module)| library_name(&module.path).eq_ignore_ascii_case(name));
            let first = by_library.next();
            // The same library with two configurations is two modules: only the name of the file tells which.
            by_library.next().is_none().then_some(first).flatten()
        });
        match found {
            Some((_, module)) => Ok(module.clone()),
            None => Err(HsmError::NoSuchModule {
                name: name.to_owned(),
                present: modules.into_keys().collect(),
            }),
        }
    }

    /// The modules that this program may use, by name.
    fn modules(&self) -> Result<BTreeMap<String, Registered>, HsmError> {
        let user_files = self.user_files()?;
        let user = self.user.iter().map(|(_, modules)| modules);
        let folders: Vec<_> = match user_files {
            UserFiles::Ignored => self.modules.iter().collect(),
            UserFiles::Merged => user.chain(&self.modules).collect(),
            UserFiles::Alone => user.collect(),
        };
        let mut by_name = BTreeMap::<String, Settings>::new();
        for folder in folders {
            for (name, file) in module_files(folder)? {
                let settings = by_name.entry(name).or_default();
                // An earlier folder goes before a later one, setting by setting.
                for (key, value) in read(&file)?.unwrap_or_default() {
                    settings.entry(key).or_insert(value);
                }
            }
        }
        Ok(by_name
            .into_iter()
            .filter(|(_, settings)| is_enabled(settings))
            .filter_map(|(name, settings)| Some((name, self.registered(&settings)?)))
            .collect())
    }

    /// The module of these settings. `None` if they name no library: p11-kit can also reach a module by a command
    /// (`remote`), and a user can take a module away by an empty name.
    fn registered(&self, settings: &Settings) -> Option<Registered> {
        let module = Path::new(settings.get("module").filter(|path| !path.is_empty())?);
        let path = self
            .libraries
            .iter()
            // Joining an absolute path gives that path.
            .map(|folder| folder.join(module))
            .find(|path| path.exists())
            // Named where it should be, so that the error says so; never looked for where the command happens to run.
            .or_else(|| Some(self.libraries.first()?.join(module)))?;
        Some(Registered {
            path,
            init_reserved: settings.get("x-init-reserved").cloned(),
        })
    }

    /// Whether the user's own files count. An administrator's `user-config: none` is final: the user's file is not even read.
    fn user_files(&self) -> Result<UserFiles, HsmError> {
        let mut mode = UserFiles::Merged;
        for file in &self.system {
            if let Some(settings) = read(file)? {
                mode = user_config(file, &settings, mode)?;
                break;
            }
        }
        match &self.user {
            Some((file, _)) if mode != UserFiles::Ignored => {
                user_config(file, &read(file)?.unwrap_or_default(), mode)
            }
            Some(_) | None => Ok(mode),
        }
    }
}

fn user_config(
    file: &Path,
    settings: &Settings,
    otherwise: UserFiles,
) -> Result<UserFiles, HsmError> {
    match settings.get("user-config").map(String::as_str) {
        None => Ok(otherwise),
        Some("none") => Ok(UserFiles::Ignored),
        Some("merge") => Ok(UserFiles::Merged),
        Some("only" | "override") => Ok(UserFiles::Alone),
        Some(other) => Err(HsmError::Registry {
            path: file.into(),
            reason: format!("user-config is '{other}', not none, merge or only"),
        }),
    }
}

/// Whether this program is to see the module. `enable-in` lists those that do, `disable-in` those that do not.
fn is_enabled(settings: &Settings) -> bool {
    let lists = |key| {
        settings
            .get(key)
            .map(|list| list.split([',', ' ']).any(|program| program == PROGRAM))
    };
    lists("enable-in").unwrap_or_else(|| !lists("disable-in").unwrap_or(false))
}

/// The name of a library without `lib` and extension, as RFC 7512 §2.4 wants it in `module-name`.
fn library_name(path: &Path) -> String {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    name.strip_prefix("lib").unwrap_or(&name).to_owned()
}

/// The files of modules in a folder, by the names of the modules. A folder that is not there has none.
fn module_files(folder: &Path) -> Result<BTreeMap<String, PathBuf>, HsmError> {
    let failed = |error: std::io::Error| HsmError::Registry {
        path: folder.into(),
        reason: error.to_string(),
    };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if is_absent(&error) => return Ok(BTreeMap::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut files = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // Editors leave files of other names beside.
        if let Some(name) = name.strip_suffix(".module").map(str::to_owned)
            && path.is_file()
        {
            files.insert(name, path);
        }
    }
    Ok(files)
}

/// The settings in a file; `None` if it is not there. A file that is closed to this user is an error: it may forbid something.
fn read(file: &Path) -> Result<Option<Settings>, HsmError> {
    let failed = |reason| HsmError::Registry {
        path: file.into(),
        reason,
    };
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(failed(error.to_string())),
    };
    let mut settings = Settings::new();
    for (line, number) in text.lines().map(str::trim).zip(1..) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line
            .split_once(':')
            .ok_or_else(|| failed(format!("line {number} is not 'name: value'")))?;
        settings.insert(key.trim().to_owned(), value.trim().to_owned());
    }
    Ok(Some(settings))
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A registry in a scratch folder.
    struct Scratch {
        folder: tempfile::TempDir,
        places: Places,
    }

    fn scratch(files: &[(&str, &str)]) -> Scratch {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for place in ["user", "system", "package", "lib"] {
            std::fs::create_dir(at(place)).unwrap();
        }
        for (name, text) in files {
            std::fs::write(at(name), text).unwrap();
        }
        let places = Places {
            user: Some((at("user.conf"), at("user"))),
            system: vec![at("absent.conf"), at("system.conf")],
            modules: vec![at("system"), at("package"), at("absent")],
            libraries: vec![at("absent"), at("lib")],
        };
        Scratch { folder, places }
    }

    fn path_of(scratch: &Scratch, name: &str) -> PathBuf {
        scratch.places.find(name).unwrap().path
    }

    /// The names that the error lists.
    fn present(scratch: &Scratch, name: &str) -> Vec<String> {
        match scratch.places.find(name).unwrap_err() {
            HsmError::NoSuchModule { present, .. } => present,
            other => panic!("{other}"),
        }
    }

    fn reason(scratch: &Scratch, name: &str) -> String {
        match scratch.places.find(name).unwrap_err() {
            HsmError::Registry { path, reason } => {
                format!("{}: {reason}", path.file_name().unwrap().display())
            }
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_module_is_found_by_its_file_or_its_library() {
        let scratch = scratch(&[
            (
                "package/soft.module",
                "# a comment\n\n module : /x/libSoftHSM2.so \nx-init-reserved: a: 'b c'\n",
            ),
            ("package/note.txt", "not a module"),
            ("system/other.module", "module: /y/softhsm2-old.so"),
        ]);
        for name in ["soft", "SOFT", "softhsm2"] {
            let expected = Registered {
                path: "/x/libSoftHSM2.so".into(),
                init_reserved: Some("a: 'b c'".into()),
            };
            assert_eq!(scratch.places.find(name).unwrap(), expected, "{name}");
        }
        assert_eq!(present(&scratch, "softhsm"), ["other", "soft"]);
    }

    #[test]
    fn a_library_that_is_registered_twice_is_named_by_its_file() {
        let scratch = scratch(&[
            ("package/a.module", "module: /x/libtwo.so"),
            (
                "package/b.module",
                "module: /x/libtwo.so\nx-init-reserved: b",
            ),
        ]);
        assert_eq!(present(&scratch, "two"), ["a", "b"]);
        assert!(scratch.places.find("b").unwrap().init_reserved.is_some());
    }

    #[test]
    fn a_relative_path_starts_at_the_folder_of_modules() {
        let scratch = scratch(&[
            ("package/a.module", "module: a.so"),
            ("package/b.module", "module: b.so"),
            ("lib/a.so", ""),
        ]);
        assert_eq!(
            path_of(&scratch, "a"),
            scratch.folder.path().join("lib/a.so")
        );
        assert_eq!(
            path_of(&scratch, "b"),
            scratch.folder.path().join("absent/b.so")
        );
    }

    #[test]
    fn an_earlier_folder_goes_before_a_later_one_setting_by_setting() {
        let scratch = scratch(&[
            ("user/a.module", "x-init-reserved: user"),
            ("system/a.module", "module: /system.so"),
            (
                "package/a.module",
                "module: /package.so\nx-init-reserved: package",
            ),
            ("user/b.module", "module:"),
            ("package/b.module", "module: /b.so"),
        ]);
        let a = scratch.places.find("a").unwrap();
        assert_eq!(a.path, Path::new("/system.so"));
        assert_eq!(a.init_reserved.as_deref(), Some("user"));
        assert_eq!(present(&scratch, "b"), ["a"]);
    }

    #[test]
    fn the_administrator_decides_on_the_files_of_users() {
        let modules = [
            ("user/mine.module", "module: /mine.so"),
            ("package/theirs.module", "module: /theirs.so"),
        ];
        for (system, user, expected) in [
            ("", "", &["mine", "theirs"][..]),
            ("user-config: none", "", &["theirs"]),
            ("user-config: none", "user-config: only", &["theirs"]),
            ("user-config: merge", "user-config: none", &["theirs"]),
            ("", "user-config: only", &["mine"]),
            ("user-config: override", "", &["mine"]),
        ] {
            let scratch = scratch(
                &[
                    &modules[..],
                    &[("system.conf", system), ("user.conf", user)],
                ]
                .concat(),
            );
            assert_eq!(present(&scratch, "none"), expected, "{system} / {user}");
        }
    }

    #[test]
    fn modules_are_enabled_program_by_program() {
        let scratch = scratch(&[
            ("package/a.module", "module: /a.so\nenable-in: other"),
            (
                "package/b.module",
                "module: /b.so\nenable-in: other, keyferry",
            ),
            (
                "package/c.module",
                "module: /c.so\ndisable-in: other keyferry",
            ),
            ("package/d.module", "module: /d.so\ndisable-in: keyferry-2"),
            ("package/e.module", "remote: |ssh host p11-kit remote /e.so"),
        ]);
        assert_eq!(present(&scratch, "a"), ["b", "d"]);
    }

    #[test]
    fn a_file_that_is_not_understood_is_named() {
        let line = scratch(&[("package/a.module", "module: /a.so\n[section]\n")]);
        assert_eq!(reason(&line, "a"), "a.module: line 2 is not 'name: value'");
        let mode = scratch(&[("system.conf", "user-config: yes")]);
        assert_eq!(
            reason(&mode, "a"),
            "system.conf: user-config is 'yes', not none, merge or only"
        );
    }
}
