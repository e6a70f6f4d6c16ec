//! The end of everything that must not happen, for one device: say where, and start again, as a board does by a reset.

use std::panic::{self, AssertUnwindSafe};
use std::thread;
use std::time::Duration;

use keyferry_firmware::wipe::scrub_stack;

/// How long a device that panicked stays off: one that panics at every start must not take a core.
const PAUSE: Duration = Duration::from_millis(200);

/// Bytes of stack that are overwritten after a panic: more than a device uses.
const SCRUBBED: usize = 256 * 1024;

/// From now on a panic tells its thread and its place, and not what it says: that could carry what the code had at hand. For the process as a
/// whole, which is why a program asks for it and a library does not.
pub fn report_places() {
    panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        let name = thread.name().unwrap_or("without a name").to_owned();
        match panic.location() {
            Some(place) => eprintln!("{name}: panic at {}:{}", place.file(), place.line()),
            None => eprintln!("{name}: panic"),
        }
    }));
}

/// Lives one life after the other, until one ends without a panic. The stack must have room for [`SCRUBBED`] bytes more than a life takes.
pub(crate) fn lives<R>(mut life: impl FnMut() -> R) -> R {
    loop {
        // What a life leaves behind is its line, which knows no state between turns, and its flash, which is made for this.
        if let Ok(result) = panic::catch_unwind(AssertUnwindSafe(&mut life)) {
            return result;
        }
        // Secrets are wiped as they are dropped; this is for what lay beside them.
        scrub_stack::<SCRUBBED>();
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_that_panics_is_followed_by_another() {
        let mut lived = 0;
        let result = lives(|| {
            lived += 1;
            assert!(lived > 2, "not yet");
            lived
        });
        assert_eq!(result, 3);
    }
}
