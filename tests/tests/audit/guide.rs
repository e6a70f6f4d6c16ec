//! The guide.

use std::path::Path;
use std::process::Command;

use keyferry::audit::AuditLog;
use keyferry_tests::command::{binary, done, keyferry, refused};
use keyferry_tests::tokens::{Kind as TokenKind, Scratch};

use crate::command::{audit, text};

/// The commands of `host/AUDIT.md`, run as they stand there. They are for a shell, so this is for systems that have one.
#[test]
fn the_guide_works_as_it_stands() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/AUDIT.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let blocks: Vec<_> = guide
        .split("\n```sh\n")
        .skip(1)
        .map(|rest| rest.split_once("\n```").unwrap().0)
        .collect();
    assert!(blocks.len() >= 4, "{blocks:?}");
    let scratch = Scratch::with(&[(TokenKind::SoftHsm, "line")]);
    let search = std::env::var("PATH").unwrap();
    for block in blocks {
        let output = Command::new("sh")
            .args(["-e", "-u", "-c", block])
            .current_dir(scratch.path(""))
            .envs(scratch.environment())
            .env("TOKEN", scratch.uri_of("line"))
            .env(
                "PATH",
                format!("{}:{search}", binary().parent().unwrap().display()),
            )
            .env_remove("KEYFERRY_TOKEN")
            .env_remove("KEYFERRY_PIN")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{block}\n{said}");
    }
    // What the guide says of keys that do more than sign, and of another key than the log's.
    let file = |name: &str| text(&scratch.path(name)).to_owned();
    let command = |arguments: &[&str]| {
        let mut command = audit(arguments);
        command
            .args(["--token", &scratch.uri_of("line")])
            .envs(scratch.environment());
        command
    };
    let mut create = keyferry();
    create
        .args(["key", "create", "--label", "loose", "--type", "p-256"])
        .args(["--usage", "sign,verify,derive"])
        .args(["--token", &scratch.uri_of("line")])
        .envs(scratch.environment());
    done(&mut create);
    let new = file("new.log");
    let create = |authority: &'static str, audit_key: &'static str| {
        let mut command = command(&["create", &new, "--station", "s"]);
        command.args(["--authority", authority, "--audit-key", audit_key]);
        command
    };
    refused(
        || create("authority", "loose"),
        5,
        "may do more than sign",
        "key create",
    );
    assert!(!Path::new(&new).exists());
    let last = done(&mut create("authority", "audit"));
    assert_eq!((&last["station"], &last["lines"]), (&"s".into(), &1.into()));
    refused(
        || create("authority", "audit"),
        2,
        "exists already",
        "name a new file",
    );
    let log = file("line-7.log");
    let checkpoint = |key: &'static str| command(&["checkpoint", &log, "--audit-key", key]);
    let before = std::fs::read(&log).unwrap();
    refused(
        || checkpoint("loose"),
        5,
        "may do more than sign",
        "key create",
    );
    refused(
        || checkpoint("authority"),
        2,
        "the log's audit key is",
        "use the audit key",
    );
    assert_eq!(std::fs::read(&log).unwrap(), before);
    let held = AuditLog::open(Path::new(&log)).unwrap();
    refused(
        || checkpoint("audit"),
        2,
        "in use by another process",
        "end the other station",
    );
    drop(held);
    done(&mut checkpoint("audit"));
}
