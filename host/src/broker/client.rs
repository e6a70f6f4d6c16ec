//! The station's end of the broker's socket: an HSM like any other, but that it may say no.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use keyferry_protocol::suite::Suite;

use super::error::BrokerError;
use super::wire::{self, Claim, Described, FrameError, Reply, Request, Status, Wanted};
use crate::audit;
use crate::device::flow::Authority;
use crate::device::verify::signature_is_valid;
use crate::hsm::{Asked, DeviceUse, KeySpec, KeyType, Question, WrappedKeys};
use crate::station::{Hsm, JobError, KeyCard, Recipient};

/// How long an answer may take. Behind the broker there may be a token at the other end of a network, and others who ask.
const PATIENCE: Duration = Duration::from_secs(120);

/// Names requests in errors.
const DESCRIBE: &str = "who it is";

/// The way to a broker: a new connection for each request, so that none is held while a device takes its time.
#[derive(Clone, Debug)]
struct Line {
    socket: PathBuf,
}

impl Line {
    fn ask(&self, request: &Request) -> Result<Reply, BrokerError> {
        let name = request.name();
        let lost = |source: FrameError| BrokerError::Lost {
            socket: self.socket.clone(),
            request: name,
            source,
        };
        let frame = wire::encode(request).map_err(lost)?;
        let mut stream =
            UnixStream::connect(&self.socket).map_err(|source| BrokerError::Absent {
                socket: self.socket.clone(),
                source,
            })?;
        let patience = |stream: &UnixStream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))
        };
        patience(&stream).map_err(|error| lost(error.into()))?;
        // A broker that turns somebody away answers before it has read; that answer says more than the failed write.
        let written = wire::write_frame(&mut stream, &frame);
        let begun = Instant::now();
        let reply = match (wire::read_frame(&mut stream), written) {
            (Ok(Some(reply)), _) => reply,
            (_, Err(error)) | (Err(error), _) => return Err(lost(error)),
            (Ok(None), Ok(())) => {
                let kind = if begun.elapsed() < PATIENCE {
                    std::io::ErrorKind::UnexpectedEof
                } else {
                    std::io::ErrorKind::TimedOut
                };
                return Err(lost(std::io::Error::from(kind).into()));
            }
        };
        match wire::decode(&reply).map_err(lost)? {
            Reply::Failed(failed) => Err(BrokerError::Answered(failed)),
            reply => Ok(reply),
        }
    }

    fn unexpected(&self, request: &'static str) -> BrokerError {
        BrokerError::Unexpected {
            socket: self.socket.clone(),
            request,
        }
    }

    fn describe(&self) -> Result<Described, BrokerError> {
        let Reply::Described(described) = self.ask(&Request::Describe)? else {
            return Err(self.unexpected(DESCRIBE));
        };
        Ok(described)
    }
}

/// What the broker on a socket did so far.
///
/// # Errors
/// [`BrokerError`].
pub fn status(socket: &Path) -> Result<Status, BrokerError> {
    let line = Line {
        socket: socket.to_owned(),
    };
    let Reply::Status(status) = line.ask(&Request::Status)? else {
        return Err(line.unexpected("its status"));
    };
    Ok(*status)
}

/// What a key behind the broker signs.
#[derive(Clone, Copy, Debug)]
enum Role {
    Orders,
    Checkpoints,
}

/// A key behind the broker.
#[derive(Debug)]
struct Signer {
    line: Line,
    role: Role,
    public: Vec<u8>,
}

impl Signer {
    fn request(&self, message: &[u8]) -> Result<Request, BrokerError> {
        match self.role {
            // A document begins so, and an order does not.
            Role::Orders if message.starts_with(b"{") => Ok(Request::SignBatch(message.to_vec())),
            Role::Orders => Ok(Request::SignOrder(message.to_vec())),
            Role::Checkpoints => {
                let read = audit::read_signed_bytes(message).ok_or(BrokerError::NotACheckpoint)?;
                let (log, lines, head, time) = read;
                Ok(Request::SignCheckpoint {
                    log: log.0,
                    lines,
                    head,
                    time: time.unix_duration().as_secs(),
                })
            }
        }
    }
}

impl Authority for Signer {
    fn public_key(&self) -> &[u8] {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], Box<dyn std::error::Error + Send + Sync>> {
        let request = self.request(message)?;
        let Reply::Signature(signature) = self.line.ask(&request)? else {
            return Err(Box::new(self.line.unexpected(request.name())));
        };
        if !signature_is_valid(&self.public, message, &signature) {
            // The broker was started anew with other keys, or reads the message otherwise.
            return Err(Box::new(BrokerError::Replaced {
                socket: self.line.socket.clone(),
            }));
        }
        Ok(signature.to_bytes())
    }
}

/// A token behind a broker.
#[derive(Debug)]
pub struct BrokerClient {
    line: Line,
    name: String,
    authority: Signer,
    auditor: Option<Signer>,
    certifies: bool,
}

impl BrokerClient {
    /// Asks the broker on this socket who it is.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub fn connect(socket: &Path) -> Result<Self, BrokerError> {
        let line = Line {
            socket: socket.to_owned(),
        };
        let described = line.describe()?;
        let signer = |role, public| Signer {
            line: line.clone(),
            role,
            public,
        };
        Ok(Self {
            name: format!("{} behind a broker", described.token),
            authority: signer(Role::Orders, described.authority),
            auditor: described
                .auditor
                .map(|public| signer(Role::Checkpoints, public)),
            certifies: described.certifies,
            line,
        })
    }

    fn put(&self, request: &Request) -> Result<Reply, JobError> {
        Ok(self.line.ask(request)?)
    }

    fn unexpected<T>(&self, request: &Request) -> Result<T, JobError> {
        Err(self.line.unexpected(request.name()).into())
    }
}

fn claim(recipient: Recipient<'_>) -> Claim {
    let receipt = &recipient.statement.receipt;
    Claim {
        receipt: receipt.bytes.clone(),
        signature: receipt.signature,
        certificate: recipient.certificate.map(<[u8]>::to_vec),
    }
}

impl Hsm for BrokerClient {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn authority(&self) -> &dyn Authority {
        &self.authority
    }

    fn auditor(&self) -> Option<&dyn Authority> {
        self.auditor.as_ref().map(|signer| signer as &dyn Authority)
    }

    fn key(&self, spec: &KeySpec, device_use: Option<DeviceUse>) -> Result<KeyCard, JobError> {
        let request = Request::Key(Wanted {
            label: spec.label.clone(),
            id: spec.id.clone(),
            class: spec.class.map(Into::into),
            device_use: device_use.map(|wanted| wanted.name().to_owned()),
        });
        let Reply::Key(card) = self.put(&request)? else {
            return self.unexpected(&request);
        };
        Ok(card.into())
    }

    fn fresh(
        &self,
        label: &str,
        key_type: KeyType,
        device_use: Option<DeviceUse>,
        keep_under: &str,
    ) -> Result<KeyCard, JobError> {
        let request = Request::Fresh {
            label: label.to_owned(),
            key_type: key_type.to_string(),
            device_use: device_use.map(|wanted| wanted.name().to_owned()),
            keep_under: keep_under.to_owned(),
        };
        let Reply::Key(card) = self.put(&request)? else {
            return self.unexpected(&request);
        };
        Ok(card.into())
    }

    fn suites(&self) -> Result<Vec<Suite>, JobError> {
        let Reply::Suites(suites) = self.put(&Request::Suites)? else {
            return self.unexpected(&Request::Suites);
        };
        Ok(suites)
    }

    fn wrap(
        &self,
        recipient: Recipient<'_>,
        suite: Suite,
        keys: &[&KeyCard],
    ) -> Result<WrappedKeys, JobError> {
        let request = Request::Wrap {
            claim: claim(recipient),
            suite,
            keys: keys.iter().map(|card| (*card).clone().into()).collect(),
        };
        let Reply::Wrapped {
            suite: with,
            recipient,
            kek,
            blobs,
        } = self.put(&request)?
        else {
            return self.unexpected(&request);
        };
        if with != suite || blobs.len() != keys.len() {
            return self.unexpected(&request);
        }
        Ok(WrappedKeys {
            suite,
            recipient,
            kek_blob: kek,
            blobs,
        })
    }

    fn enrolled(&self, recipient: Recipient<'_>) -> Result<(), JobError> {
        let request = Request::Enrolled(claim(recipient));
        let Reply::Noted = self.put(&request)? else {
            return self.unexpected(&request);
        };
        Ok(())
    }

    fn certifies(&self) -> bool {
        self.certifies
    }

    fn certify(
        &self,
        recipient: Recipient<'_>,
        serial: Option<&str>,
    ) -> Result<Option<Vec<u8>>, JobError> {
        if !self.certifies {
            return Ok(None);
        }
        let request = Request::Certify {
            claim: claim(recipient),
            serial: serial.map(str::to_owned),
        };
        let Reply::Certificate(certificate) = self.put(&request)? else {
            return self.unexpected(&request);
        };
        Ok(certificate)
    }

    fn ask(&self, key: &KeyCard) -> Result<Question, JobError> {
        let request = Request::Ask(key.clone().into());
        let Reply::Question { bytes, secret } = self.put(&request)? else {
            return self.unexpected(&request);
        };
        Ok(Question::made(bytes, secret))
    }

    fn verify(
        &self,
        key: &KeyCard,
        asked: &Asked,
        input: &[u8],
        value: &[u8],
    ) -> Result<bool, JobError> {
        let request = Request::Verify {
            key: key.clone().into(),
            question: asked.bytes.clone(),
            answer: asked.answer,
            input: input.to_vec(),
            value: value.to_vec(),
        };
        let Reply::Verdict(right) = self.put(&request)? else {
            return self.unexpected(&request);
        };
        Ok(right)
    }
}
