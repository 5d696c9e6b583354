//! What SQLite's errors mean for a caller.

use std::error::Error as _;
use std::path::Path;

use actornot_core::{Error, ErrorKind, Retry};

/// An error before COMMIT was sent: whatever it was, the transaction is rolled back and nothing was applied.
pub(crate) fn before_commit(error: sqlx::Error) -> Error {
    map(error, false)
}

/// An error of COMMIT itself, where an I/O error or a lost worker leaves open whether the commit record was written.
pub(crate) fn at_commit(error: sqlx::Error) -> Error {
    map(error, true)
}

/// An error of a file, by its name.
pub(crate) fn named(error: Error, path: &Path) -> Error {
    let advice = error.retry();
    // The advice comes once, behind the message.
    let message = error.clone().with_retry(Retry::Never).to_string();
    Error::new(error.kind(), format!("{}: {message}", path.display())).with_retry(advice).with_source(error)
}

/// An error of the first connection. A file that cannot be opened then was named wrongly, and stays so; later, the
/// same answer means that something happened to it.
pub(crate) fn at_open(error: Error, path: &Path) -> Error {
    let code = error.source().and_then(|cause| cause.downcast_ref()).and_then(primary_code);
    let error = match code {
        Some(14) => Error::new(
            ErrorKind::AccessDenied,
            "cannot be opened: does its directory exist, and may this user write there?",
        )
        .with_source(error),
        _ => error,
    };
    named(error, path)
}

/// Whether the error says that somebody else holds a lock.
pub(crate) fn is_busy(error: &sqlx::Error) -> bool {
    matches!(primary_code(error), Some(5 | 6))
}

/// SQLite's primary result code: the low byte of the extended one.
fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code = error.as_database_error()?.code()?;
    code.parse::<i32>().ok().map(|code| code & 0xff)
}

fn map(error: sqlx::Error, committing: bool) -> Error {
    let (kind, what) = match (primary_code(&error), &error) {
        (Some(5 | 6), _) => (ErrorKind::Unavailable, "another connection held SQLite's lock for too long"),
        (Some(13), _) => (ErrorKind::StorageFull, "the disk is full, or the database is at its page limit"),
        (Some(8), _) => (ErrorKind::ReadOnly, "the database file or its directory cannot be written"),
        (Some(3 | 23), _) => (ErrorKind::AccessDenied, "SQLite was denied access"),
        (Some(11 | 26), _) => (ErrorKind::Corrupt, "the database file is damaged, or is no SQLite database"),
        (Some(10), _) if committing => (ErrorKind::UnknownOutcome, "I/O error during COMMIT"),
        (Some(10), _) => (ErrorKind::Unavailable, "I/O error before COMMIT"),
        (Some(14), _) => (ErrorKind::Unavailable, "the database file cannot be opened"),
        (Some(7 | 15 | 9), _) => (ErrorKind::Unavailable, "SQLite could not go on"),
        (Some(18), _) => (ErrorKind::Invalid { field: "payload" }, "a value is longer than SQLite stores"),
        (Some(_), _) => {
            (ErrorKind::Incompatible, "SQLite refused a statement; were the tables changed by hand?")
        }
        (None, sqlx::Error::PoolTimedOut) => (ErrorKind::Unavailable, "all reading connections are in use"),
        (None, sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)) => {
            (ErrorKind::Corrupt, "a stored row does not decode")
        }
        (None, _) if committing => (ErrorKind::UnknownOutcome, "the connection was lost during COMMIT"),
        (None, _) => (ErrorKind::Unavailable, "the connection was lost"),
    };
    Error::new(kind, format!("{what}: {error}")).with_source(error)
}
