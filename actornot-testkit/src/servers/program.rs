//! Programs of this machine.

use std::path::{Path, PathBuf};

/// A program on PATH, or where distributions put servers besides.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// A program of the newest version in folders like `/usr/lib/postgresql/15/bin`.
pub(super) fn newest(folder: &Path, name: &str) -> Option<PathBuf> {
    let version = |path: &Path| -> Option<u32> { path.file_name()?.to_str()?.parse().ok() };
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("bin").join(name).is_file())
        .collect();
    found.sort_by_key(|path| version(path));
    Some(found.pop()?.join("bin").join(name))
}
