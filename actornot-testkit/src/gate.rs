//! A queue between the loop and the database: holds calls where a behaviour wants them, and loses their replies.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actornot_core::{
    Capabilities, Commit, DeadLetter, Due, DueQuery, DurabilityReport, Enqueue, Enqueued, EntityId, Error,
    ErrorKind, Grant, Heartbeat, Inspect, Lease, Location, LockableQueue, MessageId, Position, Snapshot,
    StoredMessage, TryLock, Updated, Why,
};
use async_trait::async_trait;
use tokio::sync::oneshot;

/// A verb of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Enqueue,
    TryLock,
    Update,
    Release,
    Due,
}

/// Where in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// It was not made yet.
    Before,
    /// It was made, and its reply is on its way.
    After,
}

/// What becomes of the next call of a verb.
enum Plan {
    Hold { at: Point, reached: oneshot::Sender<()>, end: oneshot::Receiver<Lost> },
    LoseReply,
    RefuseUnmade(ErrorKind),
}

/// A call that is held. Dropped, it goes on.
pub(crate) struct Hold {
    reached: oneshot::Receiver<()>,
    end: oneshot::Sender<Lost>,
}

/// The reply of a call that was held is lost.
struct Lost;

impl Hold {
    /// Completes when a call has come this far.
    pub(crate) async fn reached(&mut self) {
        let _ = (&mut self.reached).await;
    }

    /// Lets it go on.
    pub(crate) fn go_on(self) {
        drop(self);
    }

    /// Lets it go on, and loses its reply.
    pub(crate) fn lose(self) {
        let _ = self.end.send(Lost);
    }
}

/// The gate in front of one queue.
pub(crate) struct Gate {
    inner: Arc<dyn LockableQueue>,
    plans: Mutex<VecDeque<(Verb, Plan)>>,
    calls: Mutex<Vec<Verb>>,
    halt: Mutex<Option<Halt>>,
}

/// The call at which a process stands still, until it is killed.
struct Halt {
    nth: usize,
    at: Point,
    halted: oneshot::Sender<Verb>,
}

impl Gate {
    pub(crate) fn new(inner: Arc<dyn LockableQueue>) -> Arc<Self> {
        Arc::new(Self { inner, plans: Mutex::default(), calls: Mutex::default(), halt: Mutex::default() })
    }

    fn plans(&self) -> MutexGuard<'_, VecDeque<(Verb, Plan)>> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn plan(&self, verb: Verb, plan: Plan) {
        self.plans().push_back((verb, plan));
    }

    /// Holds the next call of a verb.
    pub(crate) fn hold(&self, verb: Verb, at: Point) -> Hold {
        let (arrived, reached) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        self.plan(verb, Plan::Hold { at, reached: arrived, end: ended });
        Hold { reached, end }
    }

    /// The next call of a verb is made, and its reply lost.
    pub(crate) fn lose_reply(&self, verb: Verb) {
        self.plan(verb, Plan::LoseReply);
    }

    /// The next call of a verb is not made.
    pub(crate) fn refuse(&self, verb: Verb, kind: ErrorKind) {
        self.plan(verb, Plan::RefuseUnmade(kind));
    }

    /// How often a verb was called.
    pub(crate) fn calls(&self, verb: Verb) -> usize {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.iter().filter(|called| **called == verb).count()
    }

    /// Completes when the so-manieth call, of whatever verb, has come to this point; it goes no further.
    pub(crate) async fn halt(&self, nth: usize, at: Point) -> Verb {
        let (halted, reached) = oneshot::channel();
        *self.halt.lock().unwrap_or_else(PoisonError::into_inner) = Some(Halt { nth, at, halted });
        match reached.await {
            Ok(verb) => verb,
            Err(_) => std::future::pending().await,
        }
    }

    /// Stands still if this is where to halt.
    async fn passed(&self, nth: usize, at: Point, verb: Verb) {
        let here = |halt: &mut Halt| halt.nth == nth && halt.at == at;
        let halt = self.halt.lock().unwrap_or_else(PoisonError::into_inner).take_if(here);
        if let Some(halt) = halt {
            let _ = halt.halted.send(verb);
            std::future::pending::<()>().await;
        }
    }

    /// Counts a call.
    fn count(&self, verb: Verb) -> usize {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.push(verb);
        calls.len()
    }

    fn next(&self, verb: Verb) -> Option<Plan> {
        let mut plans = self.plans();
        let place = plans.iter().position(|(planned, _)| *planned == verb)?;
        plans.remove(place).map(|(_, plan)| plan)
    }

    /// Makes a call as planned. `Err`: it has no answer, for this reason.
    async fn pass<T>(&self, verb: Verb, call: impl Future<Output = T>) -> Result<T, Error> {
        let nth = self.count(verb);
        match self.next(verb) {
            None => {
                self.passed(nth, Point::Before, verb).await;
                let answer = call.await;
                self.passed(nth, Point::After, verb).await;
                Ok(answer)
            }
            Some(Plan::Hold { at, reached, end }) => {
                let held = async {
                    let _ = reached.send(());
                    end.await.is_ok()
                };
                let (answer, lost) = match at {
                    Point::Before => {
                        let lost = held.await;
                        (call.await, lost)
                    }
                    Point::After => (call.await, held.await),
                };
                if lost { Err(lost_reply()) } else { Ok(answer) }
            }
            Some(Plan::LoseReply) => {
                call.await;
                Err(lost_reply())
            }
            Some(Plan::RefuseUnmade(kind)) => Err(Error::new(kind, "the call was not made")),
        }
    }

    async fn each<T>(
        &self,
        verb: Verb,
        items: usize,
        call: impl Future<Output = Vec<Result<T, Error>>>,
    ) -> Vec<Result<T, Error>> {
        self.pass(verb, call).await.unwrap_or_else(|error| error.for_each(items))
    }
}

fn lost_reply() -> Error {
    Error::new(ErrorKind::UnknownOutcome, "the reply was lost")
}

/// The gate as the loop's queue.
#[derive(Clone)]
pub(crate) struct Gated(pub(crate) Arc<Gate>);

#[async_trait]
impl LockableQueue for Gated {
    async fn enqueue(&self, items: &[Enqueue]) -> Vec<Result<Enqueued, Error>> {
        self.0.each(Verb::Enqueue, items.len(), self.0.inner.enqueue(items)).await
    }

    async fn try_lock(&self, items: &[TryLock]) -> Vec<Result<Option<Grant>, Error>> {
        self.0.each(Verb::TryLock, items.len(), self.0.inner.try_lock(items)).await
    }

    async fn update_locked(&self, commits: &[Commit]) -> Vec<Result<Updated, Error>> {
        self.0.each(Verb::Update, commits.len(), self.0.inner.update_locked(commits)).await
    }

    async fn release(&self, leases: &[Lease]) -> Vec<Result<bool, Error>> {
        self.0.each(Verb::Release, leases.len(), self.0.inner.release(leases)).await
    }

    async fn due(&self, query: &DueQuery) -> Result<Due, Error> {
        self.0.pass(Verb::Due, self.0.inner.due(query)).await?
    }

    async fn heartbeat(&self) -> Result<Box<dyn Heartbeat>, Error> {
        self.0.inner.heartbeat().await
    }

    fn capabilities(&self) -> Capabilities {
        self.0.inner.capabilities()
    }
}

#[async_trait]
impl Inspect for Gated {
    async fn read(&self, entities: &[EntityId]) -> Result<Vec<Option<Snapshot>>, Error> {
        self.0.inner.read(entities).await
    }

    async fn list(
        &self,
        kind: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(EntityId, Snapshot)>, Error> {
        self.0.inner.list(kind, after, limit).await
    }

    async fn peek(&self, entity: &EntityId, limit: u32) -> Result<Vec<StoredMessage>, Error> {
        self.0.inner.peek(entity, limit).await
    }

    async fn locate(&self, entity: &EntityId, ids: &[MessageId]) -> Result<Vec<Location>, Error> {
        self.0.inner.locate(entity, ids).await
    }

    async fn why(&self, entity: &EntityId) -> Result<Option<Why>, Error> {
        self.0.inner.why(entity).await
    }

    async fn dead_letters(
        &self,
        kind: &str,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, Error> {
        self.0.inner.dead_letters(kind, after, limit).await
    }

    async fn redrive(&self, letter: &DeadLetter, to: Position) -> Result<bool, Error> {
        self.0.inner.redrive(letter, to).await
    }

    async fn pause(&self, entity: &EntityId, reason: &str) -> Result<(), Error> {
        self.0.inner.pause(entity, reason).await
    }

    async fn resume(&self, entity: &EntityId) -> Result<bool, Error> {
        self.0.inner.resume(entity).await
    }

    async fn purge(&self, entity: &EntityId) -> Result<bool, Error> {
        self.0.inner.purge(entity).await
    }

    async fn doctor(&self) -> Result<DurabilityReport, Error> {
        self.0.inner.doctor().await
    }
}
