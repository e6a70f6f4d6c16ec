//! `Enroll`: the device makes its unwrap and identity key, pins its authority, and states all of it, signed.

use keyferry_protocol::MAX_VENDOR_CERTIFICATE;
use keyferry_protocol::identity::{Challenge, Signature, p256_spki};
use keyferry_protocol::message::Task;
use keyferry_protocol::receipt::{
    Flavour, Refusal, State, Statement, Voucher, Writer, voucher_input,
};
use keyferry_protocol::suite::UnwrapAlgorithm;

use super::answer::{storage, too_long};
use super::memory::{MAX_SPKI, Memory};
use super::orders::Accepted;
use super::{Device, Job};
use crate::keys;
use crate::platform::{Mark, Platform, SourceFailed, Stretch};
use crate::store::{Change, ItemId};
use crate::unwrap;
use crate::wipe::Secret;

/// Longest unwrap key as stored, in bytes, filled up to a multiple of eight: RSA-4096 as `e ‖ p ‖ q`, or a P-256 scalar.
pub(super) const MAX_UNWRAP_SECRET: usize = if cfg!(feature = "rsa-keys") {
    (4_usize + 512).next_multiple_of(8)
} else {
    32
};

/// An `Enroll` on a blank device, under way.
pub(super) struct Enrolling {
    order: Accepted,
    wanted: Wanted,
    generation: keys::Generation,
}

impl Enrolling {
    /// The key, as far as it is made.
    pub(super) fn into_generation(self) -> keys::Generation {
        self.generation
    }
}

/// What an `Enroll` asks for.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) authority: [u8; p256_spki::LENGTH],
    pub(super) nonce: Challenge,
    pub(super) unwrap: UnwrapAlgorithm,
}

impl<P: Platform, const RX: usize, const OUT: usize> Device<P, RX, OUT> {
    #[inline(never)]
    pub(super) fn begin_enroll(
        &mut self,
        order: &Accepted,
        wanted: &Wanted,
    ) -> Result<(), Refusal> {
        self.refresh_random()?;
        let early = self.early.take();
        let generation = early
            .filter(|early| early.algorithm() == wanted.unwrap)
            .or_else(|| keys::Generation::new(wanted.unwrap))
            .ok_or(Refusal::Unsupported)?;
        let put = |id, public, secret| Change::Put { id, public, secret };
        self.begin([
            put(ItemId::AUTHORITY, p256_spki::LENGTH, 0),
            put(ItemId::IDENTITY, p256_spki::LENGTH, 32),
            put(ItemId::UNWRAP, MAX_SPKI, MAX_UNWRAP_SECRET),
        ])?;
        self.job = Job::Enroll(Enrolling {
            order: *order,
            wanted: *wanted,
            generation,
        });
        Ok(())
    }

    /// One step in the making of a key that nobody has asked for yet.
    pub(super) fn step_early(&mut self) -> bool {
        let (Some(early), Some(random)) = (&mut self.early, &mut self.random) else {
            return false;
        };
        self.platform.measure(Mark::Begins(Stretch::Generate));
        let step = early.step(random);
        self.platform.measure(Mark::Ends(Stretch::Generate));
        if step.is_err() {
            // The `Enroll` begins anew, and says what is wrong.
            self.early = None;
        }
        true
    }

    /// One step of key generation; after the last, the rest of the order.
    pub(super) fn step_enroll(&mut self) -> bool {
        let (Job::Enroll(enrolling), Some(random)) = (&mut self.job, &mut self.random) else {
            return false;
        };
        let order = enrolling.order;
        self.platform.measure(Mark::Begins(Stretch::Generate));
        let step = enrolling.generation.step(random);
        self.platform.measure(Mark::Ends(Stretch::Generate));
        let done = match step {
            Ok(false) => {
                let (done, total) = enrolling.generation.progress();
                self.progress(Task::GenerateUnwrapKey, done, total);
                return true;
            }
            Ok(true) => self.finish_enroll(),
            Err(_) => {
                // Nothing of it is of use to the next.
                self.job = Job::Idle;
                Err(Refusal::Entropy)
            }
        };
        if let Err(refusal) = done {
            self.answer_refusal(&order, refusal);
        }
        false
    }

    fn finish_enroll(&mut self) -> Result<(), Refusal> {
        let job = core::mem::replace(&mut self.job, Job::Idle);
        let (Job::Enroll(enrolling), Some(random)) = (job, &mut self.random) else {
            return Err(Refusal::Sequence);
        };
        let (order, nonce, authority) = (
            enrolling.order,
            enrolling.wanted.nonce,
            enrolling.wanted.authority,
        );

        let mut unwrap_secret = Secret::<MAX_UNWRAP_SECRET>::zeroed();
        let mut unwrap_spki = [0; MAX_SPKI];
        self.platform.measure(Mark::Begins(Stretch::Generate));
        let made =
            enrolling
                .generation
                .finish(random, unwrap_secret.expose_mut(), &mut unwrap_spki);
        self.platform.measure(Mark::Ends(Stretch::Generate));
        let (secret_length, spki_length) = made.map_err(|_| Refusal::Entropy)?;
        // That was a private-key operation of RSA.
        self.feed_again();
        let random = self.random.as_mut().ok_or(Refusal::Entropy)?;
        let unwrap_spki = &unwrap_spki[..spki_length];

        let mut identity = Secret::<32>::zeroed();
        keys::p256::generate(random, &mut identity);
        let identity_spki =
            keys::p256::public_spki(identity.expose()).map_err(|_| Refusal::Entropy)?;

        let next = Memory {
            state: State::Enrolled,
            authority: keys::fingerprint(&authority),
            identity: keys::fingerprint(&identity_spki),
            unwrap: keys::fingerprint(unwrap_spki),
            ..self.after(&order)
        };
        let length = self.write_statement(&order, &next, nonce, &identity_spki, unwrap_spki)?;
        let random = self.random.as_mut().ok_or(Refusal::Entropy)?;
        self.operations.receipt += 1;
        let signed = &self.buffer.receipt()[..length];
        let signature =
            keys::p256::sign(identity.expose(), signed, random).map_err(|_| Refusal::Storage)?;
        self.store
            .put(ItemId::AUTHORITY, &authority, None)
            .and_then(|()| {
                self.store.put(
                    ItemId::IDENTITY,
                    &identity_spki,
                    Some(identity.expose_mut()),
                )
            })
            .and_then(|()| {
                let secret = &mut unwrap_secret.expose_mut()[..secret_length];
                self.store.put(ItemId::UNWRAP, unwrap_spki, Some(secret))
            })
            .map_err(storage)?;
        self.conclude(length, &signature, next)
    }

    /// `Enroll` on a device that has its keys: nothing changes but the counter; the statement is made anew.
    #[inline(never)]
    pub(super) fn restate(&mut self, order: &Accepted, nonce: Challenge) -> Result<(), Refusal> {
        let (mut identity, mut unwrap) = ([0; p256_spki::LENGTH], [0; MAX_SPKI]);
        let identity_length = read_public(self, ItemId::IDENTITY, &mut identity)?;
        let unwrap_length = read_public(self, ItemId::UNWRAP, &mut unwrap)?;
        self.begin([])?;
        let next = self.after(order);
        let length = self.write_statement(
            order,
            &next,
            nonce,
            &identity[..identity_length],
            &unwrap[..unwrap_length],
        )?;
        self.sign_and_conclude(length, next)
    }

    fn write_statement(
        &mut self,
        order: &Accepted,
        next: &Memory,
        nonce: Challenge,
        identity_key: &[u8],
        unwrap_key: &[u8],
    ) -> Result<usize, Refusal> {
        let description = self.platform.description();
        let algorithm = keys::unwrap_algorithm(unwrap_key).ok_or(Refusal::Storage)?;
        let mut certificate = [0; MAX_VENDOR_CERTIFICATE];
        let voucher = match self.platform.vendor_certificate(&mut certificate) {
            Ok(None) => None,
            Ok(Some(certificate)) => Some(Voucher {
                certificate,
                signature: self.vouch(&nonce, next)?,
            }),
            // A device that has a vendor key must not pass for one that has none.
            Err(SourceFailed) => return Err(Refusal::Storage),
        };
        let sabotaged = cfg!(feature = "sabotage-plain-storage")
            || cfg!(feature = "sabotage-no-wipe")
            || cfg!(feature = "sabotage-early-reject")
            || cfg!(feature = "measure");
        let statement = Statement {
            nonce,
            identity_key,
            unwrap_key,
            suites: unwrap::suites(algorithm),
            board: description.board,
            firmware: description.firmware,
            flavour: if sabotaged {
                Flavour::Sabotaged
            } else if description.development {
                Flavour::Development
            } else {
                Flavour::Production
            },
            rng: description.rng,
            root_key: description.root_key,
            authority: next.authority,
            epoch: next.epoch,
            voucher,
        };
        let header = self.receipt_header(order, next);
        let out = self.buffer.receipt();
        let mut writer = Writer::new(&header, out).map_err(too_long)?;
        writer.statement(&statement, out).map_err(too_long)?;
        Ok(writer.length())
    }

    /// The vendor key's word that these keys are this device's.
    fn vouch(&mut self, nonce: &Challenge, next: &Memory) -> Result<Signature, Refusal> {
        let device = self.platform.device_id();
        let message = voucher_input(&device, nonce, &next.identity, &next.unwrap);
        let random = self.random.as_mut().ok_or(Refusal::Entropy)?;
        self.operations.voucher += 1;
        self.platform
            .vendor_sign(&message, random)
            .map_err(|SourceFailed| Refusal::Storage)
    }

    /// The kind of the device's unwrap key, and its secret in `secret`; gives the secret's length.
    pub(super) fn unwrap_secret(
        &mut self,
        secret: &mut Secret<MAX_UNWRAP_SECRET>,
    ) -> Result<(UnwrapAlgorithm, usize), Refusal> {
        let algorithm = self.unwrap_algorithm()?;
        let read = self
            .store
            .secret(ItemId::UNWRAP, secret.expose_mut())
            .map_err(storage)?;
        read.map_or(Err(Refusal::Storage), |bytes| Ok((algorithm, bytes.len())))
    }

    /// The kind of the device's unwrap key.
    pub(super) fn unwrap_algorithm(&mut self) -> Result<UnwrapAlgorithm, Refusal> {
        let mut spki = [0; MAX_SPKI];
        let length = read_public(self, ItemId::UNWRAP, &mut spki)?;
        keys::unwrap_algorithm(&spki[..length]).ok_or(Refusal::Storage)
    }
}

fn read_public<P: Platform, const RX: usize, const OUT: usize>(
    device: &mut Device<P, RX, OUT>,
    id: ItemId,
    out: &mut [u8],
) -> Result<usize, Refusal> {
    device
        .store
        .public(id, out)
        .map_err(storage)?
        .map_or(Err(Refusal::Storage), |bytes| Ok(bytes.len()))
}
