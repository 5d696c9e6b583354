//! What PostgreSQL's errors mean for a caller.

use actornot_core::{Error, ErrorKind, Retry};
use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// How far a call had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// Nothing that could be applied was sent: a lost connection changed nothing.
    Nothing,
    /// A statement that commits by itself, or COMMIT: a lost connection leaves open what became of it.
    Commit,
}

/// An error before anything that could be applied was sent.
pub(crate) fn before(error: sqlx::Error) -> Error {
    map(error, Sent::Nothing)
}

/// An error of an answer that does not decode, of a verb that reads.
pub(crate) fn answer(error: sqlx::Error) -> Error {
    map(error, Sent::Nothing)
}

/// An error of an answer that does not decode, of a verb that writes: it is done.
pub(crate) fn applied(error: sqlx::Error) -> Error {
    map(error, Sent::Commit)
}

/// An error of the place, by its name.
pub(crate) fn named(error: Error, place: &str) -> Error {
    let advice = error.retry();
    // The advice comes once, behind the message.
    let message = error.clone().with_retry(Retry::Never).to_string();
    Error::new(error.kind(), format!("{place}: {message}")).with_retry(advice).with_source(error)
}

/// What others did made the server refuse it, all of it; the next try may do better.
pub(crate) fn is_contention(error: &sqlx::Error) -> bool {
    matches!(database(error).map(PgDatabaseError::code), Some("40001" | "40P01"))
}

/// Whether a slice was refused, all of it, because of some of its items, and nobody knows which: an entity whose row is
/// locked, a value that cannot be stored, a damaged row.
pub(crate) fn blames_some(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    let code = source.and_then(|source| source.downcast_ref()).map(|Refused(code)| code.as_str());
    match error.kind() {
        ErrorKind::UnknownOutcome => false,
        ErrorKind::Invalid { field } => field == "slice",
        _ => matches!(code, Some("40001" | "40P01" | "55P03" | "57014" | "XX001" | "XX002")),
    }
}

/// An answer of the server after which the connection is as good as before. One that only reads is not: a new one may
/// lead to the primary.
pub(crate) fn is_answer(error: &sqlx::Error) -> bool {
    database(error).is_some_and(|error| error.severity() == PgSeverity::Error && error.code() != "25006")
}

fn database(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error()?.try_downcast_ref()
}

const POOLER: &str = "a prepared statement met another client's: is a pooler in transaction mode in between? \
                      set PostgresConfig::transaction_pooler(true)";

pub(crate) fn map(error: sqlx::Error, sent: Sent) -> Error {
    use ErrorKind::{AccessDenied, Corrupt, Incompatible, Invalid, ReadOnly, StorageFull, Unavailable};
    let lost = match sent {
        Sent::Nothing => Unavailable,
        Sent::Commit => ErrorKind::UnknownOutcome,
    };
    let Some(refused) = database(&error) else { return driver(error, lost) };
    let code = refused.code();
    let (kind, what) = match (code, code.get(..2).unwrap_or_default()) {
        ("AN001" | "42P05" | "26000", _) => (Incompatible, POOLER),
        ("08P01", _) if refused.message().contains("bind message") => (Incompatible, POOLER),
        ("08P01", _) if refused.message().contains("startup parameter") => (
            Incompatible,
            "the pooler in between takes no startup parameters; set PostgresConfig::transaction_pooler(true)",
        ),
        ("08P01", _) if refused.message().contains("authentication failed") => {
            (AccessDenied, "the pooler refused the user or the password")
        }
        ("25001", _) => (
            Incompatible,
            "the session's isolation is not READ COMMITTED, and something set it so on the way",
        ),
        ("25006", _) => (ReadOnly, "the server is a standby, or the role's transactions only read"),
        ("25P03" | "25P04", _) => (lost, "the server ended a transaction that took too long"),
        ("3D000", _) => (Incompatible, "there is no such database; create it, or correct the URL"),
        ("3F000" | "42P01" | "42883", _) => (
            Incompatible,
            "the tables or functions are missing; run PostgresQueue::install, or name the right namespace",
        ),
        ("42501", _) => (AccessDenied, "a grant is missing; see sql/roles.sql"),
        (_, "28") => (AccessDenied, "the server refused the user or the password"),
        ("53100", _) => (StorageFull, "the server's disk is full"),
        ("53200", _) => (Unavailable, "the server is out of memory"),
        ("53300", _) => (Unavailable, "the server has too many connections"),
        ("55P03", _) => (Unavailable, "another transaction held a lock for too long"),
        ("57014", _) => (Unavailable, "the statement was cancelled, by its time limit or by an operator"),
        (_, "40") if code != "40003" => (Unavailable, "the server could not order it among others"),
        ("57P01" | "57P02" | "57P03" | "57P05" | "40003", _) | (_, "08") => (lost, "the server went away"),
        ("XX001" | "XX002", _) => (Corrupt, "the server found damaged data"),
        (_, "22" | "23" | "54") => {
            (Invalid { field: "slice" }, "the server cannot store a value of the slice")
        }
        (_, "53" | "55" | "57" | "58") => (Unavailable, "the server could not go on"),
        _ => (Incompatible, "the server refused a statement; were the tables changed by hand?"),
    };
    // An error of the statement says that it was not applied; one that ends the session may have come after COMMIT.
    let ended = matches!(refused.severity(), PgSeverity::Fatal | PgSeverity::Panic);
    let kind = if ended && sent == Sent::Commit { lost } else { kind };
    // Neither its detail nor its context: they may repeat a payload.
    let text = match kind {
        Invalid { .. } => format!("{what} ({code})"),
        _ => format!("{what}: {} ({code})", refused.message()),
    };
    Error::new(kind, text).with_source(Refused(code.to_owned()))
}

/// An error that is not the server's.
fn driver(error: sqlx::Error, lost: ErrorKind) -> Error {
    use sqlx::Error::{ColumnDecode, ColumnNotFound, Configuration, Decode, Encode, Protocol, Tls};
    let (kind, what) = match &error {
        // The call was applied if it writes, whatever came of its answer.
        ColumnDecode { .. } | Decode(_) | ColumnNotFound(_) if lost == ErrorKind::UnknownOutcome => {
            (lost, "an answer does not decode")
        }
        ColumnDecode { .. } | Decode(_) => (ErrorKind::Corrupt, "a stored row does not decode"),
        ColumnNotFound(_) => (ErrorKind::Incompatible, POOLER),
        Configuration(_) => (ErrorKind::Invalid { field: "url" }, "the connection is not configured rightly"),
        Encode(_) => (ErrorKind::Invalid { field: "slice" }, "a value cannot be sent"),
        Tls(_) => (ErrorKind::Incompatible, "no TLS connection as the URL wants it"),
        Protocol(_) => (lost, "the server's answer was not understood"),
        _ => (lost, "the connection was lost"),
    };
    Error::new(kind, format!("{what}: {error}")).with_source(error)
}

/// The cause, without the detail of the server's answer, which may hold what was bound.
#[derive(Debug)]
pub(crate) struct Refused(String);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SQLSTATE {}", self.0)
    }
}

impl std::error::Error for Refused {}
