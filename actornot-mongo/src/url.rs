//! What a URL names.

use actornot_core::Error;
use mongodb::options::ClientOptions;

/// Reads a URL. No message repeats more of it than its scheme: it may hold a password.
pub(crate) async fn parse(url: &str) -> Result<ClientOptions, Error> {
    if !url.starts_with("mongodb://") && !url.starts_with("mongodb+srv://") {
        return Err(other(url));
    }
    ClientOptions::parse(url).await.map_err(|error| match secret(url) {
        Some(_) => Error::invalid("url", "is not a MongoDB URL such as mongodb://host/database"),
        None => {
            Error::invalid("url", format!("is not a MongoDB URL such as mongodb://host/database: {error}"))
        }
    })
}

/// The part of a URL that nobody may see.
fn secret(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let end = rest.rfind('@')?;
    rest.get(..end)
}

/// For messages.
pub(crate) fn redact(url: &str) -> String {
    match secret(url) {
        Some(secret) => url.replacen(secret, "***", 1),
        None => url.to_owned(),
    }
}

fn other(url: &str) -> Error {
    let is_scheme = |scheme: &&str| {
        scheme.len() > 1 && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+')
    };
    match url.split_once(':').map(|(scheme, _)| scheme).filter(is_scheme) {
        Some(scheme) => Error::invalid(
            "url",
            format!("has the scheme {scheme}; this adapter opens mongodb://HOST and mongodb+srv://HOST"),
        ),
        None => Error::invalid("url", "has no scheme; a server is named as in mongodb://host/database"),
    }
}
