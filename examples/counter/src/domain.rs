//! The user's logic: what a counter remembers, what it is told, and what it does then. Knows no database, no HTTP.

use actornot_core::{Batch, Context, Failure, Runner};
use serde::{Deserialize, Serialize};

/// What is remembered of a user.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Total {
    pub(crate) counter: i64,
}

/// What a user's counter is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Increment {
    pub(crate) delta: i64,
}

#[derive(Debug)]
pub(crate) struct Counter;

impl Runner for Counter {
    const KIND: &'static str = "counter";
    type State = Total;
    type Message = Increment;

    async fn run_locked(
        &self,
        state: &mut Total,
        batch: Batch<Increment>,
        _ctx: &mut Context,
    ) -> Result<(), Failure> {
        for (handled, increment) in batch.iter().enumerate() {
            let Some(sum) = state.counter.checked_add(increment.delta) else {
                // No attempt will make it fit, so it goes to the dead letters; those before it are committed.
                let error = format!("{} {:+} does not fit 64 bits", state.counter, increment.delta);
                return Err(Failure::dead_letter(error).handled(handled));
            };
            state.counter = sum;
        }
        Ok(())
    }
}

/// How to test a runner: the real mailbox over a queue in memory.
#[cfg(test)]
mod tests {
    use std::time::Duration;

    use actornot_core::{MailboxPoster, Position, Settled};
    use actornot_testkit::MemoryQueue;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    fn mailbox() -> MailboxPoster<Counter> {
        MailboxPoster::new(MemoryQueue::new(), Counter)
    }

    async fn add(mailbox: &MailboxPoster<Counter>, delta: i64) -> Settled {
        mailbox.post("alice", Increment { delta }).await.unwrap().settled(SOON).await.unwrap()
    }

    #[tokio::test]
    async fn increments_add_up() {
        let mailbox = mailbox();
        assert_eq!(add(&mailbox, 5).await, Settled::Handled);
        assert_eq!(add(&mailbox, -7).await, Settled::Handled);
        let alice = mailbox.read("alice").await.unwrap().unwrap();
        assert_eq!((alice.counter, alice.pending), (-2, 0));
        assert_eq!(mailbox.read("bob").await.unwrap(), None);
    }

    #[tokio::test]
    async fn an_overflow_is_a_dead_letter_and_the_counter_goes_on() {
        let mailbox = mailbox();
        add(&mailbox, i64::MAX - 1).await;
        assert_eq!(add(&mailbox, 2).await, Settled::Dead);
        assert_eq!(add(&mailbox, 1).await, Settled::Handled);
        assert_eq!(mailbox.read("alice").await.unwrap().unwrap().counter, i64::MAX);

        let letters = mailbox.dead_letters(None, 10).await.unwrap();
        assert_eq!(letters.len(), 1);
        assert_eq!(letters[0].error, "9223372036854775806 +2 does not fit 64 bits");

        // Once there is room for it, it can be put back.
        add(&mailbox, -10).await;
        assert!(mailbox.redrive(&letters[0], Position::Tail).await.unwrap());
        add(&mailbox, 0).await;
        assert_eq!(mailbox.read("alice").await.unwrap().unwrap().counter, i64::MAX - 8);
    }

    #[tokio::test]
    async fn an_overflow_within_a_batch_keeps_what_was_before_and_behind_it() {
        // Nothing runs at first, so that all of them are one batch.
        let queue = MemoryQueue::new();
        let mailbox = MailboxPoster::new(queue, Counter);
        let mut last = None;
        for delta in [i64::MAX, 1, -1] {
            last = Some(mailbox.post("alice", Increment { delta }).only_enqueue().await.unwrap());
        }
        mailbox.sweep(SOON).await.unwrap();
        assert_eq!(last.unwrap().settled(SOON).await.unwrap(), Settled::Handled);
        assert_eq!(mailbox.read("alice").await.unwrap().unwrap().counter, i64::MAX - 1);
        assert_eq!(mailbox.dead_letters(None, 10).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn the_same_id_counts_once() {
        let mailbox = mailbox();
        for duplicate in [false, true] {
            let receipt = mailbox.post("alice", Increment { delta: 5 }).id("evt_1").await.unwrap();
            assert_eq!(receipt.is_duplicate(), duplicate);
            assert_eq!(receipt.settled(SOON).await.unwrap(), Settled::Handled);
        }
        assert_eq!(mailbox.read("alice").await.unwrap().unwrap().counter, 5);
    }
}
