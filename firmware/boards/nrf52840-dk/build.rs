//! Hands the linker its scripts, so that the board builds with plain `cargo build --target thumbv7em-none-eabi`.

use std::path::Path;
use std::{env, fs};

fn main() {
    let out = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts");
    let out = Path::new(&out);
    fs::write(out.join("memory.x"), include_bytes!("memory.x")).expect("OUT_DIR is writable");

    println!("cargo:rustc-link-search={}", out.display());
    println!("cargo:rustc-link-arg-bins=-Tlink.x");
    println!("cargo:rustc-link-arg-bins=-Tdefmt.x");
    // Without this the linker may round the first segment down to an address before the vector table.
    println!("cargo:rustc-link-arg-bins=--nmagic");
    println!("cargo:rerun-if-changed=memory.x");
    println!("cargo:rerun-if-changed=build.rs");
    // The authority of a product image: see lib.rs.
    println!("cargo:rerun-if-env-changed=KEYFERRY_AUTHORITY");
}
