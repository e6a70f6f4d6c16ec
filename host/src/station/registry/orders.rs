//! Orders that were made, and what became of them.

use keyferry_protocol::identity::{DeviceId, Digest, Fingerprint};
use keyferry_protocol::order::{self, Body, Freshness, Header, Kind, MAX_RECOVERED_COUNTER};
use keyferry_protocol::receipt::Outcome;

use super::{DeviceRecord, Registry, RegistryError, names, now};
use crate::device::verify::digest;
use crate::station::database::{Fault, Row, Transaction, named, values};

/// What has become of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderState {
    /// It was made.
    Prepared,
    /// It was taken to the device; no receipt has come back.
    Delivered,
    /// A signed receipt or status says that it was applied.
    Applied,
    /// A signed receipt says that it was refused, or it was given up.
    Failed,
}

impl OrderState {
    const ALL: [Self; 4] = [Self::Prepared, Self::Delivered, Self::Applied, Self::Failed];

    /// The name used in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Delivered => "delivered",
            Self::Applied => "applied",
            Self::Failed => "failed",
        }
    }
}

/// An order in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderRecord {
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// The device it is for.
    pub device: DeviceId,
    /// The identity key it is for.
    pub identity: Fingerprint,
    /// What it asks for.
    pub kind: Kind,
    /// The device's counter once it is applied.
    pub counter: u32,
    /// Whether it was made without the device.
    pub detached: bool,
    /// What has become of it.
    pub state: OrderState,
    /// When it was made, RFC 3339.
    pub made_at: String,
    /// When its state was last changed, RFC 3339.
    pub updated_at: String,
}

impl OrderRecord {
    fn read(row: &Row) -> Result<Self, Fault> {
        Ok(Self {
            digest: names::digest(row, "digest")?,
            device: names::device(row, "device")?,
            identity: names::fingerprint(row, "identity")?,
            kind: names::kind(row, "kind")?,
            counter: row.get("counter")?,
            detached: row.get("detached")?,
            state: names::named(row, "state", &OrderState::ALL, OrderState::name)?,
            made_at: row.get("made_at")?,
            updated_at: row.get("updated_at")?,
        })
    }
}

impl Registry {
    /// Writes an order down, before it leaves: `bytes` are those that were signed. The keys of an `Inject` are pending from now on. One
    /// that is there already stays as it is. An `Enroll` is not kept here: what it brings is a statement, and a policy comes first. Of a `Wipe` of a
    /// quarantined device, released or not, the counter is kept, above which the next one must be; no answer that can be believed comes to it, so it counts as
    /// delivered, until the device is let go of. There is nothing to keep it with where the device is unknown.
    ///
    /// # Errors
    /// [`RegistryError::UnknownDevice`], [`RegistryError::Released`]; [`RegistryError::NotItsOrder`] if the bytes are no order, or for
    /// other keys than were pinned; [`RegistryError::CounterTaken`], [`RegistryError::SlotHeld`]; and those of the database.
    pub fn order_made(&self, bytes: &[u8]) -> Result<Digest, RegistryError> {
        let (header, body) = order::decode(bytes).map_err(|_| RegistryError::NotItsOrder {
            reason: "it does not decode",
        })?;
        let order = digest(bytes);
        if header.kind == Kind::Enroll {
            return Ok(order);
        }
        let recovers = matches!(body, Body::Recover(_));
        self.change(|transaction| {
            if self.order(&order)?.is_some() {
                return Ok(order);
            }
            let record = if recovers {
                match self.found(transaction, header.device)? {
                    Some(record) => record,
                    None => return Ok(order),
                }
            } else {
                self.addressed(&header)?
            };
            let state = if recovers {
                OrderState::Delivered
            } else {
                OrderState::Prepared
            };
            let detached = match header.freshness {
                Freshness::Challenge(_) => false,
                Freshness::Detached { .. } => true,
            };
            if detached {
                self.check_counter(transaction, &record, header.counter)?;
            }
            let inserted = transaction.execute_named(
                "INSERT INTO orders (digest, device, identity, kind, counter, detached, slots, state, made_at, updated_at)
                 VALUES (:digest, :device, :identity, :kind, :counter, :detached, :slots, :state, :now, :now)",
                named! {
                    ":digest": order.to_string(),
                    ":device": record.device.to_string(),
                    ":identity": record.identity.to_string(),
                    ":kind": header.kind.name(),
                    ":counter": header.counter,
                    ":detached": detached,
                    ":slots": removed_slots(&body),
                    ":state": state.name(),
                    ":now": now()?,
                },
            );
            self.done(inserted)?;
            if let Body::Inject(inject) = &body {
                for entry in &inject.entries {
                    self.slot_ordered(transaction, &record, entry, &order)?;
                }
            }
            Ok(order)
        })
    }

    /// The device an order is for, with the keys it is for.
    fn addressed(&self, header: &Header) -> Result<DeviceRecord, RegistryError> {
        let device = header.device;
        let record = self
            .find(device)?
            .ok_or(RegistryError::UnknownDevice { device })?;
        if record.released.is_some() {
            return Err(RegistryError::Released { device });
        }
        if header.identity != record.identity || header.unwrap != record.unwrap {
            return Err(RegistryError::NotItsOrder {
                reason: "it is for other keys than the device was enrolled with",
            });
        }
        Ok(record)
    }

    /// The database would refuse it as well, in words of its own.
    fn check_counter(
        &self,
        transaction: &Transaction<'_>,
        record: &DeviceRecord,
        counter: u32,
    ) -> Result<(), RegistryError> {
        let taken = self.first(
            transaction,
            "SELECT digest FROM orders
             WHERE identity = ?1 AND counter = ?2 AND detached = 1 AND state <> 'failed'",
            values![record.identity.to_string(), counter],
            |_| Ok(()),
        )?;
        if taken.is_none() {
            return Ok(());
        }
        Err(RegistryError::CounterTaken {
            device: record.device,
            counter,
        })
    }

    /// The counter that the next order prepared for a device must have: one above its own, and above those of the orders that are on
    /// their way to it. How far it may be above the device's own is for the protocol to say
    /// ([`keyferry_protocol::order::MAX_COUNTER_STEP`]).
    ///
    /// # Errors
    /// [`RegistryError::UnknownDevice`], [`RegistryError::Released`], [`RegistryError::CounterSpent`], and those of the database.
    pub fn next_counter(&self, device: DeviceId) -> Result<u32, RegistryError> {
        let record = self
            .find(device)?
            .ok_or(RegistryError::UnknownDevice { device })?;
        if record.released.is_some() {
            return Err(RegistryError::Released { device });
        }
        let highest = self.first(
            &self.database,
            "SELECT max(counter) FROM orders WHERE identity = ?1 AND detached = 1 AND state <> 'failed'",
            values![record.identity.to_string()],
            Row::only::<Option<u32>>,
        )?;
        let highest = highest.flatten().unwrap_or(0).max(record.counter);
        highest
            .checked_add(1)
            .ok_or(RegistryError::CounterSpent { device })
    }

    /// The counter that a `Wipe` of a quarantined device must have: one above its own, and above those of all orders that were ever made for
    /// it, whatever became of them, other such wipes among them. Of a device that was let go of, orders that were on their way have failed,
    /// and may arrive all the same.
    ///
    /// # Errors
    /// [`RegistryError::CounterSpent`] if it would be above [`MAX_RECOVERED_COUNTER`], and those of the database.
    pub fn recovery_counter(&self, record: &DeviceRecord) -> Result<u32, RegistryError> {
        let highest = self.first(
            &self.database,
            "SELECT max(counter) FROM orders WHERE device = ?1",
            values![record.device.to_string()],
            Row::only::<Option<u32>>,
        )?;
        let highest = highest.flatten().unwrap_or(0).max(record.counter);
        highest
            .checked_add(1)
            .filter(|next| *next <= MAX_RECOVERED_COUNTER)
            .ok_or(RegistryError::CounterSpent {
                device: record.device,
            })
    }

    /// Notes that an order was taken to its device.
    ///
    /// # Errors
    /// [`RegistryError::UnknownOrder`], and those of the database.
    pub fn order_delivered(&self, order: &Digest) -> Result<(), RegistryError> {
        self.change(|transaction| {
            self.known_order(order)?;
            let changed = transaction.execute(
                "UPDATE orders SET state = 'delivered', updated_at = ?1
                 WHERE digest = ?2 AND state = 'prepared'",
                values![now()?, order.to_string()],
            );
            self.done(changed).map(|_| ())
        })
    }

    /// Gives an order up that no receipt will come back for. One that was applied stays applied.
    ///
    /// # Errors
    /// [`RegistryError::UnknownOrder`], and those of the database.
    pub fn order_given_up(&self, order: &Digest) -> Result<(), RegistryError> {
        self.change(|transaction| {
            self.known_order(order)?;
            self.order_failed(transaction, order)
        })
    }

    fn known_order(&self, order: &Digest) -> Result<OrderRecord, RegistryError> {
        self.order(order)?
            .ok_or(RegistryError::UnknownOrder { order: *order })
    }

    /// An order, if it is there.
    ///
    /// # Errors
    /// Those of the database.
    pub fn order(&self, order: &Digest) -> Result<Option<OrderRecord>, RegistryError> {
        self.first(
            &self.database,
            "SELECT * FROM orders WHERE digest = ?1",
            values![order.to_string()],
            OrderRecord::read,
        )
    }

    /// The orders made for a device with its present keys, the oldest first.
    ///
    /// # Errors
    /// Those of the database.
    pub fn orders(&self, device: DeviceId) -> Result<Vec<OrderRecord>, RegistryError> {
        self.all(
            "SELECT orders.* FROM orders JOIN devices USING (device, identity)
             WHERE device = ?1 ORDER BY orders.counter, orders.made_at",
            values![device.to_string()],
            OrderRecord::read,
        )
    }

    /// What a verified receipt or status says of an order. One that was applied stays applied, whatever comes later.
    pub(super) fn answered(
        &self,
        transaction: &Transaction<'_>,
        record: &DeviceRecord,
        order: &Digest,
        outcome: Option<Outcome>,
    ) -> Result<(), RegistryError> {
        match outcome {
            None => Ok(()),
            Some(Outcome::Refused(_)) => self.order_failed(transaction, order),
            Some(Outcome::Applied) => {
                let changed = transaction.execute(
                    "UPDATE orders SET state = 'applied', updated_at = ?1
                     WHERE digest = ?2 AND identity = ?3",
                    values![now()?, order.to_string(), record.identity.to_string()],
                );
                self.done(changed)?;
                let slots = self.first(
                    transaction,
                    "SELECT slots FROM orders WHERE digest = ?1 AND kind = 'remove'",
                    values![order.to_string()],
                    |row| row.get::<String>("slots"),
                )?;
                for slot in slots.unwrap_or_default().split_terminator(',') {
                    let slot = slot.parse().map_err(|_| Row::wrong("slots"));
                    self.slot_removed(transaction, record.identity, self.done(slot)?)?;
                }
                Ok(())
            }
        }
    }

    fn order_failed(
        &self,
        transaction: &Transaction<'_>,
        order: &Digest,
    ) -> Result<(), RegistryError> {
        let now = now()?;
        let changed = transaction.execute(
            "UPDATE orders SET state = 'failed', updated_at = ?1 WHERE digest = ?2 AND state <> 'applied'",
            values![now, order.to_string()],
        );
        if self.done(changed)? == 0 {
            return Ok(());
        }
        let changed = transaction.execute(
            "UPDATE slots SET state = 'failed', updated_at = ?1 WHERE order_digest = ?2 AND state = 'pending'",
            values![now, order.to_string()],
        );
        self.done(changed).map(|_| ())
    }

    /// All orders on their way to these keys have failed.
    pub(super) fn given_up(
        &self,
        transaction: &Transaction<'_>,
        identity: Fingerprint,
    ) -> Result<(), RegistryError> {
        let now = now()?;
        for sql in [
            "UPDATE orders SET state = 'failed', updated_at = ?1
             WHERE identity = ?2 AND state IN ('prepared', 'delivered')",
            "UPDATE slots SET state = 'failed', updated_at = ?1 WHERE identity = ?2 AND state = 'pending'",
        ] {
            let changed = transaction.execute(sql, values![now, identity.to_string()]);
            self.done(changed)?;
        }
        Ok(())
    }
}

/// The slots that a `Remove` empties, for when its receipt comes, which does not name them.
fn removed_slots(body: &Body<'_>) -> String {
    match body {
        Body::Remove(remove) => {
            let slots: Vec<_> = remove.slots.iter().map(ToString::to_string).collect();
            slots.join(",")
        }
        Body::Enroll(_)
        | Body::Inject(_)
        | Body::Prove(_)
        | Body::Rotate(_)
        | Body::Lock
        | Body::Wipe
        | Body::Recover(_) => String::new(),
    }
}
