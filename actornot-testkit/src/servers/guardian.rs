//! Who ends a server when we are gone.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Reads what there is to end until its input ends, which it does when we end, however that comes about.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
pids=
container=
while read -r what which; do
  case $what in
    pids) pids=$which ;;
    container) container=$which ;;
  esac
done
for pid in $pids; do
  children=$(cat /proc/"$pid"/task/*/children || pgrep -P "$pid")
  kill -9 "$pid" $children
done
[ -z "$container" ] || docker rm --force --volumes "$container"
rm -rf "$1" || { sleep 1; rm -rf "$1"; }
"#;

/// A process that outlives us by the moment it takes to kill our servers and to remove their files.
#[derive(Debug)]
pub(super) struct Guardian(Child);

impl Guardian {
    pub(super) fn new(directory: &Path) -> Result<Self, String> {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "guardian"]).arg(directory);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // Whoever kills the group of a test process must not kill this with it.
        command.process_group(0).spawn().map(Self).map_err(|error| format!("sh: {error}"))
    }

    /// The processes to be killed, in place of those told before.
    pub(super) fn pids(&mut self, pids: impl Iterator<Item = u32>) -> Result<(), String> {
        let pids: Vec<String> = pids.map(|pid| pid.to_string()).collect();
        self.tell(&format!("pids {}", pids.join(" ")))
    }

    /// The container to be removed.
    pub(super) fn container(&mut self, id: &str) -> Result<(), String> {
        self.tell(&format!("container {id}"))
    }

    fn tell(&mut self, line: &str) -> Result<(), String> {
        let Some(pipe) = &mut self.0.stdin else { return Err("the guardian has ended".into()) };
        writeln!(pipe, "{line}").map_err(|error| format!("the guardian: {error}"))
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
