//! Devices an hour on ports of 115200 baud, with an HSM that is far away.

use anyhow::Result;
use keyferry_tests::tokens::{Kind, Scratch};

use super::tray::Tray;
use super::{BENCH, TOKEN};
use crate::rows::Row;

const BAUD: u32 = 115_200;
/// Ports, and devices that come to them: the second comes when the first is done.
const TRAYS: [[u16; 2]; 3] = [[1, 4], [8, 16], [32, 64]];
/// What each call of the token takes longer, in milliseconds.
const LATENCIES: [u32; 3] = [0, 20, 100];

/// Measures each number of ports with each latency.
///
/// # Errors
/// If a device is not done.
pub(super) fn run(token: &Scratch) -> Result<()> {
    // The same way for all, so that nothing else is compared.
    let uri = token.faulty_uri(TOKEN);
    for latency in LATENCIES {
        let variables = [
            (
                "KEYFERRY_SHIM_MODULE",
                Kind::SoftHsm.module().display().to_string(),
            ),
            ("KEYFERRY_SHIM_FAULTS", format!("latency-ms={latency}")),
        ];
        for tray in TRAYS {
            let spent = Tray::new(token)?.paced(token, &uri, &variables, BAUD, tray)?;
            let [ports, devices] = tray;
            let hours = spent.line / 3_600.0;
            let case = format!("ports-{ports}/hsm-{latency}-ms");
            Row::new(BENCH, case, "devices an hour", f64::from(devices) / hours)
                .with("baud", BAUD)
                .with("devices", devices)
                .print()?;
        }
    }
    Ok(())
}
