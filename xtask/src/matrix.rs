//! Guarantee by database and configuration, from what the tests have just said.

use std::collections::BTreeMap;
use std::fs;

use crate::suite::Suite;
use crate::workspace::{adapters, read, root};

const BEGIN: &str = "<!-- matrix: written by `cargo xtask matrix` -->\n";
const END: &str = "<!-- end of matrix -->\n";

/// A package and one of its configurations.
type Column = (String, String);

/// How each behaviour ended, over each configuration.
#[derive(Debug, Default)]
pub(crate) struct Matrix {
    passed: BTreeMap<Column, BTreeMap<String, bool>>,
}

impl Matrix {
    /// Adds a line in which the runner tells how one test ended; any other line adds nothing.
    pub(crate) fn add(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [status, .., binary, test] = words[..] else { return };
        let passed = match status {
            "PASS" | "LEAK" => true,
            "FAIL" | "ABORT" | "TIMEOUT" => false,
            signal if signal.starts_with("SIG") => false,
            _ => return,
        };
        let Some((package, "conformance")) = binary.split_once("::") else { return };
        let modules: Vec<&str> = test.split("::").collect();
        let [configuration @ .., theme, name] = &modules[..] else { return };
        // `crashes!` expands to tests of its own, beside the behaviours.
        if *theme == "killed" {
            return;
        }
        let column = (package.to_owned(), configuration.join(" "));
        self.passed.entry(column).or_default().insert(format!("{theme}::{name}"), passed);
    }

    /// The table, and the lines it stands between.
    fn table(&self, suite: &Suite) -> String {
        let mut guarantees: Vec<&str> = suite.guarantees.values().map(String::as_str).collect();
        guarantees.sort_by_key(|name| (name.len(), *name));
        guarantees.dedup();
        let mut table = format!("{BEGIN}| | {} |\n", guarantees.join(" | "));
        table += &format!("|---|{}\n", "---|".repeat(guarantees.len()));
        let order = adapters();
        let mut columns: Vec<_> = self.passed.iter().collect();
        columns.sort_by_key(|((package, _), _)| order.iter().position(|name| name == package));
        for ((package, configuration), tests) in columns {
            let configuration = configuration.replace('_', " ");
            let cells: Vec<String> =
                guarantees.iter().map(|guarantee| cell(suite, guarantee, tests)).collect();
            table += &format!("| {package}, {configuration} | {} |\n", cells.join(" | "));
        }
        table + END
    }
}

/// How many behaviours of a guarantee passed, and of how many if not all did.
fn cell(suite: &Suite, guarantee: &str, tests: &BTreeMap<String, bool>) -> String {
    let behaviours: Vec<&String> =
        suite.guarantees.iter().filter(|(_, of)| *of == guarantee).map(|(name, _)| name).collect();
    let passed = behaviours.iter().filter(|name| tests.get(**name) == Some(&true)).count();
    match behaviours.len() {
        all if all == passed => format!("{all}"),
        all => format!("**{passed} of {all}**"),
    }
}

/// The README says what was seen.
pub(crate) fn check(matrix: &Matrix, suite: &Suite) -> Result<String, String> {
    let (_, stands, _) = parts(&read("README.md")?)?;
    let seen = matrix.table(suite);
    if stands == seen {
        Ok(String::new())
    } else {
        Err(format!("the README says\n{stands}and what was seen is\n{seen}"))
    }
}

/// Writes what was seen into the README.
pub(crate) fn write(matrix: &Matrix, suite: &Suite) -> Result<String, String> {
    let (before, _, after) = parts(&read("README.md")?)?;
    let text = format!("{before}{}{after}", matrix.table(suite));
    fs::write(root().join("README.md"), text).map_err(|error| format!("README.md: {error}"))?;
    Ok(format!("{} configurations", matrix.passed.len()))
}

/// A text before, in and after the table.
fn parts(text: &str) -> Result<(String, String, String), String> {
    let (begin, end) =
        text.find(BEGIN).zip(text.find(END)).ok_or("the README has no place for the matrix")?;
    let end = end + END.len();
    Ok((text[..begin].to_owned(), text[begin..end].to_owned(), text[end..].to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suite() -> Suite {
        let guarantees = [("lock::a", "G3"), ("lock::b", "G3"), ("due::c", "G10")];
        Suite::of(guarantees.map(|(name, of)| (name.to_owned(), of.to_owned())).into())
    }

    #[test]
    fn what_did_not_pass_and_what_was_not_run_is_told() {
        let mut matrix = Matrix::default();
        for line in [
            "        PASS [   0.058s] (  1/226) actornot-sqlite::conformance one_file::lock::a",
            "        FAIL [   0.058s] (  2/226) actornot-sqlite::conformance one_file::lock::b",
            "        PASS [   0.058s] (  3/226) actornot-sqlite::conformance one_file::due::c",
            "        PASS [   0.058s] (  4/226) actornot-sqlite::faults a_disk_is_full",
            "        PASS [   0.058s] (  5/226) actornot-sqlite::conformance killed::by_its_own_handler",
            "     Summary [   1.2s] 123 tests run: 123 passed, 2 skipped",
            "        PASS [   0.058s] (  3/226) actornot-redis::conformance cluster::lock::a",
        ] {
            matrix.add(line);
        }
        let table = matrix.table(&suite());
        assert!(table.contains("| | G3 | G10 |\n"), "{table}");
        assert!(table.contains("| actornot-sqlite, one file | **1 of 2** | 1 |\n"), "{table}");
        assert!(table.contains("| actornot-redis, cluster | **1 of 2** | **0 of 1** |\n"), "{table}");
    }

    #[test]
    fn only_what_stands_between_its_marks_is_replaced() {
        let text = format!("before\n{BEGIN}old\n{END}after\n");
        let (before, old, after) = parts(&text).unwrap();
        assert_eq!((&*before, &*after), ("before\n", "after\n"));
        assert!(old.contains("old"));
        assert!(parts("no place").is_err());
    }
}
