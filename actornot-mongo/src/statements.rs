//! Commands and expressions. What the guards refuse, they refuse by an expression that fails on purpose: a bulk
//! update then names each refused statement, and applies its neighbours.

use actornot_core::{Lease, Limits, Nonce};
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, Document, doc};

use crate::codec::{literal, millis};

/// So many bytes of one entity's queue are brought back in its row, beside its state; but always one message.
pub(crate) const HEAD_BYTES: i64 = 8 << 20;

/// G1: on the disks of a majority before it is answered, whatever the URL says.
pub(crate) fn concern() -> Document {
    doc! { "w": "majority", "j": true }
}

pub(crate) fn update(collection: &str, updates: Vec<Document>) -> Document {
    doc! { "update": collection, "updates": updates, "ordered": false, "writeConcern": concern() }
}

/// Refuses the statement with a word. Never a constant: that would be folded, and fail, also in a branch not taken.
pub(crate) fn refuse(word: &str) -> Document {
    let fence = doc! { "$toString": { "$ifNull": ["$fence", ""] } };
    doc! { "$toInt": { "$concat": [format!("actornot:{word}:"), fence] } }
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
pub(crate) fn hand(batch: &[(String, mongodb::bson::oid::ObjectId)]) -> Document {
    let Some((_, first)) = batch.first() else { return doc! { "$set": { "handed": [] } } };
    let of_head = |field: &str| doc! { "$cond": [{ "$eq": ["$counted", *first] }, field, 0_i64] };
    let handed: Vec<Document> = batch.iter().map(|(id, u)| doc! { "i": id, "u": *u }).collect();
    doc! { "$set": {
        "deliveries": { "$add": [of_head("$deliveries"), 1_i64] },
        "charged": { "$add": [of_head("$charged"), i64::from(batch.len() == 1)] },
        "counted": *first, "handed": literal(handed),
    } }
}

/// G3: binds a grant to the row as it was read: every grant and every commit raises the fence.
pub(crate) fn grant_guard(fence: Option<u64>, deliveries: u32, now: i64) -> Document {
    let free = doc! { "$not": [{ "$or": [live(), paused(), waiting()] }] };
    let (same, next): (Document, Bson) = match fence {
        // Also the counters, which a resume sets back.
        Some(fence) => (
            doc! { "$and": [{ "$eq": ["$fence", signed(fence)] },
            { "$eq": ["$deliveries", i64::from(deliveries)] }] },
            doc! { "$add": ["$fence", 1_i64] }.into(),
        ),
        None => (doc! { "$eq": [{ "$type": "$fence" }, "missing"] }, (now + 1).into()),
    };
    doc! { "$set": { "fence": { "$cond": [{ "$and": [same, free] }, next, refuse("moved")] } } }
}

/// G3: the lease itself.
pub(crate) fn grant_set(nonce: Nonce, length: i64, batch_limit: u32) -> Document {
    doc! { "$set": {
        "nonce": nonce.to_string(), "deadline": { "$add": ["$$NOW", length] },
        "batch_limit": i64::from(batch_limit),
    } }
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
    let guard = doc! { "$cond": [held_by(lease.nonce), "$mark", refuse("not")] };
    vec![doc! { "$set": { "mark": guard } }, uncount(), doc! { "$set": { "queued": true } }, unlock(), wake()]
}

/// Renews a lease that is still held by its nonce (G3).
pub(crate) fn extend(lease: &Lease) -> Vec<Document> {
    let renewed = doc! { "$add": ["$$NOW", millis(lease.length)] };
    vec![doc! { "$set": { "deadline": { "$cond": [held_by(lease.nonce), renewed, refuse("not")] } } }, wake()]
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

/// G7: a settled message becomes its own tombstone, until its retention is over.
pub(crate) fn bury_stages() -> Vec<Document> {
    let accepted =
        doc! { "$max": ["$at", { "$cond": [{ "$gt": ["$seq", null] }, { "$toDate": "$seq" }, null] }] };
    vec![
        doc! { "$set": { "over": { "$add": [accepted, "$keep"] } } },
        doc! { "$set": { "expires": { "$cond": [{ "$gt": ["$hold", null] }, "$$REMOVE", "$over"] } } },
        doc! { "$unset": ["payload", "headers", "q", "seq", "u", "d", "due", "x", "no", "error", "attempts"] },
    ]
}

/// G2: the documents of these entities, and the server's clock. What is queued is read behind it, in a command of its
/// own: whoever marks an entity after this read is refused by the mark, and whoever commits, by the fence.
pub(crate) fn rows(meta: &str, entities: &str, names: Vec<Document>) -> Document {
    let clock = doc! { "coll": meta, "pipeline": [
    { "$match": { "_id": "layout" } }, { "$project": { "_id": 0, "now": "$$NOW" } }] };
    doc! { "aggregate": entities, "cursor": { "batchSize": i32::MAX }, "pipeline": [
        { "$match": { "_id": { "$in": names } } },
        { "$set": { "now": "$$NOW", "live": live(), "staged": staged() } },
        { "$unset": ["outbox", "bury"] },
        { "$unionWith": clock },
    ] }
}

/// G2: everything that is queued or delayed at these entities, up to so many: one walk of two indexes for the whole
/// slice. What is about to be settled needs no payload.
pub(crate) fn waits(messages: &str, names: Vec<Document>, going: Vec<ObjectId>, limit: i64) -> Document {
    let unless_going = |field: &str| match going.is_empty() {
        true => Bson::from(1),
        false => doc! { "$cond": [{ "$in": ["$u", &going] }, "$$REMOVE", format!("${field}")] }.into(),
    };
    let filter = doc! { "$or": [{ "q": { "$in": &names } }, { "d": { "$in": &names } }] };
    doc! { "find": messages, "filter": filter, "limit": limit, "batchSize": limit, "projection": {
    "u": 1, "seq": 1, "due": 1, "q": 1, "d": 1,
    "payload": unless_going("payload"), "headers": unless_going("headers") } }
}

/// G2, G4: one row for each entity, stored or not: its document, the head of its queue without what the last commit
/// settled, what that left behind, and its first delayed message. However much is queued, it reads no more than that;
/// but it walks the indexes once for each entity.
pub(crate) fn look(
    meta: &str,
    entities: &str,
    messages: &str,
    names: Vec<(Document, i64)>,
    most: i64,
) -> Document {
    let names: Vec<Document> =
        names.into_iter().map(|(name, settles)| doc! { "_id": name, "settles": settles }).collect();
    let unsettled = doc! { "$not": [{ "$in": ["$u", "$$done"] }] };
    let over = doc! { "$lte": ["$due", "$$NOW"] };
    // One row must fit into 16 MB. What is about to be settled needs no payload, the first of the rest always has its
    // own, and what is too much keeps its place without it.
    let going = doc! { "$in": ["$u", { "$slice": [{ "$concatArrays": ["$$handed", [null]] }, { "$max": [1, "$$settles"] }] }] };
    let going = doc! { "$and": [{ "$gt": ["$$settles", 0] }, going] };
    let before = doc! { "$sum": "$size", "window": { "documents": ["unbounded", "current"] } };
    let fits = doc! { "$or": [{ "$lte": ["$total", HEAD_BYTES] }, { "$eq": ["$total", "$size"] }] };
    let bare = doc! { "$or": [{ "$eq": ["$size", 0] }, { "$not": [fits] }] };
    let unless_bare = |field: &str| doc! { "$cond": ["$bare", "$$REMOVE", field] };
    doc! { "aggregate": meta, "cursor": { "batchSize": i32::MAX }, "pipeline": [
        // One document that is always there, as the source of the names: `$documents` would need a right on the whole
        // database.
        { "$match": { "_id": "layout" } },
        { "$project": { "_id": 0, "name": literal(names) } },
        { "$unwind": "$name" },
        { "$replaceWith": "$name" },
        { "$lookup": { "from": entities, "localField": "_id", "foreignField": "_id", "as": "r" } },
        { "$replaceWith": { "$mergeObjects": [{ "$first": "$r" }, { "_id": "$_id", "settles": "$settles" }] } },
        { "$set": { "now": "$$NOW", "live": live(), "staged": staged() } },
        { "$unset": ["outbox", "bury"] },
        { "$lookup": { "from": messages, "localField": "_id", "foreignField": "q", "as": "head",
            "let": { "done": { "$ifNull": ["$done.u", []] }, "handed": { "$ifNull": ["$handed.u", []] },
                "settles": "$settles" }, "pipeline": [
            { "$sort": { "seq": 1 } }, { "$match": { "$expr": unsettled } }, { "$limit": most },
            { "$project": { "u": 1, "payload": 1, "headers": 1, "seq": 1,
                "size": { "$cond": [going, 0, { "$bsonSize": "$$ROOT" }] } } },
            { "$setWindowFields": { "sortBy": { "seq": 1 }, "output": { "total": before } } },
            { "$set": { "bare": bare } },
            { "$project": { "u": 1, "seq": 1, "size": 1, "bare": 1, "payload": unless_bare("$payload"),
                "headers": unless_bare("$headers") } }] } },
        { "$lookup": { "from": messages, "localField": "done.id", "foreignField": "_id", "as": "left", "pipeline": [
            { "$match": { "q": { "$exists": true } } }, { "$project": { "u": 1 } }] } },
        { "$lookup": { "from": messages, "localField": "_id", "foreignField": "d", "as": "late", "pipeline": [
            { "$sort": { "due": 1 } }, { "$limit": 1 }, { "$project": { "due": 1, "over": over } }] } },
    ] }
}

/// Takes everything from an entity but its fence, its mark and its last commit, unless it was told of a message since
/// it was looked at. The fence only rises, and the marks go on: nothing from before can be mistaken for what comes.
pub(crate) fn purge(mark: i64) -> Vec<Document> {
    let same = doc! { "$cond": [{ "$eq": ["$mark", mark] }, "$mark", refuse("moved")] };
    vec![
        doc! { "$set": { "mark": same } },
        doc! { "$set": {
            "fence": { "$max": [{ "$toLong": "$$NOW" }, { "$add": ["$fence", 1_i64] }] },
            "queued": false, "pending": 0_i64, "handed": [], "bury": [], "since": "$$NOW", "gone": true,
            "deliveries": 0_i64, "charged": 0_i64, "version": 0_i64, "batch_limit": i64::from(u32::MAX),
        } },
        doc! { "$unset": ["nonce", "deadline", "wait", "paused", "last_error", "state", "state_version",
        "delayed_at", "counted"] },
        wake(),
    ]
}

/// So many messages of each entity are counted for whoever looks.
pub(crate) const COUNTED: i64 = 100;

/// State and backlog of entities, in the order of their names; no limit if it is nought.
pub(crate) fn snapshots(entities: &str, messages: &str, filter: Document, limit: u32) -> Document {
    let some = |place: &str, condition: Document| {
        doc! { "$lookup": { "from": messages, "localField": "_id", "foreignField": place, "as": place,
        "let": { "done": { "$ifNull": ["$done.u", []] } }, "pipeline": [
            { "$match": condition }, { "$limit": COUNTED + 1 }, { "$project": { "_id": 0, "u": 1 } }] } }
    };
    let unsettled = doc! { "$expr": { "$not": [{ "$in": ["$u", "$$done"] }] } };
    let mut pipeline = vec![doc! { "$match": filter }, doc! { "$sort": { "_id": 1 } }];
    if limit > 0 {
        pipeline.push(doc! { "$limit": i64::from(limit) });
    }
    pipeline.extend([
        some("q", unsettled),
        some("d", doc! {}),
        doc! { "$project": { "state": 1, "version": 1, "state_version": 1, "pending": 1,
        "counted": { "$add": [{ "$size": "$q" }, { "$size": "$d" }] } } },
    ]);
    doc! { "aggregate": entities, "cursor": {}, "pipeline": pipeline }
}

/// Numbers of the server are signed.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
