//! What crosses the wire, once the link has taken its frame off: messages, orders, receipts.
//!
//! What decodes must encode again, to no more bytes, and to the same value. The bytes themselves need not be the same: postcard
//! takes a varint with leading zeros, which is why nothing signed is ever re-encoded before it is verified.

use keyferry::device::verify::{SignedReceipt, receipt_device, refusal_of, stated};
use keyferry_protocol::identity::Signature;
use keyferry_protocol::message::{Reply, Request, SlotInfo};
use keyferry_protocol::order::{self, BlobRole, View};
use keyferry_protocol::receipt::{self, Outcome, Status, Writer};
use keyferry_protocol::{MAX_BLOB, MAX_CERTIFICATE, MAX_QUESTIONS, MAX_SLOTS};

/// Room for what was read, encoded again.
fn room(data: &[u8]) -> Vec<u8> {
    vec![0; data.len()]
}

/// A value has one shortest encoding: what is not shorter is the same.
fn assert_shortest(again: &[u8], data: &[u8]) {
    assert!(again.len() < data.len() || again == data);
}

/// A message from the station.
pub(super) fn request(data: &[u8]) -> bool {
    let Ok(request) = Request::decode(data) else {
        return false;
    };
    let mut room = room(data);
    let again = request.encode(&mut room).expect("it is not longer");
    assert_eq!(Request::decode(again), Ok(request));
    assert_shortest(again, data);
    assert!(again.len() <= request.longest());
    // A device tells a blob by its first bytes, and takes it before all of it is there.
    let front = again.get(..Request::BLOB_FRONT).unwrap_or(again);
    let expected = match request {
        Request::Blob { bytes } => Some((again.len() - bytes.len(), bytes.len())),
        Request::Hello { .. }
        | Request::Order { .. }
        | Request::Status { .. }
        | Request::List
        | Request::Echo { .. }
        | Request::Certificate
        | Request::Rate { .. }
        | Request::Failed => None,
    };
    assert_eq!(Request::blob_front(front), expected);
    true
}

/// A message from the device, or one row of its table of slots, which it keeps in the same form.
pub(super) fn reply(data: &[u8]) -> bool {
    if let Ok(slot) = SlotInfo::decode(data) {
        let mut room = [0; SlotInfo::MAX_LENGTH];
        let again = slot.encode(&mut room).expect("as long as the longest");
        assert_eq!(SlotInfo::decode(again), Ok(slot));
    }
    let Ok(reply) = Reply::decode(data) else {
        return false;
    };
    let mut room = room(data);
    let again = reply.encode(&mut room).expect("it is not longer");
    assert_shortest(again, data);
    assert_eq!(Reply::decode(again), Ok(reply));
    true
}

/// An order: its header alone, which a device checks first, and all of it.
pub(super) fn order(data: &[u8]) -> bool {
    let front = order::decode_header(data);
    let whole = order::decode(data);
    let Ok((header, body)) = whole else {
        return false;
    };
    let (header_alone, rest) = front.expect("an order that decodes has a header");
    assert_eq!(header_alone, header);
    assert!(data.ends_with(rest));
    assert_eq!(header.kind, body.kind());
    assert_eq!(
        (header.tag, header.format),
        (order::TAG, order::FORMAT),
        "tag and format are checked"
    );
    let (_, view) = order::view(data).expect("it decodes");
    if let View::Inject(inject) = &view {
        assert!(header.suite.is_some());
        assert!(inject.questions.len() <= MAX_QUESTIONS);
        assert!(
            inject
                .entries
                .iter()
                .all(|entry| usize::from(entry.slot) < MAX_SLOTS)
        );
        // A device asks for one blob after the other, and must come to an end.
        let mut kek = None;
        for index in 0..inject.blob_count() {
            let (role, blob) = inject.blob(index).expect("each blob has its place");
            match role {
                BlobRole::Certificate => {
                    assert!(index == 0 && usize::from(blob.length) <= MAX_CERTIFICATE);
                }
                BlobRole::Kek(number) => {
                    assert_eq!(number, kek.map_or(0, |last: usize| last + 1));
                    kek = Some(number);
                }
                BlobRole::Entry(place) => {
                    let named = inject.entries.get(place).map(|entry| entry.kek);
                    assert_eq!(named.map(usize::from), kek, "its KEK came right before");
                }
            }
            assert!(usize::from(blob.length) <= MAX_BLOB);
        }
        assert_eq!(inject.blob(inject.blob_count()), None);
    }
    let mut room = room(data);
    let again = order::encode(header, &body, &mut room).expect("it is not longer");
    assert_shortest(again, data);
    assert_eq!(order::decode(again), Ok((header, body)));
    true
}

/// A receipt or a signed status. None of them is ever believed with a signature of zeros.
pub(super) fn receipt(data: &[u8]) -> bool {
    if let Ok(status) = Status::decode(data) {
        let mut room = room(data);
        let again = status.encode(&mut room).expect("it is not longer");
        assert_eq!(Status::decode(again), Ok(status));
        assert_shortest(again, data);
        return true;
    }
    let signed = SignedReceipt {
        bytes: data.to_vec(),
        signature: Signature::from_bytes(&[0; 64]),
    };
    let Ok((header, body)) = receipt::decode(data) else {
        assert_eq!((receipt_device(&signed), refusal_of(&signed)), (None, None));
        return false;
    };
    assert_eq!(receipt_device(&signed), Some(header.device));
    match header.outcome {
        Outcome::Applied => assert_eq!(refusal_of(&signed), None),
        Outcome::Refused(refusal) => assert_eq!(refusal_of(&signed), Some(refusal)),
    }
    assert!(stated(&signed, header.device).is_err());

    let mut room = room(data);
    let mut writer = Writer::new(&header, &mut room).expect("it is not longer");
    match &body {
        receipt::Body::Statement(statement) => writer.statement(statement, &mut room),
        receipt::Body::Slots(reports) => {
            writer
                .slot_count(reports.len(), &mut room)
                .expect("it is not longer");
            reports
                .iter()
                .try_for_each(|report| writer.slot(report, &mut room))
        }
        receipt::Body::Recovered(recovered) => writer.recovered(recovered, &mut room),
        receipt::Body::Empty => Ok(()),
    }
    .expect("it is not longer");
    let again = room.get(..writer.length()).expect("it has room");
    assert_shortest(again, data);
    assert_eq!(receipt::decode(again), Ok((header, body)));
    true
}
