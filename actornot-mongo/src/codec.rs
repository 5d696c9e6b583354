//! Between the contract's types and BSON.
//!
//! Nothing here fails on stored values: one damaged document must not take a slice of healthy neighbours with it.

use std::time::Duration;

use actornot_core::{EntityId, Error, Headers, MessageId, StoredMessage, StoredState};
use mongodb::bson::{Bson, DateTime, Document, doc};

/// An entity as the `_id` of its document. The order of the fields is part of the identity.
pub(crate) fn name(entity: &EntityId) -> Document {
    doc! { "k": entity.kind(), "e": entity.key() }
}

/// The entity that [`name`] wrote.
pub(crate) fn entity(name: &Document) -> Result<EntityId, Error> {
    EntityId::new(text(name, "k"), text(name, "e"))
}

/// The same of a list. `None` for a key that was written by hand and is none: nobody can post to it or name it, and it must
/// not hide those behind it.
pub(crate) fn listed(name: &Document) -> Option<EntityId> {
    entity(name).map_err(|error| tracing::warn!(%error, "a stored key is none")).ok()
}

/// A message as the `_id` of its document.
pub(crate) fn message_name(entity: &EntityId, id: &str) -> Document {
    doc! { "e": name(entity), "i": id }
}

/// User data inside a pipeline: without it, a text that begins with `$` would be read as an expression.
pub(crate) fn literal(value: impl Into<Bson>) -> Document {
    doc! { "$literal": value.into() }
}

pub(crate) fn headers(headers: &Headers) -> Bson {
    // Pairs, not a document: a header may be named `$x`, or `a.b`.
    headers
        .iter()
        .map(|(name, value)| Bson::from(vec![name.clone(), value.clone()]))
        .collect::<Vec<_>>()
        .into()
}

fn decode_headers(row: &Document) -> Headers {
    let pairs = row.get_array("headers").map(Vec::as_slice).unwrap_or_default();
    let pair = |pair: &Bson| {
        let pair = pair.as_array()?;
        Some((pair.first()?.as_str()?.to_owned(), pair.get(1)?.as_str()?.to_owned()))
    };
    let decoded: Headers = pairs.iter().filter_map(pair).collect();
    if decoded.len() != pairs.len() {
        tracing::warn!("stored headers do not decode, the message goes on without some of them");
    }
    decoded
}

pub(crate) fn text(row: &Document, field: &str) -> String {
    row.get_str(field).unwrap_or_default().to_owned()
}

pub(crate) fn optional(row: &Document, field: &str) -> Option<String> {
    row.get_str(field).ok().map(str::to_owned)
}

pub(crate) fn message(row: &Document) -> StoredMessage {
    let id = row.get_document("_id").ok().and_then(|id| id.get_str("i").ok()).unwrap_or_default();
    StoredMessage {
        id: MessageId::from_stored(id),
        payload: text(row, "payload"),
        headers: decode_headers(row),
    }
}

/// The state of an entity, if it has one.
pub(crate) fn state(row: &Document) -> Option<StoredState> {
    let json = row.get_str("state").ok()?.to_owned();
    let version = unsigned(int(row, "version"));
    Some(StoredState { json, version, state_version: small(int(row, "state_version")) })
}

/// The server widens numbers as it likes.
pub(crate) fn int(row: &Document, field: &str) -> i64 {
    match row.get(field) {
        Some(Bson::Int32(value)) => i64::from(*value),
        Some(Bson::Int64(value)) => *value,
        #[allow(clippy::cast_possible_truncation)] // A whole number, for we store no others.
        Some(Bson::Double(value)) => *value as i64,
        _ => 0,
    }
}

pub(crate) fn moment(row: &Document, field: &str) -> Option<i64> {
    row.get_datetime(field).ok().map(|at| at.timestamp_millis())
}

pub(crate) fn date(millis: i64) -> DateTime {
    DateTime::from_millis(millis)
}

pub(crate) fn unsigned(value: i64) -> u64 {
    value.max(0).unsigned_abs()
}

pub(crate) fn small(value: i64) -> u32 {
    u32::try_from(value.max(0)).unwrap_or(u32::MAX)
}

/// Milliseconds, as the server's clock counts; a part of one is rounded up, so that nothing is early.
pub(crate) fn millis(duration: Duration) -> i64 {
    let millis = duration.as_nanos().div_ceil(1_000_000);
    i64::try_from(millis).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}
