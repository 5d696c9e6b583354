//! What a bare machine lacks, and installing it.

use crate::command::{cargo, program};
use crate::steps::Steps;

/// A program that the build or the tests run, with the Debian packages that bring it.
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) here: fn() -> bool,
    pub(crate) packages: &'static [&'static str],
}

// Compiles the database that the embedded adapter bundles.
const COMPILER: Tool =
    Tool { name: "cc", here: || program("cc", &["--version"]).works(), packages: &["gcc", "libc6-dev"] };

/// As root. Services that come with a package are not started: the tests start their own servers, and end them.
const INSTALL: &str = r#"set -e
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
fi
apt-get update
DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$@""#;

/// Installs what every task needs. Nothing is printed when nothing is missing.
pub(crate) fn install(steps: &mut Steps) {
    missing(steps, &[COMPILER]);
}

/// Installs the tools that are missing.
pub(crate) fn missing(steps: &mut Steps, tools: &[Tool]) {
    let missing: Vec<&Tool> = tools.iter().filter(|tool| !(tool.here)()).collect();
    if missing.is_empty() {
        return;
    }
    let names: Vec<&str> = missing.iter().map(|tool| tool.name).collect();
    let packages: Vec<&str> = missing.iter().flat_map(|tool| tool.packages.iter().copied()).collect();
    let fix =
        format!("install {} by hand; on Debian: apt-get install {}", names.join(", "), packages.join(" "));
    steps.step(&format!("install {}", names.join(", ")), &fix, || {
        if !program("apt-get", &["--version"]).works() {
            return Err("this machine has no apt-get".into());
        }
        as_root(&[&["sh", "-c", INSTALL, "install"][..], &packages].concat())
    });
}

pub(crate) fn as_root(command: &[&str]) -> Result<String, String> {
    let root = program("id", &["-u"]).output()?.trim() == "0";
    match command {
        [name, arguments @ ..] if root => program(name, arguments).run(),
        _ => program("sudo", command).run(),
    }
}

/// A minimal toolchain comes without rustfmt and clippy.
pub(crate) fn components(steps: &mut Steps) {
    if cargo(&["fmt", "--version"]).works() && cargo(&["clippy", "--version"]).works() {
        return;
    }
    steps.step("install rustfmt and clippy", "rustup component add rustfmt clippy", || {
        program("rustup", &["component", "add", "rustfmt", "clippy"]).run()
    });
}
