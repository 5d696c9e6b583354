//! What only this database has: slots, scripts that a server forgets, keys that must go.
#![allow(clippy::unwrap_used)] // Helpers outside test functions.

mod common;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use actornot_core::{
    Admission, DueQuery, Effect, Enqueue, Envelope, ErrorKind, Inspect, LockableQueue, Next, Position,
    Updated, Verdict,
};
use actornot_redis::{RedisConfig, RedisQueue, redis};
use actornot_testkit::servers::{Service, own, own_with, url};

use crate::common::*;

async fn cluster() -> (RedisQueue, Clearing) {
    let (url, namespace) = (url(Service::RedisCluster), random());
    let config = RedisConfig::new(url.as_str()).namespace(namespace.as_str());
    (RedisQueue::open(config).await.unwrap(), Clearing(Outside::new(&url, &namespace)))
}

struct Clearing(Outside);

impl Drop for Clearing {
    fn drop(&mut self) {
        self.0.clear();
    }
}

fn envelope(key: &str, id: &str) -> Effect {
    Effect::Send(Envelope { entity: entity(key), message: message(id) })
}

#[tokio::test]
async fn scripts_that_the_server_forgets_at_any_moment_are_sent_again() {
    let server = own(Service::Redis);
    let queue = RedisQueue::connect(server.url()).await.unwrap();
    let mut admin = admin(&server);
    let mut flush = || redis::cmd("SCRIPT").arg("FLUSH").exec(&mut admin).unwrap();
    for n in 0..3 {
        flush();
        let items: Vec<Enqueue> = (0..20).map(|k| post(&format!("k{k}"), &format!("m{n}"))).collect();
        for answer in queue.enqueue(&items).await {
            assert_eq!(answer.unwrap().admissions, [Admission::Accepted]);
        }
        flush();
        let grant = lock(&queue, "k0").await.unwrap();
        flush();
        let mut draft = commit(&grant.lease, grant.batch.ids());
        draft.effects = vec![envelope("bob", &format!("s{n}"))];
        draft.next = Next::Release;
        let updated = queue.update_locked(&[draft]).await.remove(0).unwrap();
        assert!(matches!(updated, Updated::Released { .. }), "{updated:?}");
        flush();
        // Relayed, although the channel was read before the commit got through.
        assert_eq!(queue.peek(&entity("bob"), 9).await.unwrap().len(), n + 1);
        flush();
        let due =
            queue.due(&DueQuery { kinds: vec!["counter".into()], limit: 100, after: None }).await.unwrap();
        assert_eq!(due.entities.len(), 20);
    }
}

#[tokio::test]
async fn pages_of_what_is_due_name_everybody_once() {
    let (url, namespace) = (url(Service::RedisCluster), random());
    let config = RedisConfig::new(url.as_str()).namespace(namespace.as_str()).partitions(4);
    let queue = RedisQueue::open(config).await.unwrap();
    let _clearing = Clearing(Outside::new(&url, &namespace));
    let names: Vec<String> = (0..900).map(|n| format!("k{n}")).collect();
    for slice in names.chunks(50) {
        let items: Vec<Enqueue> = slice.iter().map(|name| post(name, "m")).collect();
        for answer in queue.enqueue(&items).await {
            answer.unwrap();
        }
    }
    // Each partition has some 225, and is asked for 16, for 50, or for more than it has.
    for limit in [20, 100, 600] {
        let (mut found, mut after, mut pages) = (Vec::new(), None, 0);
        loop {
            let due = queue.due(&DueQuery { kinds: vec!["counter".into()], limit, after }).await.unwrap();
            assert!(!due.entities.is_empty() && due.entities.len() <= limit as usize);
            found.extend(due.entities.iter().map(|entity| entity.key().to_owned()));
            pages += 1;
            after = due.after;
            if after.is_none() {
                break;
            }
        }
        let distinct: BTreeSet<&String> = found.iter().collect();
        assert_eq!((found.len(), distinct.len()), (900, 900), "in {pages} pages of {limit}");
    }
}

#[tokio::test]
async fn everything_that_is_done_is_deleted() {
    let (queue, outside) = cluster().await;
    let keys: Vec<String> = (0..10).map(|n| format!("k{n}")).collect();
    for key in &keys {
        let mut late = message("late");
        late.delay = Duration::from_secs(5);
        let mut item = post(key, "1");
        item.messages.push(late);
        ok(&queue, item).await;
    }
    outside.0.elapse(Duration::from_secs(6));
    for key in &keys {
        let grant = lock(&queue, key).await.unwrap();
        assert_eq!(grant.batch.messages.len(), 2);
        let mut draft = commit(&grant.lease, grant.batch.ids());
        draft.effects = vec![envelope(&format!("to_{key}"), "sent")];
        queue.update_locked(&[draft]).await.remove(0).unwrap();
        let grant = lock(&queue, &format!("to_{key}")).await.unwrap();
        let mut draft = commit(&grant.lease, vec![]);
        draft.verdict = Verdict::DeadLetter { error: "no".into() };
        queue.update_locked(&[draft]).await.remove(0).unwrap();
    }
    for letter in queue.dead_letters("counter", None, 100).await.unwrap() {
        assert!(queue.redrive(&letter, Position::Tail).await.unwrap());
        let grant = lock(&queue, letter.entity.key()).await.unwrap();
        queue.update_locked(&[commit(&grant.lease, grant.batch.ids())]).await.remove(0).unwrap();
    }
    let count = |letters: &str| {
        let kind =
            |key: &String| letters.contains(key.split("}:").nth(1).unwrap().split(':').next().unwrap());
        outside.0.all_keys().iter().filter(|key| kind(key)).count()
    };
    // Bodies, delayed, dead letters and their order, wake, channels.
    assert_eq!(count("d x y i w o oc"), 0, "{:?}", outside.0.all_keys());
    // Rows with states of all, and what was seen, until its retention is over.
    assert_eq!((count("e"), count("s")), (20, 20));
    // A minute of retention, and one until which the key's own expiry need not be said again.
    outside.0.elapse(Duration::from_secs(125));
    // Redis deletes what has expired in its own time; a scan helps.
    let gone = async {
        while count("s") > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("what was seen is forgotten");
}

#[tokio::test]
async fn a_slice_over_all_primaries_answers_item_by_item() {
    let (queue, outside) = cluster().await;
    let items: Vec<Enqueue> = (0..64).map(|n| post(&format!("k{n}"), "1")).collect();
    for answer in queue.enqueue(&items).await {
        answer.unwrap();
    }
    // A row of another type spoils its own item only.
    let (mut connection, key) = outside.0.find(":e:counter/k7");
    redis::cmd("DEL").arg(&key).exec(&mut connection).unwrap();
    redis::cmd("SET").arg(&key).arg("no row").exec(&mut connection).unwrap();
    let items: Vec<Enqueue> = (0..64).map(|n| post(&format!("k{n}"), "2")).collect();
    for (n, answer) in queue.enqueue(&items).await.into_iter().enumerate() {
        assert_eq!(answer.is_err(), n == 7, "{n}: {answer:?}");
        if let Err(error) = answer {
            assert_eq!(error.entity(), Some(&entity("k7")));
        }
    }
}

/// One command as the driver sends it; `None` at the end.
fn command(from: &mut impl BufRead) -> Option<Vec<String>> {
    let line = |from: &mut dyn BufRead| {
        let mut line = String::new();
        from.read_line(&mut line)
            .ok()
            .filter(|bytes| *bytes > 0)
            .map(|_| line[1..].trim().parse::<usize>().unwrap())
    };
    let parts = line(from)?;
    let part = |_| {
        let mut bytes = vec![0; line(from)? + 2];
        from.read_exact(&mut bytes).ok()?;
        bytes.truncate(bytes.len() - 2);
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    (0..parts).map(part).collect()
}

/// Managed services hide a cluster behind one address, and refuse keys of two slots in one command.
fn hidden_cluster() -> String {
    const INFO: &str =
        "redis_version:7.2.0\nrole:master\naof_enabled:1\nmaxmemory_policy:noeviction\nconnected_slaves:0";
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let (mut from, mut to) = (BufReader::new(stream.try_clone().unwrap()), stream);
            std::thread::spawn(move || {
                while let Some(parts) = command(&mut from) {
                    let answer = match parts[0].as_str() {
                        "INFO" => format!("${}\r\n{INFO}\r\n", INFO.len()),
                        "CONFIG" => "-ERR unknown command\r\n".to_owned(),
                        "GET" => "+1 1 64\r\n".to_owned(),
                        "EVALSHA" => {
                            let keys = &parts[3..3 + parts[2].parse::<usize>().unwrap()];
                            let tag = |key: &String| key.split('}').next().unwrap().to_owned();
                            let items = keys.iter().filter(|key| key.contains(":e:")).count();
                            match keys.iter().map(tag).collect::<BTreeSet<_>>().len() {
                                1 => format!("*{items}\r\n{}", "*2\r\n$1\r\nA\r\n$-1\r\n".repeat(items)),
                                _ => "-CROSSSLOT Keys in request don't hash to the same slot\r\n".to_owned(),
                            }
                        }
                        _ => "+OK\r\n".to_owned(),
                    };
                    let _ = to.write_all(answer.as_bytes());
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn a_cluster_that_looks_like_a_single_server_is_served_partition_by_partition() {
    let config = RedisConfig::new(hidden_cluster()).allow_unsafe("appendfsync");
    let queue = RedisQueue::open(config).await.unwrap();
    for _ in 0..2 {
        let items: Vec<Enqueue> = (0..64).map(|n| post(&format!("k{n}"), "1")).collect();
        for answer in queue.enqueue(&items).await {
            assert_eq!(answer.unwrap().admissions, [Admission::Accepted]);
        }
    }
}

#[tokio::test]
async fn calls_that_are_dropped_do_not_shift_the_answers_of_others() {
    let server = own(Service::Redis);
    let queue = RedisQueue::connect(server.url()).await.unwrap();
    for n in 0..200_u32 {
        let items = [post("dropped", &n.to_string()), post("other", &n.to_string())];
        let _ =
            tokio::time::timeout(Duration::from_micros(u64::from(n * 7 % 900)), queue.enqueue(&items)).await;
        let key = format!("k{n}");
        assert_eq!(queue.read(&[entity(&key)]).await.unwrap(), [None]);
        ok(&queue, post(&key, "1")).await;
        let found = queue.peek(&entity(&key), 9).await.unwrap();
        assert_eq!(found.len(), 1);
    }
}

#[tokio::test]
async fn several_processes_relay_the_same_sends_once_and_in_order() {
    let (queue, _outside) = cluster().await;
    ok(&queue, post("alice", "go")).await;
    let grant = lock(&queue, "alice").await.unwrap();
    let mut draft = commit(&grant.lease, grant.batch.ids());
    // More than one trip carries, and to several partitions.
    for n in 0..150 {
        draft.effects.push(envelope("bob", &format!("b{n}")));
        draft.effects.push(envelope(&format!("c{}", n % 5), &format!("c{n}")));
    }
    let drafts = [draft];
    let query = DueQuery { kinds: vec!["counter".into()], limit: 100, after: None };
    let (first, again, a, b) = tokio::join!(
        queue.update_locked(&drafts),
        queue.update_locked(&drafts),
        queue.due(&query),
        queue.due(&query),
    );
    for answer in first.into_iter().chain(again) {
        answer.unwrap();
    }
    a.unwrap();
    b.unwrap();
    let due = queue.due(&query).await.unwrap();
    assert_eq!(due.entities.len(), 6, "{due:?}");
    let found = queue.peek(&entity("bob"), 1000).await.unwrap();
    let ids: Vec<String> = found.iter().map(|message| message.id.to_string()).collect();
    assert_eq!(ids, (0..150).map(|n| format!("b{n}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_cluster_is_found_through_any_of_its_nodes() {
    let (queue, outside) = cluster().await;
    ok(&queue, post("a", "1")).await;
    let (_, key) = outside.0.find("}:meta");
    let namespace = key.trim_start_matches('{').split('}').next().unwrap().to_owned();
    let known = url(Service::RedisCluster);
    let seeds = ["redis://127.0.0.1:1/", known.as_str()];
    let other = RedisQueue::open(RedisConfig::cluster(seeds).namespace(namespace)).await.unwrap();
    assert_eq!(other.peek(&entity("a"), 9).await.unwrap().len(), 1);
    assert_eq!(other.doctor().await.unwrap().settings.len(), 15, "five settings of three primaries");
}

/// A certificate for this machine that signs itself, made for one test.
fn certificate(dir: &std::path::Path) -> [String; 2] {
    let [key, certificate] = ["key.pem", "certificate.pem"].map(|name| dir.join(name).display().to_string());
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    openssl.args([
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost,IP:127.0.0.1",
    ]);
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", &key, "-out", &certificate]);
    assert!(openssl.output().expect("openssl must be installed").status.success());
    [key, certificate]
}

#[tokio::test]
async fn tls_trusts_the_named_authority_and_no_other() {
    let dir = tempfile::TempDir::new().unwrap();
    let [key, certificate] = certificate(dir.path());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let settings = [
        ("tls-auth-clients", "no"),
        ("tls-port", port.as_str()),
        ("tls-cert-file", certificate.as_str()),
        ("tls-key-file", key.as_str()),
        ("tls-ca-cert-file", certificate.as_str()),
    ];
    let _server = own_with(Service::Redis, &settings);
    let pem = std::fs::read(&certificate).unwrap();
    let url = format!("rediss://localhost:{port}/");
    let config = || RedisConfig::new(url.as_str());
    let error = RedisQueue::open(config().patience(Duration::from_millis(500))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let queue = RedisQueue::open(config().root_certificate(pem.clone())).await.unwrap();
    assert_eq!(ok(&queue, post("a", "1")).await.admissions, [Admission::Accepted]);
    queue.heartbeat().await.unwrap();
    for config in
        [config().root_certificate("no PEM"), RedisConfig::new("redis://localhost/").root_certificate(pem)]
    {
        let error = RedisQueue::open(config).await.unwrap_err();
        assert!(error.to_string().starts_with("root_certificate"), "{error}");
    }
}

#[tokio::test]
async fn the_install_role_can_install_and_no_more() {
    let server = own(Service::Redis);
    let mut admin = admin(&server);
    let rights: Vec<&str> = include_str!("../acl/install.acl").split_whitespace().skip(1).collect();
    redis::cmd("ACL").arg("SETUSER").arg(rights).exec(&mut admin).unwrap();
    let url = format!("redis://actornot_install:CHANGE_ME@127.0.0.1:{}/", server.ports()[0]);
    RedisQueue::install(RedisConfig::new(url.as_str())).await.unwrap();
    let queue = RedisQueue::connect(&url).await.unwrap();
    let error = queue.enqueue(&[post("a", "1")]).await.remove(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AccessDenied, "{error}");
}

#[tokio::test]
async fn a_server_that_was_restarted_while_nobody_called_loses_no_answer() {
    let mut server = own(Service::Redis);
    let queue = RedisQueue::connect(server.url()).await.unwrap();
    for n in 0..3 {
        ok(&queue, post("a", &format!("{n} before"))).await;
        let restart = move || {
            server.kill();
            server.restart();
            server
        };
        // The runtime goes on meanwhile, and hears that the connection was closed.
        server = tokio::task::spawn_blocking(restart).await.unwrap();
        ok(&queue, post("a", &format!("{n} after"))).await;
    }
    assert_eq!(queue.peek(&entity("a"), 9).await.unwrap().len(), 6);
}

#[tokio::test]
async fn an_address_of_version_6_is_reached() {
    let server = own_with(Service::Redis, &[("bind", "127.0.0.1 ::1")]);
    let url = format!("redis://[::1]:{}/", server.ports()[0]);
    let queue = RedisQueue::connect(&url).await.unwrap();
    ok(&queue, post("a", "1")).await;
    let error = RedisQueue::connect("redis://[::1/").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid { field: "url" }, "{error}");
}
