//! SQLite: a file in a folder of its own.

use actornot_sqlite::sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous,
};
use actornot_sqlite::sqlx::{self, ConnectOptions as _, Row as _};
use actornot_sqlite::{SqliteConfig, SqliteQueue};
use async_trait::async_trait;
use tempfile::TempDir;

use super::{Backend, PATIENCE, Place, Size, fresh_name};
use crate::Result;
use crate::raw::Writer;

pub(super) struct Sqlite {
    folder: TempDir,
}

impl Sqlite {
    pub(super) async fn start() -> Result<Self> {
        let backend = Self { folder: TempDir::new()? };
        let create = "CREATE TABLE raw (id INTEGER PRIMARY KEY, payload TEXT NOT NULL)";
        sqlx::query(create).execute(&mut backend.connection().await?).await?;
        Ok(backend)
    }

    async fn connection(&self) -> Result<SqliteConnection> {
        let options = SqliteConnectOptions::new()
            .filename(self.folder.path().join("raw.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(PATIENCE);
        Ok(options.connect().await?)
    }
}

pub(super) async fn open(place: &Place) -> Result<SqliteQueue> {
    Ok(SqliteQueue::open(SqliteConfig::new(&place.url).busy_timeout(PATIENCE)).await?)
}

#[async_trait]
impl Backend for Sqlite {
    async fn version(&self) -> Result<String> {
        let row = sqlx::query("SELECT sqlite_version()").fetch_one(&mut self.connection().await?).await?;
        Ok(format!("SQLite {}, WAL, synchronous FULL", row.try_get::<String, _>(0)?))
    }

    fn place(&self) -> Place {
        let namespace = fresh_name();
        Place { url: format!("sqlite:{}", self.folder.path().join(&namespace).display()), namespace }
    }

    async fn writer(&self) -> Result<Box<dyn Writer>> {
        Ok(Box::new(Inserts(self.connection().await?)))
    }

    async fn sizes(&self, place: &Place) -> Result<Vec<Size>> {
        let mut sizes = Vec::new();
        for (name, suffix) in [("file MiB", ""), ("WAL MiB", "-wal")] {
            let path = self.folder.path().join(format!("{}{suffix}", place.namespace));
            let bytes = std::fs::metadata(path).map_or(0, |file| file.len());
            sizes.push(Size { name: name.to_owned(), value: bytes as f64 / 1048576.0 });
        }
        Ok(sizes)
    }

    async fn asked(&self) -> Result<Option<u64>> {
        Ok(None)
    }
}

struct Inserts(SqliteConnection);

#[async_trait]
impl Writer for Inserts {
    async fn write(&mut self, payload: &str) -> Result<()> {
        sqlx::query("INSERT INTO raw (payload) VALUES (?1)").bind(payload).execute(&mut self.0).await?;
        Ok(())
    }
}
