use std::time::Duration;

use crate::{EntityId, MessageId, Nonce, StoredMessage};

/// The right to change one entity, for a limited time.
///
/// Its deadline lives on the database's clock; a client never compares it with its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Whose lock it is.
    pub entity: EntityId,
    /// Who holds it.
    pub nonce: Nonce,
    /// Raised by every grant and every applied commit. A commit with an older fence changes nothing. Pass it to
    /// external systems that can refuse stale writers.
    pub fence: u64,
    /// How long it lasts from the moment it is granted, committed under, or extended.
    pub length: Duration,
}

/// A request for the lock of an entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockRequest {
    /// Names the grant; a repeated request returns the same one.
    pub nonce: Nonce,
    /// How long the lease shall last.
    pub length: Duration,
    /// The most messages to hand out; the entity's own `batch_limit` may lower it.
    pub max_batch: u32,
}

/// The lock of an entity, its state, and its first messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The lease that was granted.
    pub lease: Lease,
    /// The committed state, or `None` for an entity that has none yet.
    pub state: Option<StoredState>,
    /// What to run first; never empty.
    pub batch: HandedOut,
}

/// Messages handed out for one run, with the history that isolates poison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandedOut {
    /// The head of the queue, in order.
    pub messages: Vec<StoredMessage>,
    /// How often the first message was handed out without being settled, this time included.
    pub deliveries: u32,
    /// How often it was handed out alone, this time included: the attempts that count towards the limit.
    pub charged: u32,
    /// The limit that was in force, before the request's `max_batch` lowered it.
    pub batch_limit: u32,
}

impl HandedOut {
    /// The ids in order, as a commit acknowledges them.
    pub fn ids(&self) -> Vec<MessageId> {
        self.messages.iter().map(|message| message.id.clone()).collect()
    }
}

/// An entity's state as the database holds it.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredState {
    /// JSON text, byte for byte as committed.
    pub json: String,
    /// How many commits have written it.
    pub version: u64,
    /// The version of its shape, as the committing [`Runner`](crate::Runner) named it.
    pub state_version: u32,
}

impl std::fmt::Debug for StoredState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredState")
            .field("json_bytes", &self.json.len())
            .field("version", &self.version)
            .field("state_version", &self.state_version)
            .finish()
    }
}
