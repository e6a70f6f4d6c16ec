//! A big line: devices of the board `native`, each on a pseudo-terminal, in one run of the command. First all are good. Then lines
//! invert bits, boards have no power, plugs are pulled in the midst of an order, strangers come, and the token loses its sessions twice:
//! every good device is done, and every other named with its reason. At last the plugs are put in again, and everybody is done once.
//!
//! With `KEYFERRY_LONG` there are two hundred devices; otherwise fewer do the same.

mod places;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use keyferry::station::journal::Journal;
use keyferry_native::{Device, LineKind};
use keyferry_tests::command::Answer;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::Value;

use crate::{Fleet, KEYS, Plant, ended};
use places::{Kind, Place, device_id};

/// Files that the test has open for each device, and for each line to one, and what else it needs.
const OPEN_FILES: u64 = 2 * 8 + 4;

/// Many systems let a process have 1024 open files unless it asks for more; here both ends of all lines are in one process.
fn allow_open_files(wanted: u64) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("there is a limit");
    assert!(hard >= wanted, "this test has {wanted} files open");
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).expect("as many as there may be");
    }
}

/// Runs the plan with a token that may lose its sessions.
fn run(plant: &Plant, faults: &str, ports: &[&str]) -> Answer {
    let mut arguments = vec!["station", "run", "plan.toml", "--json"];
    for port in ports {
        arguments.extend(["--port", port]);
    }
    Answer::of(&mut plant.scratch.faulty(faults, &arguments))
}

/// What became of each nest, in the order of the ports.
fn by_nest(answer: &Answer) -> Vec<Value> {
    let number = |outcome: &Value| -> usize {
        let nest = outcome["nest"].as_str().expect("a nest");
        nest.parse().expect("numbers, without other names")
    };
    let mut outcomes = ended(answer);
    outcomes.sort_by_key(number);
    outcomes
}

fn failures(answer: &Answer) -> Vec<Value> {
    let mut outcomes = by_nest(answer);
    outcomes.retain(|outcome| outcome["result"] != "PASS");
    outcomes
}

/// The registry's records, by device.
fn records(plant: &Plant) -> BTreeMap<String, Value> {
    let records = plant.registry().into_iter();
    records
        .map(|record| (record["device"].as_str().expect("an id").to_owned(), record))
        .collect()
}

/// A line with its devices: those of the first run have the numbers from 1 to `count`, those of the second follow.
struct BigLine {
    count: u16,
    plant: Plant,
    fleet: Fleet,
    impostors: Fleet,
    /// Bits that were inverted.
    inverted: Arc<AtomicUsize>,
}

impl BigLine {
    fn new(count: u16) -> Self {
        let line = Self {
            count,
            plant: Plant::new(),
            fleet: Fleet::new(),
            impostors: Fleet::new(),
            inverted: Arc::default(),
        };
        let scratch = &line.plant.scratch;
        // It knows whom it expects: all but the strangers among them.
        let expected = (1..=2 * count)
            .filter(|id| *id <= count || Kind::of(*id - count - 1) != Kind::Stranger)
            .map(|id| format!("{}\n", device_id(id)));
        let list: String = expected.collect();
        std::fs::write(scratch.path("expected.txt"), list).unwrap();
        let plan = line
            .plant
            .plan("[devices]\nallow-test-devices = true\n[after]\nlock = true\n");
        let text = std::fs::read_to_string(&plan).unwrap();
        let open = "policy = \"open\"";
        let listed = "policy = \"serial-list\"\nserials = \"expected.txt\"";
        let (token, faulty) = (scratch.uri(), scratch.faulty_uri("line"));
        assert!(text.contains(open) && text.contains(&token), "{text}");
        let text = text.replace(open, listed).replace(&token, &faulty);
        std::fs::write(&plan, text).unwrap();
        line
    }

    /// The number of a device of the second run, which are counted from 0.
    const fn second(&self, number: u16) -> u16 {
        self.count + 1 + number
    }

    /// What stands at the places of the second run.
    fn places(&self) -> Vec<Place> {
        let pty = LineKind::PseudoTerminal;
        (0..self.count)
            .map(|number| match Kind::of(number) {
                Kind::Silent => Place::silent(),
                kind @ Kind::Impostor => {
                    let id = number + 1;
                    let device = self.impostors.start_on(id, pty.clone());
                    Place::new(kind, id, device, &self.inverted)
                }
                kind => {
                    let id = self.second(number);
                    let device = self.fleet.start_on(id, pty.clone());
                    Place::new(kind, id, device, &self.inverted)
                }
            })
            .collect()
    }

    /// Each outcome is the one that the place deserves.
    fn assert_named(&self, answer: &Answer, places: &[Place]) {
        let outcomes = by_nest(answer);
        assert_eq!(outcomes.len(), places.len());
        for (place, outcome) in places.iter().zip(&outcomes) {
            let kind = place.kind;
            let id = place.id.map(|id| id.to_string());
            assert_eq!(outcome["device"].as_str(), id.as_deref(), "{outcome}");
            assert_eq!(outcome["port"], place.port.as_str());
            match kind.reason() {
                None => {
                    assert_eq!(outcome["result"], "PASS", "{outcome}");
                    assert_eq!(outcome["keys_proved"], KEYS, "{outcome}");
                }
                Some(reason) => {
                    assert_eq!(outcome["result"], "FAIL", "{kind:?}: {outcome}");
                    let error = outcome["error"].as_str().expect("a reason");
                    assert!(error.contains(reason), "{kind:?}: {outcome}");
                    assert!(!outcome["hint"].as_str().expect("a hint").is_empty());
                }
            }
        }
        let bad = places.iter().filter(|place| place.kind != Kind::Good);
        let (bad, count) = (bad.count(), self.count);
        let last = answer.last();
        assert_eq!(
            last["error"],
            format!("{bad} of {count} devices were not done")
        );
    }

    /// The registry has those of the first run as they were, impostors or not, and of the others whom the line has believed.
    fn assert_registered(&self, before: &BTreeMap<String, Value>, places: &[Place]) {
        let now = records(&self.plant);
        for (id, record) in before {
            assert_eq!(record, &now[id]);
        }
        for place in places {
            let Some(id) = place.id.filter(|_| place.kind != Kind::Impostor) else {
                continue;
            };
            let record = now.get(&id.to_string());
            let proved = record.map(|record| {
                let slots = record["slots"].as_array().expect("slots");
                let proved = slots.iter().filter(|slot| slot["state"] == "proved");
                proved.count()
            });
            let expected = match place.kind {
                Kind::Good => Some(KEYS),
                Kind::PulledAtKeys | Kind::PulledAtReceipt => Some(0),
                Kind::Silent | Kind::Stranger | Kind::Impostor => None,
            };
            assert_eq!(proved, expected, "{:?}: {record:?}", place.kind);
        }
    }

    /// Whoever was to be done was done once, by the journal too, and nobody is under way.
    fn assert_done_once(&self) {
        let journal = Journal::open(&self.plant.scratch.path("station.journal")).unwrap();
        assert!(journal.all_under_way().unwrap().is_empty());
        for number in 0..self.count {
            let kind = Kind::of(number);
            let done = |id| journal.times_done(device_id(id)).unwrap();
            assert_eq!(done(number + 1), 1);
            let times = u64::from(kind.will_be_done());
            assert_eq!(done(self.second(number)), times, "{kind:?}");
        }
    }
}

#[test]
fn a_big_line_does_every_good_device_and_names_every_other() {
    let count: u16 = match std::env::var_os("KEYFERRY_LONG") {
        Some(_) => 200,
        None => 40,
    };
    allow_open_files(OPEN_FILES * u64::from(count) + 512);
    let line = BigLine::new(count);
    let plant = &line.plant;

    // All are good.
    let first: Vec<_> = (1..=count)
        .map(|id| line.fleet.start_on(id, LineKind::PseudoTerminal))
        .collect();
    let ports: Vec<_> = first.iter().map(Device::port).collect();
    let answer = run(plant, "", &ports);
    assert_eq!(answer.code, 0, "{:?}", failures(&answer));
    let last = answer.last();
    assert_eq!(last["passed"], count, "{last}");
    assert_eq!(last["keys_proved"], usize::from(count) * KEYS, "{last}");
    // What the backend got is looked into once, at the end: opening it takes a process for each key.
    let known = records(plant);
    assert_eq!(known.len(), usize::from(count));
    let audit = plant.audit();
    assert_eq!(audit["keys"]["proved"], last["keys_proved"], "{audit}");
    // At the start of the run, after each hundred devices, and at its end.
    assert_eq!(audit["checkpoints"], 2 + count / 100, "{audit}");
    let calls = plant.scratch.calls().len();

    // All that can be bad. The sessions are lost in the midst of the run: fewer devices take nearly as many calls.
    let places = line.places();
    let ports: Vec<_> = places.iter().map(|place| place.port.as_str()).collect();
    let losses = [calls / 3, calls * 2 / 3];
    let faults = losses.map(|call| format!("lose-sessions-at={call}"));
    let answer = run(plant, &faults.join(" "), &ports);
    assert_eq!(answer.code, 1, "{:?}", answer.last());
    let called = plant.scratch.calls();
    let logins = called.iter().filter(|call| *call == "C_Login").count();
    assert!(called.len() > losses[1] && logins >= 3, "{logins} logins");
    assert!(line.inverted.load(Ordering::Relaxed) > 0);
    line.assert_named(&answer, &places);
    line.assert_registered(&known, &places);

    // The plugs are put in again, and whom the impostors pretended to be comes as well.
    let again: Vec<_> = places
        .iter()
        .filter(|place| place.kind.will_be_done())
        .collect();
    let mut ports: Vec<_> = again.iter().map(|place| place.port_again()).collect();
    let victims = (0..count).filter(|number| Kind::of(*number) == Kind::Impostor);
    ports.extend(victims.map(|number| first[usize::from(number)].port()));
    let answer = run(plant, "", &ports);
    assert_eq!(answer.code, 0, "{:?}", failures(&answer));
    for (index, outcome) in by_nest(&answer).iter().enumerate() {
        let pulled = again
            .get(index)
            .is_some_and(|place| place.kind != Kind::Good);
        assert_eq!(outcome["before"] == true, !pulled, "{outcome}");
    }
    plant.assert_all_done(usize::from(count) + again.len());
    line.assert_done_once();
}
