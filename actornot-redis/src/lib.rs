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
pub use config::RedisConfig;
pub use redis;
use redis::Value;

use crate::connection::Nodes;
use crate::heartbeat::RedisHeartbeat;
use crate::slice::{Call, Space};

/// Queues, locks and states in one Redis server, or in a cluster.
///
/// Cheap to clone; clones share the connections, one to each node. They live on the runtime of the call that opened
/// them, and are opened anew when that has ended.
#[derive(Clone)]
pub struct RedisQueue {
    inner: Arc<Inner>,
}

struct Inner {
    nodes: Nodes,
    space: Space,
}

impl RedisQueue {
    /// Opens the namespace `actornot` with the defaults of [`RedisConfig`], and installs it if it is missing.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    ///
    /// # Cancel safety
    /// As for [`open`](Self::open): the namespace was installed or not; no connection stays open.
    ///
    /// # Round trips
    /// As for [`open`](Self::open).
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Self::open(RedisConfig::new(url)).await
    }

    /// Opens a namespace, and installs it if it is missing.
    ///
    /// Any number of processes may do this at the same moment.
    ///
    /// # Errors
    /// [`Invalid`](actornot_core::ErrorKind::Invalid) for a URL or a value that is none;
    /// [`Incompatible`](actornot_core::ErrorKind::Incompatible) for a server before 7.0, for settings that void
    /// durability and were not allowed by name, for a namespace of a newer version or with another number of
    /// partitions, for a cluster that was not configured as one and the other way round;
    /// [`AccessDenied`](actornot_core::ErrorKind::AccessDenied) for wrong credentials or a missing right;
    /// [`ReadOnly`](actornot_core::ErrorKind::ReadOnly) for a replica;
    /// [`Unavailable`](actornot_core::ErrorKind::Unavailable) when no node answered within the patience.
    ///
    /// # Cancel safety
    /// The namespace was installed or not; no connection stays open.
    ///
    /// # Guarantees
    /// G1: every primary keeps an append-only file, waits for the disk, and evicts nothing, as it said itself, or this
    /// fails.
    ///
    /// # Round trips
    /// One connection to each node, one to three trips to each for its settings, two for the record of the namespace.
    pub async fn open(config: RedisConfig) -> Result<Self, Error> {
        let nodes = Nodes::new(config.check()?);
        doctor::check(&nodes).await?;
        let space = schema::ensure(&nodes).await?;
        Ok(Self { inner: Arc::new(Inner { nodes, space }) })
    }

    /// Installs a namespace and checks the settings, for a role that may: see `acl/install.acl`. Repeatable.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    ///
    /// # Cancel safety
    /// The namespace was installed or not.
    ///
    /// # Round trips
    /// As for [`open`](Self::open).
    pub async fn install(config: RedisConfig) -> Result<(), Error> {
        Self::open(config).await.map(|_| ())
    }

    /// One answer for each call, in order.
    async fn run(&self, calls: &[Call]) -> Vec<Result<Value, Error>> {
        self.inner.nodes.run(&self.inner.space, calls).await
    }

    /// One call, one answer.
    async fn run_one(&self, call: Call) -> Result<Value, Error> {
        let missing = || Err(error::lost("an answer is missing", false));
        self.run(&[call]).await.pop().unwrap_or_else(missing)
    }
}

impl std::fmt::Debug for RedisQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisQueue")
            .field("nodes", &self.inner.nodes.target.seeds)
            .field("namespace", &self.inner.space.namespace)
            .field("partitions", &self.inner.space.partitions)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl LockableQueue for RedisQueue {
    async fn enqueue(&self, items: &[Enqueue]) -> Vec<Result<Enqueued, Error>> {
        self.enqueue_slice(items).await
    }

    async fn try_lock(&self, items: &[TryLock]) -> Vec<Result<Option<Grant>, Error>> {
        self.lock_slice(items).await
    }

    async fn update_locked(&self, commits: &[Commit]) -> Vec<Result<Updated, Error>> {
        self.commit_slice(commits).await
    }

    async fn release(&self, leases: &[Lease]) -> Vec<Result<bool, Error>> {
        self.release_slice(leases).await
    }

    async fn due(&self, query: &DueQuery) -> Result<Due, Error> {
        self.find_due(query).await
    }

    async fn heartbeat(&self) -> Result<Box<dyn Heartbeat>, Error> {
        let nodes = self.inner.nodes.again();
        // Now, so that a missing right or a dead server is told to whoever asked.
        nodes.connect().await?;
        Ok(Box::new(RedisHeartbeat { nodes, space: self.inner.space.clone() }))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }
}
