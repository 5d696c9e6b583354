//! Redis, with appendfsync always.

use std::sync::{Mutex, PoisonError};

use actornot_redis::redis::aio::MultiplexedConnection;
use actornot_redis::redis::{AsyncConnectionConfig, Client, Script, cmd};
use actornot_redis::{RedisConfig, RedisQueue};
use actornot_testkit::servers::{self, Service};
use async_trait::async_trait;

use super::{Backend, PATIENCE, Place, Size, fresh_name};
use crate::Result;
use crate::raw::Writer;

pub(super) struct Redis {
    url: String,
    /// The keys of writers.
    written: Mutex<Vec<String>>,
}

impl Redis {
    pub(super) async fn start() -> Result<Self> {
        let url = tokio::task::spawn_blocking(|| servers::url(Service::Redis)).await?;
        Ok(Self { url, written: Mutex::default() })
    }

    async fn connection(&self) -> Result<MultiplexedConnection> {
        // The client's own half second is too short for a server that has just written its file anew.
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
        Ok(Client::open(self.url.as_str())?.get_multiplexed_async_connection_with_config(&config).await?)
    }

    /// A figure of the server's own account.
    async fn figure(&self, section: &str, name: &str) -> Result<f64> {
        let info: String = cmd("INFO").arg(section).query_async(&mut self.connection().await?).await?;
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Ok(line.ok_or_else(|| format!("INFO {section} has no {name}"))?.trim().parse()?)
    }
}

pub(super) async fn open(place: &Place) -> Result<RedisQueue> {
    let config = RedisConfig::new(&place.url).namespace(&place.namespace).patience(PATIENCE);
    Ok(RedisQueue::open(config).await?)
}

#[async_trait]
impl Backend for Redis {
    async fn version(&self) -> Result<String> {
        let info: String = cmd("INFO").arg("server").query_async(&mut self.connection().await?).await?;
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
        Ok(format!("Redis {}, appendfsync always", version.unwrap_or("of no version")))
    }

    fn place(&self) -> Place {
        Place { url: self.url.clone(), namespace: fresh_name() }
    }

    async fn writer(&self) -> Result<Box<dyn Writer>> {
        let key = fresh_name();
        self.written.lock().unwrap_or_else(PoisonError::into_inner).push(key.clone());
        // A short list, so that the raw limit does not fill the memory.
        let script = "redis.call('RPUSH', KEYS[1], ARGV[1]) redis.call('LTRIM', KEYS[1], -100, -1)";
        Ok(Box::new(Calls { connection: self.connection().await?, script: Script::new(script), key }))
    }

    async fn settled(&self) -> Result<()> {
        // A hundred rows of 64 KiB for each writer would lie in memory, and in each rewritten file, from then on.
        let written = std::mem::take(&mut *self.written.lock().unwrap_or_else(PoisonError::into_inner));
        if !written.is_empty() {
            let _: u64 = cmd("DEL").arg(written).query_async(&mut self.connection().await?).await?;
        }
        // It rewrites its append-only file when that has doubled, in a process of its own, on one of our cores.
        while self.figure("persistence", "aof_rewrite_in_progress").await? > 0.0
            || self.figure("persistence", "aof_rewrite_scheduled").await? > 0.0
        {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn sizes(&self, _: &Place) -> Result<Vec<Size>> {
        let memory = self.figure("memory", "used_memory").await? / 1048576.0;
        let mut connection = self.connection().await?;
        let keys: u64 = cmd("DBSIZE").query_async(&mut connection).await?;
        Ok(vec![
            Size { name: "memory MiB (of the server)".to_owned(), value: memory },
            Size { name: "keys (of the server)".to_owned(), value: keys as f64 },
        ])
    }

    async fn asked(&self) -> Result<Option<u64>> {
        Ok(Some(self.figure("stats", "total_commands_processed").await? as u64))
    }
}

struct Calls {
    connection: MultiplexedConnection,
    script: Script,
    key: String,
}

#[async_trait]
impl Writer for Calls {
    async fn write(&mut self, payload: &str) -> Result<()> {
        Ok(self.script.key(&self.key).arg(payload).invoke_async(&mut self.connection).await?)
    }
}
