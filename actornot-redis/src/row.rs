//! What comes back about an entity.

use std::time::Duration;

use actornot_core::{Error, ErrorKind, HandedOut, Snapshot, StoredState, Waiting, Why};
use redis::Value;

use crate::codec;

/// The parts of an answer, taken one by one.
pub(crate) struct Parts(std::vec::IntoIter<Value>);

impl Parts {
    pub(crate) fn of(value: Value) -> Result<Self, Error> {
        match value {
            Value::Array(parts) => Ok(Self(parts.into_iter())),
            Value::Map(pairs) => {
                let parts: Vec<Value> = pairs.into_iter().flat_map(|(name, value)| [name, value]).collect();
                Ok(Self(parts.into_iter()))
            }
            other => Err(odd(&other)),
        }
    }

    pub(crate) fn value(&mut self) -> Value {
        self.0.next().unwrap_or_default()
    }

    pub(crate) fn bytes(&mut self) -> Result<Option<Vec<u8>>, Error> {
        bytes(self.value())
    }

    pub(crate) fn text(&mut self) -> Result<Option<String>, Error> {
        Ok(self.bytes()?.map(|bytes| codec::text(&bytes)))
    }

    /// A number, also one that travels as text because Redis would cut it.
    pub(crate) fn number(&mut self) -> Result<Option<u64>, Error> {
        number(self.value())
    }

    pub(crate) fn small(&mut self) -> Result<u32, Error> {
        Ok(u32::try_from(self.number()?.unwrap_or(0)).unwrap_or(u32::MAX))
    }

    pub(crate) fn rest(self) -> impl Iterator<Item = Value> {
        self.0
    }
}

pub(crate) fn bytes(value: Value) -> Result<Option<Vec<u8>>, Error> {
    match value {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes)),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Ok(Some(text.into_bytes())),
        other => Err(odd(&other)),
    }
}

/// Nothing is negative but -1, which stands for none.
pub(crate) fn number(value: Value) -> Result<Option<u64>, Error> {
    match value {
        Value::Nil => Ok(None),
        Value::Int(number) => Ok(u64::try_from(number).ok()),
        Value::BulkString(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            text.parse().map(Some).map_err(|_| Error::new(ErrorKind::Corrupt, "a stored number is none"))
        }
        other => Err(odd(&other)),
    }
}

/// Whether a script that answers 1 or 0 did what it was asked.
pub(crate) fn yes(value: Value) -> Result<bool, Error> {
    Ok(number(value)? == Some(1))
}

/// Names only what kind of value it is: its bytes may be a payload.
pub(crate) fn odd(value: &Value) -> Error {
    let found = match value {
        Value::Nil => "nothing",
        Value::Int(_) => "a number",
        Value::BulkString(_) | Value::SimpleString(_) => "a text",
        Value::Array(_) => "a list",
        _ => "something else",
    };
    Error::new(ErrorKind::Corrupt, format!("an answer of Redis does not decode: {found} came unexpected"))
}

/// `[fence, deliveries, charged, batch limit, parcels]`
pub(crate) fn batch(value: Value) -> Result<(u64, HandedOut), Error> {
    let mut parts = Parts::of(value)?;
    let fence = parts.number()?.unwrap_or(0);
    let (deliveries, charged, batch_limit) = (parts.small()?, parts.small()?, parts.small()?);
    let messages = messages(parts.value())?;
    Ok((fence, HandedOut { messages, deliveries, charged, batch_limit }))
}

pub(crate) fn messages(value: Value) -> Result<Vec<actornot_core::StoredMessage>, Error> {
    let mut messages = Vec::new();
    for value in Parts::of(value)?.rest() {
        messages.extend(bytes(value)?.iter().flat_map(|parcel| codec::unpack_parcel(parcel)));
    }
    Ok(messages)
}

/// `json, version, state version`
pub(crate) fn state(parts: &mut Parts) -> Result<Option<StoredState>, Error> {
    let (json, version, shape) = (parts.text()?, parts.number()?, parts.small()?);
    Ok(version.map(|version| StoredState { json: json.unwrap_or_default(), version, state_version: shape }))
}

/// What `look` answers.
pub(crate) fn look(value: Value) -> Result<Option<(Snapshot, Why)>, Error> {
    if value == Value::Nil {
        return Ok(None);
    }
    let mut parts = Parts::of(value)?;
    let state = state(&mut parts)?;
    let pending = parts.number()?.unwrap_or(0);
    let fence = parts.number()?.unwrap_or(0);
    let locked_for = parts.number()?.map(Duration::from_millis);
    let (why, left) = (parts.text()?, parts.number()?.unwrap_or(0));
    let waiting =
        why.map(|why| (Waiting::parse(&why).unwrap_or(Waiting::Backoff), Duration::from_millis(left)));
    let (paused, last_error) = (parts.text()?, parts.text()?);
    let (deliveries, charged, batch_limit) = (parts.small()?, parts.small()?, parts.small()?);
    let why =
        Why { pending, fence, locked_for, waiting, paused, last_error, deliveries, charged, batch_limit };
    Ok(Some((Snapshot { state, pending }, why)))
}
