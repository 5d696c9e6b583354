//! One process of a server.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use super::account::Account;

/// A server process, and how to start it again.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) account: Option<Account>,
    pub(super) folder: PathBuf,
    pub(super) port: u16,
    pub(super) child: Option<Child>,
}

impl Member {
    pub(super) fn start(&mut self) -> Result<(), String> {
        use std::os::unix::process::CommandExt;
        let wrong = |error| format!("{}: {error}", self.program.display());
        let log = File::options().create(true).append(true).open(self.log()).map_err(wrong)?;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).current_dir(&self.folder).stdin(Stdio::null());
        command.stdout(log.try_clone().map_err(wrong)?).stderr(log);
        // An interrupt from the keyboard is for the tests, which then end their servers.
        command.process_group(0);
        if let Some(account) = self.account {
            account.run(&mut command);
        }
        self.child = Some(command.spawn().map_err(wrong)?);
        Ok(())
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// How it has ended, if it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().ok().flatten())
    }

    /// Sends a signal to it and to the processes it has made: some servers are a process for each connection.
    pub(super) fn signal(&self, signal: &str) {
        let Some(pid) = self.pid() else { return };
        let pids: Vec<u32> = [pid].into_iter().chain(children(pid)).collect();
        send(signal, &pids);
    }

    /// Sends a signal to it alone.
    pub(super) fn ask(&self, signal: &str) {
        if let Some(pid) = self.pid() {
            send(signal, &[pid]);
        }
    }

    /// Waits until it has ended.
    pub(super) fn bury(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.with_extension("log")
    }

    /// The end of what it logged.
    pub(super) fn tail(&self) -> String {
        let text = fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

fn send(signal: &str, pids: &[u32]) {
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    // The shell has it built in; the program of that name is not everywhere. Some may have ended meanwhile.
    let script = r#"signal=$1; shift; kill -s "$signal" "$@""#;
    let mut command = Command::new("sh");
    command.args(["-c", script, "kill", signal]).args(pids);
    let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
}

fn children(pid: u32) -> Vec<u32> {
    let script = r#"cat /proc/"$1"/task/*/children || pgrep -P "$1""#;
    let mut command = Command::new("sh");
    command.args(["-c", script, "children"]).arg(pid.to_string()).stderr(Stdio::null());
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}
