//! The suite that every adapter passes, over several instances on one file.
#![allow(clippy::unwrap_used)] // Helpers outside test functions.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use actornot_core::{EntityId, LockableQueue, MessageId};
use actornot_sqlite::SqliteQueue;
use actornot_sqlite::sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use actornot_sqlite::sqlx::{self, ConnectOptions, Connection};
use actornot_testkit::Backend;
use actornot_testkit::crash::Shared;
use async_trait::async_trait;
use tempfile::TempDir;

struct SqliteBackend {
    dir: TempDir,
}

impl SqliteBackend {
    async fn outside(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.dir.path().join("test.db"));
        options.busy_timeout(Duration::from_secs(5)).connect().await.unwrap()
    }
}

/// Every moment that is stored.
const MOMENTS: [(&str, &[&str]); 3] = [
    ("actornot_entity", &["deadline", "since", "delayed_at", "wait_until", "wake_at"]),
    ("actornot_delayed", &["due_at"]),
    ("actornot_seen", &["expires"]),
];

#[async_trait]
impl Backend for SqliteBackend {
    async fn open(&self) -> Arc<dyn LockableQueue> {
        Self::attach(&self.address()).await
    }

    async fn elapse(&self, time: Duration) {
        let mut db = self.outside().await;
        let ms = i64::try_from(time.as_millis()).unwrap();
        let mut tx = db.begin_with("BEGIN IMMEDIATE").await.unwrap();
        for (table, columns) in MOMENTS {
            let moved: Vec<_> = columns.iter().map(|column| format!("{column} = {column} - {ms}")).collect();
            let text = format!("UPDATE {table} SET {}", moved.join(", "));
            sqlx::query(sqlx::AssertSqlSafe(text)).execute(&mut *tx).await.unwrap();
        }
        tx.commit().await.unwrap();
    }

    async fn corrupt_payload(&self, entity: &EntityId, id: &MessageId, payload: &str) {
        let text = "UPDATE actornot_message SET payload = ?3 WHERE id = ?4
                    AND entity = (SELECT id FROM actornot_entity WHERE kind = ?1 AND key = ?2)";
        let query = sqlx::query(text).bind(entity.kind().to_owned()).bind(entity.key().to_owned());
        let query = query.bind(payload.to_owned()).bind(id.to_string());
        query.execute(&mut self.outside().await).await.unwrap();
    }

    async fn corrupt_state(&self, entity: &EntityId, json: &str) {
        let text = "UPDATE actornot_state SET json = ?3
                    WHERE entity = (SELECT id FROM actornot_entity WHERE kind = ?1 AND key = ?2)";
        let query = sqlx::query(text).bind(entity.kind().to_owned()).bind(entity.key().to_owned());
        query.bind(json.to_owned()).execute(&mut self.outside().await).await.unwrap();
    }

    async fn corrupt_key(&self, entity: &EntityId, key: &str) {
        let text = "UPDATE actornot_entity SET key = ?3 WHERE kind = ?1 AND key = ?2";
        let query = sqlx::query(text).bind(entity.kind().to_owned()).bind(entity.key().to_owned());
        query.bind(key.to_owned()).execute(&mut self.outside().await).await.unwrap();
    }

    async fn freeze(&self) -> Box<dyn Any + Send> {
        let mut db = self.outside().await;
        sqlx::query("BEGIN IMMEDIATE").execute(&mut db).await.unwrap();
        // Its worker thread rolls back when it is dropped.
        Box::new(db)
    }
}

#[async_trait]
impl Shared for SqliteBackend {
    fn address(&self) -> String {
        format!("sqlite:{}", self.dir.path().join("test.db").display())
    }

    async fn attach(address: &str) -> Arc<dyn LockableQueue> {
        Arc::new(SqliteQueue::connect(address).await.unwrap())
    }
}

async fn backend() -> SqliteBackend {
    SqliteBackend { dir: TempDir::new().unwrap() }
}

mod several_processes_on_one_file {
    actornot_testkit::conformance!(real crate::backend);
}
actornot_testkit::crashes!(crate::backend, crate::SqliteBackend);
