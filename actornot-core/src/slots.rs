//! "This process already runs that entity": trap 1 of the design, in process.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::EntityId;
use crate::errand::Errand;

/// The entities that this process locks, runs, or has queued up to lock.
///
/// A post to an entity with a slot need not ask for the lock, if after its message is durable it tells the slot to
/// look again. The owner of the slot leaves it only when nobody has told it so since it last looked.
#[derive(Debug, Default)]
pub(crate) struct Slots(Mutex<HashMap<EntityId, Slot>>);

#[derive(Debug, Default)]
struct Slot {
    /// Something was enqueued since the owner last looked: what it is to be run for.
    look_again: Option<Errand>,
}

impl Slots {
    fn slots(&self) -> MutexGuard<'_, HashMap<EntityId, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the slot, or tells its owner to look again. The errand comes back to a caller who owns it now, and must
    /// leave it.
    pub(crate) fn enter(&self, entity: &EntityId, errand: Errand) -> Option<Errand> {
        match self.slots().entry(entity.clone()) {
            Entry::Occupied(mut slot) => {
                match &mut slot.get_mut().look_again {
                    Some(others) => others.join(errand),
                    none => *none = Some(errand),
                }
                None
            }
            Entry::Vacant(slot) => {
                slot.insert(Slot::default());
                Some(errand)
            }
        }
    }

    /// Whether somebody owns it.
    pub(crate) fn is_held(&self, entity: &EntityId) -> bool {
        self.slots().contains_key(entity)
    }

    /// The owner is about to look: what was enqueued until now it will see, and it runs it for those as well.
    pub(crate) fn about_to_look(&self, entity: &EntityId, errand: &mut Errand) {
        let others = self.slots().get_mut(entity).and_then(|slot| slot.look_again.take());
        others.into_iter().for_each(|others| errand.join(others));
    }

    /// Leaves the slot, unless somebody said to look again; then the caller still owns it.
    pub(crate) fn leave(&self, entity: &EntityId) -> bool {
        let mut slots = self.slots();
        let again = slots.get(entity).is_some_and(|slot| slot.look_again.is_some());
        if !again {
            slots.remove(entity);
        }
        !again
    }

    /// Leaves the slot in any case.
    pub(crate) fn abandon(&self, entity: &EntityId) {
        self.slots().remove(entity);
    }
}
