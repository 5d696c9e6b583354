//! The databases, as the bench needs them: nothing else here knows which there are.

mod mongo;
mod postgres;
mod redis;
mod sqlite;

use std::sync::Arc;
use std::time::Duration;

use actornot_core::LockableQueue;
use async_trait::async_trait;
use serde::Serialize;

use crate::Result;
use crate::raw::Writer;

/// Which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Postgres,
    Mongo,
    Redis,
    Sqlite,
}

/// Where a queue is, so that several processes can open it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) url: String,
    pub(crate) namespace: String,
}

/// A figure of the server's own, such as the size of an index.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Size {
    pub(crate) name: String,
    pub(crate) value: f64,
}

/// For calls that wait behind 10,000 others, and for a server that is as busy as it can be.
const PATIENCE: Duration = Duration::from_secs(30);

/// One server.
#[async_trait]
pub(crate) trait Backend: Send + Sync {
    /// Its product and version.
    async fn version(&self) -> Result<String>;

    /// A place that nobody has used.
    fn place(&self) -> Place;

    /// The URL of an empty database, where there can be several on a server.
    async fn fresh_database(&self) -> Result<String> {
        Err("this backend has one database".into())
    }

    /// A connection that writes single rows by itself.
    async fn writer(&self) -> Result<Box<dyn Writer>>;

    /// Completes when the server is done with what it does behind what was measured before.
    async fn settled(&self) -> Result<()> {
        Ok(())
    }

    /// What the server holds of a place.
    async fn sizes(&self, place: &Place) -> Result<Vec<Size>>;

    /// What the server has been asked until now, of all its clients; `None` where there is no server.
    async fn asked(&self) -> Result<Option<u64>>;
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Postgres, Self::Mongo, Self::Redis, Self::Sqlite];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Mongo => "mongo",
            Self::Redis => "redis",
            Self::Sqlite => "sqlite",
        }
    }

    pub(crate) fn of(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| {
            format!("{name:?} is no backend; there are postgres, mongo, redis and sqlite").into()
        })
    }

    /// Finds its server, or starts one.
    pub(crate) async fn start(self) -> Result<Arc<dyn Backend>> {
        Ok(match self {
            Self::Postgres => Arc::new(postgres::Postgres::start().await?),
            Self::Mongo => Arc::new(mongo::Mongo::start().await?),
            Self::Redis => Arc::new(redis::Redis::start().await?),
            Self::Sqlite => Arc::new(sqlite::Sqlite::start().await?),
        })
    }

    /// Opens a queue as its users would, with no setting but where it is.
    pub(crate) async fn open(self, place: &Place) -> Result<Arc<dyn LockableQueue>> {
        Ok(match self {
            Self::Postgres => Arc::new(postgres::open(place).await?),
            Self::Mongo => Arc::new(mongo::open(place).await?),
            Self::Redis => Arc::new(redis::open(place).await?),
            Self::Sqlite => Arc::new(sqlite::open(place).await?),
        })
    }
}

/// Different for each place of this process, and for each process.
fn fresh_name() -> String {
    static LAST: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = LAST.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("bench_{}_{number}", std::process::id())
}
