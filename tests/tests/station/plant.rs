//! Two stations of one plant, with one registry on a PostgreSQL server: no device is done twice, and nothing is lost when the server
//! goes in the midst of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use keyferry::station::journal::Journal;
use keyferry_native::Device;
use keyferry_protocol::identity::DeviceId;
use keyferry_tests::command::Answer;
use keyferry_tests::postgres::Server;
use serde_json::Value;

use crate::{Fleet, KEYS, OWN, Plant};

/// Before device 1 is begun at a station, it waits until the test lets it: by then the server is gone.
const HOOK: &str = r#"
read -r event
case "$event" in
    *'"device":"00000000000000000000000000000001"'*'"event":"before"'*)
        touch reached
        while [ ! -e go ]; do sleep 0.05; done ;;
esac
"#;

/// A station's plan: its own journal, log and exports, the plant's registry and token.
fn plan(plant: &Plant, station: &str, url: &str) -> PathBuf {
    let text = fs::read_to_string(plant.plan(
        "[devices]\nallow-test-devices = true\n[after]\nlock = true\n[limits]\nregistry-wait = 86400\n\
         [hook]\nprogram = \"/bin/sh\"\narguments = [\"hook.sh\"]\nseconds = 3600\nbefore = \"fail\"\n",
    ))
    .unwrap();
    let text = text
        .replace("station.journal", &format!("{station}.journal"))
        .replace("plant.db", url)
        .replace("line.audit", &format!("{station}.audit"))
        .replace("\"exports\"", &format!("\"exports-{station}\""));
    let path = plant.scratch.path(&format!("{station}.toml"));
    fs::write(&path, text).unwrap();
    fs::write(plant.scratch.path("hook.sh"), HOOK).unwrap();
    if !plant.scratch.path(&format!("{station}.audit")).exists() {
        let (log, name) = (format!("{station}.audit"), format!("station {station}"));
        plant.scratch.done([
            "audit",
            "create",
            &log,
            "--station",
            &name,
            "--authority",
            "authority",
            "--audit-key",
            "audit",
        ]);
    }
    path
}

fn start(plant: &Plant, plan: &Path, devices: &[&Device]) -> Child {
    let mut command = plant.scratch.command();
    command.args(["station", "run", "--json"]).arg(plan);
    for device in devices {
        command.args(["--port", device.port()]);
    }
    command
        .stdout(Stdio::piped())
        .spawn()
        .expect("the command starts")
}

/// What a station says, and then its exit code; each line goes to whoever listens as well.
fn follow(mut child: Child, told: mpsc::Sender<Value>) -> thread::JoinHandle<(Vec<Value>, i32)> {
    thread::spawn(move || {
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut lines = Vec::new();
        for line in output.lines() {
            let line: Value = serde_json::from_str(&line.expect("text")).expect("JSON");
            let _ = told.send(line.clone());
            lines.push(line);
        }
        let code = child.wait().expect("it ends").code().expect("a code");
        (lines, code)
    })
}

fn is_away(line: &Value) -> bool {
    let warning = line["warning"].as_str();
    warning.is_some_and(|warning| warning.contains("is away"))
}

/// All that knows of the devices says that each was done once: at one of the stations.
fn assert_each_done_once(plant: &Plant, url: &str, devices: u16) {
    let registry = plant.registry_at(url);
    assert_eq!(registry.len(), usize::from(devices));
    for device in &registry {
        let slots = device["slots"].as_array().expect("slots");
        assert_eq!(slots.len(), KEYS, "{device}");
        assert!(
            slots.iter().all(|slot| slot["state"] == "proved"),
            "{device}"
        );
        assert!(slots.iter().all(|slot| slot["version"] == 1), "{device}");
        assert_eq!(device["state"], "locked", "{device}");
    }
    let mut done = BTreeMap::new();
    let mut proved = 0;
    let mut exported = Vec::new();
    for station in ["a", "b"] {
        let journal = plant.scratch.path(&format!("{station}.journal"));
        let journal = Journal::open(&journal).unwrap();
        assert!(journal.all_under_way().unwrap().is_empty());
        assert_eq!(journal.waiting_count().unwrap(), 0);
        assert_eq!(journal.untaken().unwrap(), []);
        for number in 1..=devices {
            let mut id = DeviceId::ZERO;
            id.0[14..].copy_from_slice(&number.to_be_bytes());
            *done.entry(number).or_insert(0) += journal.times_done(id).unwrap();
        }
        let audit = plant
            .scratch
            .done(["audit", "verify", &format!("{station}.audit")]);
        assert_eq!(audit["keys"]["open"], 0, "{audit}");
        assert_eq!(audit["open_orders"], 0, "{audit}");
        proved += audit["keys"]["proved"].as_u64().expect("a number");
        exported.extend(plant.exported_in(&format!("exports-{station}")));
    }
    assert!(done.values().all(|times| *times == 1), "{done:?}");
    assert_eq!(proved, u64::from(devices) * KEYS as u64);
    let places: BTreeSet<_> = exported
        .iter()
        .map(|(device, slot, _)| (device, slot))
        .collect();
    let keys: BTreeSet<_> = exported.iter().map(|(.., key)| key).collect();
    let count = usize::from(devices) * OWN;
    assert_eq!((places.len(), keys.len()), (count, count));
    assert_eq!(exported.len(), count, "each key is exported once");
}

#[test]
fn two_stations_share_a_server_that_goes_in_the_midst_of_it() {
    const DEVICES: u16 = 8;
    let mut server = Server::start();
    let url = server.url(&server.database());
    let plant = Plant::new();
    let fleet = Fleet::new();
    let devices = fleet.start_all(DEVICES);
    let (a, b) = (plan(&plant, "a", &url), plan(&plant, "b", &url));
    let all: Vec<&Device> = devices.iter().collect();
    let (told, events) = mpsc::channel();
    // Devices 3 to 6 are at both stations: whichever comes first has them.
    let first = follow(start(&plant, &a, &all[..6]), told.clone());
    // SoftHSM writes its token's file anew at each login: whoever looks for the token just then finds none.
    let begun = events.iter().find(|line| line["event"] == "run");
    assert!(begun.is_some(), "the first station does not begin");
    let stations = [first, follow(start(&plant, &b, &all[2..]), told)];
    while !plant.scratch.path("reached").exists() {
        if stations[0].is_finished() {
            panic!(
                "device 1 is not begun: {:?}",
                stations.map(|it| it.join().unwrap())
            );
        }
        thread::sleep(Duration::from_millis(10));
    }
    // Device 1 is about to be begun; the others are wherever they are.
    server.crash();
    fs::write(plant.scratch.path("go"), "").unwrap();
    let away = events
        .iter()
        .find(is_away)
        .expect("a station misses the server");
    assert!(
        away["warning"]
            .as_str()
            .unwrap()
            .contains(&plant_name(&server, &url)),
        "{away}"
    );
    server.go_on();
    let ended = stations.map(|station| station.join().unwrap());
    // A device that both had at once may be busy at one of them; nothing else may have failed. Devices 3 to 6 are at these nests.
    for ((lines, code), shared) in ended.iter().zip([3..=6, 1..=4]) {
        for line in lines.iter().filter(|line| line["result"] == "FAIL") {
            let nest: u16 = line["nest"].as_str().unwrap().parse().unwrap();
            assert!(shared.contains(&nest), "{line}");
        }
        assert!([0, 1].contains(code), "{lines:?}");
        assert_eq!(lines.last().unwrap()["ok"], *code == 0, "{lines:?}");
    }
    let done = |lines: &[Value]| {
        let ended = lines.iter().filter(|line| line["event"] == "ended");
        ended.filter(|line| line["result"] == "PASS").count()
    };
    assert!(
        done(&ended[0].0) >= 2,
        "those that only this station has: {:?}",
        ended[0].0
    );
    for (plan, devices) in [(&a, &all[..6]), (&b, &all[2..])] {
        let ports: Vec<_> = devices.iter().map(|device| device.port()).collect();
        let answer = plant.run(plan, &ports, &[]);
        assert_eq!(answer.code, 0, "{answer:?}");
    }
    assert_each_done_once(&plant, &url, DEVICES);
}

/// A server whose processes are stopped, or whose disk stalls, lets the line stand no longer than one that is gone: what the registry has to be
/// told waits in the journal, and what has to be asked of it waits with words.
#[test]
fn a_server_that_says_nothing_is_away() {
    let server = Server::start();
    let url = server.url(&server.database());
    let plant = Plant::new();
    let fleet = Fleet::new();
    let devices = fleet.start_all(2);
    let plan = plan(&plant, "a", &url);
    let (told, events) = mpsc::channel();
    let station = follow(
        start(&plant, &plan, &devices.iter().collect::<Vec<_>>()),
        told,
    );
    while !plant.scratch.path("reached").exists() && !station.is_finished() {
        thread::sleep(Duration::from_millis(10));
    }
    let frozen = server.freeze();
    fs::write(plant.scratch.path("go"), "").unwrap();
    let Some(away) = events.iter().find(is_away) else {
        panic!("{:?}", station.join().unwrap());
    };
    let warning = away["warning"].as_str().unwrap();
    assert!(warning.contains("it has not answered for"), "{away}");
    drop(frozen);
    let (lines, code) = station.join().unwrap();
    assert_eq!(code, 0, "{lines:?}");
    let registry = plant.registry_at(&url);
    assert_eq!(registry.len(), 2);
    let locked = |device: &Value| device["state"] == "locked";
    assert!(registry.iter().all(locked), "{registry:?}");
    let journal = Journal::open(&plant.scratch.path("a.journal")).unwrap();
    assert_eq!(journal.waiting_count().unwrap(), 0);
    assert_eq!(journal.untaken().unwrap(), []);
    for number in [1, 2] {
        let mut id = DeviceId::ZERO;
        id.0[15] = number;
        assert_eq!(journal.times_done(id).unwrap(), 1);
    }
}

/// The registry's name, as errors have it.
fn plant_name(server: &Server, url: &str) -> String {
    let location = keyferry::station::registry::Location::parse(url.as_ref(), "".as_ref()).unwrap();
    assert!(server.path("data").exists());
    location.to_string()
}

/// A station that is begun while the server is away waits for it; what it may wait is the plan's to say.
#[test]
fn a_station_waits_for_its_server() {
    let mut server = Server::start();
    let url = server.url(&server.database());
    let plant = Plant::new();
    fs::write(plant.scratch.path("go"), "").unwrap();
    let fleet = Fleet::new();
    let device = fleet.start(1);
    server.crash();
    let patient = plan(&plant, "a", &url);
    let (told, events) = mpsc::channel();
    let station = follow(start(&plant, &patient, &[&device]), told);
    if !events.iter().any(|line| is_away(&line)) {
        panic!("{:?}", station.join().unwrap());
    }
    server.go_on();
    let (lines, code) = station.join().unwrap();
    assert_eq!(code, 0, "{lines:?}");

    server.crash();
    let text = fs::read_to_string(&patient).unwrap();
    fs::write(
        &patient,
        text.replace("registry-wait = 86400", "registry-wait = 0"),
    )
    .unwrap();
    let answer: Answer = plant.run(&patient, &[device.port()], &[]);
    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(answer.stdout.contains("is away"), "{answer:?}");
    assert!(
        answer.stdout.contains("see that the server runs"),
        "{answer:?}"
    );
}

#[test]
fn a_password_in_a_plan_is_a_mistake_and_not_repeated() {
    let plant = Plant::new();
    let plan = plan(&plant, "a", "postgresql://line:secret@localhost/plant");
    let check = ["station", "check", &plan.display().to_string(), "--json"].map(str::to_owned);
    let answer = plant.scratch.run(check);
    assert_eq!(answer.code, 2, "{answer:?}");
    assert!(answer.stdout.contains("holds a password"), "{answer:?}");
    assert!(!answer.stdout.contains("secret"), "{answer:?}");
}
