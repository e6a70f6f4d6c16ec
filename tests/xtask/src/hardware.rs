//! Builds the images of boards that are not emulated, and tells what they take. That they link is all that is shown: nothing runs here.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use object::LittleEndian;
use object::elf::{FileHeader32, PT_LOAD};
use object::read::elf::{ElfFile32, FileHeader as _, ProgramHeader as _};
use serde_json::json;

use crate::firmware;
use crate::process;
use crate::screen::{GOOD, Screen};

/// The board's package, target, and where its RAM begins; flash is below.
const PACKAGE: &str = "keyferry-nrf52840-dk";
const TARGET: &str = "thumbv7em-none-eabi";
const RAM: u32 = 0x2000_0000;
/// The stack in its `memory.x`, in bytes, which no section of the image tells.
const STACK: u64 = 64 * 1024;

/// Builds: their names, and cargo's arguments.
const BUILDS: [(&str, &[&str]); 2] = [
    ("development", &[]),
    (
        "product, ECDH only",
        &[
            "--no-default-features",
            "--features",
            "ecdh-p256-x963-sha256",
        ],
    ),
];

/// Builds all of them, and tells.
///
/// # Errors
/// If one does not build or link.
pub(crate) fn build(screen: &Screen) -> Result<()> {
    for (build, arguments) in BUILDS {
        let image = image(arguments).with_context(|| format!("{PACKAGE}, {build}"))?;
        let (flash, ram) = lengths(&image)?;
        screen.mark(
            GOOD,
            "linked",
            format!(
                "{PACKAGE}, {build}: {flash} bytes of flash, {ram} of RAM and {STACK} of stack"
            ),
        );
        screen.record(&json!({
            "board": "nrf52840-dk", "build": build, "run": false,
            "flash": flash, "ram": ram, "stack": STACK,
        }))?;
    }
    Ok(())
}

fn image(arguments: &[&str]) -> Result<PathBuf> {
    let mut cargo = process::command(
        firmware::cargo(),
        ["build", "--package", PACKAGE, "--target", TARGET],
    );
    cargo
        .args([
            "--profile",
            firmware::PROFILE,
            "--message-format=json-render-diagnostics",
        ])
        .args(arguments)
        .stderr(Stdio::inherit());
    if env::var_os("DEFMT_LOG").is_none() {
        cargo.env("DEFMT_LOG", "info");
    }
    let output = cargo.output()?;
    ensure!(output.status.success(), "it does not build");
    firmware::executable(&output.stdout, PACKAGE).context("cargo names no image")
}

/// Bytes of flash (code, constants and initial values) and of static RAM, from the image's program headers.
fn lengths(image: &Path) -> Result<(u64, u64)> {
    let bytes = std::fs::read(image)?;
    let file = ElfFile32::<LittleEndian>::parse(&*bytes)?;
    let endian = FileHeader32::<LittleEndian>::endian(file.elf_header())?;
    let (mut flash, mut ram) = (0, 0);
    for segment in file.elf_program_headers() {
        if segment.p_type(endian) == PT_LOAD {
            flash += u64::from(segment.p_filesz(endian));
            if segment.p_vaddr(endian) >= RAM {
                ram += u64::from(segment.p_memsz(endian));
            }
        }
    }
    ensure!(flash > 0, "nothing in the image is loaded");
    Ok((flash, ram))
}
