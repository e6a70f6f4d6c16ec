//! `cargo xtask demo`: the main job from nothing, on real parts. A software token, an emulated board, and the `keyferry`
//! command between them, one command a step, as a person would type them.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use keyferry::emulate::{Board, Config, Emulator, Entropy};
use serde_json::{Map, Value, json};

use crate::Outcome;
use crate::firmware::{self, Variant};
use crate::process::command;
use crate::screen::{GOOD, Screen, Watch};
use crate::setup;

/// The PIN of the scratch token. It protects nothing: the token is gone when the demo ends.
const PIN: &str = "648219";
const TOKEN: &str = "keyferry-demo";
const AUTHORITY: &str = "authority";

/// The keys that go to the device: label and type.
const KEYS: [(&str, &str); 5] = [
    ("sensor-aes-128", "aes-128"),
    ("sensor-aes-256", "aes-256"),
    ("telemetry-hmac", "hmac-256"),
    ("tls-p-256", "p-256"),
    ("tls-rsa-2048", "rsa-2048"),
];

/// The emulated device's id.
const DEVICE_ID: [u8; 16] = *b"keyferry demo #1";

#[cfg(unix)]
use crate::bad_line::BadLine as Cable;

/// A seed that nobody chose.
#[cfg(unix)]
pub(crate) fn any_seed() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    std::hash::RandomState::new().build_hasher().finish() >> 32
}

/// There is no bad cable without pseudo-terminals.
#[cfg(not(unix))]
enum Cable {}

#[cfg(not(unix))]
impl Cable {
    fn lay(_: &Emulator, _: u64) -> anyhow::Result<Self> {
        bail!("a bad cable needs pseudo-terminals: Linux or macOS")
    }

    fn path(&self) -> &str {
        match *self {}
    }

    fn with_a_reset(
        &self,
        _: &mut Emulator,
        _: impl FnOnce() -> anyhow::Result<Value>,
    ) -> anyhow::Result<Value> {
        match *self {}
    }

    fn faults(&self) -> anyhow::Result<Value> {
        match *self {}
    }
}

/// What the demo works with.
struct Demo<'s> {
    screen: &'s Screen,
    keyferry: PathBuf,
    board: Board,
    firmware: PathBuf,
    scratch: tempfile::TempDir,
    steps: Vec<(String, Duration)>,
}

/// The door.
///
/// # Errors
/// Whatever step fails, with the command that failed.
pub(crate) fn run(
    screen: &Screen,
    board: Board,
    unwrap: &str,
    bad_line: Option<u64>,
) -> anyhow::Result<Outcome> {
    let begun = Instant::now();
    let need = match board {
        Board::Mps2An386 | Board::RiscvVirt => setup::Need::Demo,
        Board::Native => setup::Need::NativeDemo,
    };
    setup::ensure(screen, need)?;
    let mut steps = Vec::new();
    let keyferry = timed(screen, &mut steps, "build the keyferry command", |_| {
        build_command()
    })?;
    let firmware = timed(screen, &mut steps, "build the firmware", |_| {
        Ok(firmware::build(board, Variant::Default)?)
    })?;
    let mut demo = Demo {
        screen,
        keyferry,
        board,
        firmware,
        scratch: tempfile::tempdir().context("cannot make a scratch folder")?,
        steps,
    };
    demo.step("make a token", |demo, _| demo.make_token())?;
    demo.step("make the authority key in the token", |demo, watch| {
        demo.create(watch, AUTHORITY, "p-256", &["--usage", "sign"])
    })?;
    for (label, key_type) in KEYS {
        let name = format!("make '{label}' in the token");
        demo.step(&name, |demo, watch| {
            demo.create(watch, label, key_type, &["--extractable"])
        })?;
    }
    let mut device = demo.step("start the board", |demo, _| demo.start())?;
    let cable = bad_line
        .map(|seed| {
            let name = format!("lay a bad cable to it (--seed {seed})");
            demo.step(&name, |_, _| Cable::lay(&device, seed))
        })
        .transpose()?;
    let port = cable
        .as_ref()
        .map_or_else(|| device.port().to_owned(), |cable| cable.path().to_owned());
    screen.say("           policy open: this device is trusted because it is on this port");
    let enrolled = demo.step("enrol the blank device", |demo, watch| {
        demo.orders(watch, "enroll", &port, &["--unwrap", unwrap], false)
    })?;
    let injected = demo.step(
        "inject five keys in one order, and prove them",
        |demo, watch| {
            let inject = || demo.orders(watch, "inject", &port, &[], true);
            match &cable {
                Some(cable) => cable.with_a_reset(&mut device, inject),
                None => inject(),
            }
        },
    )?;
    let faults = cable.as_ref().map(Cable::faults).transpose()?;
    if let Some(faults) = &faults {
        screen.say(format!(
            "           the cable carried {} bytes; bit errors: {}, stalls: {}, resets of the device: {}",
            faults["bytes"], faults["bit_errors"], faults["stalls"], faults["resets"]
        ));
    }
    drop(cable);
    demo.step("cut the power (SIGKILL)", |_, _| {
        device.kill();
        Ok(())
    })?;
    let device = demo.step("start again on the same flash", |demo, _| demo.start())?;
    let listed = demo.step("list the slots", |demo, watch| {
        demo.keyferry(watch, &["device", "list", "--port", device.port()])
    })?;
    let proved = demo.step("prove all five again", |demo, watch| {
        demo.orders(watch, "prove", device.port(), &[], true)
    })?;
    device.kill();

    let slots = listed["slots"].as_array().map_or(0, Vec::len);
    let count = |value: &Value, name: &str| value[name].as_u64().unwrap_or(0);
    ensure!(
        slots == KEYS.len(),
        "{slots} slots hold keys after the restart"
    );
    for (when, value) in [("at injection", &injected), ("after the restart", &proved)] {
        let found = count(value, "keys_proved");
        ensure!(
            found == KEYS.len() as u64,
            "{found} keys were proved {when}"
        );
    }
    demo.close(&injected, &proved);
    let summary = json!({
        "devices": 1,
        "keys_injected": count(&injected, "keys_injected"),
        "keys_proved": count(&injected, "keys_proved"),
        "keys_proved_after_restart": count(&proved, "keys_proved"),
        "device": enrolled["device"],
        "board": board.name(),
        "unwrap": unwrap,
        "suite": injected["suite"],
        "bad_line": faults,
        "seconds": begun.elapsed().as_secs_f64(),
    });
    let summary = match summary {
        Value::Object(summary) => summary,
        _ => Map::new(),
    };
    Ok(Outcome { ok: true, summary })
}

/// Runs one step, and says what it was and how long it took.
fn timed<T>(
    screen: &Screen,
    steps: &mut Vec<(String, Duration)>,
    name: &str,
    step: impl FnOnce(&Watch) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let begun = Instant::now();
    let watch = screen.watch(name);
    let result = step(&watch).with_context(|| name.to_owned());
    drop(watch);
    let value = result?;
    let took = begun.elapsed();
    screen.mark(
        GOOD,
        "done",
        format!("{name} ({:.2} s)", took.as_secs_f64()),
    );
    screen.record(&json!({ "step": name, "seconds": took.as_secs_f64() }))?;
    steps.push((name.to_owned(), took));
    Ok(value)
}

/// Builds the command, and asks cargo where it is.
fn build_command() -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = command(
        cargo,
        [
            "build",
            "--package",
            "keyferry",
            "--bin",
            "keyferry",
            "--message-format=json-render-diagnostics",
        ],
    )
    .stderr(Stdio::inherit())
    .output()
    .context("cannot start cargo")?;
    ensure!(
        output.status.success(),
        "the keyferry command does not build"
    );
    output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == "keyferry")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo did not say where the keyferry command is")
}

impl Demo<'_> {
    fn step<T>(
        &mut self,
        name: &str,
        step: impl FnOnce(&Self, &Watch) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let mut steps = std::mem::take(&mut self.steps);
        let result = timed(self.screen, &mut steps, name, |watch| step(self, watch));
        self.steps = steps;
        result
    }

    fn configuration(&self) -> PathBuf {
        self.scratch.path().join("softhsm2.conf")
    }

    fn make_token(&self) -> anyhow::Result<()> {
        let tokens = self.scratch.path().join("tokens");
        std::fs::create_dir(&tokens)?;
        let text = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            tokens.display()
        );
        std::fs::write(self.configuration(), text)?;
        let output = command(
            "softhsm2-util",
            [
                "--init-token",
                "--free",
                "--label",
                TOKEN,
                "--so-pin",
                PIN,
                "--pin",
                PIN,
            ],
        )
        .env("SOFTHSM2_CONF", self.configuration())
        .output()
        .context("cannot start softhsm2-util")?;
        ensure!(
            output.status.success(),
            "softhsm2-util: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    /// Runs `keyferry … --json`, shows its progress, and gives its last line.
    fn keyferry(&self, watch: &Watch, arguments: &[&str]) -> anyhow::Result<Value> {
        let module = setup::softhsm_module().context("SoftHSM's library is not where it was")?;
        let mut child = Command::new(&self.keyferry)
            .args(arguments)
            .arg("--json")
            .env("SOFTHSM2_CONF", self.configuration())
            .env("KEYFERRY_TOKEN", token_uri(module))
            .env("KEYFERRY_PIN", PIN)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start keyferry")?;
        let mut last = Value::Null;
        if let Some(stdout) = child.stdout.take() {
            for line in BufReader::new(stdout).lines() {
                last = serde_json::from_str(&line?).context("keyferry did not print JSON")?;
                if let Some(task) = last["progress"].as_str() {
                    let (done, total) = (&last["done"], &last["total"]);
                    watch.line(&format!("{task}: {done} of about {total}"));
                }
            }
        }
        let mut words = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            stderr.read_to_string(&mut words)?;
        }
        let status = child.wait()?;
        if !status.success() || last["ok"] != true {
            bail!(
                "keyferry {}: {} (hint: {}){words}",
                arguments.join(" "),
                last["error"].as_str().unwrap_or("no reason given"),
                last["hint"].as_str().unwrap_or("none"),
            );
        }
        Ok(last)
    }

    fn create(
        &self,
        watch: &Watch,
        label: &str,
        key_type: &str,
        more: &[&str],
    ) -> anyhow::Result<()> {
        let mut arguments = vec!["key", "create", "--label", label, "--type", key_type];
        arguments.extend(more);
        self.keyferry(watch, &arguments).map(drop)
    }

    fn start(&self) -> anyhow::Result<Emulator> {
        let mut config = Config::new(
            self.board,
            self.firmware.clone(),
            self.scratch.path().join("device"),
            keyferry_protocol::identity::DeviceId(DEVICE_ID),
        );
        config.entropy = Entropy::Host;
        Ok(Emulator::start(&config)?)
    }

    /// Runs a `keyferry device` command that gives an order.
    fn orders(
        &self,
        watch: &Watch,
        order: &str,
        port: &str,
        more: &[&str],
        with_keys: bool,
    ) -> anyhow::Result<Value> {
        let mut arguments = vec![
            "device",
            order,
            "--port",
            port,
            "--authority",
            AUTHORITY,
            "--policy",
            "open",
            // The emulated board says of itself that it is one.
            "--allow-test-devices",
        ];
        arguments.extend(more);
        if with_keys {
            arguments.extend(KEYS.iter().flat_map(|(label, _)| ["--key", *label]));
        }
        self.keyferry(watch, &arguments)
    }

    fn close(&self, injected: &Value, proved: &Value) {
        let screen = self.screen;
        screen.say("");
        screen.say(
            "slot  key              type      proof              at injection  after the power cut",
        );
        let keys = injected["keys"].as_array().into_iter().flatten();
        let again = proved["keys"].as_array().into_iter().flatten();
        for (key, again) in keys.zip(again) {
            let word = |name: &str| key[name].as_str().unwrap_or("?").to_owned();
            let same = key["label"] == again["label"] && key["slot"] == again["slot"];
            screen.say(format!(
                "{:<4}  {:<15}  {:<8}  {:<17}  {:<12}  {}",
                key["slot"].to_string(),
                word("label"),
                word("type"),
                word("proof"),
                "proved",
                if same { "proved" } else { "?" },
            ));
        }
        screen.say("");
        for (name, took) in &self.steps {
            screen.say(format!("{:>8.2} s  {name}", took.as_secs_f64()));
        }
    }
}

fn token_uri(module: &Path) -> String {
    format!("pkcs11:token={TOKEN}?module-path={}", module.display())
}
