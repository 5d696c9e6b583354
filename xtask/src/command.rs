//! Programs that are run, and what becomes of their output.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use crate::workspace;

/// A program with its arguments, run from the root of the workspace.
pub(crate) struct Program {
    shown: String,
    command: Command,
}

/// The cargo that runs this task.
pub(crate) fn cargo(arguments: &[&str]) -> Program {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut program = program(&cargo, arguments);
    program.shown = format!("cargo {}", arguments.join(" "));
    // What cargo tells this task about itself makes build scripts that look at it run again, and all that is built
    // on them is built again, each time that somebody goes back and forth between the task and plain cargo.
    for (name, _) in std::env::vars_os() {
        if ABOUT_US.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            program.command.env_remove(name);
        }
    }
    program
}

const ABOUT_US: [&str; 2] = ["CARGO_PKG_", "CARGO_MANIFEST_"];

pub(crate) fn program(name: &str, arguments: &[&str]) -> Program {
    let mut command = Command::new(name);
    command.args(arguments).current_dir(workspace::root()).stdin(Stdio::null());
    Program { shown: format!("{name} {}", arguments.join(" ")), command }
}

impl Program {
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.shown = format!("{name}='{value}' {}", self.shown);
        self.command.env(name, value);
        self
    }

    fn failed(&self, how: impl std::fmt::Display) -> String {
        format!("`{}`: {how}", self.shown)
    }

    /// Shows its output as it comes.
    pub(crate) fn run(mut self) -> Result<String, String> {
        println!("$ {}", self.shown);
        let status = self.command.status().map_err(|error| self.failed(error))?;
        if status.success() { Ok(String::new()) } else { Err(self.failed(status)) }
    }

    /// Answers its standard output; shows what it complains about only if it fails.
    pub(crate) fn output(mut self) -> Result<String, String> {
        let output = self.command.output().map_err(|error| self.failed(error))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(self.failed(format!("{}\n{text}", output.status)))
    }

    /// Shows its output as it comes, and hands each line on.
    pub(crate) fn lines(mut self, mut each: impl FnMut(&str)) -> Result<String, String> {
        println!("$ {}", self.shown);
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().map_err(|error| self.failed(error))?;
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let pipes: [Option<Box<dyn Read + Send>>; 2] = [
                child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
                child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
            ];
            for pipe in pipes.into_iter().flatten() {
                let sender = sender.clone();
                scope.spawn(move || {
                    for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                        drop(sender.send(String::from_utf8_lossy(&line).into_owned()));
                    }
                });
            }
            drop(sender);
            for line in lines {
                println!("{line}");
                each(&line);
            }
        });
        let status = child.wait().map_err(|error| self.failed(error))?;
        if status.success() { Ok(String::new()) } else { Err(self.failed(status)) }
    }

    /// Whether it can be run at all.
    pub(crate) fn works(mut self) -> bool {
        let quiet = self.command.stdout(Stdio::null()).stderr(Stdio::null());
        quiet.status().is_ok_and(|status| status.success())
    }
}
