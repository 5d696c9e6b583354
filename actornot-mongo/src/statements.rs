//! Commands and expressions. What the guards refuse, they refuse by an expression that fails on purpose: a bulk
//! update then names each refused statement, and applies its neighbours.

use actornot_core::{EntityId, Lease, Limits, Nonce};
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, Document, doc};

use crate::codec::{literal, millis, name};
use crate::row::{self, Queued};

/// So many bytes of one entity's queue are brought back in its row, beside its state; but always one message.
pub(crate) const HEAD_BYTES: usize = 8 << 20;

/// G1: on the disks of a majority before it is answered, whatever the URL says.
pub(crate) fn concern() -> Document {
    doc! { "w": "majority", "j": true }
}

pub(crate) fn update(collection: &str, updates: Vec<Document>) -> Document {
    doc! { "update": collection, "updates": updates, "ordered": false, "writeConcern": concern() }
}

/// For what may be lost with its server, and is then done again.
pub(crate) fn weakly(collection: &str, updates: Vec<Document>) -> Document {
    doc! { "update": collection, "updates": updates, "ordered": false, "writeConcern": { "w": 1 } }
}

/// A change of one entity, bound to how it was read: if it is otherwise, nothing of the change is applied. Plain operators
/// cost both sides half of what expressions do.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Change {
    pub(crate) id: Bson,
    /// What its fields must be, or whether they exist.
    pub(crate) filter: Document,
    pub(crate) set: Document,
    pub(crate) unset: Vec<&'static str>,
    pub(crate) inc: Document,
    pub(crate) min: Document,
    pub(crate) push: Document,
    /// Fields that become the server's moment.
    pub(crate) now: Vec<&'static str>,
    pub(crate) creates: bool,
}

impl Change {
    pub(crate) fn of(entity: &EntityId) -> Self {
        Self { id: name(entity).into(), ..Self::default() }
    }

    pub(crate) fn when(&mut self, field: &str, exists: bool) {
        self.filter.insert(field, doc! { "$exists": exists });
    }

    /// The entity is made by this; with an `_id` that exists already, the server refuses it too.
    pub(crate) fn create(&mut self, now: i64) {
        self.creates = true;
        self.when("fence", false);
        self.now.push("since");
        // Its fence begins at the clock, so that it never goes back (G3).
        self.set = doc! {
            "fence": now, "mark": 0_i64, "pending": 0_i64, "handed": [], "done": [], "bury": [], "outbox": [],
            "deliveries": 0_i64, "charged": 0_i64, "batch_limit": i64::from(u32::MAX), "queued": false,
            "version": 0_i64,
        };
    }

    /// By itself: if the filter finds nothing, the server refuses the statement with an error of its own, and applies its
    /// neighbours.
    pub(crate) fn statement(self) -> Document {
        let mut u = self.operators();
        if !self.creates {
            u.insert("$setOnInsert", doc! { "_id": 0 });
        }
        let mut q = doc! { "_id": self.id };
        q.extend(self.filter);
        // With a hint, there is no other plan to look for.
        doc! { "q": q, "u": u, "upsert": true, "hint": "_id_" }
    }

    fn operators(&self) -> Document {
        let fields = |names: &[&str], value: Bson| -> Document {
            names.iter().map(|name| ((*name).to_owned(), value.clone())).collect()
        };
        let mut u = Document::new();
        for (operator, fields) in [
            ("$set", self.set.clone()),
            ("$unset", fields(&self.unset, "".into())),
            ("$inc", self.inc.clone()),
            ("$min", self.min.clone()),
            ("$push", self.push.clone()),
            ("$currentDate", fields(&self.now, true.into())),
        ] {
            if !fields.is_empty() {
                u.insert(operator, fields);
            }
        }
        u
    }

    /// The names of what it looks at and changes: those of one shape may go together.
    pub(crate) fn shape(&self) -> Option<String> {
        if self.creates || !self.push.is_empty() || !self.min.is_empty() {
            return None;
        }
        let names = |part: &Document| part.keys().cloned().collect::<Vec<_>>();
        let filter: Vec<_> = self.filter.iter().map(|(field, value)| (field, exists(value))).collect();
        let parts = (filter, names(&self.set), &self.unset, names(&self.inc), &self.now);
        Some(format!("{parts:?}"))
    }
}

/// One entity's part of a command.
pub(crate) enum Write {
    Change(Box<Change>),
    /// What only expressions can say, guarded by them.
    Whole(Document),
}

/// What a filter says of a field, if it does not ask for a value.
fn exists(value: &Bson) -> Option<bool> {
    value.as_document()?.get_bool("$exists").ok()
}

/// Changes of one shape, each of another entity, in one statement: a statement costs more than what it changes. The
/// entities that were as they were read are changed, and have this name in `told`.
pub(crate) fn together<'a>(changes: impl Iterator<Item = &'a Change>, told: ObjectId) -> Document {
    let changes: Vec<&Change> = changes.collect();
    let Some(&first) = changes.first() else { return Document::new() };
    let names: Vec<Bson> = changes.iter().map(|change| change.id.clone()).collect();
    let mut q = doc! { "_id": { "$in": &names } };
    let same = |change: &&Change| Change { id: first.id.clone(), ..(*change).clone() } == *first;
    if changes.iter().all(same) {
        q.extend(first.filter.clone());
        let mut change = first.clone();
        change.set.insert("told", told);
        return doc! { "q": q, "u": change.operators(), "multi": true, "hint": "_id_" };
    }
    // `its` is what this entity's own change says; whatever users wrote into it stays a literal.
    let own = |change: &&Change| {
        doc! { "if": change.filter.clone(), "set": change.set.clone(), "inc": change.inc.clone() }
    };
    let own = literal(changes.iter().map(own).collect::<Vec<_>>());
    let own = doc! { "$arrayElemAt": [own, { "$indexOfArray": [literal(names), "$_id"] }] };
    let fits = first.filter.iter().map(|(field, value)| match exists(value) {
        Some(true) => doc! { "$gt": [format!("${field}"), null] },
        Some(false) => doc! { "$lte": [format!("${field}"), null] },
        None => doc! { "$eq": [format!("${field}"), format!("$its.if.{field}")] },
    });
    let mut fields: Vec<(&str, Bson)> = vec![("told", told.into())];
    fields.extend(first.set.keys().map(|field| (field.as_str(), format!("$its.set.{field}").into())));
    fields.extend(first.unset.iter().map(|field| (*field, "$$REMOVE".into())));
    fields.extend(first.inc.keys().map(|field| {
        (field.as_str(), doc! { "$add": [format!("${field}"), format!("$its.inc.{field}")] }.into())
    }));
    fields.extend(first.now.iter().map(|field| (*field, "$$NOW".into())));
    let when_fits = |(field, value): (&str, Bson)| {
        (field.to_owned(), doc! { "$cond": ["$fits", value, format!("${field}")] }.into())
    };
    let changed: Document = fields.into_iter().map(when_fits).collect();
    let stages = vec![
        doc! { "$set": { "its": own } },
        doc! { "$set": { "fits": { "$and": fits.collect::<Vec<_>>() } } },
        doc! { "$set": changed },
        doc! { "$unset": ["its", "fits"] },
    ];
    doc! { "q": q, "u": stages, "multi": true, "hint": "_id_" }
}

/// What an expression that fails on purpose says.
pub(crate) const REFUSAL: &str = "actornot:refused:";

/// Refuses the statement. Never a constant: that would be folded, and fail, also in a branch not taken.
pub(crate) fn refuse() -> Document {
    let fence = doc! { "$toString": { "$ifNull": ["$fence", ""] } };
    doc! { "$toInt": { "$concat": [REFUSAL, fence] } }
}

pub(crate) fn locked() -> Document {
    doc! { "$gt": ["$deadline", null] }
}

/// G3: a lease that still counts. One that ends later than the longest lease was left by a clock that was set back.
pub(crate) fn live() -> Document {
    let latest = doc! { "$add": ["$$NOW", millis(Limits::LEASE)] };
    doc! { "$and": [locked(), { "$lt": ["$$NOW", "$deadline"] }, { "$lte": ["$deadline", latest] }] }
}

pub(crate) fn paused() -> Document {
    doc! { "$gt": ["$paused", null] }
}

pub(crate) fn waiting() -> Document {
    doc! { "$gt": ["$wait.until", "$$NOW"] }
}

pub(crate) fn held_by(nonce: Nonce) -> Document {
    doc! { "$and": [locked(), { "$eq": ["$nonce", nonce.to_string()] }] }
}

/// Sends and dead letters of a commit that are still on their way.
pub(crate) fn staged() -> Document {
    let (outbox, bury) = (doc! { "$ifNull": ["$outbox", []] }, doc! { "$ifNull": ["$bury", []] });
    doc! { "$gt": [{ "$size": { "$concatArrays": [outbox, bury] } }, 0] }
}

/// G5: when `due` looks at it; the last stage of every pipeline. Never while paused, but for what is staged.
pub(crate) fn wake() -> Document {
    let later = |moment: &str| doc! { "$max": [moment, "$wait.until"] };
    doc! { "$set": { "wake_at": { "$switch": { "branches": [
        { "case": staged(), "then": { "$cond": [locked(), "$deadline", "$$NOW"] } },
        { "case": paused(), "then": "$$REMOVE" },
        { "case": locked(), "then": "$deadline" },
        { "case": "$queued", "then": later("$since") },
        { "case": { "$gt": ["$delayed_at", null] }, "then": later("$delayed_at") },
    ], "default": "$$REMOVE" } } } }
}

/// An entity that was never stored. Its fence begins at the clock, so that it never goes back (G3).
pub(crate) fn fresh() -> Document {
    let or = |field: &str, value: Bson| doc! { "$ifNull": [format!("${field}"), value] };
    let empty = || Bson::Array(Vec::new());
    doc! { "$set": {
        "fence": { "$ifNull": ["$fence", { "$toLong": "$$NOW" }] }, "since": { "$ifNull": ["$since", "$$NOW"] },
        "mark": or("mark", 0_i64.into()), "pending": or("pending", 0_i64.into()),
        "handed": or("handed", empty()), "done": or("done", empty()),
        "bury": or("bury", empty()), "outbox": or("outbox", empty()),
        "deliveries": or("deliveries", 0_i64.into()), "charged": or("charged", 0_i64.into()),
        "batch_limit": or("batch_limit", i64::from(u32::MAX).into()),
        "queued": or("queued", false.into()), "version": or("version", 0_i64.into()),
        "gone": "$$REMOVE",
    } }
}

/// Messages were posted: so many, whether one may be run at once, and when the first delayed one is due.
pub(crate) fn bump(count: i64, queued: bool, due: Option<i64>) -> Vec<Document> {
    let mut stages = vec![
        fresh(),
        doc! { "$set": {
            "mark": { "$add": ["$mark", 1_i64] }, "pending": { "$add": ["$pending", count] },
            "since": { "$cond": ["$queued", "$since", "$$NOW"] }, "queued": { "$or": ["$queued", queued] },
        } },
    ];
    if let Some(due) = due {
        stages.push(doc! { "$set": { "delayed_at": { "$min": ["$delayed_at", crate::codec::date(due)] } } });
    }
    stages
}

/// G6: counts a hand-out before it is run. The counters belong to the message at the head: another one starts over.
pub(crate) fn hand(batch: &[Queued]) -> Document {
    let entries = row::entries(batch);
    let Some(first) = entries.get("counted") else { return doc! { "$set": entries } };
    let of_head =
        |field: &str| doc! { "$cond": [{ "$eq": ["$counted", literal(first.clone())] }, field, 0_i64] };
    let mut set = doc! {
        "deliveries": { "$add": [of_head("$deliveries"), 1_i64] },
        "charged": { "$add": [of_head("$charged"), i64::from(batch.len() == 1)] },
    };
    set.extend(entries.into_iter().map(|(field, value)| (field, literal(value).into())));
    doc! { "$set": set }
}

/// The hand-out was not run, and does not count (G6).
pub(crate) fn uncount() -> Document {
    let (any, alone) =
        (doc! { "$gt": [{ "$size": "$handed" }, 0] }, doc! { "$eq": [{ "$size": "$handed" }, 1] });
    let less = |field: &str, when: Document| {
        doc! { "$max": [0_i64, { "$subtract": [field, { "$cond": [when, 1_i64, 0_i64] }] }] }
    };
    doc! { "$set": { "deliveries": less("$deliveries", any), "charged": less("$charged", alone) } }
}

/// Lets go. The nonce stays: it tells a late duplicate of its grant from a new request.
pub(crate) fn unlock() -> Document {
    doc! { "$set": { "handed": [], "deadline": "$$REMOVE", "since": "$$NOW" } }
}

/// Hands a lock back (G3, G6).
pub(crate) fn release(lease: &Lease) -> Vec<Document> {
    let guard = doc! { "$cond": [held_by(lease.nonce), "$mark", refuse()] };
    vec![doc! { "$set": { "mark": guard } }, uncount(), doc! { "$set": { "queued": true } }, unlock(), wake()]
}

/// Renews a lease that is still held by its nonce (G3).
pub(crate) fn extend(lease: &Lease) -> Vec<Document> {
    let renewed = doc! { "$add": ["$$NOW", millis(lease.length)] };
    vec![doc! { "$set": { "deadline": { "$cond": [held_by(lease.nonce), renewed, refuse()] } } }, wake()]
}

/// G2: delayed messages that are due join the tail, in order of their due time, with fresh sequence.
pub(crate) fn promote(messages: &str, entities: Vec<Document>) -> Document {
    let each = |entity: Document| {
        doc! {
            "q": { "d": entity.clone(), "$expr": { "$lte": ["$due", "$$NOW"] } }, "multi": true, "hint": "delayed",
            "u": { "$set": { "q": entity }, "$unset": { "d": "", "due": "" },
                   "$currentDate": { "seq": { "$type": "timestamp" } } },
        }
    };
    update(messages, entities.into_iter().map(each).collect())
}

/// G7: a settled parcel becomes the memory of its ids, until their retention is over.
pub(crate) fn bury_stages() -> Vec<Document> {
    let of = |field: &str| doc! { "$cond": [{ "$gt": [field, null] }, { "$toDate": field }, null] };
    // A letter has its number in place of them.
    let accepted = doc! { "$max": ["$at", of("$seq"), of("$no")] };
    vec![
        doc! { "$set": { "over": { "$add": [accepted, "$keep"] } } },
        doc! { "$set": { "expires": { "$cond": [{ "$gt": ["$hold", null] }, "$$REMOVE", "$over"] } } },
        doc! { "$unset": ["n", "payloads", "headers", "q", "seq", "d", "due", "x", "no", "error", "attempts"] },
    ]
}

/// G2: the documents of these entities, each with the server's clock. What is queued is read behind it, in a command of
/// its own: whoever marks an entity after this read is refused by the mark, and whoever commits, by the fence.
pub(crate) fn entities(entities: &str, names: Vec<Document>, state: bool) -> Document {
    const FIELDS: &str = "fence gone nonce deadline last_commit commit_before handed done part deliveries charged counted \
                          batch_limit pending mark queued delayed_at wait paused last_error";
    let fields = FIELDS.split(' ').map(|field| (field.to_owned(), Bson::from(1)));
    let mut fields: Document = fields.collect();
    fields.extend(doc! { "now": "$$NOW", "staged": staged() });
    if state {
        fields.extend(doc! { "state": 1, "version": 1, "state_version": 1 });
    }
    doc! { "find": entities, "filter": { "_id": { "$in": names } }, "projection": fields, "batchSize": i32::MAX }
}

/// The server's clock, from the document that is always there.
pub(crate) fn clock(meta: &str) -> Document {
    doc! { "find": meta, "filter": { "_id": "layout" }, "projection": { "_id": 0, "now": "$$NOW" } }
}

/// What a look needs of a parcel.
fn fields() -> Document {
    doc! { "n": 1, "seq": 1, "due": 1, "q": 1, "d": 1, "ids": 1, "payloads": 1, "headers": 1 }
}

/// A filter for everything but these. An expression: the server would plan to walk all others by their `_id`.
fn without(parcels: Vec<ObjectId>) -> Document {
    match parcels.is_empty() {
        true => Document::new(),
        false => doc! { "$expr": { "$not": [{ "$in": ["$_id", parcels] }] } },
    }
}

/// G2: everything that is queued or delayed at these entities, but what is about to be settled, up to so many parcels: one
/// walk of two indexes for the whole slice.
pub(crate) fn waits(messages: &str, names: Vec<Document>, going: Vec<ObjectId>, limit: usize) -> Document {
    let limit = i32::try_from(limit).unwrap_or(i32::MAX);
    let mut filter = doc! { "$or": [{ "q": { "$in": &names } }, { "d": { "$in": names } }] };
    filter.extend(without(going));
    doc! { "find": messages, "filter": filter, "limit": limit, "batchSize": limit, "projection": fields() }
}

/// G2: the same of one entity, whatever is queued there: so many parcels from the head of its queue without what was
/// settled and what is about to be, its first delayed parcel, and which settled ones are still stored.
pub(crate) fn queue(
    messages: &str,
    name: Document,
    going: &[ObjectId],
    done: &[ObjectId],
    most: usize,
) -> Document {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    // The queue comes last: only its end may be left out for its size.
    let mut pipeline = vec![
        doc! { "$match": { "d": &name } },
        doc! { "$sort": { "due": 1 } },
        doc! { "$limit": 1 },
        doc! { "$project": { "due": 1 } },
    ];
    if !done.is_empty() {
        pipeline.push(doc! { "$unionWith": { "coll": messages, "pipeline": [
        { "$match": { "_id": { "$in": done }, "q": { "$exists": true } } },
        { "$project": { "left": { "$literal": true } } }] } });
    }
    let mut queued = doc! { "q": name };
    queued.extend(without([done, going].concat()));
    pipeline.push(doc! { "$unionWith": { "coll": messages, "pipeline": [
    { "$match": queued }, { "$sort": { "seq": 1 } }, { "$limit": most }, { "$project": fields() }] } });
    doc! { "aggregate": messages, "cursor": { "batchSize": i32::MAX }, "pipeline": pipeline }
}

/// Numbers of the server are signed.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
