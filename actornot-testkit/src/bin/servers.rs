//! Runs a command while the servers that its tests share are up: `servers [--only postgres,redis] COMMAND ARGS...`
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::{Command, ExitCode};
use std::time::Instant;

use actornot_testkit::servers::{self, Service};

const USAGE: &str = "usage: servers [--only NAME,NAME] COMMAND [ARGUMENT ...]";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(wrong) => {
            say(&wrong);
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<ExitCode, String> {
    let mut arguments = std::env::args_os().skip(1).peekable();
    let mut services = Service::SHARED.to_vec();
    if arguments.next_if(|argument| argument == "--only").is_some() {
        let names = arguments.next().and_then(|names| names.into_string().ok()).ok_or(USAGE)?;
        let named = |name| Service::named(name).ok_or_else(|| format!("{name} is no service\n{USAGE}"));
        services = names.split(',').map(named).collect::<Result<_, _>>()?;
    }
    let mut command = Command::new(arguments.next().ok_or(USAGE)?);
    command.args(arguments);
    // What cargo tells about this program is not about the command, which may be cargo: it would have build scripts
    // run again that look at it.
    for (name, _) in std::env::vars_os() {
        let shown = name.to_string_lossy();
        if shown.starts_with("CARGO_PKG_") || shown.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }

    let began = Instant::now();
    let started: Vec<_> = services
        .into_iter()
        .map(|service| {
            let start = move || {
                let url = servers::url(service);
                say(&format!("{} is up after {:.1} s", service.name(), began.elapsed().as_secs_f64()));
                url
            };
            (service, std::thread::spawn(start))
        })
        .collect();
    let mut up = true;
    for (service, starting) in started {
        match starting.join() {
            Ok(url) => drop(command.env(service.variable(), url)),
            // Its panic has told why.
            Err(_) => up = false,
        }
    }
    let status = up.then(|| command.status());
    servers::end();
    match status {
        None => Err("not all servers are up, so the command was not run".into()),
        Some(Err(error)) => Err(format!("{}: {error}", command.get_program().display())),
        Some(Ok(status)) => Ok(match status.code() {
            Some(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
            // Killed.
            None => ExitCode::FAILURE,
        }),
    }
}

fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "servers: {text}");
}
