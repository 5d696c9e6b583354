//! Commits: settle, save, stage what is sent, and go on or let go.

use std::collections::BTreeSet;
use std::time::Duration;

use actornot_core::{Commit, Effect, EntityId, Error, ErrorKind, Next, Updated, Verdict, Waiting};
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, Document, doc};

use crate::MongoQueue;
use crate::codec::{self, literal, millis, name};
use crate::connection::Outcome;
use crate::error::after_write;
use crate::row::{Queued, Row, batch, handed};
use crate::slice::{self, COMMAND_BYTES, stage};
use crate::statements::{self, refuse, signed, update, wake};
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
    settled: Vec<(String, ObjectId)>,
    /// What is handed out next; empty when the lock is let go.
    batch: Vec<Queued>,
    counts: (u32, u32),
    next_due: Option<Duration>,
    /// Nothing is queued yet, but it sent to itself: the lock is kept until that was relayed.
    keeps: bool,
    stages: Vec<Document>,
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
        let db = &self.inner.connection;
        let most = commits.iter().map(|commit| {
            let max = if let Next::Batch { max } = commit.next { max } else { 1 };
            max.saturating_add(u32::try_from(commit.acked.len()).unwrap_or(u32::MAX)).saturating_add(1)
        });
        let most = most.max().unwrap_or(1);
        let mut answers: Vec<Option<Result<Updated, Error>>> = commits.iter().map(|_| None).collect();
        let mut open: Vec<usize> = (0..commits.len()).collect();
        for _ in 0..AGAIN {
            let these: Vec<(usize, &Commit)> =
                open.iter().filter_map(|index| Some((*index, commits.get(*index)?))).collect();
            let rows = self.look_and_forget(&these, most).await?;
            let missing = self.missing(&these, &rows).await?;
            let (mut steps, mut statements) = (Vec::new(), Vec::new());
            for ((index, commit), row) in these.into_iter().zip(rows) {
                let answer = match check(&row, commit, &missing) {
                    Check::Apply(plan) => {
                        let id = name(&commit.lease.entity);
                        statements
                            .push(doc! { "q": { "_id": id }, "u": plan.stages.clone(), "upsert": true });
                        steps.push((index, commit, plan));
                        continue;
                    }
                    Check::Replay => self.repeat(commit, &row).await,
                    Check::LockLost => Ok(Updated::LockLost),
                    Check::Refused(error) => Err(error),
                };
                set(&mut answers, index, answer);
            }
            open.clear();
            if statements.is_empty() {
                break;
            }
            let reply = db.write(update(&db.entities, statements)).await?;
            let (mut settled, mut staged, mut kept) = (Vec::new(), Vec::new(), Vec::new());
            for (position, (index, commit, plan)) in steps.into_iter().enumerate() {
                let entity = &commit.lease.entity;
                match reply.outcome(position) {
                    Outcome::Applied => {
                        let ids = plan.settled.iter().map(|(id, u)| (codec::message_name(entity, id), *u));
                        settled.extend(ids);
                        if !commit.effects.is_empty() || matches!(commit.verdict, Verdict::DeadLetter { .. })
                        {
                            staged.push(entity);
                        }
                        if plan.keeps {
                            kept.push((index, commit));
                        }
                        set(&mut answers, index, Ok(finish(commit, plan)));
                    }
                    Outcome::Refused("lost") => set(&mut answers, index, Ok(Updated::LockLost)),
                    Outcome::Refused("conflict") => set(&mut answers, index, Err(no_prefix(entity))),
                    Outcome::Refused(_) => open.push(index),
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

    /// The list of what the last commit settled is replaced by this one's: what it left behind goes first.
    async fn look_and_forget(&self, these: &[(usize, &Commit)], most: u32) -> Result<Vec<Row>, Error> {
        let wanted: Vec<(&EntityId, usize)> =
            these.iter().map(|(_, commit)| (&commit.lease.entity, wants_settled(commit))).collect();
        let rows = self.look_behind(&wanted, most).await?;
        let left: Vec<(Document, ObjectId)> = rows.iter().flat_map(|row| row.left.iter().cloned()).collect();
        self.forget(&left).await?;
        Ok(rows)
    }

    /// Messages that were handed out and are settled now, but are not stored: only if somebody removed them by hand.
    async fn missing(&self, these: &[(usize, &Commit)], rows: &[Row]) -> Result<BTreeSet<ObjectId>, Error> {
        let mut asked: Vec<(&EntityId, Vec<(String, ObjectId)>)> = Vec::new();
        for ((_, commit), row) in these.iter().zip(rows) {
            let count = settles(row, commit);
            let unseen: Vec<_> =
                row.handed.iter().take(count).filter(|(_, u)| !row.going.contains(u)).cloned().collect();
            if row.is_held_by(commit.lease.nonce) && !unseen.is_empty() {
                asked.push((&commit.lease.entity, unseen));
            }
        }
        let wanted: Vec<_> = asked.iter().map(|(entity, unseen)| (*entity, unseen.as_slice())).collect();
        let found: BTreeSet<ObjectId> =
            self.stored(&wanted).await?.into_iter().flatten().map(|queued| queued.u).collect();
        let asked = asked.iter().flat_map(|(_, unseen)| unseen.iter().map(|(_, u)| *u));
        Ok(asked.filter(|u| !found.contains(u)).collect())
    }
}

/// How many messages a commit settles: what it acks, and the dead letter behind that.
fn settles(row: &Row, commit: &Commit) -> usize {
    wants_settled(commit).min(row.handed.len())
}

fn wants_settled(commit: &Commit) -> usize {
    commit.acked.len() + usize::from(matches!(commit.verdict, Verdict::DeadLetter { .. }))
}

/// How many bytes of user data it brings along.
fn size(commit: &Commit) -> usize {
    let sent = commit.effects.iter().map(|effect| match effect {
        Effect::Send(envelope) => {
            2048 + envelope.message.payload.len() + slice::size(&envelope.message.headers)
        }
        _ => 0,
    });
    2048 + commit.state.as_ref().map_or(0, |state| state.json.len()) + sent.sum::<usize>()
}

fn no_prefix(entity: &EntityId) -> Error {
    Error::new(ErrorKind::Conflict, "the acknowledged ids are no prefix of what was handed out")
        .with_entity(entity)
}

fn check(row: &Row, commit: &Commit, missing: &BTreeSet<ObjectId>) -> Check {
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
    let settled: Vec<_> = row.handed.iter().take(settles(row, commit)).cloned().collect();
    if settled.iter().any(|(_, u)| missing.contains(u)) {
        return refuse(Error::new(ErrorKind::Conflict, "a message that was handed out is no longer stored"));
    }
    Check::Apply(plan(row, commit, settled))
}

fn plan(row: &Row, commit: &Commit, settled: Vec<(String, ObjectId)>) -> Plan {
    let gone: BTreeSet<ObjectId> = settled.iter().map(|(_, u)| *u).collect();
    let mut next: Vec<Queued> = row.head.iter().filter(|queued| !gone.contains(&queued.u)).cloned().collect();
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
    let stages = stages(row, commit, &settled, &next, is_empty, wants, keeps);
    Plan { settled, batch: next, counts, next_due, keeps, stages }
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

/// The update: the guard, and then everything at once (G3, G4, G5).
fn stages(
    row: &Row,
    commit: &Commit,
    settled: &[(String, ObjectId)],
    batch: &[Queued],
    is_empty: bool,
    wants: bool,
    keeps: bool,
) -> Vec<Document> {
    let (count, acked) = (settled.len(), commit.acked.len());
    let same_mark = doc! { "$eq": ["$mark", row.mark] };
    let mut stages = vec![doc! { "$set": { "fence": { "$switch": {
    "branches": guards(row, commit, batch, wants && !keeps), "default": { "$add": ["$fence", 1_i64] } } } } }];
    let done: Vec<Document> = settled
        .iter()
        .map(|(id, u)| {
            doc! { "id": codec::message_name(&commit.lease.entity, id), "u": *u }
        })
        .collect();
    let less = doc! { "$max": [0_i64, { "$subtract": ["$pending", signed(count as u64)] }] };
    // Nothing is left, and nobody posted since: whatever the count was, it is none.
    let pending = match is_empty && row.late.is_none() {
        true => doc! { "$cond": [same_mark.clone(), 0_i64, less] },
        false => less,
    };
    stages.push(doc! { "$set": {
        "last_commit": commit.id.to_string(), "batch_limit": i64::from(commit.batch_limit.max(1)),
        "done": literal(done), "pending": pending,
    } });
    match &commit.verdict {
        Verdict::Proceed => stages.push(doc! { "$unset": ["wait", "last_error"] }),
        Verdict::DeadLetter { error } => {
            if let Some((id, u)) = settled.get(acked) {
                let letter = doc! { "i": literal(id.as_str()), "u": *u, "error": literal(error.as_str()),
                "attempts": "$deliveries" };
                stages.push(doc! { "$set": { "bury": { "$concatArrays": ["$bury", [letter]] } } });
            }
            stages.push(doc! { "$set": { "wait": "$$REMOVE", "last_error": literal(error.as_str()) } });
        }
        Verdict::Wait { why, after, error } => {
            let until = doc! { "$add": ["$$NOW", millis(*after)] };
            stages.push(doc! { "$set": { "wait": { "why": why.as_str(), "until": until } } });
            if let Some(error) = error {
                stages.push(doc! { "$set": { "last_error": literal(error.as_str()) } });
            }
            if *why == Waiting::NotReady {
                stages.push(statements::uncount());
            }
        }
        Verdict::Pause { reason } => {
            stages.push(doc! { "$set": { "paused": literal(reason.as_str()) } });
        }
    }
    if let Some(state) = &commit.state {
        stages.push(doc! { "$set": { "state": literal(state.json.as_str()),
        "state_version": i64::from(state.state_version), "version": { "$add": ["$version", 1_i64] } } });
    }
    let sends = commit.effects.iter().filter_map(|effect| match effect {
        Effect::Send(envelope) => Some(stage(envelope)),
        _ => None,
    });
    let sends: Vec<Document> = sends.collect();
    if !sends.is_empty() {
        stages.push(doc! { "$set": { "outbox": { "$concatArrays": ["$outbox", literal(sends)] } } });
    }
    if count > 0 {
        stages.push(doc! { "$set": { "deliveries": 0_i64, "charged": 0_i64 } });
    }
    let first = row.late.map_or(Bson::Null, |(due, _)| codec::date(due).into());
    let seen = if row.late.is_some() { first.clone() } else { "$$REMOVE".into() };
    stages.push(doc! { "$set": { "delayed_at": { "$cond": [same_mark.clone(), seen, { "$min": ["$delayed_at", first] }] } } });
    if keeps {
        let length = millis(commit.lease.length);
        stages.push(doc! { "$set": { "handed": [], "deadline": { "$add": ["$$NOW", length] } } });
    } else if batch.is_empty() {
        let queued = doc! { "$or": [!is_empty, { "$not": [same_mark] }] };
        stages.push(doc! { "$set": { "queued": queued } });
        stages.push(statements::unlock());
    } else {
        let length = millis(commit.lease.length);
        stages.push(statements::hand(&handed(batch)));
        stages.push(doc! { "$set": { "queued": true, "deadline": { "$add": ["$$NOW", length] } } });
    }
    stages.push(wake());
    stages
}

/// Why the server may refuse what the look allowed.
fn guards(row: &Row, commit: &Commit, batch: &[Queued], wants: bool) -> Vec<Document> {
    let fence = doc! { "$eq": ["$fence", signed(commit.lease.fence)] };
    let held = doc! { "$and": [statements::held_by(commit.lease.nonce), fence] };
    let mut guards = vec![
        doc! { "case": { "$eq": ["$last_commit", commit.id.to_string()] }, "then": refuse("replay") },
        doc! { "case": { "$not": [held] }, "then": refuse("lost") },
    ];
    // The fence pins `handed`, so the prefix was checked by the look.
    if wants && batch.is_empty() {
        // G5: released because it is empty, and somebody posted since.
        guards.push(doc! { "case": { "$ne": ["$mark", row.mark] }, "then": refuse("moved") });
    }
    if !batch.is_empty() {
        guards.push(doc! { "case": statements::paused(), "then": refuse("moved") });
        // A resume sets the counters back.
        let counted = doc! { "$ne": ["$deliveries", i64::from(row.deliveries)] };
        guards.push(doc! { "case": counted, "then": refuse("moved") });
    }
    guards
}

fn finish(commit: &Commit, plan: Plan) -> Updated {
    if plan.batch.is_empty() {
        return Updated::Released { next_due: plan.next_due };
    }
    let batch = batch(plan.batch, plan.counts, commit.batch_limit.max(1));
    Updated::Continue { fence: commit.lease.fence + 1, batch }
}

fn set<T>(answers: &mut [Option<T>], index: usize, answer: T) {
    if let Some(slot) = answers.get_mut(index) {
        *slot = Some(answer);
    }
}
