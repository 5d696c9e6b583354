use std::time::Duration;

use async_trait::async_trait;

#[allow(unused_imports)] // Nonce: named by the documentation
use crate::Nonce;
use crate::{Commit, EntityId, Error, Grant, Inspect, Lease, LockRequest, NewMessage, Updated};

/// A durable queue, a lease lock and a state for each entity: the one trait an adapter implements.
///
/// Application code does not call it; [`MailboxPoster`](crate::MailboxPoster) does.
///
/// # Contract
///
/// To ensure correctness, every verb
/// - takes a slice and returns **one result for each item, in the same order**. An entity occurs at most once in a
///   slice. One item's failure never fails its neighbours; a failure of the whole call is repeated for each item.
///   Where the database refuses a whole slice for one of its items, answer with
///   [`Error::for_some_of`], and the loop finds it by smaller slices.
/// - is **atomic per entity** on the server: all of it or nothing.
/// - is **repeatable** by the id its caller chose (message id, [`Nonce`], [`CommitId`](crate::CommitId)): repeated
///   after an unknown outcome it is applied once and answers as if it were the first time, even when the first
///   call arrives late.
/// - measures time on **the server's clock** only. Clients pass durations.
/// - answers [`UnknownOutcome`](crate::ErrorKind::UnknownOutcome) whenever it does not know whether it was applied,
///   and [`Unavailable`](crate::ErrorKind::Unavailable) only when it knows that it was not.
/// - costs **one round trip** where the database can do it in one, and otherwise few: never more for a larger slice.
/// - may be dropped at any await: the database then holds all of the call or nothing of it, other calls are not
///   harmed, and repeating it with the same ids tells which.
///
/// A field or a variant that is added to what the verbs take and give is a breaking release: an adapter that does not
/// know it would lose it.
///
/// The steps of each verb, and what is stored for them, are written out in `docs/decisions/0001-verbs.md`.
#[async_trait]
pub trait LockableQueue: Inspect {
    /// Appends messages durably, and in the same trip tries the lock where one is wanted.
    ///
    /// To ensure correctness:
    /// - A message is durable when its item answers `Accepted` (G1).
    /// - Messages of an item join the tail in their order; later calls join behind them; the server's sequence is
    ///   the only order (G2). Delayed messages that are due join the tail first.
    /// - An id that was accepted for this entity within its retention answers `Duplicate`, and the first payload
    ///   stays (G7), also when the backlog is full and after the entity was purged.
    /// - The lock is tried as by [`try_lock`](Self::try_lock) after the messages were stored, and sees them.
    /// - A post never shortens an entity's wait (G2).
    ///
    /// # Errors
    /// Per item; an item that failed stored nothing of its messages. A full backlog is not an error of the item:
    /// its messages answer [`Admission::Full`].
    ///
    /// # Cancel safety
    /// All of an item or nothing of it is stored. A lock may have been granted: repeating with the same nonce
    /// returns it, otherwise it expires.
    ///
    /// # Round trips
    /// One.
    async fn enqueue(&self, items: &[Enqueue]) -> Vec<Result<Enqueued, Error>>;

    /// Grants the lock of an entity that is free and has something to run; the only path to a grant.
    ///
    /// To ensure correctness:
    /// - Nobody else holds a live lease: the stored deadline has passed, or is farther away than
    ///   [`Limits::LEASE`](crate::Limits::LEASE), which only a clock that jumped back can cause (G3).
    /// - Not granted while paused or waiting, or when nothing is queued and due.
    /// - The stored nonce is this one: if the lock is still held, the same grant again, renewed and counted once; if
    ///   it was released, `None`, for this is a late duplicate.
    /// - Raises the fence; a new entity's first fence is the server's time in milliseconds (G3).
    /// - Counts the hand-out before it is run, so that a crash is counted (G6); taking over a hand-out that was
    ///   never settled lowers the entity's batch limit to one.
    ///
    /// # Errors
    /// Per item.
    ///
    /// # Cancel safety
    /// A lock may have been granted: repeating with the same nonce returns it, otherwise it expires.
    ///
    /// # Round trips
    /// One.
    async fn try_lock(&self, items: &[TryLock]) -> Vec<Result<Option<Grant>, Error>>;

    /// Saves state, acknowledgements, verdict and effects, and keeps or lets go of the lock, in one atomic step.
    ///
    /// To ensure correctness:
    /// - Applies only if the entity is locked with the commit's nonce and fence; otherwise answers `LockLost` and
    ///   changes nothing (G3). A deadline that passed without a takeover is no reason to refuse.
    /// - If the stored last commit is this one, answers the current outcome and changes nothing (G4).
    /// - The acked ids are a prefix of what was handed out, and every one is still stored; otherwise
    ///   [`Conflict`](crate::ErrorKind::Conflict), and nothing changes.
    /// - `Released` is answered only if the check that found nothing to hand out saw every message whose enqueue
    ///   had returned, and any that it did not see will see the lock free (G5).
    /// - Sends join their target's queue in the same step, or are relayed exactly once from it (G4).
    ///
    /// # Errors
    /// Per item. An effect that [`capabilities`](Self::capabilities) does not claim is
    /// [`Unsupported`](crate::ErrorKind::Unsupported), and nothing of its commit is applied.
    ///
    /// # Cancel safety
    /// All of a commit or nothing of it is applied. Repeating it with the same id tells which.
    ///
    /// # Round trips
    /// One.
    async fn update_locked(&self, commits: &[Commit]) -> Vec<Result<Updated, Error>>;

    /// Hands a lock back whose batch was not run: the hand-out is un-counted. Answers whether it was held.
    ///
    /// Compares the nonce, not the fence: a commit under the same grant may have raised it. A commit that arrives
    /// after the release is refused.
    ///
    /// # Errors
    /// Per item.
    ///
    /// # Cancel safety
    /// The lock was handed back, or expires.
    ///
    /// # Round trips
    /// One.
    async fn release(&self, leases: &[Lease]) -> Vec<Result<bool, Error>>;

    /// Finds entities that want a run and that nobody holds. Claims nothing: that goes through
    /// [`try_lock`](Self::try_lock). An adapter that stages sends before they reach their target relays here what a
    /// crash has left staged.
    ///
    /// Reports an entity when something is queued and due, it is neither paused nor waiting, and its lease is free
    /// or has run out (G5); longest overdue first.
    ///
    /// # Errors
    /// Of the call.
    ///
    /// # Cancel safety
    /// Changes no entity and no lease.
    ///
    /// # Round trips
    /// One, or two.
    async fn due(&self, query: &DueQuery) -> Result<Due, Error>;

    /// Opens a handle with a connection of its own, which extends leases while handlers and pools are stuck.
    ///
    /// It is called, and used, on the runtime of the heartbeat's own thread.
    ///
    /// # Errors
    /// The connection cannot be opened.
    ///
    /// # Cancel safety
    /// Nothing is stored.
    ///
    /// # Round trips
    /// Those of opening a connection.
    async fn heartbeat(&self) -> Result<Box<dyn Heartbeat>, Error>;

    /// What this adapter can do beyond the verbs. What is not claimed here answers `Unsupported`.
    fn capabilities(&self) -> Capabilities;
}

/// Extends leases on a connection of its own.
#[async_trait]
pub trait Heartbeat: Send {
    /// Renews leases that are still held by their nonce, and says for each whether it is.
    ///
    /// Compares the nonce, not the fence: commits raise the fence while a heartbeat is on its way.
    ///
    /// # Errors
    /// Per item.
    ///
    /// # Cancel safety
    /// A lease was renewed or not; repeat it.
    ///
    /// # Round trips
    /// One.
    async fn extend_lock(&mut self, leases: &[Lease]) -> Vec<Result<bool, Error>>;
}

/// Messages for one entity, and whether its lock is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enqueue {
    /// Whom they are for.
    pub entity: EntityId,
    /// In the order in which they join the queue.
    pub messages: Vec<NewMessage>,
    /// The most messages the entity may have pending, delayed ones included.
    pub backlog_limit: u64,
    /// Try the lock in the same trip.
    pub lock: Option<LockRequest>,
}

/// What became of an [`Enqueue`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enqueued {
    /// One for each message, in order.
    pub admissions: Vec<Admission>,
    /// The lock, if it was wanted and free.
    pub grant: Option<Grant>,
}

/// What became of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Stored.
    Accepted,
    /// This id was accepted before; the first one stays, this one was not stored.
    Duplicate,
    /// The backlog is full; not stored.
    Full,
}

/// A request for one entity's lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TryLock {
    /// Whose lock.
    pub entity: EntityId,
    /// How.
    pub request: LockRequest,
}

/// What to look for with [`LockableQueue::due`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueQuery {
    /// The kinds that this process can run.
    pub kinds: Vec<String>,
    /// The most entities to return.
    pub limit: u32,
    /// Go on behind an earlier page.
    pub after: Option<Cursor>,
}

/// Where a page of [`LockableQueue::due`] ended. Opaque; made and read by the same adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub String);

/// Entities that want a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Due {
    /// Longest overdue first.
    pub entities: Vec<EntityId>,
    /// How long until the next one that is not due yet, if there is one.
    pub next: Option<Duration>,
    /// Where to go on, if there is more: also behind a page that is shorter than what was asked for.
    pub after: Option<Cursor>,
}

/// What an adapter can do beyond the verbs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// [`Effect::SetTimer`](crate::Effect::SetTimer) and [`Effect::CancelTimer`](crate::Effect::CancelTimer).
    pub timers: bool,
    /// [`Effect::Reply`](crate::Effect::Reply).
    pub replies: bool,
}
