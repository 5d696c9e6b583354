//! The one file that names a database: from a URL to a queue.

use std::sync::Arc;
use std::time::Duration;

use actornot_core::{Error, LockableQueue};
use actornot_mongo::{MongoConfig, MongoQueue};
use actornot_postgres::{PostgresConfig, PostgresQueue};
use actornot_redis::{RedisConfig, RedisQueue};
use actornot_sqlite::{SqliteConfig, SqliteQueue};

/// The arms of [`open`].
pub(crate) const SUPPORTED: &str =
    "sqlite:FILE, postgres://, mongodb://, mongodb+srv://, redis://, rediss://";

/// Opens the database of a URL; a call to it waits at most `patience` for others.
pub(crate) async fn open(url: &str, patience: Duration) -> Result<Arc<dyn LockableQueue>, Error> {
    match scheme(url) {
        "sqlite" => Ok(Arc::new(SqliteQueue::open(SqliteConfig::new(url).busy_timeout(patience)).await?)),
        "postgres" | "postgresql" => {
            Ok(Arc::new(PostgresQueue::open(PostgresConfig::new(url).patience(patience)).await?))
        }
        "mongodb" | "mongodb+srv" => {
            Ok(Arc::new(MongoQueue::open(MongoConfig::new(url).patience(patience)).await?))
        }
        "redis" | "rediss" => Ok(Arc::new(RedisQueue::open(RedisConfig::new(url).patience(patience)).await?)),
        // The URL itself may hold a password: only its scheme is repeated.
        "" => Err(Error::invalid("database", format!("is not a URL; supported: {SUPPORTED}"))),
        other => Err(Error::invalid(
            "database",
            format!("has the scheme {other:?}, which is unknown; supported: {SUPPORTED}"),
        )),
    }
}

/// The URL as it may be shown: without user, password and options.
pub(crate) fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.split('?').next().unwrap_or_default().to_owned();
    };
    // From the last @: a password may hold anything, even a / or a ?.
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://***@{}", host.split('?').next().unwrap_or_default()),
        None => format!("{scheme}://{}", rest.split('?').next().unwrap_or_default()),
    }
}

fn scheme(url: &str) -> &str {
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    let legal = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    if scheme.chars().all(legal) { scheme } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_and_options_are_not_shown() {
        for (url, shown) in [
            ("sqlite:counter.db", "sqlite:counter.db"),
            ("sqlite:///var/lib/counter.db?mode=rw", "sqlite:///var/lib/counter.db"),
            ("postgres://me:p@ss/w?rd@host:5432/db?sslpassword=x", "postgres://***@host:5432/db"),
            ("redis://:secret@host", "redis://***@host"),
            ("mongodb://host/db?password=x", "mongodb://host/db"),
        ] {
            assert_eq!(redacted(url), shown);
        }
    }

    #[tokio::test]
    async fn an_unknown_scheme_is_refused_with_what_is_supported() {
        for url in ["oracle://me:secret@host/db", "counter.db", "p:secret/x", "", "me secret:x"] {
            let error = open(url, Duration::from_secs(1)).await.err().unwrap().to_string();
            assert!(error.contains("supported: sqlite:FILE"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
