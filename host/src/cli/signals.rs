//! Signals that end a program: a flag is set, and whoever works looks at it between two pieces of work.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// SIGTERM and SIGINT (Ctrl-C) set the flag. Nothing else happens to the process.
///
/// # Errors
/// What the system says.
pub(super) fn end_on_signals(stop: &Arc<AtomicBool>) -> std::io::Result<()> {
    for signal in [SIGTERM, SIGINT] {
        flag::register(signal, Arc::clone(stop))?;
    }
    Ok(())
}

/// As above, and the second one ends the process at once: for who cannot wait.
///
/// # Errors
/// What the system says.
pub(super) fn end_on_second_signal(stop: &Arc<AtomicBool>) -> std::io::Result<()> {
    for signal in [SIGTERM, SIGINT] {
        // In this order: at the first signal the flag is not set yet.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(stop))?;
        flag::register(signal, Arc::clone(stop))?;
    }
    Ok(())
}
