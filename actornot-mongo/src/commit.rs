//! Commits: settle, save, stage what is sent, and go on or let go.

use std::collections::BTreeSet;
use std::time::Duration;

use actornot_core::{Commit, Effect, EntityId, Error, ErrorKind, Next, Updated, Verdict, Waiting};
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Document, doc};

use crate::MongoQueue;
use crate::codec::{self, date, millis};
use crate::connection::{Outcome, Series};
use crate::due::stage;
use crate::error::after_write;
use crate::lock::set;
use crate::row::{self, Place, Queued, Row, batch};
use crate::slice::COMMAND_BYTES;
use crate::statements::{Change, Write, signed, update};
use crate::turn::{AGAIN, crowded};

/// What a commit turned out to be, after a look.
enum Check {
    Apply(Plan),
    Replay,
    LockLost,
    Refused(Error),
}

/// What an applied commit leaves behind.
struct Plan {
    /// Parcels that nobody needs any more, as soon as it is applied.
    settled: Vec<ObjectId>,
    /// What is handed out next; empty when the lock is let go.
    batch: Vec<Queued>,
    counts: (u32, u32),
    next_due: Option<Duration>,
    /// Nothing is queued yet, but it sent to itself: the lock is kept until that was relayed.
    keeps: bool,
    change: Box<Change>,
}

impl MongoQueue {
    /// In as few commands as hold what the commits bring along. The answer to one command is not that to another.
    pub(crate) async fn commit_slice(&self, commits: &[Commit]) -> Vec<Result<Updated, Error>> {
        let (mut answers, mut rest) = (Vec::with_capacity(commits.len()), commits);
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |commit: &&Commit| {
                bytes += size(commit);
                bytes <= COMMAND_BYTES
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (these, behind) = rest.split_at(count);
            answers.extend(crate::each(self.commit_some(these).await, these.len()));
            rest = behind;
        }
        answers
    }

    async fn commit_some(&self, commits: &[Commit]) -> Result<Vec<Result<Updated, Error>>, Error> {
        let most = commits.iter().map(|commit| {
            let max = if let Next::Batch { max } = commit.next { max } else { 1 };
            max.saturating_add(u32::try_from(commit.acked.len()).unwrap_or(u32::MAX)).saturating_add(1)
        });
        let most = most.max().unwrap_or(1);
        let mut answers: Vec<Option<Result<Updated, Error>>> = commits.iter().map(|_| None).collect();
        let mut open: Vec<usize> = (0..commits.len()).collect();
        for again in 0..AGAIN {
            let these: Vec<(usize, &Commit)> =
                open.iter().filter_map(|index| Some((*index, commits.get(*index)?))).collect();
            let rows = self.rows(&these, most, again == 0).await?;
            let (mut steps, mut writes) = (Vec::new(), Vec::new());
            for ((index, commit), row) in these.into_iter().zip(rows) {
                let answer = match check(&row, commit) {
                    Check::Apply(mut plan) => {
                        writes.push(Write::Change(std::mem::take(&mut plan.change)));
                        steps.push((index, commit, plan));
                        continue;
                    }
                    Check::LockLost if again == 0 || row.commit_before != Some(commit.id.to_string()) => {
                        Ok(Updated::LockLost)
                    }
                    // Or it was applied, passed for refused, and another has locked and committed since.
                    Check::Replay | Check::LockLost => self.repeat(commit, &row).await,
                    Check::Refused(error) => Err(error),
                };
                set(&mut answers, index, answer);
            }
            open.clear();
            let outcomes = self.inner.connection.apply(writes, update, &mut Series::default()).await?;
            let (mut settled, mut staged, mut kept) = (Vec::new(), Vec::new(), Vec::new());
            for ((index, commit, plan), outcome) in steps.into_iter().zip(outcomes) {
                let entity = &commit.lease.entity;
                match outcome {
                    Outcome::Applied => {
                        settled.extend(plan.settled.iter().copied());
                        if !commit.effects.is_empty() || matches!(commit.verdict, Verdict::DeadLetter { .. })
                        {
                            staged.push(entity);
                        }
                        if plan.keeps {
                            kept.push((index, commit));
                        }
                        set(&mut answers, index, Ok(finish(commit, plan)));
                    }
                    // Whatever it was, a look tells.
                    Outcome::Refused => open.push(index),
                    Outcome::Failed(error) => set(&mut answers, index, Err(error.with_entity(entity))),
                }
            }
            if !staged.is_empty() {
                self.relay(&staged).await.map_err(after_write)?;
            }
            for (index, commit) in kept {
                set(&mut answers, index, self.go_on(commit).await.map_err(after_write));
            }
            if !settled.is_empty() {
                // Off the path: whoever looks before it is done is told by the entity what is settled.
                let queue = self.clone();
                tokio::spawn(async move {
                    if let Err(error) = queue.forget(&settled).await {
                        tracing::debug!(%error, "settled messages stay until the next commit");
                    }
                });
            }
            if open.is_empty() {
                break;
            }
        }
        Ok(answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(crowded()))).collect())
    }

    /// How the entities stand: as they were granted here, if nothing but that is needed, or by a look.
    async fn rows(&self, these: &[(usize, &Commit)], most: u32, first: bool) -> Result<Vec<Row>, Error> {
        let known = |commit: &Commit| {
            self.inner.held.take(&commit.lease.entity).filter(|row| settles_all(row, commit))
        };
        let mut rows: Vec<Option<Row>> =
            these.iter().map(|(_, commit)| known(commit).filter(|_| first)).collect();
        let asked = these.iter().zip(&rows).filter(|(_, row)| row.is_none());
        let wanted: Vec<(&EntityId, usize)> =
            asked.map(|((_, commit), _)| (&commit.lease.entity, wants_settled(commit))).collect();
        if !wanted.is_empty() {
            let mut looked = self.look_behind(&wanted, most).await?.into_iter();
            rows.iter_mut().filter(|row| row.is_none()).for_each(|row| *row = looked.next());
        }
        let rows: Vec<Row> = rows.into_iter().flatten().collect();
        // What earlier commits have left behind stays named until it is gone, but not without a limit.
        let left = rows.iter().filter_map(|row| row.left.as_ref()).filter(|left| left.len() >= row::DONE);
        let left: Vec<_> = left.flatten().copied().collect();
        self.forget(&left).await?;
        Ok(rows)
    }
}

/// How many messages a commit settles: what it acks, and the dead letter behind that.
fn settles(row: &Row, commit: &Commit) -> usize {
    wants_settled(commit).min(row.handed.len())
}

/// Whether a commit that was granted here needs no more than what is known of the grant.
fn settles_all(row: &Row, commit: &Commit) -> bool {
    let granted = row.is_held_by(commit.lease.nonce) && row.fence == Some(commit.lease.fence);
    let plain = matches!(commit.verdict, Verdict::Proceed) && commit.effects.is_empty();
    granted && plain && commit.acked.len() == row.handed.len()
}

fn wants_settled(commit: &Commit) -> usize {
    commit.acked.len() + usize::from(matches!(commit.verdict, Verdict::DeadLetter { .. }))
}

/// How many bytes of user data it brings along.
fn size(commit: &Commit) -> usize {
    let sent = commit.effects.iter().map(|effect| match effect {
        Effect::Send(envelope) => {
            2048 + envelope.message.payload.len() + codec::size(&envelope.message.headers)
        }
        _ => 0,
    });
    2048 + commit.state.as_ref().map_or(0, |state| state.json.len()) + sent.sum::<usize>()
}

fn no_prefix(entity: &EntityId) -> Error {
    Error::new(ErrorKind::Conflict, "the acknowledged ids are no prefix of what was handed out")
        .with_entity(entity)
}

fn check(row: &Row, commit: &Commit) -> Check {
    let entity = &commit.lease.entity;
    let refuse = |error: Error| Check::Refused(error.with_entity(entity));
    if row.last_commit.as_deref() == Some(&commit.id.to_string()) {
        return Check::Replay;
    }
    if !row.is_held_by(commit.lease.nonce) || row.fence != Some(commit.lease.fence) {
        return Check::LockLost;
    }
    for effect in &commit.effects {
        match effect {
            Effect::Send(_) => {}
            Effect::SetTimer { .. } | Effect::CancelTimer { .. } => {
                return refuse(Error::unsupported("a timer"));
            }
            Effect::Reply { .. } => return refuse(Error::unsupported("a reply")),
            _ => return refuse(Error::unsupported("this effect")),
        }
    }
    let acked = commit.acked.len();
    let prefix = row.handed.iter().map(|(id, _)| id.as_str()).take(acked);
    if acked > row.handed.len() || !commit.acked.iter().map(|id| id.as_str()).eq(prefix) {
        return Check::Refused(no_prefix(entity));
    }
    if matches!(commit.verdict, Verdict::DeadLetter { .. }) && acked == row.handed.len() {
        return refuse(Error::new(
            ErrorKind::Conflict,
            "everything is acknowledged, nothing is left to dead-letter",
        ));
    }
    Check::Apply(plan(row, commit))
}

fn plan(row: &Row, commit: &Commit) -> Plan {
    let settled = row.handed.get(..settles(row, commit)).unwrap_or_default();
    let gone: BTreeSet<Place> = settled.iter().map(|(_, place)| *place).collect();
    let mut next: Vec<Queued> =
        row.head.iter().filter(|queued| !gone.contains(&queued.place)).cloned().collect();
    let is_empty = next.is_empty();
    let limit = commit.batch_limit.max(1);
    let stops = match commit.verdict {
        Verdict::Proceed | Verdict::DeadLetter { .. } => row.paused.is_some(),
        Verdict::Wait { .. } | Verdict::Pause { .. } => true,
    };
    match commit.next {
        Next::Batch { max } if !stops => next.truncate(max.min(limit).max(1) as usize),
        _ => next.clear(),
    }
    let wants = matches!(commit.next, Next::Batch { .. }) && !stops;
    let counts = row.counts(&next, !settled.is_empty());
    let next_due = next_due(row, commit, is_empty);
    let own = commit.effects.iter().any(|effect| match effect {
        Effect::Send(envelope) => envelope.entity == commit.lease.entity && envelope.message.delay.is_zero(),
        _ => false,
    });
    let keeps = wants && next.is_empty() && own;
    let change = Box::new(change(row, commit, settled, &next, is_empty, keeps));
    // What an earlier commit had to leave is tried again.
    let settled = row.going(settled.len()).chain(row.left.iter().flatten().copied()).collect();
    Plan { settled, batch: next, counts, next_due, keeps, change }
}

/// When it wants to be looked at again, once the lock is let go.
fn next_due(row: &Row, commit: &Commit, is_empty: bool) -> Option<Duration> {
    let wait = match &commit.verdict {
        Verdict::Pause { .. } => return None,
        Verdict::Wait { after, .. } => *after,
        Verdict::Proceed | Verdict::DeadLetter { .. } => Duration::ZERO,
    };
    if row.paused.is_some() {
        return None;
    }
    // A send to itself is relayed behind the commit.
    let own = commit.effects.iter().filter_map(|effect| match effect {
        Effect::Send(envelope) if envelope.entity == commit.lease.entity => Some(envelope.message.delay),
        _ => None,
    });
    let late = row.late.map(|(due, _)| Duration::from_millis(codec::unsigned(due - row.now)));
    let head = if is_empty { own.chain(late).min()? } else { Duration::ZERO };
    Some(head.max(wait))
}

/// Everything at once, if the entity is as it was read (G3, G4, G5).
fn change(
    row: &Row,
    commit: &Commit,
    settled: &[(String, Place)],
    batch: &[Queued],
    is_empty: bool,
    keeps: bool,
) -> Change {
    let (lease, count) = (&commit.lease, settled.len());
    let mut change = Change::of(&lease.entity);
    // The fence pins what was handed out; a resume sets the counters back.
    change.filter.extend(doc! { "nonce": lease.nonce.to_string(), "fence": signed(lease.fence),
    "deliveries": i64::from(row.deliveries) });
    change.when("deadline", true);
    change.when("paused", row.paused.is_some());
    let stays = keeps || !batch.is_empty();
    if !stays {
        // G5: what it leaves behind follows from the look, so nobody may have posted since.
        change.filter.insert("mark", row.mark);
    }
    // What is perhaps still stored of earlier commits stays named.
    let earlier = row.left.as_ref().unwrap_or(&row.done);
    let earlier = earlier.iter().filter(|_| earlier.len() < row::DONE).copied();
    let done: Vec<ObjectId> = earlier.chain(row.going(count)).collect();
    match settled.last().map(|(_, place)| *place).filter(|last| !last.is_last()) {
        Some(last) => _ = change.set.insert("part", row::within((last.parcel, last.at + 1))),
        None if row.part.is_some_and(|(parcel, _)| done.contains(&parcel)) => change.unset.push("part"),
        None => {}
    }
    change.set.extend(doc! {
        "fence": signed(lease.fence) + 1, "last_commit": commit.id.to_string(), "done": done,
        "batch_limit": i64::from(commit.batch_limit.max(1)),
    });
    change.set.extend(row.last_commit.as_ref().map(|id| ("commit_before".to_owned(), id.as_str().into())));
    match !stays && is_empty && row.late.is_none() {
        // Whatever the count was, it is none.
        true => change.set.insert("pending", 0_i64),
        false => change.inc.insert("pending", -signed(count as u64)),
    };
    let (mut deliveries, mut charged) = (row.deliveries, row.charged);
    let mut wait = row.waiting().map(|(_, left)| row.now + left);
    match &commit.verdict {
        Verdict::Proceed => {
            wait = None;
            change.unset.extend(["wait", "last_error"]);
        }
        Verdict::DeadLetter { error } => {
            if let Some((_, place)) = settled.get(commit.acked.len()) {
                let mut letter = row::within((place.parcel, place.at));
                letter.extend(doc! { "n": ObjectId::new(), "error": error.as_str(),
                "attempts": i64::from(row.deliveries) });
                change.push.insert("bury", letter);
            }
            wait = None;
            change.unset.push("wait");
            change.set.insert("last_error", error.as_str());
        }
        Verdict::Wait { why, after, error } => {
            let until = row.now.saturating_add(millis(*after));
            wait = Some(until);
            change.set.insert("wait", doc! { "why": why.as_str(), "until": date(until) });
            change.set.extend(error.as_ref().map(|error| ("last_error".to_owned(), error.as_str().into())));
            if *why == Waiting::NotReady {
                // The hand-out was not run, and does not count (G6).
                deliveries = deliveries.saturating_sub(u32::from(!row.handed.is_empty()));
                charged = charged.saturating_sub(u32::from(row.handed.len() == 1));
            }
        }
        Verdict::Pause { reason } => _ = change.set.insert("paused", reason.as_str()),
    }
    if let Some(state) = &commit.state {
        change
            .set
            .extend(doc! { "state": state.json.as_str(), "state_version": i64::from(state.state_version) });
        change.inc.insert("version", 1_i64);
    }
    let sends = commit.effects.iter().filter_map(|effect| match effect {
        Effect::Send(envelope) => Some(stage(envelope)),
        _ => None,
    });
    let sends: Vec<Document> = sends.collect();
    let staged = row.staged || !sends.is_empty() || change.push.contains_key("bury");
    if !sends.is_empty() {
        change.push.insert("outbox", doc! { "$each": sends });
    }
    if count > 0 {
        (deliveries, charged) = (0, 0);
    }
    if !batch.is_empty() {
        (deliveries, charged) = row.counts(batch, count > 0);
        change.set.insert("queued", true);
    }
    change.set.extend(doc! { "deliveries": i64::from(deliveries), "charged": i64::from(charged) });
    change.set.extend(row::entries(batch));
    let late = row.late.map(|(due, _)| due);
    if stays {
        // The lease counts from the look.
        let deadline = date(row.now.saturating_add(millis(lease.length)));
        change.set.extend(doc! { "deadline": deadline, "wake_at": deadline });
        change.min.extend(late.map(|due| ("delayed_at".to_owned(), date(due).into())));
        return change;
    }
    change.set.insert("queued", !is_empty);
    change.now.push("since");
    change.unset.push("deadline");
    match late {
        Some(due) => _ = change.set.insert("delayed_at", date(due)),
        None => change.unset.push("delayed_at"),
    }
    // When `due` finds it, as `statements::wake` says it.
    let is_paused = row.paused.is_some() || matches!(commit.verdict, Verdict::Pause { .. });
    match (late.filter(|_| is_empty), wait) {
        _ if staged => change.now.push("wake_at"),
        _ if is_paused => change.unset.push("wake_at"),
        (None, _) if is_empty => change.unset.push("wake_at"),
        (None, None) => change.now.push("wake_at"),
        (due, until) => change.set.extend(due.max(until).map(|at| ("wake_at".to_owned(), date(at).into()))),
    }
    change
}

fn finish(commit: &Commit, plan: Plan) -> Updated {
    if plan.batch.is_empty() {
        return Updated::Released { next_due: plan.next_due };
    }
    let batch = batch(plan.batch, plan.counts, commit.batch_limit.max(1));
    Updated::Continue { fence: commit.lease.fence + 1, batch }
}
