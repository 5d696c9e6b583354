//! The conformance suite: how large it is, and over which configurations it is run.

use std::collections::BTreeMap;

use crate::command::cargo;
use crate::workspace::{adapters, read, rust_files};

/// The suite, as its own test tells it.
#[derive(Debug, Clone)]
pub(crate) struct Suite {
    pub(crate) size: Size,
    /// Of each behaviour, the guarantee it proves.
    pub(crate) guarantees: BTreeMap<String, String>,
}

/// How large it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) behaviours: usize,
    pub(crate) saboteurs: usize,
    pub(crate) oddities: usize,
}

impl Suite {
    /// Asks the suite's own test, which has been run with all the others.
    pub(crate) fn ask() -> Result<Self, String> {
        let (mut size, mut guarantees) = (None, BTreeMap::new());
        let suite = ["test", "--quiet", "--package", "actornot-testkit", "--test", "suite"];
        let told =
            cargo(&[&suite[..], &["--", "--exact", "the_size_of_the_suite_is_told", "--nocapture"]].concat());
        for line in told.output()?.lines() {
            size = size.or(Size::parse(line));
            if let ["behaviour", name, "proves", guarantee] = line.split_whitespace().collect::<Vec<_>>()[..]
            {
                guarantees.insert(name.to_owned(), guarantee.to_owned());
            }
        }
        match size {
            Some(size) if size.behaviours == guarantees.len() => Ok(Self { size, guarantees }),
            _ => Err("it did not tell its size and what each behaviour proves".into()),
        }
    }

    #[cfg(test)]
    pub(crate) fn of(guarantees: BTreeMap<String, String>) -> Self {
        Self { size: Size { behaviours: guarantees.len(), saboteurs: 0, oddities: 0 }, guarantees }
    }
}

impl Size {
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |word: &str| {
            let at = words.iter().position(|found| *found == word)?;
            // The runner's own progress may stand right in front of it.
            words.get(at.checked_sub(1)?)?.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().ok()
        };
        Some(Self {
            behaviours: number("behaviours,")?,
            saboteurs: number("saboteurs,")?,
            oddities: number("oddities")?,
        })
    }
}

/// The test binaries that expand the suite: package and name.
fn binaries() -> Result<Vec<(String, String)>, String> {
    let mut binaries = Vec::new();
    for package in adapters().into_iter().chain(["actornot-testkit"]) {
        for path in rust_files(&format!("{package}/tests"))? {
            let name = path.trim_start_matches(&format!("{package}/tests/")).trim_end_matches(".rs");
            if !name.contains('/') && read(&path)?.contains("conformance!(") {
                binaries.push((package.to_owned(), name.to_owned()));
            }
        }
    }
    Ok(binaries)
}

/// Over which configurations the suite is run, each of them whole, and no test of it switched off.
pub(crate) fn configurations(size: Size) -> Result<Vec<String>, String> {
    let mut configurations = Vec::new();
    let mut wrong = Vec::new();
    for (package, binary) in binaries()? {
        let list = |more: &[&str]| {
            let test = ["test", "--quiet", "--package", &package, "--test", &binary, "--", "--list"];
            cargo(&[&test[..], more].concat()).output()
        };
        let ignored = count(&list(&["--ignored"])?);
        for (configuration, tests) in count(&list(&[])?) {
            let name = format!("{package} {binary} {configuration}").trim_end().to_owned();
            let tests = tests - ignored.get(&configuration).copied().unwrap_or(0);
            if tests != size.behaviours {
                wrong.push(format!("{name} runs {tests} of {} behaviours", size.behaviours));
            }
            configurations.push(format!("{name} ({tests} behaviours)"));
        }
    }
    for adapter in adapters() {
        if !configurations.iter().any(|name| name.starts_with(&format!("{adapter} "))) {
            wrong.push(format!("{adapter} does not run the suite"));
        }
    }
    if wrong.is_empty() { Ok(configurations) } else { Err(wrong.join("\n")) }
}

/// Tests for each configuration: the modules in front of `theme::sentence`.
fn count(list: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for test in list.lines().filter_map(|line| line.strip_suffix(": test")) {
        let mut modules: Vec<&str> = test.split("::").collect();
        // `crashes!` expands to tests of its own, beside the behaviours.
        if modules.len() < 2 || modules[modules.len() - 2] == "killed" {
            continue;
        }
        modules.truncate(modules.len() - 2);
        *counts.entry(modules.join("::")).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_is_found_wherever_it_stands_in_its_line() {
        let size = Size { behaviours: 90, saboteurs: 40, oddities: 6 };
        assert_eq!(Size::parse("90 behaviours, 40 saboteurs, 6 oddities"), Some(size));
        assert_eq!(Size::parse("test a ... 90 behaviours, 40 saboteurs, 6 oddities"), Some(size));
        assert_eq!(Size::parse("...90 behaviours, 40 saboteurs, 6 oddities"), Some(size));
        assert_eq!(Size::parse("no behaviours, 40 saboteurs, 6 oddities"), None);
    }

    #[test]
    fn tests_are_counted_for_each_configuration() {
        let counts = count(
            "wal::lock::a: test\nwal::lock::b: test\nlock::a: test\nkilled::a: test\nalone: test\n3 tests\n",
        );
        assert_eq!(counts, BTreeMap::from([(String::new(), 1), ("wal".to_owned(), 2)]));
    }
}
