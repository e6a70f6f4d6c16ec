//! Detached orders: made where the HSM is, carried as files, delivered at a line that has none, and brought back as receipts.
//!
//! [`Preparation`] makes a folder, a *batch*: one signed order for each device, and a manifest that is signed in the HSM. [`deliver()`] needs
//! that folder and the authority's public key, and nothing else. [`import()`] has the HSM verify every proof; until then a device is
//! delivered, and its proof is pending.
//!
//! In a batch are wrapped keys, public keys, signed statements and names: what may be seen by everybody. No clear key can get into it,
//! as there is no type for one. What is read from a batch was signed, or it is not believed.

mod answer;
mod batch;
mod books;
mod deliver;
mod error;
mod folder;
mod import;
mod order_file;
mod prepare;
mod receipt_file;
mod work;

pub use answer::{Answer, check_answer};
pub use batch::{BATCH, Batch, BatchKey, BatchOrder, MAXIMUM_BATCH, MAXIMUM_ORDERS};
pub use deliver::{Delivered, How, deliver};
pub use error::OfflineError;
pub use folder::{BatchFolder, RECEIPTS};
pub use import::{Fate, Imported, import};
pub use order_file::{DetachedOrder, MAXIMUM_ORDER_FILE};
pub use prepare::{Preparation, Prepared, finish};
pub use receipt_file::MAXIMUM_RECEIPT_FILE;
pub use work::{Fresh, Injection, Work};
