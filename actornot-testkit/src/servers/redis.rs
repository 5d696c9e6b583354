//! Redis: how it is started, and how several become a cluster.

use std::path::PathBuf;

use super::directory::Directory;
use super::member::Member;
use super::patience::{READY, wait};
use super::program;
use super::resp::ask;
use super::service::Service;
use super::settings::{Settings, words};

const SLOTS: usize = 16_384;
const PRIMARIES: usize = 3;

pub(super) fn program() -> Option<PathBuf> {
    program::find("redis-server")
}

pub(super) fn arguments(service: Service, port: u16, settings: &Settings) -> Vec<String> {
    let durable = "--appendonly yes --appendfsync always --maxmemory-policy noeviction";
    let mut all = words(&format!("--port {port} {durable} --save"));
    all.push(String::new());
    match service {
        Service::RedisCluster => all.extend(words("--cluster-enabled yes")),
        // Tests that wait for a replica to take over do not want to wait long.
        Service::RedisClusterReplicas => {
            all.extend(words("--cluster-enabled yes --cluster-node-timeout 2000"));
        }
        _ => {}
    }
    all.extend(settings.arguments(true));
    all
}

pub(super) fn members(
    service: Service,
    directory: &Directory,
    ports: &[u16],
    settings: &Settings,
) -> Result<Vec<Member>, String> {
    let program = program().ok_or("redis-server has gone")?;
    let member = |(number, &port): (usize, &u16)| {
        let folder = directory.inner(&format!("data{number}"))?;
        let mut all = vec!["--dir".to_owned(), folder.display().to_string()];
        all.extend(words("--bind 127.0.0.1 --daemonize no"));
        all.extend(arguments(service, port, settings));
        Ok(Member { program: program.clone(), arguments: all, account: None, folder, port, child: None })
    };
    ports.iter().enumerate().map(member).collect()
}

pub(super) fn url(service: Service, ports: &[u16], settings: &Settings) -> String {
    let login = settings.get("requirepass").map(|password| format!(":{password}@")).unwrap_or_default();
    let cluster = if is_cluster(service) { "?cluster=true" } else { "" };
    format!("redis://{login}127.0.0.1:{}/{cluster}", ports[0])
}

fn is_cluster(service: Service) -> bool {
    matches!(service, Service::RedisCluster | Service::RedisClusterReplicas)
}

pub(super) fn hello(host: &str, port: u16) -> Result<String, String> {
    match ask((host, port), &["PING"]) {
        Err(error) if error.starts_with("NOAUTH") => return Ok("Redis (it asks for a password)".into()),
        answer => answer?,
    };
    let info = ask((host, port), &["INFO", "server"])?;
    Ok(format!("Redis {}", field(&info, "redis_version").unwrap_or("of no version")))
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

/// Whether each of them serves, and knows all the others.
pub(super) fn settled(service: Service, ports: &[u16]) -> bool {
    let count = ports.len().to_string();
    !is_cluster(service)
        || ports.iter().all(|&port| {
            let info = ask(("127.0.0.1", port), &["CLUSTER", "INFO"]).unwrap_or_default();
            field(&info, "cluster_state") == Some("ok") && field(&info, "cluster_known_nodes") == Some(&count)
        })
}

/// Makes a cluster of them: the first three share the slots, each of the others follows one.
pub(super) fn prepare(service: Service, ports: &[u16]) -> Result<(), String> {
    if !is_cluster(service) {
        return Ok(());
    }
    let at = |port: u16| ("127.0.0.1", port);
    for (number, &port) in ports.iter().enumerate() {
        // So that nobody has to find out who is right about whom.
        ask(at(port), &["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()])?;
        if number < PRIMARIES {
            let slots = number * SLOTS / PRIMARIES..(number + 1) * SLOTS / PRIMARIES;
            let slots: Vec<String> = slots.map(|slot| slot.to_string()).collect();
            let slots = slots.iter().map(String::as_str);
            ask(at(port), &["CLUSTER", "ADDSLOTS"].into_iter().chain(slots).collect::<Vec<_>>())?;
        }
        if number > 0 {
            ask(at(ports[0]), &["CLUSTER", "MEET", "127.0.0.1", &port.to_string()])?;
        }
    }
    for (number, &port) in ports.iter().enumerate().skip(PRIMARIES) {
        let primary = ask(at(ports[number - PRIMARIES]), &["CLUSTER", "MYID"])?;
        wait("a replica hears of its primary", READY, || {
            Ok(ask(at(port), &["CLUSTER", "REPLICATE", &primary]).ok())
        })?;
    }
    let replicas = ports.iter().skip(PRIMARIES);
    wait("replicas follow", READY, || {
        let follows = |port: &u16| {
            let info = ask(at(*port), &["INFO", "replication"]).unwrap_or_default();
            field(&info, "master_link_status") == Some("up")
        };
        Ok(replicas.clone().all(follows).then_some(()))
    })
}
