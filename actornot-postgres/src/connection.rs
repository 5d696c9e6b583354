//! How a call reaches the server: one function, one statement.

use std::time::Duration;

use actornot_core::{Error, ErrorKind};
use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::{Arguments as _, AssertSqlSafe};
use tokio::time::timeout;

use crate::codec::millis;
use crate::config::Target;
use crate::error::{self, Sent};
use crate::statements::{self, Verb};
use crate::turn::{Deadline, Pool, Turn};

/// What a call binds, behind the verb's name and its patience. Borrowed: a call may be sent more than once.
pub(crate) enum Value<'a> {
    Text(&'a str),
    Number(i64),
    Flag(bool),
    Texts(Vec<&'a str>),
    Owned(Vec<String>),
    Maybe(Vec<Option<&'a str>>),
    /// No texts at all.
    Null,
    /// UUIDs, as text.
    Ids(Vec<Option<String>>),
    Numbers(Vec<i64>),
    MaybeNumbers(Vec<Option<i64>>),
    /// Of an item in another column, from 1.
    Places(Vec<i32>),
}

/// How long a call waits for a lock that others hold, or repeats what others made the server refuse.
///
/// Short, whatever the patience: the calls of a mailbox wait behind it, and core repeats it, with ever fewer neighbours.
const OTHERS: Duration = Duration::from_millis(500);

/// The way to one database, for one namespace.
pub(crate) struct Server {
    pub(crate) target: Target,
    pool: Pool,
}

impl Server {
    pub(crate) fn new(target: Target) -> Self {
        let pool = Pool::new(target.connections);
        Self { target, pool }
    }

    /// Calls a verb. Nothing is applied, or all of it; what the server refused because of others is repeated.
    pub(crate) async fn call(&self, verb: Verb, values: &[Value<'_>]) -> Result<Vec<PgRow>, Error> {
        let deadline = Deadline::after(self.target.patience);
        let mut others: Option<Deadline> = None;
        let mut pause = Duration::from_millis(2);
        loop {
            let mut turn = self.pool.turn(&self.target, deadline).await?;
            let arguments = self.arguments(verb, values).map_err(error::before)?;
            let sending = async {
                match self.target.transaction_pooler {
                    false => prepared(&mut turn.connection, self.target.texts.of(verb), arguments).await,
                    true => wrapped(&mut turn.connection, self.target.texts.of(verb), arguments).await,
                }
            };
            let Ok(sent) = timeout(self.longest(), sending).await else {
                self.pool.forget();
                // A read that went unanswered changed nothing.
                let kind = if verb.writes() { ErrorKind::UnknownOutcome } else { ErrorKind::Unavailable };
                return Err(error::named(
                    Error::new(kind, "the server did not answer in time"),
                    &self.target.place,
                ));
            };
            let Failed { error, sent, usable } = match sent {
                Ok(rows) => {
                    turn.done();
                    return Ok(rows);
                }
                Err(failed) => failed,
            };
            match usable {
                true => turn.done(),
                false => self.pool.forget(),
            }
            let others = *others.get_or_insert_with(|| Deadline::after(self.lock_timeout()));
            if !error::is_contention(&error) || !others.pause(pause).await {
                return Err(error::map(error, if verb.writes() { sent } else { Sent::Nothing }));
            }
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }

    /// A transaction for what is no verb: settings and installation.
    pub(crate) async fn begin(&self) -> Result<Tx, Error> {
        let mut turn = self.pool.turn(&self.target, Deadline::after(self.target.patience)).await?;
        let begun = timeout(self.longest(), simple(&mut turn.connection, statements::BEGIN)).await;
        begun.map_err(|_| late())?.map_err(error::before)?;
        Ok(Tx { turn, longest: self.longest() })
    }

    fn lock_timeout(&self) -> Duration {
        self.target.patience.min(OTHERS)
    }

    /// The server gives up waiting for a lock by itself; beyond this it does not answer at all.
    fn longest(&self) -> Duration {
        self.target.patience * 2 + Duration::from_secs(5)
    }

    fn arguments(&self, verb: Verb, values: &[Value<'_>]) -> Result<PgArguments, sqlx::Error> {
        let mut arguments = PgArguments::default();
        let mut add = || {
            arguments.add(verb.name())?;
            if verb.writes() {
                arguments.add(millis(self.lock_timeout()))?;
            }
            for value in values {
                match value {
                    Value::Text(text) => arguments.add(*text)?,
                    Value::Number(number) => arguments.add(*number)?,
                    Value::Flag(flag) => arguments.add(*flag)?,
                    Value::Texts(texts) => arguments.add(texts)?,
                    Value::Owned(texts) => arguments.add(texts)?,
                    Value::Null => arguments.add(None::<Vec<String>>)?,
                    Value::Maybe(texts) => arguments.add(texts)?,
                    Value::Ids(ids) => arguments.add(ids)?,
                    Value::Numbers(numbers) => arguments.add(numbers)?,
                    Value::MaybeNumbers(numbers) => arguments.add(numbers)?,
                    Value::Places(places) => arguments.add(places)?,
                }
            }
            Ok(())
        };
        add().map_err(sqlx::Error::Encode)?;
        Ok(arguments)
    }
}

type Text = std::sync::Arc<str>;

/// A statement that failed: how far it had come, and whether its connection may be used again.
struct Failed {
    error: sqlx::Error,
    sent: Sent,
    usable: bool,
}

impl Failed {
    fn new(error: sqlx::Error, sent: Sent) -> Self {
        let usable = error::is_answer(&error);
        Self { error, sent, usable }
    }
}

/// In autocommit, with a statement that the connection keeps prepared: one trip.
async fn prepared(
    connection: &mut PgConnection,
    text: Text,
    arguments: PgArguments,
) -> Result<Vec<PgRow>, Failed> {
    let query = sqlx::query_with(AssertSqlSafe(text), arguments);
    query.fetch_all(connection).await.map_err(|error| Failed::new(error, Sent::Commit))
}

/// The unnamed statement is prepared and executed in two trips, which only a transaction keeps on one server
/// connection behind a pooler.
async fn wrapped(
    connection: &mut PgConnection,
    text: Text,
    arguments: PgArguments,
) -> Result<Vec<PgRow>, Failed> {
    simple(connection, statements::BEGIN).await.map_err(|error| Failed::new(error, Sent::Nothing))?;
    let query = sqlx::query_with(AssertSqlSafe(text), arguments).persistent(false);
    match query.fetch_all(&mut *connection).await {
        Ok(rows) => {
            simple(connection, "COMMIT").await.map_err(|error| Failed::new(error, Sent::Commit))?;
            Ok(rows)
        }
        Err(error) => {
            // Without COMMIT nothing is applied. A connection that cannot roll back must not be used again.
            let mut failed = Failed::new(error, Sent::Nothing);
            failed.usable = failed.usable && simple(connection, "ROLLBACK").await.is_ok();
            Err(failed)
        }
    }
}

async fn simple(connection: &mut PgConnection, text: &'static str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(text).execute(connection).await.map(drop)
}

/// A transaction. Dropped before its commit was answered, it takes the connection with it.
pub(crate) struct Tx {
    turn: Turn,
    longest: Duration,
}

impl Tx {
    /// One statement, bound, never kept prepared.
    pub(crate) async fn fetch(&mut self, text: &'static str, texts: &[&str]) -> Result<Vec<PgRow>, Error> {
        let mut query = sqlx::query(text).persistent(false);
        for text in texts {
            query = query.bind((*text).to_owned());
        }
        let rows = timeout(self.longest, query.fetch_all(&mut self.turn.connection)).await;
        rows.map_err(|_| late())?.map_err(error::before)
    }

    /// One statement whose text names the schema.
    pub(crate) async fn fetch_text(&mut self, text: String) -> Result<Vec<PgRow>, Error> {
        let query = sqlx::query(AssertSqlSafe(text)).persistent(false);
        let rows = timeout(self.longest, query.fetch_all(&mut self.turn.connection)).await;
        rows.map_err(|_| late())?.map_err(error::before)
    }

    /// Many statements without values.
    pub(crate) async fn run(&mut self, text: String) -> Result<(), Error> {
        let query = sqlx::raw_sql(AssertSqlSafe(text));
        let ran = timeout(self.longest, query.execute(&mut self.turn.connection)).await;
        ran.map_err(|_| late())?.map(drop).map_err(error::before)
    }

    /// Makes it durable.
    pub(crate) async fn commit(mut self) -> Result<(), Error> {
        let committed = timeout(self.longest, simple(&mut self.turn.connection, "COMMIT")).await;
        let unknown = |_| Error::new(ErrorKind::UnknownOutcome, "the server did not answer COMMIT in time");
        committed.map_err(unknown)?.map_err(|failed| error::map(failed, Sent::Commit))?;
        self.turn.done();
        Ok(())
    }
}

fn late() -> Error {
    Error::new(ErrorKind::Unavailable, "the server did not answer in time")
}
