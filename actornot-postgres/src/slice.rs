//! What goes in: a slice as columns, one array for each property. Payloads and states are bound as they are, byte for byte.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use actornot_core::{
    Commit, Effect, Enqueue, EntityId, Envelope, Lease, LockRequest, NewMessage, Next, TryLock, Verdict,
};

use crate::codec::{encode_headers, millis};
use crate::connection::Value;

/// Names of entities.
#[derive(Default)]
struct Names<'a> {
    kinds: Vec<&'a str>,
    keys: Vec<&'a str>,
}

impl<'a> Names<'a> {
    fn of(entities: impl Iterator<Item = &'a EntityId>) -> Self {
        let (kinds, keys) = entities.map(|entity| (entity.kind(), entity.key())).unzip();
        Self { kinds, keys }
    }

    fn values(self) -> [Value<'a>; 2] {
        [Value::Texts(self.kinds), Value::Texts(self.keys)]
    }
}

/// Locks that may be wanted.
#[derive(Default)]
struct Requests {
    nonces: Vec<Option<String>>,
    lengths: Vec<i64>,
    maxes: Vec<i64>,
}

impl Requests {
    fn add(&mut self, request: Option<&LockRequest>) {
        self.nonces.push(request.map(|request| request.nonce.to_string()));
        self.lengths.push(request.map_or(0, |request| millis(request.length)));
        self.maxes.push(request.map_or(0, |request| request.max_batch.into()));
    }

    fn values<'a>(self) -> [Value<'a>; 3] {
        [Value::Ids(self.nonces), Value::Numbers(self.lengths), Value::Numbers(self.maxes)]
    }
}

/// Messages, in order.
#[derive(Default)]
struct Messages<'a> {
    ids: Vec<&'a str>,
    payloads: Vec<&'a str>,
    headers: Vec<String>,
    delays: Vec<i64>,
    keeps: Vec<i64>,
}

impl<'a> Messages<'a> {
    fn add(&mut self, message: &'a NewMessage) {
        self.ids.push(message.id.as_str());
        self.payloads.push(&message.payload);
        self.headers.push(encode_headers(&message.headers));
        self.delays.push(millis(message.delay));
        self.keeps.push(millis(message.retention));
    }

    fn values(self) -> [Value<'a>; 5] {
        [
            Value::Texts(self.ids),
            Value::Texts(self.payloads),
            // Mostly none has any.
            if self.headers.iter().all(String::is_empty) { Value::Null } else { Value::Owned(self.headers) },
            Value::Numbers(self.delays),
            Value::Numbers(self.keeps),
        ]
    }
}

/// A parcel holds so many messages.
const MESSAGES: usize = 64;

/// And about so many bytes: each time that a part of it is handed out, the server reads all of it.
const BYTES: usize = 64 << 10;

/// Which messages share a row: those of one item, as long as they are not too many. The number of each one's row.
#[derive(Default)]
struct Parcels {
    of: Vec<i32>,
    messages: usize,
    bytes: usize,
}

impl Parcels {
    /// What comes now belongs to another item.
    fn next(&mut self) {
        self.messages = MESSAGES;
    }

    fn add(&mut self, message: &NewMessage) {
        let bytes = message.id.as_str().len() + message.payload.len();
        let last = self.of.last().copied().unwrap_or_default();
        if self.messages < MESSAGES && self.bytes + bytes <= BYTES {
            self.of.push(last);
            (self.messages, self.bytes) = (self.messages + 1, self.bytes + bytes);
        } else {
            self.of.push(last + 1);
            (self.messages, self.bytes) = (1, bytes);
        }
    }
}

/// The values of `enqueue`.
pub(crate) fn posts(items: &[Enqueue]) -> Vec<Value<'_>> {
    let names = Names::of(items.iter().map(|item| &item.entity));
    let (mut limits, mut counts, mut requests) = (Vec::new(), Vec::new(), Requests::default());
    let (mut at, mut nth, mut messages) = (Vec::new(), Vec::new(), Messages::default());
    let (mut plain, mut parcels) = (true, Parcels::default());
    for (item, place) in items.iter().zip(1..) {
        limits.push(i64::try_from(item.backlog_limit).unwrap_or(i64::MAX));
        counts.push(i64::try_from(item.messages.len()).unwrap_or(i64::MAX));
        requests.add(item.lock.as_ref());
        let mut ids = HashSet::new();
        parcels.next();
        for (message, number) in item.messages.iter().zip(1..) {
            parcels.add(message);
            plain &= message.delay.is_zero() && !message.retention.is_zero();
            plain &= item.messages.len() == 1 || ids.insert(&message.id);
            at.push(place);
            nth.push(number);
            messages.add(message);
        }
    }
    let mut values: Vec<Value<'_>> = names.values().into();
    values.extend([Value::Numbers(limits), Value::Numbers(counts)]);
    values.extend(requests.values());
    values.extend([Value::Flag(plain), Value::Places(at), Value::Places(nth), Value::Places(parcels.of)]);
    values.extend(messages.values());
    values
}

/// The values of `try_lock`.
pub(crate) fn locks(items: &[TryLock]) -> Vec<Value<'_>> {
    let mut requests = Requests::default();
    items.iter().for_each(|item| requests.add(Some(&item.request)));
    let names = Names::of(items.iter().map(|item| &item.entity));
    names.values().into_iter().chain(requests.values()).collect()
}

/// The values of `release`, and those that `extend_lock` has besides.
pub(crate) fn leases(leases: &[Lease]) -> (Vec<Value<'_>>, Value<'_>) {
    let names = Names::of(leases.iter().map(|lease| &lease.entity));
    let nonces = leases.iter().map(|lease| Some(lease.nonce.to_string())).collect();
    let lengths = leases.iter().map(|lease| millis(lease.length)).collect();
    (names.values().into_iter().chain([Value::Ids(nonces)]).collect(), Value::Numbers(lengths))
}

/// The values of `update_locked`.
pub(crate) fn changes<'a>(commits: &[&'a Commit]) -> Vec<Value<'a>> {
    // Whose rows are written, each once: those of the commits, and behind them those they send to besides.
    let mut rows: HashMap<(&str, &str), i32> = HashMap::new();
    let (mut kinds, mut keys) = (Vec::new(), Vec::new());
    let targets = commits.iter().flat_map(|commit| sends(commit)).map(|envelope| &envelope.entity);
    for entity in commits.iter().map(|commit| &commit.lease.entity).chain(targets) {
        let place = i32::try_from(rows.len() + 1).unwrap_or(i32::MAX);
        if let Entry::Vacant(row) = rows.entry((entity.kind(), entity.key())) {
            row.insert(place);
            kinds.push(entity.kind());
            keys.push(entity.key());
        }
    }
    let row = |entity: &EntityId| rows.get(&(entity.kind(), entity.key())).copied().unwrap_or_default();

    let (mut ids, mut nonces, mut fences, mut lengths, mut counts) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut verdicts, mut errors, mut whys, mut afters, mut limits, mut maxes) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut states, mut shapes) = (Vec::new(), Vec::new());
    let (mut begins, mut settled) = (Vec::new(), Vec::new());
    let (mut sent_of, mut sent_to, mut messages) = (Vec::new(), Vec::new(), Messages::default());
    for (commit, place) in commits.iter().zip(1..) {
        let (verdict, error, why, after) = match &commit.verdict {
            Verdict::Proceed => ("proceed", None, None, None),
            Verdict::DeadLetter { error } => ("dead_letter", Some(error.as_str()), None, None),
            Verdict::Wait { why, after, error } => {
                ("wait", error.as_deref(), Some(why.as_str()), Some(millis(*after)))
            }
            Verdict::Pause { reason } => ("pause", Some(reason.as_str()), None, None),
        };
        begins.push(i32::try_from(settled.len() + 1).unwrap_or(i32::MAX));
        settled.extend(commit.acked.iter().map(|id| id.as_str()));
        // The dead letter is settled behind them, whatever its id.
        let settles = commit.acked.len() + usize::from(matches!(commit.verdict, Verdict::DeadLetter { .. }));
        ids.push(Some(commit.id.to_string()));
        nonces.push(Some(commit.lease.nonce.to_string()));
        // A fence that was never stored holds nothing.
        fences.push(i64::try_from(commit.lease.fence).unwrap_or(-1));
        lengths.push(millis(commit.lease.length));
        counts.push(i64::try_from(settles).unwrap_or(i64::MAX));
        verdicts.push(verdict);
        errors.push(error);
        whys.push(why);
        afters.push(after);
        limits.push(i64::from(commit.batch_limit));
        maxes.push(match commit.next {
            Next::Batch { max } => Some(i64::from(max)),
            Next::Release => None,
        });
        states.push(commit.state.as_ref().map(|state| state.json.as_str()));
        shapes.push(commit.state.as_ref().map(|state| i64::from(state.state_version)));
        for envelope in sends(commit) {
            sent_of.push(place);
            sent_to.push(row(&envelope.entity));
            messages.add(&envelope.message);
        }
    }
    let mut values = vec![
        Value::Texts(kinds),
        Value::Texts(keys),
        Value::Ids(ids),
        Value::Ids(nonces),
        Value::Numbers(fences),
        Value::Numbers(lengths),
        Value::Numbers(counts),
        Value::Texts(verdicts),
        Value::Maybe(errors),
        Value::Maybe(whys),
        Value::MaybeNumbers(afters),
        Value::Numbers(limits),
        Value::MaybeNumbers(maxes),
        Value::Maybe(states),
        Value::MaybeNumbers(shapes),
        Value::Places(begins),
        Value::Texts(settled),
        Value::Places(sent_of),
        Value::Places(sent_to),
    ];
    values.extend(messages.values());
    values
}

/// The messages that a commit sends, in order.
fn sends(commit: &Commit) -> impl Iterator<Item = &Envelope> {
    commit.effects.iter().filter_map(|effect| match effect {
        Effect::Send(envelope) => Some(envelope),
        _ => None,
    })
}
