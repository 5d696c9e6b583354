//! `sqlxmq`: an ordered channel for each key. A job is completed in the transaction that changes the state.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;

use actornot_bench::peer::{self, Peer};
use async_trait::async_trait;
use sqlx_old::PgPool;
use sqlx_old::postgres::PgPoolOptions;
use sqlxmq::{CurrentJob, JobBuilder, JobRunnerHandle, JobRunnerOptions};
use tokio::sync::{Mutex, watch};

use crate::Result;

pub(crate) struct Start;

struct Sqlxmq {
    pool: PgPool,
    handled: watch::Sender<u64>,
    runner: Mutex<JobRunnerHandle>,
}

/// The tables are to be created by SQL that the crate brings along in its sources.
fn migrations() -> Result<Vec<String>> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let told = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--manifest-path", manifest])
        .output()?;
    let told: serde_json::Value = serde_json::from_slice(&told.stdout)?;
    let packages = told["packages"].as_array().ok_or("cargo metadata names no packages")?;
    let manifest = packages
        .iter()
        .find(|package| package["name"] == "sqlxmq")
        .and_then(|package| package["manifest_path"].as_str());
    let folder = std::path::Path::new(manifest.ok_or("sqlxmq is no package of this workspace")?)
        .with_file_name("migrations");
    let mut files: Vec<_> =
        std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?.iter().map(|file| file.path()).collect();
    files.retain(|file| file.to_string_lossy().ends_with(".up.sql"));
    files.sort();
    files.iter().map(|file| Ok(std::fs::read_to_string(file)?)).collect()
}

async fn add(mut job: CurrentJob, handled: watch::Sender<u64>) -> Result<()> {
    let key: String = job.json()?.ok_or("a job without its key")?;
    let mut tx = job.pool().begin().await?;
    let add = "INSERT INTO total (key, value) VALUES ($1, 1) ON CONFLICT (key) DO UPDATE SET value = total.value + 1";
    sqlx_old::query(add).bind(key).execute(&mut *tx).await?;
    job.complete_with_transaction(tx).await?;
    handled.send_modify(|handled| *handled += 1);
    Ok(())
}

#[async_trait]
impl peer::Start for Start {
    fn name(&self) -> &'static str {
        "sqlxmq"
    }

    async fn start(&self, url: &str) -> Result<Arc<dyn Peer>> {
        let pool = PgPoolOptions::new().max_connections(20).connect(url).await?;
        for migration in migrations()? {
            sqlx_old::raw_sql(&migration).execute(&pool).await?;
        }
        sqlx_old::query("CREATE TABLE total (key text PRIMARY KEY, value bigint NOT NULL)")
            .execute(&pool)
            .await?;
        let handled = watch::Sender::new(0);
        let told = handled.clone();
        let runner = JobRunnerOptions::new(&pool, move |job| {
            let handled = told.clone();
            tokio::spawn(async move {
                if let Err(error) = add(job, handled).await {
                    eprintln!("sqlxmq: {error}");
                }
            });
        })
        .set_concurrency(16, 32)
        .run()
        .await?;
        Ok(Arc::new(Sqlxmq { pool, handled, runner: Mutex::new(runner) }))
    }
}

#[async_trait]
impl Peer for Sqlxmq {
    async fn post(&self, key: &str) -> Result<()> {
        let mut job = JobBuilder::new("add");
        job.set_channel_name("total").set_channel_args(key).set_ordered(true).set_json(key)?;
        // Two that join an ordered channel at the same moment are in each other's way; the crate says: try again.
        loop {
            match job.spawn(&self.pool).await {
                Err(error) if sqlxmq::should_retry(&error) => {}
                posted => return Ok(posted.map(|_| ())?),
            }
        }
    }

    fn handled(&self) -> watch::Receiver<u64> {
        self.handled.subscribe()
    }

    async fn states(&self) -> Result<BTreeMap<String, u64>> {
        let rows: Vec<(String, i64)> =
            sqlx_old::query_as("SELECT key, value FROM total").fetch_all(&self.pool).await?;
        rows.into_iter().map(|(key, value)| Ok((key, value.try_into()?))).collect()
    }

    async fn stop(&self) {
        self.runner.lock().await.stop().await;
    }
}
