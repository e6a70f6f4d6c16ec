//! How missing prerequisites get onto the machine: rustup for Rust's, apt for the system's, advice where neither may.

use std::collections::BTreeSet;
use std::process::Command;

use super::prerequisites::{Package, Prerequisite, Remedy};
use super::probe::PYTHON;
use crate::kryoptic;
use crate::process::{self, ask, command};
use crate::screen::{BAD, Screen};

/// One round of installing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Installer {
    /// For people.
    pub(super) name: &'static str,
    pub(super) work: Work,
}

/// What an installer does.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Program and arguments of each command, in this order.
    Commands(Vec<Vec<String>>),
    /// Builds kryoptic.
    Kryoptic,
}

/// What may be done about system packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// apt, as root.
    Root,
    /// apt, through a sudo that asks no password.
    Sudo,
    /// No apt, or no right to use it.
    None,
}

impl Access {
    /// Finds out by trying.
    pub(super) fn find() -> Self {
        let works = |program: &str, arguments: &[&str]| ask(&mut command(program, arguments));
        if works("apt-get", &["--version"]).is_none() {
            Self::None
        } else if works("id", &["-u"]).is_some_and(|id| id.trim() == "0") {
            Self::Root
        } else if works("sudo", &["-n", "true"]).is_some() {
            Self::Sudo
        } else {
            Self::None
        }
    }

    /// What stands before `apt-get`, or `None` where it may not be used.
    fn prefix(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Root => Some(&["env", "DEBIAN_FRONTEND=noninteractive"]),
            // Through `env`, because sudo drops the variables of its caller.
            Self::Sudo => Some(&["sudo", "-n", "env", "DEBIAN_FRONTEND=noninteractive"]),
            Self::None => None,
        }
    }
}

/// What has to run to bring in `missing`.
pub(super) fn installers(missing: &[&Prerequisite], access: Access) -> Vec<Installer> {
    let (mut targets, mut components, mut packages) = (Vec::new(), Vec::new(), Vec::new());
    let (mut nightly, mut programs) = (Vec::new(), Vec::new());
    let (mut kryoptic, mut python) = (false, false);
    for prerequisite in missing {
        match prerequisite.remedy {
            Remedy::RustTarget(name) => targets.push(name),
            Remedy::RustComponent(name) => components.push(name),
            Remedy::NightlyComponent(name) => nightly.extend(["--component", name]),
            Remedy::CargoProgram(name) => programs.push(name),
            Remedy::Package(package) => packages.push(package.apt),
            Remedy::PythonEnvironment => python = true,
            Remedy::Kryoptic => kryoptic = true,
        }
    }
    let mut installers = Vec::new();
    if !components.is_empty() {
        installers.push(Installer {
            name: "rustup, components",
            work: Work::Commands(vec![words(&[&["rustup", "component", "add"], &components])]),
        });
    }
    if !targets.is_empty() {
        installers.push(Installer {
            name: "rustup, targets",
            work: Work::Commands(vec![words(&[&["rustup", "target", "add"], &targets])]),
        });
    }
    if !nightly.is_empty() {
        let install: &[&str] = &["rustup", "toolchain", "install", "nightly"];
        let little: &[&str] = &["--profile", "minimal", "--no-self-update"];
        installers.push(Installer {
            name: "rustup, nightly",
            work: Work::Commands(vec![words(&[install, little, &nightly])]),
        });
    }
    if let (false, Some(prefix)) = (packages.is_empty(), access.prefix()) {
        // A machine that has just started often runs apt by itself: wait for its lock.
        let apt: &[&str] = &["apt-get", "-o", "DPkg::Lock::Timeout=600"];
        installers.push(Installer {
            name: "apt",
            work: Work::Commands(vec![
                words(&[prefix, apt, &["update"]]),
                // Recommended packages would bring in QEMU's windows and sound.
                words(&[
                    prefix,
                    apt,
                    &["install", "--yes", "--no-install-recommends"],
                    &packages,
                ]),
            ]),
        });
    }
    if !programs.is_empty() {
        installers.push(Installer {
            name: "cargo",
            work: Work::Commands(vec![words(&[&["cargo", "install", "--locked"], &programs])]),
        });
    }
    if python {
        let install: &[&str] = &[PYTHON, "-m", "pip", "install", "--quiet", "--requirement"];
        installers.push(Installer {
            name: "pip",
            work: Work::Commands(vec![
                words(&[&["python3", "-m", "venv", "target/interop"]]),
                words(&[install, &["tests/interop/requirements.txt"]]),
            ]),
        });
    }
    // Without the packages it would fail after a long time.
    if kryoptic && (packages.is_empty() || access.prefix().is_some()) {
        installers.push(Installer {
            name: "kryoptic",
            work: Work::Kryoptic,
        });
    }
    installers
}

impl Installer {
    /// Does the work. What fails is shown and not fatal: probing again decides, and stale package lists may do.
    pub(super) fn run(&self, screen: &Screen) {
        match &self.work {
            Work::Commands(commands) => {
                for words in commands {
                    if let Some((program, arguments)) = words.split_first() {
                        run_one(screen, &mut command(program, arguments));
                    }
                }
            }
            Work::Kryoptic => match kryoptic::build_command() {
                Ok(mut cargo) => {
                    if run_one(screen, &mut cargo)
                        && let Err(error) = kryoptic::remember_sources()
                    {
                        screen.mark(BAD, "failed", format!("{error:#}"));
                    }
                }
                Err(error) => screen.mark(BAD, "failed", format!("{error:#}")),
            },
        }
    }
}

/// Runs one command and shows it if it fails; says whether it did well.
fn run_one(screen: &Screen, command: &mut Command) -> bool {
    let shown = process::line(command);
    let watch = screen.watch(&shown);
    let finished = process::run(command, &watch);
    drop(watch);
    match finished {
        Ok(finished) if finished.status.success() => return true,
        Ok(finished) => {
            if screen.is_live() {
                screen.say(finished.output.trim_end());
            }
            screen.mark(BAD, "failed", format!("{shown} ({})", finished.status));
        }
        Err(error) => screen.mark(BAD, "failed", format!("{error:#}")),
    }
    false
}

/// What a person can type to bring in `missing`, one line each.
pub(super) fn advice(missing: &[&Prerequisite]) -> Vec<String> {
    let mut lines: Vec<String> = installers(missing, Access::None)
        .into_iter()
        .flat_map(|installer| match installer.work {
            Work::Commands(commands) => commands,
            Work::Kryoptic => Vec::new(),
        })
        .map(|words| format!("any system     {}", words.join(" ")))
        .collect();
    let packages: Vec<Package> = missing
        .iter()
        .filter_map(|prerequisite| match prerequisite.remedy {
            Remedy::Package(package) => Some(package),
            Remedy::RustTarget(_)
            | Remedy::RustComponent(_)
            | Remedy::NightlyComponent(_)
            | Remedy::CargoProgram(_)
            | Remedy::PythonEnvironment
            | Remedy::Kryoptic => None,
        })
        .collect();
    if !packages.is_empty() {
        let names = |of: fn(&Package) -> &'static str| {
            let mut names: Vec<_> = packages.iter().map(of).collect();
            // Elsewhere one package may hold what are several here.
            let mut seen = BTreeSet::new();
            names.retain(|name| seen.insert(*name));
            names.join(" ")
        };
        lines.push(format!(
            "Debian, Ubuntu sudo apt-get install {}",
            names(|package| package.apt)
        ));
        lines.push(format!(
            "Fedora         sudo dnf install {}",
            names(|package| package.dnf)
        ));
        lines.push(format!(
            "macOS          brew install {}",
            names(|package| package.brew)
        ));
    }
    if missing
        .iter()
        .any(|prerequisite| prerequisite.remedy == Remedy::Kryoptic)
    {
        lines.push("any system     cargo xtask setup".to_owned());
    }
    lines
}

/// Joins lists of words into one list.
fn words(lists: &[&[&str]]) -> Vec<String> {
    lists.concat().into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::super::prerequisites::PREREQUISITES;
    use super::*;

    fn all() -> Vec<&'static Prerequisite> {
        PREREQUISITES.iter().collect()
    }

    #[test]
    fn nothing_missing_means_nothing_to_run() {
        assert_eq!(installers(&[], Access::Root), []);
        assert!(advice(&[]).is_empty());
    }

    #[test]
    fn the_package_lists_are_fetched_before_packages_are_installed_and_kryoptic_is_built() {
        let mut installers = installers(&all(), Access::Sudo);
        let kryoptic = installers.pop().expect("kryoptic is the last one");
        assert_eq!(kryoptic.work, Work::Kryoptic);
        assert_eq!(installers.pop().map(|one| one.name), Some("pip"));
        assert_eq!(installers.pop().map(|one| one.name), Some("cargo"));
        let Some(Work::Commands(apt)) = installers.pop().map(|apt| apt.work) else {
            panic!("apt comes before both");
        };
        assert_eq!(
            apt.iter().map(|words| words.join(" ")).collect::<Vec<_>>(),
            [
                "sudo -n env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 update",
                "sudo -n env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install --yes \
                 --no-install-recommends gcc-mingw-w64-x86-64-win32 postgresql qemu-system-arm qemu-system-misc softhsm2 openssl opensc libnss3 libnss3-tools \
                 python3-cryptography pkg-config libssl-dev libsqlite3-dev libclang1 g++",
            ]
        );
    }

    #[test]
    fn without_a_right_to_use_apt_only_rust_is_installed() {
        let names: Vec<_> = installers(&all(), Access::None)
            .iter()
            .map(|one| one.name)
            .collect();
        assert_eq!(
            names,
            [
                "rustup, components",
                "rustup, targets",
                "rustup, nightly",
                "cargo",
                "pip"
            ]
        );
    }

    #[test]
    fn advice_names_every_manager() {
        assert_eq!(
            advice(&all()),
            [
                "any system     rustup component add rustfmt clippy",
                "any system     rustup target add thumbv6m-none-eabi thumbv7em-none-eabi riscv32imac-unknown-none-elf x86_64-pc-windows-gnu",
                "any system     rustup toolchain install nightly --profile minimal --no-self-update --component rust-src \
                 --component miri",
                "any system     cargo install --locked cargo-fuzz cargo-deny",
                "any system     python3 -m venv target/interop",
                "any system     target/interop/bin/python -m pip install --quiet --requirement tests/interop/requirements.txt",
                "Debian, Ubuntu sudo apt-get install gcc-mingw-w64-x86-64-win32 postgresql qemu-system-arm qemu-system-misc softhsm2 openssl opensc libnss3 libnss3-tools \
                 python3-cryptography pkg-config libssl-dev libsqlite3-dev libclang1 g++",
                "Fedora         sudo dnf install mingw64-gcc postgresql-server qemu-system-arm qemu-system-riscv softhsm openssl opensc nss-softokn nss-tools \
                 python3-cryptography pkgconf-pkg-config openssl-devel sqlite-devel clang-libs gcc-c++",
                "macOS          brew install mingw-w64 postgresql@17 qemu softhsm openssl@3 opensc nss cryptography pkgconf sqlite llvm",
                "any system     cargo xtask setup",
            ]
        );
    }
}
