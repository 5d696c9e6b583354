//! Only the URL differs, and every answer is the same.

use std::time::Duration;

use actornot_testkit::servers::{self, Service};
use serde_json::Value;
use tempfile::TempDir;

use crate::eventually;
use crate::instance::{Instance, database};

/// What is asked, in this order, with nothing pending in between.
const SCENARIO: &[&str] = &[
    "/status?user_id=alice",
    "/webhook?user_id=alice&delta=5",
    "/webhook?user_id=alice&delta=-7&id=evt_1",
    "/webhook?user_id=alice&delta=-7&id=evt_1",
    "/webhook?user_id=Alice&delta=1",
    "/webhook?user_id=%7B%22%24set%22%3A%271%27%7D%0A%25&delta=2",
    "/webhook?user_id=%F0%9F%A6%80&delta=3&id=evt_1",
    "/webhook?user_id=alice&delta=9223372036854775807",
    "/webhook?user_id=alice&delta=9223372036854775807&id=too%20much",
    "/webhook?user_id=alice&delta=1.5",
    "/webhook?user_id=a%00b&delta=1",
    "/status?user_id=alice",
    "/status?user_id=nobody",
    "/status?limit=2",
    "/status?limit=2&after=Alice",
    "/dead-letters",
];

/// Plays the scenario over a database: kills the instance in the middle of it, and tells every answer.
fn play(database: &str) -> Vec<String> {
    let mut instance = Instance::start_on(database, &["--lease", "1"]);
    let mut told = Vec::new();
    for (nth, path) in SCENARIO.iter().enumerate() {
        if nth == SCENARIO.len() / 2 {
            instance.kill();
            instance = Instance::start_on(database, &["--lease", "1"]);
        }
        let mut client = instance.client();
        let answer = client.get(path);
        eventually("nothing is pending", Duration::from_secs(20), || {
            client.users().iter().all(|(_, _, pending)| *pending == 0).then_some(())
        });
        told.push(format!("{path} {} {}", answer.status, comparable(&answer.body)));
    }
    assert!(instance.terminate().success());
    told
}

/// Letters are numbered by each database in its own way; only their order is promised.
fn comparable(body: &str) -> String {
    let Ok(mut json) = serde_json::from_str::<Value>(body) else { return body.to_owned() };
    for letter in json["dead_letters"].as_array_mut().into_iter().flatten() {
        assert!(letter["number"].take().is_u64(), "{letter}");
    }
    json.to_string()
}

#[test]
fn every_answer_is_the_same_over_all_databases() {
    let dir = TempDir::new().unwrap();
    let expected = play(&database(&dir));
    assert!(expected.iter().any(|told| told.contains("too much")), "a letter was read: {expected:?}");
    for service in
        [Service::Postgres, Service::Mongo, Service::MongoStandalone, Service::Redis, Service::RedisCluster]
    {
        let server = servers::own(service);
        assert_eq!(play(server.url()), expected, "over {service:?}");
    }
}
