use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::{EntityId, Error, Limits, MessageId};

/// Trace context and whatever else travels with a message: names and values, in the order of their names.
pub type Headers = BTreeMap<String, String>;

/// A message with everything it needs on its way: whom it is for, what it says, and how it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Whom it is for.
    pub entity: EntityId,
    /// What is stored.
    pub message: NewMessage,
}

/// A message on its way into the database.
#[derive(Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// Idempotency key: accepted once per entity within `retention`.
    pub id: MessageId,
    /// JSON text; stored and handed out byte for byte.
    pub payload: String,
    /// Trace context, the user's own.
    pub headers: Headers,
    /// The message joins the tail of the queue when this time has passed on the server's clock. Zero: at once.
    pub delay: Duration,
    /// How long its id is remembered after it was accepted.
    pub retention: Duration,
}

/// A message as the database hands it out.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// The id it was posted with.
    pub id: MessageId,
    /// The bytes it was posted with.
    pub payload: String,
    /// The headers it was posted with.
    pub headers: Headers,
}

// Payloads and header values are the user's secrets: they never reach a log by way of Debug.
impl std::fmt::Debug for NewMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewMessage")
            .field("id", &self.id)
            .field("payload_bytes", &self.payload.len())
            .field("headers", &self.headers.len())
            .field("delay", &self.delay)
            .field("retention", &self.retention)
            .finish()
    }
}

impl std::fmt::Debug for StoredMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredMessage")
            .field("id", &self.id)
            .field("payload_bytes", &self.payload.len())
            .field("headers", &self.headers.len())
            .finish()
    }
}

impl NewMessage {
    /// Refuses what is over a limit, before it reaches the database.
    pub(crate) fn check(&self, limits: &Limits) -> Result<(), Error> {
        if self.payload.len() > limits.payload_bytes {
            return Err(Error::too_large("payload", self.payload.len(), limits.payload_bytes));
        }
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        if headers > limits.headers_bytes {
            return Err(Error::too_large("headers", headers, limits.headers_bytes));
        }
        if self.headers.iter().any(|(name, value)| name.contains('\0') || value.contains('\0')) {
            return Err(Error::invalid("headers", "contain NUL, which not every database can store"));
        }
        for (field, value) in [("delay", self.delay), ("retention", self.retention)] {
            if value > Limits::DELAY {
                return Err(Error::invalid(field, format!("is longer than {:?}", Limits::DELAY)));
            }
        }
        Ok(())
    }
}

/// A value as JSON text within a limit.
pub(crate) fn encode<T: Serialize>(field: &'static str, value: &T, limit: usize) -> Result<String, Error> {
    let json = serde_json::to_string(value)
        .map_err(|error| Error::invalid(field, "cannot be written as JSON").with_source(error))?;
    if json.len() > limit {
        return Err(Error::too_large(field, json.len(), limit));
    }
    Ok(json)
}
