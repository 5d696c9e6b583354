//! The mailbox loop: lock, run, commit, go on or let go.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::calls::{Commits, Locks, Posting, Posts, Releases};
use crate::errand::{Errand, Over};
use crate::group::Group;
use crate::heartbeat::Heartbeats;
use crate::held::{Held, inside_handler};
use crate::seam::{Mistake, Seam};
use crate::slots::Slots;
use crate::sweep::Sweeper;
use crate::turn::{AnyRunner, caught};
use crate::waiters::Waiters;
use crate::workers::{Seat, Workers};
use crate::{
    Admission, Commit, Config, Effect, EntityId, Envelope, Error, ErrorKind, LockableQueue, MessageId, Next,
    Nonce, Retry, Scheduler, Settled, Updated, Verdict, Waiting,
};

/// Everything that the mailboxes of one system share.
pub(crate) struct Engine {
    pub(crate) queue: Arc<dyn LockableQueue>,
    pub(crate) config: Arc<Config>,
    pub(crate) seam: Arc<dyn Seam>,
    pub(crate) runners: BTreeMap<&'static str, Arc<dyn AnyRunner>>,
    pub(crate) slots: Slots,
    pub(crate) workers: Workers<Work>,
    pub(crate) waiters: Waiters,
    pub(crate) sweeper: Arc<Sweeper>,
    pub(crate) stop: watch::Sender<Stop>,
    pub(crate) heartbeats: Arc<Heartbeats>,
    pub(crate) locks: Arc<Group<Locks>>,
    pub(crate) releases: Arc<Group<Releases>>,
    posts: Arc<Group<Posts>>,
    commits: Arc<Group<Commits>>,
}

/// How far a shutdown has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    /// Not at all.
    Running,
    /// No new work; running batches finish.
    Draining,
    /// Running batches are dropped, and their leases handed back.
    Now,
}

/// An entity in line for a worker.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) entity: EntityId,
    /// Ask with this nonce: an earlier request with it may have been granted.
    pub(crate) nonce: Option<Nonce>,
    /// The lease it got with its post, or kept when its slice was over.
    pub(crate) held: Option<Box<Held>>,
    /// What it is done for.
    pub(crate) errand: Errand,
}

/// How the batches of a lease ended.
enum Driven {
    /// The lock is gone.
    LetGo,
    /// Others wait; it queues up behind them and keeps its lease.
    SliceOver(Box<Held>),
}

impl Engine {
    pub(crate) fn new(
        queue: Arc<dyn LockableQueue>,
        config: Config,
        seam: Arc<dyn Seam>,
        runners: BTreeMap<&'static str, Arc<dyn AnyRunner>>,
    ) -> Arc<Self> {
        let timeout = config.call_timeout;
        let engine = Arc::new_cyclic(|engine: &Weak<Self>| {
            let posts =
                Posts { queue: queue.clone(), engine: engine.clone(), backlog: config.limits.backlog };
            Self {
                slots: Slots::default(),
                workers: Workers::new(config.concurrency as usize),
                waiters: Waiters::default(),
                sweeper: Sweeper::new(),
                stop: watch::Sender::new(Stop::Running),
                heartbeats: Heartbeats::new(queue.clone(), seam.clone()),
                posts: Group::new(posts, seam.clone(), timeout, config.limits.waiting_calls),
                locks: Group::new(Locks(queue.clone()), seam.clone(), timeout, usize::MAX),
                commits: Group::new(Commits(queue.clone()), seam.clone(), timeout, usize::MAX),
                releases: Group::new(Releases(queue.clone()), seam.clone(), timeout, usize::MAX),
                config: Arc::new(config),
                queue,
                seam,
                runners,
            }
        });
        engine.sweeper.start(&engine);
        engine
    }

    pub(crate) fn stopping(&self) -> bool {
        *self.stop.borrow() > Stop::Running
    }

    /// Appends a message durably, and sees to it that somebody runs it.
    pub(crate) async fn post(
        &self,
        envelope: Envelope,
        run: bool,
        errand: Errand,
    ) -> Result<Admission, Error> {
        if self.stopping() {
            return Err(Error::new(ErrorKind::Closed, "the mailbox was closed").with_entity(&envelope.entity));
        }
        let delay = envelope.message.delay;
        let errand = (run && delay.is_zero() && self.may_run(&envelope.entity)).then_some(errand);
        let admission = self.posts.call(Posting { envelope, errand }).await?;
        if !delay.is_zero() {
            self.sweeper.hint(self.seam.now() + delay);
        }
        Ok(admission)
    }

    /// Whether this process runs such an entity.
    fn may_run(&self, entity: &EntityId) -> bool {
        self.config.scheduler != Scheduler::Never
            && !self.stopping()
            && self.runners.contains_key(entity.kind())
    }

    /// The second half of a post that skipped the lock because the entity had a slot here, or no seat was free.
    pub(crate) fn look_after_enqueue(self: &Arc<Self>, entity: &EntityId, errand: Errand) {
        if self.seam.mistake() != Some(Mistake::SlotToldTooLate) {
            self.look(entity, errand);
        }
    }

    /// Sees to it that this process looks at an entity after everything that was enqueued until now.
    pub(crate) fn look(self: &Arc<Self>, entity: &EntityId, errand: Errand) {
        if !self.may_run(entity) {
            return;
        }
        if let Some(errand) = self.slots.enter(entity, errand) {
            self.line_up(Work { entity: entity.clone(), nonce: None, held: None, errand });
        }
    }

    pub(crate) fn line_up(self: &Arc<Self>, work: Work) {
        if let Some(seat) = self.workers.line_up(work) {
            self.sit(seat);
        }
    }

    /// Has a worker take the seat, if anybody is in line.
    pub(crate) fn sit(self: &Arc<Self>, seat: Seat) {
        if let Some((work, seat)) = self.workers.next(seat) {
            self.begin(work, seat);
        }
    }

    /// Has the seat's worker begin with this.
    pub(crate) fn begin(self: &Arc<Self>, work: Work, seat: Seat) {
        self.seam.spawn(Box::pin(self.clone().work(work, seat)));
    }

    async fn work(self: Arc<Self>, mut work: Work, mut seat: Seat) {
        loop {
            let entity = work.entity.clone();
            let run = async {
                self.run(work).await;
                Ok(())
            };
            // Handlers' panics are caught where they run; this is for the drop of a user's type.
            if let Err(failure) = caught(run).await {
                tracing::error!(%entity, error = failure.error, "a worker stumbled");
                self.slots.abandon(&entity);
                // Whoever relied on its slot relies on this.
                self.look(&entity, self.errand());
            }
            match self.workers.next(seat) {
                Some(next) => (work, seat) = next,
                None => return,
            }
        }
    }

    /// Runs an entity whose slot is owned, until its queue is empty, its slice is over, or somebody else has it.
    async fn run(self: &Arc<Self>, work: Work) {
        let Work { entity, mut nonce, mut held, mut errand } = work;
        loop {
            errand.dismiss(self.seam.now());
            self.slots.about_to_look(&entity, &mut errand);
            let lease = match held.take() {
                // One that waited in line for too long was handed back; then the lock is asked for again.
                Some(held) => self.take_up(held, &errand).await,
                None => None,
            };
            let lease = match lease {
                Some(lease) => Some(lease),
                None if self.is_over(&errand) => {
                    self.forgo(&entity, nonce.take()).await;
                    None
                }
                None => self.lock(&entity, nonce.take()).await,
            };
            if let Some(lease) = lease
                && let Driven::SliceOver(held) = self.drive(lease, &mut errand).await
            {
                return self.line_up(Work { entity, nonce: None, held: Some(held), errand });
            }
            if self.slots.leave(&entity) {
                return;
            }
        }
    }

    /// Run a batch, commit it, go on with the next one: the mailbox loop.
    async fn drive(self: &Arc<Self>, mut held: Box<Held>, errand: &mut Errand) -> Driven {
        loop {
            let Some(mut commit) = self.run_batch(&mut held).await else { return Driven::LetGo };
            // Whatever was enqueued until here, the commit sees.
            self.slots.about_to_look(&held.lease.entity, errand);
            if !self.is_over(errand) {
                commit.next = Next::Batch { max: self.config.batch };
            }
            let dead = match commit.verdict {
                Verdict::DeadLetter { .. } => held.ids.get(commit.acked.len()).cloned(),
                _ => None,
            };
            match self.commits.call(commit.clone()).await {
                Ok(Updated::Continue { batch, .. }) if batch.messages.is_empty() => {
                    // Not in the contract, and going on would spin.
                    tracing::error!(entity = %held.lease.entity, "the adapter went on with an empty batch");
                    self.committed(commit, dead, errand);
                    self.hand_back(&held.lease).await;
                    return Driven::LetGo;
                }
                Ok(Updated::Continue { fence, batch }) => {
                    self.committed(commit, dead, errand);
                    errand.dismiss(self.seam.now());
                    held.go_on(fence, batch, self.run_deadline());
                    if held.batches >= self.config.slice && self.workers.has_line() {
                        held.lined_up = self.seam.now();
                        return Driven::SliceOver(held);
                    }
                }
                Ok(Updated::Released { next_due }) => {
                    self.committed(commit, dead, errand);
                    self.released(&held.lease.entity, next_due, errand);
                    return Driven::LetGo;
                }
                Ok(Updated::LockLost) => {
                    tracing::warn!(entity = %held.lease.entity, fence = held.lease.fence, "a commit was refused: the lock was lost");
                    return Driven::LetGo;
                }
                Err(error) => {
                    tracing::error!(entity = %held.lease.entity, %error, "a commit failed; its batch will be run again");
                    // It was not the batch's fault: the hand-out is not counted. Otherwise the lease runs out, and is.
                    if error.retry() == Retry::Safe {
                        self.hand_back(&held.lease).await;
                    }
                    return Driven::LetGo;
                }
            }
        }
    }

    /// Tells those who wait for a message, and looks at those it sent something to.
    fn committed(self: &Arc<Self>, commit: Commit, dead: Option<MessageId>, errand: &Errand) {
        let entity = &commit.lease.entity;
        self.waiters.tell(entity, &commit.acked, Settled::Handled);
        self.waiters.tell(entity, dead.as_slice(), Settled::Dead);
        match &commit.verdict {
            Verdict::Proceed => {}
            Verdict::DeadLetter { error } => {
                let id = dead.as_ref().map(MessageId::as_str);
                tracing::warn!(%entity, id, error, "a message was moved to the dead letters");
            }
            Verdict::Pause { reason } => tracing::warn!(%entity, reason, "paused until somebody resumes it"),
            Verdict::Wait { why: Waiting::Blocked, after, error } => {
                tracing::warn!(%entity, ?after, error, "blocked by a message that keeps failing");
            }
            Verdict::Wait { why, after, error } => {
                tracing::debug!(%entity, why = why.as_str(), ?after, error, "waits before its next run");
            }
        }
        for effect in commit.effects {
            if let Effect::Send(Envelope { entity, message }) = effect {
                match message.delay.is_zero() {
                    true => self.look(&entity, errand.clone()),
                    false => self.sweeper.hint(self.seam.now() + message.delay),
                }
            }
        }
    }

    /// Completes when nothing is done for an inline post any more, nor for what it led to; and, as long as its budget
    /// lasts, when whoever else in this process ran the entity has let go of it.
    pub(crate) async fn finish_inline(&self, entity: &EntityId, over: Over, until: Instant) {
        over.wait().await;
        if let Some(left) = self.slots.left(entity) {
            tokio::select! {
                _ = left => {}
                () = self.seam.sleep(until.saturating_duration_since(self.seam.now())) => {}
            }
        }
    }

    /// Takes no new work; running batches finish.
    pub(crate) fn drain(&self) {
        self.stop.send_if_modified(|stop| {
            let first = *stop == Stop::Running;
            *stop = Stop::Draining.max(*stop);
            first
        });
        self.sweeper.wake();
    }

    /// Drains, and after a while drops what still runs.
    pub(crate) async fn close(&self) {
        self.drain();
        if let Some(entity) = inside_handler() {
            tracing::warn!(%entity, "closed from inside a handler, which would wait for itself: it drains, no more");
            return;
        }
        if !self.is_alive().await {
            // Its runtime took everything with it that could be waited for.
            return;
        }
        tokio::select! {
            () = self.workers.idle() => {}
            () = self.seam.sleep(self.config.close_timeout) => {
                self.stop.send_replace(Stop::Now);
                tokio::select! {
                    () = self.workers.idle() => {}
                    () = self.seam.sleep(self.config.call_timeout) => {
                        tracing::warn!("closed while handlers that block their thread still run");
                    }
                }
            }
        }
        self.heartbeats.close();
    }

    /// Whether there is still a runtime to run on.
    async fn is_alive(&self) -> bool {
        let (alive, answer) = oneshot::channel();
        self.seam.spawn(Box::pin(async move {
            let _ = alive.send(());
        }));
        answer.await.is_ok()
    }

    fn released(self: &Arc<Self>, entity: &EntityId, next_due: Option<Duration>, errand: &Errand) {
        match next_due {
            // Something is ready although the lock was let go: look again, unless that is why it was let go.
            Some(Duration::ZERO) if !self.is_over(errand) => drop(self.slots.enter(entity, errand.clone())),
            Some(due) => self.sweeper.hint(self.seam.now() + due),
            None => {}
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<_> = self.runners.keys().collect();
        f.debug_struct("Engine")
            .field("kinds", &kinds)
            .field("stop", &*self.stop.borrow())
            .finish_non_exhaustive()
    }
}
