//! What is stored for one entity, and the rules it lives by: docs/decisions/0001-verbs.md in code.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use actornot_core::{
    CommitId, HandedOut, Limits, LockRequest, MessageId, Nonce, StoredMessage, StoredState, Waiting, Why,
};

use super::Bug;

/// A moment on the store's clock.
pub(super) type At = Duration;

/// One entity.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) fence: u64,
    pub(super) nonce: Option<Nonce>,
    pub(super) deadline: Option<At>,
    pub(super) last_commit: Option<CommitId>,
    pub(super) handed: Vec<MessageId>,
    pub(super) deliveries: u32,
    pub(super) charged: u32,
    pub(super) batch_limit: u32,
    pub(super) wait: Option<(Waiting, At)>,
    pub(super) paused: Option<String>,
    pub(super) last_error: Option<String>,
    pub(super) state: Option<StoredState>,
    pub(super) queue: VecDeque<StoredMessage>,
    /// By due time, then by arrival.
    pub(super) delayed: BTreeMap<(At, u64), StoredMessage>,
    /// Since when its head waits to be looked at.
    pub(super) since: At,
    /// Posted to since it was created or purged.
    pub(super) known: bool,
    /// Messages that ever arrived: orders delayed ones of the same moment.
    pub(super) arrivals: u64,
    /// What is no longer where it was put at first.
    pub(super) moved: BTreeSet<MessageId>,
    /// A broken queue has let go of it without noting that something is queued.
    pub(super) unnoted: bool,
}

impl Row {
    pub(super) fn new(now: At) -> Self {
        Self {
            fence: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            nonce: None,
            deadline: None,
            last_commit: None,
            handed: Vec::new(),
            deliveries: 0,
            charged: 0,
            batch_limit: u32::MAX,
            wait: None,
            paused: None,
            last_error: None,
            state: None,
            queue: VecDeque::new(),
            delayed: BTreeMap::new(),
            since: now,
            known: false,
            arrivals: 0,
            moved: BTreeSet::new(),
            unnoted: false,
        }
    }

    pub(super) fn pending(&self) -> u64 {
        (self.queue.len() + self.delayed.len()) as u64
    }

    /// Delayed messages that are due join the tail, in order of their due time.
    pub(super) fn promote(&mut self, now: At, bug: Option<Bug>) {
        if bug == Some(Bug::DelayedForgotten) {
            return;
        }
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let message = entry.remove();
            self.moved.insert(message.id.clone());
            self.enter(message, now);
        }
    }

    pub(super) fn enter(&mut self, message: StoredMessage, now: At) {
        if self.queue.is_empty() {
            self.since = now;
        }
        self.queue.push_back(message);
    }

    /// Locked by this grant, whether or not its lease has run out meanwhile.
    pub(super) fn is_held_by(&self, nonce: Nonce, bug: Option<Bug>) -> bool {
        let locked = self.deadline.is_some() || bug == Some(Bug::ReleasedMayCommit);
        locked && (self.nonce == Some(nonce) || bug == Some(Bug::NonceIgnored))
    }

    pub(super) fn is_leased(&self, now: At, bug: Option<Bug>) -> bool {
        match bug {
            Some(Bug::LeaseAlwaysOver) => false,
            Some(Bug::LeaseNeverOver) => self.deadline.is_some(),
            _ => self.deadline.is_some_and(|deadline| now < deadline && deadline <= now + Limits::LEASE),
        }
    }

    pub(super) fn is_waiting(&self, now: At, bug: Option<Bug>) -> bool {
        bug != Some(Bug::WaitForgotten) && self.wait.is_some_and(|(_, until)| now < until)
    }

    /// Whether something may be handed out, lock aside.
    pub(super) fn is_ready(&self, now: At, bug: Option<Bug>) -> bool {
        let paused = self.paused.is_some() && bug != Some(Bug::PauseIgnored);
        let empty = self.queue.is_empty() && bug != Some(Bug::LockWithoutWork);
        !paused && !self.is_waiting(now, bug) && !empty
    }

    /// When `due` reports it.
    pub(super) fn wake_at(&self, bug: Option<Bug>) -> Option<At> {
        if self.unnoted || (self.paused.is_some() && bug != Some(Bug::DueReportsWaiting)) {
            return None;
        }
        let head = if self.queue.is_empty() { self.delayed.keys().next()?.0 } else { self.since };
        let waited = match self.wait {
            Some((_, until)) if bug != Some(Bug::DueReportsWaiting) => head.max(until),
            _ => head,
        };
        match self.deadline {
            Some(_) if bug == Some(Bug::DueForgetsExpiredLease) => None,
            Some(deadline) if bug != Some(Bug::DueReportsLocked) => Some(waited.max(deadline)),
            _ => Some(waited),
        }
    }

    /// Grants the lock, if it may be granted; `true` if it is granted anew, `false` if it is the same grant again.
    pub(super) fn grant(&mut self, request: &LockRequest, now: At, bug: Option<Bug>) -> Option<bool> {
        if self.nonce == Some(request.nonce) {
            if bug == Some(Bug::LockForgetsSameNonce) || (self.deadline.is_none()) {
                return None;
            }
            self.deadline = Some(now + request.length);
            return Some(false);
        }
        if self.is_leased(now, bug) || !self.is_ready(now, bug) {
            return None;
        }
        if self.deadline.is_some() && !self.handed.is_empty() && bug != Some(Bug::TakeoverKeepsBatch) {
            self.batch_limit = 1;
        }
        if bug != Some(Bug::GrantKeepsFence) {
            self.fence += 1;
        }
        self.nonce = Some(request.nonce);
        self.deadline = Some(now + request.length);
        self.wait = None;
        self.hand_out(request.max_batch, bug);
        Some(true)
    }

    /// Hands out the head of the queue, and counts it before it is run.
    pub(super) fn hand_out(&mut self, max: u32, bug: Option<Bug>) {
        let limit = match bug {
            Some(Bug::BatchLimitIgnored) => max,
            Some(Bug::MaxBatchIgnored) => self.batch_limit,
            _ => max.min(self.batch_limit).max(1),
        } as usize;
        self.handed = match bug {
            Some(Bug::NewestFirst) => {
                self.queue.iter().rev().take(limit).map(|message| message.id.clone()).collect()
            }
            _ => self.queue.iter().take(limit).map(|message| message.id.clone()).collect(),
        };
        if bug != Some(Bug::AttemptCountedAfterRun) {
            self.count(bug);
        }
    }

    pub(super) fn count(&mut self, bug: Option<Bug>) {
        self.deliveries += 1;
        if self.handed.len() == 1 || bug == Some(Bug::AttemptAlwaysCharged) {
            self.charged += 1;
        }
    }

    /// The hand-out was not run.
    pub(super) fn uncount(&mut self) {
        if !self.handed.is_empty() {
            self.deliveries = self.deliveries.saturating_sub(1);
            if self.handed.len() == 1 {
                self.charged = self.charged.saturating_sub(1);
            }
        }
    }

    /// Lets go. The nonce stays: it tells a late duplicate of its grant from a new request.
    pub(super) fn unlock(&mut self, now: At, bug: Option<Bug>) {
        self.deadline = None;
        self.handed.clear();
        self.since = now;
        if bug == Some(Bug::NonceForgottenOnRelease) {
            self.nonce = None;
        }
    }

    pub(super) fn handed_out(&self) -> HandedOut {
        let stored = |id: &MessageId| self.queue.iter().find(|message| message.id == *id).cloned();
        HandedOut {
            messages: self.handed.iter().filter_map(stored).collect(),
            deliveries: self.deliveries,
            charged: self.charged,
            batch_limit: self.batch_limit,
        }
    }

    pub(super) fn why(&self, now: At) -> Why {
        Why {
            pending: self.pending(),
            fence: self.fence,
            locked_for: self.deadline.map(|deadline| deadline.saturating_sub(now)),
            waiting: self.wait.filter(|(_, until)| now < *until).map(|(why, until)| (why, until - now)),
            paused: self.paused.clone(),
            last_error: self.last_error.clone(),
            deliveries: self.deliveries,
            charged: self.charged,
            batch_limit: self.batch_limit,
        }
    }
}
