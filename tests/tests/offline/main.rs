//! Detached orders: prepared where the HSM is, delivered where it is not, brought back as receipts.
#![cfg(unix)]

mod batch;
mod books;
mod brokered;
mod captured;
mod deliver;
mod files;
mod guide;
mod line;
mod plant;
