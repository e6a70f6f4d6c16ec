//! The numbers after a start that have no small factor. A table of primes and their reciprocals would be faster, and cost 24 kB of flash:
//! it would save one part in a hundred of what the tests for primality take.

use crypto_bigint::{BoxedUint, CheckedAdd as _, Limb, NonZero};
use zeroize::Zeroize as _;

/// Odd numbers looked at from one start. Of so many, three are prime among those of 1024 bits, and more than one among those of 2048.
const WINDOW: usize = 1024;

/// Odd numbers from a start on, those with a factor below 2^16 crossed out.
pub(super) struct Sieve {
    start: BoxedUint,
    /// One bit each: whether a factor is known.
    composite: [u8; WINDOW / 8],
    next: usize,
}

impl Sieve {
    /// Sieves the odd numbers from `start` on, which is odd and larger than 2^16.
    pub(super) fn new(start: BoxedUint) -> Self {
        let mut sieve = Self {
            start,
            composite: [0; WINDOW / 8],
            next: 0,
        };
        for prime in (3..=u16::MAX).step_by(2).filter(|odd| is_prime(*odd)) {
            sieve.cross_out(usize::from(prime));
        }
        sieve
    }

    fn cross_out(&mut self, prime: usize) {
        let Some(divisor) = NonZero::new(Limb::from(prime as u32)).into_option() else {
            return;
        };
        let remainder = self.start.rem_limb(divisor).0 as usize;
        // start + 2k is a multiple where 2k ≡ -remainder; if that is odd, the prime is added, which makes it even.
        let distance = (prime - remainder) % prime;
        let first = (distance + (distance % 2) * prime) / 2;
        for place in (first..WINDOW).step_by(prime) {
            self.composite[place / 8] |= 1 << (place % 8);
        }
    }
}

impl Iterator for Sieve {
    type Item = BoxedUint;

    fn next(&mut self) -> Option<BoxedUint> {
        let place = (self.next..WINDOW)
            .find(|place| self.composite[place / 8] & (1 << (place % 8)) == 0)?;
        self.next = place + 1;
        let step = BoxedUint::from(2 * place as u32);
        // One that is longer than the start would have its top bits clear.
        Option::from(self.start.checked_add(&step))
    }
}

impl Drop for Sieve {
    fn drop(&mut self) {
        self.start.zeroize();
        self.composite.zeroize();
    }
}

/// Whether an odd number is prime, by trial division.
fn is_prime(odd: u16) -> bool {
    let odd = u32::from(odd);
    (3..)
        .step_by(2)
        .take_while(|divisor| divisor * divisor <= odd)
        .all(|divisor| odd % divisor != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_has_no_small_factor_and_all_else_has_one() {
        for start in [0x1_0001_u64, 0xc000_0000_0000_0001, 0xdead_beef_0123_4567] {
            let left: std::vec::Vec<BoxedUint> = Sieve::new(BoxedUint::from(start)).collect();
            let mut expected = std::vec::Vec::new();
            for number in (start..).step_by(2).take(WINDOW) {
                if (3..1 << 16).step_by(2).all(|divisor| number % divisor != 0) {
                    expected.push(BoxedUint::from(number));
                }
            }
            assert!(left.len() > 20, "{start:x}: {}", left.len());
            assert!(left == expected, "{start:x}");
        }
    }

    #[test]
    fn nothing_comes_after_the_largest_number_of_its_length() {
        let last = BoxedUint::from(u64::MAX - 2 * 100);
        for number in Sieve::new(last.clone()) {
            assert!(number >= last);
        }
    }
}
