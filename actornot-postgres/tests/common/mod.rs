//! What the tests of this crate share.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)] // Each test binary uses its part.

use std::time::SystemTime;

use actornot_postgres::sqlx::postgres::{PgConnectOptions, PgConnection};
use actornot_postgres::sqlx::{self, ConnectOptions};
use actornot_postgres::{PostgresConfig, PostgresQueue};
#[allow(unused_imports)]
pub(crate) use actornot_testkit::items::*;
use actornot_testkit::servers::{self, Service};

/// The server that all tests share.
pub(crate) fn server() -> String {
    servers::url(Service::Postgres)
}

/// A PgBouncer in transaction mode in front of it.
pub(crate) fn pooler() -> String {
    servers::url(Service::PgBouncer)
}

/// A namespace of its own for one test: tests run in parallel processes.
pub(crate) fn fresh(prefix: &str) -> String {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() % 1_000_000_000_000;
    format!("{prefix}_{}_{now}_{}", std::process::id(), unique())
}

/// A schema that is dropped with it.
pub(crate) struct Namespace(pub(crate) String);

impl Namespace {
    pub(crate) fn new() -> Self {
        Self(fresh("t"))
    }

    pub(crate) fn config(&self) -> PostgresConfig {
        PostgresConfig::new(server()).namespace(&self.0)
    }

    pub(crate) async fn open(&self) -> PostgresQueue {
        PostgresQueue::open(self.config()).await.unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Connections of the test may hold it for a moment longer, in whatever runtime the test has.
        detached(format!("SET lock_timeout = '20s'; DROP SCHEMA IF EXISTS {} CASCADE", self.0));
    }
}

/// Runs a text on a connection of its own, outside of any runtime.
pub(crate) fn detached(text: String) {
    let ran = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut db = outside().await;
            sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(&mut db).await.map(drop)
        })
    });
    let ran = ran.join();
    assert!(std::thread::panicking() || matches!(ran, Ok(Ok(()))), "not dropped: {ran:?}");
}

pub(crate) async fn outside() -> PgConnection {
    connection(&server()).await
}

pub(crate) async fn connection(url: &str) -> PgConnection {
    let options: PgConnectOptions = url.parse().unwrap();
    options.connect().await.unwrap()
}

pub(crate) async fn sql(db: &mut PgConnection, text: impl Into<String>) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(text.into())).execute(db).await.unwrap();
}

pub(crate) async fn number(db: &mut PgConnection, text: &str) -> i64 {
    sqlx::query_scalar(sqlx::AssertSqlSafe(text.to_owned())).fetch_one(db).await.unwrap()
}

/// A role that is dropped with it.
pub(crate) struct Role(pub(crate) String);

impl Role {
    pub(crate) async fn new(settings: &str) -> Self {
        let name = fresh("r");
        sql(
            &mut outside().await,
            format!("CREATE ROLE {name} LOGIN SUPERUSER; {}", settings.replace("{r}", &name)),
        )
        .await;
        Self(name)
    }

    pub(crate) fn config(&self, namespace: &Namespace) -> PostgresConfig {
        PostgresConfig::new(format!("{}?user={}", server(), self.0)).namespace(&namespace.0)
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        detached(format!("REASSIGN OWNED BY {0} TO CURRENT_USER; DROP OWNED BY {0}; DROP ROLE {0}", self.0));
    }
}
