use std::fmt;
use std::sync::Arc;

use crate::{Error, Limits};

/// The identity of one entity: which runner handles it, and which individual it is.
///
/// Two ids are equal only if both parts are equal byte for byte: `Alice` and `alice` are two entities on every
/// database.
///
/// ```
/// # use actornot_core::EntityId;
/// let alice = EntityId::new("counter", "alice")?;
/// assert_eq!(alice.to_string(), "counter/alice");
/// # Ok::<(), actornot_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntityId {
    kind: Arc<str>,
    key: Arc<str>,
}

impl EntityId {
    /// An id from its parts.
    ///
    /// `kind` is 1 to 64 bytes of `a-z 0-9 _ - .`, starting with a letter. `key` is 1 to 512 bytes of any UTF-8
    /// without NUL.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) or [`TooLarge`](crate::ErrorKind::TooLarge), naming the part.
    pub fn new(kind: impl Into<Arc<str>>, key: impl Into<Arc<str>>) -> Result<Self, Error> {
        let (kind, key) = (kind.into(), key.into());
        check_kind(&kind)?;
        if key.is_empty() {
            return Err(Error::invalid("key", "is empty"));
        }
        if key.len() > Limits::KEY_BYTES {
            return Err(Error::too_large("key", key.len(), Limits::KEY_BYTES));
        }
        if key.contains('\0') {
            return Err(Error::invalid("key", "contains NUL, which not every database can store"));
        }
        Ok(Self { kind, key })
    }

    /// The name of the runner that handles this entity.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The individual.
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// Checks the name of a kind, which adapters may use in places where no value can be bound.
pub(crate) fn check_kind(kind: &str) -> Result<(), Error> {
    if kind.len() > Limits::KIND_BYTES {
        return Err(Error::too_large("kind", kind.len(), Limits::KIND_BYTES));
    }
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-.".contains(c);
    if !kind.starts_with(|c: char| c.is_ascii_lowercase()) || !kind.chars().all(legal) {
        return Err(Error::invalid("kind", "must be a-z 0-9 _ - . and start with a letter"));
    }
    Ok(())
}

impl fmt::Display for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.key)
    }
}

impl fmt::Debug for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", format_args!("{self}"))
    }
}
