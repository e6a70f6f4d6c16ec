//! Policies: which device is trusted, and why.
//!
//! A key that is born at enrolment cannot be on any list before it. So there are two questions: may this blank device be enrolled
//! ([`Enrolment`]), and is this the device that was enrolled ([`Visiting`])? A line answers both with [`Rules`], out loud: there is no
//! default for either. What is asked is always a [`Statement`] that was verified; what is answered is [`Trust`], which goes into the
//! records, or a [`PolicyError`].
//!
//! Nothing may be wrapped for a device before one of the two has said yes. Nothing here is ever skipped because a proof is missing,
//! and where a registry is kept ([`Known`]), what it has pinned counts under every policy, `open` included.

mod enrolment;
mod error;
mod lists;
mod visiting;

use std::time::SystemTime;

use keyferry_protocol::identity::{DeviceId, Fingerprint};
use keyferry_protocol::proof::{Level, Proof};
use keyferry_protocol::receipt::{Flavour, SourceClass};
use keyferry_protocol::suite::Suite;

pub use enrolment::Enrolment;
pub use error::PolicyError;
pub use lists::{Allowlist, ListError, MAXIMUM_LIST, MAXIMUM_LISTED, Mistake, SerialList};
pub use visiting::Visiting;
pub(super) use visiting::certified;

use super::registry::RegistryError;
use crate::device::verify::{Statement, fingerprint};

/// The name of the policies that trust the room.
pub const OPEN: &str = "open";

/// Which devices a line trusts.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Which blank devices may be enrolled. `None`: none.
    pub enrolment: Option<Enrolment>,
    /// Which enrolled devices are the right ones. `None`: none.
    pub visiting: Option<Visiting>,
    /// Whether devices are allowed whose randomness or root key is only a test's.
    pub allow_test_devices: bool,
    /// Whether firmware is allowed that was built for a developer's desk: it obeys whichever authority comes first.
    pub allow_development: bool,
    /// The weakest proof of a key that counts.
    pub minimum_proof: Level,
    /// The suites by which keys may travel.
    pub suites: Vec<Suite>,
}

impl Rules {
    /// Rules that allow nothing yet but every suite: no device, no test device, no developer's firmware, and a proof of every key.
    #[must_use]
    pub fn closed() -> Self {
        Self {
            enrolment: None,
            visiting: None,
            allow_test_devices: false,
            allow_development: false,
            minimum_proof: Level::CheckValue,
            suites: Suite::ALL.to_vec(),
        }
    }

    /// What can be refused on a device's own word, before it is asked to enrol: `identity` is the fingerprint that it claims, zero while it
    /// has no key. Its signed statement decides all the same, but for the list of devices that are visited: whom that names is refused here alone.
    ///
    /// # Errors
    /// [`PolicyError`], as [`Rules::enrolment`] would give it; [`PolicyError::NotTheOne`].
    pub fn enrolment_claims(
        &self,
        device: DeviceId,
        identity: Fingerprint,
        known: &dyn Known,
    ) -> Result<(), PolicyError> {
        pinned_claim(device, identity, known)?;
        self.listed_as_another(device, identity)?;
        match &self.enrolment {
            Some(Enrolment::SerialList(list)) => enrolment::expected(list, device),
            Some(Enrolment::VendorCertificate(_) | Enrolment::Open) => Ok(()),
            None => Err(PolicyError::NoEnrolment { device }),
        }
    }

    /// As [`Rules::enrolment_claims`], before an enrolled device is asked to state itself.
    ///
    /// # Errors
    /// [`PolicyError`], as [`Rules::visit`] would give it.
    pub fn visit_claims(
        &self,
        device: DeviceId,
        identity: Fingerprint,
        known: &dyn Known,
    ) -> Result<(), PolicyError> {
        pinned_claim(device, identity, known)?;
        match &self.visiting {
            Some(Visiting::Allowlist(list)) => visiting::listed(list, device, identity),
            Some(Visiting::Certificate(_) | Visiting::Registry | Visiting::Open) | None => Ok(()),
        }
    }

    /// Whether a device that was blank may be enrolled, or one that is enrolled may state itself anew where devices are enrolled.
    ///
    /// `statement` must come from an order of this very moment: a voucher in it is fresh because the statement is.
    ///
    /// # Errors
    /// [`PolicyError`], the first reason against it.
    pub fn enrolment(
        &self,
        statement: &Statement,
        known: &dyn Known,
        now: SystemTime,
    ) -> Result<Trust, PolicyError> {
        let leave = self.fit(statement)?;
        let history = pinned(statement, known)?;
        let Some(policy) = &self.enrolment else {
            return Err(PolicyError::NoEnrolment {
                device: statement.device,
            });
        };
        let reason = policy.check(statement, &history, now)?;
        Ok(Trust::new(policy.name(), reason, &leave))
    }

    /// Whether a device that had its keys before this visit is the right one. `certificate` is the one of its identity key, in DER,
    /// from the device or from the registry: it is believed only if it verifies.
    ///
    /// # Errors
    /// [`PolicyError`], the first reason against it.
    pub fn visit(
        &self,
        statement: &Statement,
        certificate: Option<&[u8]>,
        known: &dyn Known,
        now: SystemTime,
    ) -> Result<Trust, PolicyError> {
        let leave = self.fit(statement)?;
        let history = pinned(statement, known)?;
        if matches!(history, History::Released) {
            return Err(PolicyError::Released {
                device: statement.device,
            });
        }
        let Some(policy) = &self.visiting else {
            return Err(PolicyError::NoVisiting {
                device: statement.device,
            });
        };
        let reason = policy.check(statement, certificate, &history, now)?;
        Ok(Trust::new(policy.name(), reason, &leave))
    }

    /// The suites that the device's statement offers and these rules allow, strongest first. A statement that [`Rules::enrolment`] or
    /// [`Rules::visit`] has accepted has at least one.
    #[must_use]
    pub fn permitted_suites(&self, statement: &Statement) -> Vec<Suite> {
        let offered = statement.suites.iter().copied();
        offered
            .filter(|suite| self.suites.contains(suite))
            .collect()
    }

    /// Whether a key whose best proof is `proof` may be injected at all. To be asked before anything is wrapped.
    ///
    /// # Errors
    /// [`PolicyError::ProofTooWeak`].
    pub fn check_proof(&self, label: &str, proof: Proof) -> Result<(), PolicyError> {
        if proof.level() < self.minimum_proof {
            return Err(PolicyError::ProofTooWeak {
                label: label.to_owned(),
                found: proof.level(),
                wanted: self.minimum_proof,
            });
        }
        Ok(())
    }

    /// Who is on the list of devices that are visited is no new one, and has the key that stands there.
    fn listed_as_another(
        &self,
        device: DeviceId,
        identity: Fingerprint,
    ) -> Result<(), PolicyError> {
        match &self.visiting {
            Some(Visiting::Allowlist(list)) if list.names(device) => {
                visiting::listed(list, device, identity)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// What holds for every device, whoever it is. Gives what had to be allowed for this one.
    fn fit(&self, statement: &Statement) -> Result<Vec<&'static str>, PolicyError> {
        let device = statement.device;
        let mut leave = Vec::new();
        // No rule can allow it: such firmware leaks keys on purpose.
        if statement.flavour == Flavour::Sabotaged {
            return Err(PolicyError::Sabotaged { device });
        }
        // Before the flavour: what allows a test device allows its firmware, too, and not the other way round.
        for (class, part, word) in [
            (statement.rng, "rng", "rng of class test"),
            (statement.root_key, "root key", "root key of class test"),
        ] {
            match class {
                SourceClass::Hardware | SourceClass::Software => {}
                SourceClass::Test if self.allow_test_devices => leave.push(word),
                SourceClass::Test => return Err(PolicyError::TestDevice { device, part }),
            }
        }
        if statement.flavour == Flavour::Development {
            if !self.allow_development {
                return Err(PolicyError::Development { device });
            }
            leave.insert(0, "development firmware");
        }
        if self.permitted_suites(statement).is_empty() {
            return Err(PolicyError::NoSuite {
                device,
                offered: statement.suites.clone(),
                allowed: self.suites.clone(),
            });
        }
        Ok(leave)
    }
}

/// What was trusted and why. It goes into the audit log and the registry as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// The policy's name, as on command lines and in plans.
    pub policy: &'static str,
    /// Why the policy was satisfied, and what had to be allowed besides.
    pub reason: String,
}

impl Trust {
    fn new(policy: &'static str, mut reason: String, leave: &[&str]) -> Self {
        if !leave.is_empty() {
            reason.push_str("; allowed: ");
            reason.push_str(&leave.join(", "));
        }
        Self { policy, reason }
    }

    /// Whether nothing but the room vouches for the device: to be said on screen.
    #[must_use]
    pub fn trusts_the_room(&self) -> bool {
        self.policy == OPEN
    }
}

/// What a plant knows of the devices it has enrolled.
pub trait Known {
    /// What it knows of a device id.
    ///
    /// # Errors
    /// [`RegistryError`] if it cannot say: then nothing may be decided.
    fn history(&self, device: DeviceId) -> Result<History, RegistryError>;

    /// The device whose identity key this is, if the plant has enrolled one with it, released ones included.
    ///
    /// # Errors
    /// As [`Known::history`].
    fn holder(&self, identity: Fingerprint) -> Result<Option<DeviceId>, RegistryError>;
}

/// What a plant knows of one device id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum History {
    /// Nothing, because no registry is kept.
    NoRegistry,
    /// It was never enrolled here.
    New,
    /// It was enrolled, with these keys.
    Enrolled(Pin),
    /// It was enrolled and then released: its old keys count no more, it may be enrolled again.
    Released,
}

/// What was pinned of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Its identity key.
    pub identity: Fingerprint,
    /// Its unwrap key.
    pub unwrap: Fingerprint,
    /// The highest counter that a receipt of it has shown.
    pub counter: u32,
    /// The highest epoch that a statement of it has shown.
    pub epoch: u32,
}

/// No registry is kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRegistry;

impl Known for NoRegistry {
    fn history(&self, _: DeviceId) -> Result<History, RegistryError> {
        Ok(History::NoRegistry)
    }

    fn holder(&self, _: Fingerprint) -> Result<Option<DeviceId>, RegistryError> {
        Ok(None)
    }
}

impl<K: Known> Known for Option<K> {
    fn history(&self, device: DeviceId) -> Result<History, RegistryError> {
        self.as_ref()
            .map_or(Ok(History::NoRegistry), |known| known.history(device))
    }

    fn holder(&self, identity: Fingerprint) -> Result<Option<DeviceId>, RegistryError> {
        self.as_ref()
            .map_or(Ok(None), |known| known.holder(identity))
    }
}

/// Holds a statement against what is pinned. This is no policy: it counts under each of them.
fn pinned(statement: &Statement, known: &dyn Known) -> Result<History, PolicyError> {
    let device = statement.device;
    let identity = fingerprint(&statement.identity_key);
    let history = known.history(device)?;
    if let History::Enrolled(pin) = history {
        check_pin(statement, identity, &pin)?;
    }
    match known.holder(identity)? {
        Some(holder) if holder != device => Err(PolicyError::IdentityElsewhere {
            device,
            identity,
            holder,
        }),
        Some(_) | None => Ok(history),
    }
}

/// Holds what a device claims against what is pinned.
fn pinned_claim(
    device: DeviceId,
    identity: Fingerprint,
    known: &dyn Known,
) -> Result<(), PolicyError> {
    match known.history(device)? {
        History::Enrolled(pin) if pin.identity != identity => Err(PolicyError::OtherIdentity {
            device,
            expected: pin.identity,
            found: identity,
        }),
        History::Enrolled(_) | History::NoRegistry | History::New | History::Released => Ok(()),
    }
}

fn check_pin(statement: &Statement, identity: Fingerprint, pin: &Pin) -> Result<(), PolicyError> {
    let device = statement.device;
    if identity != pin.identity {
        return Err(PolicyError::OtherIdentity {
            device,
            expected: pin.identity,
            found: identity,
        });
    }
    let unwrap = fingerprint(&statement.unwrap_key);
    if unwrap != pin.unwrap {
        return Err(PolicyError::OtherUnwrapKey {
            device,
            expected: pin.unwrap,
            found: unwrap,
        });
    }
    // Counter and epoch only grow. One that has shrunk means an older copy of the device's flash.
    if statement.standing.counter < pin.counter {
        return Err(PolicyError::CounterWentBack {
            device,
            known: pin.counter,
            found: statement.standing.counter,
        });
    }
    if statement.epoch < pin.epoch {
        return Err(PolicyError::EpochWentBack {
            device,
            known: pin.epoch,
            found: statement.epoch,
        });
    }
    Ok(())
}
