//! The list of what `cargo xtask test` does, one row each. Nothing else decides what runs.
//!
//! Two habits keep it quick: one target folder, and no step changes RUSTFLAGS, which would build everything again.

use std::ffi::OsString;

use anyhow::ensure;

use keyferry::emulate::Board;

use crate::bench::{self, Bench};
use crate::demo;
use crate::dependencies;
use crate::dist;
use crate::firmware::{self, Variant};
use crate::fuzz::{self, Wanted};
use crate::hardware;
use crate::kryoptic;
use crate::screen::Screen;
use crate::setup;

/// One row.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) action: Action,
}

/// What a step does.
pub(crate) enum Action {
    /// Work of our own.
    Call {
        run: fn(&Screen, &mut Environment) -> anyhow::Result<()>,
        /// What a person types for the same.
        by_hand: &'static str,
    },
    /// cargo must succeed.
    Cargo(Cargo),
    /// cargo must succeed, and its output must show tests that ran, none ignored, none filtered out.
    Tests(Cargo),
    /// cargo must fail, and say this.
    Refusal(Cargo, &'static str),
}

/// A call of cargo.
pub(crate) struct Cargo {
    pub(crate) arguments: &'static [&'static str],
    pub(crate) environment: &'static [(&'static str, &'static str)],
}

/// What earlier steps hand to later ones as environment variables.
pub(crate) type Environment = Vec<(&'static str, OsString)>;

const fn cargo(arguments: &'static [&'static str]) -> Cargo {
    Cargo {
        arguments,
        environment: &[],
    }
}

const fn rustdoc(arguments: &'static [&'static str]) -> Cargo {
    Cargo {
        arguments,
        environment: &[("RUSTDOCFLAGS", "-D warnings")],
    }
}

const fn long(arguments: &'static [&'static str]) -> Cargo {
    Cargo {
        arguments,
        environment: &[("KEYFERRY_LONG", "1")],
    }
}

/// Every run does these, in this order: what fails fast comes first.
///
/// The host's packages and all tests see the firmware library with `rsa`; without it the library is built, linted and
/// tested on its own. A board builds for its own target only.
pub(crate) const STEPS: &[Step] = &[
    Step {
        name: "setup",
        action: Action::Call {
            run: |screen, environment| {
                setup::ensure(screen, setup::Need::Tests)?;
                if let Some(library) = kryoptic::built() {
                    environment.push(("KEYFERRY_KRYOPTIC", library.into()));
                }
                Ok(())
            },
            by_hand: "cargo xtask setup",
        },
    },
    Step {
        name: "formatting",
        action: Action::Cargo(cargo(&["fmt", "--all", "--check"])),
    },
    Step {
        name: "formatting: kryoptic",
        action: Action::Cargo(cargo(&[
            "fmt",
            "--manifest-path",
            "tests/kryoptic/Cargo.toml",
            "--check",
        ])),
    },
    Step {
        name: "formatting: fuzz",
        action: Action::Cargo(cargo(&[
            "fmt",
            "--manifest-path",
            "tests/fuzz/Cargo.toml",
            "--check",
        ])),
    },
    Step {
        name: "clippy: host packages",
        action: Action::Cargo(cargo(&[
            "clippy",
            "--all-targets",
            "--features",
            "keyferry-firmware/rsa,keyferry-firmware/ecdh-p256-x963-sha256",
            "--",
            "-D",
            "warnings",
        ])),
    },
    Step {
        name: "clippy: the host for Windows",
        action: Action::Cargo(cargo(&[
            "clippy",
            "--package",
            "keyferry",
            "--target",
            "x86_64-pc-windows-gnu",
            "--",
            "-D",
            "warnings",
        ])),
    },
    Step {
        name: "clippy: firmware without rsa",
        action: Action::Cargo(cargo(&[
            "clippy",
            "--package",
            "keyferry-firmware",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ])),
    },
    Step {
        name: "clippy: board mps2-an386",
        action: Action::Cargo(cargo(&[
            "clippy",
            "--package",
            "keyferry-mps2-an386",
            "--target",
            "thumbv7em-none-eabi",
            "--",
            "-D",
            "warnings",
        ])),
    },
    Step {
        name: "clippy: board riscv-virt",
        action: Action::Cargo(cargo(&[
            "clippy",
            "--package",
            "keyferry-riscv-virt",
            "--target",
            "riscv32imac-unknown-none-elf",
            "--",
            "-D",
            "warnings",
        ])),
    },
    Step {
        name: "clippy: board nrf52840-dk",
        action: Action::Cargo(cargo(&[
            "clippy",
            "--package",
            "keyferry-nrf52840-dk",
            "--target",
            "thumbv7em-none-eabi",
            "--",
            "-D",
            "warnings",
        ])),
    },
    Step {
        name: "clippy: board nrf52840-dk, a product's",
        action: Action::Cargo(cargo(&[
            "clippy",
            "--package",
            "keyferry-nrf52840-dk",
            "--no-default-features",
            "--target",
            "thumbv7em-none-eabi",
            "--",
            "-D",
            "warnings",
        ])),
    },
    Step {
        name: "rustdoc: host packages",
        action: Action::Cargo(rustdoc(&[
            "doc",
            "--no-deps",
            "--features",
            "keyferry-firmware/rsa,keyferry-firmware/ecdh-p256-x963-sha256",
        ])),
    },
    Step {
        name: "rustdoc: board mps2-an386",
        action: Action::Cargo(rustdoc(&[
            "doc",
            "--no-deps",
            "--package",
            "keyferry-mps2-an386",
            "--target",
            "thumbv7em-none-eabi",
        ])),
    },
    Step {
        name: "rustdoc: board riscv-virt",
        action: Action::Cargo(rustdoc(&[
            "doc",
            "--no-deps",
            "--lib",
            "--package",
            "keyferry-board",
            "--package",
            "keyferry-emulated",
            "--package",
            "keyferry-riscv-virt",
            "--target",
            "riscv32imac-unknown-none-elf",
        ])),
    },
    Step {
        name: "rustdoc: board nrf52840-dk",
        action: Action::Cargo(rustdoc(&[
            "doc",
            "--no-deps",
            "--package",
            "keyferry-nrf52840-dk",
            "--target",
            "thumbv7em-none-eabi",
        ])),
    },
    Step {
        name: "board nrf52840-dk: built, linked and measured, not run",
        action: Action::Call {
            run: |screen, _| hardware::build(screen),
            by_hand: "cargo xtask hardware",
        },
    },
    Step {
        name: "no_std build: thumbv6m",
        action: Action::Cargo(cargo(&[
            "build",
            "--package",
            "keyferry-firmware",
            "--features",
            "ecdh-p256-x963-sha256",
            "--target",
            "thumbv6m-none-eabi",
        ])),
    },
    Step {
        name: "no_std build: thumbv7em, rsa",
        action: Action::Cargo(cargo(&[
            "build",
            "--package",
            "keyferry-firmware",
            "--features",
            "rsa",
            "--target",
            "thumbv7em-none-eabi",
        ])),
    },
    Step {
        name: "no_std build: riscv32imac, rsa",
        action: Action::Cargo(cargo(&[
            "build",
            "--package",
            "keyferry-firmware",
            "--features",
            "rsa",
            "--target",
            "riscv32imac-unknown-none-elf",
        ])),
    },
    Step {
        name: "refusal: rsa on thumbv6m",
        action: Action::Refusal(
            cargo(&[
                "check",
                "--package",
                "keyferry-firmware",
                "--features",
                "rsa",
                "--target",
                "thumbv6m-none-eabi",
            ]),
            "feature `rsa-keys`, and `rsa` with it, does not build for targets without atomic compare-and-swap",
        ),
    },
    Step {
        name: "refusal: a firmware without a suite",
        action: Action::Refusal(
            cargo(&[
                "check",
                "--package",
                "keyferry-firmware",
                "--no-default-features",
            ]),
            "no suite is switched on",
        ),
    },
    Step {
        name: "refusal: RSA key generation without a suite for it",
        action: Action::Refusal(
            cargo(&[
                "check",
                "--package",
                "keyferry-firmware",
                "--features",
                "rsa-generation",
            ]),
            "feature `rsa-generation` makes an unwrap key for which no suite is switched on",
        ),
    },
    Step {
        name: "firmware images",
        action: Action::Call {
            run: |_, environment| {
                for board in Board::ALL {
                    for variant in Variant::tested(board) {
                        let image = firmware::build(board, *variant)?;
                        if let Some(folder) = image.ancestors().nth(2) {
                            environment.push(("KEYFERRY_FIRMWARE_DIR", folder.into()));
                        }
                    }
                }
                Ok(())
            },
            by_hand: "cargo build --package keyferry-mps2-an386 --target thumbv7em-none-eabi --profile firmware, \
                      keyferry-riscv-virt for riscv32imac-unknown-none-elf, and keyferry-native with --release",
        },
    },
    Step {
        name: "tests",
        action: Action::Tests(cargo(&[
            "test",
            "--no-fail-fast",
            "--features",
            "keyferry-firmware/rsa,keyferry-firmware/ecdh-p256-x963-sha256",
        ])),
    },
    Step {
        name: "tests: firmware without rsa",
        action: Action::Tests(cargo(&[
            "test",
            "--no-fail-fast",
            "--package",
            "keyferry-firmware",
        ])),
    },
    Step {
        name: "the demo on riscv-virt",
        action: Action::Call {
            run: |screen, _| demo::run(screen, Board::RiscvVirt, "p-256", None).map(|_| ()),
            by_hand: "cargo xtask demo --board riscv-virt --unwrap p-256",
        },
    },
    Step {
        name: "the demo on native",
        action: Action::Call {
            run: |screen, _| demo::run(screen, Board::Native, "p-256", None).map(|_| ()),
            by_hand: "cargo xtask demo --board native --unwrap p-256",
        },
    },
    Step {
        name: "the demo over a bad line",
        action: Action::Call {
            run: |screen, _| {
                // Bit errors, a stall and a reset, each seed at other places.
                for seed in 1..=2 {
                    demo::run(screen, Board::Mps2An386, "rsa-2048", Some(seed))?;
                }
                Ok(())
            },
            by_hand: "cargo xtask demo --bad-line --seed 1",
        },
    },
];

/// `--long` adds these.
pub(crate) const CAMPAIGNS: &[Step] = &[
    Step {
        name: "setup: what the campaigns need",
        action: Action::Call {
            run: |screen, _| setup::ensure(screen, setup::Need::Fuzz),
            by_hand: "cargo xtask setup",
        },
    },
    Step {
        name: "campaign: tests, long",
        action: Action::Tests(long(&[
            "test",
            "--no-fail-fast",
            "--features",
            "keyferry-firmware/rsa,keyferry-firmware/ecdh-p256-x963-sha256",
        ])),
    },
    Step {
        name: "tests: firmware with one RSA suite, without key generation",
        action: Action::Tests(cargo(&[
            "test",
            "--no-fail-fast",
            "--package",
            "keyferry-firmware",
            "--lib",
            "--no-default-features",
            "--features",
            "rsa-oaep-sha256,aes-192,aes-modes",
        ])),
    },
    Step {
        name: "tests: firmware with the other ECDH suite alone",
        action: Action::Tests(cargo(&[
            "test",
            "--no-fail-fast",
            "--package",
            "keyferry-firmware",
            "--no-default-features",
            "--features",
            "ecdh-p256-x963-sha256,aes-192,aes-modes",
        ])),
    },
    Step {
        name: "clippy: board mps2-an386, measuring, with flash faults",
        action: Action::Cargo(cargo(&[
            "clippy",
            "--package",
            "keyferry-mps2-an386",
            "--target",
            "thumbv7em-none-eabi",
            "--features",
            "measure,sabotage-early-reject,flash-faults",
            "--",
            "-D",
            "warnings",
        ])),
    },
    Step {
        name: "dependencies: licences, sources, advisories",
        action: Action::Call {
            run: |screen, _| dependencies::check(screen),
            by_hand: "cargo deny check",
        },
    },
    Step {
        name: "dist: the archive for users",
        action: Action::Call {
            run: |screen, _| dist::run(screen).map(|_| ()),
            by_hand: "cargo xtask dist",
        },
    },
    Step {
        name: "miri: protocol",
        action: Action::Tests(Cargo {
            arguments: &[
                "+nightly",
                "miri",
                "test",
                "--no-fail-fast",
                "--package",
                "keyferry-protocol",
            ],
            // The vectors are read from files.
            environment: &[("MIRIFLAGS", "-Zmiri-disable-isolation")],
        }),
    },
    Step {
        name: "campaign: bench leakage",
        action: Action::Call {
            run: |screen, _| {
                let outcome = bench::run(screen, &Bench::Leakage)?;
                ensure!(
                    outcome.ok,
                    "the device's answers or its work tell what was wrong"
                );
                Ok(())
            },
            by_hand: "cargo xtask bench leakage",
        },
    },
    Step {
        name: "campaign: bench link",
        action: Action::Call {
            run: |screen, _| {
                let outcome = bench::run(screen, &Bench::Link)?;
                ensure!(outcome.ok, "the link does not use the wire as it should");
                Ok(())
            },
            by_hand: "cargo xtask bench link",
        },
    },
    Step {
        name: "campaign: the demo over bad lines",
        action: Action::Call {
            run: |screen, _| {
                for seed in 100..120 {
                    demo::run(screen, Board::Mps2An386, "p-256", Some(seed))?;
                }
                Ok(())
            },
            by_hand: "cargo xtask demo --bad-line --unwrap p-256",
        },
    },
    Step {
        name: "campaign: bench sessions",
        action: Action::Call {
            run: |screen, _| {
                let sessions = Bench::Sessions {
                    seed: 1,
                    sessions: 10_000,
                    unchecked: false,
                };
                let outcome = bench::run(screen, &sessions)?;
                ensure!(outcome.ok, "sessions do not end as they must");
                Ok(())
            },
            by_hand: "cargo xtask bench sessions",
        },
    },
    Step {
        name: "campaign: bench sessions, unchecked",
        action: Action::Call {
            run: |screen, _| {
                let sessions = Bench::Sessions {
                    seed: 1,
                    sessions: 400,
                    unchecked: true,
                };
                let outcome = bench::run(screen, &sessions)?;
                ensure!(outcome.ok, "the campaign does not find wrong bytes");
                Ok(())
            },
            by_hand: "cargo xtask bench sessions --unchecked --sessions 400",
        },
    },
    Step {
        name: "campaign: fuzz",
        action: Action::Call {
            run: |screen, _| {
                let wanted = Wanted {
                    seconds: 60,
                    targets: &[],
                    keep: false,
                };
                let outcome = fuzz::run(screen, &wanted)?;
                ensure!(outcome.ok, "a target failed");
                Ok(())
            },
            by_hand: "cargo xtask fuzz --seconds 60",
        },
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn all() -> impl Iterator<Item = &'static Step> {
        STEPS.iter().chain(CAMPAIGNS)
    }

    #[test]
    fn names_are_unique_because_scripts_look_for_them() {
        let names: BTreeSet<_> = all().map(|step| step.name).collect();
        assert_eq!(names.len(), all().count());
    }

    #[test]
    fn no_step_changes_rustflags() {
        for step in all() {
            let (Action::Cargo(cargo) | Action::Tests(cargo) | Action::Refusal(cargo, _)) =
                &step.action
            else {
                continue;
            };
            assert!(
                cargo
                    .environment
                    .iter()
                    .all(|(name, _)| *name != "RUSTFLAGS"),
                "{}",
                step.name
            );
        }
    }
}
