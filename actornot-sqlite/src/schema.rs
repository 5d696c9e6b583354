//! Creates the tables, and refuses those of a newer version.

use actornot_core::{Error, ErrorKind};

use crate::connection::Writer;
use crate::{error, statements};

/// The version this crate writes. Beside it stands the oldest version whose processes may go on: a release that only
/// adds leaves that as it is, so that instances of both run side by side while one is replaced by the other.
pub(crate) const VERSION: i64 = 1;

/// Creates the schema if it is missing. Behind the write lock, so any number of processes may do it at once.
pub(crate) async fn ensure(writer: &Writer) -> Result<(), Error> {
    let mut tx = writer.begin().await?;
    let connection = tx.connection().await?;
    let exists: i64 = sqlx::query_scalar(statements::HAS_META)
        .fetch_one(&mut *connection)
        .await
        .map_err(error::before_commit)?;
    if exists == 0 {
        sqlx::raw_sql(statements::SCHEMA).execute(connection).await.map_err(error::before_commit)?;
    } else {
        let (found, oldest): (i64, i64) = sqlx::query_as(statements::GET_SCHEMA)
            .fetch_one(&mut *connection)
            .await
            .map_err(error::before_commit)?;
        if oldest > VERSION {
            return Err(Error::new(
                ErrorKind::Incompatible,
                format!(
                    "the tables have schema version {found}, this actornot-sqlite knows version {VERSION}; \
                     run the newer release"
                ),
            ));
        }
        sqlx::query(statements::TRY_WRITE).execute(connection).await.map_err(error::before_commit)?;
    }
    tx.commit().await
}
