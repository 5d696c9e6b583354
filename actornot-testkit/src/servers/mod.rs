//! Real database servers for tests: found, or started.
//!
//! [`url`] is the server that all tests share, [`own`] one that a test may hurt. A server comes from, in this order,
//!
//! 1. the environment: [`Service::variable`] names its URL;
//! 2. programs on this machine, started on a free port of 127.0.0.1 over a temporary folder, with durable settings;
//! 3. a Docker engine; `ACTORNOT_POSTGRES_IMAGE`, `ACTORNOT_PGBOUNCER_IMAGE`, `ACTORNOT_MONGO_IMAGE` and
//!    `ACTORNOT_REDIS_IMAGE` name other images than the official ones.
//!
//! `ACTORNOT_TEST_SERVERS=env|local|docker` forces one. None to be had is a panic that names the command which mends
//! it; no test is skipped. What was started ends with the process that started it, even if that is killed.
//!
//! The program `servers` of this crate starts them once for many test processes:
//! `cargo run -p actornot-testkit --features servers --bin servers -- cargo test`.

mod account;
mod address;
mod bouncer;
mod bson;
mod container;
mod directory;
mod guardian;
mod local;
mod member;
mod mongo;
mod patience;
mod port;
mod postgres;
mod program;
mod recipe;
mod redis;
mod resp;
mod server;
mod service;
mod settings;
mod startup;
mod way;

use std::io::Write;
use std::sync::{Mutex, PoisonError};

pub use server::Server;
pub use service::Service;

use settings::Settings;
use way::Way;

/// What all tests of this process share.
struct Shared {
    url: String,
    /// Ended with this; `None` if somebody else has started it.
    _server: Option<Server>,
}

static SHARED: [Mutex<Option<Shared>>; Service::ALL.len()] = [const { Mutex::new(None) }; Service::ALL.len()];

/// The URL of the server that all tests share; started by the first who asks.
///
/// # Panics
/// If there is none to be had; the panic names the command that mends it.
pub fn url(service: Service) -> String {
    let mut shared = SHARED[service.index()].lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(shared) = &*shared {
        return shared.url.clone();
    }
    let found = find(service).unwrap_or_else(|wrong| panic!("no {} for the tests: {wrong}", service.name()));
    shared.insert(found).url.clone()
}

fn find(service: Service) -> Result<Shared, String> {
    let way = way::choose(service, false)?;
    if way == Way::Environment {
        let (url, version) = way::environment(service)?;
        tell(service, &version, service.variable());
        return Ok(Shared { url, _server: None });
    }
    let server = way::start(service, way, &Settings::new(service.settings()))?;
    tell(service, server.version(), came(way));
    Ok(Shared { url: server.url().to_owned(), _server: Some(server) })
}

/// Ends the shared servers that this process has started, instead of leaving it to the process's end.
pub fn end() {
    // A server goes before the one behind it.
    for shared in SHARED.iter().rev() {
        drop(shared.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// A server for a test that hurts it. One of the environment is not taken for that.
///
/// # Panics
/// If there is none to be had; the panic names the command that mends it.
pub fn own(service: Service) -> Server {
    own_with(service, &[])
}

/// As [`own`], with settings by the server's own names for them, in place of those it is started with.
///
/// Two are ours: `("upstream", url)` names the server behind a PgBouncer, and `("auth", "")` has MongoDB ask for the
/// password that is in its URL.
///
/// # Panics
/// As [`own`].
pub fn own_with(service: Service, settings: &[(&str, &str)]) -> Server {
    let started = way::choose(service, true).and_then(|way| {
        let server = way::start(service, way, &Settings::new(&[service.settings(), settings].concat()))?;
        tell(service, server.version(), came(way));
        Ok(server)
    });
    started.unwrap_or_else(|wrong| panic!("no {} for this test: {wrong}", service.name()))
}

fn came(way: Way) -> &'static str {
    match way {
        Way::Environment => "the environment",
        Way::Local => "started on this machine",
        Way::Docker => "started in a container",
    }
}

/// On stderr, where it is read when a test fails.
fn tell(service: Service, version: &str, came: &str) {
    let _ = writeln!(std::io::stderr(), "actornot: {}: {version}, {came}", service.name());
}
