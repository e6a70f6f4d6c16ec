//! A visit: a device on a port is asked who it is, a policy decides whether it is believed, and both are written down. Nothing is
//! wrapped for a device before that.

use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use keyferry_protocol::identity::{Challenge, DeviceId, Digest, Fingerprint};
use keyferry_protocol::receipt::State;
use keyferry_protocol::suite::UnwrapAlgorithm;

use super::JobError;
use super::hsm::{Hsm, Recipient};
use super::policy::{History, Known, PolicyError, Rules, Trust, Visiting, certified};
use super::records::{Records, Scribe, patiently};
use crate::certificate::{DeviceCa, Document};
use crate::device::flow;
use crate::device::session::{Greeting, OnProgress, Session};
use crate::device::verify::{Statement, fingerprint};
use crate::hsm::random;

/// A device that was believed.
pub struct Visit {
    /// The session with it.
    pub session: Session,
    /// What it stated of itself.
    pub statement: Statement,
    /// Why it was believed.
    pub trust: Trust,
    /// The certificate that it showed, where the policy asks for one.
    pub certificate: Option<Vec<u8>>,
    /// Writes the visit down.
    pub scribe: Scribe,
}

impl Visit {
    /// For whom keys are wrapped.
    #[must_use]
    pub fn recipient(&self) -> Recipient<'_> {
        Recipient {
            statement: &self.statement,
            certificate: self.certificate.as_deref(),
        }
    }
}

/// A quarantined device takes nothing but a wipe.
///
/// # Errors
/// [`JobError::Quarantined`] if it says that it is.
pub(super) fn unless_quarantined(session: &Session) -> Result<(), JobError> {
    let Greeting { state, device, .. } = *session.greeting();
    if state == State::Quarantined {
        return Err(JobError::Quarantined { device });
    }
    Ok(())
}

/// What a visit is made with.
pub struct Visitor<'a> {
    /// The HSM.
    pub hsm: &'a dyn Hsm,
    /// Which devices are believed.
    pub rules: &'a Rules,
    /// Where all of it is written down.
    pub records: &'a Arc<Mutex<Records>>,
    /// Is told what a person wants to know on the way.
    pub on_note: &'a dyn Fn(&str),
}

impl Visitor<'_> {
    /// Enrols a blank device, or has one that is enrolled state itself anew, under the enrolment policy. `serial` is the number on its
    /// label, where it has one.
    ///
    /// # Errors
    /// [`JobError::Quarantined`] if it says that it is; [`JobError`].
    pub fn enroll(
        &self,
        session: Session,
        unwrap: UnwrapAlgorithm,
        serial: Option<&str>,
        on_progress: &mut OnProgress<'_>,
    ) -> Result<Visit, JobError> {
        unless_quarantined(&session)?;
        let first = session.greeting().identity == Fingerprint::ZERO;
        self.check_claims(&session, serial, Rules::enrolment_claims)?;
        let (session, scribe, statement) = self.stated(session, unwrap, on_progress)?;
        let trust = patiently(self.records, |records| {
            let now = SystemTime::now();
            self.rules.enrolment(&statement, &*records, now)
        });
        let trust = trust.map_err(|error| {
            if first {
                (self.on_note)(&format!(
                    "device {} obeys this authority now, although it is refused: nothing is put into it; `keyferry device wipe` with the same --port, --token and --authority makes it blank again",
                    statement.device
                ));
            }
            Self::remembered(&scribe, &statement, error)
        })?;
        self.hsm.enrolled(Recipient {
            statement: &statement,
            certificate: None,
        })?;
        scribe.trusted(&statement, &trust, first, serial)?;
        Ok(Visit {
            session,
            statement,
            trust,
            certificate: None,
            scribe,
        })
    }

    /// Visits a device that was enrolled before, under the visit policy. `serial` as in [`Visitor::enroll`]; where none is given, the registry
    /// keeps the one that it has.
    ///
    /// # Errors
    /// [`JobError::NotEnrolled`] if it was not, [`JobError::Quarantined`] if it says so; [`JobError`].
    pub fn visit(
        &self,
        mut session: Session,
        serial: Option<&str>,
        on_progress: &mut OnProgress<'_>,
    ) -> Result<Visit, JobError> {
        unless_quarantined(&session)?;
        if session.greeting().identity == Fingerprint::ZERO {
            return Err(JobError::NotEnrolled {
                port: session.port_name(),
            });
        }
        self.check_claims(&session, serial, Rules::visit_claims)?;
        let certificate = match &self.rules.visiting {
            Some(Visiting::Certificate(ca)) => Some(self.certified(&mut session, ca)?),
            Some(Visiting::Allowlist(_) | Visiting::Registry | Visiting::Open) | None => None,
        };
        // Any kind of unwrap key: an enrolled device states the one it has.
        let (session, scribe, statement) =
            self.stated(session, UnwrapAlgorithm::P256, on_progress)?;
        let trust = patiently(self.records, |records| {
            let (certificate, now) = (certificate.as_deref(), SystemTime::now());
            self.rules.visit(&statement, certificate, &*records, now)
        });
        let trust = trust.map_err(|error| Self::remembered(&scribe, &statement, error))?;
        scribe.trusted(&statement, &trust, false, serial)?;
        Ok(Visit {
            session,
            statement,
            trust,
            certificate,
            scribe,
        })
    }

    /// Wipes the device `named` where it greets as quarantined, with a counter above all that it ever had: the registry's, and at least `counter`.
    /// There is nothing to verify: the device is let go of, and whoever enrols it again finds out what it is. So anybody
    /// could greet as one, and which device it is, a person must say. Gives its counter.
    ///
    /// # Errors
    /// [`JobError::Quarantined`] if another is named or none; [`JobError::CounterUnknown`] if neither the registry nor `counter` says; and the others of [`JobError`].
    pub fn recover(
        &self,
        mut session: Session,
        named: Option<DeviceId>,
        counter: Option<u32>,
        on_progress: &mut OnProgress<'_>,
    ) -> Result<u32, JobError> {
        let device = session.greeting().device;
        if named != Some(device) {
            return Err(JobError::Quarantined { device });
        }
        let scribe = Scribe::new(Arc::clone(self.records));
        session.set_witness(Box::new(scribe.clone()));
        let record = match &scribe.records().registry {
            None => None,
            Some(registry) => registry.find(device)?.map(|record| {
                let next = registry.recovery_counter(&record)?;
                let identity = record.released.is_none().then_some(record.identity);
                Ok::<_, JobError>((identity, next))
            }),
        };
        let known = record.transpose()?;
        let counter = known
            .map(|(_, next)| next)
            .max(counter)
            .ok_or(JobError::CounterUnknown { device })?;
        flow::recover(&mut session, self.hsm.authority(), counter, on_progress)?;
        if let Some((Some(identity), _)) = known {
            scribe.distrust(device, identity, "quarantined, and wiped")?;
        }
        Ok(counter)
    }

    /// Has the device show its certificate, and that it holds the key in it: a signed status over a nonce, which needs no order. So
    /// a station that is not the device's authority knows as well whom it talks to.
    fn certified(&self, session: &mut Session, ca: &DeviceCa) -> Result<Vec<u8>, JobError> {
        let device = session.greeting().device;
        let certificate = flow::certificate(session)?.ok_or(JobError::NoCertificate { device })?;
        let document =
            Document::read(&certificate, crate::certificate::MAXIMUM_DEVICE_CERTIFICATE)?;
        let key = document.key()?;
        if key.fingerprint() != session.greeting().identity {
            return Err(JobError::OtherCertificate {
                device,
                expected: session.greeting().identity,
                found: key.fingerprint(),
            });
        }
        let nonce = Challenge(random()?);
        flow::status(session, key.spki_der(), Digest::ZERO, nonce)?;
        let now = SystemTime::now();
        let reason = certified(ca, device, key.spki_der(), Some(&certificate), now)?;
        (self.on_note)(&format!("device {device} is the one it says: {reason}"));
        Ok(certificate)
    }

    /// A device whose counter has gone back would have caught up after some tries, as each is an order: it is let go of, until
    /// somebody enrols it again.
    fn remembered(scribe: &Scribe, statement: &Statement, error: PolicyError) -> JobError {
        if let PolicyError::CounterWentBack { device, .. }
        | PolicyError::EpochWentBack { device, .. } = &error
            && let Err(unwritten) = scribe.distrust(
                *device,
                fingerprint(&statement.identity_key),
                &error.to_string(),
            )
        {
            return unwritten;
        }
        error.into()
    }

    fn check_claims(
        &self,
        session: &Session,
        serial: Option<&str>,
        check: impl Fn(&Rules, DeviceId, Fingerprint, &dyn Known) -> Result<(), PolicyError>,
    ) -> Result<(), JobError> {
        let greeting = session.greeting();
        patiently(self.records, |records| {
            let (device, identity) = (greeting.device, greeting.identity);
            check(self.rules, device, identity, &*records)?;
            match (&records.registry, serial) {
                (Some(registry), Some(serial)) => Ok(registry.check_label(device, serial)?),
                (Some(_) | None, _) => Ok::<_, JobError>(()),
            }
        })
    }

    fn stated(
        &self,
        mut session: Session,
        unwrap: UnwrapAlgorithm,
        on_progress: &mut OnProgress<'_>,
    ) -> Result<(Session, Scribe, Statement), JobError> {
        let scribe = Scribe::new(Arc::clone(self.records));
        session.set_witness(Box::new(scribe.clone()));
        let nonce = Challenge(random()?);
        let authority = self.hsm.authority();
        let statement = flow::enroll(&mut session, authority, unwrap, nonce, on_progress)?;
        let checked = patiently(self.records, |records| has_moved(&*records, &statement));
        checked.map_err(|error| Self::remembered(&scribe, &statement, error))?;
        Ok((session, scribe, statement))
    }
}

/// A statement that was just made has moved the counter: where no receipt is known with a lower one, the device's flash was put back,
/// or is a copy.
fn has_moved(known: &dyn Known, statement: &Statement) -> Result<(), PolicyError> {
    match known.history(statement.device)? {
        History::Enrolled(pin)
            if pin.identity == fingerprint(&statement.identity_key)
                && statement.standing.counter <= pin.counter =>
        {
            Err(PolicyError::CounterWentBack {
                device: statement.device,
                known: pin.counter,
                found: statement.standing.counter,
            })
        }
        History::Enrolled(_) | History::New | History::Released | History::NoRegistry => Ok(()),
    }
}

/// Fingerprint of a device's identity key.
#[must_use]
pub fn identity_of(statement: &Statement) -> Fingerprint {
    fingerprint(&statement.identity_key)
}
