//! What other libraries cost for the same work. They are constants, measured once on the same emulated part in the same way (QEMU 7.2,
//! mps2-an386, `-icount shift=0`), and no part of a target: they verify and unwrap, and have no key store, no link, no receipts.

use anyhow::Result;

use crate::rows::Row;

/// Library, what was measured, metric, value.
const PEERS: [(&str, &str, &str, f64); 17] = [
    (
        "mbedtls-3.6.6-o2",
        "rsa-2048-unwrap",
        "instructions",
        52.9e6,
    ),
    ("bearssl-0.6", "rsa-2048-unwrap", "instructions", 55.0e6),
    (
        "wolfssl-5.9.1-sp-asm",
        "rsa-2048-unwrap",
        "instructions",
        16.3e6,
    ),
    (
        "mbedtls-3.6.6-o2",
        "rsa-3072-unwrap",
        "instructions",
        143.6e6,
    ),
    ("bearssl-0.6", "rsa-3072-unwrap", "instructions", 186.0e6),
    (
        "wolfssl-5.9.1-sp-asm",
        "rsa-3072-unwrap",
        "instructions",
        64.4e6,
    ),
    ("mbedtls-3.6.6-o2", "p256-verify", "instructions", 17.2e6),
    ("bearssl-0.6", "p256-verify", "instructions", 12.1e6),
    (
        "wolfssl-5.9.1-sp-asm",
        "p256-verify",
        "instructions",
        1.01e6,
    ),
    ("mbedtls-3.6.6-o2", "p256-ecdh", "instructions", 11.1e6),
    ("bearssl-0.6", "p256-ecdh", "instructions", 6.7e6),
    ("wolfssl-5.9.1-sp-asm", "p256-ecdh", "instructions", 0.99e6),
    (
        "mbedtls-3.6.6-o2",
        "rsa-2048-generate-mean",
        "instructions",
        1940e6,
    ),
    (
        "bearssl-0.6",
        "rsa-2048-generate-mean",
        "instructions",
        2610e6,
    ),
    (
        "wolfssl-5.9.1-sp-asm",
        "rsa-2048-generate-mean",
        "instructions",
        940e6,
    ),
    (
        "mbedtls-3.6.6-small",
        "flash-rsa-unwrap-and-verify",
        "bytes",
        35_900.0,
    ),
    (
        "bearssl-0.6",
        "flash-ecdh-unwrap-and-verify",
        "bytes",
        13_600.0,
    ),
];

pub(super) fn print() -> Result<()> {
    for (library, what, metric, value) in PEERS {
        Row::new("firmware", format!("peer/{library}/{what}"), metric, value)
            .with("source", "measured once, on the same emulated part")
            .print()?;
    }
    Ok(())
}
