//! Extends leases on a connection of its own, while handlers and pools are stuck.

use actornot_core::{Error, Heartbeat, Lease};
use async_trait::async_trait;

use crate::config::Target;
use crate::connection::Server;
use crate::statements::Verb;
use crate::{error, lock};

/// A pool of one. A connection that broke is opened again by the next call.
pub(crate) struct PostgresHeartbeat {
    server: Server,
}

impl PostgresHeartbeat {
    /// Connects, so that who cannot be extended is known before anything is locked.
    pub(crate) async fn open(target: &Target) -> Result<Self, Error> {
        let server = Server::new(Target { connections: 1, ..target.clone() });
        server.begin().await?.commit().await?;
        Ok(Self { server })
    }
}

#[async_trait]
impl Heartbeat for PostgresHeartbeat {
    async fn extend_lock(&mut self, leases: &[Lease]) -> Vec<Result<bool, Error>> {
        if leases.is_empty() {
            return Vec::new();
        }
        let answer = lock::held(&self.server, Verb::ExtendLock, leases).await;
        match answer {
            // A row that somebody keeps locked costs no neighbour its lease.
            Err(error) if leases.len() > 1 && error::blames_some(&error) => self.one_by_one(leases).await,
            answer => crate::each(answer, leases.len()),
        }
    }
}

impl PostgresHeartbeat {
    async fn one_by_one(&self, leases: &[Lease]) -> Vec<Result<bool, Error>> {
        let mut answers = Vec::with_capacity(leases.len());
        for lease in leases {
            let answer = lock::held(&self.server, Verb::ExtendLock, std::slice::from_ref(lease)).await;
            answers.extend(crate::each(answer, 1));
        }
        answers
    }
}
