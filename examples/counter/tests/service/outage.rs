//! The database goes away and comes back; the process is asked to go.

use std::time::{Duration, Instant};

use actornot_sqlite::sqlx::{self, Connection, SqliteConnection};
use tempfile::TempDir;

use crate::eventually;
use crate::instance::{Instance, database};

/// Keeps the file for itself, as a backup that got stuck would.
struct Stuck {
    runtime: tokio::runtime::Runtime,
    connection: SqliteConnection,
}

impl Stuck {
    fn hold(dir: &TempDir) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connection = runtime.block_on(async {
            let mut connection = SqliteConnection::connect(&database(dir)).await.unwrap();
            sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await.unwrap();
            connection
        });
        Self { runtime, connection }
    }

    fn let_go(self) {
        self.runtime.block_on(self.connection.close()).unwrap();
    }
}

#[test]
fn a_database_that_is_gone_is_a_503_and_its_return_needs_no_restart() {
    let dir = TempDir::new().unwrap();
    let instance = Instance::start(&dir, &["--timeout", "0.5"]);
    let mut client = instance.client();
    client.get("/webhook?user_id=alice&delta=1");
    eventually("the first is counted", Duration::from_secs(10), || {
        (client.get("/status?user_id=alice").json()["counter"] == 1).then_some(())
    });

    let stuck = Stuck::hold(&dir);
    let asked = Instant::now();
    let answer = client.get("/webhook?user_id=alice&delta=5&id=evt_1");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.headers.contains("retry-after: "), "{answer:?}");
    assert!(answer.json()["error"]["message"].as_str().unwrap().contains("retry"), "{answer:?}");
    assert!(asked.elapsed() < Duration::from_secs(5), "answered after {:?}", asked.elapsed());
    assert_eq!(client.get("/status?user_id=alice").json()["counter"], 1, "reading goes on");

    stuck.let_go();
    eventually("it is accepted again", Duration::from_secs(10), || {
        (client.get("/webhook?user_id=alice&delta=5&id=evt_1").status == 200).then_some(())
    });
    eventually("it is counted once", Duration::from_secs(10), || {
        let status = client.get("/status?user_id=alice").json();
        (status["events_pending"] == 0).then(|| assert_eq!(status["counter"], 6))
    });
}

#[test]
fn sigterm_answers_what_was_begun_and_leaves_nothing_pending() {
    let dir = TempDir::new().unwrap();
    let instance = Instance::start(&dir, &[]);
    let clients: Vec<_> = (0..16)
        .map(|nth| {
            let mut client = instance.client();
            let path = format!("/webhook?user_id=user{}&delta=1", nth % 2);
            std::thread::spawn(move || {
                let mut posted = 0;
                // Until it hangs up: every request it answers is one it must have counted.
                while let Ok(answer) = client.request("GET", &path) {
                    assert_eq!(answer.status, 200, "{answer:?}");
                    posted += 1;
                }
                posted
            })
        })
        .collect();
    let mut watcher = instance.client();
    eventually("all of them are at work", Duration::from_secs(20), || {
        let users = watcher.users();
        (users.len() == 2 && users.iter().all(|(_, counter, _)| *counter > 50)).then_some(())
    });
    drop(watcher);
    assert!(instance.terminate().success());
    let sum: i64 = clients.into_iter().map(|client| client.join().unwrap()).sum();

    // A front end runs nothing, so this is what the drained process left behind.
    let after = Instance::start(&dir, &["--role", "front-end"]);
    let users = after.client().users();
    assert_eq!(users.iter().map(|(_, _, pending)| pending).sum::<u64>(), 0, "{users:?}");
    assert_eq!(users.iter().map(|(_, counter, _)| counter).sum::<i64>(), sum);
    assert!(after.terminate().success());
}

#[test]
fn sigterm_handles_what_is_queued_before_the_process_ends() {
    let dir = TempDir::new().unwrap();
    let front_end = Instance::start(&dir, &["--role", "front-end"]);
    let mut client = front_end.client();
    // Three batches: to finish the one at hand would not do.
    for _ in 0..150 {
        assert_eq!(client.get("/webhook?user_id=alice&delta=1").status, 200);
    }
    // Its first sweep by itself would come much later.
    let instance = Instance::start(&dir, &["--sweep-every", "3600"]);
    assert!(instance.terminate().success());
    let alice = client.get("/status?user_id=alice").json();
    assert_eq!((&alice["counter"], &alice["events_pending"]), (&150.into(), &0.into()));
}
