//! Whether the settings in force keep what is promised.

use std::collections::BTreeMap;

use actornot_core::{DurabilityReport, Error, ErrorKind, Setting};
use redis::Value;

use crate::connection::Nodes;
use crate::error::incompatible;
use crate::row::{Parts, bytes};
use crate::slice::Address;

/// Before it there is no way to judge memory ahead of a script.
const OLDEST: u32 = 7;

/// What one primary says about itself.
struct Primary {
    name: String,
    info: BTreeMap<String, String>,
    /// `None`: this role may not ask.
    appendfsync: Option<String>,
}

impl Primary {
    async fn ask(nodes: &Nodes, address: &Address) -> Result<Self, Error> {
        let text = bytes(nodes.ask(address, redis::cmd("INFO")).await?)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        let info = pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
        let mut command = redis::cmd("CONFIG");
        command.arg("GET").arg("appendfsync");
        let appendfsync = match nodes.ask(address, command).await {
            Ok(Value::Nil) => None,
            Ok(value) => {
                let mut parts = Parts::of(value)?;
                parts.value();
                parts.text()?
            }
            // Forbidden, renamed, or not there: managed services do all three.
            Err(error) if error.kind() != ErrorKind::Unavailable => None,
            Err(error) => return Err(error),
        };
        Ok(Self { name: format!("{}:{}", address.0, address.1), info, appendfsync })
    }

    fn get(&self, name: &str) -> &str {
        self.info.get(name).map_or("unknown", String::as_str)
    }
}

async fn primaries(nodes: &Nodes) -> Result<Vec<Primary>, Error> {
    let mut primaries = Vec::new();
    for address in nodes.owners().await? {
        primaries.push(Primary::ask(nodes, &address).await?);
    }
    Ok(primaries)
}

pub(crate) async fn report(nodes: &Nodes) -> Result<DurabilityReport, Error> {
    Ok(describe(&primaries(nodes).await?))
}

/// Refuses servers that are too old or of another kind, and settings that void durability and were not allowed by name.
pub(crate) async fn check(nodes: &Nodes) -> Result<(), Error> {
    let target = &nodes.target;
    // The first trip waits for a server that is still starting.
    let primaries = patiently(nodes).await?;
    for primary in &primaries {
        let version = primary.get("redis_version");
        if is_too_old(version) {
            return Err(incompatible(format!(
                "{} is Redis {version}, this adapter needs at least {OLDEST}.0",
                primary.name
            )));
        }
        if !target.cluster && primary.get("cluster_enabled") == "1" {
            return Err(incompatible(format!(
                "{} belongs to a cluster: add ?cluster=true to the URL",
                primary.name
            )));
        }
        if primary.get("role") == "slave" {
            return Err(Error::new(
                ErrorKind::ReadOnly,
                format!("{} is a replica; name the primary", primary.name),
            ));
        }
    }
    let unsafe_one = describe(&primaries).settings.into_iter().find(|setting| {
        setting.voids.is_some() && !target.allowed.iter().any(|name| setting.name.starts_with(name.as_str()))
    });
    match unsafe_one {
        None => Ok(()),
        Some(Setting { name, value, voids }) => {
            let bare = name.split(' ').next().unwrap_or_default();
            Err(incompatible(format!(
                "{name} is {value}, which voids {}; or accept it by RedisConfig::allow_unsafe(\"{bare}\")",
                voids.unwrap_or_default()
            )))
        }
    }
}

async fn patiently(nodes: &Nodes) -> Result<Vec<Primary>, Error> {
    let mut turn = crate::turn::Turn::new(nodes.target.patience);
    loop {
        match primaries(nodes).await {
            Err(error) if error.kind() == ErrorKind::Unavailable && turn.again().await => {}
            answer => return answer,
        }
    }
}

/// Each setting of each primary; with the primary's name where there are several.
fn describe(primaries: &[Primary]) -> DurabilityReport {
    let mut settings = Vec::new();
    for primary in primaries {
        let mut add = |name: &str, value: &str, voids: Option<&str>| {
            let name = match primaries.len() {
                1 => name.to_owned(),
                _ => format!("{name} of {}", primary.name),
            };
            settings.push(Setting { name, value: value.to_owned(), voids: voids.map(str::to_owned) });
        };
        let aof = match primary.get("aof_enabled") {
            "1" => "yes",
            "0" => "no",
            other => other,
        };
        add("appendonly", aof, (aof != "yes").then_some("G1: set appendonly yes"));
        let fsync = primary.appendfsync.as_deref().unwrap_or("unknown");
        add("appendfsync", fsync, (fsync != "always").then_some("G1: set appendfsync always"));
        let policy = primary.get("maxmemory_policy");
        add(
            "maxmemory-policy",
            policy,
            (policy != "noeviction").then_some("G1: set maxmemory-policy noeviction"),
        );
        let role = primary.get("role");
        add("role", role, None);
        let replicas = primary.get("connected_slaves");
        let lossy = "G1: replication is asynchronous, so a failover may lose acknowledged posts";
        add("replicas", replicas, (replicas != "0").then_some(lossy));
    }
    let version = primaries.first().map_or("unknown", |primary| primary.get("redis_version"));
    DurabilityReport { server: format!("Redis {version}"), settings }
}

fn is_too_old(version: &str) -> bool {
    version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0) < OLDEST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_before_the_oldest_or_of_no_version_is_too_old() {
        assert!(["6.2.14", "5.0", "", "x"].iter().all(|version| is_too_old(version)));
        assert!(["7.0.0", "7.4.1", "10.0"].iter().all(|version| !is_too_old(version)));
    }
}
