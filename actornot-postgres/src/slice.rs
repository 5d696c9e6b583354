//! What goes in: a slice of a verb as one JSON text, with payloads and states beside it, byte for byte.

use actornot_core::{Commit, Effect, EntityId, Envelope, Lease, LockRequest, NewMessage, Next, Verdict};
use serde::Serialize;

use crate::codec::{encode_headers, millis};

/// An entity's name, in each item.
#[derive(Serialize)]
pub(crate) struct Name<'a> {
    kind: &'a str,
    key: &'a str,
}

impl<'a> From<&'a EntityId> for Name<'a> {
    fn from(entity: &'a EntityId) -> Self {
        Self { kind: entity.kind(), key: entity.key() }
    }
}

/// A message without its payload.
#[derive(Serialize)]
pub(crate) struct Message<'a> {
    id: &'a str,
    headers: String,
    delay: i64,
    retention: i64,
}

impl<'a> From<&'a NewMessage> for Message<'a> {
    fn from(message: &'a NewMessage) -> Self {
        Self {
            id: message.id.as_str(),
            headers: encode_headers(&message.headers),
            delay: millis(message.delay),
            retention: millis(message.retention),
        }
    }
}

/// A lock that is wanted.
#[derive(Serialize)]
pub(crate) struct Request {
    nonce: String,
    ms: i64,
    max: u32,
}

impl From<&LockRequest> for Request {
    fn from(request: &LockRequest) -> Self {
        Self { nonce: request.nonce.to_string(), ms: millis(request.length), max: request.max_batch }
    }
}

/// An item of `enqueue`.
#[derive(Serialize)]
pub(crate) struct Post<'a> {
    #[serde(flatten)]
    pub(crate) name: Name<'a>,
    pub(crate) limit: u64,
    pub(crate) lock: Option<Request>,
    pub(crate) messages: Vec<Message<'a>>,
}

/// An item of `try_lock`. Its number comes back with its answer.
#[derive(Serialize)]
pub(crate) struct Lock<'a> {
    pub(crate) item: usize,
    #[serde(flatten)]
    pub(crate) name: Name<'a>,
    #[serde(flatten)]
    pub(crate) request: Request,
}

/// An item of `release` and `extend_lock`.
#[derive(Serialize)]
pub(crate) struct Held<'a> {
    #[serde(flatten)]
    name: Name<'a>,
    nonce: String,
    ms: i64,
}

impl<'a> From<&'a Lease> for Held<'a> {
    fn from(lease: &'a Lease) -> Self {
        Self { name: (&lease.entity).into(), nonce: lease.nonce.to_string(), ms: millis(lease.length) }
    }
}

/// An effect of a commit.
#[derive(Serialize)]
pub(crate) struct Send<'a> {
    #[serde(flatten)]
    name: Name<'a>,
    #[serde(flatten)]
    message: Message<'a>,
}

/// An item of `update_locked`, without its new state.
#[derive(Serialize)]
pub(crate) struct Change<'a> {
    commit: String,
    #[serde(flatten)]
    held: Held<'a>,
    fence: i64,
    state_version: Option<u32>,
    acked: Vec<&'a str>,
    verdict: &'static str,
    error: Option<&'a str>,
    why: Option<&'static str>,
    after: Option<i64>,
    batch_limit: u32,
    max: Option<u32>,
    sends: Vec<Send<'a>>,
}

impl<'a> From<&'a Commit> for Change<'a> {
    fn from(commit: &'a Commit) -> Self {
        let (verdict, error, why, after) = match &commit.verdict {
            Verdict::Proceed => ("proceed", None, None, None),
            Verdict::DeadLetter { error } => ("dead_letter", Some(error.as_str()), None, None),
            Verdict::Wait { why, after, error } => {
                ("wait", error.as_deref(), Some(why.as_str()), Some(millis(*after)))
            }
            Verdict::Pause { reason } => ("pause", Some(reason.as_str()), None, None),
        };
        Self {
            commit: commit.id.to_string(),
            held: (&commit.lease).into(),
            // A fence that was never stored holds nothing.
            fence: i64::try_from(commit.lease.fence).unwrap_or(-1),
            state_version: commit.state.as_ref().map(|state| state.state_version),
            acked: commit.acked.iter().map(|id| id.as_str()).collect(),
            verdict,
            error,
            why,
            after,
            batch_limit: commit.batch_limit,
            max: match commit.next {
                Next::Batch { max } => Some(max),
                Next::Release => None,
            },
            sends: sends(commit)
                .map(|envelope| Send { name: (&envelope.entity).into(), message: (&envelope.message).into() })
                .collect(),
        }
    }
}

/// The messages that a commit sends, in order.
pub(crate) fn sends(commit: &Commit) -> impl Iterator<Item = &Envelope> {
    commit.effects.iter().filter_map(|effect| match effect {
        Effect::Send(envelope) => Some(envelope),
        _ => None,
    })
}
