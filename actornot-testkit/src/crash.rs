//! Processes that are really killed, at every call they make to the database.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use actornot_core::{Actornot, Error, LockableQueue, Settled};
use async_trait::async_trait;

use crate::Backend;
use crate::gate::{Gate, Gated, Point};
use crate::lab::{Lab, PAST_LEASE};
use crate::process::{Act, Probe, Process, SOON, Thing, line};

/// A backend that other processes can reach.
#[async_trait]
pub trait Shared: Backend {
    /// Where it is, for [`attach`](Self::attach) in another process.
    fn address(&self) -> String;

    /// Opens the namespace of another process's backend.
    async fn attach(address: &str) -> Arc<dyn LockableQueue>;
}

const ADDRESS: &str = "ACTORNOT_CRASH_ADDRESS";
const SCRIPT: &str = "ACTORNOT_CRASH_SCRIPT";
/// Before what the child tells, to find it among what its test harness prints.
const TELLS: &str = "@child ";

/// The child's half: plays its script until it is killed. What it tells goes to stdout.
pub async fn play<B: Shared>() {
    let address = std::env::var(ADDRESS).expect("started by its parent");
    let script = std::env::var(SCRIPT).expect("started by its parent");
    let gate = Gate::new(B::attach(&address).await);
    let queue: Arc<dyn LockableQueue> = Arc::new(Gated(gate.clone()));
    let quick = |config: &mut actornot_core::Config| {
        config.sweep_every = None;
        config.max_attempts = 2;
        config.backoff = Duration::from_millis(1);
        config.max_backoff = Duration::from_millis(4);
    };
    let system = Actornot::builder(queue).runner(Thing(Probe::new())).configure(quick).build();
    let mailbox = system.and_then(|system| system.mailbox::<Thing>()).expect("a legal configuration");
    if script == "abort" {
        mailbox.sweep(SOON).await.expect("a sweep");
        return tell("done");
    }
    let (nth, point) = script.split_once(' ').expect("a number and a point");
    let point = if point == "before" { Point::Before } else { Point::After };
    let halted = gate.halt(nth.parse().expect("a number"), point);
    let play = async {
        let mut receipts = Vec::new();
        for name in ["a", "b", "c"] {
            let act = if name == "b" { Act::Fail(1) } else { Act::Send("bob".to_owned()) };
            receipts.push(mailbox.post("alice", line(name, act)).id(name).await?);
            tell(&format!("ok {name}"));
        }
        for receipt in &receipts {
            // Retries come by sweeps, and only by these, so that the calls of a run are few.
            while receipt.settled(Duration::from_millis(5)).await? == Settled::Pending {
                mailbox.sweep(SOON).await?;
            }
        }
        mailbox.close().await;
        Ok::<(), Error>(())
    };
    tokio::select! {
        played = play => {
            played.expect("the script plays");
            tell("done");
        }
        verb = halted => {
            tell(&format!("at {verb:?}"));
            std::future::pending::<()>().await;
        }
    }
}

fn tell(text: &str) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{TELLS}{text}").and_then(|()| out.flush());
}

/// A child that is killed with its parent's interest in it.
struct Actor(Child);

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the child's half and returns what it told until it halted, or ended.
fn act(child: &str, address: &str, script: &str) -> (Vec<String>, Option<String>) {
    let program = std::env::current_exe().expect("the test's own program");
    let mut command = Command::new(program);
    command.args(["--exact", child, "--ignored", "--nocapture"]);
    command.env(ADDRESS, address).env(SCRIPT, script).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut actor = Actor(command.spawn().expect("a child process"));
    let out = actor.0.stdout.take().expect("its stdout");
    let mut told = Vec::new();
    for line in BufReader::new(out).lines() {
        let line = line.expect("a line");
        // The harness may print in front of it, on the same line.
        let Some((_, tells)) = line.split_once(TELLS) else { continue };
        if tells.starts_with("at ") || tells == "done" {
            // Dropped here: SIGKILL while it stands at the call.
            return (told, Some(tells.to_owned()));
        }
        told.push(tells.to_owned());
    }
    (told, None)
}

/// Kills a process before and after each of its calls to the database; another one finishes, and nothing is lost,
/// doubled, or out of order.
pub async fn kill_at_every_call<B: Shared>(backend: impl AsyncFn() -> B, child: &str) {
    let (mut killed, mut unknown, mut left) = (BTreeSet::new(), 0, 0);
    for nth in 1..100 {
        for point in ["before", "after"] {
            let backend = backend().await;
            let script = format!("{nth} {point}");
            let (told, end) = act(child, &backend.address(), &script);
            let end = end.unwrap_or_else(|| panic!("{script}: the child ended by itself: {told:?}"));
            if end == "done" {
                assert!(nth > 6, "the child makes only {nth} calls");
                tell(&format!("was killed {killed:?}; {unknown} posts of unknown outcome, {left} takeovers"));
                // A run that was too gentle proves nothing.
                assert!(unknown > 0 && left > 0, "nothing was left behind by any kill");
                return;
            }
            killed.insert(format!("{end} {point}"));
            let (posts, runs) = finish(backend, &told, &script).await;
            unknown += posts;
            left += runs;
        }
    }
    panic!("the child never came to its end");
}

/// Another process finishes what a killed one left; says how many posts were stored without an answer, and how many
/// messages were left to run.
async fn finish(backend: impl Backend, told: &[String], script: &str) -> (usize, usize) {
    let lab = Lab::new(backend);
    lab.elapse(PAST_LEASE).await;
    let process = lab.process().await;
    let left = usize::from(process.pending("alice").await.expect("a read") > 0);
    drain(&process).await;
    let alice = process.said("alice").await.expect("a read");
    let bob = process.said("bob").await.expect("a read");
    let ok: Vec<&str> = told.iter().filter_map(|told| told.strip_prefix("ok ")).collect();
    let letters = process.mailbox.dead_letters(None, 10).await.expect("a read");
    assert_eq!(letters, [], "{script}: nothing is poison");
    // Each was posted after the one before was answered, so whatever is there is a prefix of them all.
    assert!(
        ["a", "b", "c"].starts_with(&alice.iter().map(String::as_str).collect::<Vec<_>>()),
        "{script}: {alice:?}"
    );
    let pending = process.pending("alice").await.expect("a read");
    assert!(
        alice.len() >= ok.len(),
        "{script}: {ok:?} were answered, {alice:?} is there, {pending} pending; {told:?}, {left} left to run"
    );
    let sent: Vec<&String> = alice.iter().filter(|name| *name != "b").collect();
    assert_eq!(bob.iter().collect::<Vec<_>>(), sent, "{script}: what alice sent to bob");
    (alice.len() - ok.len(), left)
}

/// Runs everything, retries included, without a post.
async fn drain(process: &Process) {
    for _ in 0..1000 {
        let swept = process.mailbox.sweep(SOON).await.expect("a sweep");
        match (swept.found, swept.next) {
            (0, None) => return,
            // What is due later may be a lease of this very process, which will not last.
            (_, next) => tokio::time::sleep(next.unwrap_or_default().min(Duration::from_millis(5))).await,
        }
    }
    panic!("it never ends");
}

/// A message whose handler takes the process with it is given up after its attempts, and its neighbours are handled.
pub async fn abort_in_every_run<B: Shared>(backend: impl AsyncFn() -> B, child: &str) {
    let backend = backend().await;
    let address = backend.address();
    let lab = Lab::new(backend);
    let process = lab.process().await;
    for (name, act) in [("a", Act::Say), ("killer", Act::Abort), ("b", Act::Say)] {
        process.mailbox.post("alice", line(name, act)).only_enqueue().await.expect("a post");
    }
    let mut died = 0;
    while act(child, &address, "abort").1.is_none() {
        died += 1;
        assert!(died < 10, "it dies again and again");
        lab.elapse(PAST_LEASE).await;
    }
    // Once in a batch with the others, twice alone.
    assert!((2..=4).contains(&died), "it died {died} times");
    assert_eq!(process.said("alice").await.expect("a read"), ["a", "b"]);
    let letters = process.mailbox.dead_letters(None, 10).await.expect("a read");
    assert!(letters.len() == 1 && letters[0].error.contains("never settled"), "{letters:?}");
}

/// Expands the tests that really kill processes, for a backend that is [`Shared`].
///
/// The arguments are the path of a function, `async fn() -> impl Shared`, and the type it returns.
///
/// ```ignore
/// actornot_testkit::crashes!(crate::backend, crate::MyBackend);
/// ```
#[macro_export]
macro_rules! crashes {
    ($backend:path, $type:ty) => {
        mod killed {
            const CHILD: &str = "killed::the_child";

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn before_and_after_each_of_its_calls_a_process_loses_nothing() {
                $crate::crash::kill_at_every_call(async || $backend().await, CHILD).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn by_its_own_handler_a_process_is_not_killed_for_ever() {
                $crate::crash::abort_in_every_run(async || $backend().await, CHILD).await;
            }

            #[tokio::test]
            #[ignore = "the other half of the tests above, which start it"]
            async fn the_child() {
                $crate::crash::play::<$type>().await;
            }
        }
    };
}
