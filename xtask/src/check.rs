//! `check`: what a change must hold before anybody reads it.

use std::process::ExitCode;

use crate::command::cargo;
use crate::steps::Steps;
use crate::{adapters, crates, light, names, tools};

/// What is only there for tests over real servers.
pub(crate) const SERVERS: &str = "actornot-testkit/servers,counter/servers";

pub(crate) fn check() -> ExitCode {
    let mut steps = Steps::new("check");
    tools::install(&mut steps);
    tools::components(&mut steps);
    steps.step("Cargo.lock fits the manifests", "cargo update --workspace", || {
        cargo(&["metadata", "--locked", "--format-version", "1"]).output().map(|_| String::new())
    });
    steps.step("formatting", "cargo xtask fix", || cargo(&["fmt", "--all", "--check"]).run());
    steps.step("clippy", "cargo xtask fix, and by hand what is left", || {
        cargo(&["clippy", "--workspace", "--all-targets", "--features", SERVERS, "--", "-D", "warnings"])
            .run()
    });
    steps.step("clippy without the suite", "mend what is printed above", || {
        let testkit = ["clippy", "--package", "actornot-testkit", "--no-default-features", "--lib"];
        cargo(&[&testkit[..], &["--", "-D", "warnings"]].concat()).run()
    });
    steps.step("documentation", "mend what is printed above", || {
        cargo(&["doc", "--workspace", "--features", SERVERS, "--no-deps"])
            .env("RUSTDOCFLAGS", "-D warnings")
            .run()
    });
    let light = "take the crate out, or give it a line with its reason in xtask/src/light.rs";
    steps.step("core stays light", light, light::check);
    let names = "say it without the name: what one database needs stands in its adapter";
    steps.step("core and testkit know no database", names, names::check);
    let lists = "give each adapter the same files under src";
    steps.step("adapters have the same files", lists, adapters::check);
    let crates = "take the crate out, or change deny.toml and say why there";
    steps.step("licenses, bans and sources of all crates", crates, crates::check);
    if cargo(&["deny", "--version"]).works() {
        steps.step("cargo deny", "see what is printed above; the lists are in deny.toml", || {
            cargo(&["deny", "check"]).run()
        });
    } else {
        steps.not_run("cargo deny", "it is not installed; known vulnerabilities were not looked up");
    }
    steps.finish()
}
