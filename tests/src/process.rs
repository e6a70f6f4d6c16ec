//! Looks into another process: its whole address space, its environment and its command line, as Linux shows them.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A piece of an address space.
pub struct Region {
    /// Its line in `/proc/PID/maps`.
    pub name: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// The address space of a process that stood still while it was read.
///
/// # Panics
/// If anything that the process can read itself cannot be read here.
#[must_use]
pub fn dump(process: u32) -> Vec<Region> {
    stop(process);
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).expect("its maps");
    let memory = File::open(format!("/proc/{process}/mem")).expect("its memory");
    let mut regions = Vec::new();
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (range, rights) = (
            fields.next().expect("a range"),
            fields.next().expect("rights"),
        );
        // The kernel's own pages, which are the same for everybody.
        let kernels = ["[vvar]", "[vvar_vclock]", "[vsyscall]"];
        if !rights.starts_with('r') || kernels.iter().any(|name| line.ends_with(name)) {
            continue;
        }
        let (start, end) = range.split_once('-').expect("two ends");
        let start = u64::from_str_radix(start, 16).expect("an address");
        let end = u64::from_str_radix(end, 16).expect("an address");
        let mut bytes = vec![0; usize::try_from(end - start).expect("it fits")];
        match memory.read_exact_at(&mut bytes, start) {
            Ok(()) => regions.push(Region {
                name: line.to_owned(),
                bytes,
            }),
            // Behind the end of a mapped file there is nothing for the process either.
            Err(error) => assert!(line.contains('/'), "{line}: {error}"),
        }
    }
    resume(process);
    for part in ["[heap]", "[stack]"] {
        assert!(
            regions.iter().any(|region| region.name.ends_with(part)),
            "{part}"
        );
    }
    regions
}

fn signal(process: u32, signal: Signal) {
    let process = Pid::from_raw(i32::try_from(process).expect("a process id"));
    kill(process, signal).expect("it runs");
}

fn stop(process: u32) {
    signal(process, Signal::SIGSTOP);
    let begun = Instant::now();
    // All of its threads, or memory changes while it is read.
    while !tasks(process).iter().all(|state| *state == 'T') {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "it does not stop"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn resume(process: u32) {
    signal(process, Signal::SIGCONT);
}

/// The states of a process's threads.
fn tasks(process: u32) -> Vec<char> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("its threads");
    tasks
        .filter_map(Result::ok)
        .filter_map(|task| fs::read_to_string(task.path().join("stat")).ok())
        .map(|stat| state(&stat))
        .collect()
}

/// The state in a line of `/proc/PID/stat`: after the name, which may hold anything.
fn state(stat: &str) -> char {
    let (_, rest) = stat.rsplit_once(") ").expect("a name in brackets");
    rest.chars().next().expect("a state")
}

/// A process and all that it has started, itself and through others.
///
/// # Panics
/// If the system does not say.
#[must_use]
pub fn family(process: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .expect("processes")
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let process = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let (_, rest) = stat.rsplit_once(") ")?;
            Some((process, rest.split(' ').nth(1)?.parse().ok()?))
        })
        .collect();
    let mut family = vec![process];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(child, _)| *child),
        );
        next += 1;
    }
    family
}

/// What anybody of the same account sees of a process: its environment and its command line.
#[must_use]
pub fn environment_and_arguments(process: u32) -> Vec<u8> {
    // A process that has just ended has neither.
    let read = |name: &str| fs::read(format!("/proc/{process}/{name}")).unwrap_or_default();
    [read("environ"), read("cmdline")].concat()
}
