//! What the fuzzer runs: one function a target, which takes any bytes, must come to an end, and holds what it read against
//! promises that cannot depend on the input.
//!
//! The bodies live here, and not beside cargo-fuzz's own files in `tests/fuzz`, so that an ordinary test replays every kept
//! input with the ordinary compiler: `tests/tests/fuzz.rs`. A target says whether it took its input for valid, so that the
//! same test can tell that a corpus reaches behind the first check.
//!
//! What no target may do: depend on the clock, on randomness, on a token, or on what ran before it.

mod audit;
mod broker;
mod capture;
mod certificates;
mod device;
mod files;
mod link;
mod messages;
mod seeds;

use std::path::Path;

/// One target.
pub struct Target {
    /// Its name: that of its file in `tests/fuzz/fuzz_targets`, and of its folders of inputs.
    pub name: &'static str,
    /// Runs it; tells whether the input is something valid.
    ///
    /// Panics if a promise is broken.
    pub run: fn(&[u8]) -> bool,
    /// Valid inputs, made anew, so that a format that changes needs no new files.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets. `tests/tests/fuzz.rs` holds this list against the files that cargo-fuzz builds.
pub const TARGETS: &[Target] = &[
    Target {
        name: "request",
        run: messages::request,
        seeds: seeds::requests,
    },
    Target {
        name: "reply",
        run: messages::reply,
        seeds: seeds::replies,
    },
    Target {
        name: "order",
        run: messages::order,
        seeds: seeds::orders,
    },
    Target {
        name: "receipt",
        run: messages::receipt,
        seeds: seeds::receipts,
    },
    Target {
        name: "deframer",
        run: link::deframer,
        seeds: link::deframer_seeds,
    },
    Target {
        name: "link_pair",
        run: link::pair,
        seeds: link::pair_seeds,
    },
    Target {
        name: "capture",
        run: capture::capture,
        seeds: capture::seeds,
    },
    Target {
        name: "device",
        run: device::device,
        seeds: device::seeds,
    },
    Target {
        name: "broker",
        run: broker::frame,
        seeds: seeds::broker_frames,
    },
    Target {
        name: "audit_line",
        run: audit::line,
        seeds: seeds::audit_lines,
    },
    Target {
        name: "audit_log",
        run: audit::log,
        seeds: seeds::audit_logs,
    },
    Target {
        name: "anchor",
        run: audit::anchor,
        seeds: seeds::anchors,
    },
    Target {
        name: "manifest",
        run: files::manifest,
        seeds: seeds::manifests,
    },
    Target {
        name: "order_file",
        run: files::order_file,
        seeds: seeds::order_files,
    },
    Target {
        name: "list",
        run: files::list,
        seeds: seeds::lists,
    },
    Target {
        name: "plan",
        run: files::plan,
        seeds: seeds::plans,
    },
    Target {
        name: "name",
        run: files::name,
        seeds: seeds::names,
    },
    Target {
        name: "certificate",
        run: certificates::certificate,
        seeds: seeds::certificates,
    },
    Target {
        name: "public_key",
        run: certificates::public_key,
        seeds: seeds::public_keys,
    },
];

/// The target with this name.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn target(name: &str) -> &'static Target {
    let mut targets = TARGETS.iter();
    targets
        .find(|target| target.name == name)
        .unwrap_or_else(|| panic!("there is no target '{name}'"))
}

/// Names the folder that a fuzzer's seeds are written to before it starts.
pub const SEEDS_VARIABLE: &str = "KEYFERRY_FUZZ_SEEDS";

/// Writes the seeds of a target into the folder that [`SEEDS_VARIABLE`] names, if it is set. The fuzzer calls it before it
/// reads its corpus.
///
/// # Panics
/// If they cannot be written.
pub fn write_seeds(name: &str) {
    let Some(folder) = std::env::var_os(SEEDS_VARIABLE) else {
        return;
    };
    for (number, seed) in (target(name).seeds)().iter().enumerate() {
        let path = Path::new(&folder).join(format!("seed-{number}"));
        std::fs::write(&path, seed).expect("the folder of the seeds can be written");
    }
}
