//! Devices that the registry may be wrong about: what they hold, they say again, signed.

use keyferry_protocol::proof::{Level, Proof};

use super::error::UnitError;
use super::known::Known;
use super::unit::{Way, is_empty};
use super::{card, context, lock};
use crate::device::verify::fingerprint;
use crate::station::finding::Finding;
use crate::station::plan::KeySource;
use crate::station::registry::SlotRecord;
use crate::station::{JobError, KeyCard, Proved, Target, Visit, prove};

impl Way<'_> {
    /// What the registry says of a device that it did not count on, now that it is enrolled: let go of without being wiped, and enrolled with the keys that
    /// it had, it may hold what it held.
    pub(super) fn known_now(&self) -> Result<Option<Known>, UnitError> {
        let Known::Not = self.known else {
            return Ok(None);
        };
        let device = self.unit.device;
        match self.shared.known(device)? {
            Known::Otherwise { slot, holds } => Err(UnitError::OtherKey {
                device,
                slot,
                holds,
            }),
            known => Ok(Some(known)),
        }
    }

    /// Has the device say again, signed, that it holds the versions that were proved; of keys that can be had again, that they are the right
    /// ones. What it does not hold, the registry does not have as proved any more.
    pub(super) fn confirm(&self, visit: &mut Visit) -> Result<Vec<Proved>, UnitError> {
        let (line, device) = (self.shared.line, self.unit.device);
        let held = self.shared.proved(device)?;
        let held = held.ok_or(UnitError::OtherPlan { device })?;
        let mut targets = Vec::new();
        let cards = self.shared.stock.cards.iter().zip(&held);
        for (key, (of_token, held)) in line.plan.keys.iter().zip(cards) {
            let card = match (of_token, &key.source) {
                (Some(card), _) => card.clone(),
                (None, KeySource::Master { .. }) => {
                    let context = context(key, device, held.version);
                    card(line.hsm, line.plan, key, &context)?
                }
                (None, KeySource::Fresh { .. } | KeySource::Token { .. }) => forgotten(held),
            };
            targets.push(Target {
                key: card,
                slot: key.slot,
            });
        }
        let versions = |slot| version_of(&held, slot);
        let mut progress = self.shared.progress(self.nest);
        let level = Level::None;
        let confirmed = prove(visit, line.hsm, &targets, &versions, level, &mut progress);
        let confirmed = confirmed.map_err(UnitError::from);
        if let Err(error) = &confirmed
            && is_missing(error)
        {
            // Which one is empty, a refusal does not say.
            let meant = if let UnitError::Job(
                JobError::OtherVersion { slot, .. } | JobError::ProofWrong { slot, .. },
            ) = error
            {
                Some(*slot)
            } else {
                None
            };
            let slots = held
                .iter()
                .filter(|held| meant.is_none_or(|slot| slot == held.slot));
            let slots = slots.map(|held| (held.slot, held.version)).collect();
            let identity = fingerprint(&visit.statement.identity_key);
            lock(line.records).tell(device, &Finding::gone(&identity, slots))?;
        }
        confirmed
    }
}

/// A random key of which nothing is left but what the registry has: there is nothing that its proof could be compared with.
fn forgotten(held: &SlotRecord) -> KeyCard {
    KeyCard {
        label: held.label.clone(),
        id: Vec::new(),
        key_type: held.key_type.clone(),
        attributes: held.attributes,
        proof: Proof::None,
        kept: None,
        derived: None,
    }
}

/// The newest version in a slot.
pub(super) fn version_of(slots: &[SlotRecord], slot: u16) -> Option<u32> {
    let of_slot = slots.iter().filter(|it| it.slot == slot);
    of_slot.map(|it| it.version).max()
}

/// Whether the device has not got what it had.
pub(super) const fn is_missing(error: &UnitError) -> bool {
    is_empty(error)
        || matches!(
            error,
            UnitError::Job(JobError::OtherVersion { .. } | JobError::ProofWrong { .. })
        )
}
