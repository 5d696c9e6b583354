#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod codec;
mod commit;
mod config;
mod connection;
mod doctor;
mod due;
mod enqueue;
mod error;
mod heartbeat;
mod inspect;
mod lock;
mod row;
mod schema;
mod slice;
mod statements;
mod turn;
mod url;

use std::sync::Arc;

use actornot_core::{
    Capabilities, Commit, Due, DueQuery, Enqueue, Enqueued, Error, Grant, Heartbeat, Lease, LockableQueue,
    TryLock, Updated,
};
use async_trait::async_trait;
pub use config::PostgresConfig;
pub use sqlx;

use crate::connection::Server;
use crate::heartbeat::PostgresHeartbeat;

/// Queues, locks and states in one schema of a PostgreSQL database.
///
/// Cheap to clone; clones share the connections.
#[derive(Clone)]
pub struct PostgresQueue {
    server: Arc<Server>,
}

impl PostgresQueue {
    /// Opens a database with the defaults of [`PostgresConfig`], and installs what is missing.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    ///
    /// # Cancel safety
    /// As for [`open`](Self::open): installed or not; no connection stays open.
    ///
    /// # Round trips
    /// As for [`open`](Self::open).
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Self::open(PostgresConfig::new(url)).await
    }

    /// Connects, checks the settings that durability hangs on, and installs what is missing.
    ///
    /// Any number of processes may do this at the same moment.
    ///
    /// # Errors
    /// [`Invalid`](actornot_core::ErrorKind::Invalid) for a URL or a value that is none;
    /// [`Incompatible`](actornot_core::ErrorKind::Incompatible) for a database that does not exist, a server that is too
    /// old, settings that void durability, an installation that only newer versions may use, and a missing one that
    /// [`never_install`](PostgresConfig::never_install) keeps from being made;
    /// [`AccessDenied`](actornot_core::ErrorKind::AccessDenied) for a wrong password or a missing grant;
    /// [`ReadOnly`](actornot_core::ErrorKind::ReadOnly) for a standby;
    /// [`Unavailable`](actornot_core::ErrorKind::Unavailable) when the server was not reached within the patience.
    ///
    /// # Cancel safety
    /// Installed or not; no connection stays open.
    ///
    /// # Guarantees
    /// G1: `fsync`, `full_page_writes` and `synchronous_commit` are in force for this session, or this fails.
    ///
    /// # Round trips
    /// Those of a connection, and one transaction of about five; twice that when something is installed.
    pub async fn open(config: PostgresConfig) -> Result<Self, Error> {
        let queue = Self { server: Arc::new(Server::new(config.check()?)) };
        let install = !queue.server.target.never_install;
        queue.prepare(install).await.map_err(|error| queue.at_place(error))?;
        Ok(queue)
    }

    /// Installs what is missing and checks it, for a role that does nothing else; see `sql/roles.sql`.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    ///
    /// # Cancel safety
    /// Installed or not; no connection stays open.
    ///
    /// # Round trips
    /// As for [`open`](Self::open).
    pub async fn install(config: PostgresConfig) -> Result<(), Error> {
        let queue = Self { server: Arc::new(Server::new(config.check()?)) };
        queue.prepare(true).await.map_err(|error| queue.at_place(error))
    }

    async fn prepare(&self, install: bool) -> Result<(), Error> {
        doctor::check(&self.server).await?;
        schema::ensure(&self.server, install).await
    }

    /// Names the database, unless the error does already.
    fn at_place(&self, error: Error) -> Error {
        let place = &self.server.target.place;
        if error.to_string().starts_with(place) { error } else { error::named(error, place) }
    }
}

impl std::fmt::Debug for PostgresQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresQueue")
            .field("database", &self.server.target.place)
            .field("namespace", &self.server.target.namespace)
            .finish_non_exhaustive()
    }
}

/// A failure of the whole call is repeated for each item, which may or may not be to blame.
fn each<T>(answer: Result<Vec<Result<T, Error>>, Error>, items: usize) -> Vec<Result<T, Error>> {
    answer.unwrap_or_else(|error| match error::blames_some(&error) {
        true => error.for_some_of(items),
        false => error.for_each(items),
    })
}

#[async_trait]
impl LockableQueue for PostgresQueue {
    async fn enqueue(&self, items: &[Enqueue]) -> Vec<Result<Enqueued, Error>> {
        if items.is_empty() {
            return Vec::new();
        }
        each(self.enqueue_slice(items).await, items.len())
    }

    async fn try_lock(&self, items: &[TryLock]) -> Vec<Result<Option<Grant>, Error>> {
        if items.is_empty() {
            return Vec::new();
        }
        each(self.lock_slice(items).await, items.len())
    }

    async fn update_locked(&self, commits: &[Commit]) -> Vec<Result<Updated, Error>> {
        if commits.is_empty() {
            return Vec::new();
        }
        each(self.commit_slice(commits).await, commits.len())
    }

    async fn release(&self, leases: &[Lease]) -> Vec<Result<bool, Error>> {
        if leases.is_empty() {
            return Vec::new();
        }
        each(self.release_slice(leases).await, leases.len())
    }

    async fn due(&self, query: &DueQuery) -> Result<Due, Error> {
        self.find_due(query).await
    }

    async fn heartbeat(&self) -> Result<Box<dyn Heartbeat>, Error> {
        Ok(Box::new(PostgresHeartbeat::open(&self.server.target).await?))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }
}
