//! PostgreSQL: how it is started.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::account::Account;
use super::directory::Directory;
use super::member::Member;
use super::program;
use super::settings::Settings;
use super::startup;

const USER: &str = "postgres";

/// Only `locked` must say its password; whoever reaches the port may be anybody else.
const AFTERWARDS: &str = r"
    DO $$ BEGIN EXECUTE format('COPY (SELECT unnest(ARRAY[%L, %L, %L, %L])) TO %L',
        'host all locked all scram-sha-256', 'local all all trust', 'host all all all trust',
        'host replication all all trust', current_setting('hba_file')); END $$;
    SET password_encryption = 'scram-sha-256';
    CREATE ROLE locked LOGIN PASSWORD 'secret';
    SELECT pg_reload_conf()";

pub(super) fn program() -> Option<PathBuf> {
    // Debian puts the servers where PATH does not lead.
    program::newest(Path::new("/usr/lib/postgresql"), "postgres")
        .or_else(|| program::find("postgres"))
        .or_else(|| {
            let output = Command::new("pg_config").arg("--bindir").output().ok()?;
            let folder = String::from_utf8(output.stdout).ok()?;
            Some(Path::new(folder.trim()).join("postgres")).filter(|program| program.is_file())
        })
}

pub(super) fn arguments(port: u16, settings: &Settings) -> Vec<String> {
    // Many test processes, each with a pool.
    let mut all = vec![format!("port={port}"), "max_connections=400".to_owned()];
    all.extend(settings.iter().map(|(name, value)| format!("{name}={value}")));
    all.into_iter().flat_map(|setting| ["-c".to_owned(), setting]).collect()
}

pub(super) fn member(directory: &Directory, port: u16, settings: &Settings) -> Result<Member, String> {
    let program = program().ok_or("postgres has gone")?;
    let account = Account::humble()?;
    let folder = directory.inner("data")?;
    if let Some(account) = account {
        account.give(&folder)?;
    }
    let initdb = program.with_file_name("initdb");
    let mut command = Command::new(&initdb);
    // Only a crash of the machine could lose what this does not wait for, and the machine's tests with it.
    command.arg("-D").arg(&folder).args(["-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync"]);
    command.arg("--locale=C.UTF-8").current_dir(&folder);
    if let Some(account) = account {
        account.run(&mut command);
    }
    let output = command.output().map_err(|error| format!("{}: {error}", initdb.display()))?;
    if !output.status.success() {
        return Err(format!("{}: {}", initdb.display(), String::from_utf8_lossy(&output.stderr)));
    }
    let mut all = vec!["-D".to_owned(), folder.display().to_string()];
    all.extend(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="].map(str::to_owned));
    all.extend(arguments(port, settings));
    Ok(Member { program, arguments: all, account, folder, port, child: None })
}

pub(super) fn url(port: u16) -> String {
    format!("postgres://{USER}@127.0.0.1:{port}/postgres")
}

pub(super) fn hello(host: &str, port: u16, user: &str) -> Result<String, String> {
    let session = startup::connect((host, port), user)?;
    Ok(format!("PostgreSQL {}", session.version))
}

pub(super) fn prepare(port: u16) -> Result<(), String> {
    startup::connect(("127.0.0.1", port), USER)?.run(AFTERWARDS)
}
