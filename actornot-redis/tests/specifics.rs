//! What only this database has: slots, scripts that a server forgets, keys that must go.
#![allow(clippy::unwrap_used)] // Helpers outside test functions.

mod common;

use std::io::Write;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use actornot_core::{
    Admission, DueQuery, Effect, Enqueue, EntityId, Envelope, ErrorKind, Inspect, LockableQueue, Next,
    Position, Retry, TryLock, Updated, Verdict,
};
use actornot_redis::{RedisConfig, RedisQueue, redis};
use actornot_testkit::servers::{Server, Service, own, own_with, url};

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
    // Bodies, delayed, dead letters and their order, ready, locked, channels.
    assert_eq!(count("m d x y i r l o oc"), 0, "{:?}", outside.0.all_keys());
    // Rows and states of all, and what was seen, until its retention is over.
    assert_eq!((count("e"), count("z"), count("s")), (20, 20, 20));
    outside.0.elapse(Duration::from_secs(62));
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
async fn a_slot_that_moves_is_followed() {
    let server = own_cluster();
    let queue = RedisQueue::connect(server.url()).await.unwrap();
    let outside = Outside::new(server.url(), "actornot");
    ok(&queue, post("a", "1")).await;
    let slots = |connection: &mut redis::Connection, key: &str| -> u16 {
        redis::cmd("CLUSTER").arg("KEYSLOT").arg(key).query(connection).unwrap()
    };
    let (mut from, key) = outside.find(":e:counter/a");
    let slot = slots(&mut from, &key);
    let id = |connection: &mut redis::Connection| -> String {
        redis::cmd("CLUSTER").arg("MYID").query(connection).unwrap()
    };
    let source = id(&mut from);
    let mut nodes = outside.connections();
    let ids: Vec<String> = nodes.iter_mut().map(id).collect();
    let to = ids.iter().position(|id| *id != source).unwrap();
    let port: u16 =
        redis::cmd("CONFIG").arg("GET").arg("port").query::<(String, u16)>(&mut nodes[to]).unwrap().1;
    let set = |connection: &mut redis::Connection, how: &[&str]| {
        redis::cmd("CLUSTER").arg("SETSLOT").arg(slot).arg(how).exec(connection).unwrap();
    };
    let mut move_slot = |from: &mut redis::Connection, source: &str, to: usize, target: &str, port: u16| {
        set(&mut nodes[to], &["IMPORTING", source]);
        set(from, &["MIGRATING", target]);
        let keys: Vec<String> =
            redis::cmd("CLUSTER").arg("GETKEYSINSLOT").arg(slot).arg(1000).query(from).unwrap();
        let mut migrate = redis::cmd("MIGRATE");
        migrate.arg("127.0.0.1").arg(port).arg("").arg(0).arg(5000).arg("KEYS").arg(keys);
        migrate.exec(from).unwrap();
        set(&mut nodes[to], &["NODE", target]);
        set(from, &["NODE", target]);
    };
    move_slot(&mut from, &source, to, &ids[to], port);
    assert_eq!(ok(&queue, post("a", "1")).await.admissions, [Admission::Duplicate]);
    assert_eq!(ok(&queue, post("a", "2")).await.admissions, [Admission::Accepted]);
    // And back.
    let back = ids.iter().position(|id| *id == source).unwrap();
    let (mut now, _) = outside.find(":e:counter/a");
    let port: u16 = redis::cmd("CONFIG").arg("GET").arg("port").query::<(String, u16)>(&mut from).unwrap().1;
    move_slot(&mut now, &ids[to], back, &source, port);
    let ask = TryLock { entity: EntityId::new("counter", "a").unwrap(), request: request() };
    let grant = queue.try_lock(&[ask]).await.remove(0).unwrap().unwrap();
    assert_eq!(grant.batch.messages.len(), 2);
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

/// Three primaries of one test, each of which goes on without the others.
fn own_cluster() -> Server {
    let settings = [("cluster-require-full-coverage", "no"), ("cluster-node-timeout", "1000")];
    own_with(Service::RedisCluster, &settings)
}

#[tokio::test]
async fn when_a_primary_dies_the_others_go_on_and_it_comes_back() {
    let mut server = own_cluster();
    let config = RedisConfig::new(server.url()).patience(Duration::from_secs(2));
    let queue = RedisQueue::open(config).await.unwrap();
    let items = |id: &str| (0..30).map(|n| post(&format!("k{n}"), id)).collect::<Vec<_>>();
    for answer in queue.enqueue(&items("1")).await {
        answer.unwrap();
    }
    server.kill_member(2);
    let mut refused = Vec::new();
    for (n, answer) in queue.enqueue(&items("2")).await.into_iter().enumerate() {
        if let Err(error) = answer {
            let kind = error.kind();
            assert!(matches!(kind, ErrorKind::Unavailable | ErrorKind::UnknownOutcome), "{error}");
            refused.push(n);
        }
    }
    assert!((1..30).contains(&refused.len()), "{refused:?}");
    for (n, answer) in queue.enqueue(&items("3")).await.into_iter().enumerate() {
        match answer {
            Ok(_) => assert!(!refused.contains(&n)),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                assert!(refused.contains(&n));
            }
        }
    }
    server.restart_member(2);
    let all = async { while queue.enqueue(&items("3")).await.iter().any(Result::is_err) {} };
    tokio::time::timeout(Duration::from_secs(30), all).await.expect("it comes back");
    for n in refused {
        let found = queue.peek(&entity(&format!("k{n}")), 9).await.unwrap();
        let ids: Vec<&str> = found.iter().map(|message| message.id.as_str()).collect();
        assert_eq!(ids, ["1", "3"]);
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

/// Of the first 30 entities, those whose partition lies on one node.
fn on(server: &Server, number: usize) -> Vec<bool> {
    let keys: String =
        redis::cmd("KEYS").arg("*:e:*").query::<Vec<String>>(&mut member(server, number)).unwrap().join("\n")
            + "\n";
    (0..30).map(|n| keys.contains(&format!(":e:counter/k{n}\n"))).collect()
}

#[tokio::test]
async fn a_frozen_primary_holds_up_nobody_on_the_others() {
    let mut server = own_cluster();
    let config = RedisConfig::new(server.url()).patience(Duration::from_secs(2));
    let queue = RedisQueue::open(config).await.unwrap();
    let items = |id: &str| (0..30).map(|n| post(&format!("k{n}"), id)).collect::<Vec<_>>();
    for answer in queue.enqueue(&items("1")).await {
        answer.unwrap();
    }
    let gone = on(&server, 0);
    assert!(gone.contains(&true) && gone.contains(&false), "{gone:?}");
    // The seed is among the frozen ones.
    server.freeze_member(0);
    for (answer, gone) in queue.enqueue(&items("2")).await.into_iter().zip(&gone) {
        match answer {
            Ok(_) => assert!(!gone),
            Err(error) => assert!(*gone && error.retry() != Retry::Never, "{error}"),
        }
    }
    // From now on nobody waits the whole patience: 50 trips in the time of a few.
    let trips = async {
        for n in 3..53 {
            for (answer, gone) in queue.enqueue(&items(&n.to_string())).await.into_iter().zip(&gone) {
                assert_eq!(answer.is_err(), *gone, "{answer:?}");
                if let Err(error) = answer {
                    assert_eq!(
                        (error.kind(), error.retry()),
                        (ErrorKind::Unavailable, Retry::Safe),
                        "{error}"
                    );
                }
            }
            // What is due on the others is found.
            let query = DueQuery { kinds: vec!["counter".into()], limit: 100, after: None };
            let due = queue.due(&query).await.unwrap();
            assert_eq!(due.entities.len(), gone.iter().filter(|gone| !**gone).count());
        }
    };
    tokio::time::timeout(Duration::from_secs(30), trips).await.expect("trips that do not wait");
    server.thaw_member(0);
    let all = async { while queue.enqueue(&items("53")).await.iter().any(Result::is_err) {} };
    tokio::time::timeout(Duration::from_secs(30), all).await.expect("it comes back");
    for (n, gone) in gone.iter().enumerate() {
        let found = queue.peek(&entity(&format!("k{n}")), 99).await.unwrap();
        let ids: Vec<&str> = found.iter().map(|message| message.id.as_str()).collect();
        // Its calls may have been applied when it went on.
        let ids: Vec<&str> = ids.into_iter().filter(|id| !gone || *id != "2").collect();
        assert_eq!(ids.len(), if *gone { 2 } else { 53 }, "{ids:?}");
    }
}

/// A primary of a cluster with replicas is killed under load, and its replica takes over. Prints how many posts were
/// answered, and how many of these are lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_takes_over_may_have_lost_posts_and_nothing_else() {
    let mut server = own(Service::RedisClusterReplicas);
    let url = server.url().to_owned();
    let error = RedisQueue::connect(&url).await.unwrap_err();
    assert!(error.to_string().contains("RedisConfig::allow_unsafe(\"replicas\")"), "{error}");
    let queue = RedisQueue::open(RedisConfig::new(url).allow_unsafe("replicas")).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicU64::new(0));
    let mut posters = tokio::task::JoinSet::new();
    for poster in 0..24 {
        let (queue, stop, count) = (queue.clone(), stop.clone(), count.clone());
        posters.spawn(async move {
            let mut answered = Vec::new();
            let key = format!("k{poster}");
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let id = format!("{n:06}");
                // With the same id until it is answered, so that the order is the poster's.
                while let Err(error) = queue.enqueue(&[post(&key, &id)]).await.remove(0) {
                    assert_ne!(error.retry(), Retry::Never, "{error}");
                }
                count.fetch_add(1, Ordering::Relaxed);
                answered.push(id);
            }
            (key, answered)
        });
    }
    let more = async |much: u64| {
        let goal = count.load(Ordering::Relaxed) + much;
        while count.load(Ordering::Relaxed) < goal {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    more(2000).await;
    let grants = [lock(&queue, "k0").await.unwrap(), lock(&queue, "k1").await.unwrap()];
    more(1000).await;
    // Cut off from its primary for the last 1,000 posts, a third of which are that primary's.
    server.freeze_member(3);
    redis::cmd("CLIENT").arg(&["KILL", "TYPE", "replica"]).exec(&mut member(&server, 0)).unwrap();
    more(1000).await;
    server.kill_member(0);
    server.thaw_member(3);
    // Each entity again, bounded, with the same handle.
    let again = async {
        for n in 0..24 {
            while queue.peek(&entity(&format!("k{n}")), 1).await.is_err() {}
        }
        more(3000).await;
    };
    tokio::time::timeout(Duration::from_secs(60), again).await.expect("a replica takes over");
    stop.store(true, Ordering::Relaxed);
    let (mut all, mut lost) = (0, 0);
    while let Some(done) = posters.join_next().await {
        let (key, answered) = done.unwrap();
        let found = queue.peek(&entity(&key), 1_000_000).await.unwrap();
        let found: Vec<&str> = found.iter().map(|message| message.id.as_str()).collect();
        assert!(found.is_sorted_by(|a, b| a < b), "{key}: in order, none twice");
        all += answered.len();
        lost += answered.iter().filter(|id| found.binary_search(&id.as_str()).is_err()).count();
    }
    assert!(lost > 0, "this is why it must be allowed by name");
    // Whoever holds a lock that survived goes on; one whose lock did not is fenced off.
    for grant in grants {
        let first = queue.update_locked(&[commit(&grant.lease, grant.batch.ids())]).await.remove(0).unwrap();
        let stale = queue.update_locked(&[commit(&grant.lease, vec![])]).await.remove(0).unwrap();
        assert_eq!(stale, Updated::LockLost, "after {first:?}");
    }
    let _ = writeln!(std::io::stdout(), "{all} posts were answered, {lost} of them are lost");
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
