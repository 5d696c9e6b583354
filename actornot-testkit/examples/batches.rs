//! Batches of 64 messages through a mailbox over the in-memory queue, as many as it is told. What `cargo xtask bench
//! --instructions` counts: the loop, with as little database as there can be.
#![forbid(unsafe_code)]

use std::error::Error;
use std::time::Duration;

use actornot_core::{Batch, Context, Failure, MailboxPoster, Runner, Settled};
use actornot_testkit::MemoryQueue;
use tokio::task::JoinSet;

const BATCH: u64 = 64;

struct Counter;

impl Runner for Counter {
    const KIND: &'static str = "counter";
    type State = u64;
    type Message = u64;

    async fn run_locked(&self, state: &mut u64, batch: Batch<u64>, _: &mut Context) -> Result<(), Failure> {
        batch.iter().for_each(|delta| *state += **delta);
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let batches: u64 = std::env::args().nth(1).ok_or("how many batches?")?.parse()?;
    let mailbox = MailboxPoster::new(MemoryQueue::new(), Counter);
    for _ in 0..batches {
        let mut posts = JoinSet::new();
        for _ in 0..BATCH {
            posts.spawn(mailbox.post("alice", 1).into_future());
        }
        while let Some(receipt) = posts.join_next().await {
            let settled = receipt??.settled(Duration::from_secs(60)).await?;
            if settled != Settled::Handled {
                return Err(format!("a message was {settled:?}").into());
            }
        }
    }
    let state = mailbox.read("alice").await?.map(|view| view.state);
    if state != Some(batches * BATCH) {
        return Err(format!("{state:?} of {} messages", batches * BATCH).into());
    }
    Ok(())
}
