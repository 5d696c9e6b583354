//! Grants, and handing them back.

use std::collections::BTreeMap;
use std::sync::Mutex;

use actornot_core::{Commit, EntityId, Error, Grant, Lease, LockRequest, Next, TryLock, Updated};
use mongodb::bson::{Document, doc};

use crate::MongoQueue;
use crate::codec::{date, millis, name, unsigned};
use crate::connection::{Outcome, Series};
use crate::error::after_write;
use crate::row::{self, Posted, Queued, Row, batch};
use crate::statements::{self, Change, Write, refuse, signed, update, wake, weakly};
use crate::turn::{AGAIN, crowded};

/// What a request for a lock comes to, after a look.
pub(crate) enum Step {
    None,
    /// The reply was lost: the same grant again, counted once.
    Mine,
    /// Free, and this is to be run; whether it is all there is.
    Grant(Vec<Queued>, bool),
}

impl Step {
    /// `head` is what is queued, in order.
    pub(crate) fn of(row: &Row, request: &LockRequest, mut head: Vec<Queued>) -> Self {
        if row.is_held_by(request.nonce) && !row.handed.is_empty() {
            return Self::Mine;
        }
        let most = request.max_batch.min(row.limit()).max(1) as usize;
        let whole = row.complete && !row.more && head.len() <= most;
        head.truncate(most);
        if head.is_empty() || !row.is_free(request.nonce) { Self::None } else { Self::Grant(head, whole) }
    }

    /// The update that binds it to the row as it was read, with what is told of new messages.
    pub(crate) fn write(
        &self,
        entity: &EntityId,
        row: &Row,
        request: &LockRequest,
        posted: Option<&Posted>,
    ) -> Write {
        let length = millis(request.length);
        let batch = match self {
            Self::Grant(batch, _) => batch,
            Self::Mine | Self::None => {
                let same = doc! { "$eq": ["$fence", signed(row.fence.unwrap_or_default())] };
                let mine = doc! { "$and": [statements::held_by(request.nonce), same] };
                let guard = doc! { "$cond": [mine, "$fence", statements::refuse()] };
                let renewed = doc! { "$set": { "deadline": { "$add": ["$$NOW", length] } } };
                let between = posted.map(Posted::stages).unwrap_or_default();
                let stages =
                    [vec![doc! { "$set": { "fence": guard } }], between, vec![renewed, wake()]].concat();
                return Write::Whole(doc! { "q": { "_id": name(entity) }, "u": stages, "upsert": true });
            }
        };
        let mut change = Change::of(entity);
        let fence = signed(row.fence.unwrap_or_else(|| unsigned(row.now)));
        match row.fence {
            None => change.create(row.now),
            Some(_) => {
                // Every grant and every commit raises the fence; a resume sets the counters back; a lease that has run
                // out may be extended, and what is free may be paused.
                change.filter.extend(doc! { "fence": fence, "deliveries": i64::from(row.deliveries) });
                change.when("paused", false);
                match row.deadline {
                    Some(deadline) => _ = change.filter.insert("deadline", date(deadline)),
                    None => change.when("deadline", false),
                }
            }
        }
        if row.gone {
            change.unset.push("gone");
        }
        if let Some(posted) = posted {
            posted.tell(row, &mut change);
        }
        // The lease counts from the look (G3). The counters rise before the run (G6).
        let (deadline, (deliveries, charged)) = (date(row.now + length), row.counts(batch, false));
        change.set.extend(doc! {
            "fence": fence + 1, "nonce": request.nonce.to_string(), "deadline": deadline, "wake_at": deadline,
            "batch_limit": i64::from(row.limit()),
            "deliveries": i64::from(deliveries), "charged": i64::from(charged),
        });
        change.set.extend(row::entries(batch));
        Write::Change(change.into())
    }
}

/// The grant that an applied step made.
pub(crate) async fn answer(
    queue: &MongoQueue,
    entity: &EntityId,
    request: &LockRequest,
    row: &Row,
    step: Step,
    posted: Option<&Posted>,
) -> Result<Option<Grant>, Error> {
    let (fence, batch) = match step {
        Step::None => return Ok(None),
        Step::Mine => {
            let messages = queue.stored(&row.handed).await?;
            if messages.is_empty() {
                return Ok(None);
            }
            let counts = (row.deliveries, row.charged);
            (row.fence.unwrap_or_default(), batch(messages, counts, row.batch_limit))
        }
        Step::Grant(messages, whole) => {
            let counts = row.counts(&messages, false);
            let fence = row.fence.unwrap_or_else(|| unsigned(row.now)) + 1;
            let is_delayed = row.late.is_some() || row.delayed_at.is_some();
            let whole = whole && !is_delayed && posted.is_none_or(|posted| posted.due.is_none());
            let marks = i64::from(posted.is_some());
            queue.inner.held.keep(entity, whole.then(|| row.granted(request.nonce, fence, &messages, marks)));
            (fence, batch(messages, counts, row.limit()))
        }
    };
    let lease = Lease { entity: entity.clone(), nonce: request.nonce, fence, length: request.length };
    Ok(Some(Grant { lease, state: row.state.clone(), batch }))
}

impl MongoQueue {
    pub(crate) async fn lock_slice(
        &self,
        items: &[TryLock],
    ) -> Result<Vec<Result<Option<Grant>, Error>>, Error> {
        let most = items.iter().map(|item| item.request.max_batch).max().unwrap_or(1);
        let mut answers: Vec<Option<Result<Option<Grant>, Error>>> = items.iter().map(|_| None).collect();
        let mut open: Vec<(usize, &TryLock)> = items.iter().enumerate().collect();
        for _ in 0..AGAIN {
            let entities: Vec<&EntityId> = open.iter().map(|(_, item)| &item.entity).collect();
            let rows = self.look(&entities, most).await?;
            let (mut steps, mut writes) = (Vec::new(), Vec::new());
            for ((index, item), mut row) in open.iter().copied().zip(rows) {
                let mistaken = row.head.is_empty() && row.is_mistaken();
                let head = std::mem::take(&mut row.head);
                let step = Step::of(&row, &item.request, head);
                if matches!(step, Step::None) {
                    if mistaken && row.is_free(item.request.nonce) {
                        self.mend(&item.entity, &row).await?;
                    }
                    set(&mut answers, index, Ok(None));
                    continue;
                }
                writes.push(step.write(&item.entity, &row, &item.request, None));
                steps.push((index, item, row, step));
            }
            open.clear();
            // A grant may be lost with its server: its commit is then refused. Nobody waits for a majority.
            let outcomes = self.inner.connection.apply(writes, weakly, &mut Series::default()).await?;
            for ((index, item, row, step), outcome) in steps.into_iter().zip(outcomes) {
                match outcome {
                    Outcome::Applied => {
                        let grant = answer(self, &item.entity, &item.request, &row, step, None).await;
                        set(&mut answers, index, grant);
                    }
                    Outcome::Refused => open.push((index, item)),
                    Outcome::Failed(error) => set(&mut answers, index, Err(error)),
                }
            }
            if open.is_empty() {
                break;
            }
        }
        Ok(answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(crowded()))).collect())
    }

    /// The row says that something is queued or delayed, and nothing is: a known id was posted again, a purge was
    /// quicker than a poster, or somebody deleted messages by hand. Without this, `due` would report it for ever.
    pub(crate) async fn mend(&self, entity: &EntityId, row: &Row) -> Result<(), Error> {
        let db = &self.inner.connection;
        let Some(fence) = row.fence else { return Ok(()) };
        let mut set = doc! { "queued": false };
        match row.late {
            Some((due, _)) => set.insert("delayed_at", date(due)),
            None => {
                set.insert("pending", 0_i64);
                set.insert("delayed_at", "$$REMOVE")
            }
        };
        let filter = doc! { "_id": name(entity), "mark": row.mark, "fence": signed(fence) };
        let statement = doc! { "q": filter, "u": [{ "$set": set }, wake()] };
        db.write(update(&db.entities, vec![statement])).await?.check()
    }

    pub(crate) async fn release_slice(&self, leases: &[Lease]) -> Result<Vec<Result<bool, Error>>, Error> {
        leases.iter().for_each(|lease| drop(self.inner.held.take(&lease.entity)));
        held(&self.inner.connection, leases, statements::release).await
    }
}

/// What a commit that was applied hands out behind it.
impl MongoQueue {
    /// The commit was applied before; this is how things stand now.
    pub(crate) async fn repeat(&self, commit: &Commit, row: &Row) -> Result<Updated, Error> {
        // What was seen may not be on a majority yet; a write that changes nothing waits until it is.
        let db = &self.inner.connection;
        let nothing = Change::of(&commit.lease.entity).statement();
        db.write(update(&db.entities, vec![nothing])).await?.check()?;
        if !row.is_held_by(commit.lease.nonce) {
            return Ok(Updated::Released { next_due: row.next_due() });
        }
        match row.handed.is_empty() {
            true => self.go_on(commit).await,
            false => self.current(row).await,
        }
    }

    /// The second half of a commit that sent to itself: hands out what was relayed, or lets go.
    pub(crate) async fn go_on(&self, commit: &Commit) -> Result<Updated, Error> {
        let db = &self.inner.connection;
        let (entity, nonce) = (&commit.lease.entity, commit.lease.nonce);
        let max = if let Next::Batch { max } = commit.next { max.max(1) } else { 1 };
        for _ in 0..AGAIN {
            let Some(row) = self.look(&[entity], max).await?.pop() else { break };
            if !row.is_held_by(nonce) || row.last_commit.as_deref() != Some(&commit.id.to_string()) {
                return Ok(Updated::Released { next_due: row.next_due() });
            }
            if !row.handed.is_empty() {
                return self.current(&row).await;
            }
            let mut next = row.head.clone();
            next.truncate(max.min(row.batch_limit).max(1) as usize);
            if row.paused.is_some() {
                next.clear();
            }
            let same = doc! { "$eq": ["$fence", signed(row.fence.unwrap_or_default())] };
            let empty = doc! { "$or": [!row.head.is_empty(), { "$eq": ["$mark", row.mark] }] };
            let unpaused = doc! { "$or": [next.is_empty(), { "$not": [statements::paused()] }] };
            // Also the counters, which a resume sets back.
            let counted = doc! { "$eq": ["$deliveries", i64::from(row.deliveries)] };
            let ours = doc! { "$and": [statements::held_by(nonce), same, empty, unpaused, counted] };
            let raised = doc! { "$cond": [ours, { "$add": ["$fence", 1_i64] }, refuse()] };
            let mut stages = vec![doc! { "$set": { "fence": raised } }];
            if next.is_empty() {
                stages.push(doc! { "$set": { "queued": !row.head.is_empty() } });
                stages.push(statements::unlock());
            } else {
                stages.push(statements::hand(&next));
                let length = millis(commit.lease.length);
                stages.push(doc! { "$set": { "deadline": { "$add": ["$$NOW", length] } } });
            }
            stages.push(wake());
            let statement = doc! { "q": { "_id": name(entity) }, "u": stages };
            match db.write(update(&db.entities, vec![statement])).await?.outcome(0) {
                Outcome::Applied if next.is_empty() => {
                    return Ok(Updated::Released { next_due: row.next_due() });
                }
                Outcome::Applied => {
                    let counts = row.counts(&next, false);
                    let fence = row.fence.unwrap_or_default() + 1;
                    return Ok(Updated::Continue { fence, batch: batch(next, counts, row.batch_limit) });
                }
                Outcome::Refused => {}
                Outcome::Failed(error) => return Err(error.with_entity(entity)),
            }
        }
        Err(after_write(crowded()))
    }

    /// What a holder was handed and has not settled.
    async fn current(&self, row: &Row) -> Result<Updated, Error> {
        let messages = self.stored(&row.handed).await?;
        let batch = batch(messages, (row.deliveries, row.charged), row.batch_limit);
        Ok(Updated::Continue { fence: row.fence.unwrap_or_default(), batch })
    }
}

/// Rows of entities that were granted here, as they have been since unless somebody else told them of a message: a commit
/// that finds nothing else to do needs no look. The server refuses it otherwise.
#[derive(Default)]
pub(crate) struct Held(Mutex<BTreeMap<EntityId, Row>>);

/// Of so many; then all are forgotten, and commits look.
const HELD: usize = 4096;

impl Held {
    /// After a grant; none if there is more to do than what was handed out.
    fn keep(&self, entity: &EntityId, row: Option<Row>) {
        let Ok(mut held) = self.0.lock() else { return };
        if held.len() >= HELD {
            held.clear();
        }
        match row {
            Some(row) => held.insert(entity.clone(), row),
            None => held.remove(entity),
        };
    }

    /// What is known of it, once.
    pub(crate) fn take(&self, entity: &EntityId) -> Option<Row> {
        self.0.lock().ok()?.remove(entity)
    }
}

/// One guarded update for each lease, and whether it was held. With `upsert`, a missing entity fails its guard too;
/// without, it would pass for a success.
pub(crate) async fn held(
    db: &crate::connection::Connection,
    leases: &[Lease],
    stages: fn(&Lease) -> Vec<Document>,
) -> Result<Vec<Result<bool, Error>>, Error> {
    let each =
        |lease: &Lease| doc! { "q": { "_id": name(&lease.entity) }, "u": stages(lease), "upsert": true };
    let reply = db.write(update(&db.entities, leases.iter().map(each).collect())).await?;
    let outcome = |index: usize| match reply.outcome(index) {
        Outcome::Applied => Ok(true),
        Outcome::Refused => Ok(false),
        Outcome::Failed(error) => Err(error),
    };
    Ok((0..leases.len()).map(outcome).collect())
}

pub(crate) fn set<T>(answers: &mut [Option<T>], index: usize, answer: T) {
    if let Some(slot) = answers.get_mut(index) {
        *slot = Some(answer);
    }
}
