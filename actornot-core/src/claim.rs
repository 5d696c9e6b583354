use std::sync::Arc;

use crate::engine::{Engine, Work};
use crate::errand::Errand;
use crate::held::Held;
use crate::seam::Mistake;
use crate::workers::Seat;
use crate::{EntityId, Grant, LockRequest, Nonce};

/// The slot of an entity and a seat to run it on, taken by a post that asks for the lock in its own trip.
///
/// Dropped without an answer it is not forgotten: the request may have been granted, so a worker asks again with the
/// same nonce.
pub(crate) struct Claim {
    engine: Arc<Engine>,
    entity: EntityId,
    nonce: Nonce,
    errand: Errand,
    /// `None` once it was answered.
    seat: Option<Seat>,
}

impl Engine {
    /// Claims an entity for a post that is about to be sent: only if a seat is free, and nobody here has it.
    pub(crate) fn claim(self: &Arc<Self>, entity: &EntityId, errand: &Errand) -> Option<Claim> {
        if self.slots.is_held(entity) || self.stopping() {
            return None;
        }
        let seat = self.workers.reserve()?;
        let Some(errand) = self.slots.enter(entity, errand.clone()) else {
            self.sit(seat);
            return None;
        };
        let nonce = Nonce::from_random(self.seam.random());
        Some(Claim { engine: self.clone(), entity: entity.clone(), nonce, errand, seat: Some(seat) })
    }

    pub(crate) fn lock_request(&self, nonce: Nonce) -> LockRequest {
        LockRequest { nonce, length: self.config.lease, max_batch: self.config.batch }
    }
}

impl Claim {
    /// What to ask for.
    pub(crate) fn request(&self) -> LockRequest {
        self.engine.lock_request(self.nonce)
    }

    /// The answer is known: run what was granted, or leave.
    pub(crate) fn answered(mut self, grant: Option<Grant>) {
        let Some(seat) = self.seat.take() else { return };
        match grant {
            Some(grant) => {
                let held = Held::new(&self.engine, grant).map(Box::new);
                self.go(seat, None, held);
            }
            None if self.engine.slots.leave(&self.entity) => self.engine.sit(seat),
            None => self.go(seat, None, None),
        }
    }

    fn go(&mut self, seat: Seat, nonce: Option<Nonce>, held: Option<Box<Held>>) {
        let errand = std::mem::replace(&mut self.errand, Errand::background());
        let work = Work { entity: self.entity.clone(), nonce, held, errand };
        self.engine.begin(work, seat);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let Some(seat) = self.seat.take() else { return };
        if self.engine.seam.mistake() == Some(Mistake::LostGrantForgotten) {
            self.engine.slots.abandon(&self.entity);
            return self.engine.sit(seat);
        }
        self.go(seat, Some(self.nonce), None);
    }
}
