//! Creates the collections and their indexes, and refuses those of a newer version.

use actornot_core::{Error, ErrorKind};
use mongodb::bson::{Document, doc};

use crate::codec::int;
use crate::connection::Connection;
use crate::error::Doing;
use crate::statements::{concern, update};

/// The version this crate writes. Beside it stands the oldest version whose processes may go on: a release that only
/// adds leaves that as it is, so that instances of both run side by side while one is replaced by the other.
pub(crate) const VERSION: i64 = 1;

/// Creates what is missing; any number of processes may do it at once.
pub(crate) async fn install(db: &Connection) -> Result<(), Error> {
    if installed(db).await?.is_some() {
        return check(db).await;
    }
    for (collection, indexes) in [(&db.entities, entity_indexes()), (&db.messages, message_indexes())] {
        let command = doc! { "createIndexes": collection, "indexes": indexes, "writeConcern": concern() };
        db.run(&db.db, command, Doing::One).await?;
    }
    // Last: whoever reads it finds the indexes.
    let version = doc! { "q": { "_id": "layout" }, "u": { "$max": { "version": VERSION, "oldest": VERSION } }, "upsert": true };
    db.write(update(&db.meta, vec![version])).await?.check()?;
    check(db).await
}

/// Whether what is installed can be used.
pub(crate) async fn check(db: &Connection) -> Result<(), Error> {
    match installed(db).await? {
        Some((_, oldest)) if oldest <= VERSION => Ok(()),
        None => Err(Error::new(
            ErrorKind::Incompatible,
            format!(
                "the collections {}* are not installed; call MongoQueue::install with a role that may",
                db.meta.trim_end_matches("meta")
            ),
        )),
        Some((found, _)) => Err(Error::new(
            ErrorKind::Incompatible,
            format!(
                "the collections have layout version {found}, this actornot-mongo knows version {VERSION}; \
                 run the newer release"
            ),
        )),
    }
}

async fn installed(db: &Connection) -> Result<Option<(i64, i64)>, Error> {
    let rows = db.read(doc! { "find": &db.meta, "filter": { "_id": "layout" } }).await?;
    Ok(rows.first().map(|row| (int(row, "version"), int(row, "oldest"))))
}

fn entity_indexes() -> Vec<Document> {
    vec![doc! { "name": "wake", "key": { "wake_at": 1, "_id": 1 },
    "partialFilterExpression": { "wake_at": { "$exists": true } } }]
}

/// Each partial index holds only what it serves: a day of tombstones costs the queue nothing.
fn message_indexes() -> Vec<Document> {
    let index = |name: &str, key: Document, field: &str| {
        doc! { "name": name, "key": key, "partialFilterExpression": { field: { "$exists": true } } }
    };
    vec![
        index("queue", doc! { "q": 1, "seq": 1 }, "q"),
        index("delayed", doc! { "d": 1, "due": 1, "seq": 1 }, "d"),
        index("dead", doc! { "x": 1, "no": 1 }, "x"),
        index("letter", doc! { "l": 1, "ids": 1 }, "l"),
        // G7: an id is in one document. Letters leave the memory of theirs where they came from.
        doc! { "name": "ids", "key": { "e": 1, "ids": 1 }, "unique": true,
        "partialFilterExpression": { "e": { "$exists": true } } },
        doc! { "name": "forget", "key": { "expires": 1 }, "expireAfterSeconds": 0 },
    ]
}
