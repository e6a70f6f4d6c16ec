//! Tests of the store: power cuts against a model, damage, wear, and the alternative that was not taken.

mod anew;
mod basic;
mod bounds;
mod damage;
mod format;
mod model;
mod power_cut;
mod sequential;
mod worn;

use std::vec::Vec;

use super::nor_fake::NorFake;
use super::*;

/// A root key that a test can tell from others by `number`.
fn root_key(number: u8) -> RootKey {
    let mut key = RootKey::zeroed();
    key.expose_mut().fill(number);
    key
}

fn slot(number: u16) -> ItemId {
    ItemId::slot(number).unwrap()
}

fn put(id: ItemId, public: &[u8], secret: &[u8]) -> Change {
    Change::Put {
        id,
        public: public.len(),
        secret: secret.len(),
    }
}

/// Puts one item in a transaction of its own.
fn put_one<F: NorFlash>(
    store: &mut Store<F>,
    id: ItemId,
    public: &[u8],
    secret: &[u8],
) -> Result<(), StoreError> {
    store.begin([put(id, public, secret)])?;
    store.put(id, public, Some(&mut secret.to_vec()))?;
    store.commit()
}

/// Public and secret part of an item.
type Parts = (Vec<u8>, Vec<u8>);

/// Both parts of an item, `None` if it is not there.
fn get<F: NorFlash>(store: &mut Store<F>, id: ItemId) -> Result<Option<Parts>, StoreError> {
    let mut buf = [0; MAX_PUBLIC];
    let Some(public) = store.public(id, &mut buf)?.map(<[u8]>::to_vec) else {
        return Ok(None);
    };
    let secret = store
        .secret(id, &mut buf)?
        .map(|secret| secret.to_vec())
        .unwrap_or_default();
    Ok(Some((public, secret)))
}

/// Whether `haystack` has an 8-byte window of `needle`.
fn shows(haystack: &[u8], needle: &[u8]) -> bool {
    needle
        .windows(8)
        .any(|window| haystack.windows(8).any(|found| found == window))
}
