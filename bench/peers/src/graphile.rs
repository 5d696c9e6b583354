//! `graphile_worker`: a named queue for each key, whose jobs run one after the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actornot_bench::peer::{self, Peer};
use async_trait::async_trait;
use graphile_worker::worker_utils::WorkerUtils;
use graphile_worker::{IntoTaskHandlerResult, JobSpec, TaskHandler, WorkerContext, WorkerOptions};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::Result;

pub(crate) struct Start;

struct Graphile {
    utils: WorkerUtils,
    pool: PgPool,
    handled: watch::Sender<u64>,
    running: JoinHandle<()>,
}

#[derive(Clone, Debug)]
struct Handled(watch::Sender<u64>);

#[derive(Serialize, Deserialize)]
struct Add {
    key: String,
    delta: i64,
}

impl TaskHandler for Add {
    const IDENTIFIER: &'static str = "add";

    /// The job is completed behind this, in a transaction of its own: a crash in between adds twice.
    async fn run(self, ctx: WorkerContext) -> impl IntoTaskHandlerResult {
        let add = "INSERT INTO total (key, value) VALUES ($1, $2)
                   ON CONFLICT (key) DO UPDATE SET value = total.value + excluded.value";
        sqlx::query(add).bind(&self.key).bind(self.delta).execute(ctx.pg_pool()).await?;
        if let Some(Handled(handled)) = ctx.get_ext::<Handled>() {
            handled.send_modify(|handled| *handled += 1);
        }
        Ok::<(), sqlx::Error>(())
    }
}

#[async_trait]
impl peer::Start for Start {
    fn name(&self) -> &'static str {
        "graphile_worker"
    }

    async fn start(&self, url: &str) -> Result<Arc<dyn Peer>> {
        let pool = PgPoolOptions::new().max_connections(50).connect(url).await?;
        sqlx::query("CREATE TABLE total (key text PRIMARY KEY, value bigint NOT NULL)")
            .execute(&pool)
            .await?;
        let handled = watch::Sender::new(0);
        let worker = WorkerOptions::default()
            .concurrency(16)
            // Its fastest ways here. Without them a job whose queue was busy waits for the next poll, a second later.
            .local_queue(graphile_worker::LocalQueueConfig::default())
            .poll_interval(Duration::from_millis(20))
            .schema("graphile_worker")
            .define_job::<Add>()
            .add_extension(Handled(handled.clone()))
            .pg_pool(pool.clone())
            .listen_os_shutdown_signals(false)
            .init()
            .await?;
        let utils = worker.create_utils();
        let running = tokio::spawn(async move {
            if let Err(error) = worker.run().await {
                eprintln!("graphile_worker: {error}");
            }
        });
        Ok(Arc::new(Graphile { utils, pool, handled, running }))
    }
}

#[async_trait]
impl Peer for Graphile {
    async fn post(&self, key: &str) -> Result<()> {
        let spec = JobSpec { queue_name: Some(key.to_owned()), ..JobSpec::default() };
        self.utils.add_job(Add { key: key.to_owned(), delta: 1 }, spec).await?;
        Ok(())
    }

    fn handled(&self) -> watch::Receiver<u64> {
        self.handled.subscribe()
    }

    async fn states(&self) -> Result<BTreeMap<String, u64>> {
        let rows: Vec<(String, i64)> =
            sqlx::query_as("SELECT key, value FROM total").fetch_all(&self.pool).await?;
        rows.into_iter().map(|(key, value)| Ok((key, value.try_into()?))).collect()
    }

    async fn stop(&self) {
        self.running.abort();
    }
}
