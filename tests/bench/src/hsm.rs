//! The token's share of one new device: its public key is read, one AES-256 key is wrapped for it, and its order is signed.
//! Once through keyferry, once with the bare calls, on each kind of token.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use keyferry::hsm::{KeyInfo, KeySpec, KeyType, NewKey, PinSource, PublicKey, Token, parse};
use keyferry_protocol::suite::Suite;
use keyferry_tests::tokens::{Kind, Scratch};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::bare::{self, Bare};
use crate::measure::{Times, side_by_side};
use crate::record;

/// keyferry may take so many times as long as the bare calls.
const TARGET: f64 = 1.15;
/// So many devices take turns, so that no cache knows the key that comes next.
const DEVICES: usize = 4;
/// About the length of an order with one key, in bytes.
const ORDER: usize = 400;

/// What a token cannot do, as everybody knows; a case that is left out for any other reason is an error.
const LACKING: [(&str, Suite); 2] = [
    ("softhsm", Suite::RsaOaepSha256),
    ("softhsm", Suite::EcdhP256X963Sha256),
];

const TOKEN: &str = "bench";
const KEY: &str = "target";
const AUTHORITY: &str = "authority";

/// Measures every kind of token, each in a process of its own.
///
/// # Errors
/// If a token does not do as it should. That a target is missed is in the rows.
pub(crate) fn run(seconds: f64) -> Result<()> {
    for kind in Kind::ALL {
        let scratch = Scratch::of(kind, TOKEN);
        let status = Command::new(std::env::current_exe()?)
            .args(["hsm-token", "--kind", &kind.name().to_lowercase()])
            .arg("--module")
            .arg(kind.module())
            .args(["--uri", &scratch.uri()])
            .args(["--seconds", &seconds.to_string()])
            .envs(scratch.environment())
            .status()
            .context("cannot start the process for a token")?;
        ensure!(status.success(), "{kind}: {status}");
    }
    Ok(())
}

/// Measures the token at `uri`.
///
/// # Errors
/// If it does not do as it should.
pub(crate) fn token(kind: &str, module: &Path, uri: &str, seconds: f64) -> Result<()> {
    let (spec, _) = parse(uri)?;
    let pin = spec.pin_source.as_deref().context("no pin-source")?;
    let token = Token::open(&spec, &PinSource::from_uri(pin)?.fetch(TOKEN)?)?;
    token.create_key(&NewKey::target(KEY, KeyType::Aes { bits: 256 }))?;
    token.create_key(&NewKey::authority(AUTHORITY))?;
    let desk = Desk {
        key: token.key(&KeySpec::label(KEY))?,
        authority: token.key(&KeySpec::label(AUTHORITY))?,
        order: [0x5a; ORDER],
        bare: Bare::open(module, TOKEN, KEY, AUTHORITY)?,
        token,
    };
    for (name, key_type) in [
        ("rsa-2048", KeyType::Rsa { bits: 2048 }),
        ("p-256", KeyType::P256),
    ] {
        let devices = desk.devices(key_type)?;
        for suite in Suite::ALL.into_iter().filter(|suite| key_type.fits(*suite)) {
            let case = format!("{kind}/{name}/{suite}");
            if !desk.token.supports(suite)? {
                ensure!(
                    LACKING.contains(&(kind, suite)),
                    "{case}: the token should be able to do it"
                );
                record(
                    &json!({"bench": "hsm", "case": case, "skipped": "not a suite of this token"}),
                )?;
                continue;
            }
            let objects = desk.token.session_objects()?;
            let times = desk.case(&devices, suite, seconds)?;
            ensure!(
                desk.token.session_objects()? == objects,
                "{case}: objects are left behind"
            );
            rows(&case, times)?;
        }
    }
    Ok(())
}

/// Both ways to do the work.
struct Desk {
    token: Token,
    key: KeyInfo,
    authority: KeyInfo,
    order: [u8; ORDER],
    bare: Bare,
}

impl Desk {
    /// Public keys of devices, as their statements have them. They are made on the token, which is as good a place as any.
    fn devices(&self, key_type: KeyType) -> Result<Vec<Vec<u8>>> {
        (0..DEVICES)
            .map(|number| {
                let key = NewKey::target(&format!("device {key_type} {number}"), key_type);
                let key = self.token.create_key(&key)?;
                Ok(key.public_key()?.spki_der().to_vec())
            })
            .collect()
    }

    /// Through keyferry, from the device's public key in its statement on.
    fn through_keyferry(&self, device: &[u8], suite: Suite) -> Result<bare::Lengths> {
        let recipient = PublicKey::from_spki_der(device)?;
        let wrapped = self.token.wrap_for(&recipient, suite, &[&self.key])?;
        let signature = self.token.sign_p256(&self.authority, &self.order)?;
        let blob = wrapped.blobs.first().map_or(0, Vec::len);
        Ok([wrapped.kek_blob.len(), blob, signature.len()])
    }

    fn case(&self, devices: &[Vec<u8>], suite: Suite, seconds: f64) -> Result<Times> {
        let digest: [u8; 32] = Sha256::digest(self.order).into();
        let prepared = devices
            .iter()
            .map(|device| self.bare.prepare(&PublicKey::from_spki_der(device)?, suite))
            .collect::<Result<Vec<_>>>()?;
        // Both must have done the same.
        let lengths = self.through_keyferry(&devices[0], suite)?;
        ensure!(
            self.bare.serve(&prepared[0], &digest)? == lengths,
            "the bare calls give something else"
        );
        side_by_side(
            Duration::from_secs_f64(seconds),
            |number| {
                let device = &devices[number as usize % DEVICES];
                ensure!(self.through_keyferry(device, suite)? == lengths);
                Ok(())
            },
            |number| {
                let device = &prepared[number as usize % DEVICES];
                ensure!(self.bare.serve(device, &digest)? == lengths);
                Ok(())
            },
        )
    }
}

/// The rows of one case.
fn rows(case: &str, times: Times) -> Result<()> {
    for (way, seconds) in [("keyferry", times.first), ("bare", times.second)] {
        let case = format!("{case}/{way}");
        record(&json!({"bench": "hsm", "case": case, "metric": "seconds", "value": seconds}))?;
    }
    let ratio = times.ratio();
    record(&json!({
        "bench": "hsm", "case": case, "metric": "ratio",
        "value": ratio, "target": TARGET, "ok": ratio < TARGET,
    }))
}
