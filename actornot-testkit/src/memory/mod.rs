//! The reference: the contract in memory, small enough to be read against docs/decisions/0001-verbs.md.

mod bug;
mod due;
mod guards;
mod inspect;
mod row;
mod verbs;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actornot_core::{
    Capabilities, Commit, DeadLetter, Due, DueQuery, Enqueue, Enqueued, EntityId, Error, ErrorKind, Grant,
    Heartbeat, Lease, LockRequest, LockableQueue, MessageId, NewMessage, Next, TryLock, Updated,
};
use async_trait::async_trait;
use tokio::sync::RwLock;
use tokio::time::Instant;

pub use bug::{Bug, Oddity};
use guards::{Crossing, Leak, Wedge};
use row::{At, Row};

/// More calls than any behaviour makes.
const ENDLESS: usize = 10_000;

/// A queue in memory, with every guarantee but durability: for unit tests of runners, and as the reference that the
/// conformance suite is tested with.
///
/// Clones share one store, as several processes share one database.
///
/// `Batch` and `Context` cannot be made by hand: a runner is tested through a mailbox.
///
/// ```
/// # use actornot_core::*;
/// # use actornot_testkit::MemoryQueue;
/// # use std::time::Duration;
/// # struct Counter;
/// # impl Runner for Counter {
/// #     const KIND: &'static str = "counter";
/// #     type State = i64;
/// #     type Message = i64;
/// #     async fn run_locked(&self, state: &mut i64, batch: Batch<i64>, _: &mut Context) -> Result<(), Failure> {
/// #         batch.iter().for_each(|delta| *state += **delta);
/// #         Ok(())
/// #     }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// let queue = MemoryQueue::new();
/// let mailbox = MailboxPoster::new(queue.clone(), Counter);
/// let receipt = mailbox.post("alice", 5).await?;
/// assert_eq!(receipt.settled(Duration::from_secs(5)).await?, Settled::Handled);
/// assert_eq!(mailbox.read("alice").await?.map(|view| view.state), Some(5));
///
/// // What is due later, or was sent to others, is run by a sweep; the queue's clock can be moved.
/// mailbox.post("alice", 2).after(Duration::from_secs(3600)).await?;
/// queue.elapse(Duration::from_secs(3600));
/// mailbox.sweep(Duration::from_secs(5)).await?;
/// assert_eq!(mailbox.read("alice").await?.map(|view| view.state), Some(7));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct MemoryQueue {
    store: Arc<Mutex<Store>>,
    /// Held for writing to keep every verb waiting.
    frozen: Arc<RwLock<()>>,
    bug: Option<Bug>,
    oddity: Option<Oddity>,
    /// Calls ever made, and calls of several entities under way.
    calls: Arc<AtomicUsize>,
    crossing: Arc<AtomicUsize>,
    single: Arc<tokio::sync::Mutex<()>>,
}

impl Default for MemoryQueue {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Debug)]
struct Store {
    started: Instant,
    /// How far tests have moved the clock.
    ahead: Duration,
    entities: BTreeMap<EntityId, Row>,
    seen: BTreeMap<(EntityId, MessageId), At>,
    dead: Vec<DeadLetter>,
    letters: u64,
    /// A dropped call of a broken queue has wedged it.
    wedged: bool,
    /// Somebody has called an entity by a key that is none.
    misnamed: bool,
    bug: Option<Bug>,
}

impl MemoryQueue {
    /// An empty queue.
    pub fn new() -> Self {
        Self::with(None, None)
    }

    /// A queue with one mistake.
    #[cfg(feature = "suite")]
    pub fn with_bug(bug: Bug) -> Self {
        Self::with(Some(bug), None)
    }

    /// A queue without mistakes that does something unusual.
    #[cfg(feature = "suite")]
    pub fn with_oddity(oddity: Oddity) -> Self {
        Self::with(None, Some(oddity))
    }

    fn with(bug: Option<Bug>, oddity: Option<Oddity>) -> Self {
        let store = Store {
            started: Instant::now(),
            ahead: Duration::from_secs(1_000_000),
            entities: BTreeMap::new(),
            seen: BTreeMap::new(),
            dead: Vec::new(),
            letters: 0,
            wedged: false,
            misnamed: false,
            bug,
        };
        Self {
            store: Arc::new(Mutex::new(store)),
            frozen: Arc::default(),
            bug,
            oddity,
            calls: Arc::default(),
            crossing: Arc::default(),
            single: Arc::default(),
        }
    }

    /// Moves the store's clock.
    pub fn elapse(&self, time: Duration) {
        self.store().ahead += time;
    }

    /// Keeps every writing verb waiting until the guard is dropped, in order of arrival.
    #[cfg(feature = "suite")]
    pub async fn freeze(&self) -> impl Send + 'static + use<> {
        self.frozen.clone().write_owned().await
    }

    /// Replaces the bytes of a stored message, as a disk or an operator might.
    pub fn corrupt_payload(&self, entity: &EntityId, id: &MessageId, payload: &str) {
        if let Some(row) = self.store().entities.get_mut(entity) {
            for message in row.queue.iter_mut().filter(|message| message.id == *id) {
                message.payload = payload.to_owned();
            }
        }
    }

    /// Replaces the bytes of a stored state, as a disk or an operator might.
    pub fn corrupt_state(&self, entity: &EntityId, json: &str) {
        if let Some(state) = self.store().entities.get_mut(entity).and_then(|row| row.state.as_mut()) {
            state.json = json.to_owned();
        }
    }

    /// A stored entity is called by a key that is none, as an operator might do: from here on nobody can name it.
    #[cfg(feature = "suite")]
    pub(crate) fn corrupt_key(&self, entity: &EntityId) {
        let mut store = self.store();
        store.entities.remove(entity);
        store.misnamed = true;
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One item of a trip, in one step.
    fn step<I, T>(&self, item: &I, verb: impl Fn(&mut Store, &I) -> Result<T, Error>) -> Result<T, Error> {
        let mut store = self.store();
        if store.wedged {
            return Err(Error::new(ErrorKind::Conflict, "wedged by a dropped call"));
        }
        verb(&mut store, item)
    }

    /// One trip of a writing verb: suspends before and after, so that there is something to be dropped at.
    async fn trip<I: Sync, T: Send>(
        &self,
        items: &[I],
        verb: impl Fn(&mut Store, &I) -> Result<T, Error> + Send + Sync,
    ) -> Vec<Result<T, Error>> {
        let _single = self.pause().await;
        let crossing = Crossing::enter(self, items.len());
        let frozen = self.frozen.read().await;
        tokio::task::yield_now().await;
        if crossing.meets_another() {
            return Error::new(ErrorKind::Unavailable, "a deadlock, resolved by refusing one")
                .for_each(items.len());
        }
        let wedge = Wedge(self.bug == Some(Bug::DropWedges), self);
        let mut answers: Vec<Result<T, Error>> = Vec::with_capacity(items.len());
        for item in items {
            answers.push(self.step(item, &verb));
            if self.bug == Some(Bug::DropLeavesHalf) {
                tokio::task::yield_now().await;
            }
        }
        drop(frozen);
        tokio::task::yield_now().await;
        wedge.passed();
        let failed = answers.iter().find_map(|answer| answer.as_ref().err().cloned());
        match (self.bug, failed) {
            (Some(Bug::NeighbourFails), Some(error)) => error.for_each(items.len()),
            (Some(Bug::ResultsSwapped), _) => answers.into_iter().rev().collect(),
            _ => answers,
        }
    }

    /// How a call of this queue waits for its turn.
    async fn pause(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        if self.bug.is_some() && call > ENDLESS {
            // A broken queue can keep a loop spinning, under which a paused clock, and any patience, stands still.
            std::future::pending().await
        }
        let yields = match self.oddity {
            Some(Oddity::Slow) => 9,
            Some(Oddity::LastInFirstOut) => 8 - call % 8,
            _ => 1,
        };
        for _ in 0..yields {
            tokio::task::yield_now().await;
        }
        match self.oddity {
            Some(Oddity::OneAtATime) => Some(self.single.lock().await),
            _ => None,
        }
    }

    /// Hands out no more than this queue ever does.
    fn at_most(&self, max: u32) -> u32 {
        if self.oddity == Some(Oddity::BatchOfOne) { 1 } else { max }
    }

    fn limited(&self, request: &LockRequest) -> LockRequest {
        LockRequest { max_batch: self.at_most(request.max_batch), ..request.clone() }
    }

    /// Refuses a request for reasons of its own, now and then; never one that it has granted before.
    fn is_contended_by(&self, store: &mut Store, item: &TryLock) -> bool {
        self.oddity == Some(Oddity::SpuriousContention)
            && self.calls.load(Ordering::Relaxed).is_multiple_of(3)
            && store.row(&item.entity).nonce != Some(item.request.nonce)
    }

    /// The entities that are free before the call waits for its rows.
    fn free(&self, items: &[TryLock]) -> Vec<EntityId> {
        let mut store = self.store();
        let now = store.now();
        let is_free = |entity: &&EntityId| !store.row(entity).is_leased(now, None);
        items.iter().map(|item| &item.entity).filter(is_free).cloned().collect()
    }

    /// The entities with nothing more to do, before the call waits for its rows.
    fn about_to_be_empty(&self, commits: &[Commit]) -> Vec<EntityId> {
        let mut store = self.store();
        let is_last = |commit: &&Commit| store.row(&commit.lease.entity).queue.len() <= commit.acked.len();
        commits.iter().filter(is_last).map(|commit| commit.lease.entity.clone()).collect()
    }

    /// Each message in a trip of its own.
    async fn enqueue_one_by_one(&self, items: &[Enqueue]) -> Vec<Result<Enqueued, Error>> {
        let alone = |item: &Enqueue, message: &NewMessage| Enqueue {
            messages: vec![message.clone()],
            ..item.clone()
        };
        let single: Vec<Enqueue> =
            items.iter().flat_map(|item| item.messages.iter().map(|message| alone(item, message))).collect();
        let mut parts = self.trip(&single, Store::enqueue).await.into_iter();
        let joined = |item: &Enqueue| {
            let parts: Result<Vec<Enqueued>, Error> = parts.by_ref().take(item.messages.len()).collect();
            parts.map(|parts| Enqueued {
                admissions: parts.iter().flat_map(|part| part.admissions.clone()).collect(),
                grant: parts.into_iter().rev().find_map(|part| part.grant),
            })
        };
        items.iter().map(joined).collect()
    }
}

#[async_trait]
impl LockableQueue for MemoryQueue {
    async fn enqueue(&self, items: &[Enqueue]) -> Vec<Result<Enqueued, Error>> {
        let limited = |item: &Enqueue| Enqueue {
            lock: item.lock.as_ref().map(|request| self.limited(request)),
            ..item.clone()
        };
        let items: Vec<Enqueue> = items.iter().map(limited).collect();
        if self.bug == Some(Bug::DropLeavesHalf) {
            return self.enqueue_one_by_one(&items).await;
        }
        self.trip(&items, Store::enqueue).await
    }

    async fn try_lock(&self, items: &[TryLock]) -> Vec<Result<Option<Grant>, Error>> {
        let early: Vec<EntityId> = match self.bug {
            Some(Bug::LockReadBeforeWait) => self.free(items),
            _ => Vec::new(),
        };
        let leak = (self.bug == Some(Bug::GrantLeakedOnDrop)).then(|| Leak(items, self));
        let answers = self.trip(items, |store, item| {
            if self.is_contended_by(store, item) {
                return Ok(None);
            }
            if early.contains(&item.entity) {
                store.row(&item.entity).deadline = None;
            }
            Ok(store.try_lock(&item.entity, &self.limited(&item.request)))
        });
        let answers = answers.await;
        leak.into_iter().for_each(std::mem::forget);
        answers
    }

    async fn update_locked(&self, commits: &[Commit]) -> Vec<Result<Updated, Error>> {
        let limited = |commit: &Commit| Commit {
            next: match commit.next {
                Next::Batch { max } => Next::Batch { max: self.at_most(max) },
                Next::Release => Next::Release,
            },
            ..commit.clone()
        };
        let empty: Vec<EntityId> = match self.bug {
            Some(Bug::ReleaseReadBeforeWait) => self.about_to_be_empty(commits),
            _ => Vec::new(),
        };
        let commits: Vec<Commit> = commits.iter().map(limited).collect();
        self.trip(&commits, |store, commit| {
            let entity = &commit.lease.entity;
            if empty.contains(entity) {
                let more = store.row(entity).queue.len() > commit.acked.len();
                store.row(entity).unnoted = more;
            }
            store.update_locked(commit)
        })
        .await
    }

    async fn release(&self, leases: &[Lease]) -> Vec<Result<bool, Error>> {
        self.trip(leases, |store, lease| Ok(store.release(lease))).await
    }

    async fn due(&self, query: &DueQuery) -> Result<Due, Error> {
        let _single = self.pause().await;
        if self.store().wedged {
            return Err(Error::new(ErrorKind::Conflict, "wedged by a dropped call"));
        }
        if self.store().misnamed && self.bug == Some(Bug::DueStopsAtBadKey) {
            return Err(Error::new(ErrorKind::Corrupt, "a stored key is none"));
        }
        let wedge = Wedge(self.bug == Some(Bug::DropWedgesReads), self);
        let due = self.store().due(query);
        tokio::task::yield_now().await;
        wedge.passed();
        Ok(due)
    }

    async fn heartbeat(&self) -> Result<Box<dyn Heartbeat>, Error> {
        Ok(Box::new(self.clone()))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }
}

#[async_trait]
impl Heartbeat for MemoryQueue {
    async fn extend_lock(&mut self, leases: &[Lease]) -> Vec<Result<bool, Error>> {
        self.trip(leases, |store, lease| Ok(store.extend(lease))).await
    }
}

/// The distinct kinds of a query.
fn kinds(query: &DueQuery) -> BTreeSet<&str> {
    query.kinds.iter().map(String::as_str).collect()
}
