//! Between the contract's types and what PostgreSQL stores.
//!
//! Nothing here fails on stored bytes: one damaged row must not take a slice of healthy neighbours with it.

use actornot_core::{EntityId, Headers, MessageId, StoredMessage, StoredState};
use serde::Serialize;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

/// One bound text for a whole slice.
pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> String {
    // Only maps with keys that are no strings, and writers that fail, can fail here; there are neither.
    serde_json::to_string(value).unwrap_or_default()
}

pub(crate) fn encode_headers(headers: &Headers) -> String {
    if headers.is_empty() { String::new() } else { json(headers) }
}

pub(crate) fn decode_headers(text: &str) -> Headers {
    if text.is_empty() {
        return Headers::new();
    }
    serde_json::from_str(text).unwrap_or_else(|error| {
        tracing::warn!(%error, "stored headers do not decode, the message goes on without them");
        Headers::new()
    })
}

/// The entity of a row, of which the kind is known. `None` for a key that was written by hand and is none: nobody can
/// post to it or name it, and it must not hide those behind it.
pub(crate) fn entity(kind: &str, row: &PgRow) -> Result<Option<EntityId>, sqlx::Error> {
    let entity = EntityId::new(kind, row.try_get::<&str, _>("key")?);
    Ok(entity.map_err(|error| tracing::warn!(%error, "a stored key is none")).ok())
}

pub(crate) fn message_id(row: &PgRow) -> Result<MessageId, sqlx::Error> {
    Ok(MessageId::from_stored(row.try_get::<&str, _>("id")?))
}

pub(crate) fn message(row: &PgRow) -> Result<StoredMessage, sqlx::Error> {
    Ok(StoredMessage {
        id: message_id(row)?,
        payload: row.try_get("payload")?,
        headers: decode_headers(row.try_get("headers")?),
    })
}

/// The messages of a parcel, as lists of their ids, payloads and headers; the last is missing where none has any.
pub(crate) fn parcel(row: &PgRow) -> Result<Vec<StoredMessage>, sqlx::Error> {
    let ids: Vec<Option<String>> = row.try_get("ids")?;
    let payloads: Vec<Option<String>> = row.try_get("payloads")?;
    let headers: Option<Vec<Option<String>>> = row.try_get("headers")?;
    let mut headers = headers.unwrap_or_default().into_iter().flatten();
    let mut headers = std::iter::from_fn(|| Some(headers.next().unwrap_or_default()));
    let message = |(id, payload): (Option<String>, Option<String>)| StoredMessage {
        id: MessageId::from_stored(id.unwrap_or_default()),
        payload: payload.unwrap_or_default(),
        headers: headers.next().map_or_else(Headers::new, |text| decode_headers(&text)),
    };
    Ok(ids.into_iter().zip(payloads).map(message).collect())
}

/// The state beside an entity, if it has one.
pub(crate) fn state(row: &PgRow) -> Result<Option<StoredState>, sqlx::Error> {
    let Some(version) = row.try_get::<Option<i64>, _>("version")? else { return Ok(None) };
    Ok(Some(StoredState {
        json: row.try_get("json")?,
        version: unsigned(version),
        state_version: small(row.try_get("state_version")?),
    }))
}

/// PostgreSQL has no unsigned numbers, and we store no negative ones.
pub(crate) fn unsigned(value: i64) -> u64 {
    value.max(0).unsigned_abs()
}

pub(crate) fn small(value: i64) -> u32 {
    u32::try_from(value.max(0)).unwrap_or(u32::MAX)
}

/// A hundred years: a sum with the clock must stay a timestamp.
const LONGEST: i64 = 100 * 365 * 24 * 3600 * 1000;

/// Milliseconds, as the functions count; a part of one is rounded up, so that nothing is early.
pub(crate) fn millis(duration: std::time::Duration) -> i64 {
    let millis = duration.as_nanos().div_ceil(1_000_000);
    i64::try_from(millis).unwrap_or(LONGEST).min(LONGEST)
}
