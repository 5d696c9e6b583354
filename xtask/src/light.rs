//! Core stays light: a library that depends on it takes on these crates and no others.

use crate::command::cargo;

/// Every crate that core may pull in on any platform, and what for.
const ALLOWED: &[(&str, &str)] = &[
    ("actornot-core", "itself"),
    ("async-trait", "the contract is object-safe: the database is chosen at run time"),
    ("bytes", "of tokio, where its features ask for it"),
    ("cfg-if", "of getrandom"),
    ("getrandom", "nonces and ids: the operating system's random bits"),
    ("itoa", "of serde_json: integers as text"),
    ("libc", "of getrandom and tokio"),
    ("memchr", "of serde_json"),
    ("once_cell", "of tracing-core"),
    ("pin-project-lite", "of tokio and tracing"),
    ("proc-macro2", "of the derive macros, at build time"),
    ("quote", "of the derive macros, at build time"),
    ("r-efi", "of getrandom, on UEFI only"),
    ("ryu", "of serde_json before zmij: floats as text"),
    ("serde", "the user's state and messages"),
    ("serde_core", "of serde"),
    ("serde_derive", "of serde, at build time"),
    ("serde_json", "the codec: what is stored is JSON text"),
    ("syn", "of the derive macros, at build time"),
    ("thiserror", "the error type"),
    ("thiserror-impl", "of thiserror, at build time"),
    ("tokio", "tasks, timers, channels"),
    ("tokio-macros", "of tokio, at build time"),
    ("tracing", "logs"),
    ("tracing-core", "of tracing"),
    ("unicode-ident", "of the derive macros, at build time"),
    ("wasip2", "of getrandom, on WASI only"),
    ("wit-bindgen", "of wasip2"),
    ("zmij", "of serde_json: floats as text"),
];

pub(crate) fn check() -> Result<String, String> {
    let tree = ["tree", "--package", "actornot-core", "--edges", "normal", "--target", "all"];
    judge(&cargo(&[&tree[..], &["--prefix", "none", "--format", "{p}"]].concat()).output()?)
}

fn judge(tree: &str) -> Result<String, String> {
    let mut found: Vec<&str> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    found.sort_unstable();
    found.dedup();
    let strangers: Vec<&str> =
        found.iter().copied().filter(|found| ALLOWED.iter().all(|(name, _)| name != found)).collect();
    if !strangers.is_empty() {
        return Err(format!("actornot-core depends on {}", strangers.join(", ")));
    }
    if !found.contains(&"actornot-core") {
        return Err("`cargo tree` did not list actornot-core itself: its output is not understood".into());
    }
    Ok(format!("{} crates on all platforms", found.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_that_is_not_on_the_list_is_named() {
        assert!(judge("actornot-core v0.1.0 (/x)\nserde v1.0.0\nserde v1.0.0 (*)\n").is_ok());
        let refused = judge("actornot-core v0.1.0 (/x)\nsqlx-core v0.9.0\n").unwrap_err();
        assert!(refused.contains("sqlx-core"), "{refused}");
    }

    #[test]
    fn an_empty_tree_is_not_a_light_one() {
        assert!(judge("").is_err());
    }

    #[test]
    fn the_list_is_in_order_and_holds_no_driver() {
        assert!(ALLOWED.is_sorted());
        for driver in ["sqlx", "rusqlite", "libsqlite3-sys", "postgres", "mongodb", "redis"] {
            assert!(ALLOWED.iter().all(|(name, _)| !name.contains(driver)));
        }
    }
}
