//! All adapters have the same files, so that they can be read side by side.

use std::collections::BTreeMap;

use crate::workspace::{adapters, rust_files};

pub(crate) fn check() -> Result<String, String> {
    let mut lists = BTreeMap::new();
    for adapter in adapters() {
        let prefix = format!("{adapter}/src/");
        let files = rust_files(&format!("{adapter}/src"))?;
        lists.insert(adapter, files.iter().map(|file| file.replace(&prefix, "")).collect());
    }
    compare(&lists)
}

fn compare(lists: &BTreeMap<&str, Vec<String>>) -> Result<String, String> {
    if lists.is_empty() {
        return Err("there is no adapter".into());
    }
    let mut wrong = Vec::new();
    for (one, files) in lists {
        for (other, theirs) in lists {
            let missing = theirs.iter().filter(|file| !files.contains(file));
            wrong.extend(missing.map(|file| format!("{one}/src/{file} is missing; {other} has it")));
        }
    }
    match (wrong.is_empty(), lists.len()) {
        (false, _) => Err(wrong.join("\n")),
        (true, 1) => Ok("there is one adapter, so there was nothing to compare".into()),
        (true, n) => Ok(format!("{n} adapters")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_one_adapter_lacks_is_named() {
        let files = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let lists = BTreeMap::from([("a", files(&["lib.rs", "row.rs"])), ("b", files(&["lib.rs"]))]);
        assert_eq!(compare(&lists).unwrap_err(), "b/src/row.rs is missing; a has it");
        let same = BTreeMap::from([("a", files(&["lib.rs"])), ("b", files(&["lib.rs"]))]);
        assert_eq!(compare(&same).unwrap(), "2 adapters");
    }
}
