//! What a run's outcome means for the queue: attempts, backoff, isolation of poison, and the three policies.
//!
//! Pure, so that the whole policy can be read, and tested, in one place.

use std::time::Duration;

use crate::failure::{Failure, Wish};
use crate::turn::{Outcome, Rest};
use crate::{Config, HandedOut, Limits, PoisonPolicy, Ready, Verdict, Waiting};

/// What the commit of a run says about the messages.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Settle {
    /// How many messages, from the front, are acknowledged.
    pub(crate) acked: usize,
    pub(crate) verdict: Verdict,
    pub(crate) batch_limit: u32,
}

/// What the history of a hand-out says about its first message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct History {
    pub(crate) messages: usize,
    pub(crate) deliveries: u32,
    pub(crate) charged: u32,
    pub(crate) batch_limit: u32,
}

impl From<&HandedOut> for History {
    fn from(batch: &HandedOut) -> Self {
        Self {
            messages: batch.messages.len(),
            deliveries: batch.deliveries,
            charged: batch.charged,
            batch_limit: batch.batch_limit,
        }
    }
}

impl Config {
    /// A message that was handed out alone more often than it may be, and never settled: it kills the process, or
    /// outlives its lease, and must not be run again.
    pub(crate) fn gives_up(&self, batch: &HandedOut) -> Option<Settle> {
        if batch.messages.len() != 1
            || batch.charged <= self.max_attempts
            || self.poison == PoisonPolicy::Block
        {
            return None;
        }
        let error = format!(
            "handed out {} times and never settled: the process died, or its lease ran out, on each attempt",
            batch.charged - 1
        );
        Some(Settle { acked: 0, verdict: self.poisoned(error), batch_limit: batch.batch_limit })
    }

    /// What a run's outcome means. `jitter` is a random number between 0 and 1.
    pub(crate) fn settle(&self, history: History, outcome: &Outcome, jitter: f64) -> Settle {
        let acked = outcome.handled;
        let all = acked == history.messages;
        let settled = |verdict, batch_limit| Settle { acked, verdict, batch_limit };
        let grown = history.batch_limit.saturating_mul(2).clamp(1, self.batch);
        match &outcome.rest {
            Rest::Failed(failure) if !all => self.failed(history, failure, acked, jitter),
            // Whatever a handler says after it has handled everything, everything is handled.
            Rest::Nothing | Rest::Failed(_) => settled(Verdict::Proceed, grown),
            Rest::Undecodable(error) => {
                settled(Verdict::DeadLetter { error: cut(error) }, history.batch_limit)
            }
            Rest::StateUndecodable(error) => {
                settled(Verdict::Pause { reason: cut(error) }, history.batch_limit)
            }
            Rest::NotReady { after, error } => {
                let after = (*after).clamp(Ready::SOONEST, Limits::DELAY);
                let error = error.as_deref().map(cut);
                settled(Verdict::Wait { why: Waiting::NotReady, after, error }, history.batch_limit)
            }
        }
    }

    fn failed(&self, history: History, failure: &Failure, acked: usize, jitter: f64) -> Settle {
        let error = cut(&failure.error);
        let alone = history.messages == 1;
        let halved = u32::try_from(history.messages / 2).unwrap_or(u32::MAX).max(1);
        let (verdict, batch_limit) = match failure.wish {
            Wish::Pause => (Verdict::Pause { reason: error }, history.batch_limit),
            // Alone, or right behind a named prefix, the culprit is known.
            Wish::DeadLetter if alone || acked > 0 => (Verdict::DeadLetter { error }, history.batch_limit),
            Wish::DeadLetter => (Verdict::Proceed, 1),
            Wish::Retry { .. } if alone && history.charged >= self.max_attempts => {
                (self.poisoned(error), history.batch_limit)
            }
            Wish::Retry { after } => {
                // Behind acknowledged messages stands a new head, at its first attempt.
                let attempt = if acked > 0 { 1 } else { history.deliveries };
                let after = after.unwrap_or_else(|| self.backoff_of(attempt, jitter)).min(Limits::DELAY);
                (Verdict::Wait { why: Waiting::Backoff, after, error: Some(error) }, halved)
            }
        };
        Settle { acked, verdict, batch_limit }
    }

    fn poisoned(&self, error: String) -> Verdict {
        match self.poison {
            PoisonPolicy::DeadLetter => Verdict::DeadLetter { error },
            PoisonPolicy::Pause => Verdict::Pause { reason: error },
            PoisonPolicy::Block => {
                Verdict::Wait { why: Waiting::Blocked, after: self.max_backoff, error: Some(error) }
            }
        }
    }

    /// Doubles with each attempt up to the longest; the upper half of it is random, so that entities that failed
    /// together do not come back together.
    fn backoff_of(&self, attempt: u32, jitter: f64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(30);
        let full = self.backoff.saturating_mul(1 << doublings).min(self.max_backoff);
        full.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
    }
}

/// An error text within its limit, cut where a character ends; without NUL, which not every database can store.
fn cut(error: &str) -> String {
    let mut error = error.replace('\0', "\u{fffd}");
    let mut end = error.len().min(Limits::ERROR_BYTES);
    while !error.is_char_boundary(end) {
        end -= 1;
    }
    error.truncate(end);
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(messages: usize, charged: u32) -> History {
        History { messages, deliveries: charged.max(1), charged, batch_limit: 64 }
    }

    fn failed(failure: Failure) -> Outcome {
        Outcome { handled: failure.handled, state: None, rest: Rest::Failed(failure) }
    }

    #[test]
    fn a_success_acknowledges_everything_and_doubles_the_batch_limit() {
        let outcome = Outcome { handled: 4, state: None, rest: Rest::Nothing };
        let history = History { batch_limit: 4, ..history(4, 0) };
        let settled = Config::default().settle(history, &outcome, 0.0);
        assert_eq!(settled, Settle { acked: 4, verdict: Verdict::Proceed, batch_limit: 8 });
    }

    #[test]
    fn a_failed_batch_is_halved_and_waits() {
        let settled = Config::default().settle(history(7, 0), &failed(Failure::retry("no")), 1.0);
        let wait = Verdict::Wait {
            why: Waiting::Backoff,
            after: Duration::from_millis(100),
            error: Some("no".to_owned()),
        };
        assert_eq!(settled, Settle { acked: 0, verdict: wait, batch_limit: 3 });
    }

    #[test]
    fn backoff_doubles_up_to_its_longest_and_at_least_half_of_it_is_waited() {
        let config = Config::default();
        assert_eq!(config.backoff_of(1, 1.0), Duration::from_millis(100));
        assert_eq!(config.backoff_of(4, 1.0), Duration::from_millis(800));
        assert_eq!(config.backoff_of(4, 0.0), Duration::from_millis(400));
        assert_eq!(config.backoff_of(u32::MAX, 1.0), Duration::from_secs(60));
    }

    #[test]
    fn the_last_attempt_ends_as_the_policy_says() {
        let mut config = Config::default();
        let last = history(1, config.max_attempts);
        let verdict = |config: &Config| config.settle(last, &failed(Failure::retry("no")), 0.0).verdict;
        assert_eq!(verdict(&config), Verdict::DeadLetter { error: "no".into() });
        config.poison = PoisonPolicy::Pause;
        assert_eq!(verdict(&config), Verdict::Pause { reason: "no".into() });
        config.poison = PoisonPolicy::Block;
        assert!(matches!(verdict(&config), Verdict::Wait { why: Waiting::Blocked, .. }));
    }

    #[test]
    fn an_attempt_within_a_larger_batch_never_uses_the_last_one_up() {
        let settled = Config::default().settle(history(2, 99), &failed(Failure::retry("no")), 0.0);
        assert!(matches!(settled.verdict, Verdict::Wait { why: Waiting::Backoff, .. }));
    }

    #[test]
    fn a_dead_letter_of_unknown_culprit_is_looked_for_one_by_one_without_waiting() {
        let settled = Config::default().settle(history(5, 0), &failed(Failure::dead_letter("no")), 0.0);
        assert_eq!(settled, Settle { acked: 0, verdict: Verdict::Proceed, batch_limit: 1 });
    }

    #[test]
    fn a_dead_letter_behind_a_handled_prefix_is_known() {
        let failure = Failure::dead_letter("no").handled(2);
        let settled = Config::default().settle(history(5, 0), &failed(failure), 0.0);
        assert_eq!(settled.acked, 2);
        assert_eq!(settled.verdict, Verdict::DeadLetter { error: "no".into() });
    }

    #[test]
    fn a_message_that_kills_its_process_is_given_up_without_another_run() {
        let config = Config::default();
        let message = crate::StoredMessage {
            id: crate::MessageId::from_random(1),
            payload: String::new(),
            headers: crate::Headers::new(),
        };
        let mut batch = HandedOut { messages: vec![message], deliveries: 5, charged: 5, batch_limit: 1 };
        assert_eq!(config.gives_up(&batch), None);
        batch.charged = 6;
        let settled = config.gives_up(&batch).expect("a sixth hand-out is one too many");
        assert!(
            matches!(settled.verdict, Verdict::DeadLetter { error } if error.contains("handed out 5 times"))
        );
    }

    #[test]
    fn a_long_error_is_cut_where_a_character_ends() {
        let error = "\0é".repeat(Limits::ERROR_BYTES);
        let cut = cut(&error);
        assert!(cut.starts_with("\u{fffd}é"));
        assert!((Limits::ERROR_BYTES - 3..=Limits::ERROR_BYTES).contains(&cut.len()), "{}", cut.len());
    }
}
