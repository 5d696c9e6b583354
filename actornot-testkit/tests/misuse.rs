//! Calls that cannot work where they are made say so, and what to do instead.
#![allow(clippy::unwrap_used)] // Helpers outside test functions.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use actornot_core::{Actornot, Batch, Context, Error, ErrorKind, Failure, MailboxPoster, Runner, Settled};
use actornot_testkit::MemoryQueue;

const SOON: Duration = Duration::from_secs(20);

/// Calls its own mailbox from inside its handler, and keeps what it was answered.
#[derive(Default)]
struct Recursive {
    mailbox: OnceLock<MailboxPoster<Handle>>,
    answers: Mutex<Vec<Error>>,
}

/// A runner that the test keeps a hand on.
#[derive(Clone)]
struct Handle(Arc<Recursive>);

impl Runner for Handle {
    const KIND: &'static str = "recursive";
    type State = u32;
    type Message = u32;

    async fn run_locked(&self, state: &mut u32, batch: Batch<u32>, _: &mut Context) -> Result<(), Failure> {
        *state += batch.iter().map(|n| **n).sum::<u32>();
        let Some(mailbox) = self.0.mailbox.get() else { return Ok(()) };
        let receipt = mailbox.post("other", 1).only_enqueue().await?;
        let mut answers = Vec::new();
        answers.extend(receipt.settled(SOON).await.err());
        answers.extend(mailbox.ask::<u32>("other", 1, SOON).await.err());
        answers.extend(mailbox.sweep(SOON).await.err());
        self.0.answers.lock().unwrap().extend(answers);
        Ok(())
    }
}

struct Plain;

impl Runner for Plain {
    const KIND: &'static str = "plain";
    type State = u32;
    type Message = u32;

    async fn run_locked(&self, state: &mut u32, batch: Batch<u32>, _: &mut Context) -> Result<(), Failure> {
        *state += batch.iter().map(|n| **n).sum::<u32>();
        Ok(())
    }
}

#[tokio::test]
async fn waiting_inside_a_handler_is_refused_and_names_the_way_out() {
    let recursive = Handle(Arc::default());
    let mailbox = MailboxPoster::new(MemoryQueue::new(), recursive.clone());
    assert!(recursive.0.mailbox.set(mailbox.clone()).is_ok());
    let receipt = mailbox.post("alice", 1).await.unwrap();
    assert_eq!(receipt.settled(SOON).await.unwrap(), Settled::Handled);
    let answers = recursive.0.answers.lock().unwrap();
    assert_eq!(answers.len(), 3, "{answers:?}");
    for (answer, call) in answers.iter().zip(["`settled`", "`ask`", "`sweep`"]) {
        assert_eq!(answer.kind(), ErrorKind::Misuse);
        let text = answer.to_string();
        assert!(
            text.contains(call) && text.contains("recursive/alice") && text.contains("ctx.send"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_system_needs_runners_of_different_kinds() {
    let none = Actornot::builder(MemoryQueue::new()).build().unwrap_err();
    assert_eq!((none.kind(), none.to_string().contains("at least one runner")), (ErrorKind::Misuse, true));
    let two = Actornot::builder(MemoryQueue::new()).runner(Plain).runner(Plain).build().unwrap_err();
    assert_eq!((two.kind(), two.to_string().contains("\"plain\"")), (ErrorKind::Misuse, true));
    let system = Actornot::builder(MemoryQueue::new()).runner(Plain).build().unwrap();
    let missing = system.mailbox::<Handle>().unwrap_err();
    assert_eq!((missing.kind(), missing.to_string().contains("\"recursive\"")), (ErrorKind::Misuse, true));
}

#[test]
fn a_mailbox_that_was_built_outside_a_runtime_says_where_to_build_it() {
    let built = Actornot::builder(MemoryQueue::new()).runner(Plain).build().unwrap_err();
    assert!(built.kind() == ErrorKind::Misuse && built.to_string().contains("async fn main"), "{built}");
    let mailbox = MailboxPoster::new(MemoryQueue::new(), Plain);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let posted = runtime.block_on(async { mailbox.post("alice", 1).await }).unwrap_err();
    assert!(posted.kind() == ErrorKind::Misuse && posted.to_string().contains("async fn main"), "{posted}");
}

#[test]
fn a_mailbox_that_outlives_its_runtime_is_closed() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mailbox = runtime.block_on(async { MailboxPoster::new(MemoryQueue::new(), Plain) });
    runtime.block_on(async { mailbox.post("alice", 1).await }).unwrap();
    drop(runtime);
    let other = tokio::runtime::Runtime::new().unwrap();
    let posted = other.block_on(async { mailbox.post("alice", 1).await }).unwrap_err();
    assert!(posted.kind() == ErrorKind::Closed && posted.to_string().contains("runtime"), "{posted}");
}

#[test]
fn a_blocking_post_works_where_it_can_and_is_refused_where_it_could_deadlock() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mailbox = runtime.block_on(async { MailboxPoster::new(MemoryQueue::new(), Plain) });
    let refused = runtime.block_on(async { mailbox.post("alice", 1).blocking() }).unwrap_err();
    assert!(refused.kind() == ErrorKind::Misuse && refused.to_string().contains("await"), "{refused}");
    let receipt = mailbox.post("alice", 1).blocking().unwrap();
    assert_eq!(runtime.block_on(receipt.settled(SOON)).unwrap(), Settled::Handled);
}

#[tokio::test]
async fn a_closed_mailbox_can_be_closed_again_and_takes_no_posts() {
    let mailbox = MailboxPoster::new(MemoryQueue::new(), Plain);
    tokio::join!(mailbox.close(), mailbox.close());
    mailbox.close().await;
    let posted = mailbox.post("alice", 1).await.unwrap_err();
    assert_eq!(posted.kind(), ErrorKind::Closed);
    assert_eq!(mailbox.read("alice").await.unwrap(), None, "reading goes on");
}

#[tokio::test]
async fn a_reply_is_unsupported_until_an_adapter_brings_it() {
    let mailbox = MailboxPoster::new(MemoryQueue::new(), Plain);
    let asked = mailbox.ask::<u32>("alice", 1, SOON).await.unwrap_err();
    assert_eq!(asked.kind(), ErrorKind::Unsupported);
    assert_eq!(mailbox.read("alice").await.unwrap(), None, "nothing was posted");
}

#[tokio::test]
async fn payloads_are_not_in_what_debug_prints() {
    let mailbox = MailboxPoster::new(MemoryQueue::new(), Plain);
    let post = mailbox.post("alice", 424_242).header("token", "s3cret").id("evt_1");
    let text = format!("{post:?}");
    assert!(text.contains("evt_1") && !text.contains("424242") && !text.contains("s3cret"), "{text}");
    post.await.unwrap();
}
