//! One login for many threads. Each call takes a seat for as long as it lasts: a session with the token, and one for each key that
//! signs. There are as many seats as are taken at once, and no more than the token gives or [`MAXIMUM_SEATS`]; who comes later waits.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use keyferry_protocol::suite::Suite;

use super::hsm::{Backend, Exported, Hsm, KeyCard, LocalHsm, Recipient};
use super::job::JobError;
use crate::device::flow::Authority;
use crate::hsm::{
    Asked, DeviceContext, DeviceUse, HsmError, KeySpec, KeyType, Question, WrappedKeys,
};

/// Most seats. A token in software has no use for more than the machine has cores; one behind a network answers several at once.
pub const MAXIMUM_SEATS: usize = 16;

/// An HSM that threads share.
pub struct SharedHsm {
    name: String,
    certifies: bool,
    authority: Signer,
    auditor: Option<Signer>,
    seats: std::sync::Arc<Seats>,
}

impl SharedHsm {
    /// Shares a token. `hsm` itself is the one that further seats are made from.
    #[must_use]
    pub fn new(hsm: LocalHsm) -> Self {
        let (name, certifies) = (hsm.name(), Hsm::certifies(&hsm));
        let authority = hsm.authority().public_key().to_vec();
        let auditor = hsm.auditor().map(|auditor| auditor.public_key().to_vec());
        let seats = std::sync::Arc::new(Seats {
            room: Mutex::new(Room {
                template: hsm,
                free: Vec::new(),
                made: 0,
                most: MAXIMUM_SEATS,
            }),
            given_back: Condvar::new(),
        });
        let signer = |role, public| Signer {
            role,
            public,
            seats: std::sync::Arc::clone(&seats),
        };
        Self {
            name,
            certifies,
            authority: signer(Role::Orders, authority),
            auditor: auditor.map(|public| signer(Role::Checkpoints, public)),
            seats,
        }
    }

    /// As [`LocalHsm::diversified`].
    ///
    /// # Errors
    /// [`JobError`].
    pub fn diversified(
        &self,
        label: &str,
        key_type: KeyType,
        device_use: Option<DeviceUse>,
        master: &str,
        context: &DeviceContext,
    ) -> Result<KeyCard, JobError> {
        self.seats
            .with(|hsm| hsm.diversified(label, key_type, device_use, master, context))
    }

    /// As [`LocalHsm::export`].
    ///
    /// # Errors
    /// [`JobError`].
    pub fn export(
        &self,
        card: &KeyCard,
        context: &DeviceContext,
        backend: &Backend,
    ) -> Result<Exported, JobError> {
        self.seats.with(|hsm| hsm.export(card, context, backend))
    }

    /// How many seats were made so far.
    #[must_use]
    pub fn seats(&self) -> usize {
        self.seats.lock().made
    }
}

struct Room {
    template: LocalHsm,
    free: Vec<LocalHsm>,
    made: usize,
    most: usize,
}

struct Seats {
    room: Mutex<Room>,
    given_back: Condvar,
}

impl Seats {
    fn lock(&self) -> MutexGuard<'_, Room> {
        // Whoever panicked while he held it has put a whole seat in or taken one out.
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a seat, and waits for one if there are no more to be had.
    fn take(&self) -> Result<Seat<'_>, HsmError> {
        let mut room = self.lock();
        loop {
            if let Some(hsm) = room.free.pop() {
                return Ok(self.seat(hsm));
            }
            if room.made < room.most {
                match room.template.another() {
                    Ok(hsm) => {
                        room.made += 1;
                        return Ok(self.seat(hsm));
                    }
                    // The token has no further session: those that there are have to do.
                    Err(HsmError::NoSession { .. }) if room.made > 0 => room.most = room.made,
                    Err(error) => return Err(error),
                }
            }
            room = self
                .given_back
                .wait(room)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    const fn seat(&self, hsm: LocalHsm) -> Seat<'_> {
        Seat {
            hsm: Some(hsm),
            seats: self,
        }
    }

    fn with<T>(&self, work: impl FnOnce(&LocalHsm) -> Result<T, JobError>) -> Result<T, JobError> {
        let seat = self.take()?;
        match &seat.hsm {
            Some(hsm) => work(hsm),
            // Only a dropped seat has none.
            None => Err(HsmError::NoModule.into()),
        }
    }
}

/// A seat that somebody has; it goes back when it is dropped.
struct Seat<'a> {
    hsm: Option<LocalHsm>,
    seats: &'a Seats,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        if let Some(hsm) = self.hsm.take() {
            self.seats.lock().free.push(hsm);
            self.seats.given_back.notify_one();
        }
    }
}

/// What a key signs.
#[derive(Clone, Copy)]
enum Role {
    Orders,
    Checkpoints,
}

/// A key that signs, in whatever seat is free.
struct Signer {
    role: Role,
    public: Vec<u8>,
    seats: std::sync::Arc<Seats>,
}

impl Authority for Signer {
    fn public_key(&self) -> &[u8] {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], Box<dyn std::error::Error + Send + Sync>> {
        let seat = self.seats.take()?;
        let key = seat.hsm.as_ref().and_then(|hsm| match self.role {
            Role::Orders => Some(hsm.authority()),
            Role::Checkpoints => hsm.auditor(),
        });
        match key {
            Some(key) => key.sign(message),
            None => Err(HsmError::NoModule.into()),
        }
    }
}

impl Hsm for SharedHsm {
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
        self.seats.with(|hsm| hsm.key(spec, device_use))
    }

    fn fresh(
        &self,
        label: &str,
        key_type: KeyType,
        device_use: Option<DeviceUse>,
        keep_under: &str,
    ) -> Result<KeyCard, JobError> {
        self.seats
            .with(|hsm| hsm.fresh(label, key_type, device_use, keep_under))
    }

    fn suites(&self) -> Result<Vec<Suite>, JobError> {
        self.seats.with(Hsm::suites)
    }

    fn supports(&self, suite: Suite) -> Result<bool, JobError> {
        self.seats.with(|hsm| hsm.supports(suite))
    }

    fn wrap(
        &self,
        recipient: Recipient<'_>,
        suite: Suite,
        keys: &[&KeyCard],
    ) -> Result<WrappedKeys, JobError> {
        self.seats.with(|hsm| hsm.wrap(recipient, suite, keys))
    }

    fn enrolled(&self, recipient: Recipient<'_>) -> Result<(), JobError> {
        self.seats.with(|hsm| hsm.enrolled(recipient))
    }

    fn certifies(&self) -> bool {
        self.certifies
    }

    fn certify(
        &self,
        recipient: Recipient<'_>,
        serial: Option<&str>,
    ) -> Result<Option<Vec<u8>>, JobError> {
        self.seats.with(|hsm| hsm.certify(recipient, serial))
    }

    fn ask(&self, key: &KeyCard) -> Result<Question, JobError> {
        self.seats.with(|hsm| hsm.ask(key))
    }

    fn verify(
        &self,
        key: &KeyCard,
        asked: &Asked,
        input: &[u8],
        value: &[u8],
    ) -> Result<bool, JobError> {
        self.seats.with(|hsm| hsm.verify(key, asked, input, value))
    }
}
