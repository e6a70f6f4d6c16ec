//! Power is cut at every program and erase operation of a device's life, in every way, and again at every operation of
//! the recovery. The store must then hold the old state or the new one, and never give a boot count twice.

use std::string::String;
use std::vec::Vec;
use std::{format, println, thread};

use super::model::{Items, Model, Random, Step, check, history, run, shortest_history};
use super::*;
use crate::store::nor_fake::Cut;
use crate::store::ring::Defect;

const ROOT: u8 = 7;
const PAGES: usize = 8;

/// What a campaign did.
#[derive(Default)]
struct Counts {
    first: u64,
    second: u64,
}

/// How a campaign is run.
#[derive(Clone, Copy)]
struct Campaign {
    defect: Option<Defect>,
    error_correction: bool,
    /// A second cut at every so-manieth operation of the recovery.
    stride: usize,
}

impl Campaign {
    fn open<const W: usize, const P: usize>(self, flash: NorFake<W, P>) -> Store<NorFake<W, P>> {
        let mut ring = Ring::new(flash);
        ring.defect = self.defect;
        Store::open_ring(ring, root_key(ROOT))
    }

    /// Opens a flash whose power was cut, with power cut again at operation `n`, where given. Gives the flash and the state
    /// that the caller saw before that, if any.
    fn recover<const W: usize, const P: usize>(
        self,
        flash: &NorFake<W, P>,
        seed: u64,
        again: Option<(u64, Cut)>,
        allowed: &[Items],
    ) -> Result<(NorFake<W, P>, Option<Items>), String> {
        let mut flash = flash.clone();
        flash.power_on(seed);
        if let Some((n, cut)) = again {
            flash.cut_after(n, cut);
        }
        let mut store = self.open(flash);
        let seen = if store.ring.flash_mut().is_off() {
            None
        } else {
            Some(check(&mut store, allowed)?)
        };
        Ok((store.into_flash(), seen))
    }

    /// After all cuts: the state holds over one more power-off, boots are counted on, and a transaction works.
    fn go_on<const W: usize, const P: usize>(
        self,
        flash: &NorFake<W, P>,
        seed: u64,
        model: &Model,
        allowed: &[Items],
    ) -> Result<(), String> {
        let (mut flash, seen) = self.recover(flash, seed, None, allowed)?;
        flash.power_on(seed + 1);
        let mut store = self.open(flash);
        let items = seen.ok_or("power was never cut")?;
        check(&mut store, std::slice::from_ref(&items))?;
        let random = &mut Random(seed | 1);
        let step = Step::Transact {
            put: [(slot(5), random.bytes(11), random.bytes(24))].to_vec(),
            remove: [].to_vec(),
            end: super::model::End::Commit,
        };
        let model = Model {
            items,
            boots: model.boots,
        };
        let (model, end) = run(&mut store, &[Step::Boot, step], model)?;
        if end.len() != 1 {
            return Err("a transaction after recovery failed".into());
        }
        check(&mut store, &end)?;
        if store.has_residue() {
            return Err("residue after recovery".into());
        }
        let flash = store.into_flash();
        if flash.misuses() > 0 {
            return Err(format!("{} misuses of the flash", flash.misuses()));
        }
        let (_, _) = self.recover(&flash, seed + 2, None, &[model.items])?;
        Ok(())
    }

    /// Cuts power at operation `n` of a session, and then at every operation of the recovery.
    fn cut<const W: usize, const P: usize>(
        self,
        flash: &NorFake<W, P>,
        steps: &[Step],
        model: &Model,
        n: u64,
        cut: Cut,
    ) -> Result<u64, String> {
        let seed = n * 8 + cut as u64;
        let mut flash = flash.clone();
        flash.power_on(seed);
        flash.cut_after(n, cut);
        let mut store = self.open(flash);
        let (model, allowed) = if store.ring.flash_mut().is_off() {
            (model.clone(), [model.items.clone()].to_vec())
        } else {
            run(&mut store, steps, model.clone())?
        };
        let flash = store.into_flash();
        self.go_on(&flash, seed + 1, &model, &allowed)?;

        let mut second = 0;
        let (recovered, _) = self.recover(&flash, seed + 1, None, &allowed)?;
        for m in (0..recovered.operations()).step_by(self.stride) {
            for again in [Cut::Half, Cut::Unstable, Cut::After] {
                let (flash, seen) = self.recover(&flash, seed + 1, Some((m, again)), &allowed)?;
                let allowed = seen.map_or_else(|| allowed.clone(), |items| [items].to_vec());
                let checked = if again == Cut::Unstable {
                    self.go_on(&flash, seed + m, &model, &allowed)
                } else {
                    self.recover(&flash, seed + m, None, &allowed).map(|_| ())
                };
                checked.map_err(|error| format!("second cut {again:?} at {m}: {error}"))?;
                second += 1;
            }
        }
        Ok(second)
    }

    /// Cuts power at every operation of a session: before the first, and in every other way on each.
    fn session<const W: usize, const P: usize>(
        self,
        flash: &NorFake<W, P>,
        steps: &[Step],
        model: &Model,
        operations: u64,
    ) -> Result<Counts, String> {
        let mut counts = Counts::default();
        for n in 0..operations {
            for cut in Cut::ALL {
                // Before an operation is after the one before it.
                if cut != Cut::Before || n == 0 {
                    counts.second += self
                        .cut(flash, steps, model, n, cut)
                        .map_err(|error| format!("cut {cut:?} at {n} of {operations}: {error}"))?;
                    counts.first += 1;
                }
            }
        }
        Ok(counts)
    }

    /// Runs a whole history. `Err` says which promise was broken, and where.
    fn run<const W: usize, const P: usize>(self, sessions: &[Vec<Step>]) -> Result<Counts, String> {
        let mut flash = NorFake::<W, P>::new(PAGES);
        flash.set_error_correction(self.error_correction);
        let mut model = Model::default();
        let mut starts = Vec::new();
        for steps in sessions {
            let start = (flash.clone(), model.clone());
            flash.power_on(1);
            let mut store = self.open(flash);
            let (after, allowed) = run(&mut store, steps, model)?;
            if allowed.len() != 1 {
                return Err("a step fails without any cut".into());
            }
            check(&mut store, &allowed)?;
            flash = store.into_flash();
            model = after;
            starts.push((start, steps, flash.operations()));
        }
        let results: Vec<_> = thread::scope(|scope| {
            let run = |((flash, model), steps, operations): &(
                (NorFake<W, P>, Model),
                &Vec<Step>,
                u64,
            )| { self.session(flash, steps, model, *operations) };
            let threads: Vec<_> = starts
                .iter()
                .map(|start| scope.spawn(move || run(start)))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        let mut counts = Counts::default();
        for (number, result) in results.into_iter().enumerate() {
            let session = result.map_err(|error| format!("session {number}, {error}"))?;
            counts.first += session.first;
            counts.second += session.second;
        }
        Ok(counts)
    }
}

const PLAIN: Campaign = Campaign {
    defect: None,
    error_correction: false,
    stride: 1,
};

fn assert_survives<const W: usize, const P: usize>(campaign: Campaign, sessions: &[Vec<Step>]) {
    let counts = campaign
        .run::<W, P>(sessions)
        .unwrap_or_else(|error| panic!("{error}"));
    println!(
        "power-cut: {} cut points, {} second cuts (words of {W}, pages of {P} bytes)",
        counts.first, counts.second
    );
    assert!(counts.first > 0 && counts.second > counts.first);
}

#[test]
fn power_cut_anywhere_leaves_old_or_new_state() {
    assert_survives::<4, 256>(PLAIN, &history(1, 3));
}

#[test]
fn power_cut_with_other_word_sizes() {
    assert_survives::<32, 256>(PLAIN, &history(2, 0));
    assert_survives::<8, 512>(PLAIN, &history(3, 0)[..2]);
    // A format of words of one byte is a long recovery: a prime stride meets every place in a line all the same.
    assert_survives::<1, 256>(Campaign { stride: 7, ..PLAIN }, &shortest_history());
}

#[test]
fn power_cut_on_flash_that_refuses_to_read_torn_words() {
    assert_survives::<16, 256>(
        Campaign {
            error_correction: true,
            ..PLAIN
        },
        &history(5, 0),
    );
}

/// A checker that cannot fail proves nothing: each of these defects must be found.
#[test]
fn power_cut_finds_broken_stores() {
    for defect in [
        Defect::CommitFirst,
        Defect::EraseFirst,
        Defect::CommitUnsettled,
        Defect::TickLate,
    ] {
        let campaign = Campaign {
            defect: Some(defect),
            ..PLAIN
        };
        match campaign.run::<8, 256>(&history(1, 0)[..2]) {
            Ok(counts) => panic!("{defect:?} was not found in {} cuts", counts.first),
            Err(violation) => println!("power-cut: {defect:?} found: {violation}"),
        }
    }
}
