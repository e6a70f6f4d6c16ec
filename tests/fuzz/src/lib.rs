//! What the entry points of all targets have in common. The targets themselves are in `keyferry_tests::fuzz`.

#[doc(hidden)]
pub use keyferry_tests::fuzz;
#[doc(hidden)]
pub use libfuzzer_sys;

/// Defines the entry point of the target with this name.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        $crate::libfuzzer_sys::fuzz_target!(
            init: $crate::fuzz::write_seeds($name),
            |data: &[u8]| {
                ($crate::fuzz::target($name).run)(data);
            }
        );
    };
}
