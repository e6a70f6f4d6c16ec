//! Published test vectors on the target: the library's own unwrapping and verifying, as the compiler made it for this processor.
//!
//! The file `vectors.bin` in the emulated device's folder has them one after the other, and `verdicts.bin` gets the results. A part is its
//! length (2 bytes, little-endian) and that many bytes.
//!
//! | first byte | parts | result |
//! | --- | --- | --- |
//! | 0 verify | `SubjectPublicKeyInfo`, message, signature of 64 bytes | 1 if it is a signature, else 0 |
//! | 1 open | suite and unwrap key's kind (one byte each, as in an order), its secret bytes, KEK blob, length of the secret in the blob (2 bytes), blob | 1 and the secret, or 0 |
//!
//! A byte 255 ends the file; then the results end with it too.

use keyferry_firmware::keys::p256;
use keyferry_firmware::platform::RootKey;
use keyferry_firmware::protocol::MAX_BLOB;
use keyferry_firmware::protocol::attributes::KeyKind;
use keyferry_firmware::protocol::identity::{Fingerprint, Signature};
use keyferry_firmware::protocol::suite::{Suite, UnwrapAlgorithm};
use keyferry_firmware::rng::Drbg;
use keyferry_firmware::unwrap::{UnwrapKey, open_kek, open_key};
use semihosting::fs::File;
use semihosting::io::{Read, Result, Write};

use crate::Chip;
use keyferry_board::uart::{Registers, Uart};
use keyferry_board::wake;

/// Verifies a signature.
const VERIFY: u8 = 0;
/// Opens a key.
const OPEN: u8 = 1;
/// Ends the file.
const END: u8 = 255;

/// Stands for the fingerprint of each unwrap key, which goes into the KEK of `ecdh-p256-x963-sha256`.
const FINGERPRINT: Fingerprint = Fingerprint([0x46; 32]);

/// Longest part in bytes.
const LONGEST: usize = MAX_BLOB;

/// One part.
struct Part {
    bytes: [u8; LONGEST],
    length: usize,
}

impl Part {
    const fn new() -> Self {
        Self {
            bytes: [0; LONGEST],
            length: 0,
        }
    }

    fn fill(&mut self, file: &mut File) -> Result<()> {
        let mut length = [0; 2];
        file.read_exact(&mut length)?;
        self.length = usize::from(u16::from_le_bytes(length)).min(LONGEST);
        file.read_exact(&mut self.bytes[..self.length])
    }

    fn get(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Works through the file, and then sleeps for ever.
pub fn judge<C: Chip, R: Registers>(_chip: C, _serial: Uart<R>) -> ! {
    if run().is_err() {
        defmt::error!("the vectors cannot be read, or the verdicts not be written");
    }
    loop {
        wake::clear();
        wake::sleep();
    }
}

fn run() -> Result<()> {
    let mut vectors = File::open(c"vectors.bin")?;
    let mut verdicts = File::create(c"verdicts.bin")?;
    let mut parts = [const { Part::new() }; 4];
    let mut random = Drbg::new(&RootKey::zeroed(), 1, &[0; 32]);
    loop {
        let mut first = [0];
        vectors.read_exact(&mut first)?;
        let [kind] = first;
        match kind {
            VERIFY => {
                for part in &mut parts[..3] {
                    part.fill(&mut vectors)?;
                }
                let [key, message, signature, _] = &parts;
                let valid = signature.get().try_into().is_ok_and(|signature| {
                    p256::verify(key.get(), message.get(), &Signature::from_bytes(signature))
                });
                verdicts.write_all(&[u8::from(valid)])?;
            }
            OPEN => {
                for part in &mut parts {
                    part.fill(&mut vectors)?;
                }
                let [numbers, secret, kek_blob, blob] = &mut parts;
                let opened = match numbers.get() {
                    [suite, algorithm, low, high] => Suite::ALL
                        .get(usize::from(*suite))
                        .zip(UnwrapAlgorithm::ALL.get(usize::from(*algorithm)))
                        .map(|(suite, algorithm)| {
                            let kind =
                                KeyKind::Secret(usize::from(u16::from_le_bytes([*low, *high])));
                            let unwrap_key = UnwrapKey {
                                algorithm: *algorithm,
                                secret: secret.get(),
                                fingerprint: FINGERPRINT,
                            };
                            let kek = open_kek(*suite, unwrap_key, kek_blob.get(), &mut random);
                            open_key(&kek, kind, &mut blob.bytes[..blob.length])
                        }),
                    _ => None,
                };
                match opened {
                    Some(Ok(length)) => {
                        verdicts.write_all(&[1])?;
                        verdicts.write_all(&blob.bytes[..length])?;
                    }
                    Some(Err(_)) | None => verdicts.write_all(&[0])?,
                }
            }
            END => return verdicts.write_all(&[END]),
            _ => return Ok(()),
        }
    }
}
