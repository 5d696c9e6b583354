//! The one connection that writes, and the transactions on it.

use std::sync::Arc;
use std::time::Duration;

use actornot_core::{Error, ErrorKind};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePool, SqlitePoolOptions};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::config::Target;
use crate::turn::{Line, Turn};
use crate::{error, statements};

/// The writer: at most one transaction of this handle at a time.
pub(crate) struct Writer {
    options: SqliteConnectOptions,
    memory: bool,
    patience: Duration,
    connection: Arc<Mutex<Option<SqliteConnection>>>,
    line: Option<Line>,
}

impl Writer {
    /// Connects for the first time, and creates the file if it is missing and the URL allows that.
    pub(crate) async fn create(target: &Target) -> Result<Self, Error> {
        Self::connect(target, target.options.clone().create_if_missing(target.create)).await
    }

    /// Connects to a file that must be there: one that was deleted is not replaced by an empty one.
    pub(crate) async fn open(target: &Target) -> Result<Self, Error> {
        Self::connect(target, target.options.clone()).await
    }

    /// Connects, and refuses settings under which a commit could be lost.
    async fn connect(target: &Target, first: SqliteConnectOptions) -> Result<Self, Error> {
        let connection = connect(&first, target.memory, target.busy_timeout).await?;
        Ok(Self {
            options: target.options.clone(),
            memory: target.memory,
            patience: target.busy_timeout,
            connection: Arc::new(Mutex::new(Some(connection))),
            line: Line::of(target),
        })
    }

    /// Begins a transaction that holds SQLite's write lock.
    ///
    /// # Cancel safety
    /// Nothing is held: a transaction that was begun is dropped.
    pub(crate) async fn begin(&self) -> Result<Tx, Error> {
        let waiting = self.connection.clone().lock_owned();
        let connection = tokio::time::timeout(self.patience, waiting).await.map_err(|_| {
            Error::new(ErrorKind::Unavailable, "earlier calls of this process hold the writing connection")
        })?;
        let turn = match &self.line {
            Some(line) => line.turn((self.patience / 2).min(Duration::from_secs(1))).await,
            None => None,
        };
        // Open before BEGIN is sent: whoever is dropped while it waits for the lock must not leave it begun.
        let mut tx = Tx { connection, open: true, _turn: turn };
        if tx.connection.is_none() {
            let connecting = connect(&self.options, self.memory, self.patience).await;
            *tx.connection =
                Some(connecting.map_err(|error| error::named(error, self.options.get_filename()))?);
        }
        let begun = sqlx::query(statements::BEGIN).execute(tx.connection()?).await;
        if let Err(failed) = begun {
            // A busy connection began nothing and is as good as before; any other goes with the transaction.
            tx.open = !error::is_busy(&failed);
            return Err(error::before_commit(failed));
        }
        Ok(tx)
    }
}

/// A transaction. Dropped before its commit was answered, it takes the connection with it.
///
/// The worker thread of a dropped connection finishes what it was sent, then closes, and closing rolls back. So the
/// database ends up with all of the transaction or nothing, no matter where the caller was dropped or which error
/// SQLite answered (after some it has rolled back by itself, after others not), and the write lock is free again.
pub(crate) struct Tx {
    connection: OwnedMutexGuard<Option<SqliteConnection>>,
    open: bool,
    _turn: Option<Turn>,
}

impl Tx {
    pub(crate) fn connection(&mut self) -> Result<&mut SqliteConnection, Error> {
        self.connection.as_mut().ok_or_else(|| Error::new(ErrorKind::Unavailable, "the connection was lost"))
    }

    /// Makes it durable.
    pub(crate) async fn commit(mut self) -> Result<(), Error> {
        sqlx::query("COMMIT").execute(self.connection()?).await.map_err(error::at_commit)?;
        self.open = false;
        Ok(())
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        if self.open {
            *self.connection = None;
        }
    }
}

/// Opens a connection, sets what durability hangs on, and reads it back.
async fn connect(
    options: &SqliteConnectOptions,
    memory: bool,
    patience: Duration,
) -> Result<SqliteConnection, Error> {
    let until = tokio::time::Instant::now() + patience;
    loop {
        // Several processes that turn WAL on at the same moment get BUSY at once, whatever the timeout says.
        match try_connect(options, memory).await {
            Err(Failed::Sql(failed)) if error::is_busy(&failed) && tokio::time::Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(Failed::Sql(failed)) => return Err(error::before_commit(failed)),
            Err(Failed::Unsafe(refused)) => return Err(refused),
            Ok(connection) => return Ok(connection),
        }
    }
}

enum Failed {
    Sql(sqlx::Error),
    Unsafe(Error),
}

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

async fn try_connect(options: &SqliteConnectOptions, memory: bool) -> Result<SqliteConnection, Failed> {
    let mut connection = options.connect().await?;
    if memory {
        return Ok(connection);
    }
    let encoding: String = sqlx::query_scalar(statements::GET_ENCODING).fetch_one(&mut connection).await?;
    if encoding != "UTF-8" {
        let _ = connection.close().await;
        return Err(Failed::Unsafe(Error::new(
            ErrorKind::Incompatible,
            format!(
                "the database's encoding is {encoding}, which cannot be changed once it has tables, and payloads \
                 need UTF-8; use a file of its own"
            ),
        )));
    }
    let mode: String = sqlx::query_scalar(statements::GET_JOURNAL_MODE).fetch_one(&mut connection).await?;
    if mode != "wal" {
        sqlx::query(statements::SET_WAL).execute(&mut connection).await?;
    }
    sqlx::query(statements::SET_SYNCHRONOUS).execute(&mut connection).await?;
    let mode: String = sqlx::query_scalar(statements::GET_JOURNAL_MODE).fetch_one(&mut connection).await?;
    let synchronous: i64 = sqlx::query_scalar(statements::GET_SYNCHRONOUS).fetch_one(&mut connection).await?;
    if mode != "wal" || synchronous < 2 {
        let _ = connection.close().await;
        return Err(Failed::Unsafe(Error::new(
            ErrorKind::Incompatible,
            format!(
                "journal_mode is {mode} and synchronous is {synchronous} although WAL and FULL (2) were set, \
                 which voids G1; is the file on a network file system?"
            ),
        )));
    }
    Ok(connection)
}

/// Connections that only read, beside the writer: WAL lets them go on while it writes.
pub(crate) fn readers(target: &Target) -> SqlitePool {
    SqlitePoolOptions::new()
        .max_connections(target.readers)
        .acquire_timeout(target.busy_timeout)
        .test_before_acquire(false)
        .connect_lazy_with(target.options.clone().create_if_missing(false).pragma("query_only", "ON"))
}
