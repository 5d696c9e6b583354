//! Grants, and locks that are handed back.

use actornot_core::{EntityId, Error, Grant, Lease, LockRequest, TryLock};
use redis::Value;

use crate::RedisQueue;
use crate::codec::millis;
use crate::row::{self, Parts, yes};
use crate::slice::Call;
use crate::statements::{RELEASE, TRY_LOCK};

impl RedisQueue {
    pub(crate) async fn lock_slice(&self, items: &[TryLock]) -> Vec<Result<Option<Grant>, Error>> {
        let ask =
            |item: &TryLock| wanted(Call::narrow(&self.inner.space, &TRY_LOCK, &item.entity), &item.request);
        let calls: Vec<Call> = items.iter().map(ask).collect();
        let answers = self.run(&calls).await.into_iter().zip(items);
        answers
            .map(|(answer, item)| {
                let decoded = answer.and_then(|answer| grant(answer, &item.entity, &item.request));
                decoded.map_err(|error| error.with_entity(&item.entity))
            })
            .collect()
    }

    pub(crate) async fn release_slice(&self, leases: &[Lease]) -> Vec<Result<bool, Error>> {
        let release = |lease: &Lease| {
            Call::narrow(&self.inner.space, &RELEASE, &lease.entity).arg(lease.nonce.to_string())
        };
        let calls: Vec<Call> = leases.iter().map(release).collect();
        let answers = self.run(&calls).await.into_iter().zip(leases);
        answers
            .map(|(answer, lease)| answer.and_then(yes).map_err(|error| error.with_entity(&lease.entity)))
            .collect()
    }
}

/// Nonce, lease and batch of a request.
pub(crate) fn wanted(call: Call, request: &LockRequest) -> Call {
    call.arg(request.nonce.to_string()).number(millis(request.length)).number(request.max_batch.max(1))
}

/// `[batch, json, version, state version]`, or nothing.
pub(crate) fn grant(answer: Value, entity: &EntityId, request: &LockRequest) -> Result<Option<Grant>, Error> {
    if answer == Value::Nil {
        return Ok(None);
    }
    let mut parts = Parts::of(answer)?;
    let (fence, batch) = row::batch(parts.value())?;
    let state = row::state(&mut parts)?;
    let lease = Lease { entity: entity.clone(), nonce: request.nonce, fence, length: request.length };
    Ok(Some(Grant { lease, state, batch }))
}
