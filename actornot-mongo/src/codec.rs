//! Between the contract's types and BSON.
//!
//! Nothing here fails on stored values: one damaged document must not take a slice of healthy neighbours with it.

use std::collections::BTreeMap;
use std::time::Duration;

use actornot_core::{EntityId, Error, Headers, MessageId, NewMessage, StoredMessage, StoredState};
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, DateTime, Document, Timestamp, doc};

/// An entity as the `_id` of its document. The order of the fields is part of the identity.
pub(crate) fn name(entity: &EntityId) -> Document {
    doc! { "k": entity.kind(), "e": entity.key() }
}

/// The entity that [`name`] wrote.
pub(crate) fn entity(name: &Document) -> Result<EntityId, Error> {
    EntityId::new(text(name, "k"), text(name, "e"))
}

/// The same of a list. `None` for a key that was written by hand and is none: nobody can post to it or name it, and it must
/// not hide those behind it.
pub(crate) fn listed(name: &Document) -> Option<EntityId> {
    entity(name).map_err(|error| tracing::warn!(%error, "a stored key is none")).ok()
}

/// User data inside a pipeline: without it, a text that begins with `$` would be read as an expression.
pub(crate) fn literal(value: impl Into<Bson>) -> Document {
    doc! { "$literal": value.into() }
}

pub(crate) fn headers(headers: &Headers) -> Bson {
    // Pairs, not a document: a header may be named `$x`, or `a.b`.
    headers
        .iter()
        .map(|(name, value)| Bson::from(vec![name.clone(), value.clone()]))
        .collect::<Vec<_>>()
        .into()
}

pub(crate) fn decode_headers(stored: &Bson) -> Headers {
    let pairs = stored.as_array().map(Vec::as_slice).unwrap_or_default();
    let pair = |pair: &Bson| {
        let pair = pair.as_array()?;
        Some((pair.first()?.as_str()?.to_owned(), pair.get(1)?.as_str()?.to_owned()))
    };
    let decoded: Headers = pairs.iter().filter_map(pair).collect();
    if decoded.len() != pairs.len() {
        tracing::warn!("stored headers do not decode, the message goes on without some of them");
    }
    decoded
}

pub(crate) fn text(row: &Document, field: &str) -> String {
    row.get_str(field).unwrap_or_default().to_owned()
}

pub(crate) fn optional(row: &Document, field: &str) -> Option<String> {
    row.get_str(field).ok().map(str::to_owned)
}

/// A message on its way in.
pub(crate) struct Incoming<'a> {
    pub(crate) entity: &'a EntityId,
    pub(crate) message: &'a NewMessage,
    /// The server's clock, as a look returned it.
    pub(crate) now: i64,
    /// Who sent it, while its outbox still names it.
    pub(crate) hold: Option<Document>,
}

impl Incoming<'_> {
    /// When it is due, if it is delayed.
    pub(crate) fn due(&self) -> Option<i64> {
        (!self.message.delay.is_zero()).then(|| self.now.saturating_add(millis(self.message.delay)))
    }

    /// Whether it may share a parcel with this one.
    fn is_like(&self, other: &Self) -> bool {
        let of = |incoming: &Self| (incoming.message.delay, incoming.message.retention);
        of(self) == of(other) && self.hold == other.hold
    }

    pub(crate) fn size(&self) -> usize {
        self.message.payload.len() + size(&self.message.headers)
    }
}

/// So many messages come together at most, and so many bytes unless it is one: whoever runs a few of them reads all.
pub(crate) const PARCEL: (usize, usize) = (64, 64 << 10);

/// Messages of one entity that are stored in one document: which of those that came.
pub(crate) type Parcel = Vec<usize>;

/// The parcels of each entity, in order: the first of each, the second of each, and so on. No id is twice in one.
pub(crate) fn parcels(messages: &[Incoming<'_>]) -> Vec<Vec<Parcel>> {
    let mut entities: BTreeMap<&EntityId, Vec<Parcel>> = BTreeMap::new();
    let (mut bytes, mut rounds) = (BTreeMap::new(), 0);
    for (index, incoming) in messages.iter().enumerate() {
        let (size, of) = (incoming.size(), entities.entry(incoming.entity).or_default());
        let held = bytes.entry(incoming.entity).or_insert(0);
        let fits = |parcel: &&mut Parcel| {
            let mut all = parcel.iter().filter_map(|index| messages.get(*index));
            parcel.len() < PARCEL.0
                && *held + size <= PARCEL.1
                && all.all(|other| incoming.is_like(other) && incoming.message.id != other.message.id)
        };
        match of.last_mut().filter(fits) {
            Some(parcel) => (parcel.push(index), *held += size).0,
            None => (of.push(vec![index]), *held = size).0,
        }
        rounds = rounds.max(of.len());
    }
    let mut of: Vec<_> = entities.into_values().map(Vec::into_iter).collect();
    (0..rounds).map(|_| of.iter_mut().filter_map(Iterator::next).collect()).collect()
}

pub(crate) fn encode(messages: &[Incoming<'_>], parcel: &Parcel, id: ObjectId) -> Document {
    let all = || parcel.iter().filter_map(|index| messages.get(*index));
    let Some(first) = all().next() else { return Document::new() };
    let list = |one: fn(&NewMessage) -> Bson| all().map(|incoming| one(incoming.message)).collect::<Vec<_>>();
    let mut row = doc! {
        "_id": id, "e": name(first.entity), "ids": list(|message| message.id.as_str().into()),
        "at": date(first.now), "keep": millis(first.message.retention),
        // The server draws it while it inserts: the only order (G2).
        "seq": Timestamp { time: 0, increment: 0 }, "n": i64::try_from(parcel.len()).unwrap_or(i64::MAX),
        "payloads": list(|message| message.payload.as_str().into()),
    };
    if all().any(|incoming| !incoming.message.headers.is_empty()) {
        row.insert("headers", list(|message| self::headers(&message.headers)));
    }
    match first.due() {
        Some(due) => row.extend(doc! { "d": name(first.entity), "due": date(due) }),
        None => _ = row.insert("q", name(first.entity)),
    }
    if let Some(hold) = &first.hold {
        row.insert("hold", hold.clone());
    }
    row
}

pub(crate) fn size(headers: &Headers) -> usize {
    headers.iter().map(|(name, value)| name.len() + value.len() + 32).sum()
}

/// What one post brought for an entity, in order: lists of ids, payloads and, if there are any, headers.
pub(crate) fn messages(mut parcel: Document) -> Vec<StoredMessage> {
    let mut list = |field: &str| match parcel.remove(field) {
        Some(Bson::Array(list)) => list,
        _ => Vec::new(),
    };
    let (ids, payloads, headers) = (list("ids"), list("payloads"), list("headers"));
    let text = |value| if let Some(Bson::String(text)) = value { text } else { String::new() };
    let (mut payloads, mut headers) = (payloads.into_iter(), headers.iter());
    ids.into_iter()
        .map(|id| StoredMessage {
            id: MessageId::from_stored(text(Some(id))),
            payload: text(payloads.next()),
            headers: headers.next().map(decode_headers).unwrap_or_default(),
        })
        .collect()
}

/// The state of an entity, if it has one.
pub(crate) fn state(row: &Document) -> Option<StoredState> {
    let json = row.get_str("state").ok()?.to_owned();
    let version = unsigned(int(row, "version"));
    Some(StoredState { json, version, state_version: small(int(row, "state_version")) })
}

/// The server widens numbers as it likes.
pub(crate) fn int(row: &Document, field: &str) -> i64 {
    match row.get(field) {
        Some(Bson::Int32(value)) => i64::from(*value),
        Some(Bson::Int64(value)) => *value,
        #[allow(clippy::cast_possible_truncation)] // A whole number, for we store no others.
        Some(Bson::Double(value)) => *value as i64,
        _ => 0,
    }
}

pub(crate) fn moment(row: &Document, field: &str) -> Option<i64> {
    row.get_datetime(field).ok().map(|at| at.timestamp_millis())
}

pub(crate) fn date(millis: i64) -> DateTime {
    DateTime::from_millis(millis)
}

pub(crate) fn unsigned(value: i64) -> u64 {
    value.max(0).unsigned_abs()
}

pub(crate) fn small(value: i64) -> u32 {
    u32::try_from(value.max(0)).unwrap_or(u32::MAX)
}

/// Milliseconds, as the server's clock counts; a part of one is rounded up, so that nothing is early.
pub(crate) fn millis(duration: Duration) -> i64 {
    let millis = duration.as_nanos().div_ceil(1_000_000);
    i64::try_from(millis).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}
