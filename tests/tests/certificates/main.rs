//! The factory's CA and the certificates of devices: what is issued verifies with OpenSSL and reads with pyca/cryptography;
//! what is wrong in any way is refused.

mod authority;
mod chains;
mod issued;
mod made;
mod refused;
mod signing;

use std::time::{Duration, SystemTime};

use keyferry::certificate::{
    CaCertificate, Identity, Issuer, Serial, Validity, parse_subject, self_signed,
};
use keyferry::device::flow::Authority as _;
use keyferry_protocol::identity::DeviceId;
use keyferry_tests::openssl::openssl;
use keyferry_tests::software::SoftAuthority;
use keyferry_tests::tokens::Scratch;

/// The device that is certified.
const DEVICE: DeviceId = DeviceId([0xd5; 16]);

/// A day.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Now, as all parts of a test see it.
fn now() -> SystemTime {
    SystemTime::now()
}

/// The identity key of the device with this number.
fn identity_key(number: u8) -> Vec<u8> {
    SoftAuthority::new(number).public_key().to_vec()
}

/// A CA with this name and a key of its own, in software.
struct SoftCa {
    authority: SoftAuthority,
    certificate: Vec<u8>,
}

impl SoftCa {
    fn new(number: u8, subject: &str, validity: Validity) -> Self {
        let authority = SoftAuthority::new(number);
        let subject = parse_subject(subject).unwrap();
        let certificate = self_signed(&authority, &subject, validity, now()).unwrap();
        Self {
            authority,
            certificate,
        }
    }

    fn issuer(&self) -> Issuer<'_> {
        let ca = CaCertificate::read(&self.certificate).unwrap();
        Issuer::new(&self.authority, ca).unwrap()
    }

    /// The certificate of [`DEVICE`] with the identity key of this number.
    fn issue(&self, key: u8) -> Vec<u8> {
        let identity = Identity {
            serial: Serial::from(DEVICE),
            organization: None,
            common_name: None,
            key: &identity_key(key),
        };
        self.issuer().issue(&identity, now()).unwrap()
    }
}

/// Writes a file into the scratch folder; gives its name.
fn file(scratch: &Scratch, name: &str, bytes: impl AsRef<[u8]>) -> String {
    let path = scratch.path(name);
    std::fs::write(&path, bytes).unwrap();
    path.display().to_string()
}

/// What OpenSSL says of a certificate in DER.
fn text(der: &[u8]) -> String {
    let arguments = ["x509", "-inform", "DER", "-noout", "-text"];
    String::from_utf8(openssl(&arguments, der)).unwrap()
}
