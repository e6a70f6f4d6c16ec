//! What only a registry on a server can meet: passwords, TLS, somebody else's database, and a server that goes and comes back.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use keyferry::device::Witness as _;
use keyferry::error::{Exit, Failure};
use keyferry::station::journal::{Journal, NewUnit, UnitId};
use keyferry::station::registry::{Location, Registry, RegistryError, SlotState};
use keyferry::station::{Records, Scribe};
use keyferry_protocol::identity::Digest;
use keyferry_protocol::order::Kind;
use keyferry_protocol::proof::Proof;
use keyferry_protocol::receipt::{Outcome, State};
use keyferry_tests::command::{Answer, keyferry};
use keyferry_tests::openssl::openssl;
use keyferry_tests::postgres::{PASSWORD, Server};

use crate::records::inject;
use crate::{Device, server};

fn at(url: &str) -> Location {
    Location::parse(url.as_ref(), "".as_ref()).unwrap()
}

fn private(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn refused(location: &Location, password: Option<&Path>) -> RegistryError {
    let error = Registry::open_at(location, password).unwrap_err();
    let said = format!("{error} {error:?} {}", error.hint().unwrap());
    assert!(
        !said.contains(PASSWORD) && !said.contains("wrong one"),
        "{said}"
    );
    error
}

#[test]
fn a_password_comes_from_a_file_and_is_never_shown() {
    let server = server();
    let name = server.port_url(&server.database());
    let location = at(&name);
    let folder = tempfile::tempdir().unwrap();
    let right = private(folder.path(), "right", &format!("{PASSWORD}\n"));
    let wrong = private(folder.path(), "wrong", "the wrong one\n");
    drop(Registry::open_at(&location, Some(&right)).unwrap());
    let error = refused(&location, Some(&wrong));
    assert!(matches!(error, RegistryError::Refused { .. }), "{error}");
    assert_eq!(Failure::from(error).exit(), Exit::Usage);

    // On the command line, and by the file of all PostgreSQL programs.
    let list = || {
        let mut command = keyferry();
        command
            .args(["registry", "list", "--json", "--registry", &name])
            .env("HOME", folder.path());
        command
    };
    let answer = Answer::of(list().arg("--registry-password-file").arg(&right));
    assert_eq!(answer.code, 0, "{answer:?}");
    let pass = private(
        folder.path(),
        "pass",
        &format!("# of the plant\n127.0.0.1:*:*:line:{PASSWORD}\n"),
    );
    let answer = Answer::of(list().env("PGPASSFILE", &pass));
    assert_eq!(answer.code, 0, "{answer:?}");
    let answer = Answer::of(&mut list());
    assert_eq!(answer.code, 2, "{answer:?}");
    fs::set_permissions(&right, fs::Permissions::from_mode(0o644)).unwrap();
    let answer = Answer::of(list().arg("--registry-password-file").arg(&right));
    assert_eq!(answer.code, 2, "{answer:?}");
    assert!(answer.stdout.contains("is open to others"), "{answer:?}");
    assert!(!answer.stdout.contains(PASSWORD), "{answer:?}");

    let with_password = name.replace("line@", &format!("line:{}@", PASSWORD.replace(' ', "%20")));
    for words in [vec![], vec!["--json"]] {
        let answer = Answer::of(
            keyferry()
                .args(["registry", "list", "--registry", &with_password])
                .args(words),
        );
        assert_eq!(answer.code, 2, "{answer:?}");
        let said = format!("{}{}", answer.stdout, answer.stderr);
        assert!(said.contains("holds a password"), "{said}");
        assert!(!said.contains("six-legged"), "{said}");
    }
}

#[test]
fn a_registry_on_a_server_is_begun_only_where_devices_are_enrolled() {
    let server = server();
    let location = at(&server.url(&server.database()));
    let error = Registry::open_existing_at(&location, None).unwrap_err();
    assert!(matches!(error, RegistryError::Missing { .. }), "{error}");
    drop(Registry::open_at(&location, None).unwrap());
    drop(Registry::open_existing_at(&location, None).unwrap());
    let error = Registry::open_at(&at(&server.url("nowhere")), None).unwrap_err();
    assert!(matches!(error, RegistryError::Refused { .. }), "{error}");
}

#[test]
fn somebody_elses_database_is_left_alone() {
    let server = server();
    let database = server.database();
    let mut raw = server.raw(&database);
    raw.batch_execute("CREATE TABLE devices (device TEXT)")
        .unwrap();
    let error = refused(&at(&server.url(&database)), None);
    assert!(
        matches!(error, RegistryError::NotARegistry { .. }),
        "{error}"
    );
    let tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'";
    assert_eq!(raw.query_one(tables, &[]).unwrap().get::<_, i64>(0), 1);

    let database = server.database();
    let location = at(&server.url(&database));
    drop(Registry::open_at(&location, None).unwrap());
    let mut raw = server.raw(&database);
    raw.batch_execute("UPDATE keyferry_schema SET version = 7")
        .unwrap();
    let error = refused(&location, None);
    assert!(
        matches!(
            error,
            RegistryError::Newer {
                found: 7,
                known: 3,
                ..
            }
        ),
        "{error}"
    );
}

/// An older registry is brought up to date, and keeps what is in it; and both databases have the same tables.
#[test]
fn the_tables_are_those_of_a_file() {
    let server = server();
    let database = server.database();
    let location = at(&server.url(&database));
    drop(Registry::open_at(&location, None).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    drop(Registry::open(&path).unwrap());
    let mut raw = server.raw(&database);
    let sql = "SELECT table_name::text, column_name::text, data_type::text FROM information_schema.columns
         WHERE table_schema = 'public' AND table_name NOT LIKE 'keyferry%' ORDER BY table_name, ordinal_position";
    let on_server: Vec<_> = raw
        .query(sql, &[])
        .unwrap()
        .iter()
        .map(|row| {
            (
                row.get::<_, String>(0),
                row.get::<_, String>(1),
                row.get::<_, String>(2),
            )
        })
        .collect();
    let file = rusqlite::Connection::open(&path).unwrap();
    let mut query = file
        .prepare(
            "SELECT m.name, c.name, c.type FROM sqlite_schema m, pragma_table_info(m.name) c
             WHERE m.type = 'table' ORDER BY m.name, c.cid",
        )
        .unwrap();
    let in_file: Vec<_> = query
        .query_map([], |row| {
            let kind: String = row.get(2)?;
            let kind = match kind.as_str() {
                "TEXT" => "text",
                "BLOB" => "bytea",
                "INTEGER" => "bigint",
                other => panic!("{other}"),
            };
            Ok((row.get(0)?, row.get(1)?, kind.to_owned()))
        })
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(on_server, in_file);
    assert!(on_server.len() > 50);

    let device = Device::new(1);
    let registry = Registry::open_at(&location, None).unwrap();
    enrol(&registry, &device);
    registry.order_made(&inject(&device, 2, 1)).unwrap();
    let held = |registry: &Registry| {
        let record = registry.find(device.id).unwrap().expect("it is there");
        let slots = registry.slots(device.id).unwrap();
        assert_eq!(slots.len(), 2);
        format!("{record:?} {slots:?}")
    };
    let before = held(&registry);
    drop(registry);
    raw.batch_execute(
        "DROP TABLE kept_keys; ALTER TABLE slots DROP COLUMN doubted; UPDATE keyferry_schema SET version = 1",
    )
    .unwrap();
    let registry = Registry::open_at(&location, None).unwrap();
    assert_eq!(held(&registry), before);
    assert_eq!(registry.kept_keys().unwrap(), 0);
}

/// What two stations must not both write is refused by the database itself, whoever writes.
#[test]
fn the_database_itself_knows_what_must_be_unique() {
    let server = server();
    let database = server.database();
    let registry = Registry::open_at(&at(&server.url(&database)), None).unwrap();
    for number in [1, 2] {
        enrol(&registry, &Device::new(number));
    }
    let mut raw = server.raw(&database);
    raw.batch_execute("UPDATE devices SET serial = left(device, 2)")
        .unwrap();
    for column in ["device", "identity", "unwrap", "serial"] {
        let sql = format!("UPDATE devices SET {column} = (SELECT min({column}) FROM devices)");
        let error = raw.batch_execute(&sql).unwrap_err();
        assert_eq!(error.code().unwrap().code(), "23505", "{column}: {error}");
    }
}

fn enrol(registry: &Registry, device: &Device) {
    let trust = keyferry::station::policy::Trust {
        policy: "open",
        reason: "the room".to_owned(),
    };
    let enrolled = keyferry::station::registry::Enrolled {
        statement: &device.statement(),
        trust: &trust,
        serial: None,
    };
    registry.enrolled(&enrolled).unwrap();
}

#[test]
fn a_server_that_might_lose_something_is_refused() {
    let server = server();
    server.database_with("latin", "LATIN1");
    let error = refused(&at(&server.url("latin")), None);
    assert!(
        matches!(
            error,
            RegistryError::Setting {
                setting: "server_encoding",
                ..
            }
        ),
        "{error}"
    );
    let mut careless = Server::start();
    let database = careless.database();
    careless.crash();
    careless.go_on_with(&["fsync=off"]);
    let error = refused(&at(&careless.url(&database)), None);
    assert!(
        matches!(
            error,
            RegistryError::Setting {
                setting: "fsync",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_server_that_went_and_came_back_is_used_again() {
    let mut server = Server::start();
    let location = at(&server.url(&server.database()));
    let registry = Registry::open_at(&location, None).unwrap();
    enrol(&registry, &Device::new(1));
    server.crash();
    let error = registry.find(Device::new(1).id).unwrap_err();
    assert!(error.is_away(), "{error}");
    assert!(error.to_string().contains(&location.to_string()), "{error}");
    let trust = Registry::open_at(&location, None).unwrap_err();
    assert!(trust.is_away(), "{trust}");
    assert_eq!(Failure::from(trust).exit(), Exit::JobFailed);
    server.go_on();
    // A server that was away is left alone for a moment.
    let found = loop {
        match registry.find(Device::new(1).id) {
            Ok(found) => break found,
            Err(error) => assert!(error.is_away(), "{error}"),
        }
        thread::sleep(Duration::from_millis(20));
    };
    assert!(
        found.unwrap().statement().is_ok(),
        "what was committed is there"
    );
    enrol(&registry, &Device::new(2));
    // A connection that was lost in between is made again, and nobody notices.
    server.crash();
    server.go_on();
    enrol(&registry, &Device::new(3));
    server.crash();
    server.go_on();
    assert_eq!(
        registry.devices(&Default::default(), None).unwrap().len(),
        3
    );
}

/// Whoever has no certificate for the host's name from the plant's CA is not the server.
#[test]
fn with_tls_the_server_shows_who_it_is() {
    let mut server = Server::start();
    let database = server.database();
    let make_ca = |name: &str| {
        let (key, ca) = (
            server.path(&format!("{name}.key")),
            server.path(&format!("{name}.pem")),
        );
        let subject = format!("/CN={name}");
        openssl(
            &[
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                &subject,
                "-keyout",
                key.to_str().unwrap(),
                "-out",
                ca.to_str().unwrap(),
            ],
            b"",
        );
        (key, ca)
    };
    let (ca_key, ca) = make_ca("plant");
    let (_, other) = make_ca("other");
    let make = |name: &str, alternative: &str| {
        let path = |ending: &str| {
            server
                .path(&format!("{name}.{ending}"))
                .display()
                .to_string()
        };
        let extension = format!("subjectAltName={alternative}");
        openssl(
            &[
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=server",
                "-addext",
                &extension,
                "-addext",
                "basicConstraints=critical,CA:false",
                "-CA",
                ca.to_str().unwrap(),
                "-CAkey",
                ca_key.to_str().unwrap(),
                "-keyout",
                &path("key"),
                "-out",
                &path("pem"),
            ],
            b"",
        );
        for ending in ["key", "pem"] {
            server.own(&format!("{name}.{ending}"));
        }
    };
    make("right", "IP:127.0.0.1");
    make("elsewhere", "IP:192.0.2.1");
    let password = private(server.path("").as_path(), "password", PASSWORD);
    let mut with = |name: &str| {
        server.crash();
        let (certificate, key) = (
            server.path(&format!("{name}.pem")),
            server.path(&format!("{name}.key")),
        );
        server.go_on_with(&[
            "ssl=on",
            &format!("ssl_cert_file={}", certificate.display()),
            &format!("ssl_key_file={}", key.display()),
        ]);
        let url = server.port_url(&database);
        move |ca: &Path| at(&format!("{url}?sslrootcert={}", ca.display()))
    };
    let name = with("right");
    drop(Registry::open_at(&name(&ca), Some(&password)).unwrap());
    let error = refused(&name(&other), Some(&password));
    assert!(matches!(error, RegistryError::Refused { .. }), "{error}");
    let name = with("elsewhere");
    let error = refused(&name(&ca), Some(&password));
    assert!(matches!(error, RegistryError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
    server.crash();
    server.go_on();
    // One that has no TLS is not spoken to without.
    let error = refused(&name(&ca), Some(&password));
    assert!(matches!(error, RegistryError::Refused { .. }), "{error}");
}

/// Until the server that was away is spoken to again.
fn catch_up(records: &mut Records) {
    while let Err(error) = records.catch_up() {
        assert!(error.to_string().contains("is away"), "{error}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn begin(journal: &Journal, device: &Device) -> UnitId {
    let run = journal.begin_run("plan", &Digest([1; 32])).unwrap();
    let new = NewUnit {
        run,
        device: device.id,
        port: "port",
        nest: "nest",
        serial: None,
    };
    journal.begin(&new).unwrap().id
}

fn finish(journal: &Journal, unit: UnitId) {
    journal.trusted(unit).unwrap();
    journal.proved(unit).unwrap();
    journal.finished(unit).unwrap();
}

#[test]
fn what_is_found_out_while_the_server_is_away_waits_in_the_journal() {
    let mut server = Server::start();
    let location = at(&server.url(&server.database()));
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        Arc::new(Mutex::new(Records {
            audit: None,
            registry: Some(Registry::open_at(&location, None).unwrap()),
            journal: Some(Journal::open(&folder.path().join("journal")).unwrap()),
        }))
    };
    let mut device = Device::new(1);
    let records = open();
    let order = {
        let held = records.lock().unwrap();
        let registry = held.registry.as_ref().unwrap();
        enrol(registry, &device);
        registry.order_made(&inject(&device, 2, 1)).unwrap()
    };
    let unit = begin(records.lock().unwrap().journal.as_ref().unwrap(), &device);
    server.crash();
    (device.counter, device.state) = (2, State::Provisioned);
    let mut scribe = Scribe::new(Arc::clone(&records));
    let receipt = device.receipt(Kind::Lock, order, Outcome::Applied);
    scribe.receipt(&order, &receipt).unwrap();
    let proved = [(0, 1, Proof::Cmac), (3, 1, Proof::HmacSha256)];
    scribe.proved(device.id, order, &proved).unwrap();
    // Nothing of that was ever ordered: the registry will not have it.
    let never = [(9, 1, Proof::Cmac)];
    scribe.proved(device.id, order, &never).unwrap();
    let waiting = |records: &Mutex<Records>| {
        let held = records.lock().unwrap();
        held.journal.as_ref().unwrap().waiting_count().unwrap()
    };
    assert_eq!(waiting(&records), 3);
    assert!(records.lock().unwrap().catch_up().is_err());
    // What is to be written before anything is sent is not kept for later: it fails, or waits.
    assert!(scribe.certified(device.id, b"no certificate").is_err());
    drop((scribe, records));

    server.go_on();
    let records = open();
    assert_eq!(waiting(&records), 3, "the station may end meanwhile");
    catch_up(&mut records.lock().unwrap());
    assert_eq!(waiting(&records), 0);
    // Told once more, as by a station that was killed before it had noted that it was told.
    let mut scribe = Scribe::new(Arc::clone(&records));
    scribe.receipt(&order, &receipt).unwrap();
    scribe.proved(device.id, order, &proved).unwrap();
    let held = records.lock().unwrap();
    let registry = held.registry.as_ref().unwrap();
    let record = registry.find(device.id).unwrap().unwrap();
    assert_eq!((record.counter, record.state), (2, State::Provisioned));
    let slots = registry.slots(device.id).unwrap();
    assert_eq!(slots.len(), 2);
    assert!(slots.iter().all(|slot| slot.state == SlotState::Proved));
    let untaken = held.journal.as_ref().unwrap().untaken().unwrap();
    assert_eq!(untaken.len(), 1);
    assert!(untaken[0].reason.contains("slot 9"), "{untaken:?}");

    // A person is told of it until the device was begun and done again.
    let journal = held.journal.as_ref().unwrap();
    finish(journal, unit);
    assert_eq!(journal.untaken().unwrap().len(), 1);
    // The journal counts seconds.
    thread::sleep(Duration::from_millis(1_100));
    finish(journal, begin(journal, &device));
    assert!(journal.untaken().unwrap().is_empty());
}

/// What a line between station and server does to a commit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    /// The server never hears of it.
    RequestLost,
    /// The server does it, and the station never hears of that.
    AnswerLost,
}

/// Passes connections on to the server, and breaks the one on which the next commit comes as it is told.
fn breaking_line(port: u16, fate: &Arc<Mutex<Fate>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap().port();
    let fate = Arc::clone(fate);
    thread::spawn(move || {
        for station in listener.incoming() {
            let (mut station, fate) = (station.unwrap(), Arc::clone(&fate));
            let mut server = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let is_mute = Arc::new(AtomicBool::new(false));
            let (mut to_station, mut from_server) =
                (station.try_clone().unwrap(), server.try_clone().unwrap());
            let mute = Arc::clone(&is_mute);
            thread::spawn(move || {
                let mut bytes = [0; 16 * 1024];
                while let Ok(length @ 1..) = from_server.read(&mut bytes) {
                    if mute.load(Ordering::SeqCst)
                        || to_station.write_all(&bytes[..length]).is_err()
                    {
                        break;
                    }
                }
                let _ = to_station.shutdown(Shutdown::Both);
                let _ = from_server.shutdown(Shutdown::Both);
            });
            thread::spawn(move || {
                let mut bytes = [0; 16 * 1024];
                while let Ok(length @ 1..) = station.read(&mut bytes) {
                    let chunk = &bytes[..length];
                    let is_commit = chunk.ends_with(b"COMMIT\0");
                    if is_commit {
                        match std::mem::replace(&mut *fate.lock().unwrap(), Fate::Kept) {
                            Fate::Kept => {}
                            Fate::RequestLost => break,
                            Fate::AnswerLost => is_mute.store(true, Ordering::SeqCst),
                        }
                    }
                    if server.write_all(chunk).is_err() {
                        break;
                    }
                }
                let _ = station.shutdown(Shutdown::Both);
                let _ = server.shutdown(Shutdown::Both);
            });
        }
    });
    own
}

/// A release is refused the second time: who did it again because the answer was lost would say that it has failed.
#[test]
fn a_commit_whose_answer_is_lost_is_looked_for_and_not_made_again() {
    let server = server();
    let folder = tempfile::tempdir().unwrap();
    let password = private(folder.path(), "password", PASSWORD);
    for lost in [Fate::RequestLost, Fate::AnswerLost] {
        let database = server.database();
        let fate = Arc::new(Mutex::new(Fate::Kept));
        let port = breaking_line(server.port(), &fate);
        let url = format!("postgresql://line@127.0.0.1:{port}/{database}");
        let registry = Registry::open_at(&at(&url), Some(&password)).unwrap();
        let device = Device::new(1);
        enrol(&registry, &device);
        *fate.lock().unwrap() = lost;
        registry
            .release(device.id, device.fingerprint(), "sold")
            .unwrap();
        assert!(*fate.lock().unwrap() == Fate::Kept, "the line broke");
        let record = registry.find(device.id).unwrap().unwrap();
        assert_eq!(record.released.unwrap().reason, "sold");
        assert!(matches!(
            registry.release(device.id, device.fingerprint(), "again"),
            Err(RegistryError::Released { .. })
        ));
    }
}

/// What a station has found out is kept for whatever reason the registry cannot be told, and the others wait no second time for what is in the way.
#[test]
fn what_cannot_be_told_now_waits_in_the_journal() {
    let server = server();
    let database = server.database();
    let location = at(&server.url(&database));
    let folder = tempfile::tempdir().unwrap();
    let records = Arc::new(Mutex::new(Records {
        audit: None,
        registry: Some(Registry::open_at(&location, None).unwrap()),
        journal: Some(Journal::open(&folder.path().join("journal")).unwrap()),
    }));
    let scribe = Scribe::new(Arc::clone(&records));
    let devices = [1, 2].map(Device::new);
    for device in &devices {
        enrol(records.lock().unwrap().registry.as_ref().unwrap(), device);
    }
    // Somebody holds the lock of all changes, as one whose commit stalls does.
    let mut raw = server.raw(&database);
    raw.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(x'4b465247'::int)")
        .unwrap();
    for device in &devices {
        scribe.wiped(device.id, device.fingerprint()).unwrap();
    }
    let mut held = records.lock().unwrap();
    assert_eq!(held.journal.as_ref().unwrap().waiting_count().unwrap(), 2);
    let error = held.catch_up().unwrap_err();
    assert!(
        error.to_string().contains("is away: another change"),
        "{error}"
    );
    raw.batch_execute("ROLLBACK").unwrap();
    // A new connection need not leave the server alone for a while.
    held.registry = Some(Registry::open_at(&location, None).unwrap());
    catch_up(&mut held);
    let registry = held.registry.as_ref().unwrap();
    for device in &devices {
        assert!(
            registry
                .find(device.id)
                .unwrap()
                .unwrap()
                .released
                .is_some()
        );
    }
}
