//! The entropy source. An emulated board has none, so it is the host's, or a seed's for repeatable runs; the statement says
//! `test` either way.

use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng, SeedableRng};
use keyferry_firmware::platform::SourceFailed;

use crate::Host;
use crate::arguments::EntropySource;

/// An entropy source, as the command line chose it.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one value, and it never moves after the start"
)]
pub(crate) enum Entropy {
    /// The host's random device, asked for every request.
    Host,
    /// The stream of a seed, from its start at every boot. The firmware's boot counter keeps boots apart.
    Seeded(ChaCha20Rng),
    /// Always fails.
    Failing,
    /// Always zeros.
    Stuck,
}

impl Entropy {
    /// The source that the command line asks for.
    pub(crate) fn new(source: EntropySource) -> Self {
        match source {
            EntropySource::Host => Self::Host,
            EntropySource::Seed(seed) => Self::Seeded(ChaCha20Rng::from_seed(seed)),
            EntropySource::Failing => Self::Failing,
            EntropySource::Stuck => Self::Stuck,
        }
    }

    /// Fills `out`.
    ///
    /// # Errors
    /// [`SourceFailed`] if the host has no random device or gives too few bytes, or if the command line asks for a failure.
    pub(crate) fn fill<H: Host>(
        &mut self,
        host: &mut H,
        out: &mut [u8],
    ) -> Result<(), SourceFailed> {
        match self {
            Self::Host => host.random(out),
            Self::Seeded(stream) => {
                stream.fill_bytes(out);
                Ok(())
            }
            Self::Failing => Err(SourceFailed),
            Self::Stuck => {
                out.fill(0);
                Ok(())
            }
        }
    }
}
