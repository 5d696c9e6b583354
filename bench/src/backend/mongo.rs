//! MongoDB: a replica set of one, majority and journaled.

use std::time::Duration;

use actornot_mongo::mongodb::bson::{Document, doc};
use actornot_mongo::mongodb::options::{Acknowledgment, ClientOptions, CollectionOptions, WriteConcern};
use actornot_mongo::mongodb::{Client, Collection, Database};
use actornot_mongo::{MongoConfig, MongoQueue};
use actornot_testkit::servers::{self, Service};
use async_trait::async_trait;

use super::{Backend, PATIENCE, Place, Size, fresh_name};
use crate::Result;
use crate::raw::Writer;

const DATABASE: &str = "bench";

pub(super) struct Mongo {
    url: String,
    client: Client,
    collection: String,
}

impl Mongo {
    pub(super) async fn start() -> Result<Self> {
        let url = tokio::task::spawn_blocking(|| servers::url(Service::Mongo)).await?;
        let mut options = ClientOptions::parse(&url).await?;
        options.max_pool_size = Some(64);
        options.server_selection_timeout = Some(Duration::from_secs(5));
        Ok(Self { url, client: Client::with_options(options)?, collection: fresh_name() })
    }

    fn database(&self) -> Database {
        self.client.database(DATABASE)
    }
}

pub(super) async fn open(place: &Place) -> Result<MongoQueue> {
    let config = MongoConfig::new(&place.url).namespace(&place.namespace).patience(PATIENCE);
    Ok(MongoQueue::open(config).await?)
}

#[async_trait]
impl Backend for Mongo {
    async fn version(&self) -> Result<String> {
        let info = self.database().run_command(doc! { "buildInfo": 1 }).await?;
        Ok(format!("MongoDB {}, a replica set, majority and journaled", info.get_str("version")?))
    }

    fn place(&self) -> Place {
        let (before, options) = self.url.split_once('?').unwrap_or((&self.url, ""));
        let server = before.trim_end_matches('/');
        Place { url: format!("{server}/{DATABASE}?{options}"), namespace: fresh_name() }
    }

    async fn writer(&self) -> Result<Box<dyn Writer>> {
        let durable = WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build();
        let options = CollectionOptions::builder().write_concern(durable).build();
        Ok(Box::new(Inserts(self.database().collection_with_options(&self.collection, options))))
    }

    async fn sizes(&self, place: &Place) -> Result<Vec<Size>> {
        let mut sizes = Vec::new();
        for name in self.database().list_collection_names().await? {
            let Some(part) = name.strip_prefix(&format!("{}_", place.namespace)) else { continue };
            let stats = self.database().run_command(doc! { "collStats": &name }).await?;
            let figure = |field: &str| {
                let value = stats.get(field);
                value.and_then(|value| {
                    value.as_f64().or(value.as_i64().map(|n| n as f64)).or(value.as_i32().map(f64::from))
                })
            };
            for (what, field, unit) in [
                ("documents", "count", 1.0),
                ("bytes a document", "avgObjSize", 1.0),
                ("stored MiB", "storageSize", 1048576.0),
                ("index MiB", "totalIndexSize", 1048576.0),
            ] {
                let value = figure(field).unwrap_or_default() / unit;
                sizes.push(Size { name: format!("{part} {what}"), value });
            }
        }
        sizes.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(sizes)
    }

    async fn asked(&self) -> Result<Option<u64>> {
        let status = self.client.database("admin").run_command(doc! { "serverStatus": 1 }).await?;
        let counters = status.get_document("opcounters")?;
        // "command" holds what drivers and members of the set say to each other all the time.
        let count = |name: &str| {
            let value = counters.get(name);
            value.and_then(|value| value.as_i64().or(value.as_i32().map(i64::from))).unwrap_or_default()
        };
        Ok(Some(["insert", "query", "update", "delete"].into_iter().map(count).sum::<i64>().try_into()?))
    }
}

struct Inserts(Collection<Document>);

#[async_trait]
impl Writer for Inserts {
    async fn write(&mut self, payload: &str) -> Result<()> {
        self.0.insert_one(doc! { "payload": payload }).await?;
        Ok(())
    }
}
