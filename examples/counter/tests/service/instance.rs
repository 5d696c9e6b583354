//! A counter process, which ends with the test.

use std::io::{BufRead, BufReader};
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

/// The URL of the file that the instances of a test share.
pub(crate) fn database(dir: &TempDir) -> String {
    format!("sqlite:{}", dir.path().join("counter.db").display())
}

impl Instance {
    pub(crate) fn start(dir: &TempDir, options: &[&str]) -> Self {
        Self::start_on(&database(dir), options)
    }

    pub(crate) fn start_on(database: &str, options: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_counter"))
            .args(["--listen", "127.0.0.1:0", "--database", database])
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

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// SIGTERM, and how it ended.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        self.signal("TERM");
        eventually("the process ends", Duration::from_secs(20), || self.child.try_wait().unwrap())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
