//! What has to do with the runtime of a process, its threads and its types, and with no database.
#![allow(clippy::unwrap_used)] // Helpers outside test functions.

use std::pin::pin;
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use actornot_core::{
    Actornot, Batch, Config, Context, ErrorKind, Failure, MailboxPoster, Retry, Runner, Settled,
};
use actornot_testkit::MemoryQueue;
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

const SOON: Duration = Duration::from_secs(20);

/// Adds, or never returns.
struct Sum;

#[derive(Serialize, Deserialize)]
enum Msg {
    Add(u32),
    Hang,
}

impl Runner for Sum {
    const KIND: &'static str = "sum";
    type State = u32;
    type Message = Msg;

    async fn run_locked(&self, state: &mut u32, batch: Batch<Msg>, _: &mut Context) -> Result<(), Failure> {
        for msg in batch {
            match msg.into_inner() {
                Msg::Add(n) => *state += n,
                Msg::Hang => std::future::pending().await,
            }
        }
        Ok(())
    }
}

fn mailbox<R: Runner>(queue: MemoryQueue, runner: R, change: impl FnOnce(&mut Config)) -> MailboxPoster<R> {
    let system = Actornot::builder(queue).runner(runner).configure(change);
    system.build().unwrap().mailbox().unwrap()
}

fn on_one_thread() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

#[test]
fn a_post_that_the_end_of_its_runtime_cut_off_may_be_stored() {
    let (home, other) = (on_one_thread(), on_one_thread());
    let queue = MemoryQueue::new();
    let mailbox = home.block_on(async { mailbox(queue.clone(), Sum, |_| {}) });
    let frozen = home.block_on(queue.freeze());
    let posted = other.block_on(async {
        let mut post = pin!(mailbox.post("alice", Msg::Add(1)).into_future());
        let sent =
            std::future::poll_fn(|cx| std::task::Poll::Ready(post.as_mut().poll(cx).is_pending())).await;
        assert!(sent, "it waits for the database");
        // Its call gets as far as the frozen queue, and then its runtime ends.
        std::thread::scope(|scope| {
            scope.spawn(move || {
                home.block_on(async {
                    for _ in 0..100 {
                        tokio::task::yield_now().await;
                    }
                });
            });
        });
        post.await
    });
    drop(frozen);
    let error = posted.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::UnknownOutcome, Retry::SameId), "{error}");
}

#[test]
fn a_blocking_post_after_the_end_of_the_runtime_is_closed() {
    let home = on_one_thread();
    let mailbox = home.block_on(async { mailbox(MemoryQueue::new(), Sum, |_| {}) });
    drop(home);
    let posted = mailbox.post("alice", Msg::Add(1)).blocking().unwrap_err();
    assert_eq!(posted.kind(), ErrorKind::Closed, "{posted}");
}

#[test]
fn closing_does_not_wait_for_workers_whose_runtime_has_ended() {
    let (home, other) = (on_one_thread(), on_one_thread());
    let mailbox = home.block_on(async {
        let mailbox = mailbox(MemoryQueue::new(), Sum, |config| {
            (config.close_timeout, config.call_timeout) = (SOON, SOON);
        });
        drop(mailbox.post("alice", Msg::Hang).await.unwrap());
        mailbox
    });
    drop(home);
    let begun = Instant::now();
    other.block_on(mailbox.close());
    assert!(begun.elapsed() < SOON / 2, "it took {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_sweep_and_a_wait_without_end_end_when_they_are_done() {
    let mailbox = mailbox(MemoryQueue::new(), Sum, |_| {});
    let receipt = mailbox.post("alice", Msg::Add(1)).only_enqueue().await.unwrap();
    assert_eq!(mailbox.sweep(Duration::MAX).await.unwrap().found, 1);
    assert_eq!(receipt.settled(Duration::MAX).await.unwrap(), Settled::Handled);
}

#[tokio::test(start_paused = true)]
async fn a_sweep_every_nanosecond_lives() {
    let mailbox =
        mailbox(MemoryQueue::new(), Sum, |config| config.sweep_every = Some(Duration::from_nanos(1)));
    // So that a sweep is told when the next one is due.
    mailbox.post("later", Msg::Add(1)).after(SOON * 100).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let receipt = mailbox.post("alice", Msg::Add(1)).only_enqueue().await.unwrap();
    assert_eq!(receipt.settled(SOON).await.unwrap(), Settled::Handled);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_was_given_up_leaves_nothing_behind() {
    let mailbox = mailbox(MemoryQueue::new(), Sum, |_| {});
    let receipt = mailbox.post("alice", Msg::Add(1)).only_enqueue().await.unwrap();
    let waited_for = |n: usize| format!("{receipt:?}").contains(&format!("waited_for: {n}"));
    {
        let mut wait = pin!(receipt.settled(SOON));
        let given_up = tokio::time::timeout(Duration::from_millis(1), &mut wait).await;
        assert!(given_up.is_err() && waited_for(1), "{receipt:?}");
    }
    assert!(waited_for(0), "dropped: {receipt:?}");
    assert_eq!(receipt.settled(Duration::from_millis(1)).await.unwrap(), Settled::Pending);
    assert!(waited_for(0), "run out: {receipt:?}");
}

/// Its first state to be dropped tells so, waits for a word, and panics.
struct Bombs(Mutex<Option<Fuse>>);

struct Fuse {
    lit: mpsc::Sender<()>,
    burn: mpsc::Receiver<()>,
}

#[derive(Default, Serialize, Deserialize)]
struct Bomb {
    #[serde(skip)]
    fuse: Option<Fuse>,
}

impl Drop for Bomb {
    fn drop(&mut self) {
        if let Some(fuse) = self.fuse.take() {
            fuse.lit.send(()).unwrap();
            let _ = fuse.burn.recv_timeout(SOON);
            panic!("the drop of a state panics");
        }
    }
}

impl Runner for Bombs {
    const KIND: &'static str = "bombs";
    type State = Bomb;
    type Message = ();

    async fn run_locked(&self, state: &mut Bomb, _: Batch<()>, _: &mut Context) -> Result<(), Failure> {
        state.fuse = self.0.lock().unwrap().take();
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_that_relied_on_a_worker_which_stumbles_is_not_stranded() {
    let ((lit, is_lit), (burn, burning)) = (mpsc::channel(), mpsc::channel());
    let bombs = Bombs(Mutex::new(Some(Fuse { lit, burn: burning })));
    // Nobody else looks after the entity in time.
    let mailbox = mailbox(MemoryQueue::new(), bombs, |config| {
        (config.lease, config.sweep_every) = (SOON * 2, None);
    });
    mailbox.post("alice", ()).await.unwrap();
    tokio::task::spawn_blocking(move || is_lit.recv_timeout(SOON)).await.unwrap().unwrap();
    let second = mailbox.post("alice", ()).await.unwrap();
    burn.send(()).unwrap();
    assert_eq!(second.settled(SOON).await.unwrap(), Settled::Handled);
}
