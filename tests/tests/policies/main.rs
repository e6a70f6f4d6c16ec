//! Whom a line trusts, and what it remembers: each policy accepts what it is for and refuses everything else, and the registry never
//! believes a loose value.

#![allow(
    clippy::duplicate_mod,
    reason = "the same tests, with a registry in a file and with one on a server"
)]

mod command;
mod desk;
mod enrolment;
mod files;
#[cfg(unix)]
mod guide;
mod known;
#[cfg(unix)]
#[path = "known.rs"]
mod known_on_a_server;
mod processes;
#[cfg(unix)]
#[path = "processes.rs"]
mod processes_on_a_server;
mod records;
#[cfg(unix)]
#[path = "records.rs"]
mod records_on_a_server;
#[cfg(unix)]
mod server;
mod visiting;

#[cfg(unix)]
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use keyferry::certificate::{
    CaCertificate, DeviceCa, Identity, Issuer, Serial, Validity, parse_subject, self_signed,
};
use keyferry::device::flow::Authority as _;
use keyferry::device::verify::{SignedReceipt, Statement, fingerprint, stated};
use keyferry::station::policy::{Enrolment, PolicyError, Rules, Trust, Visiting};
use keyferry::station::registry::{Enrolled, Location, Recorded, Registry, RegistryError};
use keyferry_protocol::identity::{Challenge, DeviceId, Digest, Fingerprint, Signature};
use keyferry_protocol::order::Kind;
use keyferry_protocol::receipt::{
    FORMAT, Flavour, Header, Outcome, SourceClass, State, TAG, Voucher, Writer, voucher_input,
};
use keyferry_protocol::suite::Suite;
#[cfg(unix)]
use keyferry_tests::postgres::Server;
use keyferry_tests::software::SoftAuthority;

/// A device whose keys are known, so that it can sign whatever a test wants it to say.
#[derive(Clone)]
struct Device {
    id: DeviceId,
    /// The number of its identity key, and of its unwrap key.
    keys: (u8, u8),
    counter: u32,
    epoch: u32,
    state: State,
    flavour: Flavour,
    rng: SourceClass,
    root_key: SourceClass,
    suites: Vec<Suite>,
    voucher: Option<(Vec<u8>, Signature)>,
}

/// The number of the key that vouches.
const VENDOR_KEY: u8 = 40;

/// The nonce of every statement here.
const NONCE: Challenge = Challenge([7; 32]);

impl Device {
    /// The device with this number, as a factory wants it.
    fn new(number: u8) -> Self {
        Self {
            id: DeviceId([number; 16]),
            keys: (number, number.wrapping_add(100)),
            counter: 1,
            epoch: 0,
            state: State::Enrolled,
            flavour: Flavour::Production,
            rng: SourceClass::Hardware,
            root_key: SourceClass::Hardware,
            suites: vec![Suite::EcdhP256X963Sha256, Suite::EcdhP256Null],
            voucher: None,
        }
    }

    fn identity(&self) -> SoftAuthority {
        SoftAuthority::new(self.keys.0)
    }

    fn fingerprint(&self) -> Fingerprint {
        fingerprint(self.identity().public_key())
    }

    fn unwrap_fingerprint(&self) -> Fingerprint {
        fingerprint(SoftAuthority::new(self.keys.1).public_key())
    }

    fn header(&self, kind: Kind, order: Digest, outcome: Outcome) -> Header {
        Header {
            tag: TAG,
            format: FORMAT,
            kind,
            device: self.id,
            identity: self.fingerprint(),
            order,
            outcome,
            state: self.state,
            counter: self.counter,
            challenge: Challenge([8; 32]),
        }
    }

    fn sign(&self, bytes: &[u8]) -> SignedReceipt {
        SignedReceipt {
            bytes: bytes.to_vec(),
            signature: Signature::from_bytes(&self.identity().sign(bytes).unwrap()),
        }
    }

    /// A receipt with nothing behind its header.
    fn receipt(&self, kind: Kind, order: Digest, outcome: Outcome) -> SignedReceipt {
        let mut buffer = [0; 512];
        let writer = Writer::new(&self.header(kind, order, outcome), &mut buffer).unwrap();
        self.sign(&buffer[..writer.length()])
    }

    /// The receipt of an applied `Enroll`.
    fn enrolment(&self) -> SignedReceipt {
        let mut buffer = [0; 2048];
        let header = self.header(Kind::Enroll, Digest([9; 32]), Outcome::Applied);
        let mut writer = Writer::new(&header, &mut buffer).unwrap();
        let (identity, unwrap) = (self.identity(), SoftAuthority::new(self.keys.1));
        let statement = keyferry_protocol::receipt::Statement {
            nonce: NONCE,
            identity_key: identity.public_key(),
            unwrap_key: unwrap.public_key(),
            suites: self.suites.iter().copied().collect(),
            board: "soft",
            firmware: "1.2.3",
            flavour: self.flavour,
            rng: self.rng,
            root_key: self.root_key,
            authority: fingerprint(SoftAuthority::new(0).public_key()),
            epoch: self.epoch,
            voucher: self
                .voucher
                .as_ref()
                .map(|(certificate, signature)| Voucher {
                    certificate,
                    signature: *signature,
                }),
        };
        writer.statement(&statement, &mut buffer).unwrap();
        self.sign(&buffer[..writer.length()])
    }

    fn statement(&self) -> Statement {
        stated(&self.enrolment(), self.id).unwrap()
    }

    /// The signature of the vendor key with this number over the keys of this device.
    fn vouch(&self, vendor: u8, nonce: Challenge) -> Signature {
        let input = voucher_input(
            &self.id,
            &nonce,
            &self.fingerprint(),
            &self.unwrap_fingerprint(),
        );
        Signature::from_bytes(&SoftAuthority::new(vendor).sign(&input).unwrap())
    }
}

/// A CA in software.
struct Ca {
    key: SoftAuthority,
    certificate: Vec<u8>,
}

impl Ca {
    fn new(number: u8, subject: &str) -> Self {
        let key = SoftAuthority::new(number);
        let subject = parse_subject(subject).unwrap();
        let validity = Validity::Unlimited;
        let certificate = self_signed(&key, &subject, validity, earlier()).unwrap();
        Self { key, certificate }
    }

    /// The certificate of the key with this number, for this serial number.
    fn certify(&self, serial: Serial, key: u8) -> Vec<u8> {
        let ca = CaCertificate::read(&self.certificate).unwrap();
        let issuer = Issuer::new(&self.key, ca).unwrap();
        let key = SoftAuthority::new(key);
        let identity = Identity {
            serial,
            organization: None,
            common_name: None,
            key: key.public_key(),
        };
        issuer.issue(&identity, earlier()).unwrap()
    }

    fn trusted(&self) -> DeviceCa {
        DeviceCa::new(&[&self.certificate]).unwrap()
    }
}

fn now() -> SystemTime {
    SystemTime::now()
}

/// A day ago: what was certified then is valid now.
fn earlier() -> SystemTime {
    now() - Duration::from_secs(24 * 60 * 60)
}

fn enrolling(policy: Enrolment) -> Rules {
    Rules {
        enrolment: Some(policy),
        ..Rules::closed()
    }
}

fn visiting(policy: Visiting) -> Rules {
    Rules {
        visiting: Some(policy),
        ..Rules::closed()
    }
}

/// A registry in a folder of its own, or on a server in a database of its own.
struct Book {
    registry: Registry,
    location: Location,
    folder: tempfile::TempDir,
}

/// Where a registry may be begun.
struct Place {
    location: Location,
    folder: tempfile::TempDir,
}

impl Place {
    fn of(module: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let location = if module.ends_with("_on_a_server") {
            #[cfg(unix)]
            let name = server().url(&server().database());
            #[cfg(not(unix))]
            let name: String = panic!("there is no server");
            Location::parse(name.as_ref(), "".as_ref()).unwrap()
        } else {
            Location::File(folder.path().join("registry.db"))
        };
        Self { location, folder }
    }
}

/// The server of all tests of this process.
#[cfg(unix)]
fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

impl Book {
    fn new() -> Self {
        Self::of("in a file")
    }

    /// One on a server for those tests that are run a second time: `module` is the test's.
    fn of(module: &str) -> Self {
        let Place { location, folder } = Place::of(module);
        Self::begin(location, folder)
    }

    fn begin(location: Location, folder: tempfile::TempDir) -> Self {
        let registry = Registry::open_at(&location, None).unwrap();
        Self {
            registry,
            location,
            folder,
        }
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("registry.db")
    }

    /// As it is named on the command line.
    fn name(&self) -> String {
        match &self.location {
            Location::File(path) => path.display().to_string(),
            #[cfg(unix)]
            Location::Server(address) => server().url(address.database()),
            #[cfg(not(unix))]
            Location::Server(address) => address.to_string(),
        }
    }

    /// Changes something behind the registry's back.
    fn spoil(&self, sql: &str, value: &[u8]) {
        match &self.location {
            Location::File(path) => {
                let raw = rusqlite::Connection::open(path).unwrap();
                assert_eq!(raw.execute(sql, [value]).unwrap(), 1, "{sql}");
            }
            #[cfg(unix)]
            Location::Server(address) => {
                let sql = sql
                    .replace("hex(?1)", "encode(?1, 'hex')")
                    .replace("?1", "$1::bytea");
                let mut raw = server().raw(address.database());
                assert_eq!(raw.execute(&sql, &[&value]).unwrap(), 1, "{sql}");
            }
            #[cfg(not(unix))]
            Location::Server(address) => panic!("{address}"),
        }
    }

    /// Enrols under policy open and writes down.
    fn enrol(&self, device: &Device) -> Result<Recorded, RegistryError> {
        self.registry.enrolled(&Enrolled {
            statement: &device.statement(),
            trust: &Trust {
                policy: "open",
                reason: "the room".to_owned(),
            },
            serial: None,
        })
    }
}

/// A refusal says something, has a next move and the exit code that goes with it.
fn refused(result: Result<Trust, PolicyError>) -> PolicyError {
    let error = result.expect_err("it was trusted");
    assert!(!error.to_string().is_empty());
    assert!(error.hint().is_some_and(|hint| !hint.is_empty()), "{error}");
    error
}
