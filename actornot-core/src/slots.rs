//! "This process already runs that entity": trap 1 of the design, in process.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::EntityId;

/// The entities that this process locks, runs, or has queued up to lock.
///
/// A post to an entity with a slot need not ask for the lock, if after its message is durable it tells the slot to
/// look again. The owner of the slot leaves it only when nobody has told it so since it last looked.
#[derive(Debug, Default)]
pub(crate) struct Slots(Mutex<HashMap<EntityId, Slot>>);

#[derive(Debug, Default)]
struct Slot {
    /// Something was enqueued since the owner last looked.
    look_again: bool,
    /// Told, by being dropped, that the slot was left.
    waiting: Vec<oneshot::Sender<()>>,
}

impl Slots {
    fn slots(&self) -> MutexGuard<'_, HashMap<EntityId, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the slot, or tells its owner to look again. `true`: the caller owns it now, and must leave it.
    pub(crate) fn enter(&self, entity: &EntityId) -> bool {
        match self.slots().entry(entity.clone()) {
            std::collections::hash_map::Entry::Occupied(mut slot) => {
                slot.get_mut().look_again = true;
                false
            }
            std::collections::hash_map::Entry::Vacant(slot) => {
                slot.insert(Slot::default());
                true
            }
        }
    }

    /// Whether somebody owns it.
    pub(crate) fn is_held(&self, entity: &EntityId) -> bool {
        self.slots().contains_key(entity)
    }

    /// The owner is about to look: what was enqueued until now, it will see.
    pub(crate) fn about_to_look(&self, entity: &EntityId) {
        if let Some(slot) = self.slots().get_mut(entity) {
            slot.look_again = false;
        }
    }

    /// Leaves the slot, unless somebody said to look again; then the caller still owns it.
    pub(crate) fn leave(&self, entity: &EntityId) -> bool {
        let mut slots = self.slots();
        let again = slots.get_mut(entity).is_some_and(|slot| std::mem::take(&mut slot.look_again));
        if !again {
            slots.remove(entity);
        }
        !again
    }

    /// Leaves the slot in any case: the process shuts down, and others will look.
    pub(crate) fn abandon(&self, entity: &EntityId) {
        self.slots().remove(entity);
    }

    /// Completes, with an error, when the slot was left; `None` if nobody owns it.
    pub(crate) fn left(&self, entity: &EntityId) -> Option<oneshot::Receiver<()>> {
        let mut slots = self.slots();
        let slot = slots.get_mut(entity)?;
        // Those who gave up waiting must not pile up on a slot that is held for long.
        slot.waiting.retain(|waiting| !waiting.is_closed());
        let (sender, receiver) = oneshot::channel();
        slot.waiting.push(sender);
        Some(receiver)
    }
}
