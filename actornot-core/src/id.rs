use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{Error, Limits};

/// The idempotency key of a message: the same id for the same entity is accepted once within its retention.
///
/// 1 to 256 bytes without NUL. Ids of different entities never meet.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(Arc<str>);

impl MessageId {
    /// An id given by the caller, for example a webhook's event id.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) or [`TooLarge`](crate::ErrorKind::TooLarge), naming `id`.
    pub fn new(id: impl Into<Arc<str>>) -> Result<Self, Error> {
        let id = id.into();
        if id.is_empty() {
            return Err(Error::invalid("id", "is empty"));
        }
        if id.len() > Limits::ID_BYTES {
            return Err(Error::too_large("id", id.len(), Limits::ID_BYTES));
        }
        if id.contains('\0') {
            return Err(Error::invalid("id", "contains NUL, which not every database can store"));
        }
        Ok(Self(id))
    }

    /// An id as it is stored, whatever was written there by hand: under another one it could never be settled.
    pub fn from_stored(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// An id made by this library: 96 random bits, behind the number of the ids that this process has made. So ids that
    /// are made one after the other stand together in an index, and a slice of them changes few of its pages. The
    /// number says nothing of order or age, and is not needed for the id to be the only one.
    pub fn from_random(bits: u128) -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        Self(format!("{number:08x}{:024x}", bits >> 32).into())
    }

    /// The text of the id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// Defines an id of 128 random bits that a client chooses, so that a call can be repeated and is applied once.
macro_rules! call_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(u128);

        impl $name {
            /// An id from 128 random bits.
            pub fn from_random(bits: u128) -> Self {
                Self(bits)
            }

            /// The id that [`Display`](fmt::Display) wrote, or `None` for any other text.
            pub fn parse(text: &str) -> Option<Self> {
                (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok().map(Self))?
            }
        }

        /// 32 hexadecimal digits: how adapters store it.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:032x})"), self.0)
            }
        }
    };
}

call_id! {
    /// Names one grant. A request for the lock that is repeated with the same nonce returns the same grant.
    Nonce
}

call_id! {
    /// Names one commit. A commit that is repeated with the same id is applied once.
    CommitId
}
