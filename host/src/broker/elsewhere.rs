//! Systems without Unix domain sockets: a broker cannot be started or asked, and says so.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use super::error::BrokerError;
use super::service::Service;
use super::wire::Status;

/// No socket.
#[derive(Debug)]
pub enum Listener {}

impl Listener {
    /// There is none here.
    ///
    /// # Errors
    /// [`BrokerError::Elsewhere`].
    pub fn new(_socket: &Path, _users: &[u32]) -> Result<Self, BrokerError> {
        Err(BrokerError::Elsewhere)
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub fn serve(self, _service: &Mutex<Service>, _stop: &AtomicBool) -> Result<(), BrokerError> {
        match self {}
    }
}

/// There is none here.
///
/// # Errors
/// [`BrokerError::Elsewhere`].
pub fn status(_socket: &Path) -> Result<Status, BrokerError> {
    Err(BrokerError::Elsewhere)
}
