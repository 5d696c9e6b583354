//! The suite that every adapter passes, for each way in which this one is used.
#![allow(clippy::unwrap_used)] // Helpers outside test functions.

mod common;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use actornot_core::{EntityId, LockableQueue, MessageId};
use actornot_postgres::sqlx::{self, AssertSqlSafe, PgConnection};
use actornot_postgres::{PostgresConfig, PostgresQueue};
use actornot_testkit::Backend;
use actornot_testkit::crash::Shared;
use async_trait::async_trait;

use crate::common::{Namespace, detached, fresh, outside, pooler, server, sql};

/// How the database is reached.
#[derive(Clone, Copy)]
enum Way {
    Direct,
    Pooler,
    PoolOfOne,
    RunRole,
}

struct PostgresBackend {
    namespace: Namespace,
    way: Way,
    role: Option<String>,
}

impl PostgresBackend {
    async fn new(way: Way) -> Self {
        let namespace = Namespace::new();
        let mut role = None;
        if matches!(way, Way::RunRole) {
            PostgresQueue::install(namespace.config()).await.unwrap();
            let name = fresh("r");
            let grants = include_str!("../sql/roles.sql").replace("run_role", &name);
            let grants = grants.replace("\"actornot\"", &format!("\"{}\"", namespace.0));
            let mut db = outside().await;
            sql(&mut db, format!("CREATE ROLE {name} LOGIN; {grants}")).await;
            role = Some(name);
        }
        Self { namespace, way, role }
    }

    fn config(&self) -> PostgresConfig {
        let name = &self.namespace.0;
        match self.way {
            Way::Direct => PostgresConfig::new(server()).namespace(name),
            Way::Pooler => PostgresConfig::new(pooler()).namespace(name).transaction_pooler(true),
            Way::PoolOfOne => PostgresConfig::new(server()).namespace(name).connections(1),
            Way::RunRole => {
                let role = self.role.as_ref().unwrap();
                PostgresConfig::new(format!("{}?user={role}", server())).namespace(name).never_install()
            }
        }
    }

    /// Whatever was done until now, `wake` says what the rows say: each verb is one transaction.
    async fn wake_is_true(&self, db: &mut PgConnection) {
        let wrong = "SELECT count(*) FROM {s}.entity e FULL JOIN {s}.wake w ON w.entity = e.id
                     WHERE e.wake_at IS DISTINCT FROM w.at";
        let wrong = sqlx::query_scalar(AssertSqlSafe(wrong.replace("{s}", &self.namespace.0)));
        let wrong: i64 = wrong.fetch_one(db).await.unwrap();
        assert_eq!(wrong, 0, "rows whose `wake` is not theirs");
    }

    async fn run(&self, text: String, values: &[&str]) {
        let mut query = sqlx::query(AssertSqlSafe(text.replace("{s}", &self.namespace.0)));
        for value in values {
            query = query.bind(*value);
        }
        query.execute(&mut outside().await).await.unwrap();
    }
}

impl Drop for PostgresBackend {
    fn drop(&mut self) {
        if let Some(role) = &self.role {
            detached(format!("DROP OWNED BY {role}; DROP ROLE {role}"));
        }
    }
}

/// Every moment that is stored.
const MOMENTS: [(&str, &[&str]); 4] = [
    ("entity", &["deadline", "since", "delayed_at", "wait_until"]),
    ("wake", &["at"]),
    ("delayed", &["due_at"]),
    ("seen", &["expires"]),
];

#[async_trait]
impl Backend for PostgresBackend {
    async fn open(&self) -> Arc<dyn LockableQueue> {
        Arc::new(PostgresQueue::open(self.config()).await.unwrap())
    }

    async fn elapse(&self, time: Duration) {
        // The server finishes what a killed process had sent, and that must not come after the time that elapses.
        let mut db = outside().await;
        let left = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
        while sqlx::query_scalar::<_, i64>(left).bind(&self.namespace.0).fetch_one(&mut db).await.unwrap() > 0
        {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let mut all = String::from("BEGIN;");
        for (table, columns) in MOMENTS {
            let ms = time.as_millis();
            let moved: Vec<_> = columns
                .iter()
                .map(|column| format!("{column} = {column} - {ms} * interval '1 ms'"))
                .collect();
            all += &format!("UPDATE {}.{table} SET {};", self.namespace.0, moved.join(", "));
        }
        sql(&mut db, all + "COMMIT").await;
        self.wake_is_true(&mut db).await;
    }

    async fn corrupt_payload(&self, entity: &EntityId, id: &MessageId, payload: &str) {
        let text = "UPDATE {s}.message SET payloads[array_position(ids, $4)] = $3 WHERE $4 = ANY (ids)
                    AND entity = (SELECT id FROM {s}.entity WHERE kind = $1 AND key = $2)";
        self.run(text.into(), &[entity.kind(), entity.key(), payload, id.as_str()]).await;
    }

    async fn corrupt_state(&self, entity: &EntityId, json: &str) {
        let text = "UPDATE {s}.state SET json = $3
                    WHERE entity = (SELECT id FROM {s}.entity WHERE kind = $1 AND key = $2)";
        self.run(text.into(), &[entity.kind(), entity.key(), json]).await;
    }

    async fn corrupt_key(&self, entity: &EntityId, key: &str) {
        let text = "UPDATE {s}.entity SET key = $3 WHERE kind = $1 AND key = $2";
        self.run(text.into(), &[entity.kind(), entity.key(), key]).await;
    }

    async fn freeze(&self) -> Box<dyn Any + Send> {
        let mut db = outside().await;
        sql(&mut db, format!("BEGIN; LOCK TABLE {}.entity IN EXCLUSIVE MODE", self.namespace.0)).await;
        // The server rolls back when it is dropped.
        Box::new(db)
    }
}

#[async_trait]
impl Shared for PostgresBackend {
    fn address(&self) -> String {
        // Named, so that `elapse` can see when the server has noticed the end of a process.
        format!("{}?application_name={}", server(), self.namespace.0)
    }

    async fn attach(address: &str) -> Arc<dyn LockableQueue> {
        let (_, namespace) = address.rsplit_once('=').unwrap();
        Arc::new(PostgresQueue::open(PostgresConfig::new(address).namespace(namespace)).await.unwrap())
    }
}

async fn direct() -> PostgresBackend {
    PostgresBackend::new(Way::Direct).await
}

async fn pgbouncer_in_transaction_mode() -> PostgresBackend {
    PostgresBackend::new(Way::Pooler).await
}

async fn pool_of_one() -> PostgresBackend {
    PostgresBackend::new(Way::PoolOfOne).await
}

async fn run_role() -> PostgresBackend {
    PostgresBackend::new(Way::RunRole).await
}

mod direct {
    actornot_testkit::conformance!(real crate::direct);
}

mod pgbouncer_in_transaction_mode {
    actornot_testkit::conformance!(real crate::pgbouncer_in_transaction_mode);
}

mod pool_of_one {
    actornot_testkit::conformance!(real crate::pool_of_one);
}

mod run_role {
    actornot_testkit::conformance!(real crate::run_role);
}

actornot_testkit::crashes!(crate::direct, crate::PostgresBackend);
