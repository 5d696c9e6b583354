//! What a URL names.

use std::path::PathBuf;
use std::str::FromStr;

use actornot_core::Error;
use sqlx::sqlite::SqliteConnectOptions;

/// What `sqlite:FILE?parameters` says.
pub(crate) struct Location {
    pub(crate) options: SqliteConnectOptions,
    pub(crate) path: PathBuf,
    pub(crate) memory: bool,
    /// An explicit `mode=` keeps its meaning: only the default creates a file.
    pub(crate) create: bool,
}

/// Reads a URL. No message repeats more of it than its scheme: it may be another database's, with a password.
pub(crate) fn parse(url: &str) -> Result<Location, Error> {
    let Some(rest) = url.strip_prefix("sqlite:") else { return Err(other(url)) };
    let (name, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let name = name.strip_prefix("//").unwrap_or(name);
    let has = |wanted| parameters.split('&').any(|parameter| parameter == wanted);
    let memory = name == ":memory:" || has("mode=memory") || has("vfs=memdb");
    if name.is_empty() && !memory {
        return Err(nameless());
    }
    let options = SqliteConnectOptions::from_str(url).map_err(|error| {
        Error::invalid("url", format!("is not a SQLite URL such as sqlite:counter.db: {error}"))
    })?;
    let create = !has("mode=ro") && !has("mode=rw");
    let path = options.get_filename().to_owned();
    if memory {
        return Ok(Location { options, path, memory, create });
    }
    // Connections are opened again later, and the process may be in another directory by then.
    let path = std::path::absolute(&path)
        .map_err(|error| Error::invalid("url", format!("has no place: {error}")))?;
    Ok(Location { options: options.filename(&path), path, memory, create })
}

fn nameless() -> Error {
    Error::invalid("url", "names no file; write for example sqlite:counter.db")
}

fn other(url: &str) -> Error {
    let is_scheme =
        |scheme: &&str| scheme.len() > 1 && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
    match url.split_once(':').map(|(scheme, _)| scheme).filter(is_scheme) {
        _ if url.is_empty() => nameless(),
        Some(scheme) => {
            Error::invalid("url", format!("has the scheme {scheme}; this adapter opens sqlite:FILE"))
        }
        None => Error::invalid("url", "has no scheme; a file is named as in sqlite:counter.db"),
    }
}
