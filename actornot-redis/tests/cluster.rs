//! A cluster of which a part moves, dies, stands still or is taken over.
#![allow(clippy::unwrap_used)] // Helpers outside test functions.

mod common;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use actornot_core::{
    Admission, DueQuery, EntityId, ErrorKind, Inspect, LockableQueue, Retry, TryLock, Updated,
};
use actornot_redis::{RedisConfig, RedisQueue, redis};
use actornot_testkit::servers::{Server, Service, own, own_with};

use crate::common::*;

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

#[tokio::test]
async fn a_node_that_has_lost_its_cluster_misleads_nobody_while_others_know_better() {
    let server = own_cluster();
    let config = RedisConfig::new(server.url()).patience(Duration::from_secs(5));
    let queue = RedisQueue::open(config).await.unwrap();
    let items = |id: &str| (0..30).map(|n| post(&format!("k{n}"), id)).collect::<Vec<_>>();
    for answer in queue.enqueue(&items("1")).await {
        answer.unwrap();
    }
    // The seed knows no node but itself, and says so to whoever asks it for the map.
    let mut seed = member(&server, 0);
    for other in 1..3 {
        let id: String = redis::cmd("CLUSTER").arg("MYID").query(&mut member(&server, other)).unwrap();
        redis::cmd("CLUSTER").arg("FORGET").arg(id).exec(&mut seed).unwrap();
    }
    // What was known is forgotten with the connection, which may take an answer with it.
    let mut other = member(&server, 1);
    redis::cmd("CLIENT").arg(&["KILL", "TYPE", "normal"]).exec(&mut other).unwrap();
    let gone = on(&server, 0);
    let _ = queue.enqueue(&items("2")).await;
    for (answer, at_seed) in queue.enqueue(&items("3")).await.into_iter().zip(gone) {
        assert!(at_seed || answer.is_ok(), "{answer:?}");
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
