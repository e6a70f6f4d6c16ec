//! Signals that end a program: a flag is set, and whoever works looks at it between two pieces of work.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// SIGTERM and SIGINT set the flag. Nothing else happens to the process.
///
/// # Errors
/// What the system says.
#[cfg(unix)]
pub(super) fn end_on_signals(stop: &Arc<AtomicBool>) -> std::io::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(stop))?;
    }
    Ok(())
}

/// As above, and the second one ends the process at once: for who cannot wait.
///
/// # Errors
/// What the system says.
#[cfg(unix)]
pub(super) fn end_on_second_signal(stop: &Arc<AtomicBool>) -> std::io::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    for signal in [SIGTERM, SIGINT] {
        // In this order: at the first signal the flag is not set yet.
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(stop))?;
        signal_hook::flag::register(signal, Arc::clone(stop))?;
    }
    Ok(())
}

/// There are none: Ctrl-C ends the process at once.
#[cfg(not(unix))]
pub(super) fn end_on_signals(_stop: &Arc<AtomicBool>) -> std::io::Result<()> {
    Ok(())
}

/// There are none: Ctrl-C ends the process at once.
#[cfg(not(unix))]
pub(super) fn end_on_second_signal(_stop: &Arc<AtomicBool>) -> std::io::Result<()> {
    Ok(())
}
