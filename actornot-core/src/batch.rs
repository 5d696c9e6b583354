use std::ops::Deref;

use crate::{EntityId, Headers, MessageId};

/// Messages to be handled in order. Iterate over it; it is never empty.
#[derive(Debug)]
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
#[derive(Debug)]
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

impl<M> Deref for Delivery<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.message
    }
}
