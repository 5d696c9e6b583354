//! Statements that travel together: each hand-over to the thread of a connection costs as much as a statement.

use std::future::poll_fn;

use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{Arguments as _, AssertSqlSafe, Either, Executor as _};

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
