#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

/// The first program of the project's README, compiled as it stands there.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

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
pub use config::SqliteConfig;
pub use sqlx;
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteConnection, SqlitePool, SqliteRow};

use crate::config::Target;
use crate::connection::Writer;
use crate::heartbeat::SqliteHeartbeat;

/// Queues, locks and states in one SQLite file, for the processes of one machine.
///
/// Cheap to clone; clones share the connections.
#[derive(Clone)]
pub struct SqliteQueue {
    inner: Arc<Inner>,
}

struct Inner {
    target: Target,
    writer: Arc<Writer>,
    readers: SqlitePool,
    /// An in-memory database lives as long as a connection to it.
    _keep: Option<Mutex<SqliteConnection>>,
}

impl SqliteQueue {
    /// Opens a database file with the defaults of [`SqliteConfig`], and creates it if it is missing.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    ///
    /// # Cancel safety
    /// As for [`open`](Self::open): the tables were created or not; no connection stays open.
    ///
    /// # Round trips
    /// As for [`open`](Self::open).
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Self::open(SqliteConfig::new(url)).await
    }

    /// Opens a database file, and creates it and its tables if they are missing.
    ///
    /// Any number of processes may do this at the same moment.
    ///
    /// # Errors
    /// [`Invalid`](actornot_core::ErrorKind::Invalid) for a URL that is none;
    /// [`Incompatible`](actornot_core::ErrorKind::Incompatible) for settings that void durability, for an encoding
    /// that is not UTF-8, and for tables of a newer version;
    /// [`AccessDenied`](actornot_core::ErrorKind::AccessDenied) when the file cannot be opened;
    /// [`ReadOnly`](actornot_core::ErrorKind::ReadOnly) when it cannot be written;
    /// [`Unavailable`](actornot_core::ErrorKind::Unavailable) when others kept it locked for too long.
    ///
    /// # Cancel safety
    /// The tables were created or not; no connection stays open.
    ///
    /// # Guarantees
    /// G1: WAL, `synchronous = FULL` and UTF-8 are in force, as they were read back, or this fails. An existing file
    /// keeps whatever it holds.
    ///
    /// # Round trips
    /// One connection, its settings, one transaction. SQLite is in this process: a trip is a call on the
    /// connection's thread, and only the commit waits for the disk. Connections that read are opened by the first read.
    pub async fn open(config: SqliteConfig) -> Result<Self, Error> {
        let target = config.check()?;
        let path = target.path.clone();
        Self::open_target(target).await.map_err(|error| error::at_open(error, &path))
    }

    async fn open_target(target: Target) -> Result<Self, Error> {
        let keep = match target.memory {
            true => Some(Mutex::new(
                sqlx::ConnectOptions::connect(&target.options).await.map_err(error::before_commit)?,
            )),
            false => None,
        };
        let writer = Arc::new(Writer::create(&target).await?);
        schema::ensure(&writer).await?;
        let readers = connection::readers(&target);
        Ok(Self { inner: Arc::new(Inner { target, writer, readers, _keep: keep }) })
    }

    /// Reads without any lock; an in-memory database has one connection only.
    async fn fetch(&self, query: Query<'_, Sqlite, SqliteArguments>) -> Result<Vec<SqliteRow>, Error> {
        if !self.inner.target.memory {
            return query.fetch_all(&self.inner.readers).await.map_err(error::before_commit);
        }
        let mut tx = self.inner.writer.begin().await?;
        let rows = query.fetch_all(tx.connection().await?).await.map_err(error::before_commit)?;
        tx.commit().await?;
        Ok(rows)
    }
}

impl std::fmt::Debug for SqliteQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteQueue").field("file", &self.inner.target.path()).finish_non_exhaustive()
    }
}

/// A failure of the whole call is repeated for each item.
fn each<T>(answer: Result<Vec<Result<T, Error>>, Error>, items: usize) -> Vec<Result<T, Error>> {
    answer.unwrap_or_else(|error| error.for_each(items))
}

#[async_trait]
impl LockableQueue for SqliteQueue {
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
        let writer = match self.inner.target.memory {
            true => self.inner.writer.clone(),
            false => Arc::new(
                Writer::open(&self.inner.target)
                    .await
                    .map_err(|error| error::named(error, &self.inner.target.path))?,
            ),
        };
        Ok(Box::new(SqliteHeartbeat { writer }))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }
}
