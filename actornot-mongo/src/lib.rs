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

use std::sync::{Arc, Mutex};

use actornot_core::{
    Capabilities, Commit, Due, DueQuery, Enqueue, Enqueued, Error, Grant, Heartbeat, Lease, LockableQueue,
    TryLock, Updated,
};
use async_trait::async_trait;
pub use config::MongoConfig;
pub use mongodb;
use mongodb::bson::Document;

use crate::config::Target;
use crate::connection::Connection;
use crate::heartbeat::MongoHeartbeat;
use crate::lock::Held;
use crate::row::Recent;

/// Queues, locks and states in a MongoDB replica set, or a standalone server.
///
/// Cheap to clone; clones share the connections.
#[derive(Clone)]
pub struct MongoQueue {
    inner: Arc<Inner>,
}

struct Inner {
    target: Target,
    connection: Connection,
    /// Where the search for messages that nobody was told of goes on, as a condition.
    swept: Mutex<Option<Document>>,
    held: Held,
    recent: Recent,
}

impl MongoQueue {
    /// Opens a database with the defaults of [`MongoConfig`], and creates its collections if they are missing.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    ///
    /// # Cancel safety
    /// As for [`open`](Self::open).
    ///
    /// # Round trips
    /// As for [`open`](Self::open).
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Self::open(MongoConfig::new(url)).await
    }

    /// Opens a database, and creates its collections if they are missing.
    ///
    /// Any number of processes may do this at the same moment.
    ///
    /// # Errors
    /// [`Invalid`](actornot_core::ErrorKind::Invalid) for a URL or a setting that is none;
    /// [`Incompatible`](actornot_core::ErrorKind::Incompatible) for settings that void durability, for a server
    /// before 6.0, and for collections of a newer version;
    /// [`AccessDenied`](actornot_core::ErrorKind::AccessDenied) for wrong credentials or a right that is missing;
    /// [`Unavailable`](actornot_core::ErrorKind::Unavailable) when there is no primary within the patience.
    ///
    /// # Cancel safety
    /// The collections were created or not.
    ///
    /// # Guarantees
    /// G1: every write is answered when a majority has it in its journal; settings of the server that void this were
    /// refused, or are unknown because the role may not read them.
    ///
    /// # Round trips
    /// About six.
    pub async fn open(config: MongoConfig) -> Result<Self, Error> {
        let install = config.clone().check().await?.install;
        Self::start(config, install).await
    }

    /// Creates or updates what is stored, and checks it: for a role that may create collections and indexes.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    ///
    /// # Cancel safety
    /// As for [`open`](Self::open).
    ///
    /// # Round trips
    /// As for [`open`](Self::open).
    pub async fn install(config: MongoConfig) -> Result<(), Error> {
        Self::start(config, true).await.map(|_| ())
    }

    async fn start(config: MongoConfig, install: bool) -> Result<Self, Error> {
        let target = config.check().await?;
        let connection = Connection::new(&target, target.connections)?;
        let swept = Mutex::new(None);
        let queue = Self {
            inner: Arc::new(Inner {
                target,
                connection,
                swept,
                held: Held::default(),
                recent: Recent::default(),
            }),
        };
        queue.refuse_unsafe().await?;
        let connection = &queue.inner.connection;
        if install {
            schema::install(connection).await?
        } else {
            schema::check(connection).await?
        }
        queue.try_guard().await?;
        Ok(queue)
    }
}

impl std::fmt::Debug for MongoQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let target = &self.inner.target;
        f.debug_struct("MongoQueue")
            .field("url", &target.shown)
            .field("database", &target.database)
            .field("namespace", &target.namespace)
            .finish_non_exhaustive()
    }
}

/// A failure of the whole call is repeated for each item.
fn each<T>(answer: Result<Vec<Result<T, Error>>, Error>, items: usize) -> Vec<Result<T, Error>> {
    answer.unwrap_or_else(|error| error.for_each(items))
}

#[async_trait]
impl LockableQueue for MongoQueue {
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
        self.commit_slice(commits).await
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
        let connection = Connection::new(&self.inner.target, 1)?;
        Ok(Box::new(MongoHeartbeat { connection }))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }
}
