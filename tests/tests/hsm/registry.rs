//! Modules that are named as p11-kit's registry knows them (`module-name` of a PKCS#11 URI).

use std::path::PathBuf;

use keyferry_tests::tokens::{Kind, Scratch};
use percent_encoding::percent_decode_str;

/// Registers a module for the one user whose configuration this folder is; gives the folder.
fn register(scratch: &Scratch, name: &str, settings: &str) -> PathBuf {
    let configuration = scratch.path("config");
    let modules = configuration.join("pkcs11/modules");
    std::fs::create_dir_all(&modules).unwrap();
    std::fs::write(modules.join(format!("{name}.module")), settings).unwrap();
    configuration
}

/// Creates a key on the token `line` of the registered module, and finds it there.
fn works(scratch: &Scratch, configuration: PathBuf, name: &str) {
    let uri = format!(
        "pkcs11:token=line?module-name={name}&pin-source=file:{}",
        scratch.pin_file().display()
    );
    let run = |arguments: &[&str]| {
        keyferry_tests::command::done(
            scratch
                .command()
                .env("XDG_CONFIG_HOME", &configuration)
                .env("KEYFERRY_TOKEN", &uri)
                .args(arguments),
        )
    };
    run(&["key", "create", "--label", "kept", "--type", "aes-128"]);
    assert_eq!(run(&["key", "list"])["keys"], 1);
}

#[test]
fn a_registered_module_is_used() {
    let scratch = Scratch::new("line");
    let library = Kind::SoftHsm.module();
    let configuration = register(
        &scratch,
        "keyferry-test",
        &format!("# for a test\nmodule: {}\n", library.display()),
    );
    works(&scratch, configuration, "KeyFerry-Test");
}

/// NSS's softokn takes its whole configuration from what the registry says `C_Initialize` is to be given.
#[test]
fn a_registered_configuration_string_is_used() {
    let scratch = Scratch::of(Kind::Nss, "line");
    let uri = scratch.uri();
    let (_, rest) = uri.split_once("init-reserved=").unwrap();
    let (reserved, _) = rest.split_once('&').unwrap();
    let configuration = register(
        &scratch,
        "keyferry-test",
        &format!(
            "module: {}\nx-init-reserved: {}\n",
            Kind::Nss.module().display(),
            percent_decode_str(reserved).decode_utf8().unwrap()
        ),
    );
    works(&scratch, configuration, "keyferry-test");
}

#[test]
fn a_name_that_is_not_registered_is_refused() {
    let scratch = Scratch::new("line");
    let refused = |name: &str, error: &str| {
        let configuration = scratch.path("config").display().to_string();
        scratch.refused_with(
            &[
                "hsm",
                "tokens",
                "--token",
                &format!("pkcs11:?module-name={name}"),
            ],
            &[("XDG_CONFIG_HOME", &configuration)],
            2,
            error,
            "module-path=",
        );
    };
    register(&scratch, "keyferry-test", "module: /nowhere/lib.so");
    register(
        &scratch,
        "keyferry-other",
        "module: /nowhere/other.so\nenable-in: other",
    );
    refused(
        "keyferry-other",
        "no PKCS#11 module 'keyferry-other' is registered here; there are: ",
    );
    refused("keyferry-none", "'keyferry-test'");
    register(&scratch, "keyferry-test", "no setting");
    refused(
        "keyferry-test",
        "keyferry-test.module cannot be used: line 1 is not 'name: value'",
    );
}

#[test]
fn a_registered_library_that_is_not_there_is_refused() {
    let scratch = Scratch::new("line");
    let configuration = register(&scratch, "keyferry-test", "module: /nowhere/lib.so");
    scratch.refused_with(
        &[
            "hsm",
            "tokens",
            "--token",
            "pkcs11:?module-name=keyferry-test",
        ],
        &[("XDG_CONFIG_HOME", &configuration.display().to_string())],
        3,
        "there is no PKCS#11 module at /nowhere/lib.so",
        "--module",
    );
}
