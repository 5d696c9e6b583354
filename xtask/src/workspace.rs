//! Where things lie.

use std::fs;
use std::path::{Path, PathBuf};

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_owned()
}

/// The folders of the adapters there are.
pub(crate) fn adapters() -> Vec<&'static str> {
    const ALL: [&str; 4] = ["actornot-sqlite", "actornot-postgres", "actornot-mongo", "actornot-redis"];
    ALL.into_iter().filter(|name| root().join(name).join("Cargo.toml").exists()).collect()
}

/// The crates that must know no database.
pub(crate) const WITHOUT_DATABASE: [&str; 2] = ["actornot-core", "actornot-testkit"];

/// The Rust files below a folder of the workspace, as paths from the root, in order.
pub(crate) fn rust_files(folder: &str) -> Result<Vec<String>, String> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(root().join(&folder)).map_err(|error| format!("{folder}: {error}"))?;
        for entry in entries {
            let entry = entry.map_err(|error| format!("{folder}: {error}"))?;
            let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                folders.push(path);
            } else if path.ends_with(".rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The text of a file, by its path from the root.
pub(crate) fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(root().join(path)).map_err(|error| format!("{path}: {error}"))
}
