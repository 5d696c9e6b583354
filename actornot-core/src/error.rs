use std::fmt;
use std::sync::Arc;

use crate::EntityId;

/// What went wrong, what to do about it, where, and why.
///
/// `Display` is one line and never holds a payload or a password. The cause, if there is one, is the
/// [`source`](std::error::Error::source).
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    retry: Retry,
    message: String,
    entity: Option<EntityId>,
    /// Another item of the same slice may be to blame.
    shared: bool,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// What kind of thing went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A value that can never be accepted.
    Invalid {
        /// The name of the offending value.
        field: &'static str,
    },
    /// A value over its limit; nothing was stored.
    TooLarge {
        /// The name of the offending value.
        field: &'static str,
        /// Its size in the limit's unit.
        size: u64,
        /// The limit it crossed.
        limit: u64,
    },
    /// The entity has as many messages pending as its limit allows; this one was not stored.
    BacklogFull {
        /// The most messages that may be pending.
        limit: u64,
    },
    /// The database cannot be reached, or is too busy, and nothing was applied.
    Unavailable,
    /// The call may or may not have been applied: no answer came in time, or the connection broke.
    UnknownOutcome,
    /// The database has no room left.
    StorageFull,
    /// The database refuses writes: a read-only file, a replica, a missing grant.
    ReadOnly,
    /// Wrong credentials, or a right that is missing.
    AccessDenied,
    /// The adapter does not have this capability.
    Unsupported,
    /// The call contradicts what is stored, for example acknowledges messages that were not handed out.
    Conflict,
    /// Stored bytes that do not decode.
    Corrupt,
    /// The database, its settings, or its schema cannot give what is promised.
    Incompatible,
    /// A call that cannot work where it is made; the message says what to do instead.
    Misuse,
    /// The mailbox was closed, or the runtime it was built on has ended.
    Closed,
}

/// What a caller may do after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retry {
    /// The same call will fail again.
    Never,
    /// Nothing was applied; the call may be made again.
    Safe,
    /// The outcome is unknown; the call may be made again with the same id, and is applied once.
    SameId,
}

impl Error {
    /// An error of any kind, with the advice that goes with the kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        use ErrorKind::*;
        let retry = match kind {
            Invalid { .. }
            | TooLarge { .. }
            | Unsupported
            | Conflict
            | Corrupt
            | Incompatible
            | Misuse
            | Closed => Retry::Never,
            AccessDenied | ReadOnly => Retry::Never,
            BacklogFull { .. } | Unavailable | StorageFull => Retry::Safe,
            UnknownOutcome => Retry::SameId,
        };
        Self(Box::new(Inner {
            kind,
            retry,
            message: message.into(),
            entity: None,
            shared: false,
            source: None,
        }))
    }

    /// A value that can never be accepted.
    pub fn invalid(field: &'static str, why: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Invalid { field }, format!("{field} {why}"))
    }

    /// A value over its limit.
    pub fn too_large(field: &'static str, size: usize, limit: usize) -> Self {
        let kind = ErrorKind::TooLarge { field, size: size as u64, limit: limit as u64 };
        Self::new(kind, format!("{field} is {size} bytes, the limit is {limit}"))
    }

    /// A call that cannot work where it is made.
    pub fn misuse(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Misuse, what)
    }

    /// A capability that the adapter does not have.
    pub fn unsupported(what: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Unsupported, format!("{what} is not supported by this adapter"))
    }

    /// The same error with other advice.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.0.retry = retry;
        self
    }

    /// The same error, naming the entity it happened to.
    #[must_use]
    pub fn with_entity(mut self, entity: &EntityId) -> Self {
        self.0.entity = Some(entity.clone());
        self
    }

    /// The same error with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.0.source = Some(Arc::new(source));
        self
    }

    /// What went wrong, in words, without the entity and the advice.
    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What may be done about it.
    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    /// The entity it happened to, where one is known.
    pub fn entity(&self) -> Option<&EntityId> {
        self.0.entity.as_ref()
    }

    /// One error for each of `n` items of a slice: for a call that failed as a whole.
    pub fn for_each<T>(&self, n: usize) -> Vec<Result<T, Error>> {
        (0..n).map(|_| Err(self.clone())).collect()
    }

    /// One error for each of `n` items of a slice: for a call that failed as a whole because of some of them, and nobody
    /// knows which.
    ///
    /// Nothing of the slice was applied. The loop makes the call again in smaller slices, so that it finds them and
    /// their neighbours pass.
    pub fn for_some_of<T>(&self, n: usize) -> Vec<Result<T, Error>> {
        self.clone().shared_by(n).for_each(n)
    }

    pub(crate) fn shared_by(mut self, n: usize) -> Self {
        self.0.shared = n > 1;
        self
    }

    /// Whether another item of the same slice may be to blame.
    pub(crate) fn is_shared(&self) -> bool {
        self.0.shared
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(entity) = &self.0.entity {
            write!(f, "{entity}: ")?;
        }
        f.write_str(&self.0.message)?;
        match self.0.retry {
            Retry::Never => Ok(()),
            Retry::Safe => f.write_str(" (nothing was applied, safe to retry)"),
            Retry::SameId => f.write_str(" (outcome unknown, retry with the same id)"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("kind", &self.0.kind).field("retry", &self.0.retry).field("message", &self.0.message);
        if let Some(entity) = &self.0.entity {
            out.field("entity", entity);
        }
        if let Some(source) = &self.0.source {
            out.field("source", source);
        }
        out.finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|source| &**source as _)
    }
}
