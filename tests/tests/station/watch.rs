//! A station that stays: devices on pseudo-terminals are plugged in and pulled out under a watched folder. A link in the folder is the plug.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use keyferry::emulate::Board;
use keyferry::station::journal::Journal;
use keyferry_protocol::identity::DeviceId;
use keyferry_tests::board::{Image, Rig};
use keyferry_tests::command::refused;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::{KEYS, Plant};

const PLAN: &str = "[devices]\nallow-test-devices = true\n[[watch]]\nports = \"nests/*\"\n";

/// How long an event may keep a test waiting that is about to fail.
const PATIENCE: Duration = Duration::from_secs(300);

/// A station that stays, and what it tells.
struct Watch {
    child: Child,
    input: Option<ChildStdin>,
    events: Receiver<Value>,
    nests: PathBuf,
    /// All that it has told.
    seen: Vec<Value>,
}

impl Watch {
    /// Starts it on the plan of a plant, and waits until it waits.
    fn start(plant: &Plant, plan: &Path, more: &[&str]) -> Self {
        let nests = plant.scratch.path("nests");
        fs::create_dir_all(&nests).unwrap();
        let mut command = plant.scratch.command();
        command.args(["station", "watch", "--json"]).arg(plan);
        let mut child = command
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the command starts");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, events) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines() {
                let event = serde_json::from_str(&line.expect("text")).expect("JSON");
                let _ = sender.send(event);
            }
        });
        let mut watch = Self {
            input: child.stdin.take(),
            child,
            events,
            nests,
            seen: Vec::new(),
        };
        watch.wait_for("waiting");
        watch
    }

    /// The next event that is such a one.
    fn wait(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        loop {
            let Ok(event) = self.events.recv_timeout(PATIENCE) else {
                panic!("no {what}: {:?}", self.seen);
            };
            self.seen.push(event.clone());
            if fits(&event) {
                return event;
            }
        }
    }

    fn wait_for(&mut self, event: &str) -> Value {
        self.wait(event, |it| it["event"] == event)
    }

    fn plug(&self, nest: &str, port: &str) {
        symlink(port, self.nests.join(nest)).expect("a link");
    }

    fn pull(&self, nest: &str) {
        fs::remove_file(self.nests.join(nest)).expect("a link");
    }

    /// Pulls out these nests, and waits until that is seen.
    fn pull_all<'a>(&mut self, nests: impl Iterator<Item = &'a str> + Clone) {
        nests.clone().for_each(|nest| self.pull(nest));
        self.all("vanished", nests);
    }

    /// Waits for an event of each of these nests, and gives them by nest.
    fn all<'a>(
        &mut self,
        event: &str,
        nests: impl Iterator<Item = &'a str>,
    ) -> BTreeMap<String, Value> {
        let mut found = BTreeMap::new();
        let names: Vec<_> = nests.collect();
        while found.len() < names.len() {
            let it = self.wait_for(event);
            let nest = it["nest"].as_str().unwrap().to_owned();
            assert!(names.contains(&nest.as_str()), "{it}");
            assert!(found.insert(nest, it.clone()).is_none(), "twice: {it}");
        }
        found
    }

    fn signal(&self, signal: Signal) {
        let child = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"));
        kill(child, signal).expect("it runs");
    }

    /// A scanner types a line.
    fn scan(&mut self, line: &str) {
        let input = self.input.as_mut().expect("its input");
        writeln!(input, "{line}").expect("it reads");
    }

    /// Waits until it has ended; gives its exit code and the last of its output.
    fn end(mut self) -> (Option<i32>, Value, Vec<Value>) {
        while let Ok(event) = self.events.recv_timeout(PATIENCE) {
            self.seen.push(event);
        }
        let code = self.child.wait().expect("it ends").code();
        (code, self.seen.last().cloned().unwrap(), self.seen)
    }

    /// Ends it with Ctrl-C.
    fn stop(self) -> (Option<i32>, Value, Vec<Value>) {
        self.signal(Signal::SIGINT);
        self.end()
    }
}

fn device(seed: u8) -> Rig<Board> {
    Rig::start_on(Board::Native, Image::Default, seed)
}

/// The journal has nothing under way, and each of the devices with these seeds once.
fn assert_once(plant: &Plant, seeds: impl IntoIterator<Item = u8>) {
    let journal = Journal::open(&plant.scratch.path("station.journal")).unwrap();
    assert!(journal.all_under_way().unwrap().is_empty());
    let mut devices = 0;
    for seed in seeds {
        assert_eq!(journal.times_done(DeviceId([seed; 16])).unwrap(), 1);
        devices += 1;
    }
    drop(journal);
    plant.assert_all_done(devices);
}

#[test]
fn twenty_replug_cycles_do_each_device_once() {
    let plant = Plant::new();
    let plan = plant.plan(PLAN);
    let rigs = [1, 2, 3].map(device);
    let names = ["N1", "N2", "N3"];
    let plug_all = |watch: &Watch| {
        for (nest, rig) in names.iter().zip(&rigs) {
            watch.plug(nest, rig.port());
        }
    };
    let mut watch = Watch::start(&plant, &plan, &[]);
    // What is no port is left alone.
    fs::write(watch.nests.join("notes.txt"), "").unwrap();
    plug_all(&watch);
    for (nest, ended) in watch.all("ended", names.into_iter()) {
        assert_eq!(ended["result"], "PASS", "{ended}");
        assert_eq!(ended["keys_proved"], KEYS, "{ended}");
        assert!(
            ended["port"]
                .as_str()
                .unwrap()
                .ends_with(&format!("nests/{nest}"))
        );
    }
    watch.wait_for("waiting");
    for _ in 0..20 {
        watch.pull_all(names.into_iter());
        plug_all(&watch);
        for ended in watch.all("ended", names.into_iter()).values() {
            assert_eq!(ended["result"], "PASS", "{ended}");
            assert_eq!(ended["before"], true, "{ended}");
        }
    }
    let (code, last, seen) = watch.stop();
    assert_eq!(code, Some(0), "{last}");
    assert_eq!(
        (&last["done"], &last["before"]),
        (&3.into(), &60.into()),
        "{last}"
    );
    assert_eq!(last["keys_proved"], 3 * KEYS, "{last}");
    for (event, times) in [
        ("appeared", 63),
        ("vanished", 60),
        ("begun", 63),
        ("ended", 63),
    ] {
        let found = seen.iter().filter(|it| it["event"] == event).count();
        assert_eq!(found, times, "{event}");
    }
    assert_once(&plant, [1, 2, 3]);
}

/// A device that loses its power in the midst, and its port with it, is plugged in again, and is done once. The plan's hook holds the
/// station at the place where that happens.
#[test]
fn what_failed_is_tried_again_when_it_comes_back() {
    let plant = Plant::new();
    let plan = plant.plan(&format!(
        "{PLAN}[hook]\nprogram = \"sh\"\narguments = [\"-c\", \"until [ -e go ]; do sleep 0.05; done\"]\n\
         seconds = 3600\nbefore = \"fail\"\n[limits]\ndevices = 2\n"
    ));
    let mut rig = device(1);
    let mut watch = Watch::start(&plant, &plan, &[]);
    watch.plug("N1", rig.port());
    assert_eq!(watch.wait_for("hook")["moment"], "before");
    rig.kill();
    watch.wait_for("vanished");
    fs::write(plant.scratch.path("go"), "").unwrap();
    let ended = watch.wait_for("ended");
    assert_eq!(ended["result"], "FAIL", "{ended}");
    assert!(ended["hint"].as_str().unwrap().contains("plug"), "{ended}");
    // The same nest, and the device's next pseudo-terminal.
    rig = rig.restart();
    watch.pull("N1");
    watch.plug("N1", rig.port());
    let ended = watch.wait_for("ended");
    assert_eq!(ended["result"], "PASS", "{ended}");
    let (code, last, _) = watch.stop();
    assert_eq!(code, Some(0), "{last}");
    assert_eq!(
        (&last["failed"], &last["not_done"]),
        (&1.into(), &0.into()),
        "{last}"
    );
    // It was one device, and another one might have come.
    assert_eq!(last["ended"], "the line was stopped", "{last}");
    assert_once(&plant, [1]);
}

#[test]
fn one_that_stays_failed_is_told_in_the_end() {
    let plant = Plant::new();
    // Test devices are not allowed.
    let plan = plant.plan("[[watch]]\nports = \"nests/*\"\n");
    let rigs = [1, 2].map(device);
    let mut watch = Watch::start(&plant, &plan, &[]);
    for (nest, rig) in ["N1", "N2"].iter().zip(&rigs) {
        watch.plug(nest, rig.port());
    }
    watch.all("ended", ["N1", "N2"].into_iter());
    let (code, last, seen) = watch.stop();
    assert_eq!(code, Some(1), "{last}");
    assert_eq!(last["error"], "2 of the devices that came were not done");
    let summary = &seen[seen.len() - 2];
    assert_eq!(summary["ended"], "the line was stopped", "{summary}");
    assert!(plant.registry().is_empty());

    // People see it from afar.
    let mut command = plant.scratch.command();
    let mut child = command
        .args(["station", "watch"])
        .arg(&plan)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut told: Vec<String> = Vec::new();
    while told.iter().filter(|line| line.contains(" FAIL ")).count() < 2 {
        told.push(lines.next().expect("a line").unwrap());
    }
    assert!(
        told.iter().any(|it| it.starts_with(" FAIL  N1  ")),
        "{told:?}"
    );
    assert!(told.iter().any(|it| it.starts_with("  hint: ")), "{told:?}");
    let process = Pid::from_raw(i32::try_from(child.id()).unwrap());
    kill(process, Signal::SIGTERM).unwrap();
    lines.for_each(drop);
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[test]
fn limits_end_a_station_that_stays() {
    let plant = Plant::new();
    let plan = plant.plan(&format!("{PLAN}[limits]\ndevices = 2\n"));
    let rigs = [1, 2, 3].map(device);
    let mut watch = Watch::start(&plant, &plan, &[]);
    watch.plug("N1", rigs[0].port());
    watch.wait_for("ended");
    // One that is done takes no place of another.
    watch.pull_all(["N1"].into_iter());
    watch.plug("N1", rigs[0].port());
    assert_eq!(watch.wait_for("ended")["before"], true);
    watch.plug("N2", rigs[1].port());
    watch.wait_for("ended");
    watch.plug("N3", rigs[2].port());
    let (code, last, _) = watch.end();
    assert_eq!(code, Some(0), "{last}");
    assert_eq!(last["ended"], "the plan allows no more devices in one run");
    assert_eq!(last["done"], 2, "{last}");
    assert_once(&plant, [1, 2]);

    fs::remove_dir_all(plant.scratch.path("nests")).unwrap();
    let plan = plant
        .plan("[[watch]]\nports = \"nests/*\"\n[limits]\nfailures-in-a-row = 2\nat-once = 1\n");
    let rigs = [4, 5, 6].map(device);
    let watch = Watch::start(&plant, &plan, &[]);
    for (nest, rig) in ["N1", "N2", "N3"].iter().zip(&rigs) {
        watch.plug(nest, rig.port());
    }
    let (code, last, seen) = watch.end();
    assert_eq!(code, Some(1), "{last}");
    let summary = &seen[seen.len() - 2];
    assert_eq!(
        summary["ended"],
        "too many devices failed one after the other"
    );
    assert_eq!(summary["failed"], 2, "{summary}");
}

#[test]
fn a_label_that_is_scanned_twice_is_refused() {
    let plant = Plant::new();
    let plan = plant.plan(
        "[devices]\nallow-test-devices = true\nserials = true\n[[watch]]\nports = \"nests/*\"\n",
    );
    let rigs = [1, 2].map(device);
    let mut watch = Watch::start(&plant, &plan, &["--scan"]);
    watch.scan("N1 SN-1");
    let scanned = watch.wait_for("scanned");
    assert_eq!(
        (&scanned["nest"], &scanned["serial"]),
        (&"N1".into(), &"SN-1".into())
    );
    watch.scan("N2 SN-1");
    let refused = watch.wait_for("scan-refused");
    assert_eq!(
        refused["error"],
        "the serial number 'SN-1' was scanned for nest 'N1' already"
    );
    assert!(refused["hint"].is_string(), "{refused}");
    // The second device has no label now, and is not touched.
    for (nest, rig) in ["N1", "N2"].iter().zip(&rigs) {
        watch.plug(nest, rig.port());
    }
    let ended = watch.all("ended", ["N1", "N2"].into_iter());
    assert_eq!(
        (&ended["N1"]["result"], &ended["N1"]["serial"]),
        (&"PASS".into(), &"SN-1".into())
    );
    let error = ended["N2"]["error"].as_str().unwrap();
    assert_eq!(error, "no serial number was given for nest 'N2'");
    watch.wait_for("waiting");
    // The label of a device that is done: the registry knows whose it is. The nest is scanned first, then the label.
    watch.pull_all(["N2"].into_iter());
    watch.scan("N1");
    watch.wait_for("nest-scanned");
    watch.scan("SN-3");
    assert_eq!(watch.wait_for("scanned")["nest"], "N1");
    watch.scan("N2 SN-1");
    watch.wait_for("scanned");
    watch.plug("N2", rigs[1].port());
    let ended = watch.wait_for("ended");
    assert!(ended["error"].as_str().unwrap().contains("SN-1"), "{ended}");
    assert_eq!(plant.registry().len(), 1);
    // Its own label, and the first device without one: the books know it.
    watch.pull_all(["N1", "N2"].into_iter());
    watch.scan("N2 SN-2");
    watch.wait_for("scanned");
    watch.plug("N2", rigs[1].port());
    let ended = watch.wait_for("ended");
    assert_eq!(
        (&ended["result"], &ended["serial"]),
        (&"PASS".into(), &"SN-2".into()),
        "{ended}"
    );
    watch.plug("N4", rigs[0].port());
    let ended = watch.wait_for("ended");
    assert_eq!(
        (&ended["before"], &ended["serial"]),
        (&true.into(), &"SN-1".into()),
        "{ended}"
    );
    // A label of another device does not become its label.
    watch.pull_all(["N4"].into_iter());
    watch.plug("N1", rigs[0].port());
    let ended = watch.wait_for("ended");
    assert!(
        ended["error"]
            .as_str()
            .unwrap()
            .contains("'SN-3' was given"),
        "{ended}"
    );
    // No nest, no label; and the end of the scanner is not that of the station.
    watch.scan("SN-9");
    watch.wait_for("scan-refused");
    watch.input = None;
    watch.wait_for("scanner-ended");
    let (code, last, _) = watch.stop();
    assert_eq!(code, Some(1), "{last}");
    assert_once(&plant, [1, 2]);
}

#[test]
fn ctrl_c_in_the_midst_of_eight_devices_leaves_a_clean_journal() {
    let plant = Plant::new();
    let plan = plant.plan(PLAN);
    let rigs: Vec<_> = (1..=8).map(device).collect();
    let names: Vec<_> = (1..=8).map(|number| format!("N{number}")).collect();
    let plug_all = |watch: &Watch| {
        for (nest, rig) in names.iter().zip(&rigs) {
            watch.plug(nest, rig.port());
        }
    };
    let mut watch = Watch::start(&plant, &plan, &[]);
    plug_all(&watch);
    watch.wait("step", |it| it["step"] == "prepared");
    let (code, last, seen) = watch.stop();
    let ended: Vec<_> = seen.iter().filter(|it| it["event"] == "ended").collect();
    let failed = ended.iter().filter(|it| it["result"] == "FAIL");
    for outcome in failed.clone() {
        let error = outcome["error"].as_str().unwrap();
        assert!(error.contains("the line was stopped"), "{outcome}");
    }
    // On a quick machine all of them may have been sent their keys.
    let expected = if failed.count() == 0 { 0 } else { 1 };
    assert_eq!(code, Some(expected), "{last}");
    let begun = seen.iter().filter(|it| it["event"] == "begun").count();
    assert_eq!(ended.len(), begun, "{seen:?}");
    let journal = Journal::open(&plant.scratch.path("station.journal")).unwrap();
    assert!(journal.all_under_way().unwrap().is_empty());
    drop(journal);

    // Ctrl-C until it ends: the second one ends it where it is, and the journal knows where that was.
    fs::remove_dir_all(plant.scratch.path("nests")).unwrap();
    let mut watch = Watch::start(&plant, &plan, &[]);
    plug_all(&watch);
    watch.wait_for("found");
    while watch.child.try_wait().unwrap().is_none() {
        watch.signal(Signal::SIGINT);
        thread::sleep(Duration::from_millis(20));
    }

    fs::remove_dir_all(plant.scratch.path("nests")).unwrap();
    let mut watch = Watch::start(&plant, &plan, &[]);
    plug_all(&watch);
    let ended = watch.all("ended", names.iter().map(String::as_str));
    assert!(ended.values().all(|it| it["result"] == "PASS"), "{ended:?}");
    let (code, last, _) = watch.stop();
    assert_eq!(code, Some(0), "{last}");
    assert_once(&plant, 1..=8);
}

#[test]
fn what_cannot_be_watched_is_refused() {
    let plant = Plant::new();
    let try_it = |more: &str, error: &str, hint: &str| {
        let plan = plant.plan(more);
        let command = || {
            let mut command = plant.scratch.command();
            command.args(["station", "watch"]).arg(&plan);
            command
        };
        refused(command, 2, error, hint);
    };
    try_it("", "does not say where devices are plugged in", "[[watch]]");
    try_it(
        "[[port]]\nport = \"tcp:localhost:1\"\nnest = \"A1\"\n",
        "port 'tcp:localhost:1'",
        "station run",
    );
    try_it(
        &format!("{PLAN}[[port]]\nport = \"/dev/ttyX\"\nnest = \"A1\"\n")
            .replace("[[watch]]", "serials = true\n[[watch]]"),
        "--scan is missing",
        "--scan",
    );
    assert!(!plant.scratch.path("station.journal").exists());
    // The plan's name of a nest goes before that of the folder: one device is at one nest.
    let rig = device(1);
    let nests = plant.scratch.path("nests");
    let plan = plant.plan(&format!(
        "{PLAN}[[port]]\nport = \"{}/N1\"\nnest = \"left\"\n",
        nests.display()
    ));
    let mut watch = Watch::start(&plant, &plan, &[]);
    watch.plug("N1", rig.port());
    assert_eq!(watch.wait_for("ended")["nest"], "left");
    let (code, _, seen) = watch.stop();
    assert_eq!(code, Some(0));
    assert_eq!(
        seen.iter().filter(|it| it["event"] == "appeared").count(),
        1
    );
}
