use std::time::Duration;

use crate::{CommitId, Envelope, HandedOut, Lease, MessageId};

/// One atomic step of an entity: what a run changed, and what comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Names the commit; repeated with the same id it is applied once.
    pub id: CommitId,
    /// The lease it is made under: nonce and fence must be the stored ones.
    pub lease: Lease,
    /// The new state, or `None` if it did not change.
    pub state: Option<NewState>,
    /// The handled messages: a prefix of what was handed out, by id.
    pub acked: Vec<MessageId>,
    /// What becomes of the first message that was not acked, and of the entity.
    pub verdict: Verdict,
    /// What the run asked for besides; committed with it or not at all.
    pub effects: Vec<Effect>,
    /// How many messages the next hand-out may hold.
    pub batch_limit: u32,
    /// Go on, or let go.
    pub next: Next,
}

/// A state to be stored.
#[derive(Clone, PartialEq, Eq)]
pub struct NewState {
    /// JSON text; stored byte for byte.
    pub json: String,
    /// The version of its shape.
    pub state_version: u32,
}

impl std::fmt::Debug for NewState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewState")
            .field("json_bytes", &self.json.len())
            .field("state_version", &self.state_version)
            .finish()
    }
}

/// What a commit says about the messages it does not acknowledge, which stay at the head of the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is wrong: clears the entity's wait and last error.
    Proceed,
    /// The first message that was not acked moves to the dead letters, byte-equal, with this error.
    DeadLetter {
        /// Why it could not be handled.
        error: String,
    },
    /// Nothing is handed out before `after` has passed on the server's clock; posts do not shorten it.
    Wait {
        /// Why the entity waits.
        why: Waiting,
        /// How long.
        after: Duration,
        /// The error that led to it, if one did.
        error: Option<String>,
    },
    /// Nothing is handed out until an operator resumes the entity.
    Pause {
        /// Why, for whoever looks.
        reason: String,
    },
}

/// Why an entity with queued messages is not handed out although nobody holds its lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// A run failed and will be repeated.
    Backoff,
    /// [`Runner::ready`](crate::Runner::ready) asked for a later moment; the hand-out is not counted.
    NotReady,
    /// The head message used up its attempts and the policy is to keep trying, in order, at the longest backoff.
    Blocked,
}

impl Waiting {
    /// The word adapters store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Backoff => "backoff",
            Self::NotReady => "not_ready",
            Self::Blocked => "blocked",
        }
    }

    /// The reason that [`as_str`](Self::as_str) wrote, or `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Backoff, Self::NotReady, Self::Blocked].into_iter().find(|why| why.as_str() == text)
    }
}

/// Something a run asked for besides its state change.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// Post a message to another entity, or to itself; exactly once, beyond the target's backlog limit.
    Send(Envelope),
    /// Post a message to itself later, under a name that can be set again or cancelled.
    SetTimer {
        /// The timer's name within the entity.
        name: String,
        /// What is posted, after its delay.
        envelope: Envelope,
    },
    /// Forget a timer.
    CancelTimer {
        /// The timer's name within the entity.
        name: String,
    },
    /// Answer whoever asked.
    Reply {
        /// The message that is answered.
        to: MessageId,
        /// JSON text.
        payload: String,
    },
}

impl std::fmt::Debug for Effect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Send(envelope) => f.debug_tuple("Send").field(envelope).finish(),
            Self::SetTimer { name, envelope } => {
                f.debug_struct("SetTimer").field("name", name).field("envelope", envelope).finish()
            }
            Self::CancelTimer { name } => f.debug_struct("CancelTimer").field("name", name).finish(),
            Self::Reply { to, payload } => {
                f.debug_struct("Reply").field("to", to).field("payload_bytes", &payload.len()).finish()
            }
        }
    }
}

/// What the holder wants after its commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Keep the lock, renewed, if something is queued, and hand out at most this many messages.
    Batch {
        /// The most messages to hand out; `batch_limit` may lower it.
        max: u32,
    },
    /// Let go of the lock in any case.
    Release,
}

/// What a commit came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Updated {
    /// Applied; the lock is kept under a new fence, and this comes next.
    Continue {
        /// The new fence.
        fence: u64,
        /// What to run next; never empty.
        batch: HandedOut,
    },
    /// Applied; the lock was let go.
    Released {
        /// When the entity wants to be looked at again: zero if something is queued and ready, `None` if nothing
        /// but a new post or an operator can make it so.
        next_due: Option<Duration>,
    },
    /// Refused, and nothing changed: somebody else may hold the lock.
    LockLost,
}
