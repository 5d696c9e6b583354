//! Whether the settings in force keep what is promised.

use actornot_core::{DurabilityReport, Error, Setting};

use crate::SqliteQueue;
use crate::error::before_commit;
use crate::statements;

impl SqliteQueue {
    /// Asks the connection that writes: it is the one whose settings count.
    pub(crate) async fn report(&self) -> Result<DurabilityReport, Error> {
        let mut tx = self.inner.writer.begin().await?;
        let db = tx.connection().await?;
        let version: String =
            sqlx::query_scalar(statements::GET_VERSION).fetch_one(&mut *db).await.map_err(before_commit)?;
        let mode: String = sqlx::query_scalar(statements::GET_JOURNAL_MODE)
            .fetch_one(&mut *db)
            .await
            .map_err(before_commit)?;
        let synchronous: i64 = sqlx::query_scalar(statements::GET_SYNCHRONOUS)
            .fetch_one(&mut *db)
            .await
            .map_err(before_commit)?;
        tx.commit().await?;

        let setting = |name: &str, value: String, voids: Option<&str>| Setting {
            name: name.to_owned(),
            value,
            voids: voids.map(str::to_owned),
        };
        let memory = self.inner.target.memory;
        let wal = (mode != "wal").then_some("G1: set PRAGMA journal_mode = WAL");
        let full = (synchronous < 2).then_some("G1: set PRAGMA synchronous = FULL");
        let file = memory.then_some("G1: the database ends with this process; name a file");
        let level = ["OFF", "NORMAL", "FULL", "EXTRA"].get(usize::try_from(synchronous).unwrap_or(0));
        Ok(DurabilityReport {
            server: format!("SQLite {version}"),
            settings: vec![
                setting("journal_mode", mode, wal),
                setting("synchronous", level.copied().unwrap_or("OFF").to_owned(), full),
                setting("busy_timeout", format!("{} ms", self.inner.target.busy_timeout.as_millis()), None),
                setting("file", self.inner.target.path().display().to_string(), file),
            ],
        })
    }
}
