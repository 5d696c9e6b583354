//! The user that a server runs as.

use std::path::Path;
use std::process::Command;

/// A user of this machine, by number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Account {
    uid: u32,
    gid: u32,
}

impl Account {
    /// Whom a server that refuses root runs as: nobody else than we, unless we are root.
    pub(super) fn humble() -> Result<Option<Self>, String> {
        let id = Command::new("id").arg("-u").output().map_err(|error| format!("id: {error}"))?;
        if id.stdout.trim_ascii() != b"0" {
            return Ok(None);
        }
        let users =
            std::fs::read_to_string("/etc/passwd").map_err(|error| format!("/etc/passwd: {error}"))?;
        let found = ["postgres", "nobody"].iter().find_map(|name| Self::find(&users, name));
        found.map(Some).ok_or_else(|| "it refuses root, and there is no user postgres or nobody".into())
    }

    fn find(users: &str, name: &str) -> Option<Self> {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some(Self { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
    }

    /// Gives it a file or a folder.
    pub(super) fn give(self, path: &Path) -> Result<(), String> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
            .map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Lets it run a command, which keeps the process id that it is started with.
    pub(super) fn run(self, command: &mut Command) {
        use std::os::unix::process::CommandExt;
        command.uid(self.uid).gid(self.gid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let users = "postgresql:x:1:2::/:/bin/sh\npostgres:x:101:104:admin,,,:/var:/bin/bash\n";
        let found = Account::find(users, "postgres").unwrap();
        assert_eq!((found.uid, found.gid), (101, 104));
        assert!(Account::find(users, "post").is_none());
    }
}
