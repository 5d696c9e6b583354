use std::collections::BTreeSet;
use std::time::Duration;

use actornot_core::Error;
use sqlx::ConnectOptions as _;
use sqlx::postgres::PgConnectOptions;

use crate::doctor::UNSAFE;
use crate::statements::Texts;
use crate::url;

/// Nobody waits longer for a lock; and a sum with the clock must not overflow.
const LONGEST_PATIENCE: Duration = Duration::from_secs(3600);

/// Where the database is, and how patient a call is.
///
/// ```
/// # use actornot_postgres::PostgresConfig;
/// # use std::time::Duration;
/// let config = PostgresConfig::new("postgres://app@db/app").namespace("jobs").patience(Duration::from_secs(2));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresConfig {
    url: String,
    namespace: String,
    patience: Duration,
    connections: u32,
    transaction_pooler: bool,
    never_install: bool,
    allowed: BTreeSet<String>,
}

impl PostgresConfig {
    /// The defaults, for a database: `postgres://user:password@host:5432/database?sslmode=verify-full`.
    ///
    /// `postgresql://` means the same. Unknown parameters are refused.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            namespace: "actornot".into(),
            patience: Duration::from_secs(5),
            connections: 10,
            transaction_pooler: false,
            never_install: false,
            allowed: BTreeSet::new(),
        }
    }

    /// The schema that holds the tables and functions: `[a-z][a-z0-9_]{0,30}`. Default: `actornot`.
    #[must_use]
    pub fn namespace(mut self, name: impl Into<String>) -> Self {
        self.namespace = name.into();
        self
    }

    /// How long a call waits for a connection before it answers
    /// [`Unavailable`](actornot_core::ErrorKind::Unavailable). Default: 5 s; at most an hour. For a lock that somebody
    /// keeps, and for what deadlocks, it waits half a second at most, so that it does not hold up the calls behind it;
    /// a mailbox repeats it.
    ///
    /// A server that takes a call and never answers is given up after twice that, and 5 s, with an
    /// [`UnknownOutcome`](actornot_core::ErrorKind::UnknownOutcome).
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The most connections that are open at the same time; the heartbeat has one more. Default: 10; at least one.
    #[must_use]
    pub fn connections(mut self, most: u32) -> Self {
        self.connections = most.max(1);
        self
    }

    /// There is a pooler in transaction mode in between (statement mode cannot work): no statement is kept prepared.
    ///
    /// Each call is an explicit transaction then, of four round trips to the pooler instead of one.
    #[must_use]
    pub fn transaction_pooler(mut self, in_between: bool) -> Self {
        self.transaction_pooler = in_between;
        self
    }

    /// [`open`](crate::PostgresQueue::open) creates nothing: for a role without the right to.
    ///
    /// A missing or older installation is [`Incompatible`](actornot_core::ErrorKind::Incompatible) then.
    #[must_use]
    pub fn never_install(mut self) -> Self {
        self.never_install = true;
        self
    }

    /// Accepts a value that voids G1 of one setting, by its name: `fsync`, `full_page_writes` or `synchronous_commit`.
    #[must_use]
    pub fn allow_unsafe(mut self, setting: impl Into<String>) -> Self {
        self.allowed.insert(setting.into());
        self
    }

    pub(crate) fn check(self) -> Result<Target, Error> {
        if self.patience.is_zero() || self.patience > LONGEST_PATIENCE {
            return Err(Error::invalid("patience", "must be longer than nothing and at most an hour"));
        }
        let mut letters = self.namespace.bytes();
        let begins = letters.next().is_some_and(|byte| byte.is_ascii_lowercase());
        let rest = letters.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if !begins || !rest || self.namespace.len() > 31 || self.namespace.starts_with("pg_") {
            return Err(Error::invalid(
                "namespace",
                "must be 1 to 31 of a-z, 0-9 and _, begin with a letter, and not with pg_",
            ));
        }
        if let Some(name) = self.allowed.iter().find(|name| !UNSAFE.contains(&name.as_str())) {
            return Err(Error::invalid(
                "allow_unsafe",
                format!("knows no setting {name:?}; there are {}", UNSAFE.join(", ")),
            ));
        }
        // Numbers with a fraction are never read, and poolers refuse what they do not know at the start of a session.
        let mut options = url::parse(&self.url)?.extra_float_digits(None);
        if options.get_application_name().is_none() {
            options = options.application_name("actornot");
        }
        if !self.transaction_pooler {
            // A role or a database may say otherwise.
            options = options.options([("default_transaction_isolation", "read committed")]);
        }
        let schema = format!("\"{}\"", self.namespace);
        Ok(Target {
            place: url::place(&options),
            options: options.disable_statement_logging(),
            texts: Texts::new(&schema),
            schema,
            namespace: self.namespace,
            patience: self.patience,
            connections: self.connections as usize,
            transaction_pooler: self.transaction_pooler,
            never_install: self.never_install,
            allowed: self.allowed,
        })
    }
}

/// Without the URL: it may hold a password.
impl std::fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = url::parse(&self.url).map(|options| url::place(&options));
        f.debug_struct("PostgresConfig")
            .field("database", &place.as_deref().unwrap_or("(not a URL)"))
            .field("namespace", &self.namespace)
            .field("patience", &self.patience)
            .field("connections", &self.connections)
            .field("transaction_pooler", &self.transaction_pooler)
            .field("never_install", &self.never_install)
            .field("allow_unsafe", &self.allowed)
            .finish()
    }
}

/// A checked configuration.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) options: PgConnectOptions,
    /// Host, port and database, for messages.
    pub(crate) place: String,
    pub(crate) namespace: String,
    /// The namespace, quoted.
    pub(crate) schema: String,
    pub(crate) texts: Texts,
    pub(crate) patience: Duration,
    pub(crate) connections: usize,
    pub(crate) transaction_pooler: bool,
    pub(crate) never_install: bool,
    pub(crate) allowed: BTreeSet<String>,
}
