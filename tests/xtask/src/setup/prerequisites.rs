//! What a machine must have, one row each, and how to find out that it does.

use std::path::PathBuf;

use crate::process::{ask, command};

/// One thing the doors need.
pub(crate) struct Prerequisite {
    /// As people know it.
    pub(crate) name: &'static str,
    /// What breaks without it.
    pub(crate) why: &'static str,
    /// All of these must succeed; the answer to the first is shown.
    pub(crate) probes: &'static [Probe],
    /// Where it comes from.
    pub(crate) remedy: Remedy,
}

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
}

/// Where a prerequisite comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Remedy {
    /// A target of the Rust toolchain in use.
    RustTarget(&'static str),
    /// A component of the Rust toolchain in use.
    RustComponent(&'static str),
    /// A system package.
    Package(Package),
}

/// A system package's name with each package manager that the advice speaks of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Package {
    pub(crate) apt: &'static str,
    pub(crate) dnf: &'static str,
    pub(crate) brew: &'static str,
}

/// Everything the doors need beside Rust itself, a C linker and git.
pub(crate) const PREREQUISITES: &[Prerequisite] = &[
    Prerequisite {
        name: "rustfmt",
        why: "checks the formatting",
        probes: &[Probe::Says {
            program: "cargo",
            arguments: &["fmt", "--version"],
            text: "rustfmt",
        }],
        remedy: Remedy::RustComponent("rustfmt"),
    },
    Prerequisite {
        name: "clippy",
        why: "checks the code for mistakes",
        probes: &[Probe::Says {
            program: "cargo",
            arguments: &["clippy", "--version"],
            text: "clippy",
        }],
        remedy: Remedy::RustComponent("clippy"),
    },
    Prerequisite {
        name: "thumbv6m-none-eabi",
        why: "builds the firmware for Cortex-M0, ECDH only",
        probes: &[Probe::RustTarget("thumbv6m-none-eabi")],
        remedy: Remedy::RustTarget("thumbv6m-none-eabi"),
    },
    Prerequisite {
        name: "thumbv7em-none-eabi",
        why: "builds the firmware for Cortex-M4, the emulated board",
        probes: &[Probe::RustTarget("thumbv7em-none-eabi")],
        remedy: Remedy::RustTarget("thumbv7em-none-eabi"),
    },
    Prerequisite {
        name: "riscv32imac-unknown-none-elf",
        why: "builds the firmware for RISC-V",
        probes: &[Probe::RustTarget("riscv32imac-unknown-none-elf")],
        remedy: Remedy::RustTarget("riscv32imac-unknown-none-elf"),
    },
    Prerequisite {
        name: "qemu-system-arm",
        why: "emulates the board that the firmware runs on",
        probes: &[
            Probe::Says {
                program: "qemu-system-arm",
                arguments: &["--version"],
                text: "QEMU emulator version",
            },
            Probe::Says {
                program: "qemu-system-arm",
                arguments: &["-machine", "help"],
                text: "mps2-an386",
            },
        ],
        remedy: Remedy::Package(Package {
            apt: "qemu-system-arm",
            dnf: "qemu-system-arm",
            brew: "qemu",
        }),
    },
    Prerequisite {
        name: "softhsm2",
        why: "is the token that keys come from",
        probes: &[
            Probe::Says {
                program: "softhsm2-util",
                arguments: &["--version"],
                text: "2.",
            },
            Probe::File(SOFTHSM_MODULES),
        ],
        remedy: Remedy::Package(Package {
            apt: "softhsm2",
            dnf: "softhsm",
            brew: "softhsm",
        }),
    },
    Prerequisite {
        name: "openssl",
        why: "opens wrapped keys in tests, independently of this code",
        probes: &[
            // macOS brings LibreSSL under this name; it cannot do AES key wrap.
            Probe::Says {
                program: "openssl",
                arguments: &["version"],
                text: "OpenSSL",
            },
            Probe::Says {
                program: "openssl",
                arguments: &["enc", "-list"],
                text: "id-aes256-wrap-pad",
            },
        ],
        remedy: Remedy::Package(Package {
            apt: "openssl",
            dnf: "openssl",
            brew: "openssl@3",
        }),
    },
];

/// Where Debian, Fedora, others and Homebrew put SoftHSM's PKCS#11 library.
const SOFTHSM_MODULES: &[&str] = &[
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
];

/// SoftHSM's PKCS#11 library on this machine.
pub(crate) fn softhsm_module() -> Option<&'static std::path::Path> {
    SOFTHSM_MODULES
        .iter()
        .map(std::path::Path::new)
        .find(|path| path.is_file())
}

impl Prerequisite {
    /// What the thing says of itself, or `None` where it is missing or unfit.
    pub(crate) fn find(&self) -> Option<String> {
        let mut answers = self.probes.iter().map(Probe::answer);
        let first = answers.next()??;
        answers.all(|answer| answer.is_some()).then_some(first)
    }
}

impl Probe {
    fn answer(&self) -> Option<String> {
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
        }
    }
}
