//! What a machine must have, one row each.

use super::probe::Probe;

/// One thing the doors need.
pub(crate) struct Prerequisite {
    /// As people know it.
    pub(crate) name: &'static str,
    /// What breaks without it.
    pub(crate) why: &'static str,
    /// Who can do without it.
    pub(crate) need: Need,
    /// All of these must succeed; the answer to the first is shown.
    pub(crate) probes: &'static [Probe],
    /// Where it comes from.
    pub(crate) remedy: Remedy,
}

/// Which doors need a prerequisite. What the demo needs, all others need too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Need {
    /// The demo with a board that is a process by itself.
    NativeDemo,
    /// The demo.
    Demo,
    /// The tests.
    Tests,
    /// The fuzzer and the slow campaigns; and who asks for everything.
    Fuzz,
}

/// Where a prerequisite comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Remedy {
    /// A target of the Rust toolchain in use.
    RustTarget(&'static str),
    /// A component of the Rust toolchain in use.
    RustComponent(&'static str),
    /// A component of the nightly Rust toolchain, which comes with it.
    NightlyComponent(&'static str),
    /// A program that cargo builds from its sources.
    CargoProgram(&'static str),
    /// A system package.
    Package(Package),
    /// Python packages of the interop test, in an environment of their own.
    PythonEnvironment,
    /// Our own build of kryoptic; the system packages for it come first.
    Kryoptic,
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
        need: Need::Tests,
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
        need: Need::Tests,
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
        need: Need::Tests,
        probes: &[Probe::RustTarget("thumbv6m-none-eabi")],
        remedy: Remedy::RustTarget("thumbv6m-none-eabi"),
    },
    Prerequisite {
        name: "thumbv7em-none-eabi",
        why: "builds the firmware for Cortex-M4, the emulated board and the nRF52840 DK",
        need: Need::Demo,
        probes: &[Probe::RustTarget("thumbv7em-none-eabi")],
        remedy: Remedy::RustTarget("thumbv7em-none-eabi"),
    },
    Prerequisite {
        name: "riscv32imac-unknown-none-elf",
        why: "builds the firmware for RISC-V",
        need: Need::Tests,
        probes: &[Probe::RustTarget("riscv32imac-unknown-none-elf")],
        remedy: Remedy::RustTarget("riscv32imac-unknown-none-elf"),
    },
    Prerequisite {
        name: "x86_64-pc-windows-gnu",
        why: "checks that the host builds for Windows",
        need: Need::Tests,
        probes: &[Probe::RustTarget("x86_64-pc-windows-gnu")],
        remedy: Remedy::RustTarget("x86_64-pc-windows-gnu"),
    },
    Prerequisite {
        name: "mingw-w64",
        why: "compiles the host's SQLite for Windows",
        need: Need::Tests,
        probes: &[Probe::Says {
            program: "x86_64-w64-mingw32-gcc",
            arguments: &["--version"],
            text: "x86_64-w64-mingw32-gcc",
        }],
        remedy: Remedy::Package(Package {
            apt: "gcc-mingw-w64-x86-64-win32",
            dnf: "mingw64-gcc",
            brew: "mingw-w64",
        }),
    },
    Prerequisite {
        name: "PostgreSQL",
        why: "keeps the registry of several stations in the tests, which start a server of their own",
        need: Need::Tests,
        probes: &[Probe::File(POSTGRES)],
        remedy: Remedy::Package(Package {
            apt: "postgresql",
            dnf: "postgresql-server",
            brew: "postgresql@17",
        }),
    },
    Prerequisite {
        name: "nightly rust-src",
        why: "is what Miri and the fuzzer build the standard library from",
        need: Need::Fuzz,
        // `rustup run` never installs anything, as `cargo +nightly` may.
        probes: &[
            Probe::Says {
                program: "rustup",
                arguments: &["run", "nightly", "rustc", "--version"],
                text: "rustc",
            },
            Probe::Says {
                program: "rustup",
                arguments: &["component", "list", "--toolchain", "nightly", "--installed"],
                text: "rust-src",
            },
        ],
        remedy: Remedy::NightlyComponent("rust-src"),
    },
    Prerequisite {
        name: "miri",
        why: "runs the protocol's tests and watches what they do in memory",
        need: Need::Fuzz,
        probes: &[Probe::Says {
            program: "rustup",
            arguments: &["run", "nightly", "cargo", "miri", "--version"],
            text: "miri",
        }],
        remedy: Remedy::NightlyComponent("miri"),
    },
    Prerequisite {
        name: "qemu-system-arm",
        why: "emulates the Arm board that the firmware runs on",
        need: Need::Demo,
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
        name: "qemu-system-riscv32",
        why: "emulates the RISC-V board that the firmware runs on",
        need: Need::Tests,
        probes: &[
            Probe::Says {
                program: "qemu-system-riscv32",
                arguments: &["--version"],
                text: "QEMU emulator version",
            },
            Probe::Says {
                program: "qemu-system-riscv32",
                arguments: &["-machine", "help"],
                text: "virt",
            },
        ],
        remedy: Remedy::Package(Package {
            apt: "qemu-system-misc",
            dnf: "qemu-system-riscv",
            brew: "qemu",
        }),
    },
    Prerequisite {
        name: "softhsm2",
        why: "is the token that keys come from",
        need: Need::NativeDemo,
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
        need: Need::Tests,
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
    Prerequisite {
        name: "opensc",
        why: "shows tests each call that a token gets, and makes tokens of kryoptic",
        need: Need::Tests,
        probes: &[Probe::File(SPY_MODULES), Probe::Program("pkcs11-tool")],
        remedy: Remedy::Package(Package {
            apt: "opensc",
            dnf: "opensc",
            brew: "opensc",
        }),
    },
    Prerequisite {
        name: "nss softokn",
        why: "is a second token, one that does not keep its word",
        need: Need::Tests,
        probes: &[Probe::File(NSS_MODULES)],
        remedy: Remedy::Package(Package {
            apt: "libnss3",
            dnf: "nss-softokn",
            brew: "nss",
        }),
    },
    Prerequisite {
        name: "certutil",
        why: "makes tokens of NSS",
        need: Need::Tests,
        // macOS and Windows have another program of this name.
        probes: &[Probe::Says {
            program: "certutil",
            arguments: &["--build-flags"],
            text: "NSS",
        }],
        remedy: Remedy::Package(Package {
            apt: "libnss3-tools",
            dnf: "nss-tools",
            brew: "nss",
        }),
    },
    Prerequisite {
        name: "python cryptography",
        why: "opens wrapped keys in tests, more strictly than OpenSSL",
        need: Need::Tests,
        // The system's own Python: what else is called python3 may know nothing of the system's packages.
        probes: &[Probe::Says {
            program: "/usr/bin/python3",
            arguments: &[
                "-c",
                "import cryptography; print('cryptography', cryptography.__version__)",
            ],
            text: "cryptography",
        }],
        remedy: Remedy::Package(Package {
            apt: "python3-cryptography",
            dnf: "python3-cryptography",
            brew: "cryptography",
        }),
    },
    Prerequisite {
        name: "pyserial",
        why: "opens the port of the device in Python that was written from the specification alone",
        need: Need::Tests,
        probes: &[Probe::Pyserial],
        remedy: Remedy::PythonEnvironment,
    },
    Prerequisite {
        name: "pkg-config",
        why: "finds the libraries that kryoptic is built with",
        need: Need::Tests,
        probes: &[Probe::Says {
            program: "pkg-config",
            arguments: &["--version"],
            text: ".",
        }],
        remedy: Remedy::Package(Package {
            apt: "pkg-config",
            dnf: "pkgconf-pkg-config",
            brew: "pkgconf",
        }),
    },
    Prerequisite {
        name: "openssl headers",
        why: "is what kryoptic is built with",
        need: Need::Tests,
        probes: &[Probe::Says {
            program: "pkg-config",
            arguments: &["--modversion", "libcrypto"],
            text: "3.",
        }],
        remedy: Remedy::Package(Package {
            apt: "libssl-dev",
            dnf: "openssl-devel",
            brew: "openssl@3",
        }),
    },
    Prerequisite {
        name: "sqlite headers",
        why: "is what kryoptic is built with",
        need: Need::Tests,
        probes: &[Probe::Says {
            program: "pkg-config",
            arguments: &["--modversion", "sqlite3"],
            text: "3.",
        }],
        remedy: Remedy::Package(Package {
            apt: "libsqlite3-dev",
            dnf: "sqlite-devel",
            brew: "sqlite",
        }),
    },
    Prerequisite {
        name: "libclang",
        why: "reads the headers that kryoptic is built with",
        need: Need::Tests,
        probes: &[Probe::Libclang],
        remedy: Remedy::Package(Package {
            apt: "libclang1",
            dnf: "clang-libs",
            brew: "llvm",
        }),
    },
    Prerequisite {
        name: "kryoptic",
        why: "is a third token, the one that can do everything; it is built from source",
        need: Need::Tests,
        probes: &[Probe::Kryoptic],
        remedy: Remedy::Kryoptic,
    },
    Prerequisite {
        name: "g++",
        why: "compiles the fuzzer's engine",
        need: Need::Fuzz,
        // The name by which cargo's build scripts call it, whoever made it.
        probes: &[Probe::Says {
            program: "c++",
            arguments: &["--version"],
            text: ".",
        }],
        remedy: Remedy::Package(Package {
            apt: "g++",
            dnf: "gcc-c++",
            brew: "llvm",
        }),
    },
    Prerequisite {
        name: "cargo-fuzz",
        why: "builds the fuzz targets",
        need: Need::Fuzz,
        probes: &[Probe::Says {
            program: "cargo",
            arguments: &["fuzz", "--version"],
            text: "cargo-fuzz",
        }],
        remedy: Remedy::CargoProgram("cargo-fuzz"),
    },
    Prerequisite {
        name: "cargo-deny",
        why: "judges licences, sources and advisories of what we build on",
        need: Need::Fuzz,
        probes: &[Probe::Says {
            program: "cargo",
            arguments: &["deny", "--version"],
            text: "cargo-deny",
        }],
        remedy: Remedy::CargoProgram("cargo-deny"),
    },
];

/// Where they put NSS's softokn.
const NSS_MODULES: &[&str] = &[
    "/usr/lib/x86_64-linux-gnu/libsoftokn3.so",
    "/usr/lib/aarch64-linux-gnu/libsoftokn3.so",
    "/usr/lib/x86_64-linux-gnu/nss/libsoftokn3.so",
    "/usr/lib64/libsoftokn3.so",
    "/usr/local/opt/nss/lib/libsoftokn3.dylib",
    "/opt/homebrew/opt/nss/lib/libsoftokn3.dylib",
];

/// Where they put OpenSC's spy, a PKCS#11 module that writes down each call and passes it on.
const SPY_MODULES: &[&str] = &[
    "/usr/lib/x86_64-linux-gnu/pkcs11-spy.so",
    "/usr/lib/aarch64-linux-gnu/pkcs11-spy.so",
    "/usr/lib64/pkcs11/pkcs11-spy.so",
    "/usr/local/lib/pkcs11-spy.so",
    "/opt/homebrew/lib/pkcs11-spy.so",
];

/// Where Debian, Fedora and Homebrew put the server.
const POSTGRES: &[&str] = &[
    "/usr/lib/postgresql/18/bin/postgres",
    "/usr/lib/postgresql/17/bin/postgres",
    "/usr/lib/postgresql/16/bin/postgres",
    "/usr/lib/postgresql/15/bin/postgres",
    "/usr/lib/postgresql/14/bin/postgres",
    "/usr/bin/postgres",
    "/opt/homebrew/opt/postgresql@17/bin/postgres",
    "/usr/local/opt/postgresql@17/bin/postgres",
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
