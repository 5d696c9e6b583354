//! Extends leases on a connection of its own, while handlers and pools are stuck.

use actornot_core::{Error, Heartbeat, Lease};
use async_trait::async_trait;

use crate::connection::Connection;
use crate::{lock, statements};

/// A client of its own, with one connection, which lives on the heartbeat's runtime.
pub(crate) struct MongoHeartbeat {
    pub(crate) connection: Connection,
}

#[async_trait]
impl Heartbeat for MongoHeartbeat {
    async fn extend_lock(&mut self, leases: &[Lease]) -> Vec<Result<bool, Error>> {
        if leases.is_empty() {
            return Vec::new();
        }
        let held = lock::held(&self.connection, leases, statements::extend).await;
        held.unwrap_or_else(|error| error.for_each(leases.len()))
    }
}
