//! A device's record, and how records are found. Reading only.

use keyferry_protocol::identity::{DeviceId, Digest, Fingerprint};
use keyferry_protocol::receipt::State;

use super::signed::Signed;
use super::{Registry, RegistryError, names};
use crate::device::verify::{SignedReceipt, Statement, fingerprint, stated};
use crate::station::database::{Database, Fault, Row, named, values};

/// Most devices that [`Registry::devices`] gives at once.
pub const PAGE: usize = 200;

/// A release: when and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// When, RFC 3339.
    pub at: String,
    /// Why, as a person gave it.
    pub reason: String,
}

/// A device in the registry. The fields are for lists and searches; what keys are wrapped by is [`DeviceRecord::statement`].
#[derive(Clone, Debug)]
pub struct DeviceRecord {
    /// Its id.
    pub device: DeviceId,
    /// The pinned identity key.
    pub identity: Fingerprint,
    /// The pinned unwrap key.
    pub unwrap: Fingerprint,
    /// Names of the suites it offers, strongest first.
    pub suites: String,
    /// The board's name.
    pub board: String,
    /// The firmware's version at its newest statement.
    pub firmware: String,
    /// How that was built.
    pub flavour: String,
    /// Where its randomness comes from.
    pub rng: String,
    /// Where its root key comes from.
    pub root_key: String,
    /// The authority it obeys.
    pub authority: Fingerprint,
    /// How often that was handed over.
    pub epoch: u32,
    /// Its state by its newest receipt.
    pub state: State,
    /// Its counter by its newest receipt.
    pub counter: u32,
    /// The serial number on its label.
    pub serial: Option<String>,
    /// The certificate of its identity key, X.509 in DER.
    pub certificate: Option<Vec<u8>>,
    /// By which policy it was enrolled.
    pub policy: String,
    /// Why that was satisfied.
    pub reason: String,
    /// When it was enrolled, RFC 3339.
    pub enrolled_at: String,
    /// When it was last changed here, RFC 3339.
    pub updated_at: String,
    /// When and why it was released, if it was.
    pub released: Option<Release>,
    pub(super) identity_key: Vec<u8>,
    statement: SignedReceipt,
    latest: SignedReceipt,
}

impl DeviceRecord {
    fn read(row: &Row) -> Result<Self, Fault> {
        let released_at: Option<String> = row.get("released_at")?;
        let release_reason: Option<String> = row.get("release_reason")?;
        let signed = |bytes, signature| {
            Ok::<_, Fault>(SignedReceipt {
                bytes: row.get(bytes)?,
                signature: names::signature(row, signature)?,
            })
        };
        Ok(Self {
            device: names::device(row, "device")?,
            identity: names::fingerprint(row, "identity")?,
            unwrap: names::fingerprint(row, "unwrap")?,
            suites: row.get("suites")?,
            board: row.get("board")?,
            firmware: row.get("firmware")?,
            flavour: row.get("flavour")?,
            rng: row.get("rng")?,
            root_key: row.get("root_key")?,
            authority: names::fingerprint(row, "authority")?,
            epoch: row.get("epoch")?,
            state: names::state(row, "state")?,
            counter: row.get("counter")?,
            serial: row.get("serial")?,
            certificate: row.get("certificate")?,
            policy: row.get("policy")?,
            reason: row.get("reason")?,
            enrolled_at: row.get("enrolled_at")?,
            updated_at: row.get("updated_at")?,
            released: released_at
                .zip(release_reason)
                .map(|(at, reason)| Release { at, reason }),
            identity_key: row.get("identity_key")?,
            statement: signed("statement", "statement_signature")?,
            latest: signed("latest", "latest_signature")?,
        })
    }

    /// The order that its newest receipt or status is about.
    ///
    /// # Errors
    /// [`RegistryError::NotItsReceipt`] if it does not verify.
    pub fn latest_order(&self) -> Result<Digest, RegistryError> {
        Signed::read(&self.latest, self.device, &self.identity_key).map(|latest| latest.order)
    }

    /// The device as its own signed statement describes it, verified again, with the standing of its newest receipt: enough to wrap
    /// keys for it and to make a detached order. The challenge in it has been used.
    ///
    /// # Errors
    /// [`RegistryError::Released`]; [`RegistryError::Inconsistent`] if a signature is wrong, or what is signed is not what was pinned.
    pub fn statement(&self) -> Result<Statement, RegistryError> {
        let device = self.device;
        if self.released.is_some() {
            return Err(RegistryError::Released { device });
        }
        let inconsistent = |reason| RegistryError::Inconsistent { device, reason };
        let mut statement = stated(&self.statement, device)
            .map_err(|_| inconsistent("its statement does not verify"))?;
        if fingerprint(&statement.identity_key) != self.identity
            || fingerprint(&statement.unwrap_key) != self.unwrap
        {
            return Err(inconsistent(
                "its statement names other keys than were pinned",
            ));
        }
        let latest = Signed::read(&self.latest, device, &statement.identity_key)
            .map_err(|_| inconsistent("its newest receipt does not verify"))?;
        if latest.counter < statement.standing.counter {
            return Err(inconsistent(
                "its newest receipt is older than its statement",
            ));
        }
        statement.standing = latest.standing(statement.standing);
        Ok(statement)
    }
}

/// Which devices are wanted. The default is all that are not released.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// In this state.
    pub state: Option<State>,
    /// With this board's name.
    pub board: Option<String>,
    /// Released ones as well.
    pub released: bool,
}

impl Registry {
    /// A device, if it is there.
    ///
    /// # Errors
    /// Those of the database.
    pub fn find(&self, device: DeviceId) -> Result<Option<DeviceRecord>, RegistryError> {
        self.found(&self.database, device)
    }

    /// The device that has this serial number on its label, released ones included.
    ///
    /// # Errors
    /// Those of the database.
    pub fn holder_of_serial(&self, serial: &str) -> Result<Option<DeviceId>, RegistryError> {
        self.first(
            &self.database,
            "SELECT device FROM devices WHERE serial = ?1",
            values![serial],
            |row| names::device(row, "device"),
        )
    }

    pub(super) fn found(
        &self,
        database: &Database,
        device: DeviceId,
    ) -> Result<Option<DeviceRecord>, RegistryError> {
        self.first(
            database,
            "SELECT * FROM devices WHERE device = ?1",
            values![device.to_string()],
            DeviceRecord::read,
        )
    }

    /// The device, if it has this identity key now.
    pub(super) fn found_as(
        &self,
        database: &Database,
        device: DeviceId,
        identity: Fingerprint,
    ) -> Result<DeviceRecord, RegistryError> {
        let record = self
            .found(database, device)?
            .ok_or(RegistryError::UnknownDevice { device })?;
        if record.identity != identity {
            return Err(RegistryError::OtherKeys {
                device,
                expected: record.identity,
                found: identity,
            });
        }
        Ok(record)
    }

    /// At most [`PAGE`] devices in the order of their ids, those behind `after`. The last page is not full.
    ///
    /// # Errors
    /// Those of the database.
    pub fn devices(
        &self,
        filter: &Filter,
        after: Option<DeviceId>,
    ) -> Result<Vec<DeviceRecord>, RegistryError> {
        let rows = self.database.rows_named(
            "SELECT * FROM devices
             WHERE device > :after
               AND (:state IS NULL OR state = :state)
               AND (:board IS NULL OR board = :board)
               AND (:released = 1 OR released_at IS NULL)
             ORDER BY device LIMIT :limit",
            named! {
                // Before every id.
                ":after": after.map_or_else(String::new, |after| after.to_string()),
                ":state": filter.state.map(State::name),
                ":board": filter.board,
                ":released": filter.released,
                ":limit": i64::try_from(PAGE).unwrap_or(i64::MAX),
            },
        );
        let rows = self.done(rows)?;
        self.done(rows.iter().map(DeviceRecord::read).collect())
    }
}
