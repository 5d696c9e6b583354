//! The raw limit: what a database does when it is asked for nothing but one durable message after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::Result;
use crate::backend::Backend;
use crate::latency::Latency;

/// One connection that writes rows, as durably as the adapter does.
#[async_trait]
pub(crate) trait Writer: Send {
    async fn write(&mut self, payload: &str) -> Result<()>;
}

/// Pool sizes that are tried: the best counts, for a weak baseline wins nothing.
pub(crate) const POOLS: [usize; 4] = [1, 4, 16, 64];

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Raw {
    pub(crate) pool: usize,
    pub(crate) rate: f64,
}

/// Writes a second, and the best of the pool sizes.
pub(crate) async fn limit(backend: &dyn Backend, time: Duration, payload: &str) -> Result<Raw> {
    let mut best = Raw { pool: 0, rate: 0.0 };
    for pool in POOLS {
        let rate = rate(backend, pool, time, payload).await?;
        if rate > best.rate {
            best = Raw { pool, rate };
        }
    }
    Ok(best)
}

async fn rate(backend: &dyn Backend, pool: usize, time: Duration, payload: &str) -> Result<f64> {
    let mut writers = Vec::new();
    for _ in 0..pool {
        let mut writer = backend.writer().await?;
        writer.write(payload).await?;
        writers.push(writer);
    }
    let written = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let mut tasks = JoinSet::<Result<()>>::new();
    for mut writer in writers {
        let (written, payload) = (written.clone(), payload.to_owned());
        tasks.spawn(async move {
            while began.elapsed() < time {
                writer.write(&payload).await?;
                written.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok(written.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64())
}

/// One writer, one write after the other.
pub(crate) async fn latency(backend: &dyn Backend, times: usize, payload: &str) -> Result<Latency> {
    let mut writer = backend.writer().await?;
    writer.write(payload).await?;
    let mut all = Vec::new();
    for _ in 0..times {
        let began = Instant::now();
        writer.write(payload).await?;
        all.push(began.elapsed());
    }
    Ok(Latency::of(&all))
}
