//! The one connection that writes, and the transactions on it.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use actornot_core::{Error, ErrorKind};
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteConnection, SqlitePool, SqlitePoolOptions, SqliteRow,
};
use sqlx::{Arguments as _, AssertSqlSafe, ConnectOptions, Connection, Either, Executor as _};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::Instant;

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

    /// Connects with these options, and refuses settings under which a commit could be lost.
    async fn connect(target: &Target, first: SqliteConnectOptions) -> Result<Self, Error> {
        // SQLite waits on the connection's thread, for nobody once its caller has gone: we wait ourselves.
        let connection =
            connect(&first.busy_timeout(Duration::ZERO), target.memory, Deadline::after(target.busy_timeout))
                .await?;
        Ok(Self {
            options: target.options.clone().busy_timeout(Duration::ZERO),
            memory: target.memory,
            patience: target.busy_timeout,
            connection: Arc::new(Mutex::new(Some(connection))),
            line: Line::of(target),
        })
    }

    /// A transaction that holds SQLite's write lock from its first run on. One deadline covers all that it waits for.
    ///
    /// # Cancel safety
    /// Nothing is held: a transaction that was begun is dropped.
    pub(crate) async fn begin(&self) -> Result<Tx, Error> {
        let deadline = Deadline::after(self.patience);
        // A timer wakes a thread of the runtime: only for those who wait.
        let connection = match self.connection.clone().try_lock_owned() {
            Ok(connection) => connection,
            Err(_) => {
                let waiting = self.connection.clone().lock_owned();
                tokio::time::timeout_at(deadline.0, waiting).await.map_err(|_| {
                    Error::new(
                        ErrorKind::Unavailable,
                        "earlier calls of this process hold the writing connection",
                    )
                })?
            }
        };
        let turn = match &self.line {
            Some(line) => line.turn((deadline.left() / 2).min(Duration::from_secs(1))).await,
            None => None,
        };
        let mut tx =
            Tx { connection, open: false, begun: false, batch: Batch::default(), deadline, _turn: turn };
        if tx.connection.is_none() {
            let connecting = connect(&self.options, self.memory, deadline).await;
            *tx.connection =
                Some(connecting.map_err(|error| error::named(error, self.options.get_filename()))?);
        }
        tx.add(statements::BEGIN, [])?;
        Ok(tx)
    }
}

/// When a call answers at the latest.
#[derive(Clone, Copy)]
struct Deadline(Instant);

impl Deadline {
    /// Between two tries to get a lock that somebody else holds.
    const PAUSE: Duration = Duration::from_millis(5);

    fn after(patience: Duration) -> Self {
        Self(Instant::now() + patience)
    }

    fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Waits for the next try; `false` when there is none.
    async fn pause(self) -> bool {
        let again = self.left() > Self::PAUSE;
        if again {
            tokio::time::sleep(Self::PAUSE).await;
        }
        again
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
    begun: bool,
    batch: Batch,
    deadline: Deadline,
    _turn: Option<Turn>,
}

impl Tx {
    /// Adds a statement to those that go with the next run; its place among their answers.
    pub(crate) fn add<const N: usize>(
        &mut self,
        statement: &'static str,
        values: [Value; N],
    ) -> Result<usize, Error> {
        self.batch.add(statement, values).map_err(error::before_commit)
    }

    /// Runs what was added: one hand-over to the connection's thread.
    pub(crate) async fn run(&mut self) -> Result<Answers, Error> {
        self.send().await.map_err(|failed| error::before_commit(failed.error))
    }

    /// The connection, in the transaction.
    pub(crate) async fn connection(&mut self) -> Result<&mut SqliteConnection, Error> {
        if !self.batch.is_empty() {
            self.run().await?;
        }
        self.connection.as_mut().ok_or_else(|| error::before_commit(sqlx::Error::WorkerCrashed))
    }

    /// Runs what was added and makes all of it durable.
    pub(crate) async fn commit(mut self) -> Result<(), Error> {
        let last = self.add(statements::COMMIT, [])?;
        // A statement that fails ends the batch in front of COMMIT.
        self.send().await.map_err(|failed| match failed.place == last {
            true => error::at_commit(failed.error),
            false => error::before_commit(failed.error),
        })?;
        self.open = false;
        Ok(())
    }

    async fn send(&mut self) -> Result<Answers, Failed> {
        let batch = std::mem::take(&mut self.batch);
        loop {
            // Open before BEGIN is sent: whoever is dropped meanwhile must not leave it begun.
            self.open = true;
            let Some(connection) = self.connection.as_mut() else {
                return Err(Failed { place: 0, error: sqlx::Error::WorkerCrashed });
            };
            match batch.run(connection).await {
                Ok(answers) => {
                    self.begun = true;
                    return Ok(answers);
                }
                // A busy connection began nothing and is as good as before; any other goes with the transaction.
                Err(failed) if !self.begun && failed.place == 0 && error::is_busy(&failed.error) => {
                    self.open = false;
                    if !self.deadline.pause().await {
                        return Err(failed);
                    }
                }
                Err(failed) => return Err(failed),
            }
        }
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        if self.open {
            *self.connection = None;
        }
    }
}

/// What a `?` stands for; each stands for a value of its own, in their order.
pub(crate) enum Value {
    Number(i64),
    Text(String),
    Bytes(Vec<u8>),
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

/// Statements on their way. The first that fails is the last that runs.
#[derive(Default)]
pub(crate) struct Batch {
    sql: String,
    arguments: SqliteArguments,
    statements: usize,
}

/// What each statement answered.
pub(crate) struct Answers(Vec<Vec<SqliteRow>>);

/// Which statement failed.
pub(crate) struct Failed {
    pub(crate) place: usize,
    pub(crate) error: sqlx::Error,
}

impl Batch {
    /// Adds a statement; its place among the answers.
    pub(crate) fn add<const N: usize>(
        &mut self,
        statement: &'static str,
        values: [Value; N],
    ) -> Result<usize, sqlx::Error> {
        if self.statements > 0 {
            self.sql.push(';');
        }
        self.sql.push_str(statement);
        for value in values {
            let added = match value {
                Value::Number(number) => self.arguments.add(number),
                Value::Text(text) => self.arguments.add(text),
                Value::Bytes(bytes) => self.arguments.add(bytes),
            };
            added.map_err(sqlx::Error::Encode)?;
        }
        self.statements += 1;
        Ok(self.statements - 1)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.statements == 0
    }

    /// Runs all of them in one hand-over. It may be run again: nothing of it is used up.
    ///
    /// # Cancel safety
    /// The connection's thread may run any number of them.
    pub(crate) async fn run(&self, connection: &mut SqliteConnection) -> Result<Answers, Failed> {
        // Every text is a constant of `statements`.
        let query = sqlx::query_with(AssertSqlSafe(self.sql.clone()), self.arguments.clone());
        let mut stream = connection.fetch_many(query);
        let (mut answers, mut rows) = (Vec::with_capacity(self.statements), Vec::new());
        while let Some(step) = poll_fn(|cx| stream.as_mut().poll_next(cx)).await {
            match step {
                Ok(Either::Right(row)) => rows.push(row),
                Ok(Either::Left(_)) => answers.push(std::mem::take(&mut rows)),
                Err(error) => return Err(Failed { place: answers.len(), error }),
            }
        }
        if answers.len() < self.statements {
            // Nobody knows how far it came.
            return Err(Failed { place: self.statements - 1, error: sqlx::Error::WorkerCrashed });
        }
        Ok(Answers(answers))
    }
}

impl Answers {
    /// Of the statement in this place; none of one that was not sent.
    pub(crate) fn rows(&self, place: Option<usize>) -> &[SqliteRow] {
        place.and_then(|place| self.0.get(place)).map_or(&[], Vec::as_slice)
    }
}

/// Opens a connection, sets what durability hangs on, and reads it back.
async fn connect(
    options: &SqliteConnectOptions,
    memory: bool,
    deadline: Deadline,
) -> Result<SqliteConnection, Error> {
    loop {
        // Several processes that turn WAL on at the same moment get BUSY at once, whatever the timeout says.
        match try_connect(options, memory).await {
            Err(Refused::Sql(failed)) => {
                if !error::is_busy(&failed) || !deadline.pause().await {
                    return Err(error::before_commit(failed));
                }
            }
            Err(Refused::Unsafe(refused)) => return Err(refused),
            Ok(connection) => return Ok(connection),
        }
    }
}

enum Refused {
    Sql(sqlx::Error),
    Unsafe(Error),
}

impl From<sqlx::Error> for Refused {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

async fn try_connect(options: &SqliteConnectOptions, memory: bool) -> Result<SqliteConnection, Refused> {
    let mut connection = options.connect().await?;
    if memory {
        return Ok(connection);
    }
    let encoding: String = sqlx::query_scalar(statements::GET_ENCODING).fetch_one(&mut connection).await?;
    if encoding != "UTF-8" {
        let _ = connection.close().await;
        return Err(Refused::Unsafe(Error::new(
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
    sqlx::query(statements::SET_TEMP_STORE).execute(&mut connection).await?;
    let mode: String = sqlx::query_scalar(statements::GET_JOURNAL_MODE).fetch_one(&mut connection).await?;
    let synchronous: i64 = sqlx::query_scalar(statements::GET_SYNCHRONOUS).fetch_one(&mut connection).await?;
    if mode != "wal" || synchronous < 2 {
        let _ = connection.close().await;
        return Err(Refused::Unsafe(Error::new(
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
        // It waits for no writer, but opening a connection takes a moment however short the patience is.
        .acquire_timeout(target.busy_timeout.max(Duration::from_millis(100)))
        .test_before_acquire(false)
        .connect_lazy_with(target.options.clone().create_if_missing(false).pragma("query_only", "ON"))
}
