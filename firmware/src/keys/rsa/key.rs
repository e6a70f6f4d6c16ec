//! The private key in the form that the `rsa` crate computes with: two primes, and what the Chinese remainder theorem needs.
//!
//! The crate's own key type can also find primes from a private exponent. That would bring square roots and long division along, ten
//! kilobytes that nothing here uses; and it is slower to make.

use ::rsa::CrtValue;
use ::rsa::traits::{PrivateKeyParts, PublicKeyParts};
use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams, MontyParams};
use crypto_bigint::{BoxedUint, ConcatenatingMul as _, Limb, NonZero, Odd, Resize as _, U64};
use zeroize::Zeroize as _;

use super::{InvalidKey, Parts};

/// A private key with the values for CRT (RFC 8017 §3.2), wiped on drop. It has no `Debug`, `Clone` or `==` on purpose.
pub struct PrivateKey {
    n: NonZero<BoxedUint>,
    e: BoxedUint,
    n_params: BoxedMontyParams,
    /// Zero: see [`PrivateKeyParts::d`] below.
    d: BoxedUint,
    primes: [Odd<BoxedUint>; 2],
    p: MontyParams<BoxedUint>,
    q: MontyParams<BoxedUint>,
    /// e^-1 mod (p − 1), and mod (q − 1).
    dp: BoxedUint,
    dq: BoxedUint,
    /// q^-1 mod p.
    qinv: BoxedMontyForm,
}

impl Drop for PrivateKey {
    fn drop(&mut self) {
        self.primes.zeroize();
        self.p.zeroize();
        self.q.zeroize();
        self.dp.zeroize();
        self.dq.zeroize();
        self.qinv.zeroize();
    }
}

impl PublicKeyParts for PrivateKey {
    fn n(&self) -> &NonZero<BoxedUint> {
        &self.n
    }

    fn e(&self) -> &BoxedUint {
        &self.e
    }

    fn n_params(&self) -> &BoxedMontyParams {
        &self.n_params
    }
}

impl PrivateKeyParts for PrivateKey {
    /// With the values for CRT there the crate does not compute with it; if ever it did, the check of its result would fail.
    fn d(&self) -> &BoxedUint {
        &self.d
    }

    fn primes(&self) -> &[Odd<BoxedUint>] {
        &self.primes
    }

    fn p(&self) -> Option<&MontyParams<BoxedUint>> {
        Some(&self.p)
    }

    fn q(&self) -> Option<&MontyParams<BoxedUint>> {
        Some(&self.q)
    }

    fn dp(&self) -> Option<&BoxedUint> {
        Some(&self.dp)
    }

    fn dq(&self) -> Option<&BoxedUint> {
        Some(&self.dq)
    }

    fn qinv(&self) -> Option<&BoxedMontyForm> {
        Some(&self.qinv)
    }

    fn crt_values(&self) -> Option<&[CrtValue]> {
        None
    }
}

/// The private key, with the values for CRT computed. Whether p and q are prime is not tested.
///
/// # Errors
/// [`InvalidKey`] if the bytes are no key: wrong length, primes of the wrong size or equal, or an exponent that has no
/// inverse.
pub fn private_key(secret: &[u8]) -> Result<PrivateKey, InvalidKey> {
    let parts = Parts::read(secret)?;
    let [p, q] = parts.primes()?;
    let n = modulus(&p, &q)?;
    let dp = exponent(&p, parts.e)?;
    let dq = exponent(&q, parts.e)?;
    let odd = |number: BoxedUint| Odd::new(number).into_option().ok_or(InvalidKey);
    let (p, q) = (odd(p)?, odd(q)?);
    let p_params = BoxedMontyParams::new(p.clone());
    // q may be larger than p, but is as long, which is all that this asks for.
    let qinv = BoxedMontyForm::new(q.as_ref().clone(), &p_params).invert();
    let q_params = BoxedMontyParams::new(q.clone());
    Ok(PrivateKey {
        d: BoxedUint::zero_with_precision(n.bits_precision()),
        n_params: BoxedMontyParams::new(odd(n.clone())?),
        n: NonZero::new(n).into_option().ok_or(InvalidKey)?,
        e: BoxedUint::from(parts.e),
        primes: [p, q],
        p: p_params.as_ref().clone(),
        q: q_params.as_ref().clone(),
        dp,
        dq,
        // Two primes that are not coprime are none.
        qinv: qinv.into_option().ok_or(InvalidKey)?,
    })
}

/// The product of two primes of the same size, where it is twice as long in bits.
pub(super) fn modulus(p: &BoxedUint, q: &BoxedUint) -> Result<BoxedUint, InvalidKey> {
    let n = p.concatenating_mul(q);
    // Two numbers with their top bit set can still give a product one bit short.
    if n.bits_vartime() == n.bits_precision() {
        Ok(n)
    } else {
        Err(InvalidKey)
    }
}

/// e^-1 mod (prime − 1).
///
/// e is short, so the inverse is sought the other way around: with m = prime − 1 and k = −m^-1 mod e, which fits a machine word, it is
/// (1 + k·m) / e. That spares an inversion modulo a long number. All steps take the same time for the same e and length.
fn exponent(prime: &BoxedUint, e: u32) -> Result<BoxedUint, InvalidKey> {
    let one = BoxedUint::one();
    let limb = NonZero::new(Limb::from(e))
        .into_option()
        .ok_or(InvalidKey)?;
    let odd = Odd::new(U64::from(e)).into_option().ok_or(InvalidKey)?;
    let mut below = prime.wrapping_sub(&one);
    let inverse = U64::from(below.rem_limb(limb)).invert_odd_mod(&odd);
    let Some(inverse) = inverse.into_option() else {
        below.zeroize();
        return Err(InvalidKey);
    };
    let mut k = BoxedUint::from(odd.get().wrapping_sub(&inverse));
    let mut multiple = below.concatenating_mul(&k).wrapping_add(&one);
    let (mut long, _) = multiple.div_rem_limb(limb);
    // It is below the prime.
    let exponent = (&long).resize_unchecked(prime.bits_precision());
    for secret in [&mut below, &mut k, &mut multiple, &mut long] {
        secret.zeroize();
    }
    Ok(exponent)
}
