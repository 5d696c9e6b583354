//! `test`: every test there is, and what they covered.

use std::process::ExitCode;

use crate::check::SERVERS;
use crate::command::{Program, cargo};
use crate::matrix::{self, Matrix};
use crate::steps::Steps;
use crate::suite::{self, Suite};
use crate::tally::Tally;
use crate::{servers, tools};

/// Every test, those over real servers included.
const ALL: &[&str] = &["--workspace", "--features", SERVERS, "--no-fail-fast"];

pub(crate) fn test() -> ExitCode {
    let mut steps = Steps::new("test");
    let (mut tally, mut matrix) = (Tally::default(), Matrix::default());
    tools::install(&mut steps);
    servers::install(&mut steps);

    let nextest = cargo(&["nextest", "--version"]).works();
    let tests: &[&str] = match nextest {
        true => &["cargo", "nextest", "run"],
        false => &["cargo", "test", "--lib", "--bins", "--tests", "--examples"],
    };
    let mend = "mend what the failed tests name";
    let mut versions = Vec::new();
    steps.step("tests of the whole workspace", mend, || {
        counted(servers::up(&[tests, ALL].concat()), &mut tally, |line| {
            matrix.add(line);
            versions.extend(servers::version(line).map(str::to_owned));
        })
    });
    steps.step("examples in the documentation", mend, || {
        counted(cargo(&["test", "--workspace", "--doc", "--no-fail-fast"]), &mut tally, |_| ())
    });
    let (mut suite, mut configurations) = (None, Vec::new());
    let mend = "see what the test `the_size_of_the_suite_is_told` prints";
    steps.step("the suite itself", mend, || {
        suite = Some(Suite::ask()?);
        Ok(String::new())
    });
    if let Some(suite) = &suite {
        let mend = "expand the suite with actornot_testkit::conformance! in tests/conformance.rs";
        steps.step("the suite is run whole, by every adapter", mend, || {
            configurations = suite::configurations(suite.size)?;
            Ok(String::new())
        });
        match nextest {
            true => drop(steps.step("the README's matrix is what was seen", "cargo xtask matrix", || {
                matrix::check(&matrix, suite)
            })),
            false => {
                steps.not_run("the README's matrix", "it is read from cargo-nextest, which is not installed")
            }
        }
    }

    steps.print();
    println!("runner: cargo {}", if nextest { "nextest" } else { "test" });
    for version in &versions {
        println!("server: {version}");
    }
    if let Some(Suite { size, .. }) = suite {
        println!(
            "suite: {} behaviours, {} saboteurs, {} oddities",
            size.behaviours, size.saboteurs, size.oddities
        );
    }
    for configuration in &configurations {
        println!("run over: {configuration}");
    }
    // A step may fail with no failed test: what does not compile has not passed.
    println!("{} passed, {} failed", tally.passed, tally.failed.max(steps.failures()));
    steps.exit_code()
}

/// `matrix`: the suite over every configuration, and what came of it into the README.
pub(crate) fn matrix() -> ExitCode {
    let mut steps = Steps::new("matrix");
    let mut matrix = Matrix::default();
    tools::install(&mut steps);
    servers::install(&mut steps);
    steps.step("the suite over every configuration", "mend what the failed tests name", || {
        let suite = [&["cargo", "nextest", "run"], ALL, &["--test", "conformance"]].concat();
        servers::up(&suite).lines(|line| matrix.add(line))
    });
    steps.step("README.md", "see what is printed above", || matrix::write(&matrix, &Suite::ask()?));
    steps.finish()
}

/// Runs tests and counts them. None at all is a failure: something was not found.
fn counted(tests: Program, tally: &mut Tally, mut each: impl FnMut(&str)) -> Result<String, String> {
    let mut counted = Tally::default();
    let result = tests.lines(|line| {
        counted.add(line);
        each(line);
    });
    tally.passed += counted.passed;
    tally.failed += counted.failed;
    match (result, counted.passed) {
        (Ok(_), 0) => Err("not one test was run".into()),
        (Ok(_), passed) => Ok(format!("{passed} passed")),
        (Err(error), _) => Err(error),
    }
}
