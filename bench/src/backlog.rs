//! What a post and a commit cost while messages are pending on their entity.

use std::time::{Duration, Instant};

use actornot_core::{
    Commit, CommitId, Enqueue, EntityId, Error, Grant, Headers, LockRequest, LockableQueue, MessageId,
    NewMessage, NewState, Next, Nonce, TryLock, Updated, Verdict,
};
use serde::Serialize;

use crate::Result;
use crate::args::Plan;
use crate::backend::{Backend, Kind};
use crate::latency::Latency;

/// With so many messages pending, and a few of the measurement's own.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Depth {
    pub(crate) pending: u64,
    /// Milliseconds of a call by itself.
    pub(crate) post: Latency,
    pub(crate) commit: Latency,
}

pub(crate) async fn measure(kind: Kind, backend: &dyn Backend, plan: &Plan) -> Result<Vec<Depth>> {
    let queue = kind.open(&backend.place()).await?;
    let mut depths = Vec::new();
    let mut number = 0;
    for pending in [0, 1_000, 10_000, 100_000].into_iter().filter(|pending| *pending <= plan.backlog) {
        let entity = EntityId::new("counter", format!("deep{pending}"))?;
        let mut stored = 0;
        while stored < pending {
            let portion = (pending - stored).min(500);
            enqueue(&*queue, &entity, portion, &mut number).await?;
            stored += portion;
        }
        let mut post = Vec::new();
        for _ in 0..plan.singles {
            let began = Instant::now();
            enqueue(&*queue, &entity, 1, &mut number).await?;
            post.push(began.elapsed());
        }
        let commit = commits(&*queue, &entity, plan.singles, &mut number).await?;
        let depth = Depth { pending, post: Latency::of(&post), commit: Latency::of(&commit) };
        eprintln!(
            "{}: {pending} pending: post {:.2} ms, commit {:.2} ms",
            kind.name(),
            depth.post.p50,
            depth.commit.p50
        );
        depths.push(depth);
    }
    Ok(depths)
}

async fn enqueue(
    queue: &dyn LockableQueue,
    entity: &EntityId,
    messages: u64,
    number: &mut u128,
) -> Result<()> {
    let message = || {
        *number += 1;
        NewMessage {
            id: MessageId::from_random(*number),
            payload: "{\"delta\":1}".to_owned(),
            headers: Headers::new(),
            delay: Duration::ZERO,
            retention: Duration::from_secs(600),
        }
    };
    let messages = std::iter::repeat_with(message).take(messages as usize).collect();
    let item = Enqueue { entity: entity.clone(), messages, backlog_limit: 1_000_000, lock: None };
    only(queue.enqueue(&[item]).await)?;
    Ok(())
}

/// Commits of one message each, all but the last of which bring back the next.
async fn commits(
    queue: &dyn LockableQueue,
    entity: &EntityId,
    times: usize,
    number: &mut u128,
) -> Result<Vec<Duration>> {
    *number += 1;
    let request =
        LockRequest { nonce: Nonce::from_random(*number), length: Duration::from_secs(60), max_batch: 1 };
    let granted = only(queue.try_lock(&[TryLock { entity: entity.clone(), request }]).await)?;
    let Grant { mut lease, mut batch, .. } = granted.ok_or("the lock was not granted")?;
    let mut all = Vec::new();
    for n in 1..=times {
        *number += 1;
        let next = if n == times { Next::Release } else { Next::Batch { max: 1 } };
        let commit = Commit {
            id: CommitId::from_random(*number),
            lease: lease.clone(),
            acked: batch.ids(),
            state: Some(NewState { json: format!("{{\"value\":{n}}}"), state_version: 1 }),
            verdict: Verdict::Proceed,
            effects: vec![],
            batch_limit: 1,
            next,
        };
        let began = Instant::now();
        let answer = only(queue.update_locked(&[commit]).await)?;
        all.push(began.elapsed());
        match answer {
            Updated::Continue { fence, batch: next } => (lease.fence, batch) = (fence, next),
            Updated::Released { .. } if n == times => {}
            other => return Err(format!("commit {n} was answered {other:?}").into()),
        }
    }
    Ok(all)
}

fn only<T>(mut answers: Vec<Result<T, Error>>) -> Result<T> {
    Ok(answers.pop().ok_or("the adapter gave no answer")??)
}
