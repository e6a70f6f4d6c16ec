//! Log macros: defmt where the board has it, nothing elsewhere. Never log a secret, a PIN or an unwrapped length.

#![allow(unused_macros, reason = "not every level is in use in every build")]

macro_rules! info {
    ($($arg:tt)*) => {{
        #[cfg(feature = "defmt")]
        ::defmt::info!($($arg)*);
    }};
}

macro_rules! warning {
    ($($arg:tt)*) => {{
        #[cfg(feature = "defmt")]
        ::defmt::warn!($($arg)*);
    }};
}

macro_rules! debug {
    ($($arg:tt)*) => {{
        #[cfg(feature = "defmt")]
        ::defmt::debug!($($arg)*);
    }};
}

#[allow(unused_imports, reason = "not every level is in use in every build")]
pub(crate) use {debug, info, warning};
