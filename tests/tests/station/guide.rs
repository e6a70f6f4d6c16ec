//! The commands of the README, of `host/STATION.md` and of `host/OPERATOR.md`, run as they stand there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use keyferry_native::LineKind;
use keyferry_tests::board::{Board, Image};
use keyferry_tests::guide;
use keyferry_tests::openssl::make_rsa;
use keyferry_tests::tokens::{Kind, Scratch};

use crate::Fleet;

#[test]
fn the_guide_works_as_it_stands() {
    let scratch = Scratch::new("line");
    let fleet = Fleet::new();
    let devices = [1, 2, 3].map(|number| fleet.start_on(number, LineKind::PseudoTerminal));
    let [a1, a2, b1] = devices.each_ref().map(|device| device.port().to_owned());
    let variables = [("TOKEN", scratch.uri()), ("A1", a1), ("A2", a2), ("B1", b1)];
    guide::run("host/STATION.md", &scratch, &variables);
}

#[test]
fn a_tray_is_run_broken_and_mended_as_the_operators_guide_says() {
    let scratch = Scratch::new("unused");
    let firmware = Image::Default.elf(Board::Native).display().to_string();
    let compared = guide::run("host/OPERATOR.md", &scratch, &[("FIRMWARE", firmware)]);
    assert!(compared > 20, "{compared}");
    // All was mended.
    let page = fs::read_to_string(scratch.path("shift.html")).expect("a page");
    assert!(page.contains("100.0 %"), "{page}");
}

/// The README's commands by hand, one after the other, with a token and a device of this test's in the place of the user's. Those that start an
/// emulated device are not among them.
#[test]
fn the_readmes_commands_work_as_they_stand() {
    let scratch = Scratch::new("my-token");
    let (_recipient, _) = make_rsa(&scratch, "someone", 2048);
    let fleet = Fleet::new();
    let device = fleet.start_on(1, LineKind::PseudoTerminal);
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = fs::read_to_string(readme).expect("the README");
    let section = text.split("\n## The same by hand\n").nth(1).expect("it");
    let (by_hand, _) = section.split_once("\nAny PKCS#11 token").expect("its end");
    let module = Kind::SoftHsm.module().display().to_string();
    let mut ran = BTreeSet::new();
    for line in by_hand.lines() {
        let (line, _comment) = line.split_once(" #").unwrap_or((line, ""));
        let words: Vec<_> = line.split_whitespace().collect();
        let ["keyferry", command, ..] = words[..] else {
            continue;
        };
        if command == "emulate" {
            continue;
        }
        let arguments = words[1..].iter().map(|word| match *word {
            "/dev/pts/7" => device.port(),
            "/usr/lib/softhsm/libsofthsm2.so" => &module,
            word => word,
        });
        let answer = scratch.run(arguments);
        assert_eq!(answer.code, 0, "{line}: {answer:?}");
        ran.insert(words[1..3].join(" "));
    }
    for command in ["hsm probe", "device inject", "device wipe", "key export"] {
        assert!(ran.contains(command), "{command}: {ran:?}");
    }
    assert_eq!(ran.len(), 12, "{ran:?}");
}

/// All text of the files below a folder.
fn all_text(folder: &Path) -> String {
    let entries = fs::read_dir(folder).expect("a folder");
    let texts = entries.map(|entry| {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all_text(&path)
        } else {
            fs::read_to_string(path).expect("a text")
        }
    });
    texts.collect()
}

/// An operator looks for the words on the screen: they are what the command says.
#[test]
fn the_operators_table_has_words_that_the_command_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let said = all_text(&root.join("host/src"));
    let guide = fs::read_to_string(root.join("host/OPERATOR.md")).unwrap();
    let table = guide.split("## What stands behind FAIL").nth(1).unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let mut looked = 0;
    for row in rows {
        let cell = row.split('|').nth(1).unwrap();
        let words = cell.split('`').skip(1).step_by(2);
        for part in words.flat_map(|words| words.split('…')) {
            let part = part.trim();
            assert!(said.contains(part), "{part}");
            looked += 1;
        }
    }
    assert!(looked > 15, "{looked}");
}
