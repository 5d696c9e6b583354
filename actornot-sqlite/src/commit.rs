//! Commits: settle, save, send, and go on or let go.

use std::collections::BTreeSet;
use std::time::Duration;

use actornot_core::{Commit, Effect, EntityId, Envelope, Error, ErrorKind, Next, Updated, Verdict};
use sqlx::Row as _;

use crate::SqliteQueue;
use crate::codec::{Bytes, json, millis, unsigned};
use crate::error::before_commit;
use crate::row::Row;
use crate::slice::{Heads, Slice, Wanted, Wants};
use crate::statements;

/// What a commit turned out to be, before anything was changed.
enum Check {
    Apply,
    Replay,
    LockLost,
    Refused(Error),
}

impl SqliteQueue {
    pub(crate) async fn commit_slice(
        &self,
        commits: &[Commit],
    ) -> Result<Vec<Result<Updated, Error>>, Error> {
        let entities: BTreeSet<&EntityId> = commits.iter().flat_map(touched).collect();
        let mut wants = Wants::default();
        for commit in commits {
            wants.ids.extend(sends(commit).map(|envelope| (&envelope.entity, &envelope.message.id)));
            if let Next::Batch { max } = commit.next {
                wants.queues.push((&commit.lease.entity, settled(commit)));
                wants.most = wants.most.max(max);
            }
        }
        let mut slice = Slice::load_with(&self.inner.writer, entities, wants).await?;
        // Nothing is changed before every commit was judged, so that a refused one leaves no trace.
        let missing = missing(&mut slice, commits).await?;
        let checks: Vec<Check> = commits.iter().map(|commit| check(&mut slice, commit, &missing)).collect();
        let apply: Vec<&Commit> = commits
            .iter()
            .zip(&checks)
            .filter_map(|(commit, check)| matches!(check, Check::Apply).then_some(commit))
            .collect();

        settle(&mut slice, &apply)?;
        send(&mut slice, &apply)?;
        let mut heads = go_on(&mut slice, commits, &checks).await?;
        let now = slice.now;
        let mut answers = Vec::with_capacity(commits.len());
        for (commit, check) in commits.iter().zip(checks) {
            answers.push(match (check, slice.row(&commit.lease.entity)) {
                (Check::Refused(error), _) => Err(error),
                (Check::LockLost, _) | (_, None) => Ok(Updated::LockLost),
                (Check::Apply, Some(row)) => Ok(finish(row, commit, &mut heads, now)),
                (Check::Replay, Some(row)) => Ok(repeat(row, commit, &mut heads, now)),
            });
        }
        slice.commit().await?;
        Ok(answers)
    }
}

fn touched(commit: &Commit) -> impl Iterator<Item = &EntityId> {
    std::iter::once(&commit.lease.entity).chain(sends(commit).map(|envelope| &envelope.entity))
}

fn sends(commit: &Commit) -> impl Iterator<Item = &Envelope> {
    commit.effects.iter().filter_map(|effect| match effect {
        Effect::Send(envelope) => Some(envelope),
        _ => None,
    })
}

/// How many a commit says that it settles: what it acks, and the dead letter behind that.
fn settled(commit: &Commit) -> usize {
    commit.acked.len() + usize::from(matches!(commit.verdict, Verdict::DeadLetter { .. }))
}

fn settles(row: &Row, commit: &Commit) -> usize {
    settled(commit).min(row.handed.len())
}

/// The rows with messages that a commit settles and that are not stored.
async fn missing(slice: &mut Slice, commits: &[Commit]) -> Result<BTreeSet<i64>, Error> {
    let (mut missing, mut asked) = (BTreeSet::new(), Vec::new());
    for commit in commits {
        let row = slice.row(&commit.lease.entity).filter(|row| row.is_held_by(commit.lease.nonce));
        let Some(row) = row.cloned() else { continue };
        let queue = slice.queues.get(&row.id);
        for (seq, _) in row.handed.iter().take(settles(&row, commit)) {
            match queue.and_then(|queue| queue.held(*seq)) {
                Some(true) => {}
                Some(false) => _ = missing.insert(row.id),
                None => asked.push((row.id, *seq)),
            }
        }
    }
    if !asked.is_empty() {
        let place = slice.tx.add(statements::MISSING, [json(&asked).into()])?;
        for row in slice.tx.run().await?.rows(Some(place)) {
            missing.insert(row.try_get("entity").map_err(before_commit)?);
        }
    }
    Ok(missing)
}

fn check(slice: &mut Slice, commit: &Commit, missing: &BTreeSet<i64>) -> Check {
    let entity = &commit.lease.entity;
    let refuse = |error: Error| Check::Refused(error.with_entity(entity));
    let Some(row) = slice.row(entity) else { return Check::LockLost };
    if row.last_commit.as_deref() == Some(&commit.id.to_string()) {
        return Check::Replay;
    }
    if !row.is_held_by(commit.lease.nonce) || row.fence != commit.lease.fence {
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
    let prefix = row.handed.iter().map(|(_, id)| id.as_str()).take(acked);
    if acked > row.handed.len() || !commit.acked.iter().map(|id| id.as_str()).eq(prefix) {
        return refuse(Error::new(
            ErrorKind::Conflict,
            "the acknowledged ids are no prefix of what was handed out",
        ));
    }
    if matches!(commit.verdict, Verdict::DeadLetter { .. }) && acked == row.handed.len() {
        return refuse(Error::new(
            ErrorKind::Conflict,
            "everything is acknowledged, nothing is left to dead-letter",
        ));
    }
    if missing.contains(&row.id) {
        return refuse(Error::new(ErrorKind::Conflict, "a message that was handed out is no longer stored"));
    }
    Check::Apply
}

/// Removes what is settled, stores states and verdicts, raises fences.
fn settle(slice: &mut Slice, commits: &[&Commit]) -> Result<(), Error> {
    let now = slice.now;
    let (mut settled, mut dead, mut states) = (Vec::new(), Vec::new(), Vec::new());
    let mut bytes = Bytes::default();
    for commit in commits {
        let Some(row) = slice.row(&commit.lease.entity) else { continue };
        let count = settles(row, commit);
        let gone = settled.len();
        settled.extend(row.handed.iter().take(count).map(|(seq, _)| (row.id, *seq)));
        match &commit.verdict {
            Verdict::Proceed => {
                (row.wait_why, row.wait_until, row.last_error) = (None, None, None);
            }
            Verdict::DeadLetter { error } => {
                let letter = row.handed.get(commit.acked.len());
                dead.extend(letter.map(|(seq, _)| (row.id, *seq, error.as_str(), row.deliveries)));
                (row.wait_why, row.wait_until, row.last_error) = (None, None, Some(error.clone()));
            }
            Verdict::Wait { why, after, error } => {
                row.wait_why = Some(why.as_str().to_owned());
                row.wait_until = Some(now.saturating_add(millis(*after)));
                row.last_error = error.clone().or(row.last_error.take());
                if *why == actornot_core::Waiting::NotReady {
                    row.uncount();
                }
            }
            Verdict::Pause { reason } => row.paused = Some(reason.clone()),
        }
        row.leave(count as u64);
        if count > 0 {
            (row.deliveries, row.charged) = (0, 0);
        }
        row.handed.clear();
        row.batch_limit = commit.batch_limit.max(1);
        row.fence += 1;
        row.last_commit = Some(commit.id.to_string());
        if let Some(state) = &commit.state {
            let (start, length) = bytes.push(&state.json);
            states.push((row.id, start, length, state.state_version));
        }
        for (id, seq) in settled.iter().skip(gone) {
            // The next batch is what stands behind them.
            slice.queues.entry(*id).and_modify(|queue| queue.left(*seq));
        }
    }
    if !dead.is_empty() {
        slice.tx.add(statements::BURY, [json(&dead).into()])?;
    }
    if !settled.is_empty() {
        slice.tx.add(statements::SETTLE, [json(&settled).into()])?;
    }
    if !states.is_empty() {
        slice.tx.add(statements::SAVE_STATES, [bytes.take().into(), json(&states).into()])?;
    }
    Ok(())
}

/// Sends join their targets in the same transaction: exactly once, because the commit is applied once.
fn send(slice: &mut Slice, commits: &[&Commit]) -> Result<(), Error> {
    for envelope in commits.iter().copied().flat_map(sends) {
        slice.append(&envelope.entity, &envelope.message, u64::MAX, true);
    }
    slice.store()
}

/// Reads what the holders that go on are handed next; after all sends, so that they see each other's.
async fn go_on(slice: &mut Slice, commits: &[Commit], checks: &[Check]) -> Result<Heads, Error> {
    let now = slice.now;
    let mut wanted = Vec::new();
    for (commit, check) in commits.iter().zip(checks) {
        let Some(row) = slice.row(&commit.lease.entity) else { continue };
        match (check, commit.next) {
            (Check::Apply, Next::Batch { max }) if row.is_ready(now) => {
                wanted.push(Wanted::next(row, max.min(row.batch_limit)));
            }
            (Check::Replay, _) if row.is_held_by(commit.lease.nonce) => {
                wanted.push(Wanted::again(row));
            }
            _ => {}
        }
    }
    slice.heads(&wanted).await
}

fn finish(row: &mut Row, commit: &Commit, heads: &mut Heads, now: i64) -> Updated {
    match heads.remove(&row.id) {
        Some(messages) => {
            row.hand_out(&messages);
            row.deadline = Some(now.saturating_add(millis(commit.lease.length)));
            Updated::Continue { fence: row.fence, batch: row.batch(messages) }
        }
        None => {
            if matches!(commit.next, Next::Batch { .. }) && row.is_ready(now) {
                row.mend(&commit.lease.entity);
            }
            row.unlock(now);
            released(row, now)
        }
    }
}

/// The commit was applied before; this is how things stand now.
fn repeat(row: &Row, commit: &Commit, heads: &mut Heads, now: i64) -> Updated {
    match heads.remove(&row.id) {
        Some(messages) if row.is_held_by(commit.lease.nonce) => {
            Updated::Continue { fence: row.fence, batch: row.batch(messages) }
        }
        _ => released(row, now),
    }
}

fn released(row: &Row, now: i64) -> Updated {
    let wake = row.wake_at().map(|at| at.max(row.deadline.unwrap_or(at)));
    Updated::Released { next_due: wake.map(|at| Duration::from_millis(unsigned(at - now))) }
}
