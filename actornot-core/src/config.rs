use std::time::Duration;

use crate::Error;

/// Everything that can be set, with its defaults.
///
#[doc = include_str!("../DEFAULTS.md")]
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// How long a lease lasts without a sign of life; another instance takes over after that.
    pub lease: Duration,
    /// The most messages in one run.
    pub batch: u32,
    /// How many entities this process runs at once. 160 times as many wait for that in its memory; more are left to the
    /// database, and fetched when few wait.
    pub concurrency: u32,
    /// How many batches a hot entity runs before it queues up behind the others.
    pub slice: u32,
    /// How long an id given by the caller is remembered.
    pub retention: Duration,
    /// How long an id made by this library is remembered; it only serves calls with an unknown outcome.
    pub own_retention: Duration,
    /// How many attempts a message has, alone in its batch, before `poison` applies.
    pub max_attempts: u32,
    /// What becomes of a message that used up its attempts.
    pub poison: PoisonPolicy,
    /// The first wait after a failed run; it doubles with each further one, and is jittered.
    pub backoff: Duration,
    /// The longest wait after a failed run.
    pub max_backoff: Duration,
    /// A run that takes longer is cancelled, and counts as failed.
    pub run_timeout: Duration,
    /// How long a cancelled run may tidy up before it is aborted.
    pub cancel_grace: Duration,
    /// How long a database call is repeated, with the same ids, before its caller gets the error.
    pub call_timeout: Duration,
    /// How long `close` waits for running batches before it hands their leases back.
    pub close_timeout: Duration,
    /// How often this process looks for stranded work, jittered; `None`: never, and a cron calls
    /// [`sweep`](crate::MailboxPoster::sweep). Only with [`Scheduler::Concurrent`].
    pub sweep_every: Option<Duration>,
    /// Where the loop runs.
    pub scheduler: Scheduler,
    /// What is refused before it reaches the database.
    pub limits: Limits,
}

/// Where the loop runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Scheduler {
    /// On tasks of the runtime the mailbox was built on; `post` returns when the message is durable.
    #[default]
    Concurrent,
    /// Inside the caller: `post` returns when everything it led to has ended, sends included. Nothing runs after the call
    /// returned, and no batch is started after `budget` has passed: for hosts that freeze a process between requests.
    /// A run that has begun may take longer, up to `run_timeout`.
    Inline {
        /// How long one call may go on starting batches.
        budget: Duration,
    },
    /// Nowhere: `post` only enqueues. For front ends whose messages are run by workers.
    Never,
}

/// What becomes of a message that used up its attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum PoisonPolicy {
    /// It moves to the dead letters with its error, and the entity goes on.
    #[default]
    DeadLetter,
    /// The entity stops until an operator resumes it.
    Pause,
    /// It stays at the head and is tried again at the longest backoff: strict order, and an outage heals by itself.
    Block,
}

/// What is refused before it reaches the database, with a typed error that names the field and the limit.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The most bytes of a payload's JSON text.
    pub payload_bytes: usize,
    /// The most bytes of a state's JSON text.
    pub state_bytes: usize,
    /// The most bytes of all names and values of a message's headers together.
    pub headers_bytes: usize,
    /// The most messages an entity may have pending.
    pub backlog: u64,
    /// The most calls waiting in this process for the database; further posts are refused with `Unavailable`.
    pub waiting_calls: usize,
}

impl Limits {
    /// The most bytes of an entity's key.
    pub const KEY_BYTES: usize = 512;
    /// The most bytes of a kind.
    pub const KIND_BYTES: usize = 64;
    /// The most bytes of a message id.
    pub const ID_BYTES: usize = 256;
    /// The most bytes of an error text that is stored; longer ones are cut at a character boundary.
    pub const ERROR_BYTES: usize = 4096;
    /// The most entities in one slice of a verb.
    pub const SLICE: usize = 64;
    /// The longest lease. A stored deadline farther away was written by a clock that has jumped back since.
    pub const LEASE: Duration = Duration::from_secs(3600);
    /// The longest delay, retention or backoff.
    pub const DELAY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            payload_bytes: 256 * 1024,
            state_bytes: 1024 * 1024,
            headers_bytes: 8 * 1024,
            backlog: 100_000,
            waiting_calls: 100_000,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(30),
            batch: 64,
            concurrency: 64,
            slice: 16,
            retention: Duration::from_secs(24 * 3600),
            own_retention: Duration::from_secs(600),
            max_attempts: 5,
            poison: PoisonPolicy::DeadLetter,
            backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(60),
            run_timeout: Duration::from_secs(300),
            cancel_grace: Duration::from_secs(5),
            call_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(30),
            sweep_every: Some(Duration::from_secs(30)),
            scheduler: Scheduler::Concurrent,
            limits: Limits::default(),
        }
    }
}

impl Config {
    /// Refuses values under which the loop could not keep its promises.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let positive = [("batch", self.batch), ("concurrency", self.concurrency), ("slice", self.slice)];
        for (field, value) in positive {
            if value == 0 {
                return Err(Error::invalid(field, "must be at least 1"));
            }
        }
        if self.max_attempts == 0 {
            return Err(Error::invalid("max_attempts", "must be at least 1"));
        }
        if self.lease < Duration::from_millis(100) || self.lease > Limits::LEASE {
            return Err(Error::invalid("lease", format!("must be between 100 ms and {:?}", Limits::LEASE)));
        }
        let budget = match self.scheduler {
            Scheduler::Inline { budget } => budget,
            Scheduler::Concurrent | Scheduler::Never => Duration::ZERO,
        };
        for (field, value) in [
            ("retention", self.retention),
            ("own_retention", self.own_retention),
            ("backoff", self.backoff),
            ("max_backoff", self.max_backoff),
            ("run_timeout", self.run_timeout),
            ("cancel_grace", self.cancel_grace),
            ("call_timeout", self.call_timeout),
            ("close_timeout", self.close_timeout),
            ("sweep_every", self.sweep_every.unwrap_or_default()),
            ("budget", budget),
        ] {
            if value > Limits::DELAY {
                return Err(Error::invalid(field, format!("must be at most {:?}", Limits::DELAY)));
            }
        }
        for (field, value) in [("call_timeout", self.call_timeout), ("run_timeout", self.run_timeout)] {
            if value.is_zero() {
                return Err(Error::invalid(field, "must be longer than zero"));
            }
        }
        if self.limits.waiting_calls == 0 {
            return Err(Error::invalid("limits.waiting_calls", "must be at least 1"));
        }
        if self.sweep_every.is_some_and(|period| period.is_zero()) {
            return Err(Error::invalid("sweep_every", "must be longer than zero; None never sweeps"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The second column of the table, by the name in the first.
    fn table() -> Vec<(String, String)> {
        include_str!("../DEFAULTS.md")
            .lines()
            .skip(2)
            .map(|line| {
                let mut cells = line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', ""));
                (cells.next().unwrap(), cells.next().unwrap())
            })
            .collect()
    }

    fn time(time: Duration) -> String {
        match time.as_millis() {
            ms if ms < 1000 => format!("{ms} ms"),
            ms if ms < 60_000 => format!("{} s", ms / 1000),
            ms if ms <= 3_600_000 => format!("{} min", ms / 60_000),
            ms => format!("{} h", ms / 3_600_000),
        }
    }

    fn bytes(bytes: usize) -> String {
        match bytes {
            bytes if bytes < 1024 => format!("{bytes} B"),
            bytes if bytes < 1024 * 1024 => format!("{} KiB", bytes / 1024),
            bytes => format!("{} MiB", bytes / 1024 / 1024),
        }
    }

    #[test]
    fn the_table_of_defaults_says_what_the_code_does() {
        let c = Config::default();
        assert_eq!(c.poison, PoisonPolicy::DeadLetter);
        assert_eq!(c.scheduler, Scheduler::Concurrent);
        let code = [
            ("lease", time(c.lease)),
            ("batch", format!("{} messages", c.batch)),
            ("concurrency", format!("{} entities", c.concurrency)),
            ("slice", format!("{} batches", c.slice)),
            ("retention", time(c.retention)),
            ("own_retention", time(c.own_retention)),
            ("max_attempts", c.max_attempts.to_string()),
            ("poison", "dead-letter".into()),
            ("backoff", time(c.backoff)),
            ("max_backoff", time(c.max_backoff)),
            ("run_timeout", time(c.run_timeout)),
            ("cancel_grace", time(c.cancel_grace)),
            ("call_timeout", time(c.call_timeout)),
            ("close_timeout", time(c.close_timeout)),
            ("sweep_every", time(c.sweep_every.unwrap())),
            ("scheduler", "concurrent".into()),
            ("limits.payload_bytes", bytes(c.limits.payload_bytes)),
            ("limits.state_bytes", bytes(c.limits.state_bytes)),
            ("limits.headers_bytes", bytes(c.limits.headers_bytes)),
            ("limits.backlog", format!("{} messages", c.limits.backlog)),
            ("limits.waiting_calls", format!("{} calls", c.limits.waiting_calls)),
            ("Limits::KEY_BYTES", bytes(Limits::KEY_BYTES)),
            ("Limits::KIND_BYTES", bytes(Limits::KIND_BYTES)),
            ("Limits::ID_BYTES", bytes(Limits::ID_BYTES)),
            ("Limits::ERROR_BYTES", bytes(Limits::ERROR_BYTES)),
            ("Limits::LEASE", time(Limits::LEASE)),
        ];
        let code: Vec<_> = code.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        assert_eq!(table(), code);
    }

    #[test]
    fn the_readme_shows_the_table_of_defaults() {
        let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
        assert!(readme.contains(include_str!("../DEFAULTS.md").trim()), "copy DEFAULTS.md into README.md");
    }

    #[test]
    fn a_configuration_that_cannot_work_is_refused_by_name() {
        let refused = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        assert!(refused(|c| c.batch = 0).starts_with("batch"));
        assert!(refused(|c| c.lease = Duration::from_millis(1)).starts_with("lease"));
        assert!(refused(|c| c.lease = Limits::LEASE * 2).starts_with("lease"));
        assert!(refused(|c| c.sweep_every = Some(Duration::ZERO)).starts_with("sweep_every"));
        assert!(refused(|c| c.max_attempts = 0).starts_with("max_attempts"));
        assert!(refused(|c| c.call_timeout = Duration::ZERO).starts_with("call_timeout"));
        assert!(refused(|c| c.retention = Duration::MAX).starts_with("retention"));
        assert!(refused(|c| c.run_timeout = Duration::MAX).starts_with("run_timeout"));
        assert!(refused(|c| c.cancel_grace = Duration::MAX).starts_with("cancel_grace"));
        assert!(refused(|c| c.call_timeout = Duration::MAX).starts_with("call_timeout"));
        assert!(refused(|c| c.close_timeout = Duration::MAX).starts_with("close_timeout"));
        assert!(refused(|c| c.sweep_every = Some(Duration::MAX)).starts_with("sweep_every"));
        assert!(refused(|c| c.scheduler = Scheduler::Inline { budget: Duration::MAX }).starts_with("budget"));
        assert!(refused(|c| c.run_timeout = Duration::ZERO).starts_with("run_timeout"));
        assert!(refused(|c| c.limits.waiting_calls = 0).starts_with("limits.waiting_calls"));
    }
}
