use std::time::Duration;

use actornot_core::Error;
use redis::{Client, ConnectionAddr, ConnectionInfo, ProtocolVersion, TlsCertificates};

use crate::url::{self, Location};

/// Nobody waits longer; and a sum with the clock must not overflow.
const LONGEST_PATIENCE: Duration = Duration::from_secs(3600);

/// The most partitions a dead letter's number has room for.
const MOST_PARTITIONS: u16 = 1024;

/// What [`RedisConfig::allow_unsafe`] may name.
pub(crate) const SETTINGS: [&str; 4] = ["appendonly", "appendfsync", "maxmemory-policy", "replicas"];

/// Where the server or the cluster is, and how patient a call is.
///
/// ```
/// # use actornot_redis::RedisConfig;
/// # use std::time::Duration;
/// let config = RedisConfig::new("redis://localhost:6379").namespace("billing").patience(Duration::from_secs(2));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct RedisConfig {
    urls: Vec<String>,
    cluster: bool,
    namespace: String,
    patience: Duration,
    partitions: Option<u16>,
    never_install: bool,
    allowed: Vec<String>,
    root: Option<Vec<u8>>,
}

impl RedisConfig {
    /// The defaults, for one server: `redis://user:password@host:6379/0`, or `rediss://` for TLS. With
    /// `?cluster=true`, for the cluster that this node belongs to.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            urls: vec![url.into()],
            cluster: false,
            namespace: "actornot".to_owned(),
            patience: Duration::from_secs(5),
            partitions: None,
            never_install: false,
            allowed: Vec::new(),
            root: None,
        }
    }

    /// The defaults, for a cluster that is found through any of these nodes. Credentials are those of the first.
    pub fn cluster<U: Into<String>>(urls: impl IntoIterator<Item = U>) -> Self {
        let urls = urls.into_iter().map(Into::into).collect();
        Self { urls, cluster: true, ..Self::new("") }
    }

    /// The prefix of every key, `{namespace:partition}`: `[a-z][a-z0-9_]{0,30}`. Default: `actornot`.
    #[must_use]
    pub fn namespace(mut self, name: impl Into<String>) -> Self {
        self.namespace = name.into();
        self
    }

    /// How long a call waits for a connection, for a slot that moves, and for its answer. What was not sent by then
    /// answers [`Unavailable`](actornot_core::ErrorKind::Unavailable), what was sent and not answered
    /// [`UnknownOutcome`](actornot_core::ErrorKind::UnknownOutcome). Default: 5 s; at most an hour.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Into how many parts a new namespace is cut: 1 to 1024, and more than the cluster will ever have primaries.
    /// Default: 64. Fixed when the namespace is installed; another number is refused afterwards.
    #[must_use]
    pub fn partitions(mut self, number: u16) -> Self {
        self.partitions = Some(number);
        self
    }

    /// The certificate, in PEM, of the authority that signed those of the servers; for `rediss://`. Default: the
    /// authorities that browsers trust.
    #[must_use]
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root = Some(pem.into());
        self
    }

    /// Opening only checks that a known version is installed, and creates nothing.
    #[must_use]
    pub fn never_install(mut self) -> Self {
        self.never_install = true;
        self
    }

    /// Accepts one setting that [`doctor`](actornot_core::Inspect::doctor) reports as voiding G1: `appendonly`,
    /// `appendfsync`, `maxmemory-policy` or `replicas`.
    #[must_use]
    pub fn allow_unsafe(mut self, setting: impl Into<String>) -> Self {
        self.allowed.push(setting.into());
        self
    }

    pub(crate) fn check(self) -> Result<Target, Error> {
        if self.patience.is_zero() || self.patience > LONGEST_PATIENCE {
            return Err(Error::invalid("patience", "must be longer than nothing and at most an hour"));
        }
        let name = self.namespace.as_bytes();
        let legal = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'_';
        if !name.first().is_some_and(u8::is_ascii_lowercase) || name.len() > 31 || !name.iter().all(legal) {
            return Err(Error::invalid("namespace", "must be 1 to 31 of a-z 0-9 _ and start with a letter"));
        }
        if self.partitions.is_some_and(|number| number == 0 || number > MOST_PARTITIONS) {
            return Err(Error::invalid("partitions", "must be 1 to 1024"));
        }
        if let Some(odd) = self.allowed.iter().find(|name| !SETTINGS.contains(&name.as_str())) {
            let names = SETTINGS.join(", ");
            return Err(Error::invalid("allow_unsafe", format!("names {odd:?}, which is none of {names}")));
        }
        let mut seeds = Vec::new();
        let mut cluster = self.cluster;
        for url in &self.urls {
            let Location { info, cluster: named } = url::parse(url)?;
            cluster |= named;
            seeds.push(info);
        }
        let Some(first) = seeds.first() else { return Err(Error::invalid("url", "names no node")) };
        if cluster && first.redis_settings().db() != 0 {
            return Err(Error::invalid("url", "names a database number; a cluster has only number 0"));
        }
        let base = match self.root {
            None => first.clone(),
            Some(pem) => {
                let refused =
                    || Error::invalid("root_certificate", "needs rediss:// and the PEM of a certificate");
                // The driver takes a text without one for an empty list.
                if !String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
                    return Err(refused());
                }
                let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem) };
                let client = Client::build_with_tls(first.clone(), certificates).map_err(|_| refused())?;
                client.get_connection_info().clone()
            }
        };
        let seeds = seeds.iter().map(url::address).collect();
        Ok(Target {
            base,
            seeds,
            cluster,
            namespace: self.namespace,
            patience: self.patience,
            partitions: self.partitions,
            never_install: self.never_install,
            allowed: self.allowed,
        })
    }
}

/// Without the user's name and the password.
impl std::fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisConfig")
            .field("nodes", &self.urls.len())
            .field("cluster", &self.cluster)
            .field("namespace", &self.namespace)
            .field("patience", &self.patience)
            .field("partitions", &self.partitions)
            .field("never_install", &self.never_install)
            .field("allowed", &self.allowed)
            .finish()
    }
}

/// A checked configuration.
#[derive(Clone)]
pub(crate) struct Target {
    base: ConnectionInfo,
    pub(crate) seeds: Vec<(String, u16)>,
    pub(crate) cluster: bool,
    pub(crate) namespace: String,
    pub(crate) patience: Duration,
    pub(crate) partitions: Option<u16>,
    pub(crate) never_install: bool,
    pub(crate) allowed: Vec<String>,
}

impl Target {
    /// How to reach a node: as the first seed, at another address.
    pub(crate) fn at(&self, address: &(String, u16)) -> ConnectionInfo {
        let (host, port) = address.clone();
        let addr = match self.base.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        // The name of the library is one command more that a role would have to be granted.
        let settings = self.base.redis_settings().clone().set_skip_set_lib_name();
        // With it the driver tells when the server closes a connection that is idle.
        let settings = settings.set_protocol(ProtocolVersion::RESP3);
        // Calls share a connection, and none may wait until the one before it was answered. The driver would have it so.
        let tcp = self.base.tcp_settings().clone().set_nodelay(true);
        self.base.clone().set_addr(addr).set_redis_settings(settings).set_tcp_settings(tcp)
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        matches!(self.base.addr(), ConnectionAddr::TcpTls { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_waits_on_its_way_for_the_answer_to_another() {
        let target = RedisConfig::new("rediss://10.0.0.1").check().unwrap();
        assert!(target.at(&("10.0.0.2".to_owned(), 7000)).tcp_settings().nodelay());
    }
}
