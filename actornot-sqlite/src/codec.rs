//! Between the contract's types and what SQLite stores.
//!
//! Nothing here fails on stored bytes: one damaged row must not take a slice of healthy neighbours with it.

use actornot_core::{EntityId, Error, ErrorKind, Headers, MessageId, StoredMessage, StoredState};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::error::before_commit;

/// One bound text for a whole slice.
pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> String {
    // Only maps with keys that are no strings, and writers that fail, can fail here; there are neither.
    serde_json::to_string(value).unwrap_or_default()
}

/// What a statement found, gathered in one text.
pub(crate) fn found<T: DeserializeOwned>(row: &SqliteRow) -> Result<Vec<T>, Error> {
    let bytes: Vec<u8> = row.try_get("found").map_err(before_commit)?;
    serde_json::from_str(&String::from_utf8_lossy(&bytes)).map_err(|error| {
        Error::new(ErrorKind::Corrupt, format!("a stored row does not decode: {error}")).with_source(error)
    })
}

/// The bytes of many payloads in one bound value, cut apart again by `substr`.
#[derive(Default)]
pub(crate) struct Bytes(Vec<u8>);

impl Bytes {
    /// Adds a text; its place as `substr` counts, from one.
    pub(crate) fn push(&mut self, text: &str) -> (usize, usize) {
        let start = self.0.len() + 1;
        self.0.extend_from_slice(text.as_bytes());
        (start, text.len())
    }

    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

pub(crate) fn encode_headers(headers: &Headers) -> String {
    if headers.is_empty() { String::new() } else { json(headers) }
}

pub(crate) fn decode_headers(row: &SqliteRow) -> Result<Headers, sqlx::Error> {
    let bytes: Vec<u8> = row.try_get("headers")?;
    if bytes.is_empty() {
        return Ok(Headers::new());
    }
    Ok(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
        tracing::warn!(%error, "stored headers do not decode, the message goes on without them");
        Headers::new()
    }))
}

/// The text of a column that may hold anything. What is no UTF-8 becomes a text that does not decode further up,
/// where a message that does not decode goes to the dead letters.
pub(crate) fn text(row: &SqliteRow, column: &str) -> Result<String, sqlx::Error> {
    let bytes: Vec<u8> = row.try_get(column)?;
    Ok(String::from_utf8(bytes).unwrap_or_else(|error| {
        tracing::warn!(column, "stored bytes are no UTF-8");
        String::from_utf8_lossy(error.as_bytes()).into_owned()
    }))
}

/// The entity of a row. `None` for a key that was written by hand and is none: nobody can post to it or name it, and it
/// must not hide those behind it.
pub(crate) fn entity(kind: &str, row: &SqliteRow) -> Result<Option<EntityId>, sqlx::Error> {
    let entity = EntityId::new(kind, text(row, "key")?);
    Ok(entity.map_err(|error| tracing::warn!(%error, "a stored key is none")).ok())
}

pub(crate) fn message_id(row: &SqliteRow) -> Result<MessageId, sqlx::Error> {
    Ok(MessageId::from_stored(text(row, "id")?))
}

pub(crate) fn message(row: &SqliteRow) -> Result<StoredMessage, sqlx::Error> {
    Ok(StoredMessage { id: message_id(row)?, payload: text(row, "payload")?, headers: decode_headers(row)? })
}

/// The state beside an entity, if it has one.
pub(crate) fn state(row: &SqliteRow) -> Result<Option<StoredState>, sqlx::Error> {
    let Some(version) = row.try_get::<Option<i64>, _>("version")? else { return Ok(None) };
    Ok(Some(StoredState {
        json: text(row, "json")?,
        version: unsigned(version),
        state_version: small(row.try_get("state_version")?),
    }))
}

/// SQLite has no unsigned numbers, and we store no negative ones.
pub(crate) fn unsigned(value: i64) -> u64 {
    value.max(0).unsigned_abs()
}

pub(crate) fn small(value: i64) -> u32 {
    u32::try_from(value.max(0)).unwrap_or(u32::MAX)
}

/// Milliseconds, as the clock in `statements` counts; a part of one is rounded up, so that nothing is early.
pub(crate) fn millis(duration: std::time::Duration) -> i64 {
    let millis = duration.as_nanos().div_ceil(1_000_000);
    i64::try_from(millis).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}
