//! A log that several devices' sessions share, each as its witness.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keyferry_protocol::identity::Digest;

use super::error::AuditError;
use super::log::AuditLog;
use crate::device::flow::SignedOrder;
use crate::device::verify::SignedReceipt;
use crate::device::{DeviceError, MakeOrder, Witness};

/// A handle to a log. As a session's witness it writes every order and every answer down.
#[derive(Clone)]
pub struct SharedLog(Arc<Mutex<AuditLog>>);

impl SharedLog {
    /// Shares a log.
    #[must_use]
    pub fn new(log: AuditLog) -> Self {
        Self(Arc::new(Mutex::new(log)))
    }

    /// The log, for as long as nobody else has to write to it.
    pub fn lock(&self) -> MutexGuard<'_, AuditLog> {
        // A thread that died while it wrote has left the log unusable, and the log says so itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(error: AuditError) -> DeviceError {
    DeviceError::Witness(Box::new(error))
}

impl Witness for SharedLog {
    /// The log is held while the order is made, so that its head is the order's.
    fn order(&mut self, make: &mut MakeOrder<'_>) -> Result<SignedOrder, DeviceError> {
        let mut log = self.lock();
        log.usable().map_err(failed)?;
        let order = make(log.head().digest)?;
        log.ordered(&order).map_err(failed)?;
        Ok(order)
    }

    fn receipt(&mut self, order: &Digest, receipt: &SignedReceipt) -> Result<(), DeviceError> {
        self.lock().answered(order, receipt).map_err(failed)?;
        Ok(())
    }
}
