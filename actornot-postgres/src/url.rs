//! What a URL names.

use std::str::FromStr;

use actornot_core::Error;
use sqlx::postgres::PgConnectOptions;

/// What may stand behind `?`. The driver ignores what it does not know, and logs its value.
const PARAMETERS: [&str; 18] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
    "statement-cache-capacity",
];

/// Reads a URL. No message repeats more of it than its scheme and the names of its parameters: it holds a password.
pub(crate) fn parse(url: &str) -> Result<PgConnectOptions, Error> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(Error::invalid("url", "has no scheme; write for example postgres://user@host/database"));
    };
    if scheme != "postgres" && scheme != "postgresql" {
        let plain = scheme.len() > 1 && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let found = if plain { scheme } else { "that is none" };
        return Err(Error::invalid(
            "url",
            format!("has the scheme {found}; this adapter opens postgres://user@host/database"),
        ));
    }
    let (before, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    // A password with one of these ends the host for the driver: the rest of it would be the name of a database.
    if before.contains('#') || before.rsplit_once('@').is_some_and(|(account, _)| account.contains('/')) {
        return Err(misspelt());
    }
    for name in parameters.split('&').filter_map(|pair| pair.split('=').next()) {
        if !name.is_empty() && !PARAMETERS.contains(&name) && !name.starts_with("options[") {
            let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
            let name = if plain { name } else { "(unreadable)" };
            return Err(Error::invalid("url", format!("has the unknown parameter {name}")));
        }
    }
    // The driver's text may repeat a value.
    PgConnectOptions::from_str(url).map_err(|_| misspelt())
}

fn misspelt() -> Error {
    let text = "does not parse; is a host, port or parameter misspelt, or a special character in the password not \
                percent-encoded?";
    Error::invalid("url", text)
}

/// Where it leads, without credentials.
pub(crate) fn place(options: &PgConnectOptions) -> String {
    let host = match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None => options.get_host().to_owned(),
    };
    format!("{host}:{}/{}", options.get_port(), options.get_database().unwrap_or(options.get_username()))
}
