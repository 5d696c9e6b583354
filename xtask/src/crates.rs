//! Every crate of the workspace, on all platforms and with all features, against the lists of `deny.toml`.

use std::collections::BTreeSet;

use crate::command::cargo;
use crate::license::allowed;
use crate::workspace::read;

pub(crate) fn check() -> Result<String, String> {
    let deny = read("deny.toml")?;
    let tree = ["tree", "--workspace", "--all-features", "--target", "all", "--edges", "normal,build,dev"];
    let tree = cargo(&[&tree[..], &["--prefix", "none", "--format", "{p}|{l}"]].concat()).output()?;
    let mut wrong =
        licenses_and_bans(&tree, &list(&deny, "licenses", "allow")?, &list(&deny, "bans", "deny")?);
    wrong.extend(sources(&read("Cargo.lock")?, &list(&deny, "sources", "allow-registry")?));
    let crates: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    if wrong.is_empty() {
        return Ok(format!("{} crates", crates.len()));
    }
    Err(wrong.into_iter().collect::<Vec<_>>().join("\n"))
}

/// A list of strings, all of it on one line, from a table of a TOML text.
fn list(toml: &str, table: &str, key: &str) -> Result<Vec<String>, String> {
    let mut inside = false;
    for line in toml.lines() {
        if line.starts_with('[') {
            inside = line == format!("[{table}]");
        }
        if inside
            && let Some((name, value)) = line.split_once(" = ")
            && name == key
            && value.starts_with('[')
            && value.ends_with(']')
        {
            return Ok(value.split('"').skip(1).step_by(2).map(str::to_owned).collect());
        }
    }
    Err(format!("deny.toml has no one-line list `{key}` in [{table}]"))
}

fn licenses_and_bans(tree: &str, licenses: &[String], banned: &[String]) -> BTreeSet<String> {
    let mut wrong = BTreeSet::new();
    for line in tree.lines().filter(|line| !line.is_empty()) {
        let (package, license) = line.split_once('|').unwrap_or((line, ""));
        let license = license.trim_end_matches(" (*)");
        let name = package.split(' ').next().unwrap_or_default();
        if !allowed(license, licenses) {
            wrong.insert(format!("{package} has the license {license:?}, which is not allowed"));
        }
        if banned.iter().any(|banned| banned == name) {
            wrong.insert(format!("{package} is banned"));
        }
    }
    wrong
}

fn sources(lock: &str, registries: &[String]) -> BTreeSet<String> {
    let sources = lock.lines().filter_map(|line| line.strip_prefix("source = "));
    let sources = sources.map(|source| source.trim_matches('"'));
    let known = |source: &&str| {
        source.strip_prefix("registry+").is_some_and(|url| registries.iter().any(|known| known == url))
    };
    sources.filter(|source| !known(source)).map(|source| format!("a crate comes from {source}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_from_its_own_table() {
        let toml = "[a]\nallow = [\"X\"]\n[b]\nallow = [\"Y\", \"Z\"]\n";
        assert_eq!(list(toml, "b", "allow").unwrap(), ["Y", "Z"]);
        assert!(list(toml, "c", "allow").is_err());
    }

    #[test]
    fn a_license_and_a_crate_that_are_not_allowed_are_named() {
        let tree = "a v1.0.0|MIT\na v1.0.0|MIT (*)\nopenssl v0.10.0|Apache-2.0\n";
        let wrong = licenses_and_bans(tree, &["MIT".into()], &["openssl".into()]);
        let wrong: Vec<String> = wrong.into_iter().collect();
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        assert!(wrong.iter().all(|wrong| wrong.starts_with("openssl v0.10.0")));
    }

    #[test]
    fn a_crate_from_elsewhere_is_named() {
        let lock = "source = \"registry+https://one\"\nsource = \"git+https://two\"\n";
        let wrong: Vec<String> = sources(lock, &["https://one".into()]).into_iter().collect();
        assert_eq!(wrong, ["a crate comes from git+https://two"]);
    }
}
