//! What passes through the broker's socket, in both directions.

use std::fmt::Debug;

use keyferry::broker::wire::{self, Card, MAXIMUM_FRAME, Reply, Request};
use keyferry::station::KeyCard;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A frame as it comes through the socket: a length and what it holds. The content is read as either direction's.
pub(super) fn frame(data: &[u8]) -> bool {
    // The length as it is, whatever it claims.
    if let Ok(Some(frame)) = wire::read_frame(&mut &*data) {
        assert!(frame.len() <= MAXIMUM_FRAME && frame.len() + 4 <= data.len());
    }
    // And the length that fits, or hardly any input would come further.
    let mut framed = Vec::new();
    wire::write_frame(&mut framed, data).expect("inputs are shorter than frames");
    let frame = wire::read_frame(&mut &*framed).expect("what was written is read");
    assert_eq!(frame.as_deref(), Some(data));

    let request = round::<Request>(data);
    let reply = round::<Reply>(data);
    if let Some(Request::Ask(card) | Request::Verify { key: card, .. }) = &request {
        assert_eq!(&Card::from(KeyCard::from(card.clone())), card);
    }
    request.is_some() || reply.is_some()
}

/// Decodes, encodes and decodes again.
fn round<T: DeserializeOwned + Serialize + PartialEq + Debug>(data: &[u8]) -> Option<T> {
    let value: T = wire::decode(data).ok()?;
    let again = wire::encode(&value).expect("it is not longer");
    assert!(again.len() <= data.len());
    let read: T = wire::decode(&again).expect("what was encoded decodes");
    assert_eq!(read, value);
    Some(value)
}
