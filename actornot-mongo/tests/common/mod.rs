//! What the tests of this crate share.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)] // Each test binary uses its part.

use std::sync::Arc;

use actornot_mongo::mongodb::bson::oid::ObjectId;
use actornot_mongo::mongodb::{Client, Database};
#[allow(unused_imports)]
pub(crate) use actornot_testkit::items::*;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The same URL with another database.
pub(crate) fn with_database(url: &str, database: &str) -> String {
    let (base, parameters) = url.split_once('?').unwrap_or((url, ""));
    format!("{}/{database}?{parameters}", base.trim_end_matches('/'))
}

/// The host and port of a URL, and whatever follows.
pub(crate) fn host(url: &str) -> &str {
    let rest = url.split_once("://").unwrap().1;
    let authority = rest.split(['/', '?']).next().unwrap();
    authority.rsplit('@').next().unwrap()
}

/// A database of its own, dropped at the end.
pub(crate) struct Place {
    pub(crate) url: String,
    pub(crate) database: String,
}

impl Place {
    pub(crate) fn new(server: &str) -> Self {
        let database = format!("t{}", ObjectId::new().to_hex());
        Self { url: with_database(server, &database), database }
    }

    pub(crate) async fn outside(&self) -> Database {
        Client::with_uri_str(&self.url).await.unwrap().database(&self.database)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (url, database) = (self.url.clone(), self.database.clone());
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let client = Client::with_uri_str(&url).await.unwrap();
                let _ = client.database(&database).drop().await;
            });
        });
        let _ = dropped.join();
    }
}

/// Passes bytes to a server, and can be held: what was sent waits, and is passed on later.
pub(crate) struct Forwarder {
    pub(crate) port: u16,
    held: Arc<watch::Sender<bool>>,
}

impl Forwarder {
    /// On a thread of its own, so that it outlives the runtimes of its users.
    pub(crate) fn start(server: String) -> Self {
        let (held, hold) = watch::channel(false);
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap().port()).unwrap();
                let mut end = hold.clone();
                loop {
                    tokio::select! {
                        accepted = listener.accept() => {
                            let Ok((client, _)) = accepted else { continue };
                            tokio::spawn(pass(client, server.clone(), hold.clone()));
                        }
                        // Its sender is gone.
                        Err(_) = end.changed() => return,
                    }
                }
            });
        });
        Self { port: told.recv().unwrap(), held: Arc::new(held) }
    }

    /// Holds what clients send until the answer is dropped.
    pub(crate) fn hold(&self) -> Held {
        self.held.send_replace(true);
        Held(self.held.clone())
    }
}

pub(crate) struct Held(Arc<watch::Sender<bool>>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

async fn pass(client: TcpStream, server: String, mut hold: watch::Receiver<bool>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
    let Ok(server) = TcpStream::connect(server).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let back = async { copy(&mut from_server, &mut to_client).await };
    let forth = async {
        let mut bytes = vec![0; 64 << 10];
        loop {
            let count = from_client.read(&mut bytes).await?;
            if count == 0 || hold.wait_for(|held| !held).await.is_err() {
                return Ok::<(), std::io::Error>(());
            }
            to_server.write_all(&bytes[..count]).await?;
        }
    };
    tokio::select! { _ = back => {}, _ = forth => {} }
}
