//! The verbs, each in one step under the store's lock.

use actornot_core::{
    Admission, Commit, DeadLetter, Effect, Enqueue, Enqueued, EntityId, Error, ErrorKind, Grant, Lease,
    LockRequest, MessageId, NewMessage, Next, StoredMessage, StoredState, Updated, Verdict, Waiting,
};

use super::{At, Bug, Row, Store};

impl Store {
    pub(super) fn now(&self) -> At {
        self.started.elapsed() + self.ahead
    }

    pub(super) fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// The name an entity is stored under.
    pub(super) fn name(&self, entity: &EntityId) -> EntityId {
        let folded = EntityId::new(entity.kind(), entity.key().to_lowercase());
        if self.has(Bug::KeysFoldCase) { folded.unwrap_or_else(|_| entity.clone()) } else { entity.clone() }
    }

    /// The row of an entity, created if need be.
    pub(super) fn row(&mut self, entity: &EntityId) -> &mut Row {
        let (name, now) = (self.name(entity), self.now());
        self.entities.entry(name).or_insert_with(|| Row::new(now))
    }

    pub(super) fn enqueue(&mut self, item: &Enqueue) -> Result<Enqueued, Error> {
        let (now, bug) = (self.now(), self.bug);
        if bug != Some(Bug::DelayedJoinsLate) {
            self.row(&item.entity).promote(now, bug);
        }
        let early = match (bug, &item.lock) {
            (Some(Bug::BatchReadBeforeEnqueue), Some(request)) => self.try_lock(&item.entity, request),
            _ => None,
        };
        let mut ended = false;
        let mut admissions = Vec::new();
        for message in &item.messages {
            let admission = if ended { Admission::Accepted } else { self.admit(item, message) };
            ended |= bug == Some(Bug::DuplicateEndsPost) && admission == Admission::Duplicate;
            admissions.push(admission);
        }
        if bug == Some(Bug::PostOvertakesBacklog) && item.lock.is_some() {
            let row = self.row(&item.entity);
            let before = row.queue.len().saturating_sub(item.messages.len());
            row.queue.rotate_left(before);
        }
        let grant = match &item.lock {
            Some(request) if bug != Some(Bug::BatchReadBeforeEnqueue) => self.try_lock(&item.entity, request),
            _ => early,
        };
        Ok(Enqueued { admissions, grant })
    }

    fn admit(&mut self, item: &Enqueue, message: &NewMessage) -> Admission {
        let (now, bug) = (self.now(), self.bug);
        let name = self.name(&item.entity);
        let full = self.row(&item.entity).pending() >= item.backlog_limit && bug != Some(Bug::BacklogIgnored);
        if full && bug == Some(Bug::BacklogFullForgetsDuplicates) {
            return Admission::Full;
        }
        if self.remembers(&name, &message.id) {
            if bug == Some(Bug::DuplicateOverwrites) {
                let row = self.row(&item.entity);
                row.queue.iter_mut().filter(|stored| stored.id == message.id).for_each(|stored| {
                    stored.payload.clone_from(&message.payload);
                });
            }
            return Admission::Duplicate;
        }
        if full {
            return Admission::Full;
        }
        if bug == Some(Bug::EnqueueLost) {
            return Admission::Accepted;
        }
        if bug != Some(Bug::EnqueueForgotten) {
            self.seen.insert((name, message.id.clone()), now + message.retention);
        }
        self.store(&item.entity, message);
        Admission::Accepted
    }

    /// Whether the id was accepted for this entity, and is not forgotten.
    fn remembers(&self, name: &EntityId, id: &MessageId) -> bool {
        let (now, bug) = (self.now(), self.bug);
        let counts = |expires: &At| now < *expires || bug == Some(Bug::RetentionForever);
        let as_well = |((of, other), expires): (&(EntityId, MessageId), &At)| match bug {
            Some(Bug::SeenAcrossEntities) => other == id && counts(expires),
            Some(Bug::IdsFoldCase) => {
                of == name && other.as_str().eq_ignore_ascii_case(id.as_str()) && counts(expires)
            }
            _ => false,
        };
        let exactly = self.seen.get(&(name.clone(), id.clone())).is_some_and(counts);
        exactly || bug.is_some() && self.seen.iter().any(as_well)
    }

    /// A message joins the queue, or the delayed ones.
    fn store(&mut self, entity: &EntityId, message: &NewMessage) {
        let (now, bug) = (self.now(), self.bug);
        let row = self.row(entity);
        row.known = true;
        row.arrivals += 1;
        let payload = match bug {
            Some(Bug::PayloadRewritten) => rewritten(&message.payload),
            _ => message.payload.clone(),
        };
        let headers =
            if bug == Some(Bug::HeadersLost) { Default::default() } else { message.headers.clone() };
        let stored = StoredMessage { id: message.id.clone(), payload, headers };
        if bug == Some(Bug::PostResetsWait) {
            row.wait = None;
        }
        match message.delay.is_zero() || bug == Some(Bug::DelayIgnored) {
            true => row.enter(stored, now),
            false => drop(row.delayed.insert((now + message.delay, row.arrivals), stored)),
        }
    }

    pub(super) fn try_lock(&mut self, entity: &EntityId, request: &LockRequest) -> Option<Grant> {
        let (now, bug) = (self.now(), self.bug);
        if bug == Some(Bug::GlobalLock) && self.entities.values().any(|row| row.is_leased(now, None)) {
            return None;
        }
        let name = self.name(entity);
        let row = self.entities.get_mut(&name)?;
        row.promote(now, bug);
        row.grant(request, now, bug)?;
        let lease =
            Lease { entity: entity.clone(), nonce: request.nonce, fence: row.fence, length: request.length };
        Some(Grant { lease, state: row.state.clone(), batch: row.handed_out() })
    }

    pub(super) fn update_locked(&mut self, commit: &Commit) -> Result<Updated, Error> {
        let (now, bug) = (self.now(), self.bug);
        let entity = &commit.lease.entity;
        if bug == Some(Bug::AckBeforeChecks) {
            self.row(entity).queue.retain(|message| !commit.acked.contains(&message.id));
        }
        if let Some(answer) = self.judge(commit)? {
            return Ok(answer);
        }
        let row = self.row(entity);
        row.promote(now, bug);
        if bug == Some(Bug::AttemptCountedAfterRun) {
            row.count(bug);
        }
        let dead = match &commit.verdict {
            Verdict::DeadLetter { error } => {
                row.handed.get(commit.acked.len()).cloned().map(|id| (id, error))
            }
            _ => None,
        };
        let attempts = row.deliveries;
        let buried =
            row.queue.iter().find(|message| Some(&message.id) == dead.as_ref().map(|(id, _)| id)).cloned();
        row.settle(commit, dead.as_ref().map(|(id, _)| id), now, bug);
        let acked: Vec<_> = commit.acked.clone();
        if let (Some(message), Some((_, error))) = (buried, dead) {
            self.bury(entity, message, error, attempts);
        }
        if bug == Some(Bug::AckForgetsSeen) {
            let name = self.name(entity);
            self.seen.retain(|(of, id), _| *of != name || !acked.contains(id));
        }
        for effect in &commit.effects {
            if let Effect::Send(envelope) = effect
                && bug != Some(Bug::SendLost)
            {
                let full = self.row(&envelope.entity).pending() >= 2;
                if bug == Some(Bug::SendBounded) && full {
                    continue;
                }
                self.store(&envelope.entity, &envelope.message);
                if bug == Some(Bug::SendTwice) {
                    self.store(&envelope.entity, &envelope.message);
                }
            }
        }
        Ok(self.row(entity).go_on(commit, now, bug))
    }

    /// Whether the commit is to be applied (`None`), or has its answer already.
    fn judge(&mut self, commit: &Commit) -> Result<Option<Updated>, Error> {
        let (now, bug) = (self.now(), self.bug);
        let row = self.row(&commit.lease.entity);
        if row.last_commit == Some(commit.id) {
            let current = match row.is_held_by(commit.lease.nonce, bug) {
                true => Updated::Continue { fence: row.fence, batch: row.handed_out() },
                false => row.released(now, bug),
            };
            return Ok(Some(current));
        }
        let fence_differs = row.fence != commit.lease.fence && bug != Some(Bug::FenceNotChecked);
        let expired = bug == Some(Bug::ExpiredHolderRefused) && !row.is_leased(now, None);
        if !row.is_held_by(commit.lease.nonce, bug) || fence_differs || expired {
            return Ok(Some(Updated::LockLost));
        }
        for effect in &commit.effects {
            if !matches!(effect, Effect::Send(_)) && bug != Some(Bug::UnsupportedSwallowed) {
                return Err(Error::unsupported("this effect"));
            }
        }
        let prefix = row.handed.iter().take(commit.acked.len());
        // One that looks for them among the first of the queue only does not find those behind redriven letters.
        let looked_at = match bug {
            Some(Bug::RedriveHidesHandedOut) => commit.acked.len() + 1,
            _ => row.queue.len(),
        };
        let stored =
            commit.acked.iter().all(|id| row.queue.iter().take(looked_at).any(|message| message.id == *id));
        let nothing_left =
            matches!(commit.verdict, Verdict::DeadLetter { .. }) && commit.acked.len() >= row.handed.len();
        if (!prefix.eq(commit.acked.iter()) || !stored || nothing_left) && bug != Some(Bug::AckIgnoresCount) {
            return Err(Error::new(ErrorKind::Conflict, "the acknowledged ids are not what was handed out"));
        }
        Ok(None)
    }

    fn bury(&mut self, entity: &EntityId, message: StoredMessage, error: &str, attempts: u32) {
        self.letters += 1;
        let rewritten = self.has(Bug::DeadLetterRewritten);
        self.dead.push(DeadLetter {
            number: self.letters,
            entity: entity.clone(),
            id: message.id,
            payload: if rewritten { self::rewritten(&message.payload) } else { message.payload },
            headers: message.headers,
            error: if self.has(Bug::DeadLetterLosesError) { String::new() } else { error.to_owned() },
            attempts,
        });
    }

    pub(super) fn release(&mut self, lease: &Lease) -> bool {
        let (now, bug) = (self.now(), self.bug);
        let row = self.row(&lease.entity);
        let held = row.is_held_by(lease.nonce, bug)
            || (bug == Some(Bug::ReleaseIgnoresNonce) && row.deadline.is_some());
        if held && bug != Some(Bug::ReleaseKeepsLock) {
            if bug != Some(Bug::ReleaseCounts) {
                row.uncount();
            }
            row.unlock(now, bug);
        }
        held
    }

    pub(super) fn extend(&mut self, lease: &Lease) -> bool {
        let (now, bug) = (self.now(), self.bug);
        let row = self.row(&lease.entity);
        let same_fence = row.fence == lease.fence || bug != Some(Bug::ExtendComparesFence);
        let mine = (row.nonce == Some(lease.nonce) && same_fence) || bug == Some(Bug::ExtendIgnoresNonce);
        let held = mine && (row.deadline.is_some() || bug == Some(Bug::ExtendRevivesReleased));
        if held && bug != Some(Bug::ExtendForgotten) {
            row.deadline = Some(now + lease.length);
        }
        held
    }
}

impl Row {
    /// Removes what is settled; stores state and verdict; raises the fence.
    fn settle(&mut self, commit: &Commit, dead: Option<&MessageId>, now: At, bug: Option<Bug>) {
        if bug == Some(Bug::FailureMovesToTail) && commit.acked.is_empty() {
            let failed = self.handed.len().min(self.queue.len());
            self.queue.rotate_left(failed);
        }
        let whole = bug == Some(Bug::AckWholeBatch) && !commit.acked.is_empty();
        let prefix_kept = bug == Some(Bug::DeadLetterDropsPrefix) && dead.is_some();
        let handed = std::mem::take(&mut self.handed);
        let last = self.queue.iter().rposition(|message| commit.acked.contains(&message.id));
        // An id may be queued twice once its retention is over: each that is named stands for one message.
        let mut named: Vec<&MessageId> = commit.acked.iter().filter(|_| !prefix_kept).chain(dead).collect();
        let mut nth = 0;
        self.queue.retain(|message| {
            nth += 1;
            let below = bug == Some(Bug::AckWatermark) && last.is_some_and(|last| nth <= last + 1);
            let clear = bug == Some(Bug::AckClearsQueue) && !commit.acked.is_empty();
            let place = named.iter().position(|id| **id == message.id);
            let acked = place.map(|place| named.remove(place)).is_some();
            let handed = whole && handed.contains(&message.id);
            !(acked || handed || below || clear)
        });
        if let Some(state) = commit.state.as_ref().filter(|_| bug != Some(Bug::StateLost)) {
            let version = self.state.as_ref().map_or(0, |state| state.version);
            self.state = Some(StoredState {
                json: match bug {
                    Some(Bug::StateCut) => state.json.chars().take(65535).collect(),
                    Some(Bug::StateRewritten) => rewritten(&state.json),
                    _ => state.json.clone(),
                },
                version: if bug == Some(Bug::VersionStuck) { version.max(1) } else { version + 1 },
                state_version: if bug == Some(Bug::StateVersionLost) { 1 } else { state.state_version },
            });
        }
        match &commit.verdict {
            Verdict::Proceed => (self.wait, self.last_error) = (None, None),
            Verdict::DeadLetter { error } => (self.wait, self.last_error) = (None, Some(error.clone())),
            Verdict::Wait { why, after, error } => {
                self.wait = Some((*why, now + *after));
                self.last_error = error.clone().or(self.last_error.take());
                if *why == Waiting::NotReady && bug != Some(Bug::NotReadyCounted) {
                    self.handed = handed;
                    self.uncount();
                }
            }
            Verdict::Pause { reason } => self.paused = Some(reason.clone()),
        }
        if !commit.acked.is_empty() || dead.is_some() {
            (self.deliveries, self.charged) = (0, 0);
        }
        self.batch_limit = commit.batch_limit.max(1);
        self.handed.clear();
        if bug != Some(Bug::CommitKeepsFence) {
            self.fence += 1;
        }
        if bug != Some(Bug::CommitForgotten) {
            self.last_commit = Some(commit.id);
        }
    }

    /// Hands out what comes next, or lets go.
    fn go_on(&mut self, commit: &Commit, now: At, bug: Option<Bug>) -> Updated {
        let next = match commit.next {
            Next::Batch { max } => Some(max),
            Next::Release if bug == Some(Bug::ReleaseNextIgnored) => Some(u32::MAX),
            Next::Release => None,
        };
        match next {
            Some(max) if self.may_go_on(now, bug) => {
                self.hand_out(max, bug);
                self.deadline = Some(now + commit.lease.length);
                Updated::Continue { fence: self.fence, batch: self.handed_out() }
            }
            _ => {
                self.unlock(now, bug);
                self.released(now, bug)
            }
        }
    }

    fn may_go_on(&self, now: At, bug: Option<Bug>) -> bool {
        let over_pause = bug == Some(Bug::CommitIgnoresPause) && !self.queue.is_empty();
        (self.is_ready(now, bug) || over_pause) && !self.unnoted && bug != Some(Bug::ReleaseWithoutLooking)
    }

    fn released(&self, now: At, bug: Option<Bug>) -> Updated {
        Updated::Released { next_due: self.wake_at(bug).map(|at| at.saturating_sub(now)) }
    }
}

/// What an adapter does that parses payloads instead of keeping their bytes.
fn rewritten(payload: &str) -> String {
    serde_json::from_str::<serde_json::Value>(payload)
        .map_or_else(|_| "null".to_owned(), |value| value.to_string())
}
