//! `cargo xtask fuzz`: builds the fuzz targets and runs each for a while. What a target does is in `tests/src/fuzz`; every input
//! that was worth keeping is in `tests/fuzz`, where the ordinary tests replay it.

mod stats;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Map, Value, json};

use crate::Outcome;
use crate::firmware::target_folder;
use crate::process::{self, ask, command, root};
use crate::screen::{self, BAD, GOOD, NOTE, Screen};
use crate::setup::{self, Need};
use stats::Stats;

/// The package's folder in the repository.
const PACKAGE: &str = "tests/fuzz";

/// Seconds that one input may take: a thousand times what the slowest takes, so that a busy machine is no finding.
const TIMEOUT: u32 = 25;

/// Megabytes that a process may take. The address sanitizer's own shadow and the inputs are most of it.
const MEMORY: u32 = 512;

/// Megabytes that a single allocation may take. No reader has a limit beyond 64 MiB, and no input is that long.
const ALLOCATION: u32 = 64;

/// For the address sanitizer: how many megabytes of freed memory it keeps from being used again, whose default would hide growth;
/// and, as cargo-fuzz has it, nothing about names that are defined twice.
const SANITIZER: &str = "quarantine_size_mb=16:detect_odr_violation=0";

/// Where the targets find the folder for their seeds: `keyferry_tests::fuzz::SEEDS_VARIABLE`.
const SEEDS_VARIABLE: &str = "KEYFERRY_FUZZ_SEEDS";

/// Most inputs, and most bytes of them, that are kept of a target in the repository: those that reach most. The rest, mostly inputs
/// that are refused in one more way, is found again within seconds.
const KEPT: (usize, u64) = (64, 48 * 1024);

/// What is asked for.
pub(crate) struct Wanted<'a> {
    /// Seconds for each target.
    pub(crate) seconds: u32,
    /// The targets; none means all.
    pub(crate) targets: &'a [String],
    /// Whether to keep the inputs that were found, minimised, in the repository.
    pub(crate) keep: bool,
}

/// The door.
///
/// # Errors
/// If something cannot be built or started, or there is no such target. That a target failed is in the outcome.
pub(crate) fn run(screen: &Screen, wanted: &Wanted<'_>) -> anyhow::Result<Outcome> {
    let names = chosen(wanted.targets)?;
    setup::ensure(screen, Need::Fuzz)?;
    let folders = Folders::find()?;
    build(screen, &folders)?;
    let (mut reports, mut failed) = (Vec::new(), Vec::new());
    for name in &names {
        let report = fuzz(screen, &folders, name, wanted.seconds)?;
        report.tell(screen)?;
        if report.finding.is_some() {
            failed.push(name.clone());
        } else if wanted.keep {
            keep(screen, &folders, name)?;
        }
        reports.push(report);
    }
    close(screen, &reports, failed)
}

/// The targets that are wanted, in the order of their names.
fn chosen(wanted: &[String]) -> anyhow::Result<Vec<String>> {
    let folder = root().join(PACKAGE).join("fuzz_targets");
    let mut all = BTreeSet::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("no {}", folder.display()))? {
        let path = entry?.path();
        all.extend(
            path.file_stem()
                .and_then(|name| name.to_str().map(str::to_owned)),
        );
    }
    if let Some(unknown) = wanted.iter().find(|name| !all.contains(*name)) {
        let all: Vec<_> = all.into_iter().collect();
        bail!(
            "there is no target '{unknown}'; there are {}",
            all.join(", ")
        );
    }
    all.retain(|name| wanted.is_empty() || wanted.contains(name));
    Ok(all.into_iter().collect())
}

/// Where everything is.
struct Folders {
    /// cargo's output for this package.
    target: PathBuf,
    /// The executables.
    programs: PathBuf,
    /// What the fuzzer finds on this machine, from run to run.
    work: PathBuf,
}

impl Folders {
    fn find() -> anyhow::Result<Self> {
        let cargo = target_folder().context("cargo does not name its target folder")?;
        let version = ask(&mut command("rustup", ["run", "nightly", "rustc", "-vV"]));
        let host = version
            .as_deref()
            .and_then(|text| text.lines().find_map(|line| line.strip_prefix("host: ")))
            .context("the nightly compiler does not name its host")?;
        let target = cargo.join("fuzz");
        Ok(Self {
            programs: target.join(host).join("release"),
            work: cargo.join("fuzz-work"),
            target,
        })
    }

    /// A folder of a target on this machine, made if it is not there.
    fn of(&self, name: &str, kind: &str) -> anyhow::Result<PathBuf> {
        let folder = self.work.join(name).join(kind);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(folder)
    }

    /// The inputs of a target in the repository.
    fn kept(kind: &str, name: &str) -> PathBuf {
        root().join(PACKAGE).join(kind).join(name)
    }

    /// A target's program, with its seeds in their folder.
    fn program(&self, name: &str, seeds: &Path) -> Command {
        let mut program = command(self.programs.join(name), [""; 0]);
        program.env(SEEDS_VARIABLE, seeds);
        // What a person has set for the sanitizer comes after, and wins.
        let options = env::var("ASAN_OPTIONS").unwrap_or_default();
        program.env("ASAN_OPTIONS", format!("{SANITIZER}:{options}"));
        program
    }
}

/// Builds all targets, with the sanitizer for memory errors and with assertions.
fn build(screen: &Screen, folders: &Folders) -> anyhow::Result<()> {
    let mut build = command(
        "cargo",
        ["+nightly", "fuzz", "build", "--fuzz-dir", PACKAGE],
    );
    build.arg("--target-dir").arg(&folders.target);
    let watch = screen.watch("building the fuzz targets");
    let finished = process::run(&mut build, &watch)?;
    drop(watch);
    if !finished.status.success() {
        if screen.is_live() {
            screen.say(finished.output.trim_end());
        }
        bail!("`{}` failed: {}", process::line(&build), finished.status);
    }
    Ok(())
}

/// How a target's run ended.
struct Report {
    name: String,
    stats: Stats,
    finding: Option<Finding>,
}

/// Something that must not be.
struct Finding {
    /// In the fuzzer's words, or the panic's.
    what: String,
    /// The inputs that do it.
    inputs: Vec<PathBuf>,
}

/// Runs one target.
fn fuzz(screen: &Screen, folders: &Folders, name: &str, seconds: u32) -> anyhow::Result<Report> {
    let (corpus, seeds) = (folders.of(name, "corpus")?, folders.of(name, "seeds")?);
    let findings = folders.of(name, "findings")?;
    let before = files(&findings)?;
    let mut fuzzer = folders.program(name, &seeds);
    fuzzer
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={TIMEOUT}"))
        .arg(format!("-rss_limit_mb={MEMORY}"))
        .arg(format!("-malloc_limit_mb={ALLOCATION}"))
        .arg("-print_final_stats=1")
        .arg(format!("-artifact_prefix={}/", findings.display()))
        // New inputs go into the first folder.
        .args([&corpus, &seeds])
        .args(existing(&["corpus", "regressions"], name));
    let watch = screen.watch(&format!("fuzzing {name} for {seconds} s"));
    let finished = process::run(&mut fuzzer, &watch)?;
    drop(watch);
    let stats = Stats::of(&finished.output);
    let finding = (!finished.status.success()).then(|| Finding {
        what: stats::complaint(&finished.output)
            .map_or_else(|| finished.status.to_string(), str::to_owned),
        inputs: files(&findings)
            .map(|now| now.difference(&before).cloned().collect())
            .unwrap_or_default(),
    });
    ensure!(
        finding.is_some() || stats.executions > 0,
        "target {name} has run nothing"
    );
    Ok(Report {
        name: name.to_owned(),
        stats,
        finding,
    })
}

/// The folders of a target in the repository that are there.
fn existing(kinds: &[&str], name: &str) -> Vec<PathBuf> {
    let folders = kinds.iter().map(|kind| Folders::kept(kind, name));
    folders.filter(|folder| folder.is_dir()).collect()
}

fn files(folder: &Path) -> anyhow::Result<BTreeSet<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("no {}", folder.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// Puts the inputs that reach most into the repository, in place of what was there.
fn keep(screen: &Screen, folders: &Folders, name: &str) -> anyhow::Result<()> {
    let (corpus, seeds) = (folders.of(name, "corpus")?, folders.of(name, "seeds")?);
    let minimal = folders.of(name, "minimal")?;
    fs::remove_dir_all(&minimal)?;
    fs::create_dir_all(&minimal)?;
    let mut merge = folders.program(name, &seeds);
    // Every place once, however often: that is what a replay can tell apart.
    merge
        .args(["-set_cover_merge=1", "-use_counters=0"])
        .args([&minimal, &corpus, &seeds])
        .args(existing(&["corpus"], name));
    let watch = screen.watch(&format!("minimising the corpus of {name}"));
    let finished = process::run(&mut merge, &watch)?;
    drop(watch);
    ensure!(
        finished.status.success(),
        "the corpus of {name} cannot be merged: {}",
        finished.status
    );
    let kept = Folders::kept("corpus", name);
    if kept.is_dir() {
        fs::remove_dir_all(&kept)?;
    }
    fs::create_dir_all(&kept)?;
    let (mut left, mut room) = KEPT;
    for file in by_age(&minimal)? {
        let length = fs::metadata(&file)?.len();
        if left == 0 || length > room {
            continue;
        }
        (left, room) = (left - 1, room - length);
        let target = kept.join(file.file_name().unwrap_or_default());
        fs::copy(&file, &target).with_context(|| format!("cannot write {}", target.display()))?;
    }
    let (count, bytes) = size(&kept)?;
    let text = format!("{name}: {} of {bytes} bytes", screen::count(count, "input"));
    screen.mark(NOTE, "kept", text);
    Ok(())
}

/// The files in a folder, the oldest first: a merge writes those first that add most.
fn by_age(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut aged = Vec::new();
    for file in files(folder)? {
        aged.push((fs::metadata(&file)?.modified()?, file));
    }
    aged.sort();
    Ok(aged.into_iter().map(|(_, file)| file).collect())
}

/// Number and bytes of the files in a folder.
fn size(folder: &Path) -> anyhow::Result<(usize, u64)> {
    let files = files(folder)?;
    let mut bytes = 0;
    for file in &files {
        bytes += fs::metadata(file)?.len();
    }
    Ok((files.len(), bytes))
}

impl Report {
    /// Says how it went, and on a finding what to do.
    fn tell(&self, screen: &Screen) -> anyhow::Result<()> {
        let Self { name, stats, .. } = self;
        let (style, word) = match self.finding {
            None => (GOOD, "ok"),
            Some(_) => (BAD, "failed"),
        };
        screen.mark(style, word, format!("{name:<14} {stats}"));
        if let Some(finding) = &self.finding {
            screen.say(format!("{name}: {}", finding.what));
            for input in &finding.inputs {
                screen.say(format!(
                    "hint: keep it as a test: mkdir -p {0} && cp {1} {0}; then mend it, and `cargo test -p \
                     keyferry-tests --test fuzz`",
                    Path::new(PACKAGE).join("regressions").join(name).display(),
                    input.display(),
                ));
            }
        }
        let inputs = self.finding.iter().flat_map(|it| &it.inputs);
        let mut record = Map::from_iter([
            ("target".to_owned(), json!(name)),
            ("ok".to_owned(), json!(self.finding.is_none())),
            (
                "finding".to_owned(),
                json!(self.finding.as_ref().map(|finding| &finding.what)),
            ),
            (
                "inputs".to_owned(),
                inputs
                    .map(|path| json!(path.display().to_string()))
                    .collect(),
            ),
        ]);
        record.extend(stats.record());
        screen.record(&Value::Object(record))
    }
}

/// Sums up.
fn close(screen: &Screen, reports: &[Report], failed: Vec<String>) -> anyhow::Result<Outcome> {
    ensure!(!reports.is_empty(), "there are no targets");
    let executions: u64 = reports.iter().map(|report| report.stats.executions).sum();
    let (style, word) = if failed.is_empty() {
        (GOOD, "ok")
    } else {
        (BAD, "failed")
    };
    let text = format!(
        "{}, {executions} executions, {}",
        screen::count(reports.len(), "target"),
        screen::count(failed.len(), "finding")
    );
    screen.mark(style, word, text);
    Ok(Outcome {
        ok: failed.is_empty(),
        summary: Map::from_iter([
            ("targets".to_owned(), json!(reports.len())),
            ("executions".to_owned(), json!(executions)),
            ("failed".to_owned(), json!(failed)),
        ]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_does_not_exist_is_named_and_so_are_the_others() {
        let error = chosen(&["order".to_owned(), "odrer".to_owned()]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("'odrer'") && text.contains("receipt"),
            "{text}"
        );
    }

    #[test]
    fn without_a_choice_all_targets_run() {
        let all = chosen(&[]).unwrap();
        assert!(all.len() > 10);
        assert_eq!(chosen(&["order".to_owned()]).unwrap(), ["order"]);
    }
}
