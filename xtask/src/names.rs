//! Core and the shared suite know no database: not even by name. What starts servers for tests must.

use crate::workspace::{WITHOUT_DATABASE, read, rust_files};

const NAMES: [&str; 6] = ["sqlite", "postgres", "mongo", "redis", "sqlx", "mysql"];

/// Where real servers are found or started: the suite does not use it.
const SERVERS: [&str; 2] = ["actornot-testkit/src/servers/", "actornot-testkit/src/bin/servers.rs"];

pub(crate) fn check() -> Result<String, String> {
    let mut hits = Vec::new();
    let mut files = 0;
    for name in WITHOUT_DATABASE {
        for path in rust_files(&format!("{name}/src"))?.into_iter().filter(|path| !may(path)) {
            files += 1;
            hits.extend(find(&path, &read(&path)?));
        }
    }
    if hits.is_empty() { Ok(format!("{files} files")) } else { Err(hits.join("\n")) }
}

/// Whether a file may name databases.
fn may(path: &str) -> bool {
    SERVERS.iter().any(|servers| path.starts_with(servers))
}

fn find(path: &str, text: &str) -> Vec<String> {
    let mut hits = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let lower = line.to_lowercase();
        if NAMES.iter().any(|name| lower.contains(name)) {
            hits.push(format!("{path}:{}: {}", number + 1, line.trim()));
        }
    }
    hits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_with_its_line_whatever_its_case() {
        let hits = find("a.rs", "fn main() {}\n// as PostgreSQL does\n");
        assert_eq!(hits, ["a.rs:2: // as PostgreSQL does"]);
    }

    #[test]
    fn only_what_starts_servers_may_name_them() {
        assert!(may("actornot-testkit/src/servers/port.rs") && may("actornot-testkit/src/bin/servers.rs"));
        assert!(!may("actornot-testkit/src/servers.rs") && !may("actornot-testkit/src/run.rs"));
        assert!(!may("actornot-core/src/servers/port.rs"));
    }
}
