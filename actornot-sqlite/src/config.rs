use std::path::{Path, PathBuf};
use std::time::Duration;

use actornot_core::{Error, ErrorKind};
use sqlx::sqlite::SqliteConnectOptions;

use crate::url::{self, Location};

/// Nobody waits longer for a lock; and a sum with the clock must not overflow.
const LONGEST_PATIENCE: Duration = Duration::from_secs(3600);

/// So much of the log stays on the disk once it has been written back: a long reader makes it grow.
const LOG_KEPT: u64 = 64 << 20;

/// Where the database is, and how patient a call is.
///
/// ```
/// # use actornot_sqlite::SqliteConfig;
/// # use std::time::Duration;
/// let config = SqliteConfig::new("sqlite:counter.db").busy_timeout(Duration::from_secs(2)).readers(8);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqliteConfig {
    url: String,
    busy_timeout: Duration,
    readers: u32,
    memory: bool,
    max_pages: Option<u32>,
}

impl SqliteConfig {
    /// The defaults, for a database file: `sqlite:counter.db`, `sqlite:///var/lib/app/counter.db`.
    ///
    /// A relative name is looked up when the queue is opened, and never again. `?mode=rw` refuses to create the file.
    /// A name without `sqlite:` is refused.
    pub fn new(url: impl Into<String>) -> Self {
        let busy_timeout = Duration::from_secs(5);
        Self { url: url.into(), busy_timeout, readers: 4, memory: false, max_pages: None }
    }

    /// How long a call waits to write, behind earlier calls of this process and other processes together, before it
    /// answers [`Unavailable`](actornot_core::ErrorKind::Unavailable). Default: 5 s; at most an hour.
    #[must_use]
    pub fn busy_timeout(mut self, patience: Duration) -> Self {
        self.busy_timeout = patience;
        self
    }

    /// The most connections that read at the same time. Default: 4. There is always one that writes.
    #[must_use]
    pub fn readers(mut self, most: u32) -> Self {
        self.readers = most.max(1);
        self
    }

    /// Accepts `:memory:`, which loses everything with this process and is invisible to others: for tests.
    #[must_use]
    pub fn allow_single_process_memory(mut self) -> Self {
        self.memory = true;
        self
    }

    /// The most pages the file may have: a full disk for tests.
    #[doc(hidden)]
    #[must_use]
    pub fn max_pages(mut self, most: u32) -> Self {
        self.max_pages = Some(most);
        self
    }

    pub(crate) fn check(self) -> Result<Target, Error> {
        if self.busy_timeout.is_zero() || self.busy_timeout > LONGEST_PATIENCE {
            return Err(Error::invalid("busy_timeout", "must be longer than nothing and at most an hour"));
        }
        let Location { options, path, memory, create } = url::parse(&self.url)?;
        if memory && !self.memory {
            return Err(Error::new(
                ErrorKind::Incompatible,
                "an in-memory database voids G1: it ends with this process and no other can see it; \
                 name a file, or call SqliteConfig::allow_single_process_memory",
            ));
        }
        let mut options = options
            .busy_timeout(self.busy_timeout)
            .pragma("synchronous", "FULL")
            // KiB for each of its connections. The system has the pages anyway; with eight times that, which SQLite takes by
            // itself, nothing was faster.
            .pragma("cache_size", "-256")
            .pragma("journal_size_limit", LOG_KEPT.to_string());
        if let Some(most) = self.max_pages {
            options = options.pragma("max_page_count", most.to_string());
        }
        let options = sqlx::ConnectOptions::disable_statement_logging(options);
        // Only the first connection creates.
        let options = options.create_if_missing(false);
        Ok(Target { options, path, memory, create, busy_timeout: self.busy_timeout, readers: self.readers })
    }
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) options: SqliteConnectOptions,
    pub(crate) path: PathBuf,
    pub(crate) memory: bool,
    pub(crate) create: bool,
    pub(crate) busy_timeout: Duration,
    pub(crate) readers: u32,
}

impl Target {
    /// `counter.db-turn` beside `counter.db`.
    pub(crate) fn turn_file(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push("-turn");
        name.into()
    }

    /// For messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}
