//! PostgreSQL.

use actornot_postgres::sqlx::postgres::{PgConnectOptions, PgConnection};
use actornot_postgres::sqlx::{self, AssertSqlSafe, ConnectOptions as _, Row as _};
use actornot_postgres::{PostgresConfig, PostgresQueue};
use actornot_testkit::servers::{self, Service};
use async_trait::async_trait;

use super::{Backend, PATIENCE, Place, Size, fresh_name};
use crate::Result;
use crate::raw::Writer;

pub(super) struct Postgres {
    url: String,
    /// Of rows that nobody reads.
    table: String,
}

impl Postgres {
    pub(super) async fn start() -> Result<Self> {
        let url = tokio::task::spawn_blocking(|| servers::url(Service::Postgres)).await?;
        let backend = Self { url, table: fresh_name() };
        let columns = "id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, payload text NOT NULL";
        let create = format!("CREATE TABLE {} ({columns})", backend.table);
        sqlx::query(AssertSqlSafe(create)).execute(&mut backend.connection().await?).await?;
        Ok(backend)
    }

    async fn connection(&self) -> Result<PgConnection> {
        Ok(self.url.parse::<PgConnectOptions>()?.connect().await?)
    }
}

pub(super) async fn open(place: &Place) -> Result<PostgresQueue> {
    let config = PostgresConfig::new(&place.url).namespace(&place.namespace).patience(PATIENCE);
    Ok(PostgresQueue::open(config).await?)
}

#[async_trait]
impl Backend for Postgres {
    async fn version(&self) -> Result<String> {
        let row = sqlx::query("SELECT current_setting('server_version')")
            .fetch_one(&mut self.connection().await?)
            .await?;
        Ok(format!("PostgreSQL {}", row.try_get::<String, _>(0)?))
    }

    fn place(&self) -> Place {
        Place { url: self.url.clone(), namespace: fresh_name() }
    }

    async fn fresh_database(&self) -> Result<String> {
        let name = fresh_name();
        let create = format!("CREATE DATABASE {name}");
        sqlx::query(AssertSqlSafe(create)).execute(&mut self.connection().await?).await?;
        let (server, _) = self.url.rsplit_once('/').ok_or("the URL names no database")?;
        Ok(format!("{server}/{name}"))
    }

    async fn writer(&self) -> Result<Box<dyn Writer>> {
        let insert = format!("INSERT INTO {} (payload) VALUES ($1)", self.table);
        Ok(Box::new(Inserts { connection: self.connection().await?, insert }))
    }

    async fn sizes(&self, place: &Place) -> Result<Vec<Size>> {
        let mut connection = self.connection().await?;
        // Statistics are written by each session when it has a moment.
        let tables = "SELECT relname || ' dead tuples' AS name, n_dead_tup::float8 AS value FROM pg_stat_user_tables
              WHERE schemaname = $1 AND n_live_tup + n_dead_tup > 0
            UNION ALL SELECT c.relname || CASE c.relkind WHEN 'i' THEN ' (index) MiB' ELSE ' MiB' END,
              pg_relation_size(c.oid) / 1048576.0::float8 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
              WHERE n.nspname = $1 AND c.relkind IN ('r', 'i') AND pg_relation_size(c.oid) > 65536
            ORDER BY 1";
        let rows = sqlx::query(tables).bind(&place.namespace).fetch_all(&mut connection).await?;
        rows.iter().map(|row| Ok(Size { name: row.try_get(0)?, value: row.try_get(1)? })).collect()
    }

    async fn asked(&self) -> Result<Option<u64>> {
        let asked =
            "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()";
        let row = sqlx::query(asked).fetch_one(&mut self.connection().await?).await?;
        Ok(Some(row.try_get::<i64, _>(0)?.try_into()?))
    }
}

struct Inserts {
    connection: PgConnection,
    insert: String,
}

#[async_trait]
impl Writer for Inserts {
    async fn write(&mut self, payload: &str) -> Result<()> {
        // Prepared once: the driver keeps it by its text.
        sqlx::query(AssertSqlSafe(self.insert.as_str())).bind(payload).execute(&mut self.connection).await?;
        Ok(())
    }
}
