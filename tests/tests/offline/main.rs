//! Detached orders: prepared where the HSM is, delivered where it is not, brought back as receipts.
#![cfg(unix)]

mod batch;
mod deliver;
mod files;
mod line;
mod plant;
