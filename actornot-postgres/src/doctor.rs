//! Whether the settings in force keep what is promised.

use actornot_core::{DurabilityReport, Error, ErrorKind, Setting};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::PostgresQueue;
use crate::connection::Server;
use crate::error::answer;
use crate::statements;

/// Settings of which one may accept an unsafe value, by name.
pub(crate) const UNSAFE: [&str; 3] = ["fsync", "full_page_writes", "synchronous_commit"];

/// The first whose numerics know infinity, which an unlimited backlog is. Older ones are out of support.
const OLDEST: i64 = 140_000;

/// Refuses a server that is too old, a standby, and settings under which a commit could be lost.
pub(crate) async fn check(server: &Server) -> Result<(), Error> {
    let row = ask(server).await?;
    let version: i64 = row.try_get("version").map_err(answer)?;
    if is_too_old(version) {
        let found: String = row.try_get("server").map_err(answer)?;
        let needed = OLDEST / 10_000;
        let text = format!("the server is PostgreSQL {found}, version {needed} or newer is needed");
        return Err(Error::new(ErrorKind::Incompatible, text));
    }
    if row.try_get("standby").map_err(answer)? {
        return Err(Error::new(ErrorKind::ReadOnly, "the server is a standby; connect to the primary"));
    }
    for setting in settings(&row).map_err(answer)? {
        let (Some(why), false) = (&setting.voids, server.target.allowed.contains(&setting.name)) else {
            continue;
        };
        let Setting { name, value, .. } = &setting;
        let text = if UNSAFE.contains(&name.as_str()) {
            format!(
                "{name} is {value}, which voids {why}, or accept it with PostgresConfig::allow_unsafe({name:?})"
            )
        } else {
            format!("{name} is {value}, which voids {why}")
        };
        return Err(Error::new(ErrorKind::Incompatible, text));
    }
    Ok(())
}

async fn ask(server: &Server) -> Result<PgRow, Error> {
    let mut tx = server.begin().await?;
    let row = tx.fetch(statements::SETTINGS, &[]).await?.into_iter().next();
    tx.commit().await?;
    row.ok_or_else(|| answer(sqlx::Error::RowNotFound))
}

fn settings(row: &PgRow) -> Result<Vec<Setting>, sqlx::Error> {
    let is = |name: &str, bad: &str, why: &str| {
        let value: String = row.try_get(name)?;
        let voids = (value == bad).then(|| why.to_owned());
        Ok::<_, sqlx::Error>(Setting { name: name.to_owned(), value, voids })
    };
    let encoding: String = row.try_get("server_encoding")?;
    let utf8 = (encoding != "UTF8").then(|| "G1: payloads need a database with the encoding UTF8".to_owned());
    let standby: bool = row.try_get("standby")?;
    let mut settings = vec![
        is("fsync", "off", "G1: set fsync = on")?,
        is("full_page_writes", "off", "G1: set full_page_writes = on")?,
        is(
            "synchronous_commit",
            "off",
            "G1: set synchronous_commit = on for this role, or database, or server",
        )?,
        Setting { name: "server_encoding".into(), value: encoding, voids: utf8 },
        Setting {
            name: "pg_is_in_recovery".into(),
            value: if standby { "on" } else { "off" }.into(),
            voids: standby.then(|| "G1: a standby takes no posts; connect to the primary".to_owned()),
        },
    ];
    let (standbys, replicas): (String, i64) = (row.try_get("standbys")?, row.try_get("replicas")?);
    let value = match (standbys.is_empty(), replicas) {
        (false, _) => standbys,
        (true, 0) => "(empty)".into(),
        // No guarantee of ours is void: one server keeps what it answered. A failover does not.
        (true, n) => {
            tracing::warn!(
                replicas = n,
                "synchronous_standby_names is empty: a failover loses the newest commits"
            );
            format!("(empty), with {n} replicas: a failover loses the newest commits")
        }
    };
    settings.push(Setting { name: "synchronous_standby_names".into(), value, voids: None });
    Ok(settings)
}

impl PostgresQueue {
    /// Asks on a connection of the pool: what is in force for its session counts.
    pub(crate) async fn report(&self) -> Result<DurabilityReport, Error> {
        let row = ask(&self.server).await?;
        let version: String = row.try_get("server").map_err(answer)?;
        Ok(DurabilityReport {
            server: format!("PostgreSQL {version}"),
            settings: settings(&row).map_err(answer)?,
        })
    }
}

fn is_too_old(version: i64) -> bool {
    version < OLDEST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_before_the_oldest_is_too_old() {
        assert!(is_too_old(130_022) && is_too_old(0));
        assert!(!is_too_old(140_000) && !is_too_old(180_001));
    }
}
