//! Grants, and handing them back.

use std::collections::BTreeMap;

use actornot_core::{EntityId, Error, Grant, HandedOut, Lease, LockRequest, StoredMessage, TryLock};

use crate::SqliteQueue;
use crate::codec::millis;
use crate::row::Row;
use crate::slice::{Slice, Wanted, Wants};

impl SqliteQueue {
    pub(crate) async fn lock_slice(
        &self,
        items: &[TryLock],
    ) -> Result<Vec<Result<Option<Grant>, Error>>, Error> {
        let entities = || items.iter().map(|item| &item.entity);
        let wants = Wants {
            states: entities().collect(),
            queues: entities().map(|entity| (entity, 0)).collect(),
            most: items.iter().map(|item| item.request.max_batch).max().unwrap_or(1),
            ..Wants::default()
        };
        let mut slice = Slice::load_with(&self.inner.writer, entities().collect(), wants).await?;
        let wanted: Vec<_> = items.iter().map(|item| (&item.entity, &item.request)).collect();
        let mut grants = slice.lock(&wanted).await?;
        slice.commit().await?;
        Ok(items.iter().map(|item| Ok(grants.remove(&item.entity))).collect())
    }

    pub(crate) async fn release_slice(&self, leases: &[Lease]) -> Result<Vec<Result<bool, Error>>, Error> {
        let mut slice =
            Slice::load(&self.inner.writer, leases.iter().map(|lease| &lease.entity).collect()).await?;
        let now = slice.now;
        let mut held = Vec::with_capacity(leases.len());
        for lease in leases {
            let row = slice.row(&lease.entity).filter(|row| row.is_held_by(lease.nonce));
            held.push(Ok(row.is_some()));
            if let Some(row) = row {
                row.uncount();
                row.unlock(now);
            }
        }
        slice.commit().await?;
        Ok(held)
    }
}

impl Slice {
    /// Grants what can be granted: at most one statement for any number of requests, whose states were loaded.
    pub(crate) async fn lock(
        &mut self,
        items: &[(&EntityId, &LockRequest)],
    ) -> Result<BTreeMap<EntityId, Grant>, Error> {
        let now = self.now;
        let mut heads = Vec::new();
        let mut granted = Vec::new();
        for (entity, request) in items {
            let Some(row) = self.row(entity) else { continue };
            if row.is_held_by(request.nonce) && !row.handed.is_empty() {
                // The reply was lost: the same grant again, counted once.
                heads.push(Wanted::again(row));
                granted.push((*entity, *request, row.id, true));
            } else if row.nonce.as_deref() != Some(&request.nonce.to_string())
                && !row.is_leased(now)
                && row.is_ready(now)
            {
                row.take_over();
                heads.push(Wanted::next(row, request.max_batch.min(row.batch_limit)));
                granted.push((*entity, *request, row.id, false));
            }
        }
        let mut heads = self.heads(&heads).await?;

        let mut grants = BTreeMap::new();
        for (entity, request, id, again) in granted {
            let messages = heads.remove(&id).unwrap_or_default();
            let state = self.states.remove(&id);
            let Some(row) = self.row(entity) else { continue };
            if messages.is_empty() {
                row.mend(entity);
                continue;
            }
            row.deadline = Some(now.saturating_add(millis(request.length)));
            if !again {
                row.fence += 1;
                row.nonce = Some(request.nonce.to_string());
                row.hand_out(&messages);
            }
            let lease = Lease {
                entity: entity.clone(),
                nonce: request.nonce,
                fence: row.fence,
                length: request.length,
            };
            grants.insert(entity.clone(), Grant { lease, state, batch: row.batch(messages) });
        }
        Ok(grants)
    }
}

impl Row {
    /// What goes to the runner.
    pub(crate) fn batch(&self, messages: Vec<(i64, StoredMessage)>) -> HandedOut {
        HandedOut {
            messages: messages.into_iter().map(|(_, message)| message).collect(),
            deliveries: self.deliveries,
            charged: self.charged,
            batch_limit: self.batch_limit,
        }
    }

    /// The row says that something is queued, and nothing is: somebody deleted messages by hand. Without this,
    /// `due` would report it for ever.
    pub(crate) fn mend(&mut self, entity: &EntityId) {
        tracing::warn!(%entity, "queued messages are gone from the table, the count is set right");
        self.leave(self.queued);
    }
}
