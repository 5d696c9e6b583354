//! Processes are killed, and every post that was answered is counted exactly once.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::client::Client;
use crate::eventually;
use crate::instance::Instance;

const REQUESTS: usize = 20_000;
const USERS: usize = 200;
const CLIENTS: usize = 128;

/// What the clients share.
struct Traffic {
    /// Where requests go; one of them dies in the middle.
    addresses: Mutex<Vec<String>>,
    next: AtomicUsize,
    answered: AtomicUsize,
    /// Requests whose outcome the kill left open.
    interrupted: AtomicUsize,
}

impl Traffic {
    fn delta(nth: usize) -> i64 {
        (nth % 11) as i64 - 3
    }

    fn user(nth: usize) -> String {
        format!("user{:03}", nth % USERS)
    }

    fn connect(&self, turn: usize) -> Client {
        eventually("an instance takes a connection", Duration::from_secs(30), || {
            let addresses = self.addresses.lock().unwrap().clone();
            addresses
                .iter()
                .cycle()
                .skip(turn % addresses.len())
                .take(2)
                .find_map(|at| Client::connect(at).ok())
        })
    }

    /// Takes requests until there are none left; one with an unknown outcome is sent again, elsewhere, with its id.
    fn client(&self, turn: usize) {
        let mut client = self.connect(turn);
        loop {
            let nth = self.next.fetch_add(1, Ordering::Relaxed);
            if nth >= REQUESTS {
                return;
            }
            let (user, delta) = (Self::user(nth), Self::delta(nth));
            let path = format!("/webhook?user_id={user}&delta={delta}&id=evt_{nth}");
            loop {
                match client.request(["GET", "POST"][nth % 2], &path) {
                    Ok(answer) if answer.status == 200 => break,
                    Ok(answer) => assert_eq!(answer.status, 503, "{answer:?}"),
                    Err(_) => {
                        self.interrupted.fetch_add(1, Ordering::Relaxed);
                        client = self.connect(turn);
                    }
                }
            }
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn wait_for(&self, requests: usize) {
        eventually("the requests are answered", Duration::from_secs(60), || {
            (self.answered.load(Ordering::Relaxed) >= requests).then_some(())
        });
    }
}

#[test]
fn twenty_thousand_posts_through_two_processes_are_counted_once_although_one_is_killed() {
    let options = ["--lease", "2", "--sweep-every", "0.5"];
    let dir = TempDir::new().unwrap();
    let started = Instant::now();
    let (survivor, victim) = (Instance::start(&dir, &options), Instance::start(&dir, &options));
    let traffic = Traffic {
        addresses: Mutex::new(vec![survivor.address.clone(), victim.address.clone()]),
        next: AtomicUsize::new(0),
        answered: AtomicUsize::new(0),
        interrupted: AtomicUsize::new(0),
    };
    let third = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|turn| {
                scope.spawn({
                    let traffic = &traffic;
                    move || traffic.client(turn)
                })
            })
            .collect();
        traffic.wait_for(REQUESTS / 2);
        victim.kill();
        let third = Instance::start(&dir, &options);
        traffic.addresses.lock().unwrap()[1] = third.address.clone();
        clients.into_iter().for_each(|client| client.join().unwrap());
        third
    });
    let answered = started.elapsed();
    let interrupted = traffic.interrupted.load(Ordering::Relaxed);
    assert!(interrupted > 0, "the kill came when nothing was under way, which tests nothing");

    // From here on nobody posts: what the dead process held is found by the others' sweeps.
    let mut client = survivor.client();
    let users = eventually("nothing is pending", Duration::from_secs(15), || {
        let users = client.users();
        users.iter().all(|(_, _, pending)| *pending == 0).then_some(users)
    });
    let mut expected: BTreeMap<String, i64> = BTreeMap::new();
    (0..REQUESTS).for_each(|nth| *expected.entry(Traffic::user(nth)).or_default() += Traffic::delta(nth));
    let counted = users.into_iter().map(|(user, counter, _)| (user, counter)).collect();
    assert_eq!(expected, counted);
    assert!(survivor.terminate().success() && third.terminate().success());
    println!("answered after {answered:?}, {interrupted} sent again, all over after {:?}", started.elapsed());
}

#[test]
fn what_a_front_end_stored_before_it_was_killed_is_handled_by_another_process() {
    let dir = TempDir::new().unwrap();
    let worker = Instance::start(&dir, &["--role", "worker", "--lease", "1", "--sweep-every", "2"]);
    let front_end = Instance::start(&dir, &["--role", "front-end"]);
    let mut client = front_end.client();
    for nth in 0..50 {
        assert_eq!(client.get(&format!("/webhook?user_id=user{}&delta=2", nth % 5)).status, 200);
    }
    front_end.kill();
    let killed = Instant::now();

    let mut client = worker.client();
    let users = eventually("they are handled", Duration::from_secs(20), || {
        let users = client.users();
        users.iter().all(|(_, _, pending)| *pending == 0).then_some(users)
    });
    // A lease and a sweep, which is jittered by a quarter; the last second is for a slow machine.
    assert!(killed.elapsed() < Duration::from_secs_f64(1.0 + 2.0 * 1.25 + 1.0), "{:?}", killed.elapsed());
    assert_eq!(users.len(), 5);
    assert!(users.iter().all(|(_, counter, _)| *counter == 20), "{users:?}");
}

#[test]
fn what_a_process_had_accepted_and_not_handled_when_it_was_killed_is_taken_over() {
    const CLIENTS: i64 = 4;
    let options = ["--lease", "1", "--sweep-every", "0.5"];
    let dir = TempDir::new().unwrap();
    let (other, victim) = (Instance::start(&dir, &options), Instance::start(&dir, &options));
    let mut watcher = other.client();
    let mut status = || watcher.get("/status?user_id=alice").json();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut client = victim.client();
            let post = move || client.request("POST", "/webhook?user_id=alice&delta=1").is_ok();
            std::thread::spawn(move || std::iter::repeat_with(post).take_while(|answered| *answered).count())
        })
        .collect();
    // Stopped, it does not change its mind between our look and its end.
    eventually("it is caught with work in hand", Duration::from_secs(20), || {
        victim.signal("STOP");
        let caught = status()["events_pending"].as_u64().is_some_and(|pending| pending > 0);
        if !caught {
            victim.signal("CONT");
        }
        caught.then_some(())
    });
    victim.kill();
    let answered: i64 = clients.into_iter().map(|client| client.join().unwrap() as i64).sum();

    let alice = eventually("alice is taken over", Duration::from_secs(5), || {
        Some(status()).filter(|alice| alice["events_pending"] == 0)
    });
    let counter = alice["counter"].as_i64().unwrap();
    // The last request of each client was not answered, and may have been accepted.
    assert!((answered..=answered + CLIENTS).contains(&counter), "{answered} answered, {alice}");
}
