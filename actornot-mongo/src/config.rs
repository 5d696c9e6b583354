use std::collections::BTreeSet;
use std::time::Duration;

use actornot_core::Error;
use mongodb::options::{ClientOptions, ReadPreference, SelectionCriteria};

use crate::url;

/// Nobody waits longer; and a sum with the clock must not overflow.
const LONGEST_PATIENCE: Duration = Duration::from_secs(3600);

/// The settings that [`MongoConfig::allow_unsafe`] knows.
pub(crate) const UNSAFE: [&str; 2] = ["storageEngine", "writeConcernMajorityJournalDefault"];

/// Where the database is, and how patient a call is.
///
/// ```
/// # use actornot_mongo::MongoConfig;
/// # use std::time::Duration;
/// let config = MongoConfig::new("mongodb://localhost/shop").namespace("orders").patience(Duration::from_secs(2));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct MongoConfig {
    url: String,
    namespace: String,
    patience: Duration,
    connections: u32,
    install: bool,
    allowed: BTreeSet<String>,
}

impl MongoConfig {
    /// The defaults, for a server: `mongodb://host:27017/database`, `mongodb+srv://cluster.example.net/database`.
    ///
    /// The database is `actornot` if the URL names none. Read and write concern, read preference and `retryWrites`
    /// of the URL are not used: the adapter sets its own.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            namespace: "actornot".to_owned(),
            patience: Duration::from_secs(5),
            connections: 16,
            install: true,
            allowed: BTreeSet::new(),
        }
    }

    /// The prefix of the collections. Default: `actornot`; `[a-z][a-z0-9_]{0,30}`.
    #[must_use]
    pub fn namespace(mut self, name: impl Into<String>) -> Self {
        self.namespace = name.into();
        self
    }

    /// How long a call waits for a connection or a primary before it answers
    /// [`Unavailable`](actornot_core::ErrorKind::Unavailable). Default: 5 s; at most an hour.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The most connections to a server, the heartbeat's own aside. Default: 16.
    #[must_use]
    pub fn connections(mut self, most: u32) -> Self {
        self.connections = most.max(1);
        self
    }

    /// Opening creates nothing, and only checks that the installed version is known: for a role that may not create.
    #[must_use]
    pub fn never_install(mut self) -> Self {
        self.install = false;
        self
    }

    /// Accepts one setting which [`doctor`](actornot_core::Inspect::doctor) reports as voiding G1, by its name.
    #[must_use]
    pub fn allow_unsafe(mut self, setting: impl Into<String>) -> Self {
        self.allowed.insert(setting.into());
        self
    }

    pub(crate) async fn check(self) -> Result<Target, Error> {
        if self.patience.is_zero() || self.patience > LONGEST_PATIENCE {
            return Err(Error::invalid("patience", "must be longer than nothing and at most an hour"));
        }
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if !self.namespace.starts_with(|first: char| first.is_ascii_lowercase())
            || self.namespace.len() > 31
            || !self.namespace.bytes().all(legal)
        {
            return Err(Error::invalid("namespace", "must match [a-z][a-z0-9_]{0,30}"));
        }
        if let Some(name) = self.allowed.iter().find(|name| !UNSAFE.contains(&name.as_str())) {
            return Err(Error::invalid(
                "allow_unsafe",
                format!("names {name:?}, which is no setting that can be allowed; there are {UNSAFE:?}"),
            ));
        }
        let mut options = url::parse(&self.url).await?;
        options.retry_writes = Some(false);
        options.retry_reads = Some(false);
        options.max_adaptive_retries = Some(0);
        options.read_concern = None;
        options.write_concern = None;
        options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
        options.server_selection_timeout = Some(self.patience);
        options.connect_timeout =
            Some(options.connect_timeout.map_or(self.patience, |given| given.min(self.patience)));
        options.max_pool_size = Some(self.connections);
        options.min_pool_size = None;
        let database = options.default_database.clone().unwrap_or_else(|| "actornot".to_owned());
        Ok(Target {
            options,
            shown: url::redact(&self.url),
            database,
            namespace: self.namespace,
            patience: self.patience,
            connections: self.connections,
            install: self.install,
            allowed: self.allowed,
        })
    }
}

impl std::fmt::Debug for MongoConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MongoConfig")
            .field("url", &url::redact(&self.url))
            .field("namespace", &self.namespace)
            .field("patience", &self.patience)
            .field("connections", &self.connections)
            .field("install", &self.install)
            .field("allowed", &self.allowed)
            .finish()
    }
}

/// A checked configuration.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) options: ClientOptions,
    /// The URL without its password.
    pub(crate) shown: String,
    pub(crate) database: String,
    pub(crate) namespace: String,
    pub(crate) patience: Duration,
    pub(crate) connections: u32,
    pub(crate) install: bool,
    pub(crate) allowed: BTreeSet<String>,
}
