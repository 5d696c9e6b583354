//! Between the contract's types and what Redis stores.
//!
//! Nothing here fails on stored bytes: one damaged value must not take a slice of healthy neighbours with it.

use std::time::Duration;

use actornot_core::{EntityId, Headers, MessageId, NewMessage, StoredMessage};

/// An entity of a list. `None` for a key that was written by hand and is none: nobody can post to it or name it, and it must
/// not hide those behind it.
pub(crate) fn entity(kind: &str, key: &str) -> Option<EntityId> {
    EntityId::new(kind, key).map_err(|error| tracing::warn!(%error, "a stored key is none")).ok()
}

pub(crate) fn encode_headers(headers: &Headers) -> String {
    // Only maps with keys that are no strings, and writers that fail, can fail here; there are neither.
    if headers.is_empty() { String::new() } else { serde_json::to_string(headers).unwrap_or_default() }
}

pub(crate) fn decode_headers(bytes: &[u8]) -> Headers {
    if bytes.is_empty() {
        return Headers::new();
    }
    serde_json::from_slice(bytes).unwrap_or_else(|error| {
        tracing::warn!(%error, "stored headers do not decode, the message goes on without them");
        Headers::new()
    })
}

/// `id NUL headers NUL payload`. Neither of the first two holds a NUL (headers are JSON text), the payload may.
pub(crate) fn value(message: &NewMessage) -> Vec<u8> {
    let headers = encode_headers(&message.headers);
    let parts =
        [message.id.as_str().as_bytes(), b"\0", headers.as_bytes(), b"\0", message.payload.as_bytes()];
    parts.concat()
}

/// So many messages come together at most, and so many bytes unless it is one: whoever runs a few of them reads all.
const PARCEL: (usize, usize) = (64, 64 << 10);

/// Messages that come together and are stored as one value.
pub(crate) struct Parcel<'a> {
    pub(crate) delay: u64,
    pub(crate) retention: u64,
    /// Each once.
    pub(crate) ids: Vec<&'a str>,
    messages: Vec<u8>,
}

impl<'a> Parcel<'a> {
    /// In order: what follows on what is the same in their concatenation.
    pub(crate) fn all(messages: impl IntoIterator<Item = &'a NewMessage>) -> Vec<Self> {
        let mut parcels: Vec<Self> = Vec::new();
        for message in messages {
            let (delay, retention, id) =
                (millis(message.delay), millis(message.retention), message.id.as_str());
            let value = value(message);
            let fits = |parcel: &&mut Self| {
                (parcel.delay, parcel.retention) == (delay, retention)
                    && parcel.ids.len() < PARCEL.0
                    && parcel.messages.len() + value.len() <= PARCEL.1
                    && !parcel.ids.contains(&id)
            };
            match parcels.last_mut().filter(fits) {
                Some(parcel) => parcel.add(id, &value),
                None => {
                    let mut parcel = Self { delay, retention, ids: Vec::new(), messages: Vec::new() };
                    parcel.add(id, &value);
                    parcels.push(parcel);
                }
            }
        }
        parcels
    }

    /// Of a message that was staged.
    pub(crate) fn one(delay: u64, retention: u64, id: &'a str, value: &[u8]) -> Self {
        let mut parcel = Self { delay, retention, ids: Vec::new(), messages: Vec::new() };
        parcel.add(id, value);
        parcel
    }

    fn add(&mut self, id: &'a str, value: &[u8]) {
        self.ids.push(id);
        self.messages.extend(u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.messages.extend_from_slice(value);
    }

    /// How many, in two bytes, and each behind its length, in four.
    pub(crate) fn packed(&self) -> Vec<u8> {
        let count = u16::try_from(self.ids.len()).unwrap_or(u16::MAX).to_le_bytes();
        [&count, self.messages.as_slice()].concat()
    }
}

/// What `Parcel::packed` has made. Of a damaged one, what there is.
pub(crate) fn unpack_parcel(parcel: &[u8]) -> Vec<StoredMessage> {
    let mut rest = parcel.get(2..).unwrap_or_default();
    let mut messages = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let (value, next) = behind.split_at(length.min(behind.len()));
        messages.push(message(value));
        rest = next;
    }
    messages
}

/// What `value` has made.
pub(crate) fn message(value: &[u8]) -> StoredMessage {
    let (id, rest) = split(value);
    let (headers, payload) = split(rest);
    StoredMessage { id: message_id(id), payload: text(payload), headers: decode_headers(headers) }
}

/// What stands before and behind the first NUL.
pub(crate) fn split(value: &[u8]) -> (&[u8], &[u8]) {
    match value.iter().position(|byte| *byte == 0) {
        Some(at) => (&value[..at], &value[at + 1..]),
        None => (value, &[]),
    }
}

/// What is no UTF-8 becomes a text that does not decode further up, where a message that does not decode goes to the
/// dead letters.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap_or_else(|error| {
        tracing::warn!("stored bytes are no UTF-8");
        String::from_utf8_lossy(error.as_bytes()).into_owned()
    })
}

pub(crate) fn message_id(bytes: &[u8]) -> MessageId {
    MessageId::from_stored(text(bytes))
}

/// Milliseconds, as the scripts count; a part of one is rounded up, so that nothing is early.
pub(crate) fn millis(duration: Duration) -> u64 {
    // Lua counts exactly up to 2^53; the longest duration that is allowed is far below.
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).min(1 << 50)
}

/// The head of a MessagePack list of so many values.
pub(crate) fn pack_list(packed: &mut Vec<u8>, len: usize) {
    packed.push(0xdd);
    packed.extend(u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
}

/// A text of any bytes: Lua makes no difference.
pub(crate) fn pack_text(packed: &mut Vec<u8>, text: &[u8]) {
    match u8::try_from(text.len()) {
        Ok(len) => packed.extend([0xd9, len]),
        Err(_) => {
            packed.push(0xdb);
            packed.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
        }
    }
    packed.extend_from_slice(text);
}

pub(crate) fn pack_number(packed: &mut Vec<u8>, number: u64) {
    match u8::try_from(number) {
        Ok(number @ 0..=0x7f) => packed.push(number),
        _ => {
            packed.push(0xcf);
            packed.extend(number.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use actornot_core::{Headers, MessageId, NewMessage};

    use super::{Parcel, unpack_parcel};

    fn message(id: &str, bytes: usize, retention: u64) -> NewMessage {
        NewMessage {
            id: MessageId::new(id).expect("a legal id"),
            payload: "\0".repeat(bytes),
            headers: Headers::new(),
            delay: Duration::ZERO,
            retention: Duration::from_secs(retention),
        }
    }

    /// How many messages each holds. Packed and unpacked they are what they were, in order.
    fn sizes(messages: &[NewMessage]) -> Vec<usize> {
        let parcels = Parcel::all(messages);
        let stored: Vec<_> = parcels.iter().flat_map(|parcel| unpack_parcel(&parcel.packed())).collect();
        let pairs = stored.iter().map(|message| (&message.id, &message.payload));
        assert!(pairs.eq(messages.iter().map(|message| (&message.id, &message.payload))));
        parcels.iter().map(|parcel| parcel.ids.len()).collect()
    }

    #[test]
    fn a_parcel_holds_what_comes_together_and_has_an_end() {
        let many: Vec<_> = (0..130).map(|n| message(&n.to_string(), 1, 60)).collect();
        assert_eq!(sizes(&many), [64, 64, 2]);
        let large: Vec<_> = (0..5).map(|n| message(&n.to_string(), 30_000, 60)).collect();
        assert_eq!(sizes(&large), [2, 2, 1]);
        assert_eq!(sizes(&[message("a", 1, 60), message("b", 100_000, 60), message("c", 1, 60)]), [1, 1, 1]);
        assert_eq!(sizes(&[message("a", 1, 60), message("b", 1, 60), message("c", 1, 61)]), [2, 1]);
        assert_eq!(sizes(&[message("a", 1, 60), message("b", 1, 60), message("a", 1, 60)]), [2, 1]);
        assert_eq!(sizes(&[]), [0_usize; 0]);
    }

    #[test]
    fn of_a_damaged_parcel_there_is_what_there_is() {
        let packed = Parcel::all(&[message("a", 1, 60), message("b", 1, 60)]).remove(0).packed();
        for length in 0..packed.len() {
            assert!(unpack_parcel(&packed[..length]).len() <= 2, "{length}");
        }
        assert_eq!(unpack_parcel(&packed[..packed.len() - 1]).len(), 2);
    }
}
