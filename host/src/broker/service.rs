//! Does what a station asks, as far as the guard and the rules say so, and writes it down.

use std::time::{Duration, Instant, SystemTime};

use der::DateTime;
use keyferry_protocol::identity::{Digest, Fingerprint, Signature};
use keyferry_protocol::proof;
use keyferry_protocol::suite::Suite;

use super::error::{BrokerError, GuardError};
use super::guard::Guard;
use super::journal::{Journal, Line};
use super::wire::{
    Claim, Described, Failed, FrameError, Reply, Request, Status, Wanted, claimed_device,
};
use crate::audit::{self, LogId};
use crate::device::DeviceError;
use crate::device::flow::Authority;
use crate::device::verify::{self, SignedReceipt, Statement, fingerprint};
use crate::error::{Exit, Failure};
use crate::hsm::{Asked, HsmError, KeySpec, KeyType};
use crate::station::policy::{Rules, Trust};
use crate::station::registry::{Enrolled, Registry};
use crate::station::{Hsm, JobError, KeyCard, LocalHsm, Recipient};

/// How much the clocks of station and broker may differ in a checkpoint.
const CLOCK: Duration = Duration::from_secs(300);

/// How many descriptions of keys are remembered.
const MAXIMUM_CARDS: usize = 1024;

/// What a station is told of a failure.
fn told(failure: &Failure) -> Failed {
    Failed {
        exit: failure.exit().code(),
        error: failure.to_string(),
        hint: failure.hint(),
    }
}

fn signer(error: Box<dyn std::error::Error + Send + Sync>) -> Failure {
    match error.downcast::<HsmError>() {
        Ok(error) => Failure::Hsm(*error),
        Err(error) => DeviceError::Authority(error).into(),
    }
}

/// A broker's work, without its socket.
pub struct Service {
    hsm: LocalHsm,
    rules: Rules,
    registry: Option<Registry>,
    guard: Guard,
    journal: Journal,
    begun: Instant,
    described: Described,
    /// Descriptions of keys that were found to be right.
    cards: Vec<KeyCard>,
}

impl Service {
    /// The token with its keys that sign, the rules, and where it is written down.
    #[must_use]
    pub fn new(
        hsm: LocalHsm,
        rules: Rules,
        registry: Option<Registry>,
        limits: super::Limits,
        journal: Journal,
    ) -> Self {
        let authority = hsm.authority().public_key().to_vec();
        let described = Described {
            token: hsm.name(),
            authority: authority.clone(),
            auditor: hsm.auditor().map(|key| key.public_key().to_vec()),
            certifies: hsm.certifies(),
        };
        Self {
            hsm,
            rules,
            registry,
            guard: Guard::new(limits, authority),
            journal,
            begun: Instant::now(),
            described,
            cards: Vec::new(),
        }
    }

    /// Who it says it is.
    #[must_use]
    pub const fn described(&self) -> &Described {
        &self.described
    }

    /// Answers a request of this user.
    pub fn answer(&mut self, user: Option<u32>, request: Request) -> Reply {
        self.guard.counts.requests = self.guard.counts.requests.saturating_add(1);
        let mut line = Line {
            user,
            request: request.name(),
            ..Line::default()
        };
        let result = self.grant(request, &mut line);
        self.finish(result, line)
    }

    /// Says no to a user who may not ask.
    pub fn turn_away(&mut self, user: u32) -> Reply {
        let line = Line {
            user: Some(user),
            request: "connect",
            ..Line::default()
        };
        self.finish(Err(GuardError::Stranger(user).into()), line)
    }

    /// Says no to a frame that cannot be read.
    pub fn unreadable(&mut self, user: Option<u32>, error: FrameError) -> Reply {
        let line = Line {
            user,
            request: "unreadable",
            ..Line::default()
        };
        self.finish(Err(BrokerError::Unreadable(error).into()), line)
    }

    /// Writes down what came of a request. What cannot be written down is not given out.
    fn finish(&mut self, result: Result<(Reply, bool), Failure>, mut line: Line) -> Reply {
        let (reply, matters) = match result {
            Ok((reply, matters)) => {
                line.verdict = "granted";
                (reply, matters)
            }
            Err(failure) => {
                if failure.exit() == Exit::Policy {
                    line.verdict = "refused";
                    self.guard.counts.refused = self.guard.counts.refused.saturating_add(1);
                } else {
                    line.verdict = "failed";
                    self.guard.counts.failed = self.guard.counts.failed.saturating_add(1);
                }
                let failed = told(&failure);
                line.reason = Some(failed.error.clone());
                (Reply::Failed(failed), true)
            }
        };
        if !matters {
            return reply;
        }
        match self.journal.write(line, &self.guard.counts) {
            Ok(()) => reply,
            Err(error) => Reply::Failed(told(&error.into())),
        }
    }

    /// The answer, and whether it belongs into the log.
    fn grant(&mut self, request: Request, line: &mut Line) -> Result<(Reply, bool), Failure> {
        Ok(match request {
            Request::Describe => (Reply::Described(self.described.clone()), false),
            Request::Status => (Reply::Status(Box::new(self.status())), false),
            Request::Key(wanted) => (Reply::Key(self.key(&wanted, line)?.into()), false),
            Request::Fresh {
                label,
                key_type,
                device_use,
                keep_under,
            } => {
                line.keys.push(label.clone());
                let card = self.fresh(&label, &key_type, device_use.as_deref(), &keep_under)?;
                (Reply::Key(card.into()), true)
            }
            Request::Suites => (Reply::Suites(self.suites()?), false),
            Request::Enrolled(claim) => {
                self.enrolled(&claim, line)?;
                (Reply::Noted, true)
            }
            Request::Wrap { claim, suite, keys } => {
                let cards: Vec<KeyCard> = keys.into_iter().map(Into::into).collect();
                (self.wrap(&claim, suite, &cards, line)?, true)
            }
            Request::Certify { claim, serial } => {
                let certificate = self.certify(&claim, serial.as_deref(), line)?;
                let issued = certificate.is_some();
                (Reply::Certificate(certificate), issued)
            }
            Request::Ask(card) => (self.ask(&card.into(), line)?, false),
            Request::Verify {
                key,
                question,
                answer,
                input,
                value,
            } => {
                let asked = Asked {
                    bytes: question,
                    answer,
                };
                (
                    self.verify(&key.into(), &asked, &input, &value, line)?,
                    true,
                )
            }
            Request::SignOrder(order) => (self.sign_order(&order, line)?, true),
            Request::SignCheckpoint {
                log,
                lines,
                head,
                time,
            } => (self.sign_checkpoint(log, lines, head, time)?, true),
            Request::SignBatch(document) => {
                self.guard.check_batch(&document)?;
                let signature = sign(self.hsm.authority(), &document)?;
                (Reply::Signature(signature), true)
            }
        })
    }

    /// What was done so far.
    #[must_use]
    pub fn status(&self) -> Status {
        let limits = self.guard.limits();
        Status {
            token: self.described.token.clone(),
            process: std::process::id(),
            seconds: self.begun.elapsed().as_secs(),
            counts: self.guard.counts,
            maximum_keys: limits.maximum_keys,
            maximum_devices: limits.maximum_devices,
        }
    }

    /// The suites that the token does and the rules allow.
    fn suites(&self) -> Result<Vec<Suite>, Failure> {
        let mut suites = self.hsm.suites()?;
        suites.retain(|suite| self.rules.suites.contains(suite));
        Ok(suites)
    }

    fn key(&mut self, wanted: &Wanted, line: &mut Line) -> Result<KeyCard, Failure> {
        line.keys.extend(wanted.label.clone());
        if let Some(label) = &wanted.label {
            // Before the token is asked: what is not given out is not talked about.
            self.guard.uses(label)?;
        }
        let forbidden = |label: &str| GuardError::KeyForbidden {
            label: label.to_owned(),
            device_use: wanted.device_use.clone(),
        };
        let device_use = match &wanted.device_use {
            None => None,
            Some(name) => {
                let label = wanted.label.as_deref().unwrap_or_default();
                Some(name.parse().map_err(|_| forbidden(label))?)
            }
        };
        let spec = KeySpec {
            label: wanted.label.clone(),
            id: wanted.id.clone(),
            class: wanted.class.map(Into::into),
        };
        let card = self.hsm.key(&spec, device_use)?;
        if self.gives_out(&card)? {
            Ok(card)
        } else {
            Err(forbidden(&card.name()).into())
        }
    }

    /// A random key for one device, kept under a key of the token that was named for that.
    fn fresh(
        &mut self,
        label: &str,
        key_type: &str,
        device_use: Option<&str>,
        keep_under: &str,
    ) -> Result<KeyCard, Failure> {
        self.guard.check_keeper(keep_under)?;
        let unknown = || GuardError::KeyForbidden {
            label: label.to_owned(),
            device_use: device_use.map(str::to_owned),
        };
        let key_type = KeyType::from_name(key_type).ok_or_else(unknown)?;
        let device_use = device_use
            .map(|name| name.parse().map_err(|_| unknown()))
            .transpose()?;
        let card = self.hsm.fresh(label, key_type, device_use, keep_under)?;
        self.guard.made(&card);
        Ok(card)
    }

    /// Whether a description of a key is one that this broker gives.
    fn check_card(&mut self, card: &KeyCard) -> Result<(), Failure> {
        if card.kept.is_some() {
            return Ok(self.guard.check_made(card)?);
        }
        if self.gives_out(card)? {
            Ok(())
        } else {
            Err(GuardError::OtherCard { label: card.name() }.into())
        }
    }

    /// Whether it is what the token says of the key, for a use that is allowed.
    fn gives_out(&mut self, card: &KeyCard) -> Result<bool, Failure> {
        if self.cards.contains(card) {
            return Ok(true);
        }
        let spec = KeySpec {
            label: Some(card.label.clone()).filter(|label| !label.is_empty()),
            id: Some(card.id.clone()).filter(|id| !id.is_empty()),
            class: None,
        };
        for device_use in self.guard.uses(&card.label)? {
            match self.hsm.key(&spec, device_use) {
                Ok(found) if found == *card => {
                    if self.cards.len() < MAXIMUM_CARDS {
                        self.cards.push(found);
                    }
                    return Ok(true);
                }
                // A use that keys of this type do not have.
                Ok(_) | Err(JobError::Hsm(HsmError::WrongKeyType { .. })) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }

    /// Verifies a statement; it must be this broker's authority that the device obeys.
    fn stated(&self, claim: &Claim, line: &mut Line) -> Result<Statement, Failure> {
        let no_statement = |reason: String| GuardError::NoStatement { reason };
        let device =
            claimed_device(claim).ok_or_else(|| no_statement("it does not decode".into()))?;
        line.device = Some(device.to_string());
        let receipt = SignedReceipt {
            bytes: claim.receipt.clone(),
            signature: claim.signature,
        };
        let statement =
            verify::stated(&receipt, device).map_err(|error| no_statement(error.to_string()))?;
        line.identity = Some(fingerprint(&statement.identity_key).to_string());
        let expected: Fingerprint = fingerprint(&self.described.authority);
        if statement.authority != expected {
            return Err(GuardError::OtherAuthority {
                device,
                expected,
                found: statement.authority,
            }
            .into());
        }
        Ok(statement)
    }

    /// Has the rules say whether a device is believed. A statement must answer an order that was signed here, or state keys that
    /// are pinned in the registry.
    fn believed(&self, claim: &Claim, line: &mut Line) -> Result<Statement, Failure> {
        let statement = self.stated(claim, line)?;
        let certificate = claim.certificate.as_deref();
        let now = SystemTime::now();
        let trust = match self.guard.question(&statement, Instant::now()) {
            Some(question) => {
                let trust = if question.is_to_blank() {
                    self.rules.enrolment(&statement, &self.registry, now)?
                } else {
                    self.rules
                        .visit(&statement, certificate, &self.registry, now)?
                };
                self.record(&statement, &trust)?;
                trust
            }
            None => {
                let pinned = self.pinned(&statement)?;
                self.rules
                    .visit(&pinned, certificate, &self.registry, now)?
            }
        };
        line.reason = Some(format!("policy {}: {}", trust.policy, trust.reason));
        Ok(statement)
    }

    /// The newest statement that the registry has of the same keys.
    fn pinned(&self, statement: &Statement) -> Result<Statement, Failure> {
        let device = statement.device;
        let not_fresh = || GuardError::NotFresh { device };
        let registry = self.registry.as_ref().ok_or_else(not_fresh)?;
        let record = registry
            .find(device)?
            .filter(|record| record.released.is_none())
            .ok_or_else(not_fresh)?;
        let same = record.identity == fingerprint(&statement.identity_key)
            && record.unwrap == fingerprint(&statement.unwrap_key);
        if same {
            Ok(record.statement()?)
        } else {
            Err(not_fresh().into())
        }
    }

    fn record(&self, statement: &Statement, trust: &Trust) -> Result<(), Failure> {
        if let Some(registry) = &self.registry {
            registry.enrolled(&Enrolled {
                statement,
                trust,
                serial: None,
            })?;
        }
        Ok(())
    }

    fn enrolled(&self, claim: &Claim, line: &mut Line) -> Result<(), Failure> {
        let statement = self.stated(claim, line)?;
        let device = statement.device;
        self.guard
            .question(&statement, Instant::now())
            .ok_or(GuardError::NotFresh { device })?;
        let trust = self
            .rules
            .enrolment(&statement, &self.registry, SystemTime::now())?;
        line.reason = Some(format!("policy {}: {}", trust.policy, trust.reason));
        self.record(&statement, &trust)
    }

    fn wrap(
        &mut self,
        claim: &Claim,
        suite: Suite,
        cards: &[KeyCard],
        line: &mut Line,
    ) -> Result<Reply, Failure> {
        line.keys = cards.iter().map(KeyCard::name).collect();
        let statement = self.believed(claim, line)?;
        if !self.rules.permitted_suites(&statement).contains(&suite) {
            return Err(GuardError::SuiteForbidden {
                device: statement.device,
                suite,
            }
            .into());
        }
        for card in cards {
            self.check_card(card)?;
            self.rules.check_proof(&card.name(), card.proof)?;
        }
        self.guard.check_count(&statement, cards.len())?;
        let cards_by_reference: Vec<_> = cards.iter().collect();
        let recipient = Recipient {
            statement: &statement,
            certificate: claim.certificate.as_deref(),
        };
        let wrapped = self.hsm.wrap(recipient, suite, &cards_by_reference)?;
        self.guard.packed(&statement, cards, &wrapped);
        Ok(Reply::Wrapped {
            suite: wrapped.suite,
            recipient: wrapped.recipient,
            kek: wrapped.kek_blob,
            blobs: wrapped.blobs,
        })
    }

    fn certify(
        &mut self,
        claim: &Claim,
        serial: Option<&str>,
        line: &mut Line,
    ) -> Result<Option<Vec<u8>>, Failure> {
        if !self.described.certifies {
            return Ok(None);
        }
        let statement = self.believed(claim, line)?;
        self.guard.check_count(&statement, 0)?;
        let recipient = Recipient {
            statement: &statement,
            certificate: claim.certificate.as_deref(),
        };
        let certificate = self.hsm.certify(recipient, serial)?;
        if let Some(certificate) = &certificate {
            self.guard.certified(&statement, certificate);
        }
        Ok(certificate)
    }

    fn ask(&mut self, card: &KeyCard, line: &mut Line) -> Result<Reply, Failure> {
        line.keys.push(card.name());
        self.check_card(card)?;
        let question = self.hsm.ask(card)?;
        Ok(Reply::Question {
            secret: question.secret().copied(),
            bytes: question.bytes,
        })
    }

    fn verify(
        &mut self,
        card: &KeyCard,
        asked: &Asked,
        input: &[u8],
        value: &[u8],
        line: &mut Line,
    ) -> Result<Reply, Failure> {
        line.keys.push(card.name());
        // Else this would tell whether any bytes at all have this MAC.
        if input.len() != proof::INPUT_LENGTH || !input.starts_with(&proof::TAG) {
            return Err(GuardError::NotAProof.into());
        }
        match &card.kept {
            // Its proof may come long after it was made. It was kept under this key by this token, or it does not open.
            Some(kept) => self.guard.check_keeper(&kept.under)?,
            None => self.check_card(card)?,
        }
        let right = self.hsm.verify(card, asked, input, value)?;
        self.guard.counts.proofs = self.guard.counts.proofs.saturating_add(1);
        line.reason = Some(if right { "right" } else { "wrong" }.to_owned());
        Ok(Reply::Verdict(right))
    }

    fn sign_order(&mut self, bytes: &[u8], line: &mut Line) -> Result<Reply, Failure> {
        line.order = Some(verify::digest(bytes).to_string());
        if let Ok((header, _)) = keyferry_protocol::order::decode(bytes) {
            line.kind = Some(header.kind.name());
            line.device = Some(header.device.to_string());
        }
        let (header, body) = self.guard.check_order(bytes)?;
        let signature = sign(self.hsm.authority(), bytes)?;
        self.guard.signed(bytes, &header, &body, Instant::now());
        Ok(Reply::Signature(signature))
    }

    fn sign_checkpoint(
        &mut self,
        log: [u8; 16],
        lines: u64,
        head: Digest,
        time: u64,
    ) -> Result<Reply, Failure> {
        let auditor = self.hsm.auditor().ok_or(GuardError::NoAuditor)?;
        self.guard.check_checkpoint(log, lines, &head)?;
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let seconds = now.as_secs().abs_diff(time);
        if seconds > CLOCK.as_secs() {
            return Err(GuardError::Clock { seconds }.into());
        }
        let time = DateTime::from_unix_duration(Duration::from_secs(time))
            .map_err(|_| GuardError::Clock { seconds })?;
        let bytes = audit::signed_bytes(&LogId(log), lines, &head, time);
        let signature = sign(auditor, &bytes)?;
        self.guard.checkpoint(log, lines, head);
        Ok(Reply::Signature(signature))
    }
}

fn sign(key: &dyn Authority, bytes: &[u8]) -> Result<Signature, Failure> {
    let signature = key.sign(bytes).map_err(signer)?;
    Ok(Signature::from_bytes(&signature))
}
