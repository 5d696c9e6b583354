//! Installs tables and functions, and refuses those of a newer version.

use actornot_core::{Error, ErrorKind};
use sqlx::Row as _;

use crate::connection::{Server, Tx};
use crate::error::answer;
use crate::statements;

/// The version this crate writes.
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
            found = Some(VERSION);
        }
    }
    let schema = &server.target.schema;
    match found {
        Some(VERSION) => tx.commit().await,
        Some(found) => Err(Error::new(
            ErrorKind::Incompatible,
            format!(
                "the schema {schema} has version {found}, this actornot-postgres knows version {VERSION}; run the {} \
                 release",
                if found > VERSION { "newer" } else { "older" }
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

async fn installed(tx: &mut Tx, server: &Server) -> Result<Option<i64>, Error> {
    if !found(tx, statements::HAS_META, server).await? {
        return Ok(None);
    }
    let rows = tx.fetch_text(format!("SELECT version FROM {}.meta", server.target.schema)).await?;
    rows.first().map(|row| row.try_get("version")).transpose().map_err(answer)
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
