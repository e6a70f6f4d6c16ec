//! Whether what a token makes with a throw-away key is right: MACs, check values, derived keys.

use aes::Aes256;
use cmac::{Cmac, KeyInit, Mac};

use super::padding::{encrypt, hmac};
use super::{SharedKek, open};
use crate::hsm::derive::Diversification;
use crate::hsm::error::HsmError;
use crate::hsm::pkcs11::{Connection, WrapMechanism};
use crate::hsm::trial::throwaway::ThrowAway;

/// A MAC algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::hsm::trial) enum MacAlgorithm {
    Cmac,
    HmacSha256,
}

/// Length in bytes of `CKA_CHECK_VALUE` (PKCS#11 v3.1 §4.10.2).
const CHECK_VALUE_LENGTH: usize = 3;

/// How a throw-away key gets here: the KEK and the mechanism.
#[derive(Clone, Copy)]
pub(in crate::hsm::trial) struct Way<'a, 'c> {
    pub(in crate::hsm::trial) connection: &'c Connection,
    pub(in crate::hsm::trial) kek: &'a SharedKek<'c>,
    pub(in crate::hsm::trial) mechanism: WrapMechanism,
}

impl Way<'_, '_> {
    /// Whether this is the key's MAC; nothing if the key cannot be looked at.
    pub(in crate::hsm::trial) fn is_mac(
        self,
        key: &ThrowAway<'_>,
        algorithm: MacAlgorithm,
        input: &[u8],
        value: &[u8],
    ) -> Result<Option<bool>, HsmError> {
        self.judge(key, |clear| {
            let expected = match algorithm {
                MacAlgorithm::Cmac => cmac(clear, input),
                MacAlgorithm::HmacSha256 => hmac(clear, input),
            };
            expected.is_some_and(|expected| expected == value)
        })
    }

    /// Whether this is the check value of an AES key: the first bytes of the block of zeros, encrypted.
    pub(in crate::hsm::trial) fn is_check_value(
        self,
        key: &ThrowAway<'_>,
        value: &[u8],
    ) -> Result<Option<bool>, HsmError> {
        self.judge(key, |clear| {
            encrypt(clear, &[0; 16]).is_some_and(|block| block[..CHECK_VALUE_LENGTH] == *value)
        })
    }

    /// Whether one key, of `length` bytes, was derived from the other.
    pub(in crate::hsm::trial) fn is_derived(
        self,
        master: &ThrowAway<'_>,
        derived: &ThrowAway<'_>,
        way: Diversification,
        input: &[u8],
        length: usize,
    ) -> Result<Option<bool>, HsmError> {
        let Some((derived, _)) = open(self.connection, self.kek, self.mechanism, derived)? else {
            return Ok(None);
        };
        self.judge(master, |master| {
            let expected = match way {
                Diversification::CounterKdf => counter_kdf(master, input),
                Diversification::EcbEncryptData => ecb(master, input),
            };
            expected.is_some_and(|expected| expected.get(..length) == Some(&*derived.0))
        })
    }

    fn judge(
        self,
        key: &ThrowAway<'_>,
        right: impl FnOnce(&[u8]) -> bool,
    ) -> Result<Option<bool>, HsmError> {
        let opened = open(self.connection, self.kek, self.mechanism, key)?;
        Ok(opened.map(|(clear, _)| right(&clear.0)))
    }
}

fn cmac(key: &[u8], input: &[u8]) -> Option<Vec<u8>> {
    let mut mac = <Cmac<Aes256> as KeyInit>::new_from_slice(key).ok()?;
    mac.update(input);
    Some(mac.finalize().into_bytes().to_vec())
}

/// 32 bytes of SP 800-108 in counter mode with AES-CMAC: two blocks, each over the counter and the input.
fn counter_kdf(key: &[u8], input: &[u8]) -> Option<Vec<u8>> {
    let block = |counter: u32| cmac(key, &[&counter.to_be_bytes(), input].concat());
    Some([block(1)?, block(2)?].concat())
}

/// AES in ECB mode.
fn ecb(key: &[u8], input: &[u8]) -> Option<Vec<u8>> {
    let (blocks, _) = input.as_chunks::<16>();
    let mut all = Vec::new();
    for block in blocks {
        all.extend(encrypt(key, block)?);
    }
    Some(all)
}
