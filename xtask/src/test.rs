//! `test`: every test there is, and what they covered.

use std::process::ExitCode;

use crate::command::{Program, cargo};
use crate::steps::Steps;
use crate::tally::Tally;
use crate::{servers, suite, tools};

pub(crate) fn test() -> ExitCode {
    let mut steps = Steps::new("test");
    let mut tally = Tally::default();
    tools::install(&mut steps);
    servers::install(&mut steps);

    let nextest = cargo(&["nextest", "--version"]).works();
    let tests: &[&str] = match nextest {
        true => &["cargo", "nextest", "run"],
        false => &["cargo", "test", "--lib", "--bins", "--tests", "--examples"],
    };
    let all = ["--workspace", "--features", "actornot-testkit/servers", "--no-fail-fast"];
    let mend = "mend what the failed tests name";
    let mut versions = Vec::new();
    steps.step("tests of the whole workspace", mend, || {
        counted(servers::up(&[tests, &all].concat()), &mut tally, |line| {
            versions.extend(servers::version(line).map(str::to_owned));
        })
    });
    steps.step("examples in the documentation", mend, || {
        counted(cargo(&["test", "--workspace", "--doc", "--no-fail-fast"]), &mut tally, |_| ())
    });
    let mut size = None;
    let mend = "mend what it names; it must print \"N behaviours, N saboteurs, N oddities\"";
    steps.step("the suite itself", mend, || suite::size(&mut size));
    let mut configurations = Vec::new();
    if let Some(size) = size {
        let mend = "expand the suite with actornot_testkit::conformance! in tests/conformance.rs";
        steps.step("the suite is run whole, by every adapter", mend, || {
            configurations = suite::configurations(size)?;
            Ok(String::new())
        });
    }

    steps.print();
    println!("runner: cargo {}", if nextest { "nextest" } else { "test" });
    for version in &versions {
        println!("server: {version}");
    }
    if let Some(suite::Size { behaviours, saboteurs, oddities }) = size {
        println!("suite: {behaviours} behaviours, {saboteurs} saboteurs, {oddities} oddities");
    }
    for configuration in &configurations {
        println!("run over: {configuration}");
    }
    // A step may fail with no failed test: what does not compile has not passed.
    println!("{} passed, {} failed", tally.passed, tally.failed.max(steps.failures()));
    steps.exit_code()
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
