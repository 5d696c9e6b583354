//! Core and the shared suite know no database: not even by name.

use crate::workspace::{WITHOUT_DATABASE, read, rust_files};

const NAMES: [&str; 6] = ["sqlite", "postgres", "mongo", "redis", "sqlx", "mysql"];

pub(crate) fn check() -> Result<String, String> {
    let mut hits = Vec::new();
    let mut files = 0;
    for name in WITHOUT_DATABASE {
        for path in rust_files(&format!("{name}/src"))? {
            files += 1;
            hits.extend(find(&path, &read(&path)?));
        }
    }
    if hits.is_empty() { Ok(format!("{files} files")) } else { Err(hits.join("\n")) }
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
}
