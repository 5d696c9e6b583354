use std::time::Duration;

use async_trait::async_trait;

use crate::{EntityId, Error, Headers, MessageId, StoredMessage, StoredState, Waiting};

/// For people who look, and mend: reads without locks, and a few edits under the same row lock as the verbs.
///
/// No method takes or waits for an entity's lease. A read sees one committed moment of each entity.
///
/// Errors are those of the database. Reads are cancel safe; a dropped edit was applied or not, and can be repeated.
/// Every method is one round trip in the common case.
#[async_trait]
pub trait Inspect: Send + Sync + 'static {
    /// The committed state of entities and how much they have pending; `None` for one that was never posted to.
    async fn read(&self, entities: &[EntityId]) -> Result<Vec<Option<Snapshot>>, Error>;

    /// Entities of a kind in the order of their keys' bytes, from behind `after`: `limit` of them, or all there are. A key
    /// that somebody wrote by hand and that is none is left out, and takes nobody's place.
    async fn list(
        &self,
        kind: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(EntityId, Snapshot)>, Error>;

    /// The first queued messages, in order; delayed ones that are not due yet are not among them.
    async fn peek(&self, entity: &EntityId, limit: u32) -> Result<Vec<StoredMessage>, Error>;

    /// Where messages are now; one answer for each id, in order.
    async fn locate(&self, entity: &EntityId, ids: &[MessageId]) -> Result<Vec<Location>, Error>;

    /// Why an entity does or does not run; `None` for one that was never posted to.
    async fn why(&self, entity: &EntityId) -> Result<Option<Why>, Error>;

    /// Dead letters of a kind, oldest first, from behind `after` (a [`DeadLetter::number`]), at most `limit`.
    async fn dead_letters(
        &self,
        kind: &str,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, Error>;

    /// Moves a dead letter back into its entity's queue, beyond the backlog limit; `false` if there is none.
    ///
    /// At the `Head` it leaves the order of posting, at the `Tail` it leaves it too: G2 does not hold for it.
    async fn redrive(&self, letter: &DeadLetter, to: Position) -> Result<bool, Error>;

    /// Stops handing out an entity's messages; a running batch may still commit. Creates the entity if need be.
    async fn pause(&self, entity: &EntityId, reason: &str) -> Result<(), Error>;

    /// Ends a pause and a wait, and grants the head message fresh attempts; `false` for an unknown entity.
    async fn resume(&self, entity: &EntityId) -> Result<bool, Error>;

    /// Deletes an entity's state, queue and dead letters; the ids it has seen stay, and a holder's commit is refused.
    async fn purge(&self, entity: &EntityId) -> Result<bool, Error>;

    /// Checks the settings that durability hangs on.
    async fn doctor(&self) -> Result<DurabilityReport, Error>;
}

/// One committed moment of an entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The committed state, or `None` if no run has committed one yet.
    pub state: Option<StoredState>,
    /// Messages that were accepted and not yet handled, delayed ones included.
    pub pending: u64,
}

/// Where a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location {
    /// In the queue, or delayed.
    Queued,
    /// Among the dead letters.
    Dead,
    /// Nowhere: it was handled, or never accepted.
    Gone,
}

/// Why an entity does or does not run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Why {
    /// Messages that were accepted and not yet handled, delayed ones included.
    pub pending: u64,
    /// The stored fence.
    pub fence: u64,
    /// The holder's lease has this long to go; zero when it has run out without a takeover.
    pub locked_for: Option<Duration>,
    /// Nothing is handed out for this reason, for so long.
    pub waiting: Option<(Waiting, Duration)>,
    /// Nothing is handed out until an operator resumes it, for this reason.
    pub paused: Option<String>,
    /// The text of the last failure, cleared by the next success.
    pub last_error: Option<String>,
    /// How often the head message was handed out without being settled.
    pub deliveries: u32,
    /// How often it was handed out alone.
    pub charged: u32,
    /// How many messages the next hand-out may hold.
    pub batch_limit: u32,
}

/// A message that could not be handled.
#[derive(Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its place among the dead letters; never used twice for the same kind.
    pub number: u64,
    /// Whom it was for.
    pub entity: EntityId,
    /// The id it was posted with.
    pub id: MessageId,
    /// The bytes it was posted with.
    pub payload: String,
    /// The headers it was posted with.
    pub headers: Headers,
    /// Why it could not be handled.
    pub error: String,
    /// How often it was handed out.
    pub attempts: u32,
}

impl std::fmt::Debug for DeadLetter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadLetter")
            .field("number", &self.number)
            .field("entity", &self.entity)
            .field("id", &self.id)
            .field("payload_bytes", &self.payload.len())
            .field("error", &self.error)
            .field("attempts", &self.attempts)
            .finish()
    }
}

/// Which end of the queue a redriven dead letter joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// Before everything queued.
    Head,
    /// Behind everything queued.
    Tail,
}

/// The settings that durability hangs on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DurabilityReport {
    /// The database and its version.
    pub server: String,
    /// What was checked.
    pub settings: Vec<Setting>,
}

impl DurabilityReport {
    /// Whether every guarantee holds under these settings.
    pub fn is_durable(&self) -> bool {
        self.settings.iter().all(|setting| setting.voids.is_none())
    }
}

/// One checked setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its name in the database's own words.
    pub name: String,
    /// Its value.
    pub value: String,
    /// The guarantee that this value voids, and how to set it right; `None` if it is as it should be.
    pub voids: Option<String>,
}
