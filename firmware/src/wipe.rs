//! Wiping: the one place that clears memory that held a key.

#[cfg(not(feature = "sabotage-no-wipe"))]
use zeroize::Zeroize;

/// Overwrites `bytes` with zeros in a way the compiler may not leave out.
pub fn wipe(bytes: &mut [u8]) {
    #[cfg(not(feature = "sabotage-no-wipe"))]
    bytes.zeroize();
    #[cfg(feature = "sabotage-no-wipe")]
    let _ = bytes;
}

/// A secret of fixed length, wiped on drop. It has no `Debug`, `Clone` or `==` on purpose.
pub struct Secret<const N: usize>([u8; N]);

impl<const N: usize> Secret<N> {
    /// All zeros, to be filled in place.
    #[must_use]
    pub const fn zeroed() -> Self {
        Self([0; N])
    }

    /// A second copy, where two owners each need one.
    #[must_use]
    pub const fn copied(other: &Self) -> Self {
        Self(other.0)
    }

    /// The bytes.
    #[must_use]
    pub const fn expose(&self) -> &[u8; N] {
        &self.0
    }

    /// The bytes, to be filled in place.
    pub const fn expose_mut(&mut self) -> &mut [u8; N] {
        &mut self.0
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// Overwrites `N` bytes of stack below the caller's frame: cipher key schedules and bignum temporaries of calls that
/// have returned lie there. Call it from a shallow frame, with `N` no smaller than the deepest of those calls.
#[inline(never)]
pub fn scrub_stack<const N: usize>() {
    #[cfg(not(feature = "sabotage-no-wipe"))]
    {
        let mut below = [0xa5_u8; N];
        below.zeroize();
        core::hint::black_box(&below);
    }
}
