use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::Scheduler;
use crate::engine::Engine;

/// What work is done for: until when it may start batches, and who waits for its end.
///
/// Work that comes of it, such as running what a handler has sent to, is part of the same errand. It is over when its
/// last part was dropped, however that came about.
#[derive(Debug, Clone, Default)]
pub(crate) struct Errand {
    pub(crate) until: Option<Instant>,
    waiting: Vec<mpsc::UnboundedSender<()>>,
}

/// The end of an errand.
#[derive(Debug)]
pub(crate) struct Over(mpsc::UnboundedReceiver<()>);

impl Errand {
    /// An errand whose end somebody waits for.
    pub(crate) fn awaited(until: Instant) -> (Self, Over) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { until: Some(until), waiting: vec![sender] }, Over(receiver))
    }

    /// Both in one: work that several wait for may go on for as long as the most patient of them wants.
    pub(crate) fn join(&mut self, other: Self) {
        self.until = self.until.zip(other.until).map(|(one, other)| one.max(other));
        self.waiting.extend(other.waiting);
    }
}

impl Over {
    /// Completes when nothing is done for the errand any more.
    pub(crate) async fn wait(mut self) {
        while self.0.recv().await.is_some() {}
    }
}

impl Engine {
    /// An errand that nobody waits for.
    pub(crate) fn errand(&self) -> Errand {
        let until = match self.config.scheduler {
            Scheduler::Inline { budget } => Some(self.seam.now() + budget),
            _ => None,
        };
        Errand { until, waiting: Vec::new() }
    }

    /// Whether no further batch may be started for it.
    pub(crate) fn is_over(&self, errand: &Errand) -> bool {
        self.stopping() || errand.until.is_some_and(|until| self.seam.now() >= until)
    }
}
