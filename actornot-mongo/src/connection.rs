//! Commands to the server, and what it answers in three places: `ok`, `writeErrors`, `writeConcernError`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actornot_core::{Error, ErrorKind};
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, Document, doc};
use mongodb::{Client, Database};

use crate::config::Target;
use crate::error::{self, Doing, after_write};
use crate::statements::{Change, REFUSAL, Write, concern, together};
use crate::turn::Line;

/// From so many on, changes of one shape share a statement.
const TOGETHER: usize = 3;

/// So long may the server take to answer, beyond what a call waits for its turn. A commit waits for the disks of a
/// majority.
const ANSWER: Duration = Duration::from_secs(20);

/// A client with its pool, and the names of the collections.
pub(crate) struct Connection {
    pub(crate) db: Database,
    /// Whether it is one replica set, spoken to without a router: then the terms in its answers are those of one log.
    elects: AtomicBool,
    line: Line,
    patience: Duration,
    pub(crate) entities: String,
    pub(crate) messages: String,
    pub(crate) meta: String,
}

/// What became of one statement of a command.
pub(crate) enum Outcome {
    Applied,
    /// The entity was not as it was read; nothing of the statement was applied.
    Refused,
    Failed(Error),
}

/// The answer to a write.
pub(crate) struct Reply {
    /// How many documents were matched, inserted or deleted.
    pub(crate) n: i64,
    /// How many an update left otherwise than it found them, or made.
    pub(crate) modified: i64,
    /// The term of the primary that answered; nought where there are no elections.
    pub(crate) term: i64,
    errors: BTreeMap<usize, (i32, String)>,
}

/// Two created the same entity, or one exists and is not as it was read; and what a [`Change`] makes the server say.
///
/// [`Change`]: crate::statements::Change
const REFUSED: [i32; 2] = [11000, 66];

impl Reply {
    pub(crate) fn duplicate(&self, index: usize) -> bool {
        self.errors.get(&index).is_some_and(|(code, _)| *code == 11000)
    }

    pub(crate) fn outcome(&self, index: usize) -> Outcome {
        let Some((code, message)) = self.errors.get(&index) else { return Outcome::Applied };
        match REFUSED.contains(code) || message.contains(REFUSAL) {
            true => Outcome::Refused,
            false => Outcome::Failed(error::of_code(*code, message, Doing::One)),
        }
    }

    /// The first error that is not a known id.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self.errors.iter().find(|(_, (code, _))| *code != 11000) {
            Some((_, (code, message))) => Err(error::of_code(*code, message, Doing::Many)),
            None => Ok(()),
        }
    }

    pub(crate) fn failed(&self, index: usize) -> Option<Error> {
        let (code, message) = self.errors.get(&index).filter(|(code, _)| *code != 11000)?;
        Some(error::of_code(*code, message, Doing::One))
    }
}

/// Writes, one behind the other. Where answers name the term of their primary, only the last has to wait for a majority:
/// with it, a majority has all that the same primary wrote before. By default, each waits.
#[derive(Default)]
pub(crate) struct Series {
    is_weak: bool,
    term: Option<i64>,
}

impl Series {
    pub(crate) fn is_weak(&self) -> bool {
        self.is_weak
    }

    /// For all but the last one.
    pub(crate) fn concern(&self) -> Document {
        if self.is_weak {
            doc! { "w": 1 }
        } else {
            concern()
        }
    }

    /// An error unless the same primary answered: another may have lost what the one before had, and so may a server that
    /// names no term.
    pub(crate) fn add(&mut self, reply: &Reply) -> Result<(), Error> {
        let same = *self.term.get_or_insert(reply.term) == reply.term && reply.term > 0;
        if self.is_weak && !same {
            let elected = "MongoDB's primary was not the same for two writes of one post";
            return Err(Error::new(ErrorKind::UnknownOutcome, elected));
        }
        Ok(())
    }
}

impl Connection {
    /// Connects when the first command needs it. `connections` is the size of its pool.
    pub(crate) fn new(target: &Target, connections: u32) -> Result<Self, Error> {
        let mut options = target.options.clone();
        options.max_pool_size = Some(connections);
        let client = Client::with_options(options).map_err(|error| error::map(&error, Doing::Read))?;
        let name = |part: &str| format!("{}_{part}", target.namespace);
        Ok(Self {
            db: client.database(&target.database),
            elects: AtomicBool::new(false),
            line: Line::new(connections, target.patience),
            patience: target.patience,
            entities: name("entity"),
            messages: name("message"),
            meta: name("meta"),
        })
    }

    /// One command as it is; an error if the server refused it as a whole.
    pub(crate) async fn run(
        &self,
        db: &Database,
        command: Document,
        doing: Doing,
    ) -> Result<Document, Error> {
        let _turn = self.line.turn().await?;
        match tokio::time::timeout(self.patience + ANSWER, db.run_command(command)).await {
            Ok(answer) => answer.map_err(|error| error::map(&error, doing)),
            Err(_) => Err(silent(doing)),
        }
    }

    /// A write, durable on a majority when it answers.
    pub(crate) async fn write(&self, command: Document) -> Result<Reply, Error> {
        let statements =
            ["updates", "documents", "deletes"].iter().find_map(|part| command.get_array(part).ok());
        let many = |statements: &Bson| statements.as_document().is_some_and(|one| one.contains_key("multi"));
        let many = statements.is_some_and(|all| all.len() > 1 || all.iter().any(many));
        let doing = if many { Doing::Many } else { Doing::One };
        let answer = self.run(&self.db, command, doing).await?;
        let mut errors = BTreeMap::new();
        for error in answer.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default() {
            let Some(error) = error.as_document() else { continue };
            let index = usize::try_from(crate::codec::int(error, "index")).unwrap_or(usize::MAX);
            let code = i32::try_from(crate::codec::int(error, "code")).unwrap_or_default();
            errors.insert(index, (code, crate::codec::text(error, "errmsg")));
        }
        if let Ok(concern) = answer.get_document("writeConcernError") {
            let code = crate::codec::int(concern, "code");
            return Err(Error::new(
                ErrorKind::UnknownOutcome,
                format!("MongoDB applied the write, and not on a majority in time (code {code})"),
            ));
        }
        let count = |field: &str| crate::codec::int(&answer, field);
        let term = answer.get_document("opTime").map_or(0, |at| crate::codec::int(at, "t"));
        if term == 0 {
            self.elect(false);
        }
        let made = answer.get_array("upserted").map_or(0, |made| i64::try_from(made.len()).unwrap_or(0));
        Ok(Reply { n: count("n"), modified: count("nModified") + made, term, errors })
    }

    /// What `hello` says; a server that was a member once, and names no term any more, takes it back.
    pub(crate) fn elect(&self, elects: bool) {
        self.elects.store(elects, Ordering::Relaxed);
    }

    /// For writes of which the last is durable, and is added too.
    pub(crate) fn series(&self) -> Series {
        Series { is_weak: self.elects.load(Ordering::Relaxed), term: None }
    }

    /// Changes entities, in one command; what became of each, in order. `update` says how durably.
    pub(crate) async fn apply(
        &self,
        writes: Vec<Write>,
        update: fn(&str, Vec<Document>) -> Document,
        series: &mut Series,
    ) -> Result<Vec<Outcome>, Error> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        let mut outcomes: Vec<Outcome> = writes.iter().map(|_| Outcome::Refused).collect();
        let (groups, alone) = grouped(writes);
        let told = ObjectId::new();
        let mut statements: Vec<Document> =
            groups.iter().map(|group| together(group.iter().map(|(_, change)| &**change), told)).collect();
        let (places, own): (Vec<usize>, Vec<Document>) = alone.into_iter().unzip();
        statements.extend(own);
        let reply = self.write(update(&self.entities, statements)).await?;
        series.add(&reply)?;
        // Statements of groups only tell how many they changed, all in all.
        let mut changed = groups.iter().map(Vec::len).sum::<usize>();
        for (at, index) in places.into_iter().enumerate() {
            let outcome = reply.outcome(groups.len() + at);
            changed += usize::from(matches!(outcome, Outcome::Applied));
            put(&mut outcomes, index, outcome);
        }
        let failed = |at: usize| !matches!(reply.outcome(at), Outcome::Applied);
        let whole = reply.modified >= i64::try_from(changed).unwrap_or(i64::MAX);
        let found = match whole && !(0..groups.len()).any(failed) {
            true => None,
            false => Some(self.told(groups.iter().flatten().map(|(_, change)| &change.id), told).await?),
        };
        let mut again = Vec::new();
        for (at, group) in groups.into_iter().enumerate() {
            for (index, change) in group {
                match found.as_ref().is_none_or(|found| found.contains(&change.id.to_string())) {
                    true => put(&mut outcomes, index, Outcome::Applied),
                    // What one of them fails by is no concern of the others.
                    false if failed(at) => again.push((index, change.statement())),
                    false => {}
                }
            }
        }
        if again.is_empty() {
            return Ok(outcomes);
        }
        let (places, statements): (Vec<usize>, Vec<Document>) = again.into_iter().unzip();
        let reply = self.write(update(&self.entities, statements)).await.map_err(after_write)?;
        series.add(&reply)?;
        for (at, index) in places.into_iter().enumerate() {
            put(&mut outcomes, index, reply.outcome(at));
        }
        Ok(outcomes)
    }

    /// Which of these were changed under this name. One that another has changed since is not found.
    async fn told(
        &self,
        ids: impl Iterator<Item = &Bson>,
        told: ObjectId,
    ) -> Result<BTreeSet<String>, Error> {
        let filter = doc! { "_id": { "$in": ids.cloned().collect::<Vec<_>>() }, "told": told };
        let find = doc! { "find": &self.entities, "filter": filter, "projection": { "_id": 1 }, "batchSize": i32::MAX };
        let (found, _) = self.look(find, usize::MAX).await.map_err(after_write)?;
        Ok(found.iter().filter_map(|row| Some(row.get("_id")?.to_string())).collect())
    }

    /// A read of what a majority holds, from the primary: what it shows stays.
    pub(crate) async fn read(&self, mut command: Document) -> Result<Vec<Document>, Error> {
        command.insert("readConcern", doc! { "level": "majority" });
        Ok(self.look(command, usize::MAX).await?.0)
    }

    /// A read of what the primary holds, grants among it that no majority has yet. What it shows may be lost with the
    /// primary, unless a write behind it is on a majority: the log of the server is kept or lost from one moment on.
    /// No more once it comes to so many bytes; and whether that was all.
    pub(crate) async fn look(&self, command: Document, bytes: usize) -> Result<(Vec<Document>, bool), Error> {
        let _turn = self.line.turn().await?;
        let rows = async {
            let mut cursor = self.db.run_cursor_command(command).await?;
            let (mut rows, mut left) = (Vec::new(), bytes);
            while cursor.advance().await? {
                rows.push(cursor.deserialize_current()?);
                left = match left.checked_sub(cursor.current().as_bytes().len()) {
                    Some(less) => less,
                    None => return Ok((rows, false)),
                };
            }
            Ok((rows, true))
        };
        match tokio::time::timeout(self.patience + ANSWER, rows).await {
            Ok(rows) => rows.map_err(|error: mongodb::error::Error| error::map(&error, Doing::Read)),
            Err(_) => Err(silent(Doing::Read)),
        }
    }
}

/// Changes, or statements, each with its place.
type Placed<T> = Vec<(usize, T)>;

/// Changes of one shape, each of another entity, share a statement if they are enough; the rest has one each.
fn grouped(writes: Vec<Write>) -> (Vec<Placed<Box<Change>>>, Placed<Document>) {
    let (mut alone, mut shapes, mut ids) = (Vec::new(), BTreeMap::<_, Placed<_>>::new(), BTreeSet::new());
    for (index, write) in writes.into_iter().enumerate() {
        match write {
            Write::Whole(statement) => alone.push((index, statement)),
            Write::Change(change) => match change.shape().filter(|_| ids.insert(change.id.to_string())) {
                Some(shape) => shapes.entry(shape).or_default().push((index, change)),
                None => alone.push((index, change.statement())),
            },
        }
    }
    let (groups, few): (Vec<_>, Vec<_>) = shapes.into_values().partition(|group| group.len() >= TOGETHER);
    alone.extend(few.into_iter().flatten().map(|(index, change)| (index, change.statement())));
    (groups, alone)
}

fn put(outcomes: &mut [Outcome], index: usize, outcome: Outcome) {
    if let Some(slot) = outcomes.get_mut(index) {
        *slot = outcome;
    }
}

fn silent(doing: Doing) -> Error {
    let kind = if doing == Doing::Read { ErrorKind::Unavailable } else { ErrorKind::UnknownOutcome };
    Error::new(kind, "MongoDB did not answer in time")
}

/// A document inside a document, or an empty one.
pub(crate) fn documents(row: &Document, field: &str) -> Vec<Document> {
    let all = row.get_array(field).map(Vec::as_slice).unwrap_or_default();
    all.iter().filter_map(Bson::as_document).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_primary_that_names_its_term_vouches_for_what_it_wrote_before() {
        let kept = |is_weak: bool, terms: [i64; 2]| {
            let mut series = Series { is_weak, term: None };
            let reply = |term| Reply { n: 1, modified: 0, term, errors: BTreeMap::new() };
            terms.into_iter().try_for_each(|term| series.add(&reply(term))).is_ok()
        };
        assert!(kept(true, [7, 7]));
        assert!(!kept(true, [7, 8]) && !kept(true, [7, 0]) && !kept(true, [0, 0]));
        // Each was durable by itself.
        assert!(kept(false, [0, 0]) && kept(false, [7, 8]));
    }
}
