use std::fmt;
use std::ops::Deref;

use crate::{EntityId, Headers, MessageId};

/// Messages to be handled in order. Iterate over it; it is never empty.
pub struct Batch<M> {
    deliveries: Vec<Delivery<M>>,
}

impl<M> Batch<M> {
    pub(crate) fn new(deliveries: Vec<Delivery<M>>) -> Self {
        Self { deliveries }
    }

    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.deliveries.len()
    }

    /// Always false; here because `len` is.
    pub fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
    }

    /// The messages in order, by reference.
    pub fn iter(&self) -> std::slice::Iter<'_, Delivery<M>> {
        self.deliveries.iter()
    }
}

impl<M> IntoIterator for Batch<M> {
    type Item = Delivery<M>;
    type IntoIter = std::vec::IntoIter<Delivery<M>>;

    fn into_iter(self) -> Self::IntoIter {
        self.deliveries.into_iter()
    }
}

impl<'a, M> IntoIterator for &'a Batch<M> {
    type Item = &'a Delivery<M>;
    type IntoIter = std::slice::Iter<'a, Delivery<M>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// One message, with what is known of its way. Derefs to the message.
pub struct Delivery<M> {
    pub(crate) message: M,
    pub(crate) id: MessageId,
    pub(crate) entity: EntityId,
    pub(crate) headers: Headers,
    pub(crate) attempt: u32,
}

impl<M> Delivery<M> {
    /// The message itself.
    pub fn into_inner(self) -> M {
        self.message
    }

    /// The id it was posted with.
    pub fn id(&self) -> &MessageId {
        &self.id
    }

    /// The headers it was posted with.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// 1 for the first time it is handed out, more after a failed or crashed run.
    ///
    /// Exact for the first message of a batch; the others tell 1 even if an earlier, larger batch held them.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The same for every attempt of this message, and for no other message of any entity: hand it to external
    /// systems that deduplicate. A message that is posted again with its id after the id's retention has the same one.
    pub fn idempotency_key(&self) -> String {
        // With the key's length, for keys and ids may hold slashes.
        format!("{}/{}/{}", self.entity.key().len(), self.entity, self.id)
    }
}

// Payloads and header values are the user's secrets: they never reach a log by way of Debug.
impl<M> fmt::Debug for Delivery<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("entity", &self.entity)
            .field("id", &self.id)
            .field("headers", &self.headers.len())
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

impl<M> fmt::Debug for Batch<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.deliveries).finish()
    }
}

impl<M> Deref for Delivery<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_ids_with_slashes_do_not_share_an_idempotency_key() {
        let key = |key: &str, id: &str| {
            let entity = EntityId::new("thing", key).unwrap();
            let id = MessageId::new(id).unwrap();
            Delivery { message: (), id, entity, headers: Headers::new(), attempt: 1 }.idempotency_key()
        };
        assert_ne!(key("b/c", "d"), key("b", "c/d"));
        assert_eq!(key("b", "c/d"), "1/thing/b/c/d");
    }
}
