//! What Redis's errors mean for a caller.

use actornot_core::{Error, ErrorKind};
use redis::{RedisError, ServerError};

/// What a refusal asks of the one who sent the call. Redis refuses before a script runs, so nothing was applied.
pub(crate) enum Refusal {
    /// The server does not know the script: send its text.
    Unknown,
    /// Another node owns the slot now.
    Moved,
    /// Keys of several partitions may not meet in one command.
    Apart(Error),
    /// Passes by itself: a slot on its way, a node that loads or that has not found its cluster yet.
    Passing(Error),
    /// Stays.
    Final(Error),
}

pub(crate) fn refusal(error: &ServerError) -> Refusal {
    let code = error.code();
    let details = error.details().unwrap_or_default();
    let of = |kind, what: &str| Error::new(kind, format!("{what}: {code} {details}"));
    match code {
        "NOSCRIPT" => Refusal::Unknown,
        "MOVED" => Refusal::Moved,
        "ASK" | "TRYAGAIN" => {
            Refusal::Passing(of(ErrorKind::Unavailable, "the slot is moving to another node"))
        }
        "CLUSTERDOWN" | "MASTERDOWN" => Refusal::Passing(of(ErrorKind::Unavailable, "the cluster is down")),
        "LOADING" => Refusal::Passing(of(ErrorKind::Unavailable, "the server is loading its data")),
        "CONFLICT" => Refusal::Final(Error::new(ErrorKind::Conflict, details.to_owned())),
        "BUSY" => Refusal::Final(of(ErrorKind::Unavailable, "another script occupies the server")),
        "NOREPLICAS" => Refusal::Final(of(ErrorKind::Unavailable, "too few replicas are connected")),
        "OOM" => Refusal::Final(of(ErrorKind::StorageFull, "the server's memory is full")),
        "MISCONF" => Refusal::Final(of(ErrorKind::StorageFull, "the server cannot write to its disk")),
        "READONLY" => Refusal::Final(of(ErrorKind::ReadOnly, "the server is a replica")),
        "NOAUTH" | "WRONGPASS" => Refusal::Final(of(ErrorKind::AccessDenied, "wrong credentials")),
        "NOPERM" => Refusal::Final(of(ErrorKind::AccessDenied, "a right is missing")),
        "CROSSSLOT" => Refusal::Apart(of(ErrorKind::Incompatible, "keys lie in several slots")),
        "WRONGTYPE" => Refusal::Final(Error::new(ErrorKind::Corrupt, "a stored key is not of its type")),
        // The text of an error inside a script may quote what is stored.
        _ => Refusal::Final(Error::new(
            ErrorKind::Corrupt,
            format!("Redis refused a call ({code}); were keys changed by hand?"),
        )),
    }
}

/// An error before a call was sent.
pub(crate) fn connecting(error: &RedisError, address: &str) -> Error {
    use redis::{ErrorKind as Kind, ServerErrorKind as Server};
    let code = error.code().unwrap_or_default();
    let (kind, what) = match error.kind() {
        Kind::AuthenticationFailed => (ErrorKind::AccessDenied, "wrong credentials"),
        Kind::Server(Server::NoPerm) => (ErrorKind::AccessDenied, "a right is missing"),
        Kind::InvalidClientConfig => (ErrorKind::Invalid { field: "url" }, "cannot be used to connect"),
        Kind::Server(Server::ResponseError)
            if error.detail().is_some_and(|why| why.contains("out of range")) =>
        {
            (ErrorKind::Invalid { field: "url" }, "url names a database number that the server does not have")
        }
        _ if code == "NOAUTH" || code == "WRONGPASS" => (ErrorKind::AccessDenied, "wrong credentials"),
        _ => (ErrorKind::Unavailable, "cannot connect"),
    };
    // What the server says may repeat the command that it did not like, with the password.
    let cause = if error.is_io_error() { error.to_string() } else { error.category().to_owned() };
    Error::new(kind, format!("{address}: {what}: {cause}"))
}

/// The bytes may have left, and no answer came.
pub(crate) fn lost(what: &str, reads: bool) -> Error {
    let kind = if reads { ErrorKind::Unavailable } else { ErrorKind::UnknownOutcome };
    Error::new(kind, what.to_owned())
}

pub(crate) fn incompatible(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Incompatible, what)
}
