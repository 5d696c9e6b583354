//! The command line.

use std::ffi::OsString;
use std::time::Duration;

use lexopt::prelude::*;

pub(crate) const HELP: &str = "\
A webhook service that counts. Several instances may share one database.

Usage: counter [OPTIONS]

  --listen HOST:PORT     where to listen; port 0 takes a free one [default: localhost:8080]
  --database URL         where everything is kept, or DATABASE_URL [default: sqlite:counter.db]
  --role ROLE            both: handle what comes in (the default)
                         front-end: only store it; a worker handles it
                         worker: as both, and look for others' work every second
  --lease SECONDS        how long a crashed instance keeps a user [default: 30]
  --sweep-every SECONDS  how often to look for what a crash left behind [default: 30; worker: 1]
  --timeout SECONDS      how long a request waits for the database [default: 10]
  -h, --help             this text

RUST_LOG sets what is logged to stderr [default: info].

Routes:
  GET|POST /webhook?user_id=alice&delta=5[&id=evt_1]   an id is counted once in 24 hours
  GET      /status?user_id=alice
  GET      /status[?after=alice][&limit=100]
  GET      /dead-letters[?after=17][&limit=100]
";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Args {
    pub(crate) listen: String,
    pub(crate) database: String,
    pub(crate) role: Role,
    pub(crate) lease: Option<Duration>,
    pub(crate) sweep_every: Option<Duration>,
    pub(crate) timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Both,
    FrontEnd,
    Worker,
}

impl Args {
    /// `None` if help was asked for.
    pub(crate) fn parse(
        args: impl IntoIterator<Item = OsString>,
        database: Option<String>,
    ) -> Result<Option<Self>, lexopt::Error> {
        let mut parsed = Self {
            listen: "localhost:8080".into(),
            database: database.unwrap_or_else(|| "sqlite:counter.db".into()),
            role: Role::Both,
            lease: None,
            sweep_every: None,
            timeout: Duration::from_secs(10),
        };
        let mut parser = lexopt::Parser::from_args(args);
        while let Some(arg) = parser.next()? {
            match arg {
                Long("listen") => parsed.listen = parser.value()?.string()?,
                Long("database") => parsed.database = parser.value()?.string()?,
                Long("role") => parsed.role = parser.value()?.parse_with(role)?,
                Long("lease") => parsed.lease = Some(parser.value()?.parse_with(seconds)?),
                Long("sweep-every") => parsed.sweep_every = Some(parser.value()?.parse_with(seconds)?),
                Long("timeout") => parsed.timeout = parser.value()?.parse_with(seconds)?,
                Short('h') | Long("help") => return Ok(None),
                other => return Err(other.unexpected()),
            }
        }
        if parsed.role == Role::Worker {
            parsed.sweep_every.get_or_insert(Duration::from_secs(1));
        }
        Ok(Some(parsed))
    }
}

fn role(text: &str) -> Result<Role, String> {
    match text {
        "both" => Ok(Role::Both),
        "front-end" => Ok(Role::FrontEnd),
        "worker" => Ok(Role::Worker),
        _ => Err("not one of both, front-end, worker".into()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "not a positive number of seconds".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Args>, String> {
        Args::parse(line.split_whitespace().map(OsString::from), None).map_err(|error| error.to_string())
    }

    #[test]
    fn a_worker_looks_every_second_unless_told_otherwise() {
        let sweep = |line| parse(line).unwrap().unwrap().sweep_every;
        assert_eq!(sweep(""), None);
        assert_eq!(sweep("--role worker"), Some(Duration::from_secs(1)));
        assert_eq!(sweep("--sweep-every=0.25 --role worker"), Some(Duration::from_millis(250)));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for line in
            ["--lease", "--lease -1", "--lease 0", "--lease NaN", "--lease inf", "--role x", "x", "-x"]
        {
            assert!(parse(line).is_err(), "{line}");
        }
        assert_eq!(parse("--help"), Ok(None));
    }
}
