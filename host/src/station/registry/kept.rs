//! Random keys of single devices whose proofs have not come yet: what the token needs to have them again, which is nothing to anybody
//! else. A row goes when the proof is in.

use keyferry_protocol::identity::Digest;

use super::{Registry, RegistryError, now};
use crate::station::KeyCard;
use crate::station::database::{Database, Row, named, values};

impl Registry {
    /// Keeps a random key of an order, before the order leaves. `card` holds it wrapped under a key of the token.
    ///
    /// # Errors
    /// [`RegistryError::UnknownOrder`], [`RegistryError::NotKept`], and those of the database.
    pub fn keep_key(&self, order: &Digest, slot: u16, card: &KeyCard) -> Result<(), RegistryError> {
        let not_kept = |reason| RegistryError::NotKept {
            order: *order,
            slot,
            reason,
        };
        let card = serde_json::to_string(card).map_err(|_| not_kept("it cannot be written"))?;
        self.change(|transaction| {
            if self.order(order)?.is_none() {
                return Err(RegistryError::UnknownOrder { order: *order });
            }
            let inserted = transaction.execute_named(
                "INSERT INTO kept_keys (order_digest, slot, card, kept_at) VALUES (:order, :slot, :card, :now)
                 ON CONFLICT (order_digest, slot) DO NOTHING",
                named! {
                    ":order": order.to_string(),
                    ":slot": slot,
                    ":card": card,
                    ":now": now()?,
                },
            );
            if self.done(inserted)? > 0 || self.kept_text(transaction, order, slot)? == Some(card.clone()) {
                return Ok(());
            }
            Err(not_kept("another key is kept for it"))
        })
    }

    /// A random key of an order, if it is still kept.
    ///
    /// # Errors
    /// [`RegistryError::NotKept`] if what is there is no key; those of the database.
    pub fn kept_key(&self, order: &Digest, slot: u16) -> Result<Option<KeyCard>, RegistryError> {
        let card = self.kept_text(&self.database, order, slot)?;
        card.map(|card| {
            serde_json::from_str(&card).map_err(|_| RegistryError::NotKept {
                order: *order,
                slot,
                reason: "what the registry holds is no key",
            })
        })
        .transpose()
    }

    fn kept_text(
        &self,
        database: &Database,
        order: &Digest,
        slot: u16,
    ) -> Result<Option<String>, RegistryError> {
        self.first(
            database,
            "SELECT card FROM kept_keys WHERE order_digest = ?1 AND slot = ?2",
            values![order.to_string(), slot],
            |row| row.get("card"),
        )
    }

    /// How many random keys are kept.
    ///
    /// # Errors
    /// Those of the database.
    pub fn kept_keys(&self) -> Result<u64, RegistryError> {
        let count = self.first(
            &self.database,
            "SELECT count(*) FROM kept_keys",
            values![],
            Row::only::<u64>,
        )?;
        Ok(count.unwrap_or_default())
    }

    /// Lets go of a random key, once its proof was verified.
    ///
    /// # Errors
    /// Those of the database.
    pub fn release_key(&self, order: &Digest, slot: u16) -> Result<(), RegistryError> {
        self.change(|transaction| {
            let removed = transaction.execute(
                "DELETE FROM kept_keys WHERE order_digest = ?1 AND slot = ?2",
                values![order.to_string(), slot],
            );
            self.done(removed).map(|_| ())
        })
    }

    /// Lets go of all random keys of an order that was given up.
    ///
    /// # Errors
    /// Those of the database.
    pub fn release_keys(&self, order: &Digest) -> Result<(), RegistryError> {
        self.change(|transaction| {
            let removed = transaction.execute(
                "DELETE FROM kept_keys WHERE order_digest = ?1",
                values![order.to_string()],
            );
            self.done(removed).map(|_| ())
        })
    }
}
