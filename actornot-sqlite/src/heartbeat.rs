//! Extends leases on a connection of its own, while handlers and pools are stuck.

use std::sync::Arc;

use actornot_core::{Error, Heartbeat, Lease};
use async_trait::async_trait;

use crate::codec::millis;
use crate::connection::Writer;
use crate::slice::Slice;

/// Its turn is its own, apart from that of the calls of this handle: they may be many, and writers of other processes
/// would starve it. Behind a process that is stopped it waits once, for a moment.
pub(crate) struct SqliteHeartbeat {
    pub(crate) writer: Arc<Writer>,
}

impl SqliteHeartbeat {
    async fn extend(&self, leases: &[Lease]) -> Result<Vec<Result<bool, Error>>, Error> {
        let mut slice = Slice::load(&self.writer, leases.iter().map(|lease| &lease.entity).collect()).await?;
        let now = slice.now;
        let mut held = Vec::with_capacity(leases.len());
        for lease in leases {
            let row = slice.row(&lease.entity).filter(|row| row.is_held_by(lease.nonce));
            held.push(Ok(row.is_some()));
            if let Some(row) = row {
                row.deadline = Some(now.saturating_add(millis(lease.length)));
            }
        }
        slice.commit().await?;
        Ok(held)
    }
}

#[async_trait]
impl Heartbeat for SqliteHeartbeat {
    async fn extend_lock(&mut self, leases: &[Lease]) -> Vec<Result<bool, Error>> {
        if leases.is_empty() {
            return Vec::new();
        }
        self.extend(leases).await.unwrap_or_else(|error| error.for_each(leases.len()))
    }
}
