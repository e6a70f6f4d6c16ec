//! What changes a device's record: its enrolment, its signed receipts, its release.

use keyferry_protocol::identity::{DeviceId, Digest, Fingerprint};
use keyferry_protocol::order::Kind;
use keyferry_protocol::receipt::{self, Outcome};

use super::signed::Signed;
use super::{DeviceRecord, Registry, RegistryError, names, now};
use crate::certificate::{Document, MAXIMUM_DEVICE_CERTIFICATE};
use crate::device::verify::{SignedReceipt, Statement, fingerprint};
use crate::station::database::{Database, Transaction, named, values};
use crate::station::policy::Trust;

/// A device that was enrolled, to be written down before anything is wrapped for it.
#[derive(Clone, Copy, Debug)]
pub struct Enrolled<'a> {
    /// Its statement.
    pub statement: &'a Statement,
    /// Why it was trusted.
    pub trust: &'a Trust,
    /// The serial number on its label, if it has one.
    pub serial: Option<&'a str>,
}

/// How a device was written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It is new.
    New,
    /// It was there with the same keys: its newest statement was kept, and why it was trusted the first time.
    Again,
    /// It had been released.
    AfterRelease,
}

/// What a receipt has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The order that it answers.
    pub order: Digest,
    /// What became of it; `None` if that is not said, or not looked at.
    pub outcome: Option<Outcome>,
    /// Whether it tells where the device stands now: no receipt with a higher counter is known.
    pub newest: bool,
}

impl Registry {
    /// Writes a device down that a policy has accepted for enrolment, or its newest statement if it is there with the same keys.
    ///
    /// # Errors
    /// [`RegistryError::OtherKeys`], [`RegistryError::KeyTaken`], [`RegistryError::SerialTaken`], [`RegistryError::OtherSerial`] if it was not released,
    /// [`RegistryError::Older`], and those of the database.
    pub fn enrolled(&self, enrolled: &Enrolled<'_>) -> Result<Recorded, RegistryError> {
        let statement = enrolled.statement;
        let device = statement.device;
        let identity = fingerprint(&statement.identity_key);
        self.change(|transaction| {
            self.check_holders(transaction, enrolled, identity)?;
            if let Some(serial) = enrolled.serial {
                self.check_label_in(transaction, device, serial)?;
            }
            let Some(record) = self.found(transaction, device)? else {
                self.insert(transaction, enrolled)?;
                return Ok(Recorded::New);
            };
            let same =
                record.identity == identity && record.unwrap == fingerprint(&statement.unwrap_key);
            if record.released.is_some() {
                if !same {
                    self.retire(transaction, device)?;
                }
                self.replace(transaction, enrolled)?;
                self.doubt(transaction, identity)?;
                return Ok(Recorded::AfterRelease);
            }
            if !same {
                return Err(RegistryError::OtherKeys {
                    device,
                    expected: record.identity,
                    found: identity,
                });
            }
            if statement.standing.counter < record.counter {
                return Err(RegistryError::Older {
                    device,
                    known: record.counter,
                    found: statement.standing.counter,
                });
            }
            self.restate(transaction, statement, enrolled.serial)?;
            self.doubt_after_gap(transaction, &record, statement.standing.counter)?;
            Ok(Recorded::Again)
        })
    }

    /// Each order takes the counter one further: where one is missing, the device has done an order that this registry does not know.
    fn doubt_after_gap(
        &self,
        transaction: &Transaction<'_>,
        record: &DeviceRecord,
        counter: u32,
    ) -> Result<(), RegistryError> {
        if counter > record.counter.saturating_add(1) {
            return self.doubt(transaction, record.identity);
        }
        Ok(())
    }

    /// Keys that are another's.
    fn check_holders(
        &self,
        transaction: &Transaction<'_>,
        enrolled: &Enrolled<'_>,
        identity: Fingerprint,
    ) -> Result<(), RegistryError> {
        let device = enrolled.statement.device;
        let unwrap = fingerprint(&enrolled.statement.unwrap_key);
        let holder = transaction.rows_named(
            "SELECT device FROM devices
             WHERE (identity = :identity OR unwrap = :unwrap) AND device <> :device
             UNION ALL SELECT device FROM former_keys
             WHERE identity = :identity OR unwrap = :unwrap",
            named! {
                ":identity": identity.to_string(),
                ":unwrap": unwrap.to_string(),
                ":device": device.to_string(),
            },
        );
        if let Some(row) = self.done(holder)?.first() {
            let holder = self.done(names::device(row, "device"))?;
            return Err(RegistryError::KeyTaken { device, holder });
        }
        Ok(())
    }

    /// Whether the device may have this serial number on its label: no other device has it, and the device, unless it was released, no other one.
    ///
    /// # Errors
    /// [`RegistryError::SerialTaken`], [`RegistryError::OtherSerial`], and those of the database.
    pub fn check_label(&self, device: DeviceId, serial: &str) -> Result<(), RegistryError> {
        self.check_label_in(&self.database, device, serial)
    }

    fn check_label_in(
        &self,
        database: &Database,
        device: DeviceId,
        serial: &str,
    ) -> Result<(), RegistryError> {
        let holder = self.first(
            database,
            "SELECT device FROM devices WHERE serial = ?1 AND device <> ?2",
            values![serial, device.to_string()],
            |row| names::device(row, "device"),
        )?;
        if let Some(holder) = holder {
            return Err(RegistryError::SerialTaken {
                device,
                serial: serial.to_owned(),
                holder,
            });
        }
        let record = self.found(database, device)?;
        match record.filter(|record| record.released.is_none()) {
            Some(DeviceRecord {
                serial: Some(known),
                ..
            }) if known != serial => Err(RegistryError::OtherSerial {
                device,
                known,
                given: serial.to_owned(),
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// Moves a device forward by a receipt or a status that it has signed: nothing else moves one. An older receipt than the newest
    /// known changes only what is known of its order. The receipt of an `Enroll` moves nothing: a policy looks at the statement in it
    /// before [`Registry::enrolled`] does. Nor does that of a device which began anew: the key that signed it is nobody's.
    ///
    /// # Errors
    /// [`RegistryError::UnknownDevice`], [`RegistryError::Released`], [`RegistryError::NotItsReceipt`], and those of the database.
    pub fn moved(&self, device: DeviceId, signed: &SignedReceipt) -> Result<Moved, RegistryError> {
        if let Ok((header, body)) = receipt::decode(&signed.bytes)
            && (header.kind == Kind::Enroll || matches!(body, receipt::Body::Recovered(_)))
        {
            return Ok(Moved {
                order: header.order,
                outcome: None,
                newest: false,
            });
        }
        self.change(|transaction| {
            let record = self
                .found(transaction, device)?
                .ok_or(RegistryError::UnknownDevice { device })?;
            if record.released.is_some() {
                return Err(RegistryError::Released { device });
            }
            let said = Signed::read(signed, device, &record.identity_key)?;
            let newest = said.counter >= record.counter;
            if newest {
                let changed = transaction.execute_named(
                    "UPDATE devices SET state = :state, counter = :counter, latest = :latest,
                     latest_signature = :signature, updated_at = :now WHERE device = :device",
                    named! {
                        ":state": said.state.name(),
                        ":counter": said.counter,
                        ":latest": signed.bytes,
                        ":signature": signed.signature.to_bytes(),
                        ":now": now()?,
                        ":device": device.to_string(),
                    },
                );
                self.done(changed)?;
                self.doubt_after_gap(transaction, &record, said.counter)?;
            }
            let applied = said.outcome == Some(Outcome::Applied);
            self.answered(transaction, &record, &said.order, said.outcome)?;
            if applied && said.kind == Some(Kind::Wipe) {
                self.all_removed(transaction, record.identity)?;
            }
            Ok(Moved {
                order: said.order,
                outcome: said.outcome,
                newest,
            })
        })
    }

    /// Keeps the certificate that was issued for a device's identity key, X.509 in DER. It is the caller's to have checked who signed it.
    ///
    /// # Errors
    /// [`RegistryError::UnknownDevice`], [`RegistryError::Inconsistent`] if it is not of the key that the device has now, and those of the database.
    pub fn certified(&self, device: DeviceId, certificate: &[u8]) -> Result<(), RegistryError> {
        let key = Document::read(certificate, MAXIMUM_DEVICE_CERTIFICATE)
            .and_then(|document| document.key())
            .map(|key| key.fingerprint());
        self.change(|transaction| {
            let record = self
                .found(transaction, device)?
                .ok_or(RegistryError::UnknownDevice { device })?;
            if !key.as_ref().is_ok_and(|key| *key == record.identity) {
                return Err(RegistryError::Inconsistent {
                    device,
                    reason: "the certificate is not of the identity key that it has now",
                });
            }
            let changed = transaction.execute(
                "UPDATE devices SET certificate = ?1, updated_at = ?2 WHERE device = ?3",
                values![certificate, now()?, device.to_string()],
            );
            self.done(changed).map(|_| ())
        })
    }

    /// Lets go of a device, for example after it was wiped: its old keys count no more, and it may be enrolled with new ones. Orders
    /// on their way to it have failed.
    ///
    /// # Errors
    /// [`RegistryError::UnknownDevice`], [`RegistryError::Released`], [`RegistryError::OtherKeys`] if it was enrolled anew with another identity key
    /// than this, and those of the database.
    pub fn release(
        &self,
        device: DeviceId,
        identity: Fingerprint,
        reason: &str,
    ) -> Result<(), RegistryError> {
        self.change(|transaction| {
            let record = self.found_as(transaction, device, identity)?;
            if record.released.is_some() {
                return Err(RegistryError::Released { device });
            }
            let now = now()?;
            let changed = transaction.execute(
                "UPDATE devices SET released_at = ?1, release_reason = ?2, updated_at = ?1
                 WHERE device = ?3",
                values![now, reason, device.to_string()],
            );
            self.done(changed)?;
            self.given_up(transaction, record.identity)
        })
    }

    fn insert(
        &self,
        transaction: &Transaction<'_>,
        enrolled: &Enrolled<'_>,
    ) -> Result<(), RegistryError> {
        self.write(
            transaction,
            "INSERT INTO devices (device, identity, identity_key, unwrap, unwrap_key, suites, board, firmware, flavour, rng, root_key,
                authority, epoch, state, counter, serial, statement, statement_signature, latest, latest_signature,
                policy, reason, enrolled_at, updated_at)
             VALUES (:device, :identity, :identity_key, :unwrap, :unwrap_key, :suites, :board, :firmware, :flavour, :rng, :root_key,
                :authority, :epoch, :state, :counter, :serial, :statement, :signature, :statement, :signature,
                :policy, :reason, :now, :now)",
            enrolled,
        )
    }

    /// The record of a released device, written anew.
    fn replace(
        &self,
        transaction: &Transaction<'_>,
        enrolled: &Enrolled<'_>,
    ) -> Result<(), RegistryError> {
        self.write(
            transaction,
            "UPDATE devices SET identity = :identity, identity_key = :identity_key, unwrap = :unwrap, unwrap_key = :unwrap_key,
                suites = :suites, board = :board, firmware = :firmware, flavour = :flavour, rng = :rng, root_key = :root_key,
                authority = :authority, epoch = :epoch, state = :state, counter = :counter, serial = coalesce(:serial, serial),
                statement = :statement, statement_signature = :signature, latest = :statement, latest_signature = :signature,
                certificate = CASE WHEN identity = :identity THEN certificate END,
                policy = :policy, reason = :reason, enrolled_at = :now, updated_at = :now,
                released_at = NULL, release_reason = NULL
             WHERE device = :device",
            enrolled,
        )
    }

    fn write(
        &self,
        transaction: &Transaction<'_>,
        sql: &str,
        enrolled: &Enrolled<'_>,
    ) -> Result<(), RegistryError> {
        let &Enrolled {
            statement,
            trust,
            serial,
        } = enrolled;
        let changed = transaction.execute_named(
            sql,
            named! {
                ":device": statement.device.to_string(),
                ":identity": fingerprint(&statement.identity_key).to_string(),
                ":identity_key": statement.identity_key,
                ":unwrap": fingerprint(&statement.unwrap_key).to_string(),
                ":unwrap_key": statement.unwrap_key,
                ":suites": suites(statement),
                ":board": statement.board,
                ":firmware": statement.firmware,
                ":flavour": statement.flavour.name(),
                ":rng": statement.rng.name(),
                ":root_key": statement.root_key.name(),
                ":authority": statement.authority.to_string(),
                ":epoch": statement.epoch,
                ":state": statement.standing.state.name(),
                ":counter": statement.standing.counter,
                ":serial": serial,
                ":statement": statement.receipt.bytes,
                ":signature": statement.receipt.signature.to_bytes(),
                ":policy": trust.policy,
                ":reason": trust.reason,
                ":now": now()?,
            },
        );
        self.done(changed).map(|_| ())
    }

    /// The newest statement of a device with the same keys.
    fn restate(
        &self,
        transaction: &Transaction<'_>,
        statement: &Statement,
        serial: Option<&str>,
    ) -> Result<(), RegistryError> {
        let changed = transaction.execute_named(
            "UPDATE devices SET suites = :suites, board = :board, firmware = :firmware, flavour = :flavour, rng = :rng,
                root_key = :root_key, authority = :authority, epoch = :epoch, state = :state, counter = :counter,
                serial = coalesce(:serial, serial), statement = :statement, statement_signature = :signature,
                latest = :statement, latest_signature = :signature, updated_at = :now
             WHERE device = :device",
            named! {
                ":device": statement.device.to_string(),
                ":suites": suites(statement),
                ":board": statement.board,
                ":firmware": statement.firmware,
                ":flavour": statement.flavour.name(),
                ":rng": statement.rng.name(),
                ":root_key": statement.root_key.name(),
                ":authority": statement.authority.to_string(),
                ":epoch": statement.epoch,
                ":state": statement.standing.state.name(),
                ":counter": statement.standing.counter,
                ":serial": serial,
                ":statement": statement.receipt.bytes,
                ":signature": statement.receipt.signature.to_bytes(),
                ":now": now()?,
            },
        );
        self.done(changed).map(|_| ())
    }

    /// Puts the keys of a released device aside.
    fn retire(&self, transaction: &Transaction<'_>, device: DeviceId) -> Result<(), RegistryError> {
        let changed = transaction.execute(
            "INSERT INTO former_keys (identity, device, unwrap, identity_key, statement, statement_signature, policy, reason,
                enrolled_at, released_at, release_reason)
             SELECT identity, device, unwrap, identity_key, statement, statement_signature, policy, reason,
                enrolled_at, released_at, release_reason FROM devices WHERE device = ?1",
            values![device.to_string()],
        );
        self.done(changed).map(|_| ())
    }
}

fn suites(statement: &Statement) -> String {
    let names: Vec<_> = statement.suites.iter().map(|suite| suite.name()).collect();
    names.join(",")
}
