//! Where a server keeps its files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A new temporary folder, which its guardian removes.
#[derive(Debug)]
pub(super) struct Directory(PathBuf);

impl Directory {
    pub(super) fn new(name: &str) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("actornot-{name}-{}-{count}", std::process::id());
            let path = std::env::temp_dir().join(name);
            match fs::create_dir(&path) {
                Ok(()) => {
                    // A server that runs as somebody else must get through to its own folder.
                    fs::set_permissions(&path, fs::Permissions::from_mode(0o711))
                        .map_err(|error| format!("{}: {error}", path.display()))?;
                    return Ok(Self(path));
                }
                // Left by a process with our number that was killed together with its guardian.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(format!("{}: {error}", path.display())),
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// A folder inside it that only its owner may read.
    pub(super) fn inner(&self, name: &str) -> Result<PathBuf, String> {
        let path = self.0.join(name);
        fs::create_dir(&path)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o700)))
            .map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    }
}
