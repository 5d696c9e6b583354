//! Whether the settings in force keep what is promised.

use actornot_core::{DurabilityReport, Error, ErrorKind, Setting};
use mongodb::bson::{Bson, Document, doc};

use crate::MongoQueue;
use crate::codec::{int, text};
use crate::error::Doing;

/// The oldest server that the verbs were tried on: they use `$lookup` with fields and a pipeline.
const OLDEST: i64 = 6;

impl MongoQueue {
    pub(crate) async fn report(&self) -> Result<DurabilityReport, Error> {
        let db = &self.inner.connection;
        let build = db.run(&db.db, doc! { "buildInfo": 1 }, Doing::Read).await?;
        let hello = db.run(&db.db, doc! { "hello": 1 }, Doing::Read).await?;
        let admin = db.db.client().database("admin");
        let mut settings = Vec::new();
        let mut add = |name: &str, value: String, voids: Option<&str>| {
            settings.push(Setting { name: name.to_owned(), value, voids: voids.map(str::to_owned) });
        };
        let set = hello.get_str("setName").ok();
        db.elect(set.is_some());
        add("replicaSet", match set {
            Some(set) => format!("{set}, {} members", hello.get_array("hosts").map_or(0, Vec::len)),
            None => "none: a standalone survives its process, not its disk or its machine, and its order not a clock \
                     that is set back across a restart".to_owned(),
        }, None);
        add("writeConcern", "majority, journaled, for every write".to_owned(), None);
        // A run role may lack the right to ask; then they are reported as unknown.
        let status = db
            .run(&db.db, doc! { "serverStatus": 1, "repl": 0, "metrics": 0, "locks": 0 }, Doing::Read)
            .await;
        let engine = status.ok().and_then(|status| {
            status
                .get_document("storageEngine")
                .ok()
                .map(|engine| (text(engine, "name"), engine.get_bool("persistent").unwrap_or(true)))
        });
        let lost = engine.as_ref().is_some_and(|(_, persistent)| !persistent);
        add(
            "storageEngine",
            engine.map_or("unknown: this role may not ask".to_owned(), |(name, _)| name),
            lost.then_some("G1: this storage engine keeps nothing on the disk; use wiredTiger"),
        );
        if set.is_some() {
            let config = db.run(&admin, doc! { "replSetGetConfig": 1 }, Doing::Read).await;
            let journal = config.ok().and_then(|config| {
                let config = config.get_document("config").ok()?.clone();
                Some(config.get_bool("writeConcernMajorityJournalDefault").unwrap_or(true))
            });
            add("writeConcernMajorityJournalDefault",
                journal.map_or("unknown: this role may not ask".to_owned(), |value| value.to_string()),
                (journal == Some(false)).then_some(
                    "G1: members acknowledge before their disks; set writeConcernMajorityJournalDefault: true"));
        }
        Ok(DurabilityReport { server: format!("MongoDB {}", text(&build, "version")), settings })
    }

    /// Refuses a server that is too old, and settings that void G1 and were not allowed by name.
    pub(crate) async fn refuse_unsafe(&self) -> Result<(), Error> {
        let db = &self.inner.connection;
        let build = db.run(&db.db, doc! { "buildInfo": 1 }, Doing::Read).await?;
        if is_too_old(&build) {
            return Err(Error::new(
                ErrorKind::Incompatible,
                format!(
                    "this server is MongoDB {}, actornot-mongo needs {OLDEST}.0 or newer",
                    text(&build, "version")
                ),
            ));
        }
        let report = self.report().await?;
        let allowed = &self.inner.target.allowed;
        let bad = report
            .settings
            .iter()
            .find(|setting| setting.voids.is_some() && !allowed.contains(&setting.name));
        match bad {
            None => Ok(()),
            Some(Setting { name, value, voids }) => Err(Error::new(
                ErrorKind::Incompatible,
                format!(
                    "{name} is {value}: {}; or accept it with MongoConfig::allow_unsafe({name:?})",
                    voids.as_deref().unwrap_or_default()
                ),
            )),
        }
    }
}

fn is_too_old(build: &Document) -> bool {
    let first = |parts: &Vec<Bson>| Some(int(&doc! { "v": parts.first()?.clone() }, "v"));
    build.get_array("versionArray").ok().and_then(first).unwrap_or(0) < OLDEST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_before_the_oldest_or_of_no_version_is_too_old() {
        for (parts, too_old) in
            [(vec![5, 0, 31, 0], true), (vec![6, 0, 0, 0], false), (vec![10, 0, 0, 0], false)]
        {
            assert_eq!(is_too_old(&doc! { "versionArray": parts }), too_old);
        }
        assert!(is_too_old(&doc! {}));
    }
}
