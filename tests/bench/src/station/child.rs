//! Work in processes of their own, so that the kernel counts what it takes.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use keyferry::hsm::{KeyType, NewKey, PinSource, PublicKey, Token, parse};
use keyferry_protocol::suite::Suite;
use keyferry_tests::tokens::{Kind, Scratch};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{AUTHORITY, KEY, TOKEN};
use crate::bare::Bare;

/// The wrapping that a station chooses with SoftHSM for a device with a P-256 key.
const SUITE: Suite = Suite::EcdhP256Null;
/// About the length of an order with one key, in bytes.
const ORDER: usize = 400;

/// What a process took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spent {
    /// From its start to its end, in seconds.
    pub(super) wall: f64,
    /// Of a station, from the first device that it has begun to the end of the last, in seconds; otherwise nothing.
    pub(super) line: f64,
    /// Processor time, its own and the system's for it, in seconds.
    pub(super) processor: f64,
    /// The most memory that it had, in bytes.
    pub(super) peak: f64,
}

/// What the command said in the end, and what it took.
pub(super) struct Ran {
    /// The object that it printed last.
    pub(super) last: Value,
    pub(super) spent: Spent,
}

impl Ran {
    /// What it took, if it says that it has done its job.
    ///
    /// # Errors
    /// If it does not.
    pub(super) fn done(self) -> Result<Self> {
        ensure!(self.last["ok"] == true, "{}", self.last);
        Ok(self)
    }
}

/// Processor time of this process so far, in seconds.
fn processor() -> Result<f64> {
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// What this process took since its clock showed `begun`, for whoever has started it.
fn tell(report: &Path, begun: f64) -> Result<()> {
    // The peak that getrusage gives is the parent's, where that was larger before this program was loaded.
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|number| number.trim().parse::<f64>().ok())
        .context("the system does not tell the peak of the memory")?;
    let told = json!({"processor": processor()? - begun, "peak": peak * 1024.0});
    Ok(std::fs::write(report, told.to_string())?)
}

/// Runs the `keyferry` command in this process.
///
/// # Errors
/// If what it took cannot be written.
pub(crate) fn command(report: &Path, arguments: Vec<OsString>) -> Result<ExitCode> {
    let name = OsString::from("keyferry");
    let code = keyferry::cli::run(std::iter::once(name).chain(arguments));
    tell(report, 0.0)?;
    Ok(code)
}

/// Starts this program again for `words`, waits for it, and gives what it said and took.
fn again(token: &Scratch, variables: &[(&str, String)], words: &[String]) -> Result<Ran> {
    let folder = tempfile::tempdir()?;
    let report = folder.path().join("report");
    let (door, rest) = words.split_first().context("no words")?;
    let begun = Instant::now();
    let mut child = Command::new(std::env::current_exe()?)
        .arg(door)
        .arg(&report)
        .args(rest)
        .envs(token.environment())
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdout(Stdio::piped())
        .spawn()?;
    let (mut last, mut first, mut line) = (Value::Null, None, 0.0);
    for text in BufReader::new(child.stdout.take().context("no output")?).lines() {
        last = serde_json::from_str(&text?)?;
        if last["event"] == "begun" {
            first.get_or_insert_with(Instant::now);
        }
        if let ("ended", Some(first)) = (last["event"].as_str().unwrap_or_default(), first) {
            line = first.elapsed().as_secs_f64();
        }
    }
    let status = child.wait()?;
    let wall = begun.elapsed().as_secs_f64();
    let told = std::fs::read(&report).with_context(|| format!("{status}: {last}"))?;
    let told: Value = serde_json::from_slice(&told)?;
    let figure = |name: &str| told[name].as_f64().context("no figure");
    Ok(Ran {
        last,
        spent: Spent {
            wall,
            line,
            processor: figure("processor")?,
            peak: figure("peak")?,
        },
    })
}

/// Runs the command with `--json` in a process of its own, with these variables beside those of the token.
///
/// # Errors
/// If it breaks off. Whether it has done its job is in what comes back.
pub(super) fn run_command(
    token: &Scratch,
    variables: &[(&str, String)],
    arguments: &[&str],
) -> Result<Ran> {
    let words = ["station-command", "--", "--json"].iter().chain(arguments);
    let words: Vec<_> = words.map(|word| (*word).to_owned()).collect();
    again(token, variables, &words)
}

/// Has a process of its own make the bare calls for so many devices.
///
/// # Errors
/// If it fails.
pub(super) fn run_bare(token: &Scratch, devices: u32) -> Result<Spent> {
    let words = ["station-bare".to_owned(), token.uri(), devices.to_string()];
    Ok(again(token, &[], &words)?.done()?.spent)
}

/// Makes the token's calls for so many devices: the order to enrol is signed, a key is wrapped, the order to inject is signed, and the
/// proof's MAC is made for comparison.
///
/// # Errors
/// If the token does not do as it should.
pub(crate) fn bare(report: &Path, uri: &str, devices: u32) -> Result<()> {
    let (spec, _) = parse(uri)?;
    let pin = spec.pin_source.as_deref().context("no pin-source")?;
    let token = Token::open(&spec, &PinSource::from_uri(pin)?.fetch(TOKEN)?)?;
    let made = token.create_key(&NewKey::target("a device", KeyType::P256))?;
    let device = PublicKey::from_spki_der(made.public_key()?.spki_der())?;
    let module: PathBuf = Kind::SoftHsm.module();
    let bare = Bare::open(&module, TOKEN, KEY, AUTHORITY)?;
    let prepared = bare.prepare(&device, SUITE)?;
    let begun = processor()?;
    for number in 0..devices {
        let mut order = [0; ORDER];
        order[..4].copy_from_slice(&number.to_be_bytes());
        let digest: [u8; 32] = Sha256::digest(order).into();
        bare.sign(&digest)?;
        bare.serve(&prepared, &digest)?;
        bare.mac(&digest)?;
    }
    tell(report, begun)?;
    crate::record(&json!({"ok": true}))
}
