//! Files and names that come from elsewhere: manifests of exports, detached orders, lists that people write, PKCS#11 URIs.

use std::collections::BTreeSet;

use keyferry::certificate::{Serial, parse_subject};
use keyferry::export::{ExportError, Manifest, Sidecar, Signer, Trust};
use keyferry::hsm::{KeyType, PinSource, PublicKey, SpecError, is_uri, parse};
use keyferry::station::offline::{Batch, DetachedOrder, check_answer};
use keyferry::station::plan::{KeyPlan, KeySource, MAXIMUM_PORTS, Plan};
use keyferry::station::policy::{Allowlist, ListError, MAXIMUM_LISTED, SerialList};
use keyferry_protocol::MAX_ENTRIES;
use keyferry_protocol::proof::Level;

use super::seeds;

/// The document beside an exported key, the manifest of keys for a backend, or that of a batch of orders.
pub(super) fn manifest(data: &[u8]) -> bool {
    // The end of the input as a signature: none is right.
    let key = PublicKey::from_spki_der(seeds::authority_key()).expect("a P-256 key");
    let signer = Signer::new(&key).expect("a P-256 key");
    let (document, signature) = data.split_at(data.len().saturating_sub(70));
    let trust = Trust::Signer(&signer);
    assert!(Sidecar::read(document, Some(signature), trust).is_err());
    assert!(matches!(
        Batch::read(data, None, trust),
        Err(ExportError::Unsigned)
    ));

    let trust = Trust::Unauthenticated;
    let sidecar = Sidecar::read(data, None, trust).is_ok_and(|sidecar| {
        let json = sidecar.to_json().expect("it is not much longer");
        let again = Sidecar::read(&json, None, trust).expect("what was written is read");
        assert_eq!(again, sidecar);
        true
    });
    let manifest = Manifest::read(data, None, trust).is_ok_and(|manifest| {
        let json = manifest.to_json().expect("it is not much longer");
        let again = Manifest::read(&json, None, trust).expect("what was written is read");
        assert_eq!(again, manifest);
        for (file, blob) in manifest.keys.iter().flat_map(|key| key.files()) {
            assert!(blob.bytes > 0);
            assert!(!file.contains(['/', '\\']), "no file is elsewhere");
        }
        true
    });
    let batch = Batch::read(data, None, trust).is_ok_and(|batch| {
        let json = batch.to_json().expect("it is not much longer");
        let again = Batch::read(&json, None, trust).expect("what was written is read");
        assert_eq!(again, batch);
        for order in &batch.orders {
            assert!(!order.file_name().contains(['/', '\\']));
            assert_eq!(batch.order_for(order.device), Some(order));
        }
        true
    });
    sidecar || manifest || batch
}

/// A detached order.
pub(super) fn order_file(data: &[u8]) -> bool {
    let Ok(order) = DetachedOrder::read(data) else {
        return false;
    };
    order.body().expect("it was looked at");
    // The statement is signed, but it does not answer this order.
    assert!(check_answer(&order, &order.statement.receipt).is_err());
    if let Ok(json) = order.to_json() {
        let again = DetachedOrder::read(&json).expect("what was written is read");
        assert_eq!(again.digest(), order.digest());
        assert_eq!(again.blobs, order.blobs);
    }
    true
}

/// A list of ids that are expected, or of devices that are allowed.
pub(super) fn list(data: &[u8]) -> bool {
    let serials = SerialList::read("a list", data);
    if let Ok(list) = &serials {
        assert!(list.ids().count() <= MAXIMUM_LISTED);
        assert!(list.ids().all(|id| list.contains(id)));
    }
    let allowed = Allowlist::read("a list", data);
    for error in [serials.as_ref().err(), allowed.as_ref().err()] {
        error.into_iter().for_each(assert_bounded);
    }
    serials.is_ok() || allowed.is_ok()
}

/// What is told of a list is for a person's terminal.
fn assert_bounded(error: &ListError) {
    let text = error.to_string();
    assert!(!error.mistakes.is_empty());
    assert!(text.len() < 8 * 1024);
    assert!(!text.chars().any(char::is_control), "{text:?}");
}

/// A station's plan.
pub(super) fn plan(data: &[u8]) -> bool {
    match Plan::read("a plan", data) {
        Ok(plan) => {
            assert!((1..=MAX_ENTRIES).contains(&plan.keys.len()));
            let slots: BTreeSet<_> = plan.keys.iter().map(|key| key.slot).collect();
            assert_eq!(slots.len(), plan.keys.len(), "one key for a slot");
            assert!(plan.ports.len() <= MAXIMUM_PORTS);
            assert!(plan.minimum_proof != Level::None && !plan.suites.is_empty());
            let fresh = |key: &KeyPlan| matches!(key.source, KeySource::Fresh { .. });
            assert!(plan.hsm.keep_under.is_some() || !plan.keys.iter().any(fresh));
            true
        }
        Err(error) => {
            // It is for a person's terminal, and names places that are in the text.
            assert!(!error.mistakes.is_empty() && error.mistakes.len() <= 50);
            let lines = data.iter().filter(|byte| **byte == b'\n').count() + 1;
            for mistake in &error.mistakes {
                assert!((1..=lines).contains(&mistake.place.line));
                let text = format!("{}{}", mistake.what, mistake.what.hint());
                assert!(text.len() < 2048);
                assert!(!text.chars().any(char::is_control), "{text:?}");
            }
            false
        }
    }
}

/// What people write to name things: PKCS#11 URIs, subjects and serial numbers of certificates, types of keys.
pub(super) fn name(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else {
        return false;
    };
    let uri = parse(text);
    if text.to_ascii_lowercase().contains("pin-value") {
        assert!(is_uri(text));
        assert_eq!(uri, Err(SpecError::PinValue));
    }
    match &uri {
        Ok((token, key)) => {
            // What a message says of them.
            let _ = (token.to_string(), key.to_string());
            if let Some(source) = &token.pin_source {
                let _ = PinSource::from_uri(source);
            }
        }
        Err(error) => {
            let _ = (error.to_string(), error.hint());
        }
    }
    let subject = parse_subject(text).is_ok();
    let serial = Serial::product(text).is_ok_and(|serial| {
        assert_eq!(serial.as_str(), text);
        true
    });
    let key_type = KeyType::from_name(text).is_some_and(|key_type| {
        assert_eq!(key_type.to_string(), text);
        true
    });
    uri.is_ok() || subject || serial || key_type
}
