//! What a URL names.

use actornot_core::Error;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

/// What `redis://user:password@host:port/db?cluster=true` says.
#[derive(Clone)]
pub(crate) struct Location {
    pub(crate) info: ConnectionInfo,
    pub(crate) cluster: bool,
}

/// Reads a URL. No message repeats more of it than its scheme: it may hold a password.
pub(crate) fn parse(url: &str) -> Result<Location, Error> {
    let is_scheme = |scheme: &str| {
        scheme.len() > 1 && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    };
    match url.split_once("://") {
        Some(("redis" | "rediss", rest)) if rest.is_empty() || rest.starts_with(['/', '?']) => {
            return Err(Error::invalid("url", "names no host; write for example redis://localhost:6379"));
        }
        Some(("redis" | "rediss", _)) => {}
        Some((scheme, _)) if is_scheme(scheme) => {
            return Err(Error::invalid(
                "url",
                format!("has the scheme {scheme}; this adapter opens redis://HOST and rediss://HOST"),
            ));
        }
        _ => return Err(Error::invalid("url", "has no scheme; write for example redis://localhost:6379")),
    }
    let Some(mut parsed) = redis::parse_redis_url(url) else {
        return Err(Error::invalid("url", "is not a Redis URL such as redis://user:password@host:6379"));
    };
    let mut cluster = false;
    for (name, value) in parsed.query_pairs() {
        cluster = match (&*name, &*value) {
            ("cluster", "true") => true,
            ("cluster", "false") => false,
            ("cluster", _) => {
                return Err(Error::invalid("url", "has a cluster= that is neither true nor false"));
            }
            _ => return Err(Error::invalid("url", "has a parameter other than cluster=true")),
        };
    }
    if parsed.fragment().is_some() {
        return Err(Error::invalid("url", "has a fragment; certificates are always checked"));
    }
    parsed.set_query(None);
    let info = parsed.into_connection_info();
    let info = info.map_err(|error| Error::invalid("url", format!("cannot be used: {error}")))?;
    if cluster && info.redis_settings().db() != 0 {
        return Err(Error::invalid("url", "names a database number; a cluster has only number 0"));
    }
    Ok(Location { info, cluster })
}

/// The host and port of a seed.
pub(crate) fn address(info: &ConnectionInfo) -> (String, u16) {
    match info.addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => (host.clone(), *port),
        _ => (String::new(), 0),
    }
}
