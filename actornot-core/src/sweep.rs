//! Finds entities with due work and no live lease, and runs them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::engine::Engine;
use crate::errand::Errand;
use crate::seam::Mistake;
use crate::{Cursor, Due, DueQuery, Error, ErrorKind, Limits, Scheduler};

/// When to look again while there is more than can be run.
const BUSY: Duration = Duration::from_millis(100);
/// No background sweep comes sooner after another.
const SOONEST: Duration = Duration::from_millis(1);

/// The most that are asked for at once.
const PAGE: usize = 1_024;

/// What became of the due.
enum Claimed {
    /// All are looked at; how long until the next one is due.
    All { next: Option<Duration> },
    /// There are more than there was room for.
    Full,
}

/// What a sweep came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Swept {
    /// How many entities were found that wanted a run.
    pub found: usize,
    /// Whether the budget ran out before every one of them was looked at.
    pub more: bool,
    /// How long until the next entity is due, if there is one: when to sweep again at the latest.
    pub next: Option<Duration>,
}

/// When the background sweep looks next.
#[derive(Debug)]
pub(crate) struct Sweeper {
    next: Mutex<Option<Instant>>,
    changed: Notify,
}

impl Sweeper {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { next: Mutex::new(None), changed: Notify::new() })
    }

    fn next(&self) -> MutexGuard<'_, Option<Instant>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something will be due then: sweep no later.
    pub(crate) fn hint(&self, at: Instant) {
        let mut next = self.next();
        // Without a background sweep there is nothing to arm.
        if next.is_some_and(|next| at < next) {
            *next = Some(at);
            self.changed.notify_one();
        }
    }

    /// Has the background sweep look whether its engine is still there.
    pub(crate) fn wake(&self) {
        self.changed.notify_one();
    }

    /// Starts the background sweep, if there is to be one.
    pub(crate) fn start(self: &Arc<Self>, engine: &Arc<Engine>) {
        let Some(period) = engine.config.sweep_every else { return };
        if engine.config.scheduler != Scheduler::Concurrent {
            return;
        }
        // The first sweep comes soon: what a crash left behind is waiting already.
        *self.next() = Some(engine.seam.now() + (period / 10).mul_f64(engine.jitter()));
        engine.seam.spawn(Box::pin(self.clone().run(Arc::downgrade(engine))));
    }

    async fn run(self: Arc<Self>, engine: Weak<Engine>) {
        loop {
            let Some(wait) = self.wait(&engine) else { return };
            tokio::select! {
                () = wait => {}
                () = self.changed.notified() => continue,
            }
            let Some(engine) = engine.upgrade().filter(|engine| !engine.stopping()) else { return };
            // Hints that come while it looks are about moments it may not have seen: they stay.
            *self.next() = Some(engine.seam.now() + Limits::DELAY);
            let again = engine.sweep_in_background().await;
            self.hint(engine.seam.now() + again);
        }
    }

    fn wait(&self, engine: &Weak<Engine>) -> Option<crate::seam::BoxFuture<'static, ()>> {
        let engine = engine.upgrade().filter(|engine| !engine.stopping())?;
        let next = (*self.next())?;
        Some(engine.seam.sleep(next.saturating_duration_since(engine.seam.now())))
    }
}

impl Engine {
    /// Runs what is due, until nothing is, or the budget has passed; completes when nothing of it runs any more.
    pub(crate) async fn sweep(self: &Arc<Self>, budget: Duration) -> Result<Swept, Error> {
        if self.config.scheduler == Scheduler::Never {
            return Err(Error::misuse(
                "this system runs nothing (Scheduler::Never); call `sweep` in a worker",
            ));
        }
        let until = self.seam.now() + budget.min(Limits::DELAY);
        let mut swept = Swept::default();
        let mut after = None;
        loop {
            if self.stopping() {
                return Err(Error::new(ErrorKind::Closed, "the mailbox was closed"));
            }
            let (errand, over) = Errand::awaited(until);
            let page = self.due(Limits::SLICE, after).await?;
            swept.found += page.entities.len();
            for entity in &page.entities {
                self.look(entity, errand.clone());
            }
            let late = self.is_over(&errand);
            drop(errand);
            over.wait().await;
            after = page.after;
            swept.next = page.next;
            // What was found in time may still have been too late for its turn.
            swept.more = after.is_some() || late || (swept.found > 0 && self.seam.now() >= until);
            if after.is_none() || self.seam.now() >= until {
                return Ok(swept);
            }
        }
    }

    /// Claims as much as there are free seats for, and says when to look again.
    async fn sweep_in_background(self: &Arc<Self>) -> Duration {
        let period = self.config.sweep_every.unwrap_or(Limits::DELAY);
        let free = self.workers.free();
        if free == 0 {
            return BUSY.min(period);
        }
        let jittered = period.mul_f64(0.75 + 0.5 * self.jitter());
        match self.claim_due(free).await {
            Ok(claimed) => {
                let next = match claimed {
                    Claimed::Full => Some(BUSY),
                    Claimed::All { next } => next,
                };
                next.map_or(jittered, |next| next.clamp(SOONEST, jittered.max(SOONEST)))
            }
            Err(error) => {
                tracing::warn!(%error, "a sweep failed; trying again later");
                jittered
            }
        }
    }

    /// Looks for what did not fit in the line, if it is short and nobody else does: with a sweep of its own, whatever the
    /// period is.
    pub(crate) fn fill_up(self: &Arc<Self>) {
        if let Some(room) = self.workers.fill()
            && self.seam.mistake() != Some(Mistake::LeftToNobody)
        {
            self.seam.spawn(Box::pin(self.clone().fill(room)));
        }
    }

    async fn fill(self: Arc<Self>, mut room: usize) {
        loop {
            let claimed = self.claim_due(room).await;
            if let Err(error) = &claimed {
                tracing::warn!(%error, "looking for those who did not fit in line failed; trying again");
                self.seam.sleep(BUSY).await;
            }
            self.workers.filled(!matches!(claimed, Ok(Claimed::All { .. })));
            match self.workers.fill() {
                Some(more) if !self.stopping() => room = more,
                _ => return,
            }
        }
    }

    /// Looks at so many due entities that nobody here has.
    async fn claim_due(self: &Arc<Self>, free: usize) -> Result<Claimed, Error> {
        let mut left = free;
        let mut after = None;
        loop {
            let page = self.due(free.clamp(Limits::SLICE, PAGE), after).await?;
            for entity in &page.entities {
                // A handler that is stuck stays due for ever, and must not hide the others.
                if self.slots.is_held(entity) {
                    continue;
                }
                if left == 0 {
                    return Ok(Claimed::Full);
                }
                left -= 1;
                self.look(entity, Errand::background());
            }
            after = page.after;
            if after.is_none() {
                return Ok(Claimed::All { next: page.next });
            }
        }
    }

    async fn due(&self, limit: usize, after: Option<Cursor>) -> Result<Due, Error> {
        let kinds = self.runners.keys().map(|kind| (*kind).to_owned()).collect();
        let query = DueQuery { kinds, limit: u32::try_from(limit).unwrap_or(u32::MAX), after };
        tokio::select! {
            biased;
            due = self.queue.due(&query) => due,
            () = self.seam.sleep(self.config.call_timeout) => {
                Err(Error::new(ErrorKind::Unavailable, "no answer from the database to a sweep"))
            }
        }
    }
}
