//! PgBouncer: how it is started.

use std::fs;
use std::path::PathBuf;

use super::account::Account;
use super::address::Address;
use super::directory::Directory;
use super::member::Member;
use super::program;
use super::settings::Settings;

/// The setting that names the server behind it; there is none of PgBouncer's own with this name.
const UPSTREAM: &str = "upstream";

pub(super) fn program() -> Option<PathBuf> {
    program::find("pgbouncer")
}

/// The server behind it.
pub(super) fn upstream(settings: &Settings) -> Result<Address, String> {
    let url = match settings.get(UPSTREAM) {
        Some(url) => url.to_owned(),
        None => super::url(super::Service::Postgres),
    };
    Address::of(&url).ok_or_else(|| "the URL of the server behind it is none".into())
}

pub(super) fn member(directory: &Directory, port: u16, settings: &Settings) -> Result<Member, String> {
    let program = program().ok_or("pgbouncer has gone")?;
    let account = Account::humble()?;
    let folder = directory.inner("data")?;
    let behind = upstream(settings)?;
    let users = folder.join("users");
    let quoted = |text: &str| text.replace('"', "\"\"");
    let user = format!("\"{}\" \"{}\"\n", quoted(&behind.user), quoted(&behind.password));
    let mut text = format!(
        "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr=127.0.0.1\nlisten_port={port}\n\
         unix_socket_dir=\nauth_type=trust\nauth_file={}\npool_mode=transaction\nmax_client_conn=1000\n\
         default_pool_size=20\nignore_startup_parameters=extra_float_digits\n",
        behind.host,
        behind.port,
        users.display()
    );
    for (name, value) in settings.iter().filter(|(name, _)| *name != UPSTREAM) {
        text.push_str(&format!("{name}={value}\n"));
    }
    let ini = folder.join("ini");
    for (path, text) in [(&users, user), (&ini, text)] {
        fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if let Some(account) = account {
        for path in [&folder, &users, &ini] {
            account.give(path)?;
        }
    }
    let arguments = vec![ini.display().to_string()];
    Ok(Member { program, arguments, account, folder, port, child: None })
}

pub(super) fn url(port: u16, settings: &Settings) -> Result<String, String> {
    let behind = upstream(settings)?;
    Ok(format!("postgres://{}@127.0.0.1:{port}/{}", behind.user, behind.path))
}
