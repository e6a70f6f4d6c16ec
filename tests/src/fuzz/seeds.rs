//! Valid inputs to begin with: the frozen vectors, a session with a device on the desk as its station's audit log has recorded
//! it, and one of each file.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use keyferry::audit::{Event, Record, Seen, Witness, WitnessReceipt, signed_bytes};
use keyferry::broker::wire::{self, Card, Claim, Class, KeptKey, Wanted};
use keyferry::certificate::{
    CERTIFICATE_LABEL, CaCertificate, DeviceCa, Identity, Issuer, REQUEST_LABEL, Validity,
    parse_subject, request, self_signed, to_pem,
};
use keyferry::device::flow::{self, Authority, SignedOrder, Terms};
use keyferry::device::verify::{Statement, digest};
use keyferry::hsm::PublicKey;
use keyferry::station::offline::{Batch, BatchKey, BatchOrder, DetachedOrder};
use keyferry_protocol::MAX_MESSAGE;
use keyferry_protocol::attributes::Attributes;
use keyferry_protocol::identity::{Challenge, DeviceId, Digest, Fingerprint, Signature};
use keyferry_protocol::message::{Hello, Progress, Reply, Request, SlotInfo, Task};
use keyferry_protocol::order::{self, Body, Kind, Remove};
use keyferry_protocol::proof::Proof;
use keyferry_protocol::receipt::{Refusal, State};
use keyferry_protocol::suite::Suite;
use serde_json::{Value, json};

use super::certificates::now;
use crate::audited::{ONCE, Station, header};
use crate::desk::{Desk, OnDesk};
use crate::software::{SoftAuthority, aes_key, hmac_key, p256_key, wrap};

type Inputs = Vec<Vec<u8>>;

/// A signature that is nobody's.
const SIGNATURE: Signature = Signature {
    r: [0x52; 32],
    s: [0x53; 32],
};

/// What happened in one session.
struct Recorded {
    log: Vec<u8>,
    records: Vec<Record>,
    anchors: Vec<Seen>,
    statement: Statement,
}

/// A device is enrolled, gets three keys, proves one, loses one, is asked for something it refuses, and is locked.
fn recorded() -> &'static Recorded {
    static RECORDED: OnceLock<Recorded> = OnceLock::new();
    RECORDED.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("log");
        let station = Station::new(&path);
        let device = OnDesk::start(Desk::new(1, 16));
        let (mut session, statement) = station.visit(&device);
        station.inject(
            &mut session,
            &statement,
            &[aes_key(16, 1), hmac_key(2), p256_key(3)],
        );
        drop(session);
        let (mut session, statement) = station.visit(&device);
        station.prove(&mut session, &statement, &[(0, Proof::Cmac)]);
        drop(session);
        let anchor = station.log.lock().checkpoint(&station.audit_key);
        let mut anchors = vec![Seen::Checkpoint(anchor.expect("the log can be written"))];
        let more = [
            Body::Remove(Remove {
                slots: std::iter::once(0).collect(),
            }),
            Body::Lock,
            Body::Wipe,
        ];
        for body in more {
            station
                .order(header(body.kind(), &statement), &body)
                .expect("the log can be written");
        }
        station
            .log
            .lock()
            .note("a note of a person: ümläut")
            .expect("the log can be written");
        let log = fs::read(&path).expect("it was written");
        let records: Vec<Record> = lines(&log)
            .map(|line| Record::read(line).expect("it was written here"))
            .collect();
        anchors.extend(witness(&records));
        Recorded {
            log,
            records,
            anchors,
            statement,
        }
    })
}

fn lines(log: &[u8]) -> impl Iterator<Item = &[u8]> {
    log.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
}

/// The first order with its receipt, and by itself, as something that has seen the log.
fn witness(records: &[Record]) -> Vec<Seen> {
    let ordered = records.iter().find_map(|record| match &record.event {
        Event::Ordered(ordered) => Some(ordered),
        _ => None,
    });
    let received = records.iter().find_map(|record| match &record.event {
        Event::Received(received) => Some(received),
        _ => None,
    });
    let (Some(ordered), Some(received)) = (ordered, received) else {
        return Vec::new();
    };
    let alone = Witness {
        order: ordered.order.clone(),
        signature: ordered.signature,
        receipt: None,
    };
    let answered = Witness {
        receipt: Some(WitnessReceipt {
            identity_key: received.identity_key.clone(),
            receipt: received.receipt.clone(),
            signature: received.signature,
        }),
        ..alone.clone()
    };
    vec![Seen::Witness(alone), Seen::Witness(answered)]
}

/// The frozen vectors whose names begin like this.
fn vectors(prefix: &str) -> Inputs {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/vectors");
    let mut paths: Vec<_> = fs::read_dir(&folder)
        .expect("the vectors are in their folder")
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with(prefix))
        })
        .collect();
    paths.sort();
    let read = |path| {
        let digits = fs::read_to_string(path).expect("a vector can be read");
        hex::decode(digits.trim()).expect("a vector is in hexadecimal digits")
    };
    paths.into_iter().map(read).collect()
}

/// Orders of every kind.
pub(super) fn orders() -> Inputs {
    let recorded = recorded().records.iter();
    let orders = recorded.filter_map(|record| match &record.event {
        Event::Ordered(ordered) => Some(ordered.order.clone()),
        _ => None,
    });
    vectors("order-").into_iter().chain(orders).collect()
}

/// Receipts and a status.
pub(super) fn receipts() -> Inputs {
    let recorded = recorded().records.iter();
    let receipts = recorded.filter_map(|record| match &record.event {
        Event::Received(received) => Some(received.receipt.clone()),
        _ => None,
    });
    [vectors("receipt-"), vectors("status")]
        .concat()
        .into_iter()
        .chain(receipts)
        .collect()
}

/// Every message of a station.
pub(super) fn requests() -> Inputs {
    let (bytes, orders) = ([7; 40], orders());
    let order = |second, order| Request::Order {
        signature: SIGNATURE,
        second,
        order,
    };
    let mut requests = vec![
        Request::Hello { min: 0, max: 3 },
        Request::Blob { bytes: &bytes },
        Request::Status {
            order: Digest([1; 32]),
            nonce: Challenge([2; 32]),
        },
        Request::List,
        Request::Echo { bytes: &bytes },
        Request::Certificate,
        Request::Rate { baud: 921_600 },
        order(Some(SIGNATURE), &bytes),
    ];
    requests.extend(orders.iter().map(|bytes| order(None, bytes)));
    let encode = |request: &Request<'_>| {
        let mut room = [0; MAX_MESSAGE];
        request.encode(&mut room).expect("it fits").to_vec()
    };
    requests.iter().map(encode).collect()
}

/// Every message of a device.
pub(super) fn replies() -> Inputs {
    let (bytes, receipts) = ([7; 40], receipts());
    let slot = SlotInfo {
        slot: 3,
        version: 7,
        attributes: aes_key(16, 1).attributes,
        label: "telemetry".try_into().expect("it is short"),
    };
    let mut replies = vec![
        Reply::Hello(Hello {
            version: 0,
            device: DeviceId([1; 16]),
            identity: Fingerprint([2; 32]),
            unwrap: Fingerprint([3; 32]),
            authority: Fingerprint([4; 32]),
            state: State::Provisioned,
            counter: 9,
            challenge: ONCE,
            certified: true,
            board: "desk",
            firmware: "0.0.0",
        }),
        Reply::Progress(Progress {
            task: Task::Store,
            done: 1,
            total: 300,
        }),
        Reply::Refused(Refusal::Stale),
        Reply::Slots(std::iter::once(slot).collect()),
        Reply::Echo { bytes: &bytes },
        Reply::Certificate { bytes: &bytes },
        Reply::Rate { baud: 921_600 },
        Reply::Status {
            signature: SIGNATURE,
            status: &bytes,
        },
    ];
    replies.extend(receipts.iter().map(|receipt| Reply::Receipt {
        signature: SIGNATURE,
        receipt,
    }));
    let encode = |reply: &Reply<'_>| {
        let mut room = [0; MAX_MESSAGE];
        reply.encode(&mut room).expect("it fits").to_vec()
    };
    replies.iter().map(encode).collect()
}

/// What passes through the broker's socket.
pub(super) fn broker_frames() -> Inputs {
    let card = Card {
        label: "telemetry".into(),
        id: vec![1, 2],
        key_type: "aes-128".into(),
        attributes: aes_key(16, 1).attributes,
        proof: Proof::Cmac,
        kept: Some(KeptKey {
            under: "keeper".into(),
            blob: vec![5; 24],
            public_key: Some(vec![6; 10]),
        }),
    };
    let claim = Claim {
        receipt: recorded().statement.receipt.bytes.clone(),
        signature: SIGNATURE,
        certificate: Some(vec![1; 20]),
    };
    let requests = [
        wire::Request::Describe,
        wire::Request::Status,
        wire::Request::Key(Wanted {
            label: Some("telemetry".into()),
            id: Some(vec![1]),
            class: Some(Class::Private),
            device_use: Some("sign".into()),
        }),
        wire::Request::Fresh {
            label: "telemetry".into(),
            key_type: "aes-128".into(),
            device_use: None,
            keep_under: "keeper".into(),
        },
        wire::Request::Suites,
        wire::Request::Enrolled(claim.clone()),
        wire::Request::Wrap {
            claim: claim.clone(),
            suite: Suite::EcdhP256Null,
            keys: vec![card.clone()],
        },
        wire::Request::Certify {
            claim,
            serial: Some("A-1".into()),
        },
        wire::Request::Ask(card.clone()),
        wire::Request::Verify {
            key: card.clone(),
            question: vec![1; 32],
            answer: Some(Digest([2; 32])),
            input: vec![3; 66],
            value: vec![4; 16],
        },
        wire::Request::SignOrder(orders().pop().unwrap_or_default()),
        wire::Request::SignCheckpoint {
            log: [1; 16],
            lines: 300,
            head: Digest([2; 32]),
            time: 1_780_000_000,
        },
        wire::Request::SignBatch(b"{}".to_vec()),
    ];
    let replies = [
        wire::Reply::Described(wire::Described {
            token: "a token".into(),
            authority: authority_key().to_vec(),
            auditor: None,
            certifies: true,
        }),
        wire::Reply::Status(Box::default()),
        wire::Reply::Key(card),
        wire::Reply::Suites(vec![Suite::RsaOaepSha256]),
        wire::Reply::Noted,
        wire::Reply::Wrapped {
            suite: Suite::EcdhP256Null,
            recipient: Fingerprint([1; 32]),
            kek: vec![4; 65],
            blobs: vec![vec![5; 24]; 2],
        },
        wire::Reply::Certificate(Some(vec![1; 20])),
        wire::Reply::Question {
            bytes: vec![1; 20],
            secret: Some([2; 32]),
        },
        wire::Reply::Verdict(true),
        wire::Reply::Signature(SIGNATURE),
        wire::Reply::Failed(wire::Failed {
            exit: 5,
            error: "refused".into(),
            hint: Some("ask".into()),
        }),
    ];
    let encode_request = |value| wire::encode(value).expect("it fits");
    let encode_reply = |value| wire::encode(value).expect("it fits");
    let requests = requests.iter().map(encode_request);
    requests.chain(replies.iter().map(encode_reply)).collect()
}

/// The lines of the log, and a checkpoint's signed bytes.
pub(super) fn audit_lines() -> Inputs {
    let mut inputs: Inputs = lines(&recorded().log).map(<[u8]>::to_vec).collect();
    inputs.extend(recorded().anchors.iter().filter_map(|seen| match seen {
        Seen::Checkpoint(point) => Some(signed_bytes(
            &point.log,
            point.lines,
            &point.head,
            point.time,
        )),
        Seen::Witness(_) => None,
    }));
    inputs
}

/// The log, and shorter ones.
pub(super) fn audit_logs() -> Inputs {
    let log = &recorded().log;
    let lines: Vec<_> = log.split_inclusive(|byte| *byte == b'\n').collect();
    vec![
        log.clone(),
        lines.iter().take(3).copied().collect::<Vec<_>>().concat(),
        lines.iter().take(1).copied().collect::<Vec<_>>().concat(),
    ]
}

/// A checkpoint and witnesses.
pub(super) fn anchors() -> Inputs {
    let json = |seen: &Seen| seen.to_json().expect("it can be written").into_bytes();
    recorded().anchors.iter().map(json).collect()
}

/// A detached order for the recorded device, by this authority.
fn detached(make: impl FnOnce(&SoftAuthority, Terms) -> (SignedOrder, Inputs)) -> DetachedOrder {
    let statement = &recorded().statement;
    let terms = Terms::detached(
        flow::address(statement),
        &statement.standing,
        1,
        Digest::ZERO,
    );
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
pub(super) fn order_files() -> Inputs {
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
pub(super) fn manifests() -> Inputs {
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
pub(super) fn lists() -> Inputs {
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
pub(super) fn names() -> Inputs {
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

/// The key of the CA that the target trusts.
fn ca_authority() -> SoftAuthority {
    SoftAuthority::new(50)
}

/// The certificate of that CA, in DER. Its own number is another one in each process; nothing looks at that.
fn ca_certificate() -> &'static [u8] {
    static CERTIFICATE: OnceLock<Vec<u8>> = OnceLock::new();
    CERTIFICATE.get_or_init(|| {
        let subject = parse_subject("CN=Factory 1,O=Example").expect("a subject");
        self_signed(&ca_authority(), &subject, Validity::Unlimited, now()).expect("a certificate")
    })
}

/// What the target trusts.
pub(super) fn trusted() -> &'static DeviceCa {
    static TRUSTED: OnceLock<DeviceCa> = OnceLock::new();
    TRUSTED.get_or_init(|| DeviceCa::new(&[ca_certificate()]).expect("a CA's certificate"))
}

/// The key of an authority, P-256 `SubjectPublicKeyInfo` DER.
pub(super) fn authority_key() -> &'static [u8] {
    static KEY: OnceLock<Vec<u8>> = OnceLock::new();
    KEY.get_or_init(|| SoftAuthority::new(0).public_key().to_vec())
}

/// A device's certificate, in DER.
fn device_certificate() -> Vec<u8> {
    let authority = ca_authority();
    let ca = CaCertificate::read(ca_certificate()).expect("a CA's certificate");
    let issuer = Issuer::new(&authority, ca).expect("key and certificate fit");
    let identity = Identity {
        serial: DeviceId([1; 16]).into(),
        organization: Some("Example"),
        common_name: Some("desk"),
        key: authority_key(),
    };
    issuer.issue(&identity, now()).expect("a certificate")
}

/// Certificates of a CA and of a device, and a request, in DER and in PEM.
pub(super) fn certificates() -> Inputs {
    let subject = parse_subject("CN=Factory 1,O=Example").expect("a subject");
    let request = request(&ca_authority(), &subject).expect("a request");
    let (ca, device) = (ca_certificate().to_vec(), device_certificate());
    let pem = |label, der: &[u8]| to_pem(label, der).expect("it can be written").into_bytes();
    vec![
        pem(CERTIFICATE_LABEL, &ca),
        [pem(CERTIFICATE_LABEL, &ca), pem(CERTIFICATE_LABEL, &device)].concat(),
        pem(REQUEST_LABEL, &request),
        ca,
        device,
        request,
    ]
}

fn public_key_pem() -> String {
    PublicKey::from_spki_der(authority_key())
        .expect("a P-256 key")
        .to_pem()
}

/// Public keys of every type, in every form.
pub(super) fn public_keys() -> Inputs {
    let rsa = PublicKey::from_rsa(&[0xc1; 256], &[1, 0, 1]).expect("numbers of an RSA key");
    let edwards = PublicKey::from_ed25519(&[7; 32]).expect("32 bytes");
    let p384 = {
        // OID secp384r1, 1.3.132.0.34; only the length of the point is checked.
        let curve = [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
        let point = [&[4][..], &[9; 96]].concat();
        PublicKey::from_ec(&curve, &point).expect("a point of the right length")
    };
    let certificate = to_pem(CERTIFICATE_LABEL, &device_certificate()).expect("it can be written");
    vec![
        authority_key().to_vec(),
        public_key_pem().into_bytes(),
        rsa.spki_der().to_vec(),
        rsa.to_pem().into_bytes(),
        edwards.spki_der().to_vec(),
        p384.spki_der().to_vec(),
        certificate.into_bytes(),
    ]
}
