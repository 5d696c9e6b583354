use std::time::Duration;

/// Why a run did not succeed, and what to do about it.
///
/// Any type that implements [`Error`](std::error::Error) becomes a `Failure` through `?` (a boxed error, or one of
/// `anyhow`, by `.map_err(Failure::retry)?`), and means: roll back, wait, try again, and after
/// [`max_attempts`](crate::Config::max_attempts) do as the [`PoisonPolicy`](crate::PoisonPolicy) says. The other
/// verdicts are said by name:
///
/// ```
/// # use actornot_core::Failure;
/// # use std::time::Duration;
/// # fn f(amount: &str) -> Result<(), Failure> {
/// let amount: i64 = amount.parse()?; // retry with backoff
/// if amount < 0 {
///     return Err(Failure::dead_letter("a negative amount")); // never again
/// }
/// if amount > 1_000 {
///     return Err(Failure::retry("the bank is closed").after(Duration::from_secs(60)));
/// }
/// # Ok(()) }
/// ```
///
/// It does not implement [`std::error::Error`] itself, for then `?` could not take every error.
#[derive(Debug)]
pub struct Failure {
    pub(crate) error: String,
    pub(crate) wish: Wish,
    pub(crate) handled: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Retry { after: Option<Duration> },
    DeadLetter,
    Pause,
}

impl Failure {
    /// Roll back, wait, try again.
    pub fn retry(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { error: chain(&*error.into()), wish: Wish::Retry { after: None }, handled: 0 }
    }

    /// Never try this message again: it moves to the dead letters with this error.
    ///
    /// It means the first message that was not [`handled`](Self::handled). A batch of several without that number is
    /// first run again one by one, to find which message it is.
    pub fn dead_letter(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { wish: Wish::DeadLetter, ..Self::retry(error) }
    }

    /// Stop this entity until an operator resumes it.
    pub fn pause(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { wish: Wish::Pause, ..Self::retry(error) }
    }

    /// Try again after this time instead of the growing backoff. Only for [`retry`](Self::retry).
    #[must_use]
    pub fn after(mut self, wait: Duration) -> Self {
        if let Wish::Retry { after } = &mut self.wish {
            *after = Some(wait);
        }
        self
    }

    /// The first `n` messages of the batch were handled, and the state and everything sent through the context are
    /// theirs and no others': commit those; the failure is about the message behind them.
    ///
    /// So check a message before you change the state, or send, for it.
    #[must_use]
    pub fn handled(mut self, n: usize) -> Self {
        self.handled = n;
        self
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::retry(error)
    }
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
