//! What a bare machine lacks, and installing it.

use crate::command::{cargo, program};
use crate::steps::Steps;

/// Programs that the build or the tests run, with the Debian packages that bring them.
const NEEDED: &[(&str, &[&str])] = &[
    // Compiles the database that the embedded adapter bundles.
    ("cc", &["gcc", "libc6-dev"]),
];

/// Installs the programs that are missing. Nothing is printed when none is.
pub(crate) fn install(steps: &mut Steps) {
    let missing: Vec<_> = NEEDED.iter().filter(|(name, _)| !program(name, &["--version"]).works()).collect();
    if missing.is_empty() {
        return;
    }
    let names: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
    let packages: Vec<&str> = missing.iter().flat_map(|(_, packages)| packages.iter().copied()).collect();
    let fix =
        format!("install {} by hand; on Debian: apt-get install {}", names.join(", "), packages.join(" "));
    steps.step(&format!("install {}", names.join(", ")), &fix, || {
        if !program("apt-get", &["--version"]).works() {
            return Err("this machine has no apt-get".into());
        }
        as_root(&["apt-get", "update"])?;
        let install = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes"];
        as_root(&[&install[..], &["--no-install-recommends"], &packages].concat())
    });
}

fn as_root(command: &[&str]) -> Result<String, String> {
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
