//! Replays every input that the fuzzer's corpus and past findings hold, with the ordinary compiler, and holds the list of
//! targets against what cargo-fuzz builds.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use keyferry_tests::fuzz::{TARGETS, Target};

/// The kept inputs of all targets together take no more bytes than this.
const MAXIMUM_CORPUS: u64 = 1024 * 1024;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz")
        .join(name)
}

/// The names in a folder of `tests/fuzz`; none if there is no such folder.
fn names(folder: &Path) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return BTreeSet::new();
    };
    entries
        .map(|entry| {
            let name = entry.expect("the folder can be read").file_name();
            name.into_string().expect("names are ASCII")
        })
        .collect()
}

/// The inputs in a folder of a target.
fn inputs(kind: &str, target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = folder(kind).join(target.name);
    names(&folder)
        .iter()
        .map(|name| {
            let path = folder.join(name);
            let bytes = fs::read(&path).expect("an input can be read");
            (path, bytes)
        })
        .collect()
}

/// Runs a target on an input whose name is shown if it does not come back.
fn run(target: &Target, what: &str, input: &[u8]) -> bool {
    let run = std::panic::AssertUnwindSafe(|| (target.run)(input));
    std::panic::catch_unwind(run)
        .unwrap_or_else(|_| panic!("target {} fails on {what}", target.name))
}

#[test]
fn every_target_takes_its_seeds() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{}", target.name);
        for (number, seed) in seeds.iter().enumerate() {
            let what = format!("seed {number}, {}", String::from_utf8_lossy(seed));
            assert!(run(target, &what, seed), "{}: {what}", target.name);
        }
    }
}

/// What is nearly right: each seed cut off anywhere, and with any one byte changed.
#[test]
fn no_target_fails_close_to_a_seed() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        let Some(seed) = seeds.iter().min_by_key(|seed| seed.len()) else {
            panic!("{} has no seeds", target.name);
        };
        let mut refused = 0;
        for length in 0..seed.len() {
            refused += usize::from(!run(target, "a cut", &seed[..length]));
            let mut changed = seed.clone();
            changed[length] ^= 1 << (length % 8);
            run(target, "a flipped bit", &changed);
        }
        assert!(refused > 0, "{} refuses nothing", target.name);
    }
}

#[test]
fn every_kept_input_passes() {
    for target in TARGETS {
        let corpus = inputs("corpus", target);
        let taken = corpus
            .iter()
            .filter(|(path, input)| run(target, &path.display().to_string(), input))
            .count();
        assert!(
            (1..corpus.len()).contains(&taken),
            "{}: {taken} of {} inputs are valid; a corpus has both",
            target.name,
            corpus.len()
        );
        for (path, input) in inputs("regressions", target) {
            run(target, &path.display().to_string(), &input);
        }
    }
}

#[test]
fn the_corpus_is_small() {
    let files = TARGETS.iter().flat_map(|target| inputs("corpus", target));
    let bytes: usize = files.map(|(_, input)| input.len()).sum();
    assert!(bytes as u64 <= MAXIMUM_CORPUS, "{bytes} bytes");
}

/// No input lies where nobody runs it, and no target is left out of the fuzzer's own list.
#[test]
fn targets_files_and_folders_are_the_same() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|it| it.name.to_owned()).collect();
    assert_eq!(targets.len(), TARGETS.len(), "a name is given twice");
    let files: BTreeSet<String> = targets.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(names(&folder("fuzz_targets")), files);
    for kind in ["corpus", "regressions"] {
        let stray: Vec<_> = names(&folder(kind)).difference(&targets).cloned().collect();
        assert!(stray.is_empty(), "{kind}: {stray:?}");
    }
    let manifest = fs::read_to_string(folder("Cargo.toml")).expect("the manifest can be read");
    for name in &targets {
        let path = folder("fuzz_targets").join(format!("{name}.rs"));
        let file = fs::read_to_string(path).expect("the file can be read");
        assert_eq!(
            file,
            format!("#![no_main]\nkeyferry_fuzz::target!(\"{name}\");\n")
        );
        let row = format!("[[bin]]\nname = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"\n");
        assert!(manifest.contains(&row), "{name} is not in Cargo.toml");
    }
}
