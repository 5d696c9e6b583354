//! Installs tables and functions, and refuses those that a newer release says are not for this one.

use actornot_core::{Error, ErrorKind};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::connection::{Server, Tx};
use crate::error::answer;
use crate::statements;

/// The version this crate writes. Beside it stands the oldest version whose processes may go on: a release that only
/// adds leaves that as it is, so that instances of both run side by side while one is replaced by the other.
const VERSION: i64 = 1;

/// Installs what is missing, where that is wanted. In one transaction, so any number of processes may do it at once.
pub(crate) async fn ensure(server: &Server, install: bool) -> Result<(), Error> {
    let mut tx = server.begin().await?;
    let mut found = installed(&mut tx, server).await?;
    if found.is_none() && install {
        let patience = server.target.patience.as_millis().max(1).to_string();
        tx.fetch(statements::INSTALL_LOCK, &[&server.target.namespace, &patience]).await?;
        // Behind the lock: somebody else may have been quicker.
        found = installed(&mut tx, server).await?;
        if found.is_none() {
            create(&mut tx, server).await?;
            found = Some(Installed { version: VERSION, oldest: VERSION });
        }
    }
    let schema = &server.target.schema;
    match found {
        Some(found) if found.version >= VERSION && found.oldest <= VERSION => tx.commit().await,
        Some(Installed { version, .. }) => Err(Error::new(
            ErrorKind::Incompatible,
            format!(
                "the schema {schema} has version {version}, this actornot-postgres knows version {VERSION}; run the \
                 {} release",
                if version > VERSION { "newer" } else { "older" }
            ),
        )),
        None => Err(Error::new(
            ErrorKind::Incompatible,
            format!(
                "the schema {schema} has no tables, version {VERSION} is needed; run PostgresQueue::install"
            ),
        )),
    }
}

/// What `meta` says.
struct Installed {
    version: i64,
    oldest: i64,
}

async fn installed(tx: &mut Tx, server: &Server) -> Result<Option<Installed>, Error> {
    if !found(tx, statements::HAS_META, server).await? {
        return Ok(None);
    }
    let rows = tx.fetch_text(format!("SELECT version, oldest FROM {}.meta", server.target.schema)).await?;
    let read =
        |row: &PgRow| Ok(Installed { version: row.try_get("version")?, oldest: row.try_get("oldest")? });
    rows.first().map(read).transpose().map_err(answer)
}

async fn create(tx: &mut Tx, server: &Server) -> Result<(), Error> {
    let schema = &server.target.schema;
    if !found(tx, statements::HAS_SCHEMA, server).await? {
        tx.run(format!("CREATE SCHEMA {schema}")).await?;
    }
    tx.run(statements::installation(schema)).await
}

async fn found(tx: &mut Tx, text: &'static str, server: &Server) -> Result<bool, Error> {
    let rows = tx.fetch(text, &[&server.target.namespace]).await?;
    let found = rows.first().map(|row| row.try_get("found")).transpose().map_err(answer)?;
    Ok(found.unwrap_or(false))
}
