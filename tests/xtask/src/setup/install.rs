//! How missing prerequisites get onto the machine: rustup for Rust's, apt for the system's, advice where neither may.

use std::process::Command;

use super::prerequisites::{Package, Prerequisite, Remedy};
use crate::process::{self, ask, command};
use crate::screen::{BAD, Screen};

/// One round of installing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Installer {
    /// For people.
    pub(super) name: &'static str,
    /// Program and arguments, in this order.
    pub(super) commands: Vec<Vec<String>>,
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
    for prerequisite in missing {
        match prerequisite.remedy {
            Remedy::RustTarget(name) => targets.push(name),
            Remedy::RustComponent(name) => components.push(name),
            Remedy::Package(package) => packages.push(package.apt),
        }
    }
    let mut installers = Vec::new();
    if !components.is_empty() {
        installers.push(Installer {
            name: "rustup, components",
            commands: vec![words(&[&["rustup", "component", "add"], &components])],
        });
    }
    if !targets.is_empty() {
        installers.push(Installer {
            name: "rustup, targets",
            commands: vec![words(&[&["rustup", "target", "add"], &targets])],
        });
    }
    if let (false, Some(prefix)) = (packages.is_empty(), access.prefix()) {
        // A machine that has just started often runs apt by itself: wait for its lock.
        let apt: &[&str] = &["apt-get", "-o", "DPkg::Lock::Timeout=600"];
        installers.push(Installer {
            name: "apt",
            commands: vec![
                words(&[prefix, apt, &["update"]]),
                // Recommended packages would bring in QEMU's windows and sound.
                words(&[
                    prefix,
                    apt,
                    &["install", "--yes", "--no-install-recommends"],
                    &packages,
                ]),
            ],
        });
    }
    installers
}

impl Installer {
    /// Runs the commands. What fails is shown and not fatal: probing again decides, and stale package lists may do.
    pub(super) fn run(&self, screen: &Screen) {
        for words in &self.commands {
            let Some((program, arguments)) = words.split_first() else {
                continue;
            };
            let mut command: Command = command(program, arguments);
            let shown = process::line(&command);
            let watch = screen.watch(&shown);
            let finished = process::run(&mut command, &watch);
            drop(watch);
            match finished {
                Ok(finished) if finished.status.success() => {}
                Ok(finished) => {
                    if screen.is_live() {
                        screen.say(finished.output.trim_end());
                    }
                    screen.mark(BAD, "failed", format!("{shown} ({})", finished.status));
                }
                Err(error) => screen.mark(BAD, "failed", format!("{error:#}")),
            }
        }
    }
}

/// What a person can type to bring in `missing`, one line each.
pub(super) fn advice(missing: &[&Prerequisite]) -> Vec<String> {
    let mut lines: Vec<String> = installers(missing, Access::None)
        .into_iter()
        .flat_map(|installer| installer.commands)
        .map(|words| format!("any system     {}", words.join(" ")))
        .collect();
    let packages: Vec<Package> = missing
        .iter()
        .filter_map(|prerequisite| match prerequisite.remedy {
            Remedy::Package(package) => Some(package),
            Remedy::RustTarget(_) | Remedy::RustComponent(_) => None,
        })
        .collect();
    if !packages.is_empty() {
        let names = |of: fn(&Package) -> &'static str| {
            packages.iter().map(of).collect::<Vec<_>>().join(" ")
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
    fn the_package_lists_are_fetched_before_packages_are_installed() {
        let apt = installers(&all(), Access::Sudo)
            .pop()
            .expect("apt is the last one");
        assert_eq!(
            apt.commands
                .iter()
                .map(|words| words.join(" "))
                .collect::<Vec<_>>(),
            [
                "sudo -n env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 update",
                "sudo -n env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install --yes \
                 --no-install-recommends qemu-system-arm softhsm2 openssl opensc-pkcs11",
            ]
        );
    }

    #[test]
    fn without_a_right_to_use_apt_only_rust_is_installed() {
        let names: Vec<_> = installers(&all(), Access::None)
            .iter()
            .map(|one| one.name)
            .collect();
        assert_eq!(names, ["rustup, components", "rustup, targets"]);
    }

    #[test]
    fn advice_names_every_manager() {
        assert_eq!(
            advice(&all()),
            [
                "any system     rustup component add rustfmt clippy",
                "any system     rustup target add thumbv6m-none-eabi thumbv7em-none-eabi riscv32imac-unknown-none-elf",
                "Debian, Ubuntu sudo apt-get install qemu-system-arm softhsm2 openssl opensc-pkcs11",
                "Fedora         sudo dnf install qemu-system-arm softhsm openssl opensc",
                "macOS          brew install qemu softhsm openssl@3 opensc",
            ]
        );
    }
}
