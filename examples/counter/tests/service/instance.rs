//! A counter process, which ends with the test.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::client::Client;
use crate::eventually;

pub(crate) struct Instance {
    child: Child,
    /// `host:port`, as it was printed.
    pub(crate) address: String,
    /// Kept open: a process whose stdout is gone would be another test.
    pub(crate) stdout: BufReader<ChildStdout>,
}

pub(crate) fn database(dir: &TempDir) -> String {
    format!("sqlite:{}", file(dir.path()))
}

fn file(dir: &Path) -> String {
    dir.join("counter.db").display().to_string()
}

impl Instance {
    pub(crate) fn start(dir: &TempDir, options: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_counter"))
            .args(["--listen", "127.0.0.1:0", "--database", &database(dir)])
            .args(options)
            .env("RUST_LOG", "warn")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut instance = Self { child, address: String::new(), stdout };
        let mut line = String::new();
        instance.stdout.read_line(&mut line).unwrap();
        let address = line.strip_prefix("Listening on http://").and_then(|rest| rest.split(',').next());
        instance.address = address.unwrap_or_else(|| panic!("it printed {line:?}")).to_owned();
        instance
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.address).unwrap()
    }

    /// SIGKILL: it does not get to do anything any more.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and how it ended.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        eventually("the process ends", Duration::from_secs(20), || self.child.try_wait().unwrap())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
