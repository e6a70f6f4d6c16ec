//! Slots: which key went where, by name, and whether it was proved.

use keyferry_protocol::attributes::{Attributes, KeyKind, key_type as psa};
use keyferry_protocol::identity::{DeviceId, Digest, Fingerprint};
use keyferry_protocol::order::Entry;
use keyferry_protocol::proof::Proof;

use super::{DeviceRecord, OrderRecord, OrderState, Registry, RegistryError, names, now};
use crate::station::database::{Fault, Row, Transaction, named, values};

/// What is known of a key in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// It was ordered; its proof has not been verified.
    Pending,
    /// Its proof was verified.
    Proved,
    /// It was refused, or its proof was wrong, or its order was given up.
    Failed,
    /// It was removed, or replaced by a higher version.
    Removed,
}

impl SlotState {
    const ALL: [Self; 4] = [Self::Pending, Self::Proved, Self::Failed, Self::Removed];

    /// The name used in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Proved => "proved",
            Self::Failed => "failed",
            Self::Removed => "removed",
        }
    }
}

/// A key of a slot in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotRecord {
    /// The slot.
    pub slot: u16,
    /// The key's version.
    pub version: u32,
    /// The slot's label.
    pub label: String,
    /// The key's type, in words.
    pub key_type: String,
    /// What the key is and may do.
    pub attributes: Attributes,
    /// The kind of proof that was ordered.
    pub proof: Proof,
    /// What is known of it.
    pub state: SlotState,
    /// Whether the device has done orders since that this registry does not know, or was let go of: it may hold something else.
    pub doubted: bool,
    /// The order that brought it.
    pub order: Digest,
    /// When this was last changed, RFC 3339.
    pub updated_at: String,
}

impl SlotRecord {
    fn read(row: &Row) -> Result<Self, Fault> {
        Ok(Self {
            slot: row.get("slot")?,
            version: row.get("version")?,
            label: row.get("label")?,
            key_type: row.get("key_type")?,
            attributes: Attributes {
                key_type: row.get("psa_type")?,
                bits: row.get("bits")?,
                usage: row.get("usage")?,
                algorithm: row.get("algorithm")?,
                lifetime: row.get("lifetime")?,
            },
            proof: names::proof(row, "proof")?,
            state: names::named(row, "state", &SlotState::ALL, SlotState::name)?,
            doubted: row.get("doubted")?,
            order: names::digest(row, "order_digest")?,
            updated_at: row.get("updated_at")?,
        })
    }
}

/// The name of a key's type, as on command lines.
#[must_use]
pub fn key_type(attributes: &Attributes) -> String {
    match attributes.kind() {
        Ok(KeyKind::Aes(length)) => format!("aes-{}", length * 8),
        Ok(KeyKind::Secret(length)) => {
            let name = if attributes.key_type == psa::HMAC {
                "hmac"
            } else {
                "secret"
            };
            format!("{name}-{}", length * 8)
        }
        Ok(KeyKind::P256) => "p-256".to_owned(),
        Ok(KeyKind::Rsa(length)) => format!("rsa-{}", length * 8),
        Err(_) => format!("PSA {:#06x}, {} bits", attributes.key_type, attributes.bits),
    }
}

/// A key that was ordered; what was removed is not there to be proved.
fn ordered(
    rows: &[SlotRecord],
    device: DeviceId,
    slot: u16,
    version: u32,
) -> Result<&SlotRecord, RegistryError> {
    let mut rows = rows.iter().filter(|row| row.state != SlotState::Removed);
    rows.find(|row| (row.slot, row.version) == (slot, version))
        .ok_or(RegistryError::UnknownSlot {
            device,
            slot,
            version,
        })
}

impl Registry {
    /// The keys of a device with its present keys: every version that was ordered for each slot, the oldest first.
    ///
    /// # Errors
    /// Those of the database.
    pub fn slots(&self, device: DeviceId) -> Result<Vec<SlotRecord>, RegistryError> {
        self.all(
            "SELECT slots.* FROM slots JOIN devices USING (device, identity)
             WHERE device = ?1 ORDER BY slot, version",
            values![device.to_string()],
            SlotRecord::read,
        )
    }

    /// Notes that the proofs of these slots and versions were verified, all or none; they came with the answer to `order`. Lower versions in those
    /// slots are gone.
    ///
    /// A doubt goes with that, unless the device has been heard since: what was proved before the doubt came up says nothing, nor does it of a
    /// key that was found wrong since.
    ///
    /// # Errors
    /// [`RegistryError::UnknownDevice`], [`RegistryError::UnknownOrder`], [`RegistryError::UnknownSlot`], and those of the database;
    /// [`RegistryError::NotItsOrder`] if the order was for other keys of the device than it has now, or what the registry has in a slot was ordered
    /// after it, or refused: then it is another key that was proved.
    pub fn slots_proved(
        &self,
        device: DeviceId,
        order: &Digest,
        slots: &[(u16, u32)],
    ) -> Result<(), RegistryError> {
        if slots.is_empty() {
            return Ok(());
        }
        self.change(|transaction| {
            let (record, by) = self.asked_by(device, order)?;
            let rows = self.slots(device)?;
            for &(slot, version) in slots {
                let row = ordered(&rows, device, slot, version)?;
                if row.order != *order {
                    let brought = self.order(&row.order)?;
                    let is_its = |it: &OrderRecord| {
                        it.state != OrderState::Failed && it.counter <= by.counter
                    };
                    if !brought.as_ref().is_some_and(is_its) {
                        return Err(RegistryError::NotItsOrder {
                            reason: "the key that the registry has in that slot was ordered since, or refused",
                        });
                    }
                }
                let has_newer = rows.iter().any(|it| {
                    (it.slot, it.state) == (slot, SlotState::Proved) && it.version > version
                });
                // The answers to detached orders come in any order.
                let is_newest = by.counter >= record.counter;
                let doubted = match row.state {
                    _ if is_newest => false,
                    SlotState::Proved => row.doubted,
                    SlotState::Pending => row.doubted || !by.detached,
                    SlotState::Failed | SlotState::Removed => true,
                };
                let state = if has_newer {
                    SlotState::Removed
                } else {
                    SlotState::Proved
                };
                self.put(transaction, record.identity, row, state, doubted)?;
                let changed = transaction.execute(
                    "UPDATE slots SET state = 'removed', updated_at = ?1
                     WHERE identity = ?2 AND slot = ?3 AND version < ?4 AND state IN ('pending', 'proved')",
                    values![now()?, record.identity.to_string(), slot, version],
                );
                self.done(changed)?;
            }
            Ok(())
        })
    }

    /// Notes that these slots and versions do not hold the keys that they should, all or none: so the answer to `order` says. What was proved
    /// since is in doubt.
    ///
    /// # Errors
    /// As [`Registry::slots_proved`].
    pub fn slots_failed(
        &self,
        device: DeviceId,
        order: &Digest,
        slots: &[(u16, u32)],
    ) -> Result<(), RegistryError> {
        if slots.is_empty() {
            return Ok(());
        }
        self.change(|transaction| {
            let (record, by) = self.asked_by(device, order)?;
            let rows = self.slots(device)?;
            for &(slot, version) in slots {
                let row = ordered(&rows, device, slot, version)?;
                let is_older = by.counter < record.counter && row.state == SlotState::Proved;
                let state = if is_older {
                    SlotState::Proved
                } else {
                    SlotState::Failed
                };
                self.put(transaction, record.identity, row, state, is_older)?;
            }
            Ok(())
        })
    }

    /// Notes that these slots and versions are no longer there, all or none: the device with this identity key has said so, and nobody has ordered
    /// it through this registry. Those that are noted already stay so.
    ///
    /// # Errors
    /// [`RegistryError::UnknownDevice`], [`RegistryError::OtherKeys`], [`RegistryError::UnknownSlot`], and those of the database.
    pub fn slots_gone(
        &self,
        device: DeviceId,
        identity: Fingerprint,
        slots: &[(u16, u32)],
    ) -> Result<(), RegistryError> {
        self.change(|transaction| {
            self.found_as(transaction, device, identity)?;
            let rows = self.slots(device)?;
            for &(slot, version) in slots {
                let is_noted = |row: &SlotRecord| {
                    (row.slot, row.version, row.state) == (slot, version, SlotState::Removed)
                };
                if !rows.iter().any(is_noted) {
                    let row = ordered(&rows, device, slot, version)?;
                    self.put(transaction, identity, row, SlotState::Removed, false)?;
                }
            }
            Ok(())
        })
    }

    /// The device, and the order that it has answered: one for the keys that it has now.
    fn asked_by(
        &self,
        device: DeviceId,
        order: &Digest,
    ) -> Result<(DeviceRecord, OrderRecord), RegistryError> {
        let record = self
            .find(device)?
            .ok_or(RegistryError::UnknownDevice { device })?;
        let by = self
            .order(order)?
            .ok_or(RegistryError::UnknownOrder { order: *order })?;
        if (by.device, by.identity) != (device, record.identity) {
            return Err(RegistryError::NotItsOrder {
                reason: "it was for other keys than the device has now",
            });
        }
        Ok((record, by))
    }

    fn put(
        &self,
        transaction: &Transaction<'_>,
        identity: Fingerprint,
        row: &SlotRecord,
        state: SlotState,
        doubted: bool,
    ) -> Result<(), RegistryError> {
        let changed = transaction.execute(
            "UPDATE slots SET state = ?1, doubted = ?2, updated_at = ?3
             WHERE identity = ?4 AND slot = ?5 AND version = ?6",
            values![
                state.name(),
                doubted,
                now()?,
                identity.to_string(),
                row.slot,
                row.version,
            ],
        );
        self.done(changed).map(|_| ())
    }

    /// What was proved is in doubt, until it is proved again; so is what is about to be. A detached order is not: the answers to those come in any
    /// order.
    pub(super) fn doubt(
        &self,
        transaction: &Transaction<'_>,
        identity: Fingerprint,
    ) -> Result<(), RegistryError> {
        let changed = transaction.execute(
            "UPDATE slots SET doubted = 1 WHERE identity = ?1 AND (state = 'proved' OR state = 'pending'
                AND order_digest IN (SELECT digest FROM orders WHERE identity = ?1 AND detached = 0))",
            values![identity.to_string()],
        );
        self.done(changed).map(|_| ())
    }

    /// A key of an `Inject` that was made.
    pub(super) fn slot_ordered(
        &self,
        transaction: &Transaction<'_>,
        record: &DeviceRecord,
        entry: &Entry,
        order: &Digest,
    ) -> Result<(), RegistryError> {
        let held = self.first(
            transaction,
            "SELECT max(version) FROM slots
             WHERE identity = ?1 AND slot = ?2 AND state IN ('proved', 'removed')",
            values![record.identity.to_string(), entry.slot],
            Row::only::<Option<u32>>,
        )?;
        // The device would refuse it too: versions only rise.
        if let Some(version) = held.flatten()
            && version >= entry.version
        {
            return Err(RegistryError::SlotHeld {
                device: record.device,
                slot: entry.slot,
                version,
            });
        }
        let Attributes {
            key_type: psa_type,
            bits,
            usage,
            algorithm,
            lifetime,
        } = entry.attributes;
        // One that failed, or whose order was lost, may be ordered again.
        let changed = transaction.execute_named(
            "INSERT INTO slots (device, identity, slot, version, label, key_type, psa_type, bits, usage, algorithm, lifetime,
                proof, state, order_digest, updated_at)
             VALUES (:device, :identity, :slot, :version, :label, :key_type, :psa_type, :bits, :usage, :algorithm, :lifetime,
                :proof, 'pending', :order, :now)
             ON CONFLICT (identity, slot, version) DO UPDATE SET label = excluded.label, key_type = excluded.key_type,
                psa_type = excluded.psa_type, bits = excluded.bits, usage = excluded.usage, algorithm = excluded.algorithm,
                lifetime = excluded.lifetime, proof = excluded.proof, state = excluded.state,
                order_digest = excluded.order_digest, updated_at = excluded.updated_at",
            named! {
                ":device": record.device.to_string(),
                ":identity": record.identity.to_string(),
                ":slot": entry.slot,
                ":version": entry.version,
                ":label": entry.label.as_str(),
                ":key_type": key_type(&entry.attributes),
                ":psa_type": psa_type,
                ":bits": bits,
                ":usage": usage,
                ":algorithm": algorithm,
                ":lifetime": lifetime,
                ":proof": entry.proof.name(),
                ":order": order.to_string(),
                ":now": now()?,
            },
        );
        self.done(changed).map(|_| ())
    }

    /// A slot that an applied `Remove` has emptied.
    pub(super) fn slot_removed(
        &self,
        transaction: &Transaction<'_>,
        identity: Fingerprint,
        slot: u16,
    ) -> Result<(), RegistryError> {
        let changed = transaction.execute(
            "UPDATE slots SET state = 'removed', updated_at = ?1
             WHERE identity = ?2 AND slot = ?3 AND state IN ('pending', 'proved')",
            values![now()?, identity.to_string(), slot],
        );
        self.done(changed).map(|_| ())
    }

    /// What an applied `Wipe` leaves.
    pub(super) fn all_removed(
        &self,
        transaction: &Transaction<'_>,
        identity: Fingerprint,
    ) -> Result<(), RegistryError> {
        let changed = transaction.execute(
            "UPDATE slots SET state = 'removed', updated_at = ?1 WHERE identity = ?2 AND state <> 'failed'",
            values![now()?, identity.to_string()],
        );
        self.done(changed)?;
        self.given_up(transaction, identity)
    }
}
