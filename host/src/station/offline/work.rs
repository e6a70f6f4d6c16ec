//! What the orders of a batch are to do.

use keyferry_protocol::suite::Suite;

use crate::hsm::{DeviceUse, KeyType};
use crate::station::Target;

/// What orders are to do, the same for every device of a batch.
#[derive(Clone, Debug)]
pub enum Work {
    /// Put keys into slots.
    Inject(Injection),
    /// Have keys proved that are in slots.
    Prove {
        /// The keys and their slots.
        targets: Vec<Target>,
    },
    /// Take keys out of these slots.
    Remove(Vec<u8>),
    /// Refuse every later `Inject`, `Remove` and `Rotate`.
    Lock,
    /// Destroy the device's own keys and all slots.
    Wipe,
}

/// The keys that come to every device of a batch.
#[derive(Clone, Debug)]
pub struct Injection {
    /// Keys of the token, the same for every device.
    pub targets: Vec<Target>,
    /// Random keys, others for every device.
    pub fresh: Vec<Fresh>,
    /// Label of the token's key that random keys are kept under until their proofs have come.
    pub keep_under: Option<String>,
    /// The version of every key.
    pub version: u32,
    /// How the KEK travels; the strongest way if none is demanded.
    pub suite: Option<Suite>,
    /// Whether the device's certificate is issued anew, also where it has one.
    pub recertify: bool,
}

/// A random key that every device gets of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fresh {
    /// Algorithm and size.
    pub key_type: KeyType,
    /// The slot.
    pub slot: u16,
    /// What the device uses it for, if not what is natural.
    pub device_use: Option<DeviceUse>,
}

impl Fresh {
    /// The slot's label.
    #[must_use]
    pub fn label(&self) -> String {
        format!("fresh {}", self.key_type)
    }
}
