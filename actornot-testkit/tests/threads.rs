//! A handler that blocks its thread, and with it the whole runtime, keeps its lease: the heartbeat has its own thread.
#![allow(clippy::unwrap_used)] // Helpers outside test functions.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use actornot_core::{
    Actornot, Batch, Context, EntityId, Failure, LockRequest, LockableQueue, Nonce, Runner, Settled, TryLock,
};
use actornot_testkit::MemoryQueue;

/// Long enough for a heartbeat thread that shares its core with other tests.
const LEASE: Duration = Duration::from_secs(3);

struct Blocking;

static RUNNING: AtomicBool = AtomicBool::new(false);
static HANDLED: AtomicBool = AtomicBool::new(false);
/// How often the lock was wanted while the handler ran.
static TRIED: AtomicUsize = AtomicUsize::new(0);

impl Runner for Blocking {
    const KIND: &'static str = "blocking";
    type State = bool;
    type Message = ();

    async fn run_locked(&self, state: &mut bool, _: Batch<()>, ctx: &mut Context) -> Result<(), Failure> {
        *state = ctx.fence() > 0;
        RUNNING.store(true, Ordering::Release);
        #[expect(clippy::disallowed_methods, reason = "to block the runtime is what this is about")]
        std::thread::sleep(LEASE * 2);
        RUNNING.store(false, Ordering::Release);
        Ok(())
    }
}

#[test]
fn a_handler_that_blocks_the_only_thread_of_its_runtime_keeps_its_lease() {
    let queue = MemoryQueue::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let system = runtime.block_on(async {
        let system = Actornot::builder(queue.clone()).runner(Blocking);
        system.configure(|config| config.lease = LEASE).build().unwrap()
    });
    let mailbox = system.mailbox::<Blocking>().unwrap();

    // Another process, as far as the queue can tell. It starts first: the runtime that posts is soon blocked.
    let rival = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let entity = EntityId::new("blocking", "alice").unwrap();
            for n in 0.. {
                let request = LockRequest { nonce: Nonce::from_random(n), length: LEASE, max_batch: 1 };
                let grant = queue.try_lock(&[TryLock { entity: entity.clone(), request }]).await.remove(0);
                if grant.unwrap().is_some() {
                    return true;
                }
                TRIED.fetch_add(usize::from(RUNNING.load(Ordering::Acquire)), Ordering::AcqRel);
                if HANDLED.load(Ordering::Acquire) {
                    return false;
                }
                tokio::time::sleep(LEASE / 20).await;
            }
            false
        })
    });
    let receipt = runtime.block_on(async { mailbox.post("alice", ()).await }).unwrap();
    let settled = runtime.block_on(receipt.settled(10 * LEASE)).unwrap();
    HANDLED.store(true, Ordering::Release);
    assert_eq!(settled, Settled::Handled);
    assert!(!rival.join().unwrap(), "the lease ran out while its holder was at work");
    let tried = TRIED.load(Ordering::Acquire);
    assert!(tried > 10, "the lock was wanted only {tried} times");
}
