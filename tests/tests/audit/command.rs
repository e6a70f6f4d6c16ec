//! `keyferry audit`, as a user runs it.

use std::path::Path;
use std::process::Command;

use keyferry_tests::command::{Answer, binary, done, keyferry, refused};

use crate::kept::kept;

pub(crate) fn audit(arguments: &[&str]) -> Command {
    let mut command = keyferry();
    command.arg("audit").args(arguments);
    command
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_command_says_what_is_wrong_and_where() {
    let kept = kept();
    let path = kept.path();
    let file = |name: &str| text(&kept.folder.path().join(name)).to_owned();
    let (anchor, authority, key) = (
        file("anchor.json"),
        file("authority.der"),
        file("audit.der"),
    );
    let whole = [
        "verify",
        text(&path),
        "--authority",
        &authority,
        "--audit-key",
        &key,
    ];
    let with_anchor = [&whole[..], &["--anchor", &anchor]].concat();

    let last = done(&mut audit(&with_anchor));
    assert_eq!(
        (&last["anchored"], &last["keys"]["open"]),
        (&true.into(), &1.into())
    );
    let answer = Answer::of(&mut audit(&with_anchor));
    assert!(!answer.stderr.contains("warning"), "{answer:?}");

    let answer = Answer::of(&mut audit(&whole));
    assert_eq!(answer.code, 0);
    assert!(answer.stderr.contains("end not anchored"), "{answer:?}");
    let last = done(&mut audit(&whole));
    assert_eq!(
        (&last["anchored"], &last["anchored_until"]),
        (&false.into(), &0.into())
    );

    let answer = Answer::of(&mut audit(&["verify", text(&path)]));
    assert!(
        answer.stderr.contains("taken from the log itself"),
        "{answer:?}"
    );

    let lines = kept.lines();
    let mut altered = lines.clone();
    altered[6][30] ^= 1;
    std::fs::write(&path, altered.concat()).unwrap();
    refused(|| audit(&whole), 1, "line 7: ", "keep the file as it is");
    let answer = Answer::of(audit(&whole).arg("--json"));
    assert_eq!(answer.json()[0]["broken_line"], 7);
    // What comes before it is shown.
    let answer = Answer::of(&mut audit(&["show", text(&path)]));
    assert_eq!((answer.code, answer.stdout.lines().count()), (1, 6));
    let out = file("table.csv");
    refused(
        || audit(&["export", text(&path), "--format", "csv", "--out", &out]),
        1,
        "line 7: ",
        "keep the file as it is",
    );
    assert!(!Path::new(&out).exists());

    std::fs::write(&path, lines[..8].concat()).unwrap();
    refused(
        || audit(&with_anchor),
        1,
        "the log was cut off: it has 8 lines",
        "look for the log",
    );
    std::fs::write(&path, crate::kept::kept().lines().concat()).unwrap();
    refused(
        || audit(&with_anchor),
        1,
        "the log was replaced",
        "look for the log",
    );
    std::fs::write(&path, &lines.concat()[..lines.concat().len() - 9]).unwrap();
    refused(
        || audit(&whole),
        1,
        "it is not finished",
        "next opened for writing",
    );

    let mut forged = std::fs::read_to_string(&anchor).unwrap();
    let seen = lines.len() - 1;
    forged = forged.replace(&format!("\"lines\": {seen}"), "\"lines\": 3");
    std::fs::write(&anchor, forged).unwrap();
    refused(
        || audit(&with_anchor),
        2,
        "its signature is wrong",
        "an anchor is",
    );
    std::fs::write(&anchor, "{}").unwrap();
    refused(|| audit(&with_anchor), 2, "is no anchor", "an anchor is");
    std::fs::write(&anchor, vec![b' '; 1 << 20]).unwrap();
    refused(|| audit(&with_anchor), 2, "longer than", "an anchor is");
    refused(
        || audit(&["verify", &file("absent")]),
        2,
        "cannot be read",
        "",
    );
}

#[test]
fn a_log_is_shown_and_exported_without_harm() {
    let kept = kept();
    let path = kept.path();
    let answer = Answer::of(&mut audit(&["show", text(&path)]));
    assert_eq!(answer.code, 0, "{answer:?}");
    assert_eq!(answer.stdout.lines().count(), kept.lines().len());
    assert!(answer.stdout.contains("=end of the shift?[2J"));
    assert!(!answer.stdout.contains('\u{1b}'));

    let out = kept.folder.path().join("table.csv");
    let csv = [
        "export",
        text(&path),
        "--format",
        "csv",
        "--out",
        text(&out),
    ];
    let rows = done(&mut audit(&csv))["rows"].as_u64().unwrap();
    let table = std::fs::read_to_string(&out).unwrap();
    assert_eq!(table.lines().count() as u64, rows + 1);
    assert!(table.starts_with("line,time,event,device,"));
    assert!(table.contains("'=end of the shift"));
    assert!(table.contains("refused") || table.contains("applied"));
    refused(|| audit(&csv), 2, "exists already", "--force");

    let out = kept.folder.path().join("table.json");
    let json = [
        "export",
        text(&path),
        "--format",
        "json",
        "--out",
        text(&out),
    ];
    assert_eq!(done(&mut audit(&json))["rows"], rows);
    let table: serde_json::Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
    let objects = table.as_array().unwrap();
    assert_eq!(objects.len() as u64, rows);
    assert!(
        objects
            .iter()
            .any(|row| row["text"] == "=end of the shift\u{1b}[2J")
    );
    let proved = objects
        .iter()
        .filter(|row| row["event"] == "proved")
        .count();
    assert_eq!(proved, 3);
}

/// The command gets two MiB for its data, and a log that is longer: it does not hold the lines.
#[cfg(target_os = "linux")]
#[test]
fn a_long_log_is_verified_in_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let lines = keyferry_tests::long_log::write_long(&path, 400, 20);
    assert_eq!(lines, 2801);
    let length = std::fs::metadata(&path).unwrap().len();
    assert!(length > 2 << 20, "{length}");
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -d 2048 && exec \"$@\"", "sh"])
        .arg(binary())
        .args(["audit", "verify", text(&path)]);
    let last = done(&mut command);
    assert_eq!(
        (&last["lines"], &last["keys"]["proved"]),
        (&2801.into(), &400.into())
    );
}
