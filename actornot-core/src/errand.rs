use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::engine::Engine;
use crate::seam::Mistake;
use crate::{EntityId, Scheduler};

/// What work is done for: this process as such, or calls that have a budget, and may wait for its end.
///
/// Work that comes of it, such as running what a handler has sent to, is part of the same errand. For a call it is over
/// when its last part was dropped, however that came about.
#[derive(Debug, Clone)]
pub(crate) struct Errand {
    /// Not for calls alone: it goes on for as long as there is something to do.
    background: bool,
    calls: Vec<Arc<Call>>,
}

/// A call that wants work done.
#[derive(Debug)]
struct Call {
    /// Nothing is started for it after this.
    until: Instant,
    /// Dropped when nothing is done for it any more.
    _waiting: Option<mpsc::UnboundedSender<()>>,
}

/// The end of an errand.
#[derive(Debug)]
pub(crate) struct Over(mpsc::UnboundedReceiver<()>);

impl Errand {
    /// For this process as such.
    pub(crate) fn background() -> Self {
        Self { background: true, calls: Vec::new() }
    }

    /// For a call that waits for its end.
    pub(crate) fn awaited(until: Instant) -> (Self, Over) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let call = Call { until, _waiting: Some(sender) };
        (Self { background: false, calls: vec![Arc::new(call)] }, Over(receiver))
    }

    /// Whether it is for this process as such, and for nobody else.
    pub(crate) fn is_background(&self) -> bool {
        self.background && self.calls.is_empty()
    }

    /// Both in one: the work goes on for as long as one of them wants it.
    pub(crate) fn join(&mut self, other: Self) {
        self.background |= other.background;
        for call in other.calls {
            if !self.calls.iter().any(|mine| Arc::ptr_eq(mine, &call)) {
                self.calls.push(call);
            }
        }
    }

    /// Whether nobody wants another batch started.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        !self.background && self.calls.iter().all(|call| now >= call.until)
    }

    /// Between two batches: what goes on for others is no longer done for calls whose time is up. When everybody's is,
    /// they still wait for the end.
    pub(crate) fn dismiss(&mut self, now: Instant) {
        if !self.is_over(now) {
            self.calls.retain(|call| now < call.until);
        }
    }
}

impl Over {
    /// Completes when nothing is done for the call any more.
    pub(crate) async fn wait(mut self) {
        while self.0.recv().await.is_some() {}
    }
}

impl Engine {
    /// An errand whose end nobody waits for.
    pub(crate) fn errand(&self) -> Errand {
        match self.config.scheduler {
            Scheduler::Inline { budget } => {
                let call = Call { until: self.seam.now() + budget, _waiting: None };
                Errand { background: false, calls: vec![Arc::new(call)] }
            }
            _ => Errand::background(),
        }
    }

    /// The owner of a slot is about to look, for itself and for those who joined it.
    pub(crate) fn about_to_look(&self, entity: &EntityId, errand: &mut Errand) {
        match self.seam.mistake() {
            Some(Mistake::SpentBudgetForOthers) => self.slots.about_to_look(entity, &mut errand.clone()),
            _ => self.slots.about_to_look(entity, errand),
        }
    }

    /// Whether no further batch may be started for it.
    pub(crate) fn is_over(&self, errand: &Errand) -> bool {
        self.stopping() || errand.is_over(self.seam.now())
    }
}
