//! A station that is killed goes on where it was: every device is done once, and no key is used twice or lost.
//!
//! In the first test a station in a process of its own kills itself just before and just after each change of its journal is on the
//! disk; in the second the command is killed at any time at all. `KEYFERRY_LONG` has it killed a hundred times.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use keyferry::audit::AuditLog;
use keyferry::device::flow;
use keyferry::device::session::Session;
use keyferry::export::{Signer, sign};
use keyferry::hsm::{KeySpec, PinSource, PublicKey, Token, parse};
use keyferry::station::journal::Journal;
use keyferry::station::plan::Plan;
use keyferry::station::policy::{Enrolment, Rules, Visiting};
use keyferry::station::registry::Registry;
use keyferry::station::run::{Line, Manifests, Nest, Stock, write_exports};
use keyferry::station::{Backend, LocalHsm, Records, SharedHsm, Signers, TokenSigner};
use keyferry_native::Device;
use keyferry_protocol::identity::DeviceId;
use keyferry_protocol::suite::Suite;
use keyferry_tests::board::open_again;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Fleet, KEYS, Plant};

/// Set in a process that a test has started for itself: the folder of the plan.
const FOLDER: &str = "KEYFERRY_TEST_STATION";
/// Set there too: the port of the device.
const PORT: &str = "KEYFERRY_TEST_PORT";
/// Set there too: at which moment it ends.
const MOMENT: &str = "KEYFERRY_TEST_MOMENT";
/// Set there too: that it refuses the device, a test device.
const REFUSES: &str = "KEYFERRY_TEST_REFUSES";
/// Where it writes what it has come to.
const MOMENTS: &str = "moments.txt";

pub(crate) const PLAN: &str = "[devices]\nallow-test-devices = true\n[after]\nlock = true\n";

/// A station as the command has it, with an observer of its journal that kills the process.
fn station(folder: &Path) {
    let end: Option<usize> = std::env::var(MOMENT).ok().map(|text| text.parse().unwrap());
    let text = fs::read(folder.join("plan.toml")).unwrap();
    let plan = Plan::read("plan.toml", &text).unwrap();
    let (spec, _) = parse(&plan.hsm.token).unwrap();
    let pin = PinSource::from_uri(spec.pin_source.as_deref().unwrap()).unwrap();
    let token = Token::open(&spec, &pin.fetch("the token").unwrap()).unwrap();
    let named = |label: &str| TokenSigner::named(&token, &KeySpec::label(label)).unwrap();
    let signing = token
        .with_pair(token.key(&KeySpec::label("manifests")).unwrap())
        .unwrap();
    let session = token.another_session().unwrap();
    let signers = Signers {
        authority: named("authority"),
        auditor: Some(named("audit")),
        ca: None,
    };
    let hsm = SharedHsm::new(LocalHsm::new(token, signers));
    let mut journal = Journal::open(&folder.join("station.journal")).unwrap();
    let mut told = fs::File::create(folder.join(MOMENTS)).unwrap();
    let count = Cell::new(0);
    let observed = Mutex::new(move |what: &str, written: bool| {
        writeln!(told, "{what} {written}").unwrap();
        if end == Some(count.get()) {
            kill(Pid::this(), Signal::SIGKILL).unwrap();
        }
        count.set(count.get() + 1);
    });
    journal.observe(move |moment| (observed.lock().unwrap())(moment.what, moment.written));
    let run = journal.begin_run(&plan.name, &plan.digest).unwrap();
    let records = Arc::new(Mutex::new(Records {
        audit: Some(AuditLog::open(&folder.join("line.audit")).unwrap()),
        registry: Some(Registry::open(&folder.join("plant.db")).unwrap()),
        journal: Some(journal),
    }));
    let refuses = std::env::var_os(REFUSES).is_some();
    let rules = Rules {
        enrolment: Some(Enrolment::Open),
        visiting: Some(Visiting::Registry),
        allow_test_devices: !refuses,
        allow_development: true,
        minimum_proof: plan.minimum_proof,
        ..Rules::closed()
    };
    let backend = Backend {
        key: PublicKey::from_file_content(&fs::read(folder.join("backend.pem")).unwrap()).unwrap(),
        suite: Suite::RsaOaepSha1,
        allow_zero_tail: true,
    };
    let stock = Stock::look_up(&hsm, &plan, Some(&backend)).unwrap();
    let line = Line {
        plan: &plan,
        rules: &rules,
        hsm: &hsm,
        backend: Some(&backend),
        hook: None,
        records: &records,
        run,
        rework: false,
        stop: &AtomicBool::new(false),
        on_event: &|_| {},
    };
    let nest = Nest {
        name: "1".to_owned(),
        port: std::env::var(PORT).unwrap(),
        serial: None,
    };
    for outcome in line.run(&stock, &[nest]) {
        assert_eq!(outcome.verdict.is_pass(), !refuses, "{outcome:?}");
    }
    let public = signing.public_key().unwrap();
    let manifests = Manifests {
        folder: &folder.join("exports"),
        recipient: &backend.key,
        signer: &Signer::new(public).unwrap(),
        fingerprint: public.fingerprint(),
        sign: &|document| sign(&session, &signing, document),
    };
    write_exports(&records, run, &manifests, &mut |_, _| {}).unwrap();
}

/// Starts the station in a process of its own, which ends at this moment. Gives the moments that it has come to.
pub(crate) fn start(plant: &Plant, device: &Device, moment: Option<usize>) -> Vec<String> {
    start_with(plant, device, moment, &[])
}

/// As [`start`], with these variables set.
fn start_with(
    plant: &Plant,
    device: &Device,
    moment: Option<usize>,
    variables: &[&str],
) -> Vec<String> {
    let executable = std::env::current_exe().expect("the test executable");
    let mut command = Command::new(executable);
    command
        .args([
            "--exact",
            "stops::a_station_killed_at_any_step_goes_on_from_there",
            "--nocapture",
        ])
        .envs(plant.scratch.environment())
        .env(FOLDER, plant.scratch.path(""))
        .env(PORT, device.port())
        .envs(variables.iter().map(|name| (name, "1")));
    if let Some(moment) = moment {
        command.env(MOMENT, moment.to_string());
    }
    let output = command.output().expect("the test executable starts");
    let told = fs::read_to_string(plant.scratch.path(MOMENTS)).expect("its moments");
    let moments: Vec<_> = told.lines().map(str::to_owned).collect();
    let was_killed = moment.is_some_and(|moment| moments.len() == moment + 1);
    assert_eq!(
        output.status.success(),
        !was_killed,
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    moments
}

/// Runs the plan with the command, and holds everything that knows of the device against each other.
fn finish(plant: &Plant, plan: &Path, devices: &[&Device]) {
    let ports: Vec<_> = devices.iter().map(|device| device.port()).collect();
    let answer = plant.run(plan, &ports, &[]);
    assert_eq!(answer.code, 0, "{answer:?}");
    for device in devices {
        let mut session = Session::open(open_again(device.port())).expect("it answers");
        let slots = flow::list(&mut session).expect("a list");
        assert_eq!(slots.len(), KEYS);
        assert!(slots.iter().all(|slot| slot.version == 1), "{slots:?}");
    }
}

/// What holds in the end.
fn assert_done_once(plant: &Plant, devices: u16) {
    plant.assert_all_done(usize::from(devices));
    assert!(
        plant
            .registry()
            .iter()
            .all(|device| device["state"] == "locked")
    );
    let journal = Journal::open(&plant.scratch.path("station.journal")).unwrap();
    assert!(journal.all_under_way().unwrap().is_empty());
    for number in 1..=devices {
        let mut id = DeviceId::ZERO;
        id.0[14..].copy_from_slice(&number.to_be_bytes());
        assert_eq!(journal.times_done(id).unwrap(), 1, "{id}");
    }
}

#[test]
fn a_station_killed_at_any_step_goes_on_from_there() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        station(&PathBuf::from(folder));
        return;
    }
    let plant = Plant::new();
    let plan = plant.plan(PLAN);
    let fleet = Fleet::new();
    let mut number = 0;
    let mut next = || {
        number += 1;
        fleet.start(number)
    };
    let device = next();
    let moments = start(&plant, &device, None);
    finish(&plant, &plan, &[&device]);
    // Every step of a unit is among them, before it is on the disk and after; and what is exported then.
    for step in [
        "begun", "trusted", "prepared", "ordered", "proved", "locking", "done", "claimed",
        "exported",
    ] {
        for written in [false, true] {
            assert!(
                moments.contains(&format!("{step} {written}")),
                "{moments:?}"
            );
        }
    }
    let mut kills = 0;
    let mut hit: BTreeSet<_> = moments.iter().cloned().collect();
    for (moment, what) in moments.iter().enumerate() {
        let device = next();
        assert_eq!(start(&plant, &device, Some(moment)).len(), moment + 1);
        kills += 1;
        // Where an order may have left, the station that goes on is killed as well, at each of its own steps.
        if what == "ordered true" || what == "proved false" {
            for second in 2.. {
                let came = start(&plant, &device, Some(second));
                let [.., last] = &came[..] else {
                    panic!("it came to nothing");
                };
                if came.len() != second + 1 {
                    break;
                }
                hit.insert(last.clone());
                kills += 1;
            }
        }
        println!("killed at {moment} ({what})");
        finish(&plant, &plan, &[&device]);
    }
    // A device that is refused is none that is under way, and is done when it is refused no more.
    let device = next();
    let moments = start_with(&plant, &device, None, &[REFUSES]);
    finish(&plant, &plan, &[&device]);
    for (moment, what) in moments.iter().enumerate() {
        let device = next();
        let came = start_with(&plant, &device, Some(moment), &[REFUSES]);
        assert_eq!(came.len(), moment + 1);
        hit.insert(what.clone());
        kills += 1;
        finish(&plant, &plan, &[&device]);
    }
    for step in ["settled", "failed"] {
        for written in [false, true] {
            assert!(hit.contains(&format!("{step} {written}")), "{hit:?}");
        }
    }
    println!("{kills} kills");
    assert_done_once(&plant, number);
}

/// A device whose flash is damaged cannot say who it is: it is called what it is, whatever the books have of it, and nothing is made for it. What was
/// under way stays so until somebody has let go of it.
#[test]
fn a_quarantined_device_is_called_that() {
    let plant = Plant::new();
    let plan = plant.plan(PLAN);
    let fleet = Fleet::new();
    let done = fleet.start(1);
    let moments = start(&plant, &done, None);
    let applied = moments.iter().position(|moment| moment == "proved false");
    let under_way = fleet.start(2);
    start(&plant, &under_way, applied);
    drop((done, under_way));
    let damaged = |number: u16| {
        let mut flash = fs::read(fleet.flash(number)).unwrap_or_else(|_| vec![0xf0; 128 * 1024]);
        for byte in flash.iter_mut().filter(|byte| **byte != 0xff).step_by(8) {
            *byte ^= 0x55;
        }
        // Another file: the device before may still hold its own.
        let _ = fs::remove_file(fleet.flash(number));
        fs::write(fleet.flash(number), flash).unwrap();
        fleet.start(number)
    };
    let devices = [1, 2, 3].map(damaged);
    let ports = devices.each_ref().map(|device| device.port());
    let orders = plant.audit()["orders"].clone();
    let check = |units: usize| {
        let answer = plant.run(&plan, &ports, &[]);
        assert_eq!(answer.code, 1, "{answer:?}");
        for number in 1..=3 {
            let id = format!("{number:032x}");
            for words in [
                format!("it is {id}, and quarantined"),
                format!("device wipe --quarantined {id} --yes"),
            ] {
                assert!(answer.stdout.contains(&words), "{words}: {answer:?}");
            }
        }
        let journal = Journal::open(&plant.scratch.path("station.journal")).unwrap();
        assert_eq!(journal.all_under_way().unwrap().len(), units);
    };
    check(1);
    assert_eq!(plant.audit()["orders"], orders);
    let id = format!("{:032x}", 2);
    let release = ["registry", "release", "--registry", "plant.db", &id];
    plant
        .scratch
        .done(release.iter().chain(&["--reason", "scrapped"]));
    check(0);
    assert_eq!(plant.audit()["keys"]["open"], 0);
}

/// A device whose flash is erased while the journal has it under way is not begun anew by itself, since it might be another one; it is when a
/// person has released it.
#[test]
fn a_device_erased_under_way_begins_anew_once_it_is_released() {
    let plant = Plant::new();
    let plan = plant.plan(PLAN);
    let fleet = Fleet::new();
    let first = fleet.start(1);
    let moments = start(&plant, &first, None);
    let ordered = moments.iter().position(|moment| moment == "ordered true");
    let device = fleet.start(2);
    start(&plant, &device, ordered);
    drop(device);
    fs::remove_file(fleet.flash(2)).unwrap();
    let device = fleet.start(2);

    let answer = plant.run(&plan, &[device.port()], &[]);
    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(answer.stdout.contains("is blank now"), "{answer:?}");
    assert!(answer.stdout.contains("registry release"), "{answer:?}");
    let mut session = Session::open(open_again(device.port())).expect("it answers");
    assert_eq!(
        flow::list(&mut session).map(|slots| slots.len()).ok(),
        Some(0)
    );
    drop(session);

    let id = format!("{:032x}", 2);
    let release = ["registry", "release", "--registry", "plant.db", &id];
    plant
        .scratch
        .done(release.iter().chain(&["--reason", "erased"]));
    finish(&plant, &plan, &[&first, &device]);
    let journal = Journal::open(&plant.scratch.path("station.journal")).unwrap();
    assert!(journal.all_under_way().unwrap().is_empty());
    drop(journal);
    let audit = plant.audit();
    assert_eq!(audit["keys"]["open"], 0, "{audit}");
    assert_eq!(audit["open_orders"], 0, "{audit}");
    assert_eq!(audit["keys"]["proved"], 2 * KEYS, "{audit}");
}

#[test]
fn a_station_killed_at_any_time_goes_on_from_there() {
    let wanted = match std::env::var_os("KEYFERRY_LONG") {
        Some(_) => 100,
        None => 10,
    };
    let plant = Plant::new();
    let plan = plant.plan(PLAN);
    let fleet = Fleet::new();
    let (mut number, mut kills, mut amid) = (0, 0, 0);
    // Always the same times; what they hit is up to the machine.
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut longest = Duration::from_millis(400);
    let tokens = plant.scratch.keep_tokens();
    while kills < wanted || amid == 0 {
        let devices: Vec<_> = (0..3)
            .map(|_| {
                number += 1;
                fleet.start(number)
            })
            .collect();
        for _ in 0..4 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let wait = longest.mul_f64((random % 1000) as f64 / 1000.0);
            let mut command = plant.scratch.command();
            command.args(["station", "run"]).arg(&plan).arg("--quiet");
            for device in &devices {
                command.args(["--port", device.port()]);
            }
            let begun = Instant::now();
            let mut child = command
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("the command starts");
            while begun.elapsed() < wait && child.try_wait().expect("a child").is_none() {
                std::thread::sleep(Duration::from_millis(2));
            }
            if child.try_wait().expect("a child").is_some() {
                longest = begun.elapsed();
                break;
            }
            child.kill().expect("it runs");
            child.wait().expect("it has ended");
            tokens.put_back();
            kills += 1;
            let journal = Journal::open(&plant.scratch.path("station.journal")).unwrap();
            amid += u32::from(!journal.all_under_way().unwrap().is_empty());
        }
        let begun = Instant::now();
        let all: Vec<_> = devices.iter().collect();
        finish(&plant, &plan, &all);
        longest = longest.max(begun.elapsed());
    }
    println!("{kills} kills, {amid} of them amid a device, {number} devices");
    assert_done_once(&plant, number);
}

/// Ctrl-C in the midst of eight devices: those whose keys have not been sent are let go of, the others finished. The journal is clean.
#[test]
fn ctrl_c_leaves_nothing_under_way() {
    let plant = Plant::new();
    let plan = plant.plan(PLAN);
    let fleet = Fleet::new();
    let devices = fleet.start_all(8);
    let mut command = plant.scratch.command();
    command.args(["station", "run", "--json"]).arg(&plan);
    for device in &devices {
        command.args(["--port", device.port()]);
    }
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let output = BufReader::new(child.stdout.take().expect("a pipe"));
    let (mut ended, mut stopped, mut told) = (Vec::new(), false, 0);
    for line in output.lines() {
        let line: serde_json::Value = serde_json::from_str(&line.expect("text")).expect("JSON");
        if line["warning"].to_string().contains("stopping") {
            told += 1;
        }
        // The first device is about to be sent its keys, the others are somewhere before.
        if line["step"] == "prepared" && !stopped {
            stopped = true;
            let child = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
            kill(child, Signal::SIGINT).expect("it runs");
        }
        if line["event"] == "ended" || line.get("ok").is_some() {
            ended.push(line);
        }
    }
    assert_eq!(child.wait().expect("it ends").code(), Some(1), "{ended:?}");
    let last = ended.pop().expect("a last line");
    assert_eq!((ended.len(), &last["ok"]), (8, &false.into()), "{last}");
    assert_eq!(told, 1, "{ended:?}");
    let stopped = ended.iter().filter(|it| it["result"] == "FAIL");
    for outcome in stopped.clone() {
        assert!(
            outcome["error"]
                .as_str()
                .is_some_and(|it| it.contains("stopped")),
            "{outcome}"
        );
    }
    assert!(stopped.count() > 0, "{ended:?}");
    let journal = Journal::open(&plant.scratch.path("station.journal")).unwrap();
    assert!(journal.all_under_way().unwrap().is_empty());
    drop(journal);
    finish(&plant, &plan, &devices.iter().collect::<Vec<_>>());
    assert_done_once(&plant, 8);
}

#[test]
fn a_journal_is_for_one_station() {
    let plant = Plant::new();
    let plan = plant.plan(PLAN);
    let held = Journal::open(&plant.scratch.path("station.journal")).unwrap();
    let answer = plant.run(&plan, &["tcp:localhost:1"], &[]);
    assert_eq!(answer.code, 2, "{answer:?}");
    assert!(
        answer.stdout.contains("is in use by another station"),
        "{answer:?}"
    );
    drop(held);
    // Nothing but a journal is taken for one.
    fs::copy(
        plant.scratch.path("line.audit"),
        plant.scratch.path("station.journal"),
    )
    .unwrap();
    let answer = plant.run(&plan, &["tcp:localhost:1"], &[]);
    assert_eq!(answer.code, 2, "{answer:?}");
    assert!(
        answer.stdout.contains("is no journal of a station"),
        "{answer:?}"
    );
    assert!(!plant.scratch.path("plant.db").exists());
}
