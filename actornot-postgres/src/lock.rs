//! Grants, handing them back, and renewing them.

use actornot_core::{Error, Grant, Lease, TryLock};
use sqlx::Row as _;

use crate::PostgresQueue;
use crate::connection::Server;
use crate::error::applied;
use crate::row::{self, Answers};
use crate::slice;
use crate::statements::Verb;

impl PostgresQueue {
    pub(crate) async fn lock_slice(
        &self,
        items: &[TryLock],
    ) -> Result<Vec<Result<Option<Grant>, Error>>, Error> {
        let rows = self.server.call(Verb::TryLock, &slice::locks(items)).await?;
        let Answers { mut of, .. } = row::answers(&rows)?;
        let granted = items.iter().enumerate().map(|(index, item)| {
            Ok(of.remove(&index).and_then(|answer| answer.grant(&item.entity, &item.request)))
        });
        Ok(granted.collect())
    }

    pub(crate) async fn release_slice(&self, leases: &[Lease]) -> Result<Vec<Result<bool, Error>>, Error> {
        held(&self.server, Verb::Release, leases).await
    }
}

/// Calls a verb that answers for each lease whether it is held by its nonce.
pub(crate) async fn held(
    server: &Server,
    verb: Verb,
    leases: &[Lease],
) -> Result<Vec<Result<bool, Error>>, Error> {
    let (mut values, lengths) = slice::leases(leases);
    if verb == Verb::ExtendLock {
        values.push(lengths);
    }
    let rows = server.call(verb, &values).await?;
    let mut held = vec![false; leases.len()];
    for row in &rows {
        let item = usize::try_from(row.try_get::<i32, _>("item").map_err(applied)?).unwrap_or(usize::MAX);
        if let Some(slot) = held.get_mut(item) {
            *slot = row.try_get("held").map_err(applied)?;
        }
    }
    Ok(held.into_iter().map(Ok).collect())
}
