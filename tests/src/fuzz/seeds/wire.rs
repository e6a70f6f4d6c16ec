//! Messages between station and device, and what passes through the broker's socket.

use keyferry::broker::wire::{self, Card, Claim, Class, KeptKey, Wanted};
use keyferry_protocol::MAX_MESSAGE;
use keyferry_protocol::identity::{Challenge, DeviceId, Digest, Fingerprint, Hint, Signature};
use keyferry_protocol::message::{Hello, Progress, Reply, Request, SlotInfo, Task};
use keyferry_protocol::proof::Proof;
use keyferry_protocol::receipt::{Refusal, State};
use keyferry_protocol::suite::Suite;

use super::{Inputs, authority_key, orders, receipts, recorded};
use crate::audited::ONCE;
use crate::software::aes_key;

/// A signature that is nobody's.
const SIGNATURE: Signature = Signature {
    r: [0x52; 32],
    s: [0x53; 32],
};

/// Every message of a station.
pub(in crate::fuzz) fn requests() -> Inputs {
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
        Request::Failed,
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
pub(in crate::fuzz) fn replies() -> Inputs {
    let (bytes, receipts) = ([7; 40], receipts());
    let slot = SlotInfo {
        slot: 3,
        version: 7,
        attributes: aes_key(16, 1).attributes,
        label: "telemetry".try_into().expect("it is short"),
    };
    let mut room = [0; SlotInfo::MAX_LENGTH];
    let table = slot.encode(&mut room).expect("it fits").to_vec();
    let mut replies = vec![
        Reply::Hello(Hello {
            version: 0,
            device: DeviceId([1; 16]),
            identity: Fingerprint([2; 32]),
            authority: Hint([4; 4]),
            state: State::Provisioned,
            counter: 9,
            challenge: ONCE,
            certified: true,
            board: "desk",
            firmware: "0.0.0",
        }),
        Reply::Progress(Progress {
            task: Task::Prove,
            done: 1,
            total: 300,
        }),
        Reply::Refused(Refusal::Stale),
        Reply::Slots { table: &table },
        Reply::Echo { bytes: &bytes },
        Reply::Certificate { bytes: &bytes },
        Reply::Rate { baud: 921_600 },
        Reply::Failed,
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
pub(in crate::fuzz) fn broker_frames() -> Inputs {
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
