//! No clear key in a station: a dump of its whole address space in the middle of injections with known keys, the token behind a
//! broker, and a search through all that it writes. What the search would find is shown on a helper that holds a copy.

#![cfg(target_os = "linux")]

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use keyferry::broker::wire;
use keyferry::device::flow::enroll_order;
use keyferry::device::port;
use keyferry::device::session::Greeting;
use keyferry::device::verify::Statement;
use keyferry::hsm::KeySpec;
use keyferry::station::{Hsm, Recipient};
use keyferry_protocol::identity::{Challenge, Digest, Fingerprint, Hint};
use keyferry_protocol::receipt::State;
use keyferry_protocol::suite::{Suite, UnwrapAlgorithm};
use keyferry_tests::board::{Image, Rig};
use keyferry_tests::broker::{Broker, FakeDevice};
use keyferry_tests::command::{Answer, done};
use keyferry_tests::openssl::make_blob;
use keyferry_tests::process::{Region, dump, environment_and_arguments, family};
use keyferry_tests::search::{Finding, Search, forms, secrets_of};
use keyferry_tests::software::{SoftKey, aes_key, hmac_key, p256_key, rsa_key};
use keyferry_tests::tokens::{PIN, Scratch};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::openpty;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use p256::pkcs8::{DecodePrivateKey as _, EncodePublicKey as _};

/// Keys of all kinds, which the test knows and the token learns.
fn keys() -> Vec<(&'static str, SoftKey)> {
    vec![
        ("aes-128", aes_key(16, 1)),
        ("aes-256", aes_key(32, 2)),
        ("hmac-256", hmac_key(3)),
        ("p-256", p256_key(4)),
        ("rsa-2048", rsa_key(5)),
    ]
}

/// What is searched: the secrets of the keys in every form, and the PIN.
fn search() -> Search {
    let keys: Vec<_> = keys().into_iter().map(|(_, key)| key).collect();
    let mut search = Search::default();
    for (name, secret) in secrets_of(&keys) {
        search.add(&name, &secret);
        search.add_text(&name, &secret);
    }
    search.add_whole("the PIN", PIN.as_bytes());
    search
}

/// A token that has the keys: wrapped toward it by OpenSSL, as any sender could.
fn token() -> Scratch {
    let scratch = Scratch::new("factory");
    let create = |rest: &[&str]| scratch.done(["key", "create"].iter().chain(rest));
    create(&["--label", "authority", "--type", "p-256", "--usage", "sign"]);
    create(&["--label", "audit", "--type", "p-256", "--usage", "sign"]);
    create(&["--label", "in", "--type", "p-256", "--usage", "unwrap"]);
    scratch.done(["key", "public", "--label", "in", "--out", "in.pem"]);
    let recipient = scratch.path("in.pem").display().to_string();
    for (key_type, key) in keys() {
        let blob = make_blob(&scratch, Suite::EcdhP256Null, &recipient, &key.clear);
        fs::write(scratch.path("key.blob"), blob).unwrap();
        let mut import = vec!["key", "import", "--unauthenticated", "--extractable"];
        import.extend(["--in", "key.blob", "--unwrap-with", "in"]);
        import.extend(["--label", key_type, "--type", key_type]);
        match public_key(&key) {
            Some(public) => {
                fs::write(scratch.path("key.der"), public).unwrap();
                import.extend(["--usage", "sign", "--public-key", "key.der"]);
            }
            None => import.extend(["--usage", "sign,verify"]),
        }
        scratch.done(&import);
    }
    // The clear keys were this test's own until here.
    fs::remove_file(scratch.path("key.blob")).unwrap();
    scratch
}

/// The public key of a pair, `SubjectPublicKeyInfo` DER.
fn public_key(key: &SoftKey) -> Option<Vec<u8>> {
    let p256 = p256::SecretKey::from_pkcs8_der(&key.clear).ok();
    let rsa = rsa::RsaPrivateKey::from_pkcs8_der(&key.clear).ok();
    let public = p256
        .map(|key| key.public_key().to_public_key_der())
        .or(rsa.map(|key| key.to_public_key().to_public_key_der()))?;
    Some(public.unwrap().into_vec())
}

/// Something on its way over the line, before it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passing {
    /// From the station: an order, a blob.
    Down(usize),
    /// From the device: a statement, a receipt.
    Up(usize),
    /// From the broker: what it has wrapped, and then what it thinks of each proof in the receipt.
    Answer(&'static str),
}

/// A serial line that stops whenever `hold` is called, until it comes back.
struct Line {
    path: String,
    // The line stays open between two stations.
    _end: OwnedFd,
    over: Arc<AtomicBool>,
    carrier: Option<JoinHandle<Vec<u8>>>,
}

impl Line {
    fn new(device: &str, mut hold: impl FnMut(Passing) + Send + 'static) -> Self {
        let pair = openpty(None, None).unwrap();
        let mut settings = tcgetattr(&pair.slave).unwrap();
        cfmakeraw(&mut settings);
        tcsetattr(&pair.slave, SetArg::TCSANOW, &settings).unwrap();
        let path = fs::read_link(format!("/proc/self/fd/{}", pair.slave.as_raw_fd())).unwrap();
        fcntl(&pair.master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let mut near = fs::File::from(pair.master);
        let mut far = port::open(device).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        let carrier = thread::spawn(move || {
            let mut carried = Vec::new();
            let mut buffer = [0; 4096];
            let mut waiting = Vec::new();
            while !ended.load(Ordering::Relaxed) {
                let count = near.read(&mut buffer).unwrap_or(0);
                if count > 0 {
                    hold(Passing::Down(count));
                    carried.extend_from_slice(&buffer[..count]);
                    let mut sent = 0;
                    while sent < count {
                        sent += far.write(&buffer[sent..count]).unwrap();
                    }
                }
                let until = far.now() + 20;
                let count = far.read(&mut buffer, until).unwrap_or(0);
                waiting.extend_from_slice(&buffer[..count]);
                // A frame has come whole when the device is silent.
                if count == 0 && !waiting.is_empty() {
                    hold(Passing::Up(waiting.len()));
                    carried.extend_from_slice(&waiting);
                    while !waiting.is_empty() {
                        match near.write(&waiting) {
                            Ok(count) => drop(waiting.drain(..count)),
                            Err(_) => thread::sleep(Duration::from_millis(1)),
                        }
                    }
                }
            }
            carried
        });
        Self {
            path: path.to_str().unwrap().to_owned(),
            _end: pair.slave,
            over,
            carrier: Some(carrier),
        }
    }

    /// All bytes that went over it, in both directions.
    fn end(mut self) -> Vec<u8> {
        self.over.store(true, Ordering::Relaxed);
        self.carrier.take().unwrap().join().unwrap()
    }
}

/// A socket before the broker's, at which its answers stop whenever `hold` is called, until it comes back.
fn answers(broker: &Path, socket: &Path, hold: impl Fn(Passing) + Send + 'static) {
    let listener = UnixListener::bind(socket).unwrap();
    let broker = broker.to_owned();
    let over = socket.to_owned();
    thread::spawn(move || {
        for mut station in listener.incoming().map_while(Result::ok) {
            let Ok(Some(frame)) = wire::read_frame(&mut station) else {
                break;
            };
            let request = wire::decode::<wire::Request>(&frame).unwrap();
            let mut real = UnixStream::connect(&broker).unwrap();
            wire::write_frame(&mut real, &frame).unwrap();
            let reply = wire::read_frame(&mut real).unwrap().unwrap();
            hold(Passing::Answer(request.name()));
            wire::write_frame(&mut station, &reply).unwrap();
        }
        // Whoever connects and says nothing ends it.
        fs::remove_file(over).unwrap();
    });
}

/// What the dumps of a station came to.
#[derive(Default)]
struct Dumped {
    moments: Vec<Passing>,
    bytes: usize,
    found: Vec<Finding>,
}

/// Frames of at least so many bytes are more than an acknowledgement.
const MEANS_SOMETHING: usize = 60;

/// How much a dump is, and everything in it that the search finds.
fn look_into(search: &mut Search, regions: &[Region], when: &str) -> (usize, Vec<Finding>) {
    let mut bytes = 0;
    let mut found = Vec::new();
    for region in regions {
        bytes += region.bytes.len();
        found.extend(search.look(&format!("{when}: {}", region.name), &region.bytes));
    }
    (bytes, found)
}

/// Runs a station on the device, and looks into it whenever something passes; gives what it said, and what went over the line.
fn watched(
    broker: &Broker,
    rig: &Rig,
    label: &str,
    arguments: &[&str],
    environment: &[(&str, &Path)],
) -> (Answer, Vec<u8>, Dumped) {
    let station = Arc::new(AtomicU32::new(0));
    let (tell, told) = channel::<(Passing, Vec<Region>, Vec<Vec<u8>>)>();
    let process = Arc::clone(&station);
    let hold = move |passing| {
        let process = process.load(Ordering::SeqCst);
        let matters = match passing {
            Passing::Down(length) | Passing::Up(length) => length >= MEANS_SOMETHING,
            Passing::Answer(request) => matches!(request, "wrap" | "verify"),
        };
        if process == 0 || !matters {
            return;
        }
        let open: Vec<_> = family(process)
            .into_iter()
            .map(environment_and_arguments)
            .collect();
        assert!(open.iter().any(|open| !open.is_empty()));
        tell.send((passing, dump(process), open)).unwrap();
    };
    let socket = broker.socket().with_extension(label);
    answers(broker.socket(), &socket, hold.clone());
    let line = Line::new(rig.port(), hold);
    // Beside the line: searching takes longer than a device is patient.
    let searcher = thread::spawn(move || {
        let mut search = search();
        let mut dumped = Dumped::default();
        for (passing, regions, open) in told {
            let when = format!("{passing:?}");
            dumped.moments.push(passing);
            let (bytes, found) = look_into(&mut search, &regions, &when);
            dumped.bytes += bytes;
            dumped.found.extend(found);
            for open in open {
                let place = format!("{when}: environment");
                dumped.found.extend(search.look(&place, &open));
            }
        }
        dumped
    });
    let mut command = broker.station();
    command
        .env("KEYFERRY_BROKER", &socket)
        .args(["device", "inject", "--port", &line.path])
        .args(["--policy", "open", "--allow-test-devices"])
        .args(arguments)
        .envs(environment.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    station.store(child.id(), Ordering::SeqCst);
    let output = child.wait_with_output().unwrap();
    let answer = Answer {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    };
    drop(UnixStream::connect(&socket).unwrap());
    let carried = line.end();
    (answer, carried, searcher.join().unwrap())
}

fn nothing(found: &[Finding]) {
    assert!(
        found.is_empty(),
        "{} found, among them:\n{}",
        found.len(),
        found[..found.len().min(20)].join("\n")
    );
}

#[test]
fn a_station_whose_token_is_behind_a_broker_never_holds_a_clear_key() {
    let scratch = token();
    let arguments = [
        "--audit-key",
        "audit",
        "--enroll-policy",
        "open",
        "--visit-policy",
        "open",
        "--allow-test-devices",
        "--allow-all-keys",
    ];
    let broker = Broker::start(&scratch, &arguments);
    let rig = Rig::start(Image::Default, 71);
    let (registry, audit) = (scratch.path("registry.db"), scratch.path("audit.log"));
    let books = [
        ("KEYFERRY_REGISTRY", registry.as_path()),
        ("KEYFERRY_AUDIT", audit.as_path()),
    ];
    scratch.done([
        "audit",
        "create",
        "audit.log",
        "--station",
        "line 7",
        "--authority",
        "authority",
        "--audit-key",
        "audit",
    ]);
    let mut enroll = broker.station();
    enroll
        .args([
            "device",
            "enroll",
            "--port",
            rig.port(),
            "--unwrap",
            "p-256",
        ])
        .args(["--policy", "open", "--allow-test-devices"])
        .envs(books);
    done(&mut enroll);

    let names: Vec<_> = keys().into_iter().map(|(name, _)| name).collect();
    let keys: Vec<_> = names.iter().flat_map(|name| ["--key", *name]).collect();
    let mut search = search();
    let mut found = Vec::new();
    let mut total = 0;
    // Once for people, who are told the most; once for scripts.
    for (version, json) in [("1", false), ("2", true)] {
        let label = if json { "scripts" } else { "people" };
        let mut arguments = [&keys[..], &["--version", version]].concat();
        if json {
            arguments.push("--json");
        }
        let (answer, carried, dumped) = watched(&broker, &rig, label, &arguments, &books);
        assert_eq!(answer.code, 0, "{answer:?}");
        assert!(
            answer.stdout.contains("rsa-pkcs1-sha256"),
            "all keys are proved: {answer:?}"
        );
        let at = |wanted: fn(&Passing) -> bool| dumped.moments.iter().position(wanted);
        let wrapped = at(|moment| *moment == Passing::Answer("wrap")).unwrap();
        // The last thing that the device says; before the first there may be what it said to the station before.
        let mut moments = dumped.moments.iter();
        let up = |moment: &Passing| matches!(moment, Passing::Up(length) if *length > 300);
        let receipt = moments.rposition(up).unwrap();
        let proof = at(|moment| *moment == Passing::Answer("verify")).unwrap();
        // After the wrapping; the order with the blobs, in one piece where the line takes it; the receipt; and every proof in it.
        assert!(
            wrapped + 1 < receipt && receipt < proof,
            "{:?}",
            dumped.moments
        );
        assert_eq!(dumped.moments.len() - proof, 5, "{:?}", dumped.moments);
        println!(
            "version {version}: {} dumps, {} bytes",
            dumped.moments.len(),
            dumped.bytes
        );
        total += dumped.moments.len();
        found.extend(dumped.found);
        found.extend(search.look("line", &carried));
        found.extend(search.look("stdout", answer.stdout.as_bytes()));
        found.extend(search.look("stderr", answer.stderr.as_bytes()));
        assert!(carried.len() > 2000);
    }
    assert!(total >= 20);
    // The audit key is behind the broker too.
    let mut checkpoint = broker.station();
    done(checkpoint.args(["audit", "checkpoint"]).arg(&audit));
    assert_eq!(broker.counts()["checkpoints"], 1);
    for file in ["registry.db", "registry.db-wal", "audit.log", "broker.log"] {
        let bytes = fs::read(scratch.path(file)).unwrap_or_default();
        assert!(!bytes.is_empty() || file.ends_with("wal"), "{file}");
        found.extend(search.look(file, &bytes));
    }
    for member in family(broker.process()) {
        found.extend(search.look(
            "the broker's environment",
            &environment_and_arguments(member),
        ));
    }
    nothing(&found);
}

/// A process that holds these bytes, and does nothing.
struct Helper(Child);

impl Helper {
    fn holding(bytes: &[u8]) -> Self {
        let program = "import sys\nkept = sys.stdin.buffer.read()\nprint('ready', flush=True)\nimport time\ntime.sleep(600)";
        let mut child = Command::new("/usr/bin/python3")
            .args(["-I", "-c", program])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("/usr/bin/python3 is not there: run cargo xtask setup");
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        let mut ready = [0; 5];
        child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut ready)
            .unwrap();
        Self(child)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the search above is worth: it finds each secret in each form in a process that holds it.
#[test]
fn the_same_search_finds_a_copy_in_a_helper() {
    use base64ct::{Base64, Base64Url, Encoding as _};
    let mut search = search();
    let empty = Helper::holding(b"nothing");
    let (bytes, found) = look_into(&mut search, &dump(empty.0.id()), "helper");
    assert!(bytes > 1_000_000);
    nothing(&found);

    let keys: Vec<_> = keys().into_iter().map(|(_, key)| key).collect();
    let secrets = secrets_of(&keys);
    assert_eq!(secrets.len(), 10);
    let count = forms(&secrets[0].1).len();
    // The n-th form of every secret, one after the other.
    for form in 0..count + 5 {
        let mut held = Vec::new();
        let mut wanted = String::new();
        for (_, secret) in &secrets {
            let text = |text: String, name: &str| (name.to_owned(), text.into_bytes());
            let (name, bytes) = match form.checked_sub(count) {
                None => forms(secret).swap_remove(form),
                Some(0) => text(hex::encode(secret), "in hex"),
                Some(1) => text(hex::encode_upper(secret), "in capital hex"),
                // At another alignment than from the beginning.
                Some(2) => text(
                    Base64::encode_string(&[b"k=", &secret[..]].concat()),
                    "in Base64",
                ),
                Some(3) => text(
                    Base64::encode_string(&[b"=", &secret[..]].concat()),
                    "in Base64",
                ),
                Some(_) => text(Base64Url::encode_string(secret), "Base64"),
            };
            held.extend(bytes);
            wanted = name;
        }
        let helper = Helper::holding(&held);
        let (_, found) = look_into(&mut search, &dump(helper.0.id()), "helper");
        for (name, _) in &secrets {
            let hit =
                |found: &Finding| found.contains(&format!(": {name} ")) && found.contains(&wanted);
            assert!(
                found.iter().any(hit),
                "{name} {wanted}: {} found",
                found.len()
            );
        }
    }
}

/// What a software token is: the process that does its work has the PIN, and the keys while it works with them. So it is the broker
/// in which they are found, and not the station.
#[test]
fn a_broker_with_a_software_token_has_the_pin_and_while_it_wraps_the_keys() {
    let scratch = token();
    let arguments = [
        "--enroll-policy",
        "open",
        "--visit-policy",
        "open",
        "--allow-all-keys",
    ];
    let broker = Broker::start(&scratch, &arguments);
    let mut search = search();
    let (_, found) = look_into(&mut search, &dump(broker.process()), "the broker");
    assert!(
        found.iter().any(|found| found.ends_with(": the PIN")),
        "{found:?}"
    );

    let hsm = broker.client();
    let cards: Vec<_> = keys()
        .iter()
        .map(|(name, _)| hsm.key(&KeySpec::label(name), None).unwrap())
        .collect();
    let cards: Vec<_> = cards.iter().collect();
    let statement = stated(&hsm);
    let over = AtomicBool::new(false);
    let keys_found = thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let recipient = Recipient {
                    statement: &statement,
                    certificate: None,
                };
                // Stopped in the middle, it answers late, but it answers.
                hsm.wrap(recipient, Suite::EcdhP256Null, &cards).unwrap();
            }
        });
        let mut keys_found = Vec::new();
        for _ in 0..200 {
            let (_, found) = look_into(&mut search, &dump(broker.process()), "the broker");
            keys_found.extend(
                found
                    .into_iter()
                    .filter(|found| !found.ends_with(": the PIN")),
            );
            if !keys_found.is_empty() {
                break;
            }
            thread::sleep(Duration::from_millis(3));
        }
        over.store(true, Ordering::Relaxed);
        keys_found
    });
    println!(
        "{} found, at first {:?}",
        keys_found.len(),
        keys_found.first()
    );
    assert!(!keys_found.is_empty());
}

/// A device's statement, fresh for this broker.
fn stated(hsm: &dyn Hsm) -> Statement {
    let fake = FakeDevice::new(1);
    let greeting = Greeting {
        device: fake.id(),
        identity: Fingerprint::ZERO,
        authority: Hint::ZERO,
        state: State::Blank,
        counter: 0,
        challenge: Challenge([5; 32]),
        certified: false,
        board: String::new(),
        firmware: String::new(),
    };
    let nonce = Challenge([9; 32]);
    let order = enroll_order(
        hsm.authority(),
        &greeting,
        UnwrapAlgorithm::P256,
        nonce,
        Digest::ZERO,
    );
    fake.answer(&order.unwrap().bytes)
}
