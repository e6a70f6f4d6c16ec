//! Detached orders, manifests, lists and names.

use keyferry::device::flow::{self, SignedOrder, Terms};
use keyferry::device::verify::digest;
use keyferry::hsm::PublicKey;
use keyferry::station::offline::{Batch, BatchKey, BatchOrder, DetachedOrder};
use keyferry_protocol::attributes::Attributes;
use keyferry_protocol::identity::Digest;
use keyferry_protocol::order::{self, Body, Kind};
use serde_json::{Value, json};

use super::certificates::public_key_pem;
use super::{Inputs, authority_key, recorded};
use crate::audited::ONCE;
use crate::software::{SoftAuthority, aes_key, hmac_key, wrap};

/// A detached order for the recorded device, by this authority.
fn detached(make: impl FnOnce(&SoftAuthority, Terms) -> (SignedOrder, Inputs)) -> DetachedOrder {
    let statement = &recorded().statement;
    let terms = Terms::detached(
        flow::address(statement),
        &statement.standing,
        1,
        Digest::ZERO,
    )
    .unwrap();
    let (order, blobs) = make(&SoftAuthority::new(0), terms);
    DetachedOrder::new(order, blobs, statement.clone()).expect("order and device fit")
}

/// An `Inject` with two keys, and a `Lock`.
fn detached_orders() -> [DetachedOrder; 2] {
    let inject = detached(|authority, terms| {
        let shipment = wrap(&recorded().statement, &[aes_key(16, 1), hmac_key(2)], 9);
        let order = flow::inject_order(authority, terms, &shipment, ONCE).expect("it fits");
        (order, shipment.blobs().cloned().collect())
    });
    let lock = detached(|authority, terms| {
        let order = flow::lock_order(authority, terms).expect("it fits");
        (order, Vec::new())
    });
    [inject, lock]
}

/// Files with detached orders.
pub(in crate::fuzz) fn order_files() -> Inputs {
    let json = |order: &DetachedOrder| order.to_json().expect("it fits");
    detached_orders().iter().map(json).collect()
}

/// A batch of one order.
fn batch() -> Vec<u8> {
    let [inject, _] = detached_orders();
    let (header, body) = order::decode(&inject.order.bytes).expect("it was made here");
    let key = |slot, version, label: &str, attributes: Attributes, proof| BatchKey {
        slot,
        version: Some(version),
        label: label.into(),
        id: vec![1],
        key_type: "aes-128".into(),
        attributes: attributes.into(),
        proof,
        answer: Some(Digest([4; 32])),
        fresh: true,
    };
    let keys = match &body {
        Body::Inject(inject) => inject
            .entries
            .iter()
            .map(|entry| {
                key(
                    entry.slot,
                    entry.version,
                    &entry.label,
                    entry.attributes,
                    entry.proof,
                )
            })
            .collect(),
        _ => Vec::new(),
    };
    let entry = BatchOrder {
        device: header.device,
        identity: header.identity,
        unwrap: header.unwrap,
        kind: Kind::Inject,
        order: inject.digest(),
        file: digest(b"file"),
        counter: header.counter,
        below: inject.below,
        suite: header.suite,
        keys,
    };
    let made = keyferry::audit::DateTime::new(2026, 1, 1, 0, 0, 0).expect("a date");
    let authority = PublicKey::from_spki_der(authority_key()).expect("a P-256 key");
    let batch = Batch::new([7; 16], made, authority, vec![entry]).expect("it is consistent");
    batch.to_json().expect("it is short")
}

/// One manifest of each format.
pub(in crate::fuzz) fn manifests() -> Inputs {
    let fingerprint = "ab".repeat(32);
    let device = "01".repeat(16);
    let blob = |suite: &str| json!({ "bytes": 288, "sha256": fingerprint, "suite": suite, "tail": "none" });
    let sidecar = json!({
        "format": "keyferry-export-1",
        "key": { "label": "k", "id": "0a", "type": "hmac-136", "class": "secret" },
        "attributes": { "sensitive": true, "extractable": true },
        "blob": { "bytes": 288, "sha256": fingerprint, "suite": "rsa-oaep-sha256", "tail": "zeros" },
        "recipient": { "type": "rsa-2048", "fingerprint": fingerprint },
        "proof": {
            "algorithm": "hmac-sha256",
            "input": hex::encode([&b"keyferry export\0"[..], &[7; 32]].concat()),
            "value": "00",
        },
        "signer": fingerprint,
    });
    let pair = json!({
        "format": "keyferry-export-1",
        "key": {
            "label": "k", "id": "0a", "type": "p-256", "class": "private",
            "public_key": public_key_pem(),
        },
        "attributes": { "sensitive": true, "sign": true },
        "public_attributes": { "verify": true },
        "blob": blob("ecdh-p256-null"),
        "recipient": { "type": "p-256", "fingerprint": fingerprint },
    });
    let backend = json!({
        "format": "keyferry-backend-1",
        "recipient": { "type": "rsa-2048", "fingerprint": fingerprint },
        "keys": [{
            "device": device, "slot": 3, "version": 7, "label": "cloud", "type": "aes-128",
            "attributes": {
                "type": "2400", "bits": 128, "usage": "00000c00", "algorithm": "03c00200", "lifetime": "00000001",
            },
            "made": "sp800-108-counter",
            "master": { "label": "m", "id": "01" },
            "file": format!("{device}-3.backend"),
            "blob": blob("rsa-oaep-sha256"),
            "for_device": {
                "file": format!("{device}-3.device"),
                "blob": blob("ecdh-p256-null"),
                "recipient": { "type": "p-256", "fingerprint": fingerprint },
            },
        }],
        "signer": fingerprint,
    });
    let bytes = |value: &Value| serde_json::to_vec(value).expect("JSON can be written");
    let mut inputs: Inputs = [&sidecar, &pair, &backend].map(bytes).to_vec();
    inputs.push(batch());
    inputs
}

/// Lists of both kinds.
pub(in crate::fuzz) fn lists() -> Inputs {
    let (first, second) = ("01".repeat(16), "02".repeat(16));
    let (one, two) = ("aa".repeat(32), "bb".repeat(32));
    [
        format!("# expected today\n{first}\n{second}  # a comment\n"),
        format!("device,identity\n{first},{one}\n{second}; {two}\n"),
        format!("\u{feff}{first}\r\n\r\n{second}\r\n"),
    ]
    .map(String::into_bytes)
    .to_vec()
}

/// Names of all kinds.
pub(in crate::fuzz) fn names() -> Inputs {
    [
        "pkcs11:token=The%20Line%20%231;serial=0a;object=m%C3%BCller;id=%69%00%ff;type=private\
         ?module-path=/opt/my%20hsm/lib.so&module-name=my%2dhsm&pin-source=file:/etc/pin&init-reserved=dir%3D%27a%20b%27",
        "pkcs11:token=my-token?module-path=/usr/lib/softhsm/libsofthsm2.so",
        "pkcs11:manufacturer=a;model=b;type=secret-key?pin-source=env:PIN",
        "pkcs11:",
        "CN=Factory 1,O=Example",
        "serialNumber=A\\,1+CN=b",
        "A-0001/B",
        "aes-256",
        "rsa-2048",
    ]
    .map(|name| name.as_bytes().to_vec())
    .to_vec()
}

/// The example plans.
pub(in crate::fuzz) fn plans() -> Inputs {
    [
        &include_bytes!("../../../../host/plans/factory.toml")[..],
        include_bytes!("../../../../host/plans/developer.toml"),
        include_bytes!("../../../../host/plans/ci.toml"),
    ]
    .map(<[u8]>::to_vec)
    .to_vec()
}
