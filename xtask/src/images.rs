//! Images for the tests' way through Docker, made here: where no registry can be reached, there are no others.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;

use crate::check::SERVERS;
use crate::command::{Program, cargo, program};
use crate::servers;
use crate::steps::Steps;
use crate::tools::{self, Tool, as_root};

const ENTRYPOINT: &str = include_str!("../images/entrypoint.sh");
/// What is in the one image that has all these names: the servers, and with curl the library that `mongod` needs.
const PACKAGES: &str = "postgresql,redis-server,pgbouncer,curl";
const NAMES: [(&str, &str); 4] = [
    ("ACTORNOT_POSTGRES_IMAGE", "actornot-local/postgres:latest"),
    ("ACTORNOT_PGBOUNCER_IMAGE", "actornot-local/pgbouncer:latest"),
    ("ACTORNOT_MONGO_IMAGE", "actornot-local/mongo:latest"),
    ("ACTORNOT_REDIS_IMAGE", "actornot-local/redis:latest"),
];

const IN_CONTAINERS: &str = "postgres,pgbouncer,mongo,mongo-standalone,redis,redis-cluster";

/// `images`: makes the images, and runs over them what is tested only there.
pub(crate) fn images() -> ExitCode {
    let mut steps = Steps::new("images");
    let debootstrap = || works("debootstrap") || works("/usr/sbin/debootstrap");
    let needed =
        [Tool { name: "debootstrap", here: debootstrap, packages: &["debootstrap", "ca-certificates"] }];
    tools::install(&mut steps);
    tools::missing(&mut steps, &needed);
    servers::install(&mut steps);
    if !program("docker", &["version"]).works() {
        steps.not_run("servers in containers", "no Docker engine answers");
        return steps.finish();
    }
    let there = NAMES.iter().all(|(_, image)| program("docker", &["image", "inspect", image]).works());
    if there || steps.step("make the images", "see what is printed above", make) {
        steps.step("servers in containers", "mend what the failed test names", || {
            let test =
                ["test", "--package", "actornot-testkit", "--features", "servers", "--test", "servers"];
            let name = "each_service_starts_in_a_container_and_comes_back_with_its_data";
            over(cargo(&[&test[..], &["--", "--exact", name, "--include-ignored"]].concat())).run()
        });
        steps.step("a theme of the suite over containers", "mend what the failed tests name", || {
            // Built as all tests are, so that nothing is built twice.
            let suite = ["cargo", "test", "--workspace", "--features", SERVERS, "--test", "conformance"];
            // A container has no MongoDB that asks for passwords, under which the run role is tried.
            let theme = ["--no-fail-fast", "enqueue::", "--", "--skip", "run_role"];
            over(servers::up(&[&["--only", IN_CONTAINERS], &suite[..], &theme].concat())).run()
        });
    }
    steps.finish()
}

/// A program that finds its servers in containers.
fn over(mut program: Program) -> Program {
    for (variable, image) in NAMES {
        program = program.env(variable, image);
    }
    program.env("ACTORNOT_TEST_SERVERS", "docker")
}

fn works(name: &str) -> bool {
    program(name, &["--version"]).works()
}

fn make() -> Result<String, String> {
    let mongod = servers::mongod().ok_or("there is no mongod")?;
    let folder = servers::tools().join("image");
    let root = folder.join("root");
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let wrong = |error| format!("{}: {error}", folder.display());
    // What an interrupted run has left, which is root's.
    as_root(&["rm", "-rf", &text(&folder)])?;
    fs::create_dir_all(&folder).map_err(wrong)?;
    let entrypoint = folder.join("entrypoint.sh");
    fs::write(&entrypoint, ENTRYPOINT).map_err(wrong)?;
    fs::set_permissions(&entrypoint, fs::Permissions::from_mode(0o755)).map_err(wrong)?;

    // This machine's own release, whose libraries its mongod is known to run with.
    let release =
        fs::read_to_string("/etc/os-release").map_err(|error| format!("/etc/os-release: {error}"))?;
    let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let codename = codename.ok_or("/etc/os-release names no VERSION_CODENAME")?;
    let components = if release.contains("ID=ubuntu") { "main,universe" } else { "main" };
    as_root(&[
        "debootstrap",
        "--variant=minbase",
        &format!("--components={components}"),
        &format!("--include={PACKAGES}"),
        codename,
        &text(&root),
    ])?;
    as_root(&["cp", &text(&entrypoint), &text(&root.join("entrypoint.sh"))])?;
    as_root(&["cp", "-L", &text(&mongod), &text(&root.join("usr/local/bin/mongod"))])?;
    let archive = folder.join("image.tar");
    as_root(&["tar", "-C", &text(&root), "-cf", &text(&archive), "."])?;
    let [(_, first), others @ ..] = NAMES;
    let entry = "ENTRYPOINT [\"/entrypoint.sh\"]";
    let command = "CMD [\"pgbouncer\"]";
    program("docker", &["import", "--change", entry, "--change", command, &text(&archive), first]).run()?;
    for (_, name) in others {
        program("docker", &["tag", first, name]).run()?;
    }
    as_root(&["rm", "-rf", &text(&folder)])
}
