//! What the mailboxes of one system share, and how a post gets from its caller to the loop.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};

use tokio::sync::watch;

use crate::calls::{Commits, Locks, Posting, Posts, Releases};
use crate::errand::Errand;
use crate::gathered::Gathered;
use crate::group::{Group, Lane};
use crate::heartbeat::Heartbeats;
use crate::held::Held;
use crate::seam::{Mistake, Seam};
use crate::slots::Slots;
use crate::sweep::Sweeper;
use crate::turn::AnyRunner;
use crate::waiters::Waiters;
use crate::workers::{Seat, Workers};
use crate::{Admission, Config, EntityId, Envelope, Error, ErrorKind, LockableQueue, Nonce, Scheduler};

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
    pub(crate) commits: Arc<Group<Commits>>,
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
            let locks = Locks { queue: queue.clone(), engine: engine.clone(), gathered: Gathered::default() };
            // Grants and commits take turns: more messages gather for a run, and more runs for a trip.
            let runs = Lane::default();
            Self {
                slots: Slots::default(),
                workers: Workers::new(config.concurrency as usize),
                waiters: Waiters::default(),
                sweeper: Sweeper::new(),
                stop: watch::Sender::new(Stop::Running),
                heartbeats: Heartbeats::new(queue.clone(), seam.clone()),
                posts: Group::new(posts, seam.clone(), timeout, config.limits.waiting_calls, Lane::default()),
                locks: Group::new(locks, seam.clone(), timeout, usize::MAX, runs.clone()),
                commits: Group::new(Commits(queue.clone()), seam.clone(), timeout, usize::MAX, runs.clone()),
                releases: Group::new(
                    Releases(queue.clone()),
                    seam.clone(),
                    timeout,
                    usize::MAX,
                    Lane::default(),
                ),
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

    /// Whether posts come faster than they are run: more are on their way while a whole round of entities waits in
    /// line.
    pub(crate) fn is_outrun(&self) -> bool {
        self.posts.is_flying() && self.workers.line() >= self.config.concurrency as usize
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
        // Whoever joins a slot takes no room, and calls that wait for the end are few.
        if errand.is_background() && !self.slots.is_held(entity) && self.workers.leaves() {
            return self.fill_up();
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
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<_> = self.runners.keys().collect();
        f.debug_struct("Engine")
            .field("kinds", &kinds)
            .field("stop", &*self.stop.borrow())
            .field("waited_for", &self.waiters.count())
            .finish_non_exhaustive()
    }
}
