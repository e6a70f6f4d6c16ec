//! A running `keyferry broker`, and devices that are none: what the tests of the broker share.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use keyferry::broker::BrokerClient;
use keyferry::device::verify::{self, SignedReceipt, Statement, fingerprint};
use keyferry_protocol::identity::{Challenge, DeviceId, Digest, Fingerprint, Signature};
use keyferry_protocol::order::{self, Body, Kind};
use keyferry_protocol::receipt::{self, Flavour, Outcome, SourceClass, State};
use keyferry_protocol::suite::Suite;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use p256::ecdsa::signature::Signer as _;
use p256::pkcs8::EncodePublicKey as _;
use serde_json::Value;
use sha2::Digest as _;

use crate::command;
use crate::tokens::{PIN, Scratch};

/// How long a broker may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A broker process, killed when the test is over.
pub struct Broker {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
    said: Receiver<String>,
    /// What it says when it is ready.
    pub ready: Value,
}

/// The command that serves the scratch's first token, whose authority key is called `authority`, on a socket in its folder.
#[must_use]
pub fn serve(scratch: &Scratch, arguments: &[&str]) -> Command {
    let mut command = scratch.command();
    command
        .args(["broker", "--json", "--authority", "authority"])
        .arg("--socket")
        .arg(socket(scratch))
        .arg("--log")
        .arg(scratch.path("broker.log"))
        .args(arguments);
    command
}

/// The socket of [`serve`].
#[must_use]
pub fn socket(scratch: &Scratch) -> PathBuf {
    scratch.path("run").join("broker.sock")
}

impl Broker {
    /// Starts [`serve`], and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready.
    #[must_use]
    pub fn start(scratch: &Scratch, arguments: &[&str]) -> Self {
        let mut child = serve(scratch, arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the broker starts");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let (tell, said) = channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        let first = said
            .recv_timeout(PATIENCE)
            .expect("the broker says something");
        let ready: Value = serde_json::from_str(&first).expect("JSON");
        assert_eq!(ready["ready"], true, "{first}");
        Self {
            child,
            socket: socket(scratch),
            log: scratch.path("broker.log"),
            said,
            ready,
        }
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The command of a station that has this broker and nothing else: no token, no PIN.
    #[must_use]
    pub fn station(&self) -> Command {
        let mut command = command::keyferry();
        command.env("KEYFERRY_BROKER", &self.socket);
        command
    }

    /// The station's end of its socket.
    ///
    /// # Panics
    /// If it does not answer.
    #[must_use]
    pub fn client(&self) -> BrokerClient {
        BrokerClient::connect(&self.socket).expect("the broker answers")
    }

    /// What it counted.
    #[must_use]
    pub fn counts(&self) -> Value {
        command::done(
            self.station()
                .args(["broker", "status", "--socket"])
                .arg(&self.socket),
        )["counts"]
            .clone()
    }

    /// The lines of its log.
    ///
    /// # Panics
    /// If they are not JSON, or the PIN is in them.
    #[must_use]
    pub fn log(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.log).expect("the log");
        assert!(!text.contains(PIN));
        text.lines()
            .map(|line| serde_json::from_str(line).expect("JSON on each line"))
            .collect()
    }

    /// Asks it to end, and gives the last thing it says.
    ///
    /// # Panics
    /// If it does not end well.
    pub fn end(mut self, signal: Signal) -> Value {
        let process = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"));
        kill(process, signal).expect("it runs");
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{status}");
        let last = self.said.iter().last().expect("a last line");
        serde_json::from_str(&last).expect("JSON")
    }

    /// Ends it at once.
    ///
    /// # Panics
    /// If it cannot be killed.
    pub fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        let _ = self.child.wait();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Something that can sign like a device, and has no firmware: what an attacker builds.
pub struct FakeDevice {
    id: DeviceId,
    identity: p256::ecdsa::SigningKey,
    unwrap: p256::SecretKey,
}

fn scalar(tag: u8, number: u8) -> [u8; 32] {
    sha2::Sha256::digest([tag, number]).into()
}

impl FakeDevice {
    /// The fake with this number, and keys of its own.
    ///
    /// # Panics
    /// If a scalar is out of range.
    #[must_use]
    pub fn new(number: u8) -> Self {
        Self {
            id: DeviceId([number; 16]),
            identity: p256::ecdsa::SigningKey::from_bytes(&scalar(b'i', number).into())
                .expect("a scalar in range"),
            unwrap: p256::SecretKey::from_bytes(&scalar(b'u', number).into())
                .expect("a scalar in range"),
        }
    }

    /// The same with another device's id.
    #[must_use]
    pub fn posing_as(mut self, id: DeviceId) -> Self {
        self.id = id;
        self
    }

    /// The id.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        self.id
    }

    /// Fingerprint of the identity key.
    #[must_use]
    pub fn identity(&self) -> Fingerprint {
        fingerprint(&self.identity_key())
    }

    fn identity_key(&self) -> Vec<u8> {
        let key = self.identity.verifying_key().to_public_key_der();
        key.expect("a public key encodes").into_vec()
    }

    fn unwrap_key(&self) -> Vec<u8> {
        let key = self.unwrap.public_key().to_public_key_der();
        key.expect("a public key encodes").into_vec()
    }

    /// The answer to an `Enroll`: a well-formed statement, signed by its own identity key.
    ///
    /// # Panics
    /// If the order is no `Enroll`.
    #[must_use]
    pub fn answer(&self, bytes: &[u8]) -> Statement {
        let (header, Body::Enroll(enroll)) = order::decode(bytes).expect("an order") else {
            panic!("no Enroll");
        };
        self.state(
            verify::digest(bytes),
            enroll.nonce,
            fingerprint(enroll.authority),
            header.counter,
        )
    }

    /// A statement about anything.
    ///
    /// # Panics
    /// If it does not fit.
    #[must_use]
    pub fn state(
        &self,
        order: Digest,
        nonce: Challenge,
        authority: Fingerprint,
        counter: u32,
    ) -> Statement {
        let header = receipt::Header {
            tag: receipt::TAG,
            format: receipt::FORMAT,
            kind: Kind::Enroll,
            device: self.id,
            identity: self.identity(),
            order,
            outcome: Outcome::Applied,
            state: State::Enrolled,
            counter,
            challenge: Challenge([7; 32]),
        };
        let (identity_key, unwrap_key) = (self.identity_key(), self.unwrap_key());
        let statement = receipt::Statement {
            nonce,
            identity_key: &identity_key,
            unwrap_key: &unwrap_key,
            suites: [Suite::EcdhP256X963Sha256, Suite::EcdhP256Null]
                .into_iter()
                .collect(),
            board: "a fake",
            firmware: "0",
            flavour: Flavour::Production,
            rng: SourceClass::Hardware,
            root_key: SourceClass::Hardware,
            authority,
            epoch: 0,
            voucher: None,
        };
        let mut buffer = [0; receipt::MAX_RECEIPT];
        let mut writer = receipt::Writer::new(&header, &mut buffer).expect("it fits");
        writer.statement(&statement, &mut buffer).expect("it fits");
        let bytes = buffer[..writer.length()].to_vec();
        let signature: p256::ecdsa::Signature = self.identity.sign(&bytes);
        let receipt = SignedReceipt {
            bytes,
            signature: Signature::from_bytes(&signature.to_bytes().into()),
        };
        verify::stated(&receipt, self.id).expect("it is well-formed")
    }
}
