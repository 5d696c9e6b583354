//! Servers are found, started, hurt, and ended whatever becomes of whoever started them.
#![allow(clippy::unwrap_used)] // The helpers of tests are tests.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use actornot_testkit::servers::{self, Server, Service};

/// What the test named `the_child` is to do.
const SCRIPT: &str = "ACTORNOT_SERVERS_SCRIPT";
const TELLS: &str = "@child ";

/// Sends one line, and returns one: enough for Redis.
fn say(port: u16, line: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    stream.write_all(format!("{line}\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    let _ = BufReader::new(stream).read_line(&mut answer);
    answer.trim_end().to_owned()
}

/// The value of a key of Redis.
fn value(port: u16, key: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream.write_all(format!("GET {key}\r\nQUIT\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().nth(1).unwrap_or_default().to_owned()
}

/// Runs statements with the client that comes with the server.
fn psql(url: &str, statements: &str) -> Output {
    Command::new("psql")
        .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statements, url])
        .output()
        .expect("psql")
}

fn answer(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Whether a process is there and runs.
fn lives(pid: u32) -> bool {
    // In brackets: one that has ended may wait a while for somebody to take notice.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[allow(clippy::disallowed_methods)] // Nothing tells when a process that is not ours has gone.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// This test program again, running `the_child`.
fn child(script: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "the_child", "--ignored", "--nocapture"]).env(SCRIPT, script);
    for service in Service::SHARED {
        command.env_remove(service.variable());
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn stderr(command: &mut Command) -> String {
    String::from_utf8_lossy(&command.output().expect("a child").stderr).into_owned()
}

#[test]
#[ignore = "the other half of tests below, which start it"]
fn the_child() {
    let script = std::env::var(SCRIPT).expect("started by its parent");
    let (how, name) = script.split_once(' ').expect("what to do, and a service");
    let service = Service::named(name).expect("a service");
    if how == "url" {
        return println!("\n{TELLS}{}", servers::url(service));
    }
    let server = servers::own(service);
    let pids: Vec<String> = server.pids().iter().map(u32::to_string).collect();
    println!("\n{TELLS}{} {}", server.dir().display(), pids.join(" "));
    match how {
        "abort" => std::process::abort(),
        "panic" => panic!("as told"),
        _ => drop(std::io::stdin().read_to_string(&mut String::new())),
    }
}

fn told(child: &mut Child) -> String {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut told = lines.filter_map(|line| line.strip_prefix(TELLS).map(str::to_owned));
    told.next().expect("the child tells")
}

/// Starts a child that owns a server, has it end, and sees that nothing of the server is left.
fn nothing_is_left(how: &str, service: Service) {
    let mut child = child(&format!("{how} {}", service.name())).spawn().expect("a child");
    let told = told(&mut child);
    let mut words = told.split(' ');
    let directory = Path::new(words.next().unwrap());
    let pids: Vec<u32> = words.map(|pid| pid.parse().unwrap()).collect();
    assert!(!pids.is_empty());
    if how == "wait" {
        assert!(directory.exists() && pids.iter().all(|pid| lives(*pid)));
        child.kill().unwrap();
    }
    child.wait().unwrap();
    eventually(&format!("{pids:?} end"), || !pids.iter().any(|pid| lives(*pid)));
    eventually("its files are removed", || !directory.exists());
}

mod each_service_starts_and_answers {
    use super::*;

    fn starts(service: Service, version: &str, members: usize) -> Server {
        let server = servers::own(service);
        assert!(server.version().contains(version), "{}", server.version());
        assert_eq!((server.service(), server.ports().len()), (service, members));
        assert!(server.pids().len() == members && server.pids().iter().all(|pid| lives(*pid)));
        server
    }

    #[test]
    fn postgres_with_durable_settings_and_a_role_that_needs_its_password() {
        let server = starts(Service::Postgres, "PostgreSQL", 1);
        let shown = psql(server.url(), "SHOW fsync; SHOW synchronous_commit; SHOW full_page_writes");
        assert!(answer(&shown).ends_with("on"));
        let encoding = psql(server.url(), "SHOW server_encoding");
        assert_eq!(answer(&encoding), "UTF8");
        let place = format!("127.0.0.1:{}/postgres", server.ports()[0]);
        assert_eq!(answer(&psql(&format!("postgres://locked:secret@{place}"), "SELECT 1")), "1");
        assert!(!psql(&format!("postgres://locked:wrong@{place}"), "SELECT 1").status.success());
    }

    #[test]
    fn pgbouncer_in_front_of_the_server_it_is_told() {
        let behind = servers::own(Service::Postgres);
        let server = servers::own_with(Service::PgBouncer, &[("upstream", behind.url())]);
        assert_eq!(answer(&psql(server.url(), "SHOW port")), behind.ports()[0].to_string());
        assert!(server.version().starts_with("PgBouncer in front of PostgreSQL"));
    }

    #[test]
    fn mongo_with_a_replica_set() {
        let server = starts(Service::Mongo, "MongoDB", 1);
        assert!(server.url().ends_with("/?replicaSet=rs"));
    }

    #[test]
    fn mongo_without_one() {
        let server = starts(Service::MongoStandalone, "MongoDB", 1);
        assert!(server.url().ends_with("/?directConnection=true"));
    }

    #[test]
    fn mongo_with_three_members() {
        starts(Service::MongoThree, "MongoDB", 3);
    }

    #[test]
    fn mongo_with_passwords() {
        let server = servers::own_with(Service::Mongo, &[("auth", "")]);
        assert!(server.url().starts_with("mongodb://root:secret@127.0.0.1:"));
    }

    #[test]
    fn redis_that_writes_before_it_answers() {
        let server = starts(Service::Redis, "Redis", 1);
        assert!(server.dir().join("data0/appendonlydir").exists());
    }

    #[test]
    fn redis_as_a_cluster() {
        let server = starts(Service::RedisCluster, "Redis", 3);
        // Some key of three lies elsewhere, and the node knows where.
        let answers = ["a", "b", "c"].map(|key| say(server.ports()[0], &format!("SET {key} 1")));
        assert!(answers.iter().any(|answer| answer.starts_with("-MOVED")), "{answers:?}");
    }

    #[test]
    fn redis_as_a_cluster_with_replicas() {
        starts(Service::RedisClusterReplicas, "Redis", 6);
    }
}

#[test]
fn a_killed_server_comes_back_with_its_data_on_the_same_port() {
    let mut server = servers::own(Service::Redis);
    let (url, port) = (server.url().to_owned(), server.ports()[0]);
    assert_eq!(say(port, "SET key kept"), "+OK");
    let before = server.pids();
    server.kill();
    assert!(server.pids().is_empty() && TcpStream::connect(("127.0.0.1", port)).is_err());
    server.restart();
    assert_eq!((server.url(), value(port, "key").as_str()), (url.as_str(), "kept"));
    assert_ne!(server.pids(), before);
    server.stop_gracefully();
    server.restart();
    assert_eq!(value(port, "key"), "kept");
}

#[test]
fn a_server_of_many_processes_is_killed_whole_and_comes_back() {
    let mut server = servers::own(Service::Postgres);
    answer(&psql(server.url(), "CREATE TABLE kept (n int); INSERT INTO kept VALUES (5)"));
    for _ in 0..2 {
        server.kill();
        server.restart();
        assert_eq!(answer(&psql(server.url(), "SELECT n FROM kept")), "5");
    }
    server.stop_gracefully();
    server.restart();
    assert_eq!(answer(&psql(server.url(), "SELECT n FROM kept")), "5");
}

#[test]
fn a_replica_set_and_a_cluster_come_back_whole() {
    for service in [Service::MongoThree, Service::RedisClusterReplicas] {
        let mut server = servers::own(service);
        server.kill();
        server.restart();
        assert_eq!(server.pids().len(), server.ports().len());
    }
}

#[test]
fn a_frozen_server_does_not_answer_until_it_is_thawed() {
    let server = servers::own(Service::Redis);
    let port = server.ports()[0];
    server.freeze();
    assert_eq!(say(port, "PING"), "");
    server.thaw();
    assert_eq!(say(port, "PING"), "+PONG");
}

#[test]
fn one_member_is_hurt_and_the_others_are_not() {
    let mut server = servers::own(Service::RedisCluster);
    let ports = server.ports();
    server.kill_member(1);
    assert!(TcpStream::connect(("127.0.0.1", ports[1])).is_err());
    assert_eq!(say(ports[0], "PING"), "+PONG");
    server.restart_member(1);
    assert_eq!(say(ports[1], "PING"), "+PONG");
}

#[test]
fn settings_of_ones_own_win() {
    let server = servers::own_with(Service::Redis, &[("appendfsync", "everysec")]);
    let mut stream = TcpStream::connect(("127.0.0.1", server.ports()[0])).unwrap();
    stream.write_all(b"CONFIG GET appendfsync\r\nQUIT\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("everysec"), "{answer}");
}

#[test]
fn nothing_is_left_when_its_owner_is_killed() {
    for service in [Service::Postgres, Service::Mongo, Service::RedisCluster] {
        nothing_is_left("wait", service);
    }
}

#[test]
fn nothing_is_left_when_its_owner_aborts_or_panics() {
    nothing_is_left("abort", Service::Redis);
    nothing_is_left("panic", Service::Redis);
}

#[test]
fn nothing_is_left_when_it_is_dropped_even_frozen() {
    let server = servers::own(Service::Redis);
    let (pids, directory) = (server.pids(), server.dir().to_owned());
    server.freeze();
    drop(server);
    assert!(!lives(pids[0]) && !directory.exists());
}

#[test]
fn a_shared_server_is_started_once_and_its_version_is_told() {
    let mut child = child("url redis").env("ACTORNOT_TEST_SERVERS", "local").spawn().unwrap();
    assert!(told(&mut child).starts_with("redis://127.0.0.1:"));
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("actornot: redis: Redis ") && text.contains("started on this machine"), "{text}");
    assert_eq!(servers::url(Service::Redis), servers::url(Service::Redis));
}

#[test]
fn the_environment_names_a_server_and_its_version_is_told() {
    let server = servers::own(Service::Redis);
    let mut child = child("url redis");
    let mut child = child.env("ACTORNOT_REDIS_URL", server.url()).spawn().unwrap();
    assert_eq!(told(&mut child), server.url());
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains(server.version()) && text.contains("ACTORNOT_REDIS_URL"), "{text}");
}

#[test]
fn a_missing_program_is_a_failure_that_names_the_command() {
    let mut missing = child("url redis");
    let text = stderr(missing.env("PATH", "/nowhere").env_remove("ACTORNOT_TEST_SERVERS"));
    assert!(text.contains("cargo xtask test, or apt-get install redis-server"), "{text}");
    let mut forced = child("url redis");
    let text = stderr(forced.env("PATH", "/nowhere").env("ACTORNOT_TEST_SERVERS", "local"));
    assert!(text.contains("its program is not on this machine"), "{text}");
    let text = stderr(child("url redis").env("ACTORNOT_TEST_SERVERS", "env"));
    assert!(text.contains("ACTORNOT_REDIS_URL is not set"), "{text}");
}

#[test]
fn a_server_that_ends_by_itself_shows_its_log() {
    let wrong =
        std::panic::catch_unwind(|| servers::own_with(Service::Redis, &[("maxmemory-policy", "generous")]));
    let wrong = *wrong.expect_err("it cannot start").downcast::<String>().unwrap();
    assert!(wrong.contains("has ended by itself") && wrong.contains("generous"), "{wrong}");
}

#[test]
fn the_program_runs_a_command_and_passes_its_exit_code_on() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_servers"));
    command.args(["--only", "redis", "sh", "-c", "echo $ACTORNOT_REDIS_URL; exit 7"]);
    command.env_remove("ACTORNOT_REDIS_URL").env("ACTORNOT_TEST_SERVERS", "local");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert!(output.stdout.starts_with(b"redis://127.0.0.1:"));
}

/// The way through Docker, where an image is named: without a registry there is none to be had. `cargo xtask images`
/// makes them, and runs this.
#[test]
#[ignore = "needs Docker, and images: cargo xtask images"]
fn each_service_starts_in_a_container_and_comes_back_with_its_data() {
    // MongoDB makes its first user for clients of its own machine only, which a container is not.
    let here = |service: &Service| *service != Service::MongoAuth;
    for service in Service::SHARED.into_iter().filter(here) {
        let mut server = servers::own(service);
        assert!(server.pids().is_empty(), "{} is in a container", service.name());
        let port = server.ports()[0];
        match service {
            Service::Postgres => drop(answer(&psql(server.url(), "CREATE TABLE kept (n int)"))),
            Service::Redis => assert_eq!(say(port, "SET key kept"), "+OK"),
            _ => {}
        }
        server.freeze();
        server.thaw();
        server.kill();
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
        server.restart();
        match service {
            Service::Postgres => assert_eq!(answer(&psql(server.url(), "SELECT count(*) FROM kept")), "0"),
            Service::Redis => assert_eq!(value(port, "key"), "kept"),
            _ => {}
        }
    }
    let mut owner = child("wait redis").spawn().expect("a child");
    let folder = told(&mut owner);
    owner.kill().unwrap();
    owner.wait().unwrap();
    eventually("its files are removed", || !Path::new(folder.trim()).exists());
}
