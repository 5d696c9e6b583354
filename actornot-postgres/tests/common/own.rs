//! A server of one's own, to be killed.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use actornot_postgres::sqlx::postgres::{PgConnectOptions, PgConnection};
use actornot_postgres::sqlx::{self, ConnectOptions};
use tempfile::TempDir;

/// A server in a directory of its own, on a free port; it ends with this.
pub(crate) struct Server {
    dir: TempDir,
    port: u16,
    process: Option<Child>,
}

/// The directory of the server's programs.
fn programs() -> PathBuf {
    if let Ok(dir) = std::env::var("ACTORNOT_POSTGRES_BIN") {
        return dir.into();
    }
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|all| all.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    found.sort();
    found.pop().expect("ACTORNOT_POSTGRES_BIN must name the directory of initdb and postgres")
}

/// The server refuses to run as root.
fn command(program: &str) -> Command {
    let path = programs().join(program);
    let id = Command::new("id").arg("-u").output().unwrap();
    if id.stdout.trim_ascii() != b"0" {
        return Command::new(path);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(path);
    command
}

impl Server {
    pub(crate) async fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        // Whoever the server runs as.
        for path in [dir.path(), &data] {
            Command::new("chmod").arg("777").arg(path).status().unwrap();
        }
        let _ = Command::new("chown").arg("postgres").arg(&data).stderr(Stdio::null()).status();
        let made = command("initdb")
            .arg("-D")
            .arg(&data)
            .args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let rules = "host all locked 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n";
        std::fs::write(data.join("pg_hba.conf"), rules).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self { dir, port, process: None };
        server.restart().await;
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    pub(crate) async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let options: PgConnectOptions = self.url().parse()?;
        options.connect().await
    }

    /// Starts it again. What the killed one left behind may keep it from starting for a moment.
    pub(crate) async fn restart(&mut self) {
        for _ in 0..200 {
            if self.process.as_mut().is_none_or(|process| process.try_wait().unwrap().is_some()) {
                let process = command("postgres")
                    .arg("-D")
                    .arg(self.dir.path().join("data"))
                    .args(["-p", &self.port.to_string(), "-c", "listen_addresses=127.0.0.1"])
                    .args(["-c", "unix_socket_directories="])
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn();
                self.process = Some(process.unwrap());
            }
            if self.connect().await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the server does not start");
    }

    /// SIGKILL to it and to the processes it started, which would answer for a moment longer.
    pub(crate) fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let children = Command::new("ps").args(["-o", "pid=", "--ppid", &process.id().to_string()]).output();
        let _ = process.kill();
        let children = String::from_utf8(children.unwrap().stdout).unwrap();
        for child in children.split_whitespace() {
            let _ = Command::new("kill").args(["-9", child]).stderr(Stdio::null()).status();
        }
        let _ = process.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
