//! Who is told of every order before it is sent, and of every receipt as it came: an audit log, a broker.

use keyferry_protocol::identity::Digest;

use super::DeviceError;
use super::flow::SignedOrder;
use super::verify::SignedReceipt;

/// Makes an order that carries this head of the audit chain.
pub type MakeOrder<'a> = dyn FnMut(Digest) -> Result<SignedOrder, DeviceError> + 'a;

/// A witness. What it cannot write down does not happen: an error keeps the order from being sent.
pub trait Witness {
    /// Has the order made with the present head of the chain, and writes it down. Nothing else may come into the chain in between.
    ///
    /// # Errors
    /// Those of `make`; [`DeviceError::Witness`].
    fn order(&mut self, make: &mut MakeOrder<'_>) -> Result<SignedOrder, DeviceError>;

    /// Writes a receipt down, whatever it says and before it is believed.
    ///
    /// # Errors
    /// [`DeviceError::Unwitnessed`].
    fn receipt(&mut self, order: &Digest, receipt: &SignedReceipt) -> Result<(), DeviceError>;
}
