//! MongoDB: how it is started, and how several become a replica set.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::bson::{Value, ask, document, text};
use super::directory::Directory;
use super::member::Member;
use super::program;
use super::service::Service;
use super::settings::{Settings, words};

const SET: &str = "rs";
/// Whom the setting `auth` makes.
const LOGIN: (&str, &str) = ("root", "secret");

/// In the target directory of the tests, where `cargo xtask test` puts it: no distribution brings it.
const FETCHED: &str = "tools/mongod";

pub(super) fn program() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("ACTORNOT_MONGOD") {
        return Some(PathBuf::from(path));
    }
    program::find("mongod").or_else(|| {
        let test = std::env::current_exe().ok()?;
        test.ancestors().map(|folder| folder.join(FETCHED)).find(|program| program.is_file())
    })
}

pub(super) fn arguments(service: Service, port: u16, settings: &Settings) -> Vec<String> {
    let cache = if service == Service::MongoThree { 0.25 } else { 0.5 };
    // It would fill the disk with measurements of itself.
    let quiet = "--setParameter diagnosticDataCollectionEnabled=false";
    let mut all = words(&format!("--port {port} --wiredTigerCacheSizeGB {cache} --nounixsocket {quiet}"));
    if service != Service::MongoStandalone {
        all.extend(words(&format!("--replSet {SET}")));
    }
    all.extend(settings.arguments(false));
    all
}

pub(super) fn members(
    service: Service,
    directory: &Directory,
    ports: &[u16],
    settings: &Settings,
) -> Result<Vec<Member>, String> {
    let program = program().ok_or("mongod has gone")?;
    let mut key = Vec::new();
    if settings.get("auth").is_some() && service != Service::MongoStandalone {
        // Members must know each other before they may ask anybody for a password.
        let path = directory.path().join("key");
        fs::write(&path, "actornot".repeat(8))
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o400)))
            .map_err(|error| format!("{}: {error}", path.display()))?;
        key = vec!["--keyFile".to_owned(), path.display().to_string()];
    }
    let member = |(number, &port): (usize, &u16)| {
        let folder = directory.inner(&format!("data{number}"))?;
        let mut all = vec!["--dbpath".to_owned(), folder.display().to_string()];
        all.extend(words("--bind_ip 127.0.0.1"));
        all.extend(arguments(service, port, settings));
        all.extend(key.clone());
        Ok(Member { program: program.clone(), arguments: all, account: None, folder, port, child: None })
    };
    ports.iter().enumerate().map(member).collect()
}

pub(super) fn url(service: Service, ports: &[u16], settings: &Settings) -> String {
    let hosts: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let options = if service == Service::MongoStandalone { "directConnection=true" } else { "replicaSet=rs" };
    let (login, source) = match settings.get("auth") {
        Some(_) => (format!("{}:{}@", LOGIN.0, LOGIN.1), "&authSource=admin"),
        None => (String::new(), ""),
    };
    format!("mongodb://{login}{}/?{options}{source}", hosts.join(","))
}

pub(super) fn hello(host: &str, port: u16) -> Result<String, String> {
    ask((host, port), document([("hello", Value::Number(1))]))?;
    // Newer ones tell it only to whom they know.
    let built = ask((host, port), document([("buildInfo", Value::Number(1))])).unwrap_or_default();
    Ok(format!("MongoDB {}", text(&built, "version").unwrap_or("(it does not say its version)")))
}

/// Whether one of them takes writes.
pub(super) fn settled(ports: &[u16]) -> bool {
    ports.iter().any(|&port| {
        let hello = ask(("127.0.0.1", port), document([("hello", Value::Number(1))])).unwrap_or_default();
        hello.contains(&("isWritablePrimary".to_owned(), Value::Bool(true)))
    })
}

/// Makes the replica set.
pub(super) fn prepare(ports: &[u16]) -> Result<(), String> {
    let member = |(number, port): (usize, &u16)| {
        let host = format!("127.0.0.1:{port}");
        document([
            ("_id", Value::Number(i32::try_from(number).unwrap_or(i32::MAX))),
            ("host", Value::Text(host)),
        ])
    };
    let members = Value::Array(ports.iter().enumerate().map(member).collect());
    let quick = document([("electionTimeoutMillis", Value::Number(2000))]);
    let mut set = vec![("_id".to_owned(), SET.into()), ("members".to_owned(), members)];
    if ports.len() > 1 {
        set.push(("settings".to_owned(), quick));
    }
    let initiate = document([("replSetInitiate", Value::Document(set))]);
    ask(("127.0.0.1", ports[0]), initiate).map(drop)
}

/// Makes the user that the URL names, if `auth` was asked for: the first one may be made by anybody on this machine.
pub(super) fn enroll(ports: &[u16], settings: &Settings) -> Result<(), String> {
    if settings.get("auth").is_none() {
        return Ok(());
    }
    let create = || {
        let role = document([("role", "root".into()), ("db", "admin".into())]);
        let roles = Value::Array(vec![role]);
        document([("createUser", LOGIN.0.into()), ("pwd", LOGIN.1.into()), ("roles", roles)])
    };
    let primary = ports.iter().find(|port| settled(&[**port])).ok_or("no member takes writes")?;
    ask(("127.0.0.1", *primary), create()).map(drop)
}
