//! Tells the library how it is compiled: how deep its stack goes depends on it.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(small_code)");
    // Cargo's own word for the level of the profile in use.
    if std::env::var("OPT_LEVEL").is_ok_and(|level| level == "z") {
        println!("cargo::rustc-cfg=small_code");
    }
}
