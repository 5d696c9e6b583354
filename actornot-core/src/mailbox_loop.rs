//! The mailbox loop: lock, run, commit, go on or let go.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::{Engine, Work};
use crate::errand::Errand;
use crate::held::Held;
use crate::seam::Mistake;
use crate::turn::caught;
use crate::workers::Seat;
use crate::{Commit, Effect, EntityId, Envelope, MessageId, Next, Retry, Settled, Updated, Verdict, Waiting};

/// How the batches of a lease ended.
enum Driven {
    /// The lock is gone.
    LetGo,
    /// Others wait; it queues up behind them and keeps its lease.
    SliceOver(Box<Held>),
}

/// What there is to tell once a commit is stored. The commit itself goes to the database, with its state and payloads.
struct News {
    acked: Vec<MessageId>,
    dead: Option<MessageId>,
    verdict: Verdict,
    sends: Vec<(EntityId, Duration)>,
}

impl News {
    fn of(commit: &Commit, held: &Held) -> Self {
        let dead = match commit.verdict {
            Verdict::DeadLetter { .. } => held.ids.get(commit.acked.len()).cloned(),
            _ => None,
        };
        let sends = commit.effects.iter().filter_map(|effect| match effect {
            Effect::Send(Envelope { entity, message }) => Some((entity.clone(), message.delay)),
            _ => None,
        });
        Self { acked: commit.acked.clone(), dead, verdict: commit.verdict.clone(), sends: sends.collect() }
    }
}

impl Engine {
    /// Sits on a seat and runs entities from the line, one after the other, until there is none.
    pub(crate) async fn work(self: Arc<Self>, mut work: Work, mut seat: Seat) {
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
            let next = self.workers.next(seat);
            self.fill_up();
            match next {
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
            self.about_to_look(&entity, &mut errand);
            let in_line = held.is_some();
            let lease = match held.take() {
                // One that waited in line for too long was handed back; then the lock is asked for again.
                Some(held) => self.take_up(held, &errand).await,
                None => None,
            };
            let lease = match lease {
                Some(lease) => Some(lease),
                None if in_line && self.seam.mistake() == Some(Mistake::LateLeaseLeftToNobody) => None,
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
            self.about_to_look(&held.lease.entity, errand);
            if !self.is_over(errand) {
                commit.next = Next::Batch { max: self.config.batch };
            }
            let news = News::of(&commit, &held);
            match self.commits.call(commit).await {
                Ok(Updated::Continue { batch, .. }) if batch.messages.is_empty() => {
                    // Not in the contract, and going on would spin.
                    tracing::error!(entity = %held.lease.entity, "the adapter went on with an empty batch");
                    self.tell(&held.lease.entity, news, errand);
                    self.hand_back(&held.lease).await;
                    return Driven::LetGo;
                }
                Ok(Updated::Continue { fence, batch }) => {
                    self.tell(&held.lease.entity, news, errand);
                    errand.dismiss(self.seam.now());
                    held.go_on(fence, batch, self.run_deadline());
                    if held.batches >= self.config.slice && self.workers.line() > 0 {
                        held.lined_up = self.seam.now();
                        return Driven::SliceOver(held);
                    }
                }
                Ok(Updated::Released { next_due }) => {
                    self.tell(&held.lease.entity, news, errand);
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
    fn tell(self: &Arc<Self>, entity: &EntityId, news: News, errand: &Errand) {
        let News { acked, dead, verdict, sends } = news;
        self.waiters.tell(entity, &acked, Settled::Handled);
        self.waiters.tell(entity, dead.as_slice(), Settled::Dead);
        match &verdict {
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
        for (entity, delay) in sends {
            match delay.is_zero() {
                true => self.look(&entity, errand.clone()),
                false => self.sweeper.hint(self.seam.now() + delay),
            }
        }
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
