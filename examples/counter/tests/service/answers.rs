//! What each request is answered.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::Client;
use crate::eventually;
use crate::instance::Instance;

const SOON: Duration = Duration::from_secs(10);

/// A user's status once nothing is pending.
fn settled(client: &mut Client, user: &str) -> Value {
    eventually("nothing is pending", SOON, || {
        let status = client.get(&format!("/status?user_id={user}")).json();
        (status["events_pending"] == 0).then_some(status)
    })
}

/// The paths of the curl lines of a text, on the default port.
fn curls(text: &str) -> Vec<&str> {
    let path = |line| str::split_once(line, "curl 'http://localhost:8080").map(|(_, path)| path);
    text.lines().filter_map(path).map(|path| path.trim_end_matches('\'')).collect()
}

#[test]
fn the_curl_lines_of_the_readme_and_of_the_program_answer_as_promised() {
    let lines = ["/webhook?user_id=alice&delta=5", "/status?user_id=alice"];
    assert_eq!(curls(include_str!("../../../../README.md")), lines);
    assert_eq!(curls(include_str!("../../src/main.rs")), lines);

    let dir = TempDir::new().unwrap();
    let instance = Instance::start(&dir, &[]);
    let mut client = instance.client();
    let answer = client.get(lines[0]);
    assert_eq!((answer.status, answer.body.as_str()), (200, "Posted increment of 5 for user alice"));
    settled(&mut client, "alice");
    let status = client.get(lines[1]);
    assert_eq!(status.status, 200);
    assert_eq!(status.json(), json!({"user_id": "alice", "counter": 5, "events_pending": 0, "version": 1}));
}

#[test]
fn the_start_prints_the_address_the_database_and_the_curl_lines() {
    let dir = TempDir::new().unwrap();
    let mut instance = Instance::start(&dir, &[]);
    let mut printed = String::new();
    while !printed.contains("/status") {
        std::io::BufRead::read_line(&mut instance.stdout, &mut printed).unwrap();
    }
    let address = &instance.address;
    assert!(printed.contains(&format!("curl 'http://{address}/webhook?user_id=alice&delta=5'")), "{printed}");
    assert!(printed.contains(&format!("curl 'http://{address}/status?user_id=alice'")), "{printed}");
}

#[test]
fn a_post_counts_like_a_get_and_a_head_does_not() {
    let dir = TempDir::new().unwrap();
    let instance = Instance::start(&dir, &[]);
    let mut client = instance.client();
    let hook = "/webhook?user_id=alice&delta=-5";
    let answer = client.request("POST", hook).unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, "Posted increment of -5 for user alice"));
    assert_eq!(client.request("HEAD", hook).unwrap().status, 405);
    assert_eq!(client.request("DELETE", hook).unwrap().status, 405);
    assert_eq!(settled(&mut client, "alice")["counter"], -5);
}

#[test]
fn what_cannot_be_accepted_is_refused_with_the_field_and_the_reason() {
    let dir = TempDir::new().unwrap();
    let instance = Instance::start(&dir, &[]);
    let mut client = instance.client();
    let long = "x".repeat(513);
    for (path, field, why) in [
        ("/webhook?user_id=alice".to_owned(), "delta", "missing"),
        ("/webhook?user_id=alice&delta=".to_owned(), "delta", "not an integer"),
        ("/webhook?user_id=alice&delta=five".to_owned(), "delta", "not an integer"),
        ("/webhook?user_id=alice&delta=1.5".to_owned(), "delta", "not an integer"),
        ("/webhook?user_id=alice&delta=9223372036854775808".to_owned(), "delta", "64 bits"),
        ("/webhook?delta=5".to_owned(), "user_id", "missing"),
        ("/webhook?user_id=&delta=5".to_owned(), "user_id", "empty"),
        ("/webhook?user_id=a%00b&delta=5".to_owned(), "user_id", "NUL"),
        (format!("/webhook?user_id={long}&delta=5"), "user_id", "513 bytes, the limit is 512"),
        ("/webhook?user_id=alice&delta=5&id=".to_owned(), "id", "empty"),
        (format!("/webhook?user_id=alice&delta=5&id={long}"), "id", "the limit is 256"),
        ("/webhook?user_id=alice&user_id=bob&delta=5".to_owned(), "query", "duplicate field"),
        ("/status?user_id=".to_owned(), "user_id", "empty"),
        (format!("/status?user_id={long}"), "user_id", "the limit is 512"),
        ("/status?limit=0".to_owned(), "limit", "between 1 and 1000"),
        ("/dead-letters?after=x".to_owned(), "after", "not an integer"),
    ] {
        let answer = client.get(&path);
        let error = &answer.json()["error"];
        assert_eq!((answer.status, error["field"].as_str()), (400, Some(field)), "{path}: {answer:?}");
        assert!(error["message"].as_str().unwrap().contains(why), "{path}: {answer:?}");
    }
    assert_eq!(client.users(), [], "nothing of it was stored");
}

#[test]
fn a_user_never_posted_to_and_a_route_that_is_none_are_not_found() {
    let dir = TempDir::new().unwrap();
    let instance = Instance::start(&dir, &[]);
    let mut client = instance.client();
    let answer = client.get("/status?user_id=nobody");
    assert_eq!((answer.status, &answer.json()["error"]["field"]), (404, &json!("user_id")));
    let answer = client.get("/");
    assert!(answer.status == 404 && answer.body.contains("/webhook"), "{answer:?}");
}

#[test]
fn what_was_posted_and_not_yet_handled_is_pending() {
    let dir = TempDir::new().unwrap();
    let instance = Instance::start(&dir, &["--role", "front-end"]);
    let mut client = instance.client();
    client.get("/webhook?user_id=alice&delta=5");
    client.get("/webhook?user_id=alice&delta=6");
    let pending = json!({"user_id": "alice", "counter": 0, "events_pending": 2, "version": 0});
    assert_eq!(client.get("/status?user_id=alice").json(), pending);
}

#[test]
fn the_same_id_is_counted_once_and_says_so() {
    let dir = TempDir::new().unwrap();
    let instance = Instance::start(&dir, &[]);
    let mut client = instance.client();
    let first = client.get("/webhook?user_id=alice&delta=5&id=evt_1");
    assert_eq!(first.body, "Posted increment of 5 for user alice");
    let second = client.get("/webhook?user_id=alice&delta=5&id=evt_1");
    assert_eq!(second.status, 200);
    assert_eq!(second.body, "Duplicate: evt_1 was posted before for user alice, nothing was added");
    client.get("/webhook?user_id=bob&delta=7&id=evt_1");
    assert_eq!(settled(&mut client, "alice")["counter"], 5);
    assert_eq!(settled(&mut client, "bob")["counter"], 7, "ids of different users never meet");
}

#[test]
fn every_user_is_listed_page_by_page() {
    let dir = TempDir::new().unwrap();
    let instance = Instance::start(&dir, &[]);
    let mut client = instance.client();
    let users = ["Zoe", "alice", "b%20b", "\u{e9}ve"];
    for user in ["alice", "Zoe", "%C3%A9ve", "b%2520b"] {
        client.get(&format!("/webhook?user_id={user}&delta=1"));
    }
    let mut seen = Vec::new();
    let mut after = String::new();
    while seen.len() < users.len() {
        let page = client.get(&format!("/status?limit=1{after}")).json();
        let user = page["users"][0]["user_id"].as_str().unwrap().to_owned();
        assert_eq!(page["next"], json!(user));
        after = format!("&after={}", user.replace('%', "%25").replace('\u{e9}', "%C3%A9"));
        seen.push(user);
    }
    assert_eq!(seen, users);
    assert_eq!(client.get(&format!("/status?limit=1{after}")).json(), json!({"users": [], "next": null}));
}

#[test]
fn an_overflow_becomes_a_dead_letter_and_the_counter_stays() {
    let dir = TempDir::new().unwrap();
    let instance = Instance::start(&dir, &[]);
    let mut client = instance.client();
    let max = i64::MAX;
    client.get(&format!("/webhook?user_id=alice&delta={max}"));
    assert_eq!(client.get("/webhook?user_id=alice&delta=1&id=evt_2").status, 200);
    assert_eq!(settled(&mut client, "alice")["counter"], max);
    let letters = client.get("/dead-letters").json();
    let letter = &letters["dead_letters"][0];
    assert_eq!((&letter["user_id"], &letter["id"]), (&json!("alice"), &json!("evt_2")));
    assert_eq!(letter["payload"], r#"{"delta":1}"#);
    assert!(letter["error"].as_str().unwrap().contains("does not fit 64 bits"), "{letters}");
    let behind = client.get(&format!("/dead-letters?after={}", letter["number"])).json();
    assert_eq!(behind, json!({"dead_letters": [], "next": null}));
    client.get("/webhook?user_id=alice&delta=-1");
    assert_eq!(settled(&mut client, "alice")["counter"], max - 1);
}

#[test]
fn a_start_that_cannot_succeed_says_why_and_fails() {
    for (options, why) in [
        (["--database", "oracle://me:secret@host"], "supported: sqlite:FILE"),
        (["--listen", "nonsense"], "cannot listen on nonsense"),
        (["--colour", "red"], "--help lists the options"),
    ] {
        let dir = TempDir::new().unwrap();
        let output =
            Command::new(env!("CARGO_BIN_EXE_counter")).args(options).current_dir(&dir).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(why) && !said.contains("secret"), "{said}");
    }
}
