//! The model that the store is held against, and histories to run on both.

use std::collections::BTreeMap;
use std::string::String;
use std::vec::Vec;
use std::{format, vec};

use super::*;

/// Items with their public and secret parts.
pub(super) type Items = BTreeMap<ItemId, Parts>;

/// The ten-line model.
#[derive(Clone, Default)]
pub(super) struct Model {
    pub(super) items: Items,
    /// The highest boot count that was given out.
    pub(super) boots: u32,
}

/// How a transaction ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Commit,
    Abort,
    /// By the next transaction's beginning, or by power-off.
    LeftOpen,
}

/// One thing a device does with its store.
#[derive(Clone)]
pub(super) enum Step {
    Boot,
    Transact {
        put: Vec<(ItemId, Vec<u8>, Vec<u8>)>,
        remove: Vec<ItemId>,
        end: End,
    },
}

impl Model {
    /// The items after a step.
    pub(super) fn after(&self, step: &Step) -> Items {
        let mut items = self.items.clone();
        if let Step::Transact {
            put,
            remove,
            end: End::Commit,
        } = step
        {
            items.retain(|id, _| !remove.contains(id));
            items.extend(
                put.iter()
                    .map(|(id, public, secret)| (*id, (public.clone(), secret.clone()))),
            );
        }
        items
    }
}

/// A small generator, so that histories are the same on every machine.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 24) % limit
    }

    pub(super) fn bytes(&mut self, length: u64) -> Vec<u8> {
        (0..length)
            .map(|_| u8::try_from(self.below(256)).unwrap())
            .collect()
    }
}

fn transact(random: &mut Random, ids: &[(ItemId, u64, u64)], remove: &[ItemId], end: End) -> Step {
    let put = ids
        .iter()
        .map(|(id, public, secret)| (*id, random.bytes(*public), random.bytes(*secret)))
        .collect();
    Step::Transact {
        put,
        remove: remove.to_vec(),
        end,
    }
}

/// Sessions between power-on and power-off: a scripted life of a device, then `extra` random ones.
pub(super) fn history(seed: u64, extra: usize) -> Vec<Vec<Step>> {
    use End::{Abort, Commit, LeftOpen};
    let random = &mut Random(seed);
    let mut sessions = vec![
        // Enrolment.
        vec![
            Step::Boot,
            transact(
                random,
                &[
                    (ItemId::META, 20, 0),
                    (ItemId::IDENTITY, 5, 32),
                    (ItemId::UNWRAP, 5, 40),
                ],
                &[],
                Commit,
            ),
        ],
        // Several keys in one order, the store growing by pages.
        vec![
            Step::Boot,
            transact(
                random,
                &[(slot(0), 9, 16), (slot(1), 30, 48), (ItemId::META, 20, 0)],
                &[],
                Commit,
            ),
        ],
        // An order that fails halfway, one that is given up, then one that removes and replaces.
        vec![
            transact(random, &[(slot(2), 9, 32)], &[], Abort),
            transact(random, &[(slot(3), 9, 16)], &[slot(0)], LeftOpen),
            transact(
                random,
                &[(slot(1), 12, 7), (ItemId::META, 20, 0)],
                &[slot(0)],
                Commit,
            ),
        ],
        // Nothing but a counter; and a power-off in the middle of an order.
        vec![
            transact(random, &[(ItemId::META, 20, 0)], &[], Commit),
            transact(random, &[(slot(2), 80, 16)], &[], LeftOpen),
        ],
        // Boots until the ticks are used up and a new snapshot is needed.
        vec![Step::Boot; 9],
        // Wipe.
        vec![
            Step::Boot,
            transact(
                random,
                &[],
                &[ItemId::IDENTITY, ItemId::UNWRAP, slot(1)],
                Commit,
            ),
        ],
    ];
    for _ in 0..extra {
        let mut session = vec![];
        for _ in 0..1 + random.below(2) {
            if random.below(3) == 0 {
                session.push(Step::Boot);
                continue;
            }
            let mut ids = vec![];
            for _ in 0..random.below(3) {
                let number = u16::try_from(random.below(4)).unwrap();
                if !ids.iter().any(|(id, _, _)| *id == slot(number)) {
                    ids.push((slot(number), random.below(40), random.below(40)));
                }
            }
            let gone = slot(u16::try_from(random.below(4)).unwrap());
            let removed = if ids.iter().any(|(id, _, _)| *id == gone) {
                vec![]
            } else {
                vec![gone]
            };
            let end = [Commit, Commit, Commit, Abort, LeftOpen]
                [usize::try_from(random.below(5)).unwrap()];
            session.push(transact(random, &ids, &removed, end));
        }
        sessions.push(session);
    }
    sessions
}

/// One session that formats, boots and stores one small item.
pub(super) fn shortest_history() -> Vec<Vec<Step>> {
    vec![vec![
        Step::Boot,
        transact(&mut Random(9), &[(ItemId::META, 8, 0)], &[], End::Commit),
    ]]
}

/// Runs a step on the store. An error of the store ends it.
fn perform<F: NorFlash>(
    store: &mut Store<F>,
    step: &Step,
    model: &mut Model,
) -> Result<Result<(), StoreError>, String> {
    match step {
        Step::Boot => match store.next_boot() {
            Ok(count) if count > model.boots => {
                model.boots = count;
                Ok(Ok(()))
            }
            Ok(count) => Err(format!("boot count {count} given after {}", model.boots)),
            Err(error) => Ok(Err(error)),
        },
        Step::Transact { put, remove, end } => {
            let mut transact = || {
                let puts = put
                    .iter()
                    .map(|(id, public, secret)| super::put(*id, public, secret));
                store.begin(remove.iter().map(|id| Change::Remove(*id)).chain(puts))?;
                for (id, public, secret) in put {
                    store.put(*id, public, Some(&mut secret.clone()))?;
                }
                match end {
                    End::Commit => store.commit(),
                    End::Abort => {
                        store.abort();
                        Ok(())
                    }
                    End::LeftOpen => Ok(()),
                }
            };
            Ok(transact())
        }
    }
}

/// Runs a session until its end or the first error. Gives the model, and the states the store may then be in: one, or
/// before and after the step that failed.
pub(super) fn run<F: NorFlash>(
    store: &mut Store<F>,
    steps: &[Step],
    mut model: Model,
) -> Result<(Model, Vec<Items>), String> {
    for step in steps {
        let after = model.after(step);
        match perform(store, step, &mut model)? {
            Ok(()) => model.items = after,
            Err(_) => {
                let before = model.items.clone();
                return Ok((model, vec![before, after]));
            }
        }
    }
    let items = model.items.clone();
    Ok((model, vec![items]))
}

/// Checks that the store is in one of the `allowed` states, completely, and gives that state.
pub(super) fn check<F: NorFlash>(store: &mut Store<F>, allowed: &[Items]) -> Result<Items, String> {
    if store.condition() != Condition::Ready {
        return Err(format!("{:?}", store.condition()));
    }
    let ids: Vec<ItemId> = store.ids().collect();
    let mut found = Items::new();
    for id in ids {
        let parts = get(store, id).map_err(|error| format!("item {}: {error}", id.number()))?;
        found.insert(
            id,
            parts.ok_or_else(|| format!("item {} listed but not there", id.number()))?,
        );
    }
    if allowed.contains(&found) {
        Ok(found)
    } else {
        Err(format!("neither old nor new state: {found:02x?}"))
    }
}
