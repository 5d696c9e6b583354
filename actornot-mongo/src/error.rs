//! What the driver's and the server's errors mean for a caller.

use actornot_core::{Error, ErrorKind, Retry};
use mongodb::error::ErrorKind as Driver;

/// What was under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    /// Nothing can have been applied.
    Read,
    /// One statement: refused at its entry means that nothing was applied.
    One,
    /// Several statements: a part may have been applied before the server refused.
    Many,
}

/// A failed command.
pub(crate) fn map(error: &mongodb::error::Error, doing: Doing) -> Error {
    let unknown = match doing {
        Doing::Read => ErrorKind::Unavailable,
        _ => ErrorKind::UnknownOutcome,
    };
    let (kind, what) = match &*error.kind {
        Driver::ServerSelection { message, .. } if is_denied(message) => {
            (ErrorKind::AccessDenied, "MongoDB refused the credentials")
        }
        Driver::ServerSelection { .. } => (ErrorKind::Unavailable, "MongoDB cannot be reached"),
        Driver::ConnectionPoolCleared { .. } => {
            (ErrorKind::Unavailable, "the connection to MongoDB could not be made")
        }
        Driver::DnsResolve { .. } => {
            (ErrorKind::Unavailable, "the name of the MongoDB server cannot be resolved")
        }
        Driver::Authentication { .. } => (ErrorKind::AccessDenied, "MongoDB refused the credentials"),
        Driver::InvalidArgument { .. } | Driver::InvalidTlsConfig { .. } => {
            (ErrorKind::Invalid { field: "url" }, "MongoDB's driver refused the settings")
        }
        Driver::Command(command) => return of_code(command.code, &command.message, doing),
        Driver::BsonSerialization(_) => {
            (ErrorKind::Invalid { field: "payload" }, "a value cannot be written as BSON")
        }
        Driver::Io(_) => (unknown, "the connection to MongoDB was lost"),
        _ => (unknown, "MongoDB's driver failed"),
    };
    // The driver's text may repeat what was sent.
    let text = match &*error.kind {
        Driver::Io(io) => io.to_string(),
        Driver::ServerSelection { message, .. } => message.clone(),
        Driver::ConnectionPoolCleared { message, .. } => message.clone(),
        Driver::DnsResolve { message, .. } => message.clone(),
        Driver::Authentication { message, .. } => message.clone(),
        Driver::InvalidArgument { message, .. } => message.clone(),
        _ => String::new(),
    };
    let colon = if text.is_empty() { "" } else { ": " };
    Error::new(kind, format!("{what}{colon}{text}"))
}

fn is_denied(message: &str) -> bool {
    message.contains("Authentication failed") || message.contains("SCRAM failure")
}

/// An error with the server's number.
pub(crate) fn of_code(code: i32, message: &str, doing: Doing) -> Error {
    let unknown = match doing {
        Doing::Read => ErrorKind::Unavailable,
        _ => ErrorKind::UnknownOutcome,
    };
    // A server's text may quote a document, thus a payload; a refusal of a command as such cannot.
    let (kind, what, text) = match code {
        // Behind that, the server repeats the command, payloads included.
        13 => (
            ErrorKind::AccessDenied,
            "MongoDB's role lacks a right",
            message.split(" to execute command").next().unwrap_or_default(),
        ),
        18 => (ErrorKind::AccessDenied, "MongoDB refused the credentials", message),
        14031 => (ErrorKind::StorageFull, "MongoDB's disk is full", ""),
        10334 | 17419 | 17420 => (
            ErrorKind::TooLarge { field: "entity", size: 0, limit: 16 << 20 },
            "an entity with its state and its sends does not fit into the 16 MB of a MongoDB document",
            "",
        ),
        // Refused at the door: another member is the primary.
        10107 | 13435 | 10058 if doing != Doing::Many => {
            (ErrorKind::Unavailable, "this MongoDB server is not the primary", "")
        }
        10107 | 13435 | 13436 | 10058 | 189 | 91 | 11600 | 11602 => {
            (unknown, "MongoDB is changing its primary, or shutting down", "")
        }
        50 | 262 | 11601 => (unknown, "MongoDB gave up on the command", ""),
        _ if doing == Doing::Read => (ErrorKind::Incompatible, "MongoDB refused a read", ""),
        _ => (unknown, "MongoDB refused a write", ""),
    };
    let colon = if text.is_empty() { "" } else { ": " };
    Error::new(kind, format!("{what} (code {code}){colon}{text}"))
}

/// An error behind a write of the same verb that was applied: the verb as a whole is neither done nor not done.
pub(crate) fn after_write(error: Error) -> Error {
    if error.retry() != Retry::Safe {
        return error;
    }
    let text = error.clone().with_retry(Retry::Never).to_string();
    Error::new(ErrorKind::UnknownOutcome, text)
}
