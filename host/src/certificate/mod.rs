//! Certificates: the factory's CA, the certificate it gives each device, and the check of one.
//!
//! A device certificate is an IDevID in the style of IEEE 802.1AR-2018: X.509 v3 (RFC 5280), for the device's identity key,
//! with the device's serial number in its subject. The CA's key lives in the HSM; what is signed here is signed there.
//!
//! Only ECDSA P-256 with SHA-256 is made and taken. What comes from outside is bounded in length before it is read, and
//! must be the one DER that its content has. Nothing here ever falls back to a weaker check, and a certificate is believed
//! only together with the identity key that a signed statement holds.

mod ca;
mod chain;
mod document;
mod error;
mod extension;
mod file;
mod idevid;
mod request;
mod signer;
mod subject;

pub use ca::{CaCertificate, Validity, self_signed};
pub use chain::{Accepted, DeviceCa, MAXIMUM_CAS};
pub use document::Document;
pub use error::CertificateError;
pub use file::{
    CERTIFICATE_LABEL, Item, MAXIMUM_FILE, REQUEST_LABEL, one_certificate, read_items, to_pem,
};
pub use idevid::{Identity, Issuer};
pub use request::{Request, request};
pub use signer::check_ca_key;
pub use subject::{Serial, parse_subject, printable};

/// Longest device certificate in bytes, as a device keeps it: more is neither issued nor read.
pub const MAXIMUM_DEVICE_CERTIFICATE: usize = keyferry_protocol::MAX_CERTIFICATE;

/// Longest certificate of a CA in bytes.
pub const MAXIMUM_CA_CERTIFICATE: usize = 8 * 1024;
